//! The embedded store: a journal in front of an LSM tree.
//!
//! A commit is one frame at the end of the journal and one `fdatasync`, whatever is in it. Small values
//! stay in memory until a thread of its own moves them into the tree, all that came since the last time
//! as one sorted run; a key that is written often costs the tree one entry for each run. Values above
//! 2 KiB stay where the journal has them, and are written once; the tree has their places. A
//! file of the journal goes when the tree has all that is in it and none of its values is needed. Where few are, they are
//! written again at the end.
//!
//! What the files promise (I13):
//!
//! - Each commit is synced before the next is written, so that a power cut leaves at most one frame that
//!   is not whole, the last. It was never acknowledged, and is cut off. A bad frame with a good one behind
//!   it, in whichever file, is damage, and the store refuses to open.
//! - Behind the last frame of a file there may be zeros, or what the file was before: room that commits are written into, so
//!   that their syncs need not write the file's length and blocks as well. That none is missing there shows the next file, which
//!   says with which commit it begins.
//! - Some of the files that go are kept as long as the store is open, and written again.
//! - A run goes into the tree with the number of its last commit and the place in the journal behind it, all at
//!   once. If the tree is older than the journal's oldest file, or the journal shorter than the tree says, the
//!   store refuses to open.
//! - A value carries its checksum wherever it stands, and so does each block of the tree.
//! - What cannot be told from a torn write is damage to the very last commit before a crash; after an orderly end it is
//!   noticed.

mod base;
mod keeper;
mod merge;
mod overlay;
mod recovery;
mod segment;
mod state;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use self::{
    base::Base,
    overlay::Slot,
    segment::{HEADER_BYTES, Segment},
    state::{Extent, State},
};
use super::{Batch, Durable, Entries, Entry, Store, StoreError, Table, directory, envelope};

/// How much there may be of everything before it is moved on.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// A file of the journal takes no more commits past this.
    segment: u64,
    /// What waits in memory for the tree before it is moved there.
    overlay: u64,
    /// What is written to the journal before all that waits is moved.
    journal: u64,
    /// Room of the journal beside what is needed of it, before values are written again to get rid of files of which
    /// little is needed.
    spare: u64,
    /// Values that are written again with one commit.
    again: usize,
    /// A commit larger than this is written without room for those after it.
    small: usize,
    /// Zeros that are written behind a small one, if there are none yet.
    room: u64,
    /// Full files that are kept to be written again.
    spares: usize,
}

const SIZES: Sizes = Sizes {
    segment: 32 << 20,
    overlay: 24 << 20,
    journal: 128 << 20,
    spare: 64 << 20,
    again: 1 << 20,
    small: 16 << 10,
    room: 64 << 10,
    spares: 4,
};
/// For tests: all that happens now and then happens often.
const SMALL_SIZES: Sizes = Sizes {
    segment: 64 << 10,
    overlay: 96 << 10,
    journal: 256 << 10,
    spare: 128 << 10,
    again: 16 << 10,
    small: 4 << 10,
    room: 8 << 10,
    spares: 2,
};
/// In the directory of a store, the files of its journal and of its tree.
const JOURNAL: &str = "journal";
const BASE: &str = "base";

/// A store in a directory.
#[derive(Debug)]
pub struct JournalStore {
    shared: Arc<Shared>,
    keeper: Option<thread::JoinHandle<()>>,
    /// Held as long as the store lives.
    _lock: File,
}

struct Shared {
    /// That of the journal's files.
    directory: PathBuf,
    base: Base,
    sizes: Sizes,
    sync: bool,
    /// Taken before `state`.
    writer: Mutex<Writer>,
    state: RwLock<State>,
    signal: Mutex<Signal>,
    /// To the keeper: there is something to do.
    due: Condvar,
    /// From the keeper: it is done.
    done: Condvar,
    poisoned: AtomicBool,
    /// Why the keeper has stopped, for the next call.
    failure: Mutex<Option<StoreError>>,
}

#[derive(Debug, Default)]
struct Signal {
    due: bool,
    stop: bool,
}

/// The end of the journal.
struct Writer {
    segment: Segment,
    end: u64,
    /// Where the file ends: behind `end` it has nothing that counts.
    filled: u64,
    /// The number of the newest commit.
    newest: u64,
    buffer: Vec<u8>,
}

impl Writer {
    /// At the `end` of a file with nothing behind it.
    const fn new(segment: Segment, end: u64, newest: u64) -> Self {
        Self { segment, end, filled: end, newest, buffer: Vec::new() }
    }

    /// Leaves nothing in the file behind the last commit.
    fn cut(&mut self) -> io::Result<()> {
        if self.filled > self.end {
            self.segment.file.set_len(self.end)?;
            self.segment.file.sync_all()?;
            self.filled = self.end;
        }
        Ok(())
    }
}

