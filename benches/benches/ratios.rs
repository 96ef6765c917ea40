//! Steps against each other, taken in turn in the same run: numbers that another machine, or another
//! load on it, changes little. `-- --test` takes each step a few times only.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use flash_benches::channel::{NETWORK, Pair, key};
use flash_channel::store::{Batch, JournalStore, Store, Table};
use flash_proto::{ChannelId, LaneState, Side};

const TABLE: Table = Table::small(200, "bench");

/// How many times one step takes as long as another.
struct Ratio {
    what: &'static str,
    against: &'static str,
    /// The medians of both.
    step: Duration,
    base: Duration,
}

fn main() {
    // `cargo bench` says so; whoever runs this otherwise only wants to see that it works.
    let given = |name: &str| std::env::args().any(|argument| argument == name);
    let short = given("--test") || !given("--bench");
    let rounds = if short { 3 } else { 201 };
    let ratios = [signatures(rounds), updates(rounds), alone(rounds), synced(rounds), together(rounds)];
    println!("{:<42} {:>12} {:<38} {:>12} {:>9}", "step", "", "against", "", "ratio");
    for Ratio { what, against, step, base } in ratios.into_iter().flatten() {
        let ratio = step.as_secs_f64() / base.as_secs_f64().max(1e-9);
        println!("{what:<42} {step:>12.1?} {against:<38} {base:>12.1?} {ratio:>9.3}");
    }
}

/// Takes both in turn and compares the medians.
fn compare(rounds: usize, mut step: impl FnMut(), mut base: impl FnMut()) -> (Duration, Duration) {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (times, run) in times.iter_mut().zip([&mut step as &mut dyn FnMut(), &mut base]) {
            let started = Instant::now();
            run();
            times.push(started.elapsed());
        }
    }
    let [step, base] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    (step, base)
}

fn signatures(rounds: usize) -> Vec<Ratio> {
    let state = LaneState::new(ChannelId::new([9; 32]), Side::A);
    let (key, signed) = (key(Side::A), state.sign(NETWORK, &key(Side::A)));
    let public = key.public();
    let verifier = public.verifier().expect("a key that was just made");
    let sign = || {
        black_box(state.sign(NETWORK, black_box(&key)));
    };
    let mut ratios = Vec::new();
    let (step, base) = compare(rounds, || assert!(signed.verify_with(NETWORK, &verifier)), sign);
    ratios.push(Ratio { what: "verify with a prepared key", against: "sign", step, base });
    let (step, base) = compare(rounds, || assert!(signed.verify(NETWORK, &public)), sign);
    ratios.push(Ratio { what: "verify with a key", against: "sign", step, base });
    ratios
}

/// One update of many payments against as many updates of one.
fn updates(rounds: usize) -> Vec<Ratio> {
    let (mut one, mut other) = (Pair::open(), Pair::open());
    let batch = || {
        one.payer.pay(100);
        one.settle();
    };
    let singles = || {
        for _ in 0..100 {
            other.payer.pay(1);
            other.settle();
        }
    };
    let (step, base) = compare(rounds.min(51), batch, singles);
    vec![Ratio { what: "an update of 100 payments, both sides", against: "100 updates of one", step, base }]
}

/// What an update costs beyond its signature and its verification.
fn alone(rounds: usize) -> Vec<Ratio> {
    let mut pair = Pair::open();
    let state = LaneState::new(ChannelId::new([9; 32]), Side::A);
    let (key, verifier) = (key(Side::A), key(Side::A).public().verifier().expect("a key"));
    let update = || {
        pair.payer.pay(1);
        pair.settle();
    };
    let crypto = || assert!(state.sign(NETWORK, &key).verify_with(NETWORK, &verifier));
    let (step, base) = compare(rounds, update, crypto);
    vec![Ratio { what: "an update of one payment, both sides", against: "sign and verify", step, base }]
}

fn records(count: usize, bytes: usize, next: &mut u64) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..count {
        *next = (*next + 1) % 10_000;
        batch.put(TABLE, &next.to_be_bytes(), vec![0x5a; bytes]);
    }
    batch
}

fn synced(rounds: usize) -> Vec<Ratio> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let synced = JournalStore::open(&dir.path().join("synced"), b"bench").expect("a store");
    let unsynced =
        JournalStore::danger_open_without_sync(&dir.path().join("unsynced"), b"bench").expect("a store");
    let commit = |store: &JournalStore, next: &mut u64| {
        let _durable = store.commit(&records(1, 1_024, next)).expect("the disk takes it");
    };
    let (mut first, mut second) = (0, 0);
    let (step, base) = compare(rounds, || commit(&synced, &mut first), || commit(&unsynced, &mut second));
    vec![Ratio { what: "a commit of 1 KiB, synced", against: "not synced", step, base }]
}

/// Records that share a commit against records that have one each.
fn together(rounds: usize) -> Vec<Ratio> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = JournalStore::open(dir.path(), b"bench").expect("a store");
    let (mut first, mut second) = (0, 0);
    let shared = || drop(store.commit(&records(100, 200, &mut first)).expect("the disk takes it"));
    let each = || {
        for _ in 0..100 {
            let _durable = store.commit(&records(1, 200, &mut second)).expect("the disk takes it");
        }
    };
    let (step, base) = compare(rounds.min(21), shared, each);
    vec![Ratio { what: "a commit of 100 records", against: "100 commits of one", step, base }]
}
