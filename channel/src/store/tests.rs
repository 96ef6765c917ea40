//! The same promises, shown of every store: what was committed is there, in order, also after a
//! reopening, and nothing else is.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SMALL: Table = Table::small(1, "small");
const LARGE: Table = Table::large(2, "large");

/// Opens the same content again.
trait Reopen: Store + Sized {
    fn reopened(self) -> Self;
}

impl Reopen for MemoryStore {
    fn reopened(self) -> Self {
        self.reopen()
    }
}

#[cfg(all(feature = "journal", feature = "sled"))]
mod on_disk;

fn promises(mut store: impl Reopen) {
    let mut batch = Batch::new();
    for n in 0..10_u8 {
        batch.put(SMALL, &[1, n], vec![n]);
        batch.put(LARGE, &[1, n], vec![n; 100_000]);
    }
    batch.delete(SMALL, &[1, 5]);
    batch.put(SMALL, &[0, 200], vec![1]);
    let _ = store.commit(&batch).unwrap();
    store = store.reopened();
    assert_eq!(store.get(SMALL, &[1, 4]).unwrap(), Some(vec![4]));
    assert_eq!(store.get(SMALL, &[1, 5]).unwrap(), None);
    assert_eq!(store.get(LARGE, &[1, 5]).unwrap(), Some(vec![5; 100_000]));
    let keys = |entries: Entries| entries.into_iter().map(|(key, _)| key[1]).collect::<Vec<_>>();
    assert_eq!(keys(store.scan(SMALL, &[1], None, 3).unwrap()), [0, 1, 2]);
    assert_eq!(keys(store.scan(SMALL, &[1], Some(&[1, 3]), 3).unwrap()), [4, 6, 7]);
    assert_eq!(keys(store.scan(LARGE, &[1], Some(&[1, 8]), 3).unwrap()), [9]);
    assert_eq!(keys(store.scan(SMALL, &[1], Some(&[0, 9]), 3).unwrap()), [0, 1, 2], "all are above");
    assert!(store.scan(SMALL, &[1], Some(&[2]), 3).unwrap().is_empty(), "all are below");
    assert!(store.scan(SMALL, &[2], None, 3).unwrap().is_empty());
    assert_eq!(store.last(SMALL, &[1]).unwrap(), Some((vec![1, 9], vec![9])));
    assert_eq!(store.last(SMALL, &[]).unwrap(), Some((vec![1, 9], vec![9])));
    assert_eq!(store.last(SMALL, &[2]).unwrap(), None);

    let mut batch = Batch::new();
    batch.put(LARGE, &[1, 0], vec![1; 10]);
    batch.delete(LARGE, &[1, 1]);
    batch.put(SMALL, &[1, 0], vec![1]);
    batch.put(SMALL, &[1, 0], vec![2]);
    let _ = store.commit(&batch).unwrap();
    assert_eq!(store.get(LARGE, &[1, 0]).unwrap(), Some(vec![1; 10]));
    assert_eq!(store.get(LARGE, &[1, 1]).unwrap(), None);
    assert_eq!(store.get(SMALL, &[1, 0]).unwrap(), Some(vec![2]));
    assert!(
        store.scan(SMALL, &[1], Some(&[2]), 3).unwrap().is_empty(),
        "also of what was not there at the opening"
    );

    let too_large = [
        (vec![8], SMALL_VALUE_BYTES_MAX + 1),
        (vec![], 1),
        (vec![8; KEY_BYTES_MAX + 1], 1),
        (vec![8; KEY_BYTES_MAX + 2], 1),
    ];
    for (key, len) in too_large {
        let mut batch = Batch::new();
        batch.put(SMALL, &[9], vec![0]);
        batch.put(SMALL, &key, vec![0; len]);
        assert!(matches!(store.commit(&batch), Err(StoreError::TooLarge { .. })), "{key:?}, {len}");
        assert_eq!(store.get(SMALL, &[9]).unwrap(), None, "a refused batch changes nothing");
    }
    let (longest, largest) = ([8; KEY_BYTES_MAX], vec![1; SMALL_VALUE_BYTES_MAX]);
    let mut batch = Batch::new();
    batch.put(SMALL, &longest, largest.clone());
    let _ = store.commit(&batch).unwrap();
    assert_eq!(store.get(SMALL, &longest).unwrap(), Some(largest));
}

impl<S: Reopen> Reopen for Box<S> {
    fn reopened(self) -> Self {
        Self::new((*self).reopened())
    }
}

#[test]
fn a_store_in_memory_keeps_the_promises_and_so_does_one_in_a_box() {
    promises(MemoryStore::new());
    promises(Box::new(MemoryStore::new()));
}

