//! Counts the instructions of records and handshakes with valgrind's callgrind. Unlike
//! times, the counts are equal in every run, but for the keys that AWS-LC draws.
//!
//! ```sh
//! scripts/instructions          # both builds, beside the committed figures
//! scripts/instructions --save   # also writes the figures to dev/instructions.txt
//! ```
//!
//! Each figure is one call, on one core: `seal` and `open` handle one DATA record with
//! this many bytes of the stream, in place; `initiator starts`, `initiator finishes` and
//! `responder` do everything that a side computes before message 1, after message 2 and
//! between them; `key file` derives the values of the start.
//!
//! Valgrind offers the ciphers AES-NI and AVX2, but no SHA, VAES or AVX-512 instructions.
//! On a processor with those, the bulk of a large record and the hashes of a handshake
//! cost less than this count; the code around the ciphers costs what is counted. So
//! compare the figures only with each other, on processors that have AVX2;
//! `cargo bench -p spiped-dev` measures the speed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a bench may fail that way, and prints"
)]

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;

use spiped::protocol::{KEY_SECRETS, Kex, SharedKey, Suite};

use spiped_dev::{BUILD, Handshake, KEY_FILE, SIZES, room};

/// The committed figures: one line each, `build, case: instructions`.
const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");
/// As the only argument: this process runs under callgrind and measures.
const MEASURE: &str = "--measure";

type Figures = BTreeMap<String, u64>;

fn main() {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some(MEASURE) {
        for case in cases() {
            println!("{case}");
        }
        return;
    }
    let mut figures = committed();
    let counted = count();
    println!("{:<45}{:>10}{:>10}", "instructions", "committed", "now");
    for (case, now) in &counted {
        match figures.get(case) {
            Some(&old) => {
                let percent = (*now as f64 / old as f64 - 1.0) * 100.0;
                println!("{case:<45}{old:>10}{now:>10}{percent:>+8.1} %");
            }
            None => println!("{case:<45}{:>10}{now:>10}", "-"),
        }
    }
    if argument.as_deref() == Some("--save") {
        figures.retain(|case, _| !case.starts_with(BUILD));
        figures.extend(counted);
        let lines: Vec<_> = figures.iter().map(|(case, n)| format!("{case}: {n}\n")).collect();
        fs::write(COMMITTED, lines.concat()).unwrap();
    }
}

fn committed() -> Figures {
    let lines = fs::read_to_string(COMMITTED).unwrap_or_default();
    let figure = |line: &str| {
        let (case, n) = line.rsplit_once(": ").unwrap();
        (case.to_owned(), n.parse().unwrap())
    };
    lines.lines().map(figure).collect()
}

/// Runs all cases under callgrind, which writes a file for each of them.
fn count() -> Figures {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let ran = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--toggle-collect=instructions::counted",
            "--dump-after=instructions::counted",
        ])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().unwrap())
        .arg(MEASURE)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let cases = String::from_utf8(ran.stdout).unwrap();
    let total = |(i, case): (u32, &str)| {
        (format!("{BUILD}, {case}"), total(&out.with_extension(i.to_string())))
    };
    (1..).zip(cases.lines()).map(total).collect()
}

/// The count in one of callgrind's files.
fn total(file: &Path) -> u64 {
    let written = fs::read_to_string(file).unwrap();
    let total = written.lines().find_map(|line| line.strip_prefix("totals: "));
    total.unwrap().parse().unwrap()
}

/// Runs each case once in `counted`; returns the names of the cases, in that order.
fn cases() -> Vec<String> {
    let mut names = Vec::new();
    for suite in Suite::ALL {
        let handshake = Handshake::new(suite);
        let (mut sender, mut receiver) = handshake.streaming();
        let cipher = suite.cipher;
        // The records do not depend on the key exchange.
        let sizes = if suite.kex == Kex::X25519 { &SIZES[..] } else { &[] };
        for &size in sizes {
            let mut record = room(size);
            // The very first call is not counted, because it asks what the processor can
            // do.
            for _ in 0..2 {
                sender.sealer.seal_data(&mut record).unwrap();
                receiver.opener.open(&mut record).unwrap();
            }
            counted(&mut || sender.sealer.seal_data(&mut record).unwrap());
            names.push(format!("{cipher}, seal {size:>5}"));
            counted(&mut || assert!(receiver.opener.open(&mut record).is_ok()));
            names.push(format!("{cipher}, open {size:>5}"));
        }
        counted(&mut || drop(handshake.start()));
        names.push(format!("{suite}, initiator starts"));
        counted(&mut || drop(handshake.respond()));
        names.push(format!("{suite}, responder"));
        let mut replied = Some(handshake.replied());
        counted(&mut || drop(replied.take().map(Handshake::finish)));
        names.push(format!("{suite}, initiator finishes"));
    }
    counted(&mut || {
        drop(SharedKey::from_key_file(black_box(&KEY_FILE), Box::new([0; KEY_SECRETS])).unwrap());
    });
    names.push("key file".to_owned());
    names
}

/// Callgrind counts in this function, and writes the count at its end. The function is
/// not generic, so that it has one name.
#[inline(never)]
fn counted(run: &mut dyn FnMut()) {
    run();
}
