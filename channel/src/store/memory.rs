//! A store in memory, with the faults of a real one on demand: for tests and simulations.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Batch, Durable, Entries, Entry, Store, StoreError, Table, envelope};

type Key = (u8, Vec<u8>);
type Map = BTreeMap<Key, Vec<u8>>;

/// What the next commit runs into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies before anything is written: the batch is lost.
    CrashBefore,
    /// The machine dies when the batch is written but not synced, and nothing of it is on the disk.
    CrashUnsynced,
    /// The machine dies when the batch is written but not synced, and the disk has it anyway.
    CrashUnsyncedKept,
    /// The process dies when the batch is on the disk but before anyone is told.
    CrashAfter,
    /// The disk is full: nothing of the batch is written.
    Full,
    /// The sync fails: the batch is lost.
    Io,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::CrashBefore,
        Self::CrashUnsynced,
        Self::CrashUnsyncedKept,
        Self::CrashAfter,
        Self::Full,
        Self::Io,
    ];
}

/// A store in memory. Clones share the content, as processes that open one directory after another do.
///
/// As on a disk, a batch is written first and then synced, and one that is not synced may be lost; all of it or
/// nothing, since the real store's batches are atomic. A commit ends with its sync, so that of all batches at most
/// the newest is ever in doubt. What can be read is durable, unless a fault was asked for.
///
/// ```
/// use flash_channel::store::{Batch, Fault, MemoryStore, Store, Table};
/// const NOTES: Table = Table::small(200, "notes");
/// let store = MemoryStore::new();
/// let mut batch = Batch::new();
/// batch.put(NOTES, b"k", b"v".to_vec());
/// store.fail_next(Fault::CrashBefore);
/// assert!(store.commit(&batch).is_err());
/// let reopened = store.reopen();
/// assert_eq!(reopened.get(NOTES, b"k")?, None);
/// # Ok::<(), flash_channel::store::StoreError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    map: Arc<Mutex<Map>>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    poisoned: bool,
    /// What stood under the keys that were written since the last sync, oldest first.
    unsynced: Vec<(Key, Option<Vec<u8>>)>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next commit fails like this; after it the store is poisoned until it is reopened.
    pub fn fail_next(&self, fault: Fault) {
        lock(&self.state).fault = Some(fault);
    }

    /// What a process finds that opens the store again: all that was durable. What was written and not synced
    /// is lost.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let unsynced = std::mem::take(&mut lock(&self.state).unsynced);
        let mut map = lock(&self.map);
        for (key, before) in unsynced.into_iter().rev() {
            match before {
                Some(before) => map.insert(key, before),
                None => map.remove(&key),
            };
        }
        drop(map);
        Self { map: Arc::clone(&self.map), state: Arc::default() }
    }

    /// An independent copy of what is durable now: an old directory, to be restored later.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self { map: Arc::new(Mutex::new(lock(&self.map).clone())), state: Arc::default() }
    }

    /// Flips one bit of the stored value under `key`; false if there is none.
    pub fn flip_bit(&self, table: Table, key: &[u8], bit: usize) -> bool {
        let mut map = lock(&self.map);
        map.get_mut(&(table.id, key.to_vec())).is_some_and(|value| flip(value, bit))
    }

    /// Flips one bit of one stored value, whichever: both numbers are taken modulo what there is. False if
    /// nothing is stored. A second time puts it right again.
    pub fn flip_any_bit(&self, entry: usize, bit: usize) -> bool {
        let mut map = lock(&self.map);
        let at = entry.checked_rem(map.len()).unwrap_or(0);
        map.values_mut().nth(at).is_some_and(|value| flip(value, bit))
    }

    fn alive(&self) -> Result<(), StoreError> {
        if lock(&self.state).poisoned { Err(StoreError::Poisoned) } else { Ok(()) }
    }

    /// Writes a batch, and syncs it before anybody reads it or not at all.
    fn write(&self, batch: &Batch, synced: bool) {
        let mut map = lock(&self.map);
        let mut state = lock(&self.state);
        for (table, key, value) in batch.changes() {
            let at = (table.id, key.to_vec());
            let before = match value {
                Some(value) => map.insert(at.clone(), envelope::wrap(table, key, value)),
                None => map.remove(&at),
            };
            state.unsynced.push((at, before));
        }
        if synced {
            state.unsynced.clear();
        }
    }
}

fn flip(value: &mut [u8], bit: usize) -> bool {
    let at = (bit >> 3).checked_rem(value.len()).unwrap_or(0);
    value.get_mut(at).is_some_and(|byte| {
        *byte ^= 1 << (bit & 7);
        true
    })
}

/// A panic of another thread does not make the map wrong: every change is a single insert or remove.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for MemoryStore {
    fn commit(&self, batch: &Batch) -> Result<Durable, StoreError> {
        self.alive()?;
        batch.check()?;
        if batch.is_empty() {
            return Ok(Durable(()));
        }
        let fault = lock(&self.state).fault.take();
        if !matches!(fault, Some(Fault::CrashBefore | Fault::Full)) {
            self.write(batch, matches!(fault, None | Some(Fault::CrashAfter | Fault::CrashUnsyncedKept)));
        }
        lock(&self.state).poisoned = fault.is_some();
        match fault {
            None => Ok(Durable(())),
            Some(Fault::Full) => Err(StoreError::Full),
            Some(_) => Err(StoreError::Io(io::Error::other("injected fault"))),
        }
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.alive()?;
        let map = lock(&self.map);
        map.get(&(table.id, key.to_vec())).map(|wrapped| envelope::unwrap(table, key, wrapped)).transpose()
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, StoreError> {
        self.alive()?;
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded((table.id, after.to_vec())),
            _ => Bound::Included((table.id, prefix.to_vec())),
        };
        let map = lock(&self.map);
        map.range((start, Bound::Unbounded))
            .take_while(|((id, key), _)| *id == table.id && key.starts_with(prefix))
            .take(limit)
            .map(|((_, key), wrapped)| Ok((key.clone(), envelope::unwrap(table, key, wrapped)?)))
            .collect()
    }

    fn last(&self, table: Table, prefix: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.alive()?;
        let map = lock(&self.map);
        map.range((table.id, prefix.to_vec())..(table.id.saturating_add(1), Vec::new()))
            .take_while(|((_, key), _)| key.starts_with(prefix))
            .last()
            .map(|((_, key), wrapped)| Ok((key.clone(), envelope::unwrap(table, key, wrapped)?)))
            .transpose()
    }
}