#[test]
fn a_batch_says_what_is_in_it_and_a_barrier_gives_out_what_it_held() {
    let (mut batch, mut other) = (Batch::new(), Batch::new());
    batch.put(SMALL, b"a", vec![1]);
    other.delete(LARGE, b"b");
    batch.append(&mut other);
    assert!(other.is_empty());
    let changes: Vec<_> = batch.changes().map(|(table, key, value)| (table.name(), key, value)).collect();
    assert_eq!(changes, [("small", &b"a"[..], Some(&[1][..])), ("large", b"b", None)]);
    assert_eq!(batch.len(), 2);
    let durable = MemoryStore::new().commit(&batch).unwrap();
    assert_eq!(Barrier::new("waits").open(&durable), "waits");
    batch.clear();
    assert_eq!((batch.len(), batch.is_empty()), (0, true));
}

#[test]
fn a_value_without_its_checksum_is_damaged() {
    let wrapped = envelope::wrap(SMALL, b"k", &[]);
    assert_eq!(envelope::unwrap(SMALL, b"k", &wrapped).unwrap(), [0_u8; 0]);
    let short = wrapped.get(..4).unwrap();
    assert!(matches!(envelope::unwrap(SMALL, b"k", short), Err(StoreError::Corrupt { .. })));
    let newer = [&[2], wrapped.get(1..).unwrap()].concat();
    assert!(matches!(envelope::unwrap(SMALL, b"k", &newer), Err(StoreError::Newer { version: 2, .. })));
}

#[test]
fn every_flipped_bit_is_found() {
    let store = MemoryStore::new();
    let mut batch = Batch::new();
    batch.put(SMALL, b"k", vec![7; 20]);
    let _ = store.commit(&batch).unwrap();
    for bit in 0..(20 + 5) * 8 {
        assert!(store.flip_bit(SMALL, b"k", bit));
        assert!(store.get(SMALL, b"k").is_err(), "bit {bit}");
        assert!(store.scan(SMALL, b"", None, 1).is_err(), "bit {bit}");
        store.flip_bit(SMALL, b"k", bit);
    }
    assert_eq!(store.get(SMALL, b"k").unwrap(), Some(vec![7; 20]));
}

#[test]
fn a_failed_commit_poisons_and_is_whole_or_absent() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Full, Fault::Io] {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        batch.put(SMALL, b"a", vec![1]);
        batch.put(SMALL, b"b", vec![2]);
        store.fail_next(fault);
        assert!(store.commit(&batch).is_err());
        assert!(matches!(store.commit(&batch), Err(StoreError::Poisoned)));
        assert!(matches!(store.get(SMALL, b"a"), Err(StoreError::Poisoned)));
        let found = store.reopen().scan(SMALL, b"", None, 9).unwrap().len();
        assert_eq!(found, if fault == Fault::CrashAfter { 2 } else { 0 }, "{fault:?}");
    }
}

/// As with a store on a disk. Fails if the sync comes after the batch can be read.
#[test]
fn what_can_be_read_while_another_thread_commits_is_durable() {
    let store = MemoryStore::new();
    let keys = (0..20_000_u32).map(u32::to_be_bytes);
    std::thread::scope(|scope| {
        let commits = scope.spawn(|| {
            for key in keys.clone() {
                let mut batch = Batch::new();
                batch.put(SMALL, &key, vec![1]);
                let _ = store.commit(&batch).unwrap();
            }
        });
        for key in keys.clone() {
            while !commits.is_finished() && store.get(SMALL, &key).unwrap().is_none() {}
            assert_eq!(store.reopen().get(SMALL, &key).unwrap(), Some(vec![1]));
        }
    });
}

type Change = (bool, u8, Option<usize>);

fn follows_the_reference(mut store: impl Reopen, steps: &[(Vec<Change>, bool)]) -> Result<(), TestCaseError> {
    let mut reference: [BTreeMap<u8, Vec<u8>>; 2] = Default::default();
    for (changes, reopen) in steps {
        let mut batch = Batch::new();
        for (large, key, len) in changes {
            let table = if *large { LARGE } else { SMALL };
            let slot = &mut reference[usize::from(*large)];
            if let Some(len) = len {
                let value = vec![*key; if *large { len * 300 } else { *len }];
                slot.insert(*key, value.clone());
                batch.put(table, &[*key], value);
            } else {
                slot.remove(key);
                batch.delete(table, &[*key]);
            }
        }
        let _ = store.commit(&batch).unwrap();
        if *reopen {
            store = store.reopened();
        }
        for (table, slot) in [SMALL, LARGE].into_iter().zip(&reference) {
            let found: Vec<(u8, Vec<u8>)> = store
                .scan(table, &[], None, 1_000)
                .unwrap()
                .into_iter()
                .map(|(key, value)| (key[0], value))
                .collect();
            prop_assert_eq!(found, slot.clone().into_iter().collect::<Vec<_>>());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn stores_follow_a_plain_map(
        steps in proptest::collection::vec(
            (proptest::collection::vec((any::<bool>(), 0..6_u8, proptest::option::of(0..200_usize)), 0..6), any::<bool>()),
            1..8,
        )
    ) {
        follows_the_reference(MemoryStore::new(), &steps)?;
        #[cfg(all(feature = "journal", feature = "sled"))]
        {
            follows_the_reference(on_disk::OnDisk::<SledStore>::new(), &steps)?;
            follows_the_reference(on_disk::OnDisk::<JournalStore>::new(), &steps)?;
        }
    }
}
