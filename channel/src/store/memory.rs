//! A store in memory, with the faults of a real one on demand: for tests and simulations.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Batch, Change, Durable, Entries, Entry, Store, StoreError, Table, envelope};

type Map = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// What the next commit runs into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies before anything is written: the batch is lost.
    CrashBefore,
    /// The process dies when the batch is on the disk but before anyone is told.
    CrashAfter,
    /// The disk is full: nothing of the batch is written.
    Full,
    /// The sync fails: the batch is lost.
    Io,
}

/// A store in memory. Clones share the content, as processes that open one directory after another do.
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

    /// What a process finds that opens the store again: all that was durable.
    #[must_use]
    pub fn reopen(&self) -> Self {
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
        let Some(value) = map.get_mut(&(table.id, key.to_vec())) else { return false };
        let at = (bit >> 3).checked_rem(value.len()).unwrap_or(0);
        value.get_mut(at).is_some_and(|byte| {
            *byte ^= 1 << (bit & 7);
            true
        })
    }

    fn alive(&self) -> Result<(), StoreError> {
        if lock(&self.state).poisoned { Err(StoreError::Poisoned) } else { Ok(()) }
    }

    fn write(&self, batch: &Batch) {
        let mut map = lock(&self.map);
        for Change { table, key, value } in &batch.changes {
            match value {
                Some(value) => map.insert((table.id, key.clone()), envelope::wrap(*table, key, value)),
                None => map.remove(&(table.id, key.clone())),
            };
        }
    }
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
        if fault.is_none_or(|fault| fault == Fault::CrashAfter) {
            self.write(batch);
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
