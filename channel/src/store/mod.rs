//! The store: batches that are on the disk when `commit` returns, and the barrier that waits for them.
//!
//! The rule that everything else leans on is *persist, then send or acknowledge, then tell the user*
//! (I10). Types keep it: what may only happen afterwards sits behind a [`Barrier`], and only the
//! [`Durable`] token of a commit opens it.
//!
//! A store is one ordered map per [`Table`]. Every value carries a version byte and a checksum over
//! table, key and value, so that a flipped bit or a record under a wrong key is found on reading and
//! never becomes a wrong answer (I13). A store that moves to another machine adds a fencing number to
//! `commit`; nothing here holds an iterator, so that it can.
//!
//! ```
//! use flash_channel::store::{Barrier, Batch, MemoryStore, Store, Table};
//!
//! const NOTES: Table = Table::small(200, "notes");
//! let store = MemoryStore::new();
//! let mut batch = Batch::new();
//! batch.put(NOTES, b"k", b"v".to_vec());
//! let ack = Barrier::new("may be sent once the note is durable");
//!
//! let durable = store.commit(&batch)?;
//! assert_eq!(ack.open(&durable), "may be sent once the note is durable");
//! assert_eq!(store.get(NOTES, b"k")?.as_deref(), Some(&b"v"[..]));
//! # Ok::<(), flash_channel::store::StoreError>(())
//! ```

#[cfg(any(feature = "journal", feature = "sled"))]
mod directory;
mod envelope;
#[cfg(feature = "journal")]
mod journal;
#[cfg(all(feature = "journal", feature = "sled"))]
mod kind;
mod memory;
pub mod records;
#[cfg(feature = "sled")]
mod sled_store;
#[cfg(test)]
mod tests;

use std::io;

#[cfg(any(feature = "journal", feature = "sled"))]
pub use directory::directory_of;
#[cfg(feature = "journal")]
pub use journal::JournalStore;
#[cfg(all(feature = "journal", feature = "sled"))]
pub use kind::StoreKind;
pub use memory::{Fault, MemoryStore};
#[cfg(feature = "sled")]
pub use sled_store::SledStore;
use thiserror::Error;

/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 128;
/// Bytes of a value in a table of small values.
pub const SMALL_VALUE_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a value in a table of large values.
pub const LARGE_VALUE_BYTES_MAX: usize = 256 * 1024;

/// Names one ordered map in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table {
    id: u8,
    name: &'static str,
    large: bool,
}

impl Table {
    /// A table of values of at most [`SMALL_VALUE_BYTES_MAX`]. `id` must be unique in a store and below
    /// 255; ids up to 31 belong to channels, 32 to 63 to the ledger, 64 to 95 to the daemon.
    pub const fn small(id: u8, name: &'static str) -> Self {
        Self { id, name, large: false }
    }

    /// A table of values of at most [`LARGE_VALUE_BYTES_MAX`].
    pub const fn large(id: u8, name: &'static str) -> Self {
        Self { id, name, large: true }
    }

    /// The number that names it in the store.
    pub const fn id(self) -> u8 {
        self.id
    }

    /// The table's name in messages.
    pub const fn name(self) -> &'static str {
        self.name
    }

    const fn value_bytes_max(self) -> usize {
        if self.large { LARGE_VALUE_BYTES_MAX } else { SMALL_VALUE_BYTES_MAX }
    }
}

/// Changes that become durable together or not at all. A later change of one key wins.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: Vec<Change>,
    /// The keys of all changes, one behind the other.
    keys: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Change {
    table: Table,
    key_bytes: usize,
    /// `None` deletes.
    value: Option<Vec<u8>>,
}

impl Batch {
    /// A batch without changes.
    pub const fn new() -> Self {
        Self { changes: Vec::new(), keys: Vec::new() }
    }

    /// Stores `value` under `key`.
    pub fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.change(table, key, Some(value));
    }

    /// Deletes what is under `key`, if anything.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.change(table, key, None);
    }

    fn change(&mut self, table: Table, key: &[u8], value: Option<Vec<u8>>) {
        self.keys.extend_from_slice(key);
        self.changes.push(Change { table, key_bytes: key.len(), value });
    }

    /// Takes over all changes of `other`, after its own.
    pub fn append(&mut self, other: &mut Self) {
        self.changes.append(&mut other.changes);
        self.keys.append(&mut other.keys);
    }

    /// What is stored and what is deleted (without a value), in order.
    pub fn changes(&self) -> impl Iterator<Item = (Table, &[u8], Option<&[u8]>)> {
        let mut keys = self.keys.as_slice();
        self.changes.iter().map(move |Change { table, key_bytes, value }| {
            let (key, rest) = keys.split_at_checked(*key_bytes).unwrap_or_default();
            keys = rest;
            (*table, key, value.as_deref())
        })
    }

    /// Whether there is nothing to commit.
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many changes there are.
    pub const fn len(&self) -> usize {
        self.changes.len()
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> usize {
        self.changes.iter().map(|change| change.value.as_ref().map_or(0, Vec::len)).sum()
    }

    /// Forgets all changes and keeps the memory.
    pub fn clear(&mut self) {
        self.changes.clear();
        self.keys.clear();
    }

    fn check(&self) -> Result<(), StoreError> {
        for (table, key, value) in self.changes() {
            let len = value.map_or(0, <[u8]>::len);
            if key.is_empty() || key.len() > KEY_BYTES_MAX || len > table.value_bytes_max() {
                return Err(StoreError::TooLarge { table: table.name, key: key.len(), value: len });
            }
        }
        Ok(())
    }
}

