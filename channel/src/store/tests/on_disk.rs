//! The stores that are in a directory.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;

/// A kind of store, as the tests open it.
pub(super) trait Kind: Store + Sized {
    fn open_in(directory: &Path, identity: &[u8]) -> Result<Self, StoreError>;
    fn bytes(&self) -> u64;
}

impl Kind for SledStore {
    fn open_in(directory: &Path, identity: &[u8]) -> Result<Self, StoreError> {
        Self::open(directory, identity)
    }
    fn bytes(&self) -> u64 {
        self.disk_bytes().unwrap()
    }
}

impl Kind for JournalStore {
    fn open_in(directory: &Path, identity: &[u8]) -> Result<Self, StoreError> {
        Self::open_small(directory, identity)
    }
    fn bytes(&self) -> u64 {
        self.disk_bytes()
    }
}

pub(super) struct OnDisk<K> {
    store: Option<K>,
    directory: TempDir,
}

impl<K: Kind> OnDisk<K> {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = K::open_in(&directory.path().join("store"), b"me").unwrap();
        Self { store: Some(store), directory }
    }
}

impl<K: Kind> Store for OnDisk<K> {
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

impl<K: Kind> Reopen for OnDisk<K> {
    fn reopened(mut self) -> Self {
        self.store = None;
        self.store = Some(K::open_in(&self.directory.path().join("store"), b"me").unwrap());
        self
    }
}

fn put(store: &impl Store, value: u8) {
    let mut batch = Batch::new();
    batch.put(SMALL, b"k", vec![value]);
    let _ = store.commit(&batch).unwrap();
}

#[test]
fn the_names_in_a_directory_without_a_parent_are_synced_as_well() {
    // Where tests run this is the source of the package.
    directory::sync_names(Path::new("src")).unwrap();
    assert!(directory::sync_names(Path::new("nowhere")).is_err());
}

#[test]
fn stores_on_disk_keep_the_promises() {
    promises(OnDisk::<SledStore>::new());
    promises(OnDisk::<JournalStore>::new());
}

fn a_directory_is_for_one<K: Kind>() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = K::open_in(&path, b"me").unwrap();
    assert!(matches!(K::open_in(&path, b"me"), Err(StoreError::InUse(_))));
    drop(store);
    assert!(matches!(K::open_in(&path, b"you"), Err(StoreError::WrongIdentity(_))));
    K::open_in(&path, b"me").unwrap();
}

#[test]
fn a_directory_is_for_one_process_and_one_identity() {
    a_directory_is_for_one::<SledStore>();
    a_directory_is_for_one::<JournalStore>();
}

#[test]
fn a_directory_is_opened_by_the_store_that_made_it_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let [sled, journal] = ["sled", "journal"].map(|name| directory.path().join(name));
    put(&SledStore::open(&sled, b"me").unwrap(), 1);
    put(&JournalStore::open(&journal, b"me").unwrap(), 2);
    let refused = JournalStore::open(&sled, b"me").unwrap_err().to_string();
    assert!(refused.contains("was made by the store sled"), "{refused}");
    let refused = SledStore::open(&journal, b"me").unwrap_err().to_string();
    assert!(refused.contains("was made by the store journal"), "{refused}");
    for (path, value) in [(&sled, 1), (&journal, 2), (&directory.path().join("new"), 3)] {
        let store = StoreKind::open(None, path, b"me").unwrap();
        if value == 3 {
            put(&store, value);
        }
        assert_eq!(store.get(SMALL, b"k").unwrap(), Some(vec![value]));
    }
    for kind in [StoreKind::Journal, StoreKind::Sled] {
        assert_eq!(kind.to_string().parse(), Ok(kind));
        let path = directory.path().join(format!("new {kind}"));
        drop(StoreKind::open(Some(kind), &path, b"me").unwrap());
        assert_eq!(SledStore::made(&path), kind == StoreKind::Sled);
    }
    let refused = StoreKind::open(Some(StoreKind::Journal), &sled, b"me").err();
    assert!(matches!(refused, Some(StoreError::OtherKind { .. })), "{refused:?}");
    assert!("redb".parse::<StoreKind>().unwrap_err().contains("neither `journal` nor `sled`"));
    assert!(directory.path().join("new/journal").exists(), "new ones are made by the journal");
}

fn takes_room<K: Kind>() {
    let store = OnDisk::<K>::new();
    let store = store.store.as_ref().unwrap();
    let before = store.bytes();
    let mut batch = Batch::new();
    for n in 0..20 {
        batch.put(LARGE, &[n], vec![n; LARGE_VALUE_BYTES_MAX]);
    }
    let _ = store.commit(&batch).unwrap();
    assert!(store.bytes() > before);
}

