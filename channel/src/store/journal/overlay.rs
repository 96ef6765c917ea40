//! What the journal has and the base does not yet: the newest state of each key that was changed.

use std::{collections::BTreeMap, ops::Bound};

use super::{super::KEY_BYTES_MAX, segment::Place};

/// Bytes that an entry takes beside its key and value.
const ENTRY_BYTES: usize = 96;

/// What stands under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// A value, with its envelope.
    Here(Vec<u8>),
    /// A value that stays where the journal has it.
    At(Place),
    /// Nothing.
    Gone,
}

impl Slot {
    pub(super) const fn place(&self) -> Option<Place> {
        match self {
            Self::At(place) => Some(*place),
            Self::Here(_) | Self::Gone => None,
        }
    }
}

/// The newest state of a key.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) slot: Slot,
    /// Whether the base has something under the key, or may have.
    pub(super) below: bool,
}

/// Table number and key.
pub(super) type TableKey = (u8, Vec<u8>);

/// Newest states, in order.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    entries: BTreeMap<TableKey, Entry>,
    bytes: u64,
}

impl Overlay {
    pub(super) fn get(&self, at: &TableKey) -> Option<&Entry> {
        self.entries.get(at)
    }

    /// Puts an entry in its place. What is gone here and was never below leaves no trace.
    pub(super) fn set(&mut self, at: TableKey, entry: Entry) {
        let key_bytes = at.1.len();
        let before = if entry.slot == Slot::Gone && !entry.below {
            self.entries.remove(&at)
        } else {
            self.bytes = self.bytes.saturating_add(size(key_bytes, &entry));
            self.entries.insert(at, entry)
        };
        let freed = before.map_or(0, |before| size(key_bytes, &before));
        self.bytes = self.bytes.saturating_sub(freed);
    }

    /// Memory that it takes, about.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&TableKey, &Entry)> {
        self.entries.iter()
    }

    /// What is known of the keys of a table that begin with `prefix`, from `start` on; from the last on backwards if
    /// `reverse`.
    pub(super) fn range(
        &self,
        table: u8,
        prefix: &[u8],
        start: Bound<Vec<u8>>,
        reverse: bool,
    ) -> impl Iterator<Item = (&[u8], &Slot)> {
        // Above all keys with the prefix: none of them is longer.
        let end = [prefix, &[u8::MAX; KEY_BYTES_MAX]].concat();
        let range = (start.map(|key| (table, key)), Bound::Included((table, end)));
        let mut found = self.entries.range(range);
        std::iter::from_fn(move || if reverse { found.next_back() } else { found.next() })
            .map(|((_, key), entry)| (key.as_slice(), &entry.slot))
    }
}

const fn size(key_bytes: usize, entry: &Entry) -> u64 {
    let value_bytes = match &entry.slot {
        Slot::Here(value) => value.len(),
        Slot::At(_) | Slot::Gone => 0,
    };
    ENTRY_BYTES.saturating_add(key_bytes).saturating_add(value_bytes) as u64
}
