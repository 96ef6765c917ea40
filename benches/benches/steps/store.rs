//! Commits to the store, on the disk of the temporary directory (`TMPDIR`).

use criterion::{BenchmarkId, Criterion, Throughput};
use flash_channel::store::{Batch, JournalStore, Store, Table};

const TABLE: Table = Table::small(200, "bench");

pub(crate) fn all(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let synced = JournalStore::open(&dir.path().join("synced"), b"bench").expect("a store");
    let unsynced =
        JournalStore::danger_open_without_sync(&dir.path().join("unsynced"), b"bench").expect("a store");
    let mut group = criterion.benchmark_group("commit");
    for (name, store) in [("1 KiB, synced", &synced), ("1 KiB, not synced", &unsynced)] {
        let mut next = 0;
        group.bench_function(name, |bench| {
            bench.iter(|| store.commit(&records(1, 1_024, &mut next)).expect("the disk takes it"));
        });
    }
    for count in [1, 10, 100] {
        let mut next = 0;
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("records of 200 bytes together", count), |bench| {
            bench.iter(|| synced.commit(&records(count, 200, &mut next)).expect("the disk takes it"));
        });
    }
    group.finish();
}

/// Records under keys that change, as those of many channels do.
fn records(count: u64, bytes: usize, next: &mut u64) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..count {
        *next = (*next + 1) % 10_000;
        batch.put(TABLE, &next.to_be_bytes(), vec![0x5a; bytes]);
    }
    batch
}