#[test]
fn what_is_stored_takes_room() {
    takes_room::<SledStore>();
    takes_room::<JournalStore>();
}

mod sled_only {
    use super::*;

    #[test]
    fn an_opening_that_was_cut_short_is_begun_again() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("conf"), "segment_si").unwrap();
        fs::write(directory.path().join("db"), "").unwrap();
        let store = SledStore::open(directory.path(), b"me").unwrap();
        put(&store, 7);
        drop(store);
        // Named as if it were newer than any snapshot of sled's.
        fs::write(directory.path().join("snap.7FFFFFFFFFFFFFFF.generating"), "torn").unwrap();
        let store = SledStore::open(directory.path(), b"me").unwrap();
        assert_eq!(store.get(SMALL, b"k").unwrap(), Some(vec![7]));
    }

    #[test]
    fn only_what_an_opening_left_unfinished_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        put(&SledStore::open(directory.path(), b"me").unwrap(), 7);
        let own = directory.path().join("notes.generating");
        fs::write(&own, "somebody's").unwrap();
        let made = || fs::metadata(directory.path().join("conf")).unwrap().created().unwrap();
        let before = made();
        drop(SledStore::open(directory.path(), b"me").unwrap());
        assert!(own.exists());
        assert_eq!(made(), before, "the file is the same");
    }

    #[test]
    fn a_disk_that_refuses_is_not_taken_for_another_process() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("db")).unwrap();
        let refused = SledStore::open(directory.path(), b"me").unwrap_err();
        assert!(matches!(refused, StoreError::Io(_)), "{refused:?}");
    }

    #[test]
    fn no_part_of_a_value_stays_behind() {
        let directory = tempfile::tempdir().unwrap();
        let entries = |value: Option<usize>| {
            let store = SledStore::open(directory.path(), b"me").unwrap();
            let mut batch = Batch::new();
            match value {
                Some(len) => batch.put(LARGE, b"k", vec![1; len]),
                None => batch.delete(LARGE, b"k"),
            }
            let _ = store.commit(&batch).unwrap();
            drop(store);
            sled::open(directory.path()).unwrap().len()
        };
        let one = entries(Some(10));
        assert!(entries(Some(100_000)) > one + 2, "it is in parts");
        assert_eq!((entries(Some(10)), entries(None)), (one, one - 1));
    }

    #[test]
    fn a_note_that_cannot_be_read_is_not_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        drop(SledStore::open(directory.path(), b"me").unwrap());
        fs::remove_file(directory.path().join("closed")).unwrap();
        fs::create_dir(directory.path().join("closed")).unwrap();
        assert!(matches!(SledStore::open(directory.path(), b"me"), Err(StoreError::Io(_))));
    }

    #[test]
    fn no_blob_file_is_ever_made() {
        let store = OnDisk::<SledStore>::new();
        for round in 0..40_u8 {
            let mut batch = Batch::new();
            batch.put(LARGE, &[round], vec![round; LARGE_VALUE_BYTES_MAX]);
            let _ = store.commit(&batch).unwrap();
        }
        let blobs = fs::read_dir(store.directory.path().join("store/blobs")).unwrap();
        assert_eq!(blobs.count(), 0, "sled never syncs its blob files");
    }

    /// A directory that was closed after two commits, with the files of the moment after the first.
    #[test]
    fn a_closed_store_without_its_newest_commit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let [directory, kept] = ["store", "kept"].map(|name| dir.path().join(name));
        let commit_one = |value: u8| put(&SledStore::open(&directory, b"me").unwrap(), value);
        commit_one(1);
        let files =
            || fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path()).filter(|it| it.is_file());
        fs::create_dir(&kept).unwrap();
        for file in files() {
            fs::copy(&file, kept.join(file.file_name().unwrap())).unwrap();
        }
        commit_one(2);
        let note = fs::read(directory.join("closed")).unwrap();
        for file in files() {
            fs::remove_file(file).unwrap();
        }
        for file in fs::read_dir(&kept).unwrap() {
            let file = file.unwrap().path();
            fs::copy(&file, directory.join(file.file_name().unwrap())).unwrap();
        }
        fs::write(directory.join("closed"), note).unwrap();
        for _ in 0..2 {
            let refused = SledStore::open(&directory, b"me").unwrap_err().to_string();
            assert!(refused.contains("the newest commits are missing"), "{refused}");
        }
        // A store that was not closed in order may be whatever its files are.
        fs::remove_file(directory.join("closed")).unwrap();
        let store = SledStore::open(&directory, b"me").unwrap();
        assert_eq!(store.get(SMALL, b"k").unwrap(), Some(vec![1]));
    }
}
