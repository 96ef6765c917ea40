//! The embedded store: sled 0.34.7, made to reach the disk.
//!
//! What was found by measurement, and what this module does about it:
//!
//! - sled's `flush` calls `sync_file_range`, which does not make data durable. After every flush this
//!   module calls `sync_data` on a handle of its own to sled's `db` file, and acknowledges only then.
//! - sled never syncs its `conf` file and refuses to open with a torn one. It is synced before the first
//!   byte goes to `db`, and one that a power cut left behind with an empty `db` is made again.
//! - sled takes a snapshot file that is still being written for the newest one, so that a crash in the
//!   middle of an opening, even without a power cut, leaves a directory that it refuses. Such a file is
//!   removed before sled opens; the one before it is still there.
//! - sled moves any page over a quarter of a segment (128 KiB) into a *blob file*, which it never syncs.
//!   A leaf holds up to 17 entries, so no entry may be longer than [`CHUNK_BYTES`]: longer values are
//!   split into chunks in the same batch.
//! - sled takes a damaged piece of its log for the end of the log, and drops all that comes after it without a
//!   word. So each commit has a number, the number of the last one is written beside sled's files when the
//!   store is closed, and a store that then opens with another is refused.
//! - A failed sync may leave pages marked clean although they never reached the disk. After any error
//!   the store is poisoned and nothing is tried again.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    Batch, Durable, Entries, Entry, Store, StoreError, Table,
    directory::{self, IDENTITY},
    envelope,
};

/// Bytes of one entry in sled: 17 of them with their keys stay below the blob threshold.
const CHUNK_BYTES: usize = 6 * 1024;
/// Bytes of sled's page cache. The machines in mind have 1 GB.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// How often and how long a sled that is closing in this process is waited for: five seconds in all.
const CLOSING_TRIES: u32 = 1_000;
const CLOSING_WAIT: Duration = Duration::from_millis(5);
/// The key, beside that of the identity, under which the number of the newest commit is.
const COMMITS: &[u8] = b"commits";
/// The file that has the number of the last commit while the store is closed.
const CLOSED: &str = "closed";
/// First byte of the keys of chunks; tables come before it, since their ids stay below 255.
const CHUNK_SPACE: u8 = 255;

/// A store in a directory.
#[derive(Debug)]
pub struct SledStore {
    db: sled::Db,
    /// A handle of our own to the file that sled writes, to sync it.
    data: File,
    poisoned: AtomicBool,
    sync: bool,
    /// The number of the newest commit. Commits are made one at a time, in the order of their numbers.
    commits: Mutex<u64>,
    directory: PathBuf,
    /// Held as long as the store lives; dropped after `db`.
    _lock: File,
}

impl SledStore {
    /// Whether a directory has a store of this kind.
    pub(super) fn made(directory: &Path) -> bool {
        ["conf", "db"].iter().any(|name| directory.join(name).exists())
    }

