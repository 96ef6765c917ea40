//! What is known in memory: the newest changes, and how much of each file of the journal is needed.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use super::{
    super::{StoreError, Table},
    base::Base,
    merge,
    overlay::{Overlay, Slot, table_key},
    segment::{self, Place, Written},
};

/// Bytes, with the envelope, up to which a value is moved into the tree.
pub(super) const HERE_BYTES_MAX: usize = 2 * 1024;

/// What is known in memory.
#[derive(Default)]
pub(super) struct State {
    /// What the tree does not have.
    pub(super) overlay: Overlay,
    /// What is being moved into the tree.
    pub(super) moving: Option<Arc<Overlay>>,
    pub(super) segments: BTreeMap<u64, Extent>,
    /// Files that are kept to be written again, and their bytes.
    pub(super) spares: Vec<(u64, u64)>,
    /// Bytes of frames since the last move.
    pub(super) since: u64,
}

/// A file of the journal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    pub(super) bytes: u64,
    /// Of values that are needed.
    pub(super) live: u64,
}

impl State {
    /// What stands under a key.
    pub(super) fn slot(&self, base: &Base, table: u8, key: &[u8]) -> Result<Slot, StoreError> {
        let at = table_key(table, key);
        match self.overlay.get(&at).or_else(|| self.moving.as_ref()?.get(&at)) {
            Some(known) => Ok(known.slot.clone()),
            None => base.get(&at),
        }
    }

    /// Takes over the changes of a frame that stands at `offset` of a file.
    pub(super) fn take_frame(
        &mut self,
        base: &Base,
        segment: u64,
        offset: u64,
        body: &[u8],
    ) -> Result<(), StoreError> {
        let begin = segment::body_offset(offset);
        for written in segment::changes(body, begin) {
            let written = written
                .ok_or_else(|| StoreError::Damaged(format!("a change in file {segment} makes no sense")))?;
            self.take(base, segment, &written)?;
        }
        let end = begin.saturating_add(body.len() as u64);
        self.since = self.since.saturating_add(end.saturating_sub(offset));
        self.segments.entry(segment).or_default().bytes = end;
        Ok(())
    }

    fn take(&mut self, base: &Base, segment: u64, written: &Written<'_>) -> Result<(), StoreError> {
        let slot = match written.value {
            None => Slot::Gone,
            Some((value, offset)) if written.large && value.len() > HERE_BYTES_MAX => {
                let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
                Slot::At(Place { segment, offset, len })
            }
            Some((value, _)) => Slot::Here(value.to_vec()),
        };
        let place = slot.place();
        let moving = self.moving.as_deref();
        let before = self.overlay.replace(table_key(written.table, written.key), slot, |at| {
            if !written.large {
                // Has no places, so that nothing need be known of what was there.
                return Ok((None, true));
            }
            let before = match moving.and_then(|moving| moving.get(at)) {
                Some(known) => known.slot.clone(),
                None => base.get(at)?,
            };
            Ok::<_, StoreError>((before.place(), before != Slot::Gone))
        })?;
        self.count(before, u64::saturating_sub);
        self.count(place, u64::saturating_add);
        Ok(())
    }

    /// Adds to, or takes from, what is needed of the file that has a value.
    fn count(&mut self, place: Option<Place>, change: fn(u64, u64) -> u64) {
        if let Some(place) = place {
            let extent = self.segments.entry(place.segment).or_default();
            extent.live = change(extent.live, u64::from(place.len));
        }
    }

    /// What stands under the keys of a table, as [`super::super::Store::scan`] asks for it.
    pub(super) fn scan(
        &self,
        base: &Base,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Slot)>, StoreError> {
        let start = match after {
            // Above all of them: maps panic at a range that ends before it begins.
            Some(after) if after > prefix && !after.starts_with(prefix) => return Ok(Vec::new()),
            Some(after) if after >= prefix => Bound::Excluded(after.to_vec()),
            _ => Bound::Included(prefix.to_vec()),
        };
        let moving = self.moving.as_deref();
        let moving =
            moving.into_iter().flat_map(|moving| moving.range(table.id, prefix, start.clone(), false));
        let overlay = self.overlay.range(table.id, prefix, start.clone(), false);
        merge::newest(overlay, moving, base.range(table.id, prefix, start.clone(), false), false, limit)
    }

    /// The last of them.
    pub(super) fn last(
        &self,
        base: &Base,
        table: Table,
        prefix: &[u8],
    ) -> Result<Vec<(Vec<u8>, Slot)>, StoreError> {
        let start = || Bound::Included(prefix.to_vec());
        let moving = self.moving.as_deref();
        let moving = moving.into_iter().flat_map(|moving| moving.range(table.id, prefix, start(), true));
        let overlay = self.overlay.range(table.id, prefix, start(), true);
        merge::newest(overlay, moving, base.range(table.id, prefix, start(), true), true, 1)
    }
}