impl JournalStore {
    /// Opens or creates the store in `directory` for `identity` (who and which network it belongs to).
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::WrongIdentity`], [`StoreError::OtherKind`], [`StoreError::Damaged`], or the
    /// disk's refusal.
    pub fn open(directory: &Path, identity: &[u8]) -> Result<Self, StoreError> {
        Self::open_with(directory, identity, SIZES, true)
    }

    /// As [`JournalStore::open`], for tests: what otherwise happens after megabytes happens after kilobytes.
    ///
    /// # Errors
    /// As [`JournalStore::open`].
    #[doc(hidden)]
    pub fn open_small(directory: &Path, identity: &[u8]) -> Result<Self, StoreError> {
        Self::open_with(directory, identity, SMALL_SIZES, true)
    }

    /// As [`JournalStore::open`], but commits are not synced and are lost in a power cut. For the test that shows just that.
    ///
    /// # Errors
    /// As [`JournalStore::open`].
    #[doc(hidden)]
    pub fn danger_open_without_sync(directory: &Path, identity: &[u8]) -> Result<Self, StoreError> {
        Self::open_with(directory, identity, SIZES, false)
    }

    fn open_with(directory: &Path, identity: &[u8], sizes: Sizes, sync: bool) -> Result<Self, StoreError> {
        directory::create_private(directory)?;
        let lock = directory::lock(directory)?;
        #[cfg(feature = "sled")]
        if super::SledStore::made(directory) {
            return Err(StoreError::OtherKind {
                directory: directory.display().to_string(),
                made_by: "sled",
            });
        }
        let journal = directory.join(JOURNAL);
        directory::create_private(&journal)?;
        let base = Base::open(&directory.join(BASE))?;
        directory::sync_names(directory)?;
        let (writer, state) = recovery::recover(&journal, &base)?;
        let shared = Arc::new(Shared {
            directory: journal,
            base,
            sizes,
            sync,
            writer: Mutex::new(writer),
            state: RwLock::new(state),
            signal: Mutex::default(),
            due: Condvar::new(),
            done: Condvar::new(),
            poisoned: AtomicBool::new(false),
            failure: Mutex::new(None),
        });
        let keeping = Arc::clone(&shared);
        let keeper =
            thread::Builder::new().name("flash-store".to_owned()).spawn(move || keeper::run(&keeping))?;
        let store = Self { shared, keeper: Some(keeper), _lock: lock };
        directory::check_identity(&store, directory, identity)?;
        Ok(store)
    }

    /// Bytes that the store takes on the disk.
    pub fn disk_bytes(&self) -> u64 {
        let room = {
            let writer = self.shared.writer();
            writer.filled.saturating_sub(writer.end)
        };
        let journal: u64 = {
            let state = self.shared.state();
            let spares = state.spares.iter().map(|(_, bytes)| *bytes);
            state.segments.values().map(|extent| extent.bytes).chain(spares).sum()
        };
        journal.saturating_add(room).saturating_add(self.shared.base.disk_bytes())
    }
}

/// Whether what was read may have been moved or deleted while it was looked for: its file is gone, or is written again.
const fn may_have_moved(value: &Result<Option<Vec<u8>>, StoreError>) -> bool {
    matches!(value, Ok(None) | Err(StoreError::Corrupt { .. } | StoreError::Newer { .. }))
}

impl Shared {
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self) -> MutexGuard<'_, Signal> {
        self.signal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> Result<(), StoreError> {
        if !self.poisoned.load(Ordering::Acquire) {
            return Ok(());
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(failure.unwrap_or(StoreError::Poisoned))
    }

    fn poison(&self, error: StoreError) -> StoreError {
        self.poisoned.store(true, Ordering::Release);
        error
    }

    /// Writes a batch at the end of the journal, and syncs it.
    fn append(&self, writer: &mut Writer, batch: &Batch) -> Result<(), StoreError> {
        if writer.end >= self.sizes.segment {
            self.begin_segment(writer).map_err(|error| self.poison(error.into()))?;
        }
        let number = writer.newest.saturating_add(1);
        writer.segment.frame(number, batch, &mut writer.buffer).map_err(|error| self.poison(error))?;
        let end = writer.end.saturating_add(writer.buffer.len() as u64);
        let makes_room = end > writer.filled && writer.buffer.len() <= self.sizes.small;
        let mut filled = writer.filled.max(end);
        let mut written = writer.segment.write(&mut writer.buffer, writer.end, writer.filled);
        if makes_room {
            filled = end.saturating_add(self.sizes.room);
            written = written.and_then(|()| writer.segment.make_room(end, filled));
        }
        let synced = written.and_then(|()| if self.sync { writer.segment.file.sync_data() } else { Ok(()) });
        synced.map_err(|error| self.poison(error.into()))?;
        writer.filled = filled;
        let mut state = self.state_mut();
        let taken =
            state.take_frame(&self.base, writer.segment.number, writer.end, segment::body(&writer.buffer));
        writer.newest = number;
        writer.end = end;
        taken.map_err(|error| self.poison(error))
    }

    fn begin_segment(&self, writer: &mut Writer) -> io::Result<()> {
        let (number, first) = (writer.segment.number.saturating_add(1), writer.newest.saturating_add(1));
        let (full, filled) = (writer.segment.number, writer.filled);
        let spare = self.state_mut().spares.pop();
        (writer.segment, writer.filled) = match spare {
            Some((spare, bytes)) => {
                let spare = segment::spare_path(&self.directory, spare);
                (Segment::create_from(&spare, &self.directory, number, first)?, bytes)
            }
            None => (Segment::create(&self.directory, number, first)?, HEADER_BYTES),
        };
        writer.end = HEADER_BYTES;
        let mut state = self.state_mut();
        state.segments.entry(full).or_default().bytes = filled;
        state.segments.insert(number, Extent { bytes: HEADER_BYTES, live: 0 });
        Ok(())
    }

    /// Has the keeper move what waits, if it is enough; waits for it if it cannot keep up.
    fn call_keeper(&self) {
        let waiting = |times: u64| {
            let state = self.state();
            state.overlay.bytes() >= self.sizes.overlay.saturating_mul(times)
                || state.since >= self.sizes.journal.saturating_mul(times)
        };
        if !waiting(1) {
            return;
        }
        let too_much = waiting(2);
        let mut signal = self.signal();
        signal.due = true;
        self.due.notify_one();
        while too_much && signal.due && !self.poisoned.load(Ordering::Acquire) {
            signal = self.done.wait(signal).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The value in a slot; `None` if its file has gone since the slot was looked up.
    fn value(&self, table: Table, key: &[u8], slot: Slot) -> Result<Option<Vec<u8>>, StoreError> {
        match slot {
            Slot::Here(wrapped) => envelope::unwrap(table, key, &wrapped).map(Some),
            Slot::At(place) => {
                let wrapped = segment::read_value(&self.directory, place)?;
                wrapped.map(|wrapped| envelope::unwrap(table, key, &wrapped)).transpose()
            }
            Slot::Gone => Ok(None),
        }
    }

    /// The value under a key that was found in this slot, or in another one if it has moved since.
    fn newest(&self, table: Table, key: &[u8], found: Slot) -> Result<Option<Vec<u8>>, StoreError> {
        let (mut slot, mut before) = (found, None);
        loop {
            let value = self.value(table, key, slot.clone());
            match slot {
                Slot::At(place) if before != Some(place) && may_have_moved(&value) => before = Some(place),
                Slot::At(_) if matches!(value, Ok(None)) => {
                    return Err(envelope::corrupt(table, key, "its file is missing"));
                }
                _ => return value,
            }
            slot = self.state().slot(&self.base, table.id, key)?;
        }
    }

    /// The values of these slots, but for those that have gone meanwhile.
    fn values(&self, table: Table, slots: Vec<(Vec<u8>, Slot)>) -> Result<Entries, StoreError> {
        let mut entries = Entries::new();
        for (key, slot) in slots {
            entries.extend(self.newest(table, &key, slot)?.map(|value| (key, value)));
        }
        Ok(entries)
    }
}

impl Store for JournalStore {
    fn commit(&self, batch: &Batch) -> Result<Durable, StoreError> {
        self.shared.alive()?;
        batch.check()?;
        if batch.is_empty() {
            return Ok(Durable(())); // nothing to wait for
        }
        let mut writer = self.shared.writer();
        // Another commit may have failed while this one waited.
        self.shared.alive()?;
        self.shared.append(&mut writer, batch)?;
        drop(writer);
        self.shared.call_keeper();
        Ok(Durable(()))
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared.alive()?;
        let slot = self.shared.state().slot(&self.shared.base, table.id, key)?;
        self.shared.newest(table, key, slot)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, StoreError> {
        self.shared.alive()?;
        let slots = self.shared.state().scan(&self.shared.base, table, prefix, after, limit)?;
        self.shared.values(table, slots)
    }

    fn last(&self, table: Table, prefix: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.shared.alive()?;
        let slots = self.shared.state().last(&self.shared.base, table, prefix)?;
        Ok(self.shared.values(table, slots)?.pop())
    }
}

impl Drop for JournalStore {
    fn drop(&mut self) {
        self.shared.signal().stop = true;
        self.shared.due.notify_one();
        if let Some(keeper) = self.keeper.take() {
            // Whether it ended in order or not, what it has left is done at the next opening.
            let _ = keeper.join();
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("directory", &self.directory).finish_non_exhaustive()
    }
}