    /// Opens or creates the store in `directory` for `identity` (who and which network it belongs to).
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::WrongIdentity`], or the disk's refusal.
    pub fn open(directory: &Path, identity: &[u8]) -> Result<Self, StoreError> {
        Self::open_with(directory, identity, true)
    }

    /// As [`SledStore::open`], but commits end with sled's own `flush` and are lost in a power cut. For
    /// the test that shows just that.
    ///
    /// # Errors
    /// As [`SledStore::open`].
    #[doc(hidden)]
    pub fn danger_open_without_sync(directory: &Path, identity: &[u8]) -> Result<Self, StoreError> {
        Self::open_with(directory, identity, false)
    }

    fn open_with(directory: &Path, identity: &[u8], sync: bool) -> Result<Self, StoreError> {
        directory::create_private(directory)?;
        let lock = directory::lock(directory)?;
        if directory.join("journal").exists() {
            return Err(StoreError::OtherKind {
                directory: directory.display().to_string(),
                made_by: "journal",
            });
        }
        remove_unfinished(directory)?;
        let db = open_sled(directory)?;
        File::open(directory.join("conf"))?.sync_all()?;
        let data = File::options().read(true).write(true).open(directory.join("db"))?;
        data.sync_all()?;
        // sled made the files; their names must survive a power cut as well.
        directory::sync_names(directory)?;
        let (poisoned, commits) = (AtomicBool::new(false), Mutex::new(0));
        let store = Self { db, data, poisoned, sync, commits, directory: directory.to_owned(), _lock: lock };
        if let Err(error) = store.check_commits() {
            // Closing it must not make what is left of it the newest there ever was.
            store.poisoned.store(true, Ordering::Release);
            return Err(error);
        }
        directory::check_identity(&store, directory, identity)?;
        Ok(store)
    }

    /// Refuses a store that has lost commits since it was closed. While it is open nothing can tell.
    fn check_commits(&self) -> Result<(), StoreError> {
        let damaged = |what| envelope::corrupt(IDENTITY, COMMITS, what);
        let newest = match self.get(IDENTITY, COMMITS)? {
            Some(bytes) => u64::from_le_bytes(bytes.try_into().map_err(|_| damaged("not a number"))?),
            None => 0,
        };
        *self.commits.lock().unwrap_or_else(PoisonError::into_inner) = newest;
        let path = self.directory.join(CLOSED);
        match fs::read_to_string(&path) {
            // A power cut may leave it empty: then nothing can be told.
            Ok(text) if text.ends_with('\n') && text.trim_end() != newest.to_string() => {
                return Err(damaged("the newest commits are missing"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        fs::remove_file(&path)?;
        Ok(File::open(&self.directory)?.sync_all()?)
    }

    /// Writes down which commit was the last.
    fn note_closed(&self) -> io::Result<()> {
        let newest = *self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = File::create(self.directory.join(CLOSED))?;
        file.write_all(format!("{newest}\n").as_bytes())?;
        file.sync_all()?;
        File::open(&self.directory)?.sync_all()
    }

    /// Bytes that the store takes on the disk.
    ///
    /// # Errors
    /// The disk's refusal.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.db.size_on_disk().map_err(|error| self.poison(error))
    }

    fn alive(&self) -> Result<(), StoreError> {
        if self.poisoned.load(Ordering::Acquire) { Err(StoreError::Poisoned) } else { Ok(()) }
    }

    fn poison(&self, error: sled::Error) -> StoreError {
        self.poisoned.store(true, Ordering::Release);
        from_sled(error)
    }

    fn sled_batch(&self, batch: &Batch) -> Result<sled::Batch, StoreError> {
        let mut writes = sled::Batch::default();
        for (table, key, value) in batch.changes() {
            if table.large {
                // A new value may have fewer chunks than the old one, a deleted one has none.
                for index in 1..=self.chunks_of(table, key)? {
                    writes.remove(chunk_key(table, key, index));
                }
            }
            match value {
                None => writes.remove(entry_key(table, key)),
                Some(value) => insert(&mut writes, table, key, value),
            }
        }
        Ok(writes)
    }

    /// How many chunks beside the first the value under `key` has.
    fn chunks_of(&self, table: Table, key: &[u8]) -> Result<u16, StoreError> {
        let entry = self.db.get(entry_key(table, key)).map_err(|error| self.poison(error))?;
        Ok(entry.and_then(|entry| split_count(&entry).map(|(count, _)| count)).unwrap_or(0))
    }

    fn assemble(&self, table: Table, key: &[u8], entry: &[u8]) -> Result<Vec<u8>, StoreError> {
        let (count, first) = split_count(entry).ok_or_else(|| envelope::corrupt(table, key, "too short"))?;
        if count == 0 {
            return envelope::unwrap(table, key, first);
        }
        let mut wrapped = first.to_vec();
        for index in 1..=count {
            let chunk = self.db.get(chunk_key(table, key, index)).map_err(|error| self.poison(error))?;
            let chunk = chunk.ok_or_else(|| envelope::corrupt(table, key, "a part is missing"))?;
            wrapped.extend_from_slice(&chunk);
        }
        envelope::unwrap(table, key, &wrapped)
    }

    fn entry(&self, table: Table, found: (sled::IVec, sled::IVec)) -> Result<Entry, StoreError> {
        let (entry_key, entry) = found;
        let key = entry_key.get(1..).unwrap_or_default().to_vec();
        let value = self.assemble(table, &key, &entry)?;
        Ok((key, value))
    }
}

/// An entry is `number of further chunks u16 LE ‖ first part of the wrapped value`.
fn insert(writes: &mut sled::Batch, table: Table, key: &[u8], value: &[u8]) {
    let wrapped = envelope::wrap(table, key, value);
    let mut parts = wrapped.chunks(CHUNK_BYTES);
    let first = parts.next().unwrap_or_default();
    // LARGE_VALUE_BYTES_MAX is far below 65,536 chunks.
    let count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
    let mut entry = count.to_le_bytes().to_vec();
    entry.extend_from_slice(first);
    writes.insert(entry_key(table, key), entry);
    for (index, part) in (1..=count).zip(parts) {
        writes.insert(chunk_key(table, key, index), part);
    }
}

fn split_count(entry: &[u8]) -> Option<(u16, &[u8])> {
    entry.split_first_chunk::<2>().map(|(count, rest)| (u16::from_le_bytes(*count), rest))
}

fn entry_key(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table.id], key].concat()
}

fn chunk_key(table: Table, key: &[u8], index: u16) -> Vec<u8> {
    [&[CHUNK_SPACE, table.id][..], key, &index.to_be_bytes()].concat()
}

/// Removes what an opening that was cut short left behind and sled would refuse: a snapshot that was still
/// being written, and the `conf` as long as `db` is empty, so that nothing was ever acknowledged.
fn remove_unfinished(directory: &Path) -> io::Result<()> {
    let mut data_bytes = 0;
    let mut unfinished = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_name().to_str() {
            Some("db") => data_bytes = entry.metadata()?.len(),
            Some(name) if name.starts_with("snap.") && name.ends_with(".generating") => {
                unfinished.push(entry.path());
            }
            _ => {}
        }
    }
    let conf = directory.join("conf");
    if data_bytes == 0 && conf.exists() {
        unfinished.push(conf);
    }
    unfinished.iter().try_for_each(fs::remove_file)
}

/// Opens sled. A store that was closed a moment ago in this very process may leave background work that
/// still holds sled's own lock; that nobody else is here our lock has shown, so it is waited for.
#[allow(
    clippy::disallowed_methods,
    reason = "the disk is reached from here, and sled's closing shows no other way"
)]
fn open_sled(directory: &Path) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new().path(directory).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    for _ in 0..CLOSING_TRIES {
        match config.open() {
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                thread::sleep(CLOSING_WAIT);
            }
            other => return other.map_err(from_sled),
        }
    }
    Err(StoreError::InUse(directory.display().to_string()))
}

fn from_sled(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) => error.into(),
        other => StoreError::Io(io::Error::other(other)),
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        if self.alive().is_ok() {
            // Without the note nothing is noticed at the next opening, as after a crash.
            let _ = self.note_closed();
        }
    }
}

impl Store for SledStore {
    fn commit(&self, batch: &Batch) -> Result<Durable, StoreError> {
        self.alive()?;
        batch.check()?;
        if batch.is_empty() {
            return Ok(Durable(())); // nothing to wait for
        }
        let mut newest = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut writes = self.sled_batch(batch)?;
        let number = newest.saturating_add(1);
        insert(&mut writes, IDENTITY, COMMITS, &number.to_le_bytes());
        self.db.apply_batch(writes).map_err(|error| self.poison(error))?;
        self.db.flush().map_err(|error| self.poison(error))?;
        if self.sync {
            self.data.sync_data().map_err(|error| self.poison(sled::Error::Io(error)))?;
        }
        *newest = number;
        Ok(Durable(()))
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.alive()?;
        let entry = self.db.get(entry_key(table, key)).map_err(|error| self.poison(error))?;
        entry.map(|entry| self.assemble(table, key, &entry)).transpose()
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, StoreError> {
        self.alive()?;
        let prefix_key = entry_key(table, prefix);
        let start = match after {
            // The smallest key above `after` is `after` with a zero byte.
            Some(after) if after >= prefix => [&entry_key(table, after)[..], &[0]].concat(),
            _ => prefix_key.clone(),
        };
        self.db
            .range(start..)
            .take_while(|found| found.as_ref().map_or(true, |(key, _)| key.starts_with(&prefix_key)))
            .take(limit)
            .map(|found| self.entry(table, found.map_err(|error| self.poison(error))?))
            .collect()
    }

    fn last(&self, table: Table, prefix: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.alive()?;
        let found = self.db.scan_prefix(entry_key(table, prefix)).next_back();
        found.map(|found| self.entry(table, found.map_err(|error| self.poison(error))?)).transpose()
    }
}
