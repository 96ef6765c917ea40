//! The unspent outputs on the disk: in pages of neighbours, and beside them what the last milestones changed.
//!
//! A record for each output would take a hundred times as long to read, and to write a page whenever one of its
//! outputs changes would write hundreds of times what changes. So a milestone writes down its changes, and with
//! them a few of the pages that earlier ones changed; the changes of a milestone go once all pages hold them.
//! Whoever reads all pages and then all changes, in order, has the outputs: the last word on each counts.

use std::collections::VecDeque;

use flash_channel::store::{
    Batch, LARGE_VALUE_BYTES_MAX, Store, Table,
    records::{decode, for_each},
};
use flash_proto::{Output, OutputId, StateKey, TransactionId, codec};

use super::NodeError;
use crate::ledger::{
    LedgerBuilder, StateValue,
    outputs::{Entry, Outputs, PAGE_OUTPUTS_MAX},
    state::StateChanges,
};

/// The smallest id that a page may hold (index big-endian) to its outputs.
pub(super) const PAGES: Table = Table::large(44, "unspent outputs");
/// Milestone and part (big-endian) to a list of ids, each with its output or none.
const CHANGES: Table = Table::large(45, "changes of outputs");
/// Changes in one record.
const PART_CHANGES: usize = 2_000;
/// Outputs in the pages that are written for each change: so the changes that are kept come to the half of all
/// outputs at most, and each is written three times in all.
const OUTPUTS_PER_CHANGE: usize = 2;
/// The same for a milestone that changes any at least: so there are never many small records to read.
const OUTPUTS_PER_MILESTONE: usize = 32;
/// Pages in one commit of a whole ledger.
const PAGES_TOGETHER: usize = 64;
/// Pages that are read at a time.
const PAGES_AT_ONCE: usize = 4;
const _: () = assert!(PAGE_OUTPUTS_MAX * 74 + 8 <= LARGE_VALUE_BYTES_MAX, "a page fits a value");
const _: () = assert!(PART_CHANGES * 75 + 8 <= LARGE_VALUE_BYTES_MAX, "a part of the changes fits a value");

/// One change.
type Change = (OutputId, Option<Output>);

/// What is kept of the changes.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Milestone and part of every record, in order.
    records: VecDeque<(u64, u32)>,
    /// Outputs in pages that may be written yet.
    credit: usize,
}

/// What a milestone writes, to be remembered once it is durable.
pub(super) struct Written {
    pages: Vec<OutputId>,
    journal: Journal,
}

fn page_key(start: &OutputId) -> Vec<u8> {
    [&start.transaction.as_bytes()[..], &start.index.to_be_bytes()].concat()
}

fn start_of(key: &[u8]) -> Option<OutputId> {
    let (transaction, index) = key.split_first_chunk::<32>()?;
    let index = u16::from_be_bytes(index.try_into().ok()?);
    Some(OutputId { transaction: TransactionId::new(*transaction), index })
}

fn part_key((index, part): (u64, u32)) -> Vec<u8> {
    [&index.to_be_bytes()[..], &part.to_be_bytes()].concat()
}

fn part_of(key: &[u8]) -> Option<(u64, u32)> {
    let (index, part) = key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*index), u32::from_be_bytes(part.try_into().ok()?)))
}

/// Stores all outputs; `commit` gets the batch, to empty it, each time that it is large.
pub(super) fn put_all<E>(
    outputs: &mut Outputs,
    batch: &mut Batch,
    mut commit: impl FnMut(&mut Batch) -> Result<(), E>,
) -> Result<(), E> {
    let mut starts = Vec::new();
    for (_, start, page) in outputs.changed() {
        batch.put(PAGES, &page_key(&start), codec::encode(&page.entries()));
        starts.push(start);
        if starts.len().is_multiple_of(PAGES_TOGETHER) {
            commit(batch)?;
        }
    }
    outputs.set_stored(&starts);
    Ok(())
}

/// Reads all outputs.
pub(super) fn read(store: &dyn Store, builder: &mut LedgerBuilder) -> Result<Journal, NodeError> {
    let damaged = || NodeError::Damaged("page of outputs");
    let mut after: Option<Vec<u8>> = None;
    loop {
        let pages = store.scan(PAGES, &[], after.as_deref(), PAGES_AT_ONCE)?;
        let Some((last, _)) = pages.last() else { break };
        after = Some(last.clone());
        for (key, page) in pages {
            let start = start_of(&key).ok_or_else(damaged)?;
            let entries: Vec<Entry> = decode(PAGES, &key, &page)?;
            builder.page(start, entries).ok_or_else(damaged)?;
        }
    }
    let mut journal = Journal::default();
    for_each(store, CHANGES, &[], |(key, changes)| {
        let record = part_of(&key).ok_or(NodeError::Damaged("changes of outputs"))?;
        for (id, output) in decode::<Vec<Change>>(CHANGES, &key, &changes)? {
            builder.change(id, output, record.0);
        }
        journal.records.push_back(record);
        Ok::<_, NodeError>(())
    })?;
    Ok(journal)
}

