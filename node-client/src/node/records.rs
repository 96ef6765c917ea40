//! What a node stores, and where.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use flash_channel::store::{Batch, LARGE_VALUE_BYTES_MAX, Store, StoreError, Table, records::load};
use flash_proto::{BlockId, ChannelId, CoordinatorHistory, Milestone, TransactionId, codec};

use super::NodeError;
use crate::{ledger::Conflict, light::Fork, protocol::Followed};

/// One record each, by name.
pub(super) const META: Table = Table::large(31, "node");
/// Who signs which milestones: [`CoordinatorHistory`].
const COORDINATORS: &[u8] = b"coordinators";
/// What stopped the node for ever: [`Fork`].
const FORK: &[u8] = b"fork";
/// Block id to the block's bytes.
pub(super) const BLOCKS: Table = Table::large(32, "blocks");
/// Number (big-endian) to the id of a block that no milestone has confirmed yet.
pub(super) const WAITING: Table = Table::small(33, "waiting blocks");
/// Index (big-endian) to [`MilestoneRecord`].
pub(super) const MILESTONES: Table = Table::large(34, "milestones");
/// Index and page (big-endian) to the blocks that a milestone confirmed, in white-flag order.
pub(super) const INCLUDED: Table = Table::large(35, "included blocks");
/// Index and page to those of them whose transaction changed the ledger.
pub(super) const APPLIED: Table = Table::large(36, "applied blocks");
/// Index and page to the channels that a milestone changed, in rising order.
pub(super) const TOUCHED: Table = Table::large(37, "touched channels");
/// State key to state value.
pub(super) const STATE: Table = Table::small(38, "ledger state");
/// Transaction id to [`TransactionRecord`].
pub(super) const TRANSACTIONS: Table = Table::small(39, "transactions");

/// Block id to the index (big-endian) of the milestone that confirmed it.
pub(super) const CONFIRMED: Table = Table::small(45, "confirmed by");

/// Ids in one page of a list.
const PAGE_IDS: usize = 8_000;
const _: () = assert!(PAGE_IDS * 32 + 8 <= LARGE_VALUE_BYTES_MAX, "a page of ids fits a value");

/// A milestone and the block that carries it.
#[derive(Clone, Debug, Encode, Decode)]
pub(super) struct MilestoneRecord {
    pub milestone: Milestone,
    pub block: BlockId,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Outcome {
    /// No block with it is confirmed.
    None,
    /// The block with which it changed the ledger. Nothing follows this.
    Applied { block: BlockId, milestone: u64 },
    /// The newest confirmed block that carried it.
    Rejected { block: BlockId, milestone: u64, conflict: Conflict },
}

/// What is known of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct TransactionRecord {
    /// The newest block that carries it.
    pub block: BlockId,
    /// How many blocks that carry it wait for a milestone.
    pub waiting: u32,
    pub outcome: Outcome,
}

/// The transaction records that a batch changes, above those that are stored.
pub(super) struct TransactionRecords<'a> {
    store: &'a dyn Store,
    changed: BTreeMap<TransactionId, TransactionRecord>,
}

impl<'a> TransactionRecords<'a> {
    pub(super) fn new(store: &'a dyn Store) -> Self {
        Self { store, changed: BTreeMap::new() }
    }

    fn get(&self, id: TransactionId) -> Result<Option<TransactionRecord>, NodeError> {
        match self.changed.get(&id) {
            Some(record) => Ok(Some(*record)),
            None => transaction(self.store, id),
        }
    }

    /// A new block carries the transaction.
    pub(super) fn carried(&mut self, id: TransactionId, block: BlockId) -> Result<(), NodeError> {
        let old = self.get(id)?;
        let waiting = old.map_or(0, |old| old.waiting).saturating_add(1);
        let outcome = old.map_or(Outcome::None, |old| old.outcome);
        self.changed.insert(id, TransactionRecord { block, waiting, outcome });
        Ok(())
    }

