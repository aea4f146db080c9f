//! Whether the time in which a receiver refuses a first message tells anything about its
//! keys, by the method of dudect ("Dude, is my code constant time?", 2016): two classes of
//! messages, in random order, each read timed; then Welch's t-test between the two.
//!
//! ```sh
//! cargo run --release -p spiped-dev --bin timing         # with AWS-LC, 30 seconds
//! cargo run --release -p spiped-dev --bin timing 600     # as many seconds
//! cargo run --release -p spiped-dev --no-default-features --features rust-crypto --bin timing
//! ```
//!
//! The pairs of classes, for each suite and with 1, 10 and 100 keys:
//!
//! - `hint`: a bit of the hint's first byte is wrong | of its last byte.
//! - `key`: the message is of the first key | of the last one; its last tag is wrong.
//! - `tag`: a bit of the last tag's first byte is wrong | of its last byte.
//!
//! Slow reads, which something else on the machine has interrupted, are cropped at several
//! percentiles, and the largest |t| of all crops counts, as in dudect. Above 4.5 the pair is
//! measured again, for four times as long: where there is a leak, |t| grows with the square
//! root of the time, and where there is none, it does not. A second figure above 4.5 is a
//! leak.
//!
//! The control is the same read, followed by a comparison of the last tag that stops at the
//! first wrong byte. A run that does not find this leak has found nothing.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a measurement may end that way, and prints"
)]

use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use spiped::protocol::{Accepted, Greeting, HINT_KEY, HintKeys, SharedKey, Suite};
use spiped_dev::{BUILD, first_message, keys};

/// The numbers of keys.
const KEYS: [usize; 3] = [1, 10, 100];
/// Messages of each class.
const MESSAGES: u8 = 64;
/// The bytes of the last tag and of the hint, from the ends of a message.
const TAG: usize = 16;
const HINT: std::ops::Range<usize> = 1..9;
/// Reads whose classes are drawn at once.
const BATCH: usize = 500;
/// The parts of the reads, the fastest ones, that the tests are made of.
const CROPS: [f64; 6] = [1.0, 0.99, 0.95, 0.9, 0.75, 0.5];
/// dudect's bound.
const BOUND: f64 = 4.5;

/// A pair of classes of messages.
struct Pair<'k> {
    name: String,
    /// All keys twice: those from one on are all keys, in another order.
    ring: Vec<&'k SharedKey>,
    /// What makes their hints, in each of these orders.
    hint_keys: Vec<HintKeys>,
    /// First messages of the first keys.
    right: Vec<Vec<u8>>,
    classes: [Class; 2],
    /// What is done with a message and the one that it was before a byte became wrong.
    read: fn(&[u8], &[u8], Order<'_>),
}

/// All keys in an order, as a receiver has them.
#[derive(Clone, Copy)]
struct Order<'p> {
    keys: &'p [&'p SharedKey],
    hint_keys: &'p HintKeys,
}

/// A class of messages.
#[derive(Clone, Copy)]
struct Class {
    /// The place of the byte that becomes wrong.
    wrong: usize,
    /// Where the key of the message stands among the keys. Each key stands in both places,
    /// so that where it is in memory does not count.
    key: Place,
}

#[derive(Clone, Copy)]
enum Place {
    First,
    Last,
}

fn main() -> ExitCode {
    let seconds = std::env::args().nth(1).map_or(30, |argument| argument.parse().unwrap());
    let all: Vec<_> = keys(KEYS[2]);
    let pairs = pairs(&all);
    let time = Duration::from_secs(seconds) / u32::try_from(pairs.len()).unwrap();
    println!("{BUILD:<52}{:>10}{:>9}{:>9}{:>8}", "reads", "ns", "ns", "|t|");
    let mut is_leak_found = false;
    let mut is_control_found = true;
    for pair in &pairs {
        let mut found = pair.measure(time);
        if found.t() > BOUND {
            found.print(&pair.name, "again");
            found = pair.measure(4 * time);
        }
        let leaks = found.t() > BOUND;
        let is_control = pair.name.starts_with("control");
        let verdict = match (is_control, leaks) {
            (true, true) => "found",
            (true, false) => "NOT FOUND",
            (false, true) => "LEAK",
            (false, false) => "",
        };
        found.print(&pair.name, verdict);
        is_control_found &= leaks || !is_control;
        is_leak_found |= leaks && !is_control;
    }
    let (verdict, code) = match (is_control_found, is_leak_found) {
        (false, _) => ("the leak of a control was not found: measure longer", 2),
        (true, true) => ("the time tells something", 1),
        (true, false) => ("the time tells nothing that this could find; the controls are found", 0),
    };
    println!("{verdict}");
    ExitCode::from(code)
}

fn pairs(all: &[SharedKey]) -> Vec<Pair<'_>> {
    let mut pairs = Vec::new();
    for suite in Suite::ALL {
        for count in KEYS {
            let keys = &all[..count];
            let right = |seed| first_message(suite, &keys[usize::from(seed) % count], seed);
            let right: Vec<_> = (0..MESSAGES).map(right).collect();
            let mut add = |kind: &str, read, classes| {
                let name = format!("{kind:<8}{suite}, {count} keys");
                let ring: Vec<_> = keys.iter().chain(keys).collect();
                let hint_keys = ring.windows(count).take(count);
                let hint_keys = hint_keys
                    .map(|keys| HintKeys::of(keys.iter().copied(), vec![0; count * HINT_KEY]));
                let hint_keys = hint_keys.collect();
                pairs.push(Pair { name, ring, hint_keys, right: right.clone(), classes, read });
            };
            let length = suite.message_1();
            let wrong_at = |wrong| Class { wrong, key: Place::First };
            let tag = [length - TAG, length - 1].map(wrong_at);
            add("hint", read, [HINT.start, HINT.end - 1].map(wrong_at));
            add("tag", read, tag);
            if count == 1 {
                add("control", read_leaking, tag);
            } else {
                let key_at = |key| Class { wrong: length - 1, key };
                add("key", read, [Place::First, Place::Last].map(key_at));
            }
        }
    }
    pairs
}