impl Journal {
    /// Puts what milestone `index` changes into its batch, and some of the pages of `outputs`, which are as
    /// they were before it.
    pub(super) fn write(
        &self,
        batch: &mut Batch,
        outputs: &Outputs,
        changes: &StateChanges,
        index: u64,
    ) -> Written {
        let changes: Vec<Change> = changes.iter().filter_map(output_change).collect();
        let least = if changes.is_empty() { 0 } else { OUTPUTS_PER_MILESTONE };
        let fresh = changes.len().saturating_mul(OUTPUTS_PER_CHANGE).max(least);
        let mut credit = self.credit.saturating_add(fresh).min(outputs.len().saturating_add(fresh));
        let mut oldest = index;
        let mut pages = Vec::new();
        for (since, start, page) in outputs.changed() {
            let Some(left) = credit.checked_sub(page.entries().len()) else {
                oldest = since;
                break;
            };
            credit = left;
            batch.put(PAGES, &page_key(&start), codec::encode(&page.entries()));
            pages.push(start);
        }
        let (gone, mut records): (VecDeque<_>, VecDeque<_>) =
            self.records.iter().partition(|(index, _)| *index < oldest);
        for record in gone {
            batch.delete(CHANGES, &part_key(record));
        }
        for (part, changes) in (0..).zip(changes.chunks(PART_CHANGES)) {
            batch.put(CHANGES, &part_key((index, part)), codec::encode(&changes));
            records.push_back((index, part));
        }
        Written { pages, journal: Self { records, credit } }
    }

    /// What was written is durable.
    pub(super) fn take_over(&mut self, written: Written, outputs: &mut Outputs) {
        *self = written.journal;
        outputs.set_stored(&written.pages);
    }
}

fn output_change((key, value): (&StateKey, &Option<StateValue>)) -> Option<Change> {
    match (key, value) {
        (StateKey::Output(id), Some(StateValue::Output(output))) => Some((*id, Some(*output))),
        (StateKey::Output(id), None) => Some((*id, None)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use flash_channel::store::MemoryStore;
    use flash_proto::{Address, Amount};

    use super::*;

    const OUTPUTS: u64 = 4_000;

    fn id(n: u64) -> OutputId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        OutputId { transaction: TransactionId::new(bytes), index: 0 }
    }

    fn loaded(store: &MemoryStore) -> (Vec<Entry>, Journal) {
        let mut builder = LedgerBuilder::default();
        let journal = read(store, &mut builder).unwrap();
        (builder.finish().unwrap().outputs().iter().copied().collect(), journal)
    }

    #[test]
    fn after_every_milestone_the_disk_holds_all_and_little_more() {
        let output = Output { address: Address::new([7; 32]), amount: Amount::new(1) };
        let (store, mut outputs) = (MemoryStore::new(), Outputs::default());
        (0..OUTPUTS).for_each(|n| _ = outputs.set(id(n), Some(output), 0));
        let commit = |batch: &Batch| drop(store.commit(batch).unwrap());
        let mut batch = Batch::new();
        put_all(&mut outputs, &mut batch, |_| Ok::<_, NodeError>(())).unwrap();
        commit(&batch);
        let (_, mut journal) = loaded(&store);
        let mut most = 0;
        // One spent and one made by each milestone, and now and then many.
        let mut next = OUTPUTS;
        for index in 1..=1_000_u64 {
            let count = if index % 250 == 0 { 2_100 } else { u64::from(index % 5 > 0) };
            let changes: StateChanges = (next..next + count)
                .flat_map(|n| [(n, Some(StateValue::Output(output))), (n - OUTPUTS, None)])
                .map(|(n, value)| (StateKey::Output(id(n)), value))
                .collect();
            next += count;
            let mut batch = Batch::new();
            let written = journal.write(&mut batch, &outputs, &changes, index);
            commit(&batch);
            journal.take_over(written, &mut outputs);
            changes.iter().filter_map(output_change).for_each(|(id, to)| _ = outputs.set(id, to, index));
            most = most.max(journal.records.len());
            if index % 50 < 2 {
                let (found, kept) = loaded(&store);
                assert_eq!(found, outputs.iter().copied().collect::<Vec<_>>(), "milestone {index}");
                assert_eq!(kept.records, journal.records);
            }
        }
        let cycle = usize::try_from(OUTPUTS).unwrap() / OUTPUTS_PER_MILESTONE;
        assert!(most <= 3 * cycle, "{most} records, but {cycle} milestones write all outputs");
    }
}
