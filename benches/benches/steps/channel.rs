//! Signing, paying and being paid.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use flash_benches::channel::{NETWORK, Pair, key, payment, payments};
use flash_proto::{
    ChannelId, LaneState, PaymentList, Side, codec,
    limits::PEER_FRAME_BYTES_MAX,
    message::{ChannelMessage, Update},
};

const BATCHES: [usize; 3] = [1, 100, 5_000];

pub(crate) fn all(criterion: &mut Criterion) {
    signatures(criterion);
    lists(criterion);
    updates(criterion);
}

fn signatures(criterion: &mut Criterion) {
    let state = LaneState::new(ChannelId::new([9; 32]), Side::A);
    let (key, signed) = (key(Side::A), state.sign(NETWORK, &key(Side::A)));
    let public = key.public();
    let verifier = public.verifier().expect("a key that was just made");
    let mut group = criterion.benchmark_group("signature");
    group.bench_function("sign a lane's state", |bench| bench.iter(|| state.sign(NETWORK, &key)));
    group.bench_function("verify with a key", |bench| bench.iter(|| signed.verify(NETWORK, &public)));
    group.bench_function("verify with a prepared key", |bench| {
        bench.iter(|| signed.verify_with(NETWORK, &verifier));
    });
    group.finish();
}

fn lists(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("payments");
    let state = LaneState::new(ChannelId::new([9; 32]), Side::A);
    for count in BATCHES {
        let list = payments(count);
        let update = Update {
            ticks: None,
            seq: 1,
            cumulative: flash_proto::Amount::new(1),
            payments: list.clone(),
            signature: state.sign(NETWORK, &key(Side::A)).signature,
        };
        let message = ChannelMessage::Update(update);
        let bytes = codec::encode(&message);
        group.throughput(Throughput::Elements(u64::try_from(count).expect("small")));
        group.bench_function(BenchmarkId::new("push", count), |bench| bench.iter(|| payments(count)));
        group.bench_function(BenchmarkId::new("total", count), |bench| bench.iter(|| list.total()));
        // The total and the lane's history hash.
        group.bench_function(BenchmarkId::new("advance", count), |bench| bench.iter(|| state.advance(&list)));
        group.bench_function(BenchmarkId::new("encode", count), |bench| {
            bench.iter(|| codec::encode(&message));
        });
        group.bench_function(BenchmarkId::new("decode", count), |bench| {
            bench.iter(|| codec::decode::<ChannelMessage, PEER_FRAME_BYTES_MAX>(&bytes));
        });
    }
    group.bench_function("push one", |bench| {
        bench.iter_batched_ref(
            PaymentList::new,
            |list| list.push(black_box(&payment())),
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// The whole of an update, with its commit to a store in memory.
fn updates(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("update");
    for count in BATCHES {
        group.throughput(Throughput::Elements(u64::try_from(count).expect("small")));
        group.bench_function(BenchmarkId::new("payer pays", count), |bench| {
            let mut pair = Pair::open();
            bench.iter_custom(|times| {
                (0..times).map(|_| paying(&mut pair, count).0).fold(Duration::ZERO, |sum, part| sum + part)
            });
        });
        group.bench_function(BenchmarkId::new("payee takes", count), |bench| {
            let mut pair = Pair::open();
            bench.iter_custom(|times| {
                (0..times).map(|_| paying(&mut pair, count).1).fold(Duration::ZERO, |sum, part| sum + part)
            });
        });
    }
    group.finish();
}

/// Pays once; how long the payer and the payee took.
fn paying(pair: &mut Pair, count: usize) -> (Duration, Duration) {
    let started = Instant::now();
    pair.payer.pay(count);
    let paying = started.elapsed();
    let said = pair.payer.said();
    let started = Instant::now();
    pair.payee.take(said);
    let taken = started.elapsed();
    pair.settle();
    (paying, taken)
}
