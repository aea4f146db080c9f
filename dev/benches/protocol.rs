//! How long records and handshakes take, by criterion:
//!
//! ```sh
//! cargo bench -p spiped-dev                                                # with AWS-LC
//! cargo bench -p spiped-dev --no-default-features --features rust-crypto   # in pure Rust
//! cargo bench -p spiped-dev -- seal/aes                                    # only what has this in its name
//! ```
//!
//! The first run builds in release mode, which takes some minutes.
//!
//! - `seal`, `open`: one DATA record with this many bytes of the stream, in place in a
//!   warm cache, on one core; `thrpt` counts only the bytes of the stream.
//! - `handshake`: everything that one side computes for a new connection, the initiator
//!   in two steps. A responder does its part only for a peer that has the key.
//! - `stranger`: a receiver of 1 to 1,000 keys refuses the random first message of a
//!   stranger, by the hints alone. On an AMD EPYC that took 0.1 µs with 1 key, 0.3 µs with
//!   10, 2.4 µs with 100 and 23 µs with 1,000, so 22 ns a key, with either key exchange.
//!   That is with all in the cache: the program `hostile` measures a running receiver.
//! - `key file`: the values that are derived once, when the program starts.
//!
//! The times of two runs compare only on a quiet machine; `scripts/instructions` counts
//! instructions instead. The name of the build is part of each case, so criterion
//! compares each build with its own last run.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench may fail that way, and is no library"
)]

use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use spiped::protocol::{
    Accepted, Cipher, Greeting, HINT_KEY, HintKeys, KEY_SECRETS, Kex, SharedKey, Suite,
};

use spiped_dev::{BUILD, Handshake, KEY_FILE, SIZES, keys, room};

/// Records that are sealed in advance and then opened: few enough to stay in the cache.
const AHEAD: u64 = 32;

criterion_group!(benches, measure);
criterion_main!(benches);

fn measure(criterion: &mut Criterion) {
    for suite in Suite::ALL {
        let handshake = Handshake::new(suite);
        if suite.kex == Kex::X25519 {
            seal(criterion, &handshake, suite.cipher);
            open(criterion, &handshake, suite.cipher);
        }
        let mut group = criterion.benchmark_group(format!("{BUILD}/handshake/{suite}"));
        group.bench_function("initiator starts", |bencher| bencher.iter(|| handshake.start()));
        group.bench_function("responder", |bencher| bencher.iter(|| handshake.respond()));
        group.bench_function("initiator finishes", |bencher| {
            bencher.iter_batched(
                || handshake.replied(),
                Handshake::finish,
                BatchSize::NumIterations(AHEAD),
            );
        });
    }
    for kex in Kex::ALL {
        stranger(criterion, kex);
    }
    criterion.bench_function(&format!("{BUILD}/key file"), |bencher| {
        bencher.iter(|| SharedKey::from_key_file(black_box(&KEY_FILE), Box::new([0; KEY_SECRETS])));
    });
}

/// The cipher makes no difference, as no tag is looked at.
fn stranger(criterion: &mut Criterion, kex: Kex) {
    let suite = Suite { kex, cipher: Cipher::Aes256Gcm };
    let keys = keys(1000);
    let hasher = RandomState::new();
    let random = (0..suite.message_1()).map(|at| hasher.hash_one(at).to_le_bytes()[0]);
    let message: Vec<u8> = [suite.byte()].into_iter().chain(random.skip(1)).collect();
    let mut group = criterion.benchmark_group(format!("{BUILD}/stranger/{kex}"));
    for count in [1, 10, 100, 1000] {
        group.throughput(Throughput::Elements(count.try_into().unwrap()));
        let keys = &keys[..count];
        let hint_keys = HintKeys::of(keys, vec![0; count * HINT_KEY]);
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            let accepted = Accepted::default();
            let key = |number: usize| keys.get(number);
            let read = || Greeting::read_among(black_box(&message), &hint_keys, key, accepted);
            bencher.iter(|| assert!(read().is_err()));
        });
    }
}

fn seal(criterion: &mut Criterion, handshake: &Handshake, cipher: Cipher) {
    let (mut sender, _) = handshake.streaming();
    let mut group = criterion.benchmark_group(format!("{BUILD}/seal/{cipher}"));
    for size in SIZES {
        let mut record = room(size);
        group.throughput(Throughput::Bytes(size.try_into().unwrap()));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| sender.sealer.seal_data(&mut record).unwrap());
        });
    }
}

fn open(criterion: &mut Criterion, handshake: &Handshake, cipher: Cipher) {
    let (mut sender, mut receiver) = handshake.streaming();
    let mut group = criterion.benchmark_group(format!("{BUILD}/open/{cipher}"));
    for size in SIZES {
        group.throughput(Throughput::Bytes(size.try_into().unwrap()));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_batched_ref(
                || {
                    let mut record = room(size);
                    sender.sealer.seal_data(&mut record).unwrap();
                    record
                },
                |record| receiver.opener.open(record).unwrap(),
                BatchSize::NumIterations(AHEAD),
            );
        });
    }
}