/// Proof that a batch is on the disk. Only a store's `commit` makes one.
#[derive(Debug)]
#[must_use = "open the barrier of what was waiting for this commit"]
pub struct Durable(());

/// Something that must not happen before a batch is on the disk.
#[derive(Debug)]
#[must_use = "what waits behind a barrier happens only if it is opened"]
pub struct Barrier<T>(T);

impl<T> Barrier<T> {
    /// Puts `after` behind a barrier.
    pub const fn new(after: T) -> Self {
        Self(after)
    }

    /// Gives out what was waiting, once the batch is durable.
    pub fn open(self, _durable: &Durable) -> T {
        self.0
    }
}

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);
/// A page of entries in key order.
pub type Entries = Vec<Entry>;

/// One ordered map per table, with atomic durable batches.
pub trait Store: Send + Sync {
    /// Makes all changes of a batch durable, or none.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] changes nothing. After any other error the store is poisoned: what the
    /// disk holds is not known, a failed sync is never tried again, and every later call fails.
    fn commit(&self, batch: &Batch) -> Result<Durable, StoreError>;

    /// What is under `key`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the value is not the one that was stored.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// At most `limit` entries whose keys begin with `prefix`, in rising order, from the first key
    /// above `after` (from the first at all if `None`).
    ///
    /// # Errors
    /// As [`Store::get`].
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, StoreError>;

    /// The last entry whose key begins with `prefix`.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn last(&self, table: Table, prefix: &[u8]) -> Result<Option<Entry>, StoreError>;
}

impl<S: Store + ?Sized> Store for Box<S> {
    fn commit(&self, batch: &Batch) -> Result<Durable, StoreError> {
        (**self).commit(batch)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        (**self).get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, StoreError> {
        (**self).scan(table, prefix, after, limit)
    }

    fn last(&self, table: Table, prefix: &[u8]) -> Result<Option<Entry>, StoreError> {
        (**self).last(table, prefix)
    }
}

/// Why the store could not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A key or value is longer than its table allows. Nothing changed.
    #[error(
        "table {table}: a key of {key} bytes with a value of {value} bytes is larger than the table allows"
    )]
    TooLarge {
        /// The table.
        table: &'static str,
        /// Bytes of the key.
        key: usize,
        /// Bytes of the value.
        value: usize,
    },
    /// A stored value is not the one that was stored.
    #[error(
        "table {table}, key {key}: the stored value is damaged ({what}); restore the directory from a backup"
    )]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The key, in hexadecimal.
        key: String,
        /// What does not fit.
        what: &'static str,
    },
    /// A value was written by a newer version of this software.
    #[error("table {table}: a value has format version {version}, newer than this software knows; update it")]
    Newer {
        /// The table.
        table: &'static str,
        /// The version found.
        version: u8,
    },
    /// The disk refused.
    #[error("the disk refused: {0}; nothing is retried, stop, see to the disk and start again")]
    Io(io::Error),
    /// The disk is full.
    #[error("the disk is full; make room and start again")]
    Full,
    /// An earlier call failed, so what the disk holds is not known.
    #[error("the store failed earlier and must be opened again")]
    Poisoned,
    /// Another process has the directory open.
    #[error("{0} is in use by another process; two must never run on one directory")]
    InUse(String),
    /// The files do not fit together: something of them is damaged or gone.
    #[error("the store is damaged ({0}); restore the directory from a backup")]
    Damaged(String),
    /// The directory was made by a store of another kind.
    #[error("{directory} was made by the store {made_by}; open it with that, or choose another directory")]
    OtherKind {
        /// The directory.
        directory: String,
        /// The store that made it.
        made_by: &'static str,
    },
    /// The directory belongs to another network or key.
    #[error("{0} belongs to another network or identity; choose another directory")]
    WrongIdentity(String),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::StorageFull { Self::Full } else { Self::Io(error) }
    }
}
