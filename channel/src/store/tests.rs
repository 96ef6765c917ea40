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

#[cfg(feature = "sled")]
mod on_disk {
    use tempfile::TempDir;

    use super::*;

    pub(super) struct OnDisk {
        store: Option<SledStore>,
        directory: TempDir,
    }

    impl OnDisk {
        pub(super) fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = SledStore::open(&directory.path().join("store"), b"me").unwrap();
            Self { store: Some(store), directory }
        }
    }

    impl Store for OnDisk {
        fn commit(&self, batch: &Batch) -> Result<Durable, StoreError> {
            self.store.as_ref().unwrap().commit(batch)
        }
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.store.as_ref().unwrap().get(table, key)
        }
        fn scan(
            &self,
            table: Table,
            prefix: &[u8],
            after: Option<&[u8]>,
            limit: usize,
        ) -> Result<Entries, StoreError> {
            self.store.as_ref().unwrap().scan(table, prefix, after, limit)
        }
        fn last(&self, table: Table, prefix: &[u8]) -> Result<Option<Entry>, StoreError> {
            self.store.as_ref().unwrap().last(table, prefix)
        }
    }

    impl Reopen for OnDisk {
        fn reopened(mut self) -> Self {
            self.store = None;
            self.store = Some(SledStore::open(&self.directory.path().join("store"), b"me").unwrap());
            self
        }
    }

    #[test]
    fn a_directory_is_for_one_process_and_one_identity() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = SledStore::open(&path, b"me").unwrap();
        assert!(matches!(SledStore::open(&path, b"me"), Err(StoreError::InUse(_))));
        drop(store);
        assert!(matches!(SledStore::open(&path, b"you"), Err(StoreError::WrongIdentity(_))));
        SledStore::open(&path, b"me").unwrap();
    }

    #[test]
    fn an_opening_that_was_cut_short_is_begun_again() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("conf"), "segment_si").unwrap();
        std::fs::write(directory.path().join("db"), "").unwrap();
        let store = SledStore::open(directory.path(), b"me").unwrap();
        let mut batch = Batch::new();
        batch.put(SMALL, b"k", b"v".to_vec());
        let _ = store.commit(&batch).unwrap();
        drop(store);
        // Named as if it were newer than any snapshot of sled's.
        std::fs::write(directory.path().join("snap.7FFFFFFFFFFFFFFF.generating"), "torn").unwrap();
        let store = SledStore::open(directory.path(), b"me").unwrap();
        assert_eq!(store.get(SMALL, b"k").unwrap().as_deref(), Some(&b"v"[..]));
    }

    #[test]
    fn a_note_that_cannot_be_read_is_not_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        drop(SledStore::open(directory.path(), b"me").unwrap());
        std::fs::remove_file(directory.path().join("closed")).unwrap();
        std::fs::create_dir(directory.path().join("closed")).unwrap();
        assert!(matches!(SledStore::open(directory.path(), b"me"), Err(StoreError::Io(_))));
    }

    #[test]
    fn what_is_stored_takes_room() {
        let store = OnDisk::new();
        let store = store.store.as_ref().unwrap();
        let before = store.disk_bytes().unwrap();
        let mut batch = Batch::new();
        for n in 0..20 {
            batch.put(LARGE, &[n], vec![n; LARGE_VALUE_BYTES_MAX]);
        }
        let _ = store.commit(&batch).unwrap();
        assert!(store.disk_bytes().unwrap() > before);
    }

    #[test]
    fn no_blob_file_is_ever_made() {
        let store = OnDisk::new();
        for round in 0..40_u8 {
            let mut batch = Batch::new();
            batch.put(LARGE, &[round], vec![round; LARGE_VALUE_BYTES_MAX]);
            let _ = store.commit(&batch).unwrap();
        }
        let blobs = std::fs::read_dir(store.directory.path().join("store/blobs")).unwrap();
        assert_eq!(blobs.count(), 0, "sled never syncs its blob files");
    }
}

fn promises(mut store: impl Reopen) {
    let mut batch = Batch::new();
    for n in 0..10_u8 {
        batch.put(SMALL, &[1, n], vec![n]);
        batch.put(LARGE, &[1, n], vec![n; 100_000]);
    }
    batch.delete(SMALL, &[1, 5]);
    let _ = store.commit(&batch).unwrap();
    store = store.reopened();
    assert_eq!(store.get(SMALL, &[1, 4]).unwrap(), Some(vec![4]));
    assert_eq!(store.get(SMALL, &[1, 5]).unwrap(), None);
    assert_eq!(store.get(LARGE, &[1, 5]).unwrap(), Some(vec![5; 100_000]));
    let keys = |entries: Entries| entries.into_iter().map(|(key, _)| key[1]).collect::<Vec<_>>();
    assert_eq!(keys(store.scan(SMALL, &[1], None, 3).unwrap()), [0, 1, 2]);
    assert_eq!(keys(store.scan(SMALL, &[1], Some(&[1, 3]), 3).unwrap()), [4, 6, 7]);
    assert_eq!(keys(store.scan(LARGE, &[1], Some(&[1, 8]), 3).unwrap()), [9]);
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

    let mut batch = Batch::new();
    batch.put(SMALL, &[9], vec![0]);
    batch.put(SMALL, &[8], vec![0; SMALL_VALUE_BYTES_MAX + 1]);
    assert!(matches!(store.commit(&batch), Err(StoreError::TooLarge { .. })));
    assert_eq!(store.get(SMALL, &[9]).unwrap(), None, "a refused batch changes nothing");
}

#[test]
fn a_store_in_memory_keeps_the_promises() {
    promises(MemoryStore::new());
}

#[cfg(feature = "sled")]
#[test]
fn a_store_on_disk_keeps_the_promises() {
    promises(on_disk::OnDisk::new());
}

/// A directory that was closed after two commits, with the files of the moment after the first.
#[cfg(feature = "sled")]
#[test]
fn a_closed_store_without_its_newest_commit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [directory, kept] = ["store", "kept"].map(|name| dir.path().join(name));
    let commit_one = |value: u8| {
        let store = SledStore::open(&directory, b"me").unwrap();
        let mut batch = Batch::new();
        batch.put(SMALL, b"k", vec![value]);
        let _ = store.commit(&batch).unwrap();
    };
    commit_one(1);
    let files =
        || std::fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path()).filter(|it| it.is_file());
    std::fs::create_dir(&kept).unwrap();
    for file in files() {
        std::fs::copy(&file, kept.join(file.file_name().unwrap())).unwrap();
    }
    commit_one(2);
    let note = std::fs::read(directory.join("closed")).unwrap();
    for file in files() {
        std::fs::remove_file(file).unwrap();
    }
    for file in std::fs::read_dir(&kept).unwrap() {
        let file = file.unwrap().path();
        std::fs::copy(&file, directory.join(file.file_name().unwrap())).unwrap();
    }
    std::fs::write(directory.join("closed"), note).unwrap();
    for _ in 0..2 {
        let refused = SledStore::open(&directory, b"me").unwrap_err().to_string();
        assert!(refused.contains("the newest commits are missing"), "{refused}");
    }
    // A store that was not closed in order may be whatever its files are.
    std::fs::remove_file(directory.join("closed")).unwrap();
    let store = SledStore::open(&directory, b"me").unwrap();
    assert_eq!(store.get(SMALL, b"k").unwrap(), Some(vec![1]));
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
        #[cfg(feature = "sled")]
        follows_the_reference(on_disk::OnDisk::new(), &steps)?;
    }
}