fn read(message: &[u8], _right: &[u8], Order { keys, hint_keys }: Order<'_>) {
    let key = |number: usize| keys.get(number).copied();
    let accepted = Accepted::default();
    assert!(Greeting::read_among(black_box(message), hint_keys, key, accepted).is_err());
}

/// As [`read`], and leaks how much of the last tag fits.
fn read_leaking(message: &[u8], right: &[u8], order: Order<'_>) {
    read(message, right, order);
    let last = message.len() - TAG;
    for (byte, fits) in message[last..].iter().zip(&right[last..]) {
        if black_box(*byte) != black_box(*fits) {
            break;
        }
    }
}

/// A message with a wrong byte.
struct Drawn<'p> {
    /// The number of its class.
    class: usize,
    message: Vec<u8>,
    /// The message before a byte became wrong.
    right: &'p [u8],
    order: Order<'p>,
}

impl Pair<'_> {
    /// Times reads of both classes in random order.
    fn measure(&self, time: Duration) -> Found {
        let random = RandomState::new();
        let end = Instant::now() + time;
        let mut place = self.right[0].clone();
        let mut crops = Vec::new();
        for batch in 0_u64.. {
            // Drawn and made before the first is read.
            let draw = |number| self.draw(random.hash_one((batch, number)));
            let drawn: Vec<_> = (0..BATCH).map(draw).collect();
            let time = |drawn: &Drawn<'_>| (drawn.class, self.time(drawn, &mut place));
            let times: Vec<_> = drawn.iter().map(time).collect();
            if batch == 0 {
                // Warms up, and shows where to crop.
                let mut sorted: Vec<_> = times.iter().map(|(_, time)| *time).collect();
                sorted.sort_by(f64::total_cmp);
                let at = |part: f64| sorted[(part * (BATCH - 1) as f64) as usize];
                let bound = |part| if part < 1.0 { at(part) } else { f64::INFINITY };
                crops.extend(CROPS.map(|part| (bound(part), [Sample::default(); 2])));
                continue;
            }
            for (class, time) in times {
                for (_, samples) in crops.iter_mut().filter(|(bound, _)| time <= *bound) {
                    samples[class].add(time);
                }
            }
            if Instant::now() > end {
                break;
            }
        }
        Found { crops: crops.into_iter().map(|(_, samples)| samples).collect() }
    }

    /// A message that is drawn at random.
    fn draw(&self, drawn: u64) -> Drawn<'_> {
        let class = (drawn & 1) as usize;
        let number = (drawn >> 1) as usize % usize::from(MESSAGES);
        let Class { wrong, key } = self.classes[class];
        let right = &self.right[number];
        let mut message = right.clone();
        message[wrong] ^= 1 << (number % 8);
        let count = self.hint_keys.len();
        let first = number % count
            + match key {
                Place::First => 0,
                Place::Last => 1,
            };
        let keys = &self.ring[first..first + count];
        let order = Order { keys, hint_keys: &self.hint_keys[first % count] };
        Drawn { class, message, right, order }
    }

    /// How long the read of a message takes. `place` is where every message is when it is
    /// read, so that the state of the caches does not depend on the class.
    fn time(&self, drawn: &Drawn<'_>, place: &mut [u8]) -> f64 {
        place.copy_from_slice(&drawn.message);
        let begin = Instant::now();
        (self.read)(black_box(place), black_box(drawn.right), black_box(drawn.order));
        begin.elapsed().as_nanos() as f64
    }
}

/// The samples of both classes, for each crop.
struct Found {
    crops: Vec<[Sample; 2]>,
}

impl Found {
    /// The largest |t|.
    fn t(&self) -> f64 {
        self.crops.iter().map(|[a, b]| Sample::welch(a, b).abs()).fold(0.0, f64::max)
    }

    fn print(&self, name: &str, verdict: &str) {
        let reads: f64 = self.crops[0].iter().map(|sample| sample.count).sum();
        // The means of the faster three quarters.
        let [a, b] = self.crops[4].map(|sample| sample.mean);
        println!("{name:<52}{reads:>10}{a:>9.1}{b:>9.1}{:>8.1} {verdict}", self.t());
    }
}

/// Mean and variance, by Welford's method.
#[derive(Clone, Copy, Default)]
struct Sample {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Sample {
    fn add(&mut self, time: f64) {
        self.count += 1.0;
        let off = time - self.mean;
        self.mean += off / self.count;
        self.squares += off * (time - self.mean);
    }

    /// Welch's t.
    fn welch(a: &Self, b: &Self) -> f64 {
        let error = |sample: &Self| sample.squares / (sample.count - 1.0) / sample.count;
        (a.mean - b.mean) / (error(a) + error(b)).sqrt()
    }
}
