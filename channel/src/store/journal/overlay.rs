//! What the journal has and the base does not yet: the newest state of each key that was changed.

use std::{
    collections::{BTreeMap, btree_map::Entry as MapEntry},
    ops::Bound,
};

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

/// The number of the table and the key. Its first bytes are compared without looking up the others.
pub(super) type TableKey = lsm_tree::UserKey;

pub(super) fn table_key(table: u8, key: &[u8]) -> TableKey {
    TableKey::from([&[table], key].concat())
}

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

    /// Puts a state in its place, and gives back the place of the value before. `below` says, for a key that is new here, where
    /// the base has a value and whether it may have any. What is gone here and was never below leaves no trace.
    pub(super) fn replace<E>(
        &mut self,
        at: TableKey,
        slot: Slot,
        below: impl FnOnce(&TableKey) -> Result<(Option<Place>, bool), E>,
    ) -> Result<Option<Place>, E> {
        match self.entries.entry(at) {
            MapEntry::Occupied(mut known) => {
                let before = known.get().slot.place();
                self.bytes = self.bytes.saturating_sub(size(known.key(), &known.get().slot));
                if slot == Slot::Gone && !known.get().below {
                    known.remove();
                } else {
                    self.bytes = self.bytes.saturating_add(size(known.key(), &slot));
                    known.get_mut().slot = slot;
                }
                Ok(before)
            }
            MapEntry::Vacant(new) => {
                let (before, below) = below(new.key())?;
                if slot != Slot::Gone || below {
                    self.bytes = self.bytes.saturating_add(size(new.key(), &slot));
                    new.insert(Entry { slot, below });
                }
                Ok(before)
            }
        }
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
        let end = table_key(table, &[prefix, &[u8::MAX; KEY_BYTES_MAX]].concat());
        let range = (start.map(|key| table_key(table, &key)), Bound::Included(end));
        let mut found = self.entries.range(range);
        std::iter::from_fn(move || if reverse { found.next_back() } else { found.next() })
            .map(|(key, entry)| (key.get(1..).unwrap_or_default(), &entry.slot))
    }
}

fn size(key: &TableKey, slot: &Slot) -> u64 {
    let value_bytes = match slot {
        Slot::Here(value) => value.len(),
        Slot::At(_) | Slot::Gone => 0,
    };
    ENTRY_BYTES.saturating_add(key.len()).saturating_add(value_bytes) as u64
}
