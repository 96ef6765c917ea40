//! What the writer commits, and how it is found again.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
};

use flash_channel::store::{Batch, JournalStore, LARGE_VALUE_BYTES_MAX, SledStore, Store, StoreError, Table};

use super::{random::Random, recording::ACK};

const HEAD: Table = Table::small(1, "head");
const SMALL: Table = Table::small(2, "small");
const LARGE: Table = Table::large(3, "large");
const TABLES: [Table; 3] = [HEAD, SMALL, LARGE];
const IDENTITY: &[u8] = b"power cut";
/// The writer closes and opens its store after so many commits: recovery must survive a cut as well.
const COMMITS_PER_OPENING: u64 = 100;

/// How the writer commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    Journal,
    /// With the journal, but its frames are not synced.
    JournalUnsynced,
    Sled,
    /// With sled, but every commit ends with sled's own `flush`.
    SledFlushOnly,
}

impl Writer {
    pub(crate) const ALL: [Self; 4] = [Self::Journal, Self::JournalUnsynced, Self::Sled, Self::SledFlushOnly];

    fn open(self, directory: &Path) -> Result<Box<dyn Store>, StoreError> {
        Ok(match self {
            Self::Journal => Box::new(JournalStore::open_small(directory, IDENTITY)?),
            Self::JournalUnsynced => Box::new(JournalStore::danger_open_without_sync(directory, IDENTITY)?),
            Self::Sled => Box::new(SledStore::open(directory, IDENTITY)?),
            Self::SledFlushOnly => Box::new(SledStore::danger_open_without_sync(directory, IDENTITY)?),
        })
    }

    /// The same store as it should be.
    const fn synced(self) -> Self {
        match self {
            Self::Journal | Self::JournalUnsynced => Self::Journal,
            Self::Sled | Self::SledFlushOnly => Self::Sled,
        }
    }
}

/// The table, the key and what is put there (`None`: deleted).
type Change = (usize, Vec<u8>, Option<Vec<u8>>);

/// The changes of commit `number`, the same every time: a few entries, sometimes a large one, sometimes more
/// than a whole segment of sled's.
fn changes(number: u64) -> Vec<Change> {
    let mut random = Random(number);
    let mut changes = vec![(0, b"head".to_vec(), Some(number.to_le_bytes().to_vec()))];
    let small = if random.below(50) == 0 { 600 } else { 1 + random.below(8) };
    for _ in 0..small {
        let key = random.below(500).to_be_bytes().to_vec();
        let len = random.below(2_000);
        changes.push((1, key, (random.below(6) > 0).then(|| random.bytes(len))));
    }
    if random.below(20) == 0 {
        let key = random.below(6).to_be_bytes().to_vec();
        let len = random.below(LARGE_VALUE_BYTES_MAX);
        changes.push((2, key, (random.below(6) > 0).then(|| random.bytes(len))));
    }
    changes
}

/// Checksum over everything that is stored: of table, key and the value's checksum, in order.
fn digest<'a>(entries: impl Iterator<Item = (usize, &'a [u8], u32)>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for (table, key, value) in entries {
        hasher.update(&table.to_le_bytes());
        hasher.update(key);
        hasher.update(&value.to_le_bytes());
    }
    hasher.finalize()
}

/// What must be found after each commit, that of an empty store first.
pub(crate) fn digests(commits: u64) -> Vec<u32> {
    let mut model: BTreeMap<(usize, Vec<u8>), u32> = BTreeMap::new();
    let digest_of = |model: &BTreeMap<(usize, Vec<u8>), u32>| {
        digest(model.iter().map(|((table, key), value)| (*table, &key[..], *value)))
    };
    let mut digests = vec![digest_of(&model)];
    for number in 1..=commits {
        for (table, key, value) in changes(number) {
            match value {
                Some(value) => model.insert((table, key), crc32fast::hash(&value)),
                None => model.remove(&(table, key)),
            };
        }
        digests.push(digest_of(&model));
    }
    digests
}

fn acknowledge(number: u64) {
    // One write, to a stream without a buffer: its place in the trace is when the world was told.
    io::stderr().write_all(format!("{ACK}{number}\n").as_bytes()).unwrap();
}

fn batch(number: u64) -> Batch {
    let mut batch = Batch::new();
    for (table, key, value) in changes(number) {
        match value {
            Some(value) => batch.put(TABLES[table], &key, value),
            None => batch.delete(TABLES[table], &key),
        }
    }
    batch
}

/// Makes `commits` commits in `directory`, acknowledging each.
pub(crate) fn write(writer: Writer, directory: &Path, commits: u64) {
    let open = || writer.open(directory).unwrap();
    let mut store = open();
    for number in 1..=commits {
        let _ = store.commit(&batch(number)).unwrap();
        acknowledge(number);
        if number.is_multiple_of(COMMITS_PER_OPENING) {
            drop(store);
            store = open();
        }
    }
}

/// What is in a directory.
pub(crate) struct Found {
    /// The newest commit.
    pub(crate) head: u64,
    /// Over all that is stored.
    pub(crate) digest: u32,
    /// The same after one more commit.
    pub(crate) digest_after: u32,
}

/// Looks into `directory` and makes the next commit there.
pub(crate) fn read(writer: Writer, directory: &Path) -> Result<Found, StoreError> {
    let store = writer.synced().open(directory)?;
    let head = store.get(HEAD, b"head")?.map_or(0, |head| u64::from_le_bytes(head.try_into().unwrap()));
    let digest = digest_of(store.as_ref())?;
    let _ = store.commit(&batch(head + 1))?;
    Ok(Found { head, digest, digest_after: digest_of(store.as_ref())? })
}

fn digest_of(store: &dyn Store) -> Result<u32, StoreError> {
    let mut found = Vec::new();
    for (index, table) in TABLES.into_iter().enumerate() {
        for (key, value) in store.scan(table, &[], None, usize::MAX)? {
            found.push((index, key, crc32fast::hash(&value)));
        }
    }
    Ok(digest(found.iter().map(|(table, key, value)| (*table, &key[..], *value))))
}