    /// A block that carries the transaction is confirmed.
    pub(super) fn confirmed(&mut self, id: TransactionId, outcome: Outcome) -> Result<(), NodeError> {
        let mut record = self.get(id)?.ok_or(NodeError::Damaged("transaction index"))?;
        record.waiting = record.waiting.saturating_sub(1);
        if !matches!(record.outcome, Outcome::Applied { .. }) {
            record.outcome = outcome;
        }
        self.changed.insert(id, record);
        Ok(())
    }

    /// A block that carries the transaction has expired.
    pub(super) fn expired(&mut self, id: TransactionId) -> Result<(), NodeError> {
        let mut record = self.get(id)?.ok_or(NodeError::Damaged("transaction index"))?;
        record.waiting = record.waiting.saturating_sub(1);
        self.changed.insert(id, record);
        Ok(())
    }

    /// Writes all changes.
    pub(super) fn write(self, batch: &mut Batch) {
        for (id, record) in self.changed {
            batch.put(TRANSACTIONS, id.as_bytes(), codec::encode(&record));
        }
    }
}

pub(super) fn transaction(
    store: &dyn Store,
    id: TransactionId,
) -> Result<Option<TransactionRecord>, NodeError> {
    Ok(load(store, TRANSACTIONS, id.as_bytes())?)
}

pub(super) fn coordinators(store: &dyn Store) -> Result<Option<CoordinatorHistory>, NodeError> {
    Ok(load(store, META, COORDINATORS)?)
}

pub(super) fn put_coordinators(batch: &mut Batch, coordinators: &CoordinatorHistory) {
    batch.put(META, COORDINATORS, codec::encode(coordinators));
}

/// The evidence of a fork, if the node has met one.
pub(super) fn fork(store: &dyn Store) -> Result<Option<Fork>, NodeError> {
    Ok(load(store, META, FORK)?)
}

pub(super) fn put_fork(batch: &mut Batch, fork: &Fork) {
    batch.put(META, FORK, codec::encode(fork));
}

pub(super) fn milestone(store: &dyn Store, index: u64) -> Result<Option<MilestoneRecord>, NodeError> {
    Ok(load(store, MILESTONES, &index.to_be_bytes())?)
}

/// A milestone with the channels that it changed.
pub(super) fn followed(store: &dyn Store, index: u64) -> Result<Option<Followed>, NodeError> {
    let Some(record) = milestone(store, index)? else { return Ok(None) };
    let channels = ids(store, TOUCHED, index)?;
    Ok(Some(Followed { milestone: record.milestone, channels: channels.map(ChannelId::new).collect() }))
}

/// The milestone that confirmed a block, if one has.
pub(super) fn confirmed_by(store: &dyn Store, block: &BlockId) -> Result<Option<u64>, NodeError> {
    let Some(bytes) = store.get(CONFIRMED, block.as_bytes())? else { return Ok(None) };
    let index = bytes.try_into().map_err(|_| NodeError::Damaged("list of confirmed blocks"))?;
    Ok(Some(u64::from_be_bytes(index)))
}

/// Stores a list of ids under a milestone's index.
pub(super) fn put_ids(batch: &mut Batch, table: Table, index: u64, ids: &[[u8; 32]]) {
    for (page, ids) in (0_u32..).zip(ids.chunks(PAGE_IDS)) {
        batch.put(table, &page_key(index, page), ids.concat());
    }
}

/// The list of ids under a milestone's index.
pub(super) fn ids(
    store: &dyn Store,
    table: Table,
    index: u64,
) -> Result<impl Iterator<Item = [u8; 32]>, StoreError> {
    let mut found = Vec::new();
    for page in 0_u32.. {
        let Some(bytes) = store.get(table, &page_key(index, page))? else { break };
        found.extend_from_slice(bytes.as_chunks::<32>().0);
    }
    Ok(found.into_iter())
}

fn page_key(index: u64, page: u32) -> Vec<u8> {
    [&index.to_be_bytes()[..], &page.to_be_bytes()].concat()
}
