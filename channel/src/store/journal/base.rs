//! The base: an LSM tree without a log of its own (crate `lsm-tree`). It takes sorted runs, each whole or not at all: its
//! tables and then the list of them reach the disk before a run counts, and each block has a checksum.

use std::{ops::Bound, path::Path, sync::Arc};

use lsm_tree::{
    AbstractTree, AnyTree, Cache, Config, Guard, SeqNo, SequenceNumberCounter, compaction::Leveled,
    config::PartitioningPolicy,
};

use super::{
    super::StoreError,
    overlay::{Overlay, Slot, TableKey, table_key},
    segment::Place,
};

/// Bytes of blocks that are kept in memory.
const CACHE_BYTES: u64 = 8 << 20;
/// The first byte of what is stored: the value follows, or its place in the journal.
const HERE: u8 = 0;
const AT: u8 = 1;
/// The key of what a run ends with, above all others: of table 255 nothing else begins like this.
const MARK: &[u8] = &[u8::MAX; 2];

/// The tree.
pub(super) struct Base {
    tree: AnyTree,
    sequence: SequenceNumberCounter,
}

impl Base {
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        let (sequence, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
        let tree = Config::new(directory, sequence.clone(), visible.clone())
            .use_cache(Arc::new(Cache::with_capacity_bytes(CACHE_BYTES)))
            // Of a table with a million keys either would be read whole for each of them, as few such fit into the cache.
            .filter_block_partitioning_policy(PartitioningPolicy::all(true))
            .index_block_partitioning_policy(PartitioningPolicy::all(true))
            .open()
            .map_err(refusal)?;
        let next = tree.get_highest_seqno().map_or(0, |newest| newest.saturating_add(1));
        sequence.fetch_max(next);
        visible.fetch_max(next);
        Ok(Self { tree, sequence })
    }

    /// Takes over all of an overlay, and `mark` with it.
    pub(super) fn take(&self, overlay: &Overlay, mark: &[u8]) -> Result<(), StoreError> {
        let mut run = self.tree.ingestion().map_err(refusal)?;
        for (key, entry) in overlay.iter() {
            let key = key.clone();
            match &entry.slot {
                Slot::Here(value) => run.write(key, [&[HERE], &value[..]].concat()),
                Slot::At(place) => run.write(key, [&[AT], &place.to_bytes()[..]].concat()),
                Slot::Gone => run.write_tombstone(key),
            }
            .map_err(refusal)?;
        }
        run.write(MARK, mark).map_err(refusal)?;
        run.finish().map_err(refusal)
    }

    /// What the newest run ended with.
    pub(super) fn mark(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tree.get(MARK, SeqNo::MAX).map_err(refusal)?.map(|mark| mark.to_vec()))
    }

    /// Merges what has come in, as far as it is due.
    pub(super) fn compact(&self) -> Result<(), StoreError> {
        self.tree.compact(Arc::new(Leveled::default()), self.sequence.get()).map_err(refusal)
    }

    pub(super) fn get(&self, at: &TableKey) -> Result<Slot, StoreError> {
        let found = self.tree.get(at, SeqNo::MAX).map_err(refusal)?;
        found.map_or(Ok(Slot::Gone), |stored| slot(&stored))
    }

    /// The entries of a table whose keys begin with `prefix`, from `start` on; from the last on backwards if `reverse`.
    pub(super) fn range(
        &self,
        table: u8,
        prefix: &[u8],
        start: Bound<Vec<u8>>,
        reverse: bool,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Slot), StoreError>> {
        let start = start.map(|key| table_key(table, &key).to_vec());
        let prefix = table_key(table, prefix);
        let end = match after_all(&prefix) {
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        };
        let mut found = self.tree.range::<Vec<u8>, _>((start, end), SeqNo::MAX, None);
        std::iter::from_fn(move || if reverse { found.next_back() } else { found.next() }).map(|entry| {
            let (key, stored) = entry.into_inner().map_err(refusal)?;
            Ok((key.get(1..).unwrap_or_default().to_vec(), slot(&stored)?))
        })
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.tree.disk_space()
    }
}

/// The first key above all that begin with `prefix`.
fn after_all(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

fn slot(stored: &[u8]) -> Result<Slot, StoreError> {
    match stored.split_first() {
        Some((&HERE, value)) => Ok(Slot::Here(value.to_vec())),
        Some((&AT, place)) => Place::from_bytes(place).map(Slot::At).ok_or_else(|| damaged("a place")),
        _ => Err(damaged("an entry")),
    }
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!("the base has {what} that makes no sense"))
}

fn refusal(error: lsm_tree::Error) -> StoreError {
    match error {
        lsm_tree::Error::Io(error) => error.into(),
        other => StoreError::Damaged(other.to_string()),
    }
}
