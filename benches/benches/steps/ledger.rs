//! The ledger's trees, the order of blocks, and what a milestone costs.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use flash_benches::ledger::{checked, entries, hash, network, state, transfers};
use flash_node_client::{
    ledger::{Checked, merkle, state_tree::StateTree},
    tangle::white_flag,
};
use flash_proto::block::Work;

/// Entries of the state tree.
const ENTRIES: u64 = 100_000;
/// Transfers of a milestone.
const TRANSFERS: usize = 1_000;
/// Blocks of a milestone.
const BLOCKS: u32 = 10_000;

pub(crate) fn all(criterion: &mut Criterion) {
    tree(criterion);
    milestone(criterion);
    blocks(criterion);
}

fn tree(criterion: &mut Criterion) {
    let mut tree = StateTree::new();
    tree.apply(entries(ENTRIES));
    let (root, key, value) = (tree.root(), hash(77), hash(78));
    let proof = tree.prove(&key);
    let mut group = criterion.benchmark_group("state tree of 100,000");
    for count in [1, 1_000] {
        let changes: Vec<_> = (0..count).map(|n| (hash(ENTRIES + n), Some(value))).collect();
        group.bench_function(format!("add {count}"), |bench| {
            bench.iter_batched(
                || (tree.clone(), changes.clone()),
                |(mut tree, changes)| {
                    tree.apply(changes);
                    tree
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.bench_function("prove", |bench| bench.iter(|| tree.prove(black_box(&key))));
    group.bench_function("verify", |bench| bench.iter(|| proof.verify(root, &key, Some(value))));
    group.finish();
    assert!(proof.verify(root, &key, Some(value)).is_ok());
}

fn milestone(criterion: &mut Criterion) {
    let params = network(TRANSFERS);
    let ledger = state(&params);
    let transfer = transfers(&params).swap_remove(0).1;
    let checked = checked(&params);
    let blocks: Vec<_> = checked.iter().map(|(block, it)| (*block, Some(it))).collect();
    assert_eq!(ledger.confirm(1, &blocks).applied.len(), TRANSFERS);
    let leaves: Vec<[u8; 32]> = blocks.iter().map(|(block, _)| *block.as_bytes()).collect();
    let mut group = criterion.benchmark_group("milestone");
    group.bench_function("check a transfer", |bench| {
        bench.iter_batched(
            || transfer.clone(),
            |transfer| Checked::new(transfer, &params),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("confirm 1,000 transfers", |bench| bench.iter(|| ledger.confirm(1, &blocks)));
    group.bench_function("Merkle root of 1,000", |bench| bench.iter(|| merkle::root(leaves.iter().copied())));
    group.finish();
}

fn blocks(criterion: &mut Criterion) {
    let parents = |block: &u32| match block {
        0 => None,
        block => Some(vec![block - 1, block.saturating_sub(1 + block % 7)]),
    };
    let work = Work::of(&[3; 300]);
    let mut group = criterion.benchmark_group("block");
    group.bench_function("white-flag order of 10,000", |bench| {
        bench.iter(|| white_flag::order(&[BLOCKS], parents));
    });
    group.bench_function("proof of work, one try", |bench| bench.iter(|| work.bits(black_box(7))));
    group.finish();
}
