//! The thread that moves what waits into the tree, and gives back room in the journal.

use std::{
    fs,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use super::{
    super::{Batch, StoreError, Table, envelope},
    Shared, Signal,
    overlay::Slot,
    recovery::Mark,
    segment::{self, Frame, HEADER_BYTES, Place, Segment},
    state::HERE_BYTES_MAX,
};

/// Lets nobody wait for a keeper that has died.
struct Alarm<'a>(&'a Shared);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poisoned.store(true, Ordering::Release);
            finished(self.0);
        }
    }
}

/// Does what is due, until the store is closed or fails.
pub(super) fn run(shared: &Shared) {
    let _alarm = Alarm(shared);
    loop {
        let stop = {
            let signal = shared.signal();
            let idle = |signal: &mut Signal| !signal.due && !signal.stop;
            let signal = shared.due.wait_while(signal, idle).unwrap_or_else(PoisonError::into_inner);
            signal.stop
        };
        if shared.poisoned.load(Ordering::Acquire) {
            return finished(shared);
        }
        let kept = if stop { close(shared) } else { keep(shared) };
        if let Err(error) = kept {
            *shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            shared.poisoned.store(true, Ordering::Release);
        }
        finished(shared);
        if stop || shared.poisoned.load(Ordering::Acquire) {
            return;
        }
    }
}

fn finished(shared: &Shared) {
    shared.signal().due = false;
    shared.done.notify_all();
}

pub(super) fn keep(shared: &Shared) -> Result<(), StoreError> {
    let before = move_into_base(shared)?;
    drop_unneeded(shared, before)?;
    thin_out(shared, before)?;
    shared.base.compact()
}

/// Leaves nothing to do for the next opening, and no more on the disk than is needed.
fn close(shared: &Shared) -> Result<(), StoreError> {
    remove_spares(shared)?;
    shared.writer().cut()?;
    if shared.state().since == 0 {
        return Ok(());
    }
    {
        let mut writer = shared.writer();
        let number = writer.segment.number;
        let needed = shared.state().segments.get(&number).is_some_and(|extent| extent.live > 0);
        let is_empty = writer.end == HEADER_BYTES;
        if !needed && !is_empty {
            shared.begin_segment(&mut writer)?;
        }
    }
    let before = move_into_base(shared)?;
    drop_unneeded(shared, before)?;
    remove_spares(shared)
}

fn remove_spares(shared: &Shared) -> Result<(), StoreError> {
    shared.state_mut().spares.clear();
    Ok(segment::remove_spares(&shared.directory)?)
}

/// Moves all that waits into the tree. Gives back the file before which the journal is needed for its values only.
fn move_into_base(shared: &Shared) -> Result<u64, StoreError> {
    let (moving, mark) = {
        let writer = shared.writer();
        let mut state = shared.state_mut();
        let moving = Arc::new(std::mem::take(&mut state.overlay));
        state.moving = Some(Arc::clone(&moving));
        state.since = 0;
        let live = state.segments.iter().map(|(number, extent)| (*number, extent.live));
        let live = live.filter(|(_, live)| *live > 0).collect();
        (moving, Mark { newest: writer.newest, segment: writer.segment.number, offset: writer.end, live })
    };
    shared.base.take(&moving, &mark.to_bytes())?;
    shared.state_mut().moving = None;
    Ok(mark.segment)
}

/// Removes the files before `before` of which no value is needed, but for some that are kept.
fn drop_unneeded(shared: &Shared, before: u64) -> Result<(), StoreError> {
    let unneeded: Vec<(u64, u64)> = {
        let mut state = shared.state_mut();
        let unneeded = state.segments.range(..before).filter(|(_, extent)| extent.live == 0);
        let unneeded: Vec<_> = unneeded.map(|(number, extent)| (*number, extent.bytes)).collect();
        for (number, _) in &unneeded {
            state.segments.remove(number);
        }
        unneeded
    };
    for (number, bytes) in unneeded {
        if bytes >= shared.sizes.segment && shared.state().spares.len() < shared.sizes.spares {
            segment::keep_spare(&shared.directory, number)?;
            shared.state_mut().spares.push((number, bytes));
        } else {
            fs::remove_file(segment::path(&shared.directory, number))?;
        }
    }
    Ok(())
}

/// Writes the values of files of which little is needed again at the end, until most of the journal is needed.
fn thin_out(shared: &Shared, before: u64) -> Result<(), StoreError> {
    loop {
        let thinnest = {
            let state = shared.state();
            let (bytes, live) = state.segments.values().fold((0_u64, 0_u64), |(bytes, live), extent| {
                (bytes.saturating_add(extent.bytes), live.saturating_add(extent.live))
            });
            if bytes <= live.saturating_mul(2).saturating_add(shared.sizes.spare) {
                return Ok(());
            }
            let full = state.segments.range(..before);
            full.min_by_key(|(_, extent)| extent.live).map(|(number, extent)| (*number, *extent))
        };
        match thinnest {
            Some((number, extent)) if extent.live <= extent.bytes / 2 => write_again(shared, number)?,
            _ => return Ok(()),
        }
        drop_unneeded(shared, before)?;
    }
}

/// Writes the values of a file that are needed again at the end of the journal.
pub(super) fn write_again(shared: &Shared, number: u64) -> Result<(), StoreError> {
    let missing = || StoreError::Damaged(format!("the head of file {number} of the journal"));
    let segment = Segment::open(&shared.directory, number)?.ok_or_else(missing)?;
    let (mut commit, mut offset) = (segment.first, HEADER_BYTES);
    let mut values: Vec<(Table, Vec<u8>, Vec<u8>, Place)> = Vec::new();
    let mut bytes = 0;
    while let Frame::Whole(body) = segment.read(commit, offset)? {
        let begin = segment::body_offset(offset);
        for written in segment::changes(&body, begin).flatten().filter(|written| written.large) {
            let Some((wrapped, at)) = written.value.filter(|(value, _)| value.len() > HERE_BYTES_MAX) else {
                continue;
            };
            let len = u32::try_from(wrapped.len()).unwrap_or(u32::MAX);
            let place = Place { segment: number, offset: at, len };
            let table = Table::large(written.table, "journal");
            if shared.state().slot(&shared.base, table.id, written.key)? == Slot::At(place) {
                bytes = wrapped.len().saturating_add(bytes);
                values.push((
                    table,
                    written.key.to_vec(),
                    envelope::unwrap(table, written.key, wrapped)?,
                    place,
                ));
            }
        }
        if bytes >= shared.sizes.again {
            append_again(shared, std::mem::take(&mut values))?;
            bytes = 0;
        }
        commit = commit.saturating_add(1);
        offset = begin.saturating_add(body.len() as u64);
    }
    append_again(shared, values)?;
    let live = shared.state().segments.get(&number).map_or(0, |extent| extent.live);
    if live > 0 {
        return Err(StoreError::Damaged(format!("{live} bytes of values in file {number} of the journal")));
    }
    Ok(())
}

/// Commits the values that still stand where they were.
fn append_again(shared: &Shared, values: Vec<(Table, Vec<u8>, Vec<u8>, Place)>) -> Result<(), StoreError> {
    let mut writer = shared.writer();
    let mut batch = Batch::new();
    for (table, key, value, place) in values {
        if shared.state().slot(&shared.base, table.id, &key)? == Slot::At(place) {
            batch.put(table, &key, value);
        }
    }
    if batch.is_empty() { Ok(()) } else { shared.append(&mut writer, &batch) }
}
