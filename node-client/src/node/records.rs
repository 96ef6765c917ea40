//! What a node stores, and where.

use bincode::{Decode, Encode};
use flash_channel::store::{Batch, LARGE_VALUE_BYTES_MAX, Store, StoreError, Table, records::load};
use flash_proto::{BlockId, ChannelId, CoordinatorHistory, Milestone, TransactionId, codec};

use super::{NodeError, pages::Place};
use crate::{coordinator::VoteRecord, ledger::Conflict, light::Fork, protocol::Followed};

/// One record each, by name.
pub(super) const META: Table = Table::large(31, "node");
/// Who signs which milestones: [`CoordinatorHistory`].
const COORDINATORS: &[u8] = b"coordinators";
/// [`VoteRecord`].
const VOTE: &[u8] = b"vote";
/// What stopped the node for ever: [`Fork`].
const FORK: &[u8] = b"fork";
/// Where other nodes are.
pub(super) const ADDRESSES: &[u8] = b"addresses";
/// What is here of the past: [`Past`].
const PAST: &[u8] = b"past";
/// Stands there while a snapshot is being read in.
const UNFINISHED: &[u8] = b"unfinished";
/// Block id to [`Confirmed`]; blocks that wait for a milestone are only in their page.
pub(super) const CONFIRMED: Table = Table::small(33, "confirmed blocks");
/// Index (big-endian) to [`MilestoneRecord`].
pub(super) const MILESTONES: Table = Table::large(34, "milestones");
/// Index and page (big-endian) to the blocks that a milestone confirmed, in white-flag order.
pub(super) const INCLUDED: Table = Table::large(35, "included blocks");
/// Index and page to those of them whose transaction changed the ledger.
pub(super) const APPLIED: Table = Table::large(36, "applied blocks");
/// Index and page to the channels that a milestone changed, in rising order.
pub(super) const TOUCHED: Table = Table::large(37, "touched channels");
/// Channel id to its record.
pub(super) const CHANNELS: Table = Table::small(38, "channels");
/// Transaction id to [`Outcome`]; of transactions that only wait nothing is kept.
pub(super) const TRANSACTIONS: Table = Table::small(39, "transactions");

/// Ids in one page of a list.
const PAGE_IDS: usize = 8_000;
const _: () = assert!(PAGE_IDS * 32 + 8 <= LARGE_VALUE_BYTES_MAX, "a page of ids fits a value");

/// A milestone and the block that carries it.
#[derive(Clone, Debug, Encode, Decode)]
pub(super) struct MilestoneRecord {
    pub milestone: Milestone,
    pub block: BlockId,
    /// The first page of blocks with one that still waits afterwards.
    pub waiting_page: u64,
    /// Blocks confirmed up to it.
    pub confirmed: u64,
}

/// A confirmed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Confirmed {
    pub place: Place,
    /// The milestone that confirmed it.
    pub milestone: u64,
}

/// How much of the past a node has let go of, and how much it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Past {
    /// The blocks that milestones up to this one confirmed are not here, nor what is known of their
    /// transactions; 0 if nothing is missing.
    pub blocks: u64,
    /// Nor are the milestones themselves up to this one, but for those that hand over to other coordinators.
    pub milestones: u64,
    /// Bytes of all confirmed blocks that are here.
    pub bytes: u64,
    /// The first page of blocks that is here.
    pub(super) page: u64,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Outcome {
    /// The block with which it changed the ledger. Nothing follows this.
    Applied { block: BlockId, milestone: u64 },
    /// The newest confirmed block that carried it.
    Rejected { block: BlockId, milestone: u64, conflict: Conflict },
}

impl Outcome {
    /// The milestone that confirmed its block.
    pub(super) const fn milestone(&self) -> u64 {
        match self {
            Self::Applied { milestone, .. } | Self::Rejected { milestone, .. } => *milestone,
        }
    }
}

pub(super) fn outcome(store: &dyn Store, id: TransactionId) -> Result<Option<Outcome>, NodeError> {
    Ok(load(store, TRANSACTIONS, id.as_bytes())?)
}

pub(super) fn put_outcome(batch: &mut Batch, id: TransactionId, outcome: &Outcome) {
    batch.put(TRANSACTIONS, id.as_bytes(), codec::encode(outcome));
}

pub(super) fn delete_outcome(batch: &mut Batch, id: TransactionId) {
    batch.delete(TRANSACTIONS, id.as_bytes());
}

pub(super) fn confirmed(store: &dyn Store, id: &BlockId) -> Result<Option<Confirmed>, NodeError> {
    Ok(load(store, CONFIRMED, id.as_bytes())?)
}

pub(super) fn delete_confirmed(batch: &mut Batch, id: &BlockId) {
    batch.delete(CONFIRMED, id.as_bytes());
}

pub(super) fn put_confirmed(batch: &mut Batch, id: &BlockId, confirmed: &Confirmed) {
    batch.put(CONFIRMED, id.as_bytes(), codec::encode(confirmed));
}

/// What this node's coordinator must not forget.
pub(super) fn vote(store: &dyn Store) -> Result<Option<VoteRecord>, NodeError> {
    Ok(load(store, META, VOTE)?)
}

pub(super) fn put_vote(batch: &mut Batch, vote: &VoteRecord) {
    batch.put(META, VOTE, codec::encode(vote));
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

/// What is here of the past; everything in a directory that has no record of it yet.
pub(super) fn past(store: &dyn Store) -> Result<Past, NodeError> {
    Ok(load(store, META, PAST)?.unwrap_or_default())
}

pub(super) fn put_past(batch: &mut Batch, past: &Past) {
    batch.put(META, PAST, codec::encode(past));
}

/// Whether a snapshot was begun to be read in and never finished.
pub(super) fn is_unfinished(store: &dyn Store) -> Result<bool, StoreError> {
    Ok(store.get(META, UNFINISHED)?.is_some())
}

/// Marks a store as not to be used, or as whole.
pub(super) fn set_unfinished(batch: &mut Batch, unfinished: bool) {
    if unfinished {
        batch.put(META, UNFINISHED, Vec::new());
    } else {
        batch.delete(META, UNFINISHED);
    }
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

/// Deletes the list of ids under a milestone's index.
pub(super) fn delete_ids(
    store: &dyn Store,
    batch: &mut Batch,
    table: Table,
    index: u64,
) -> Result<(), StoreError> {
    for page in 0_u32.. {
        let key = page_key(index, page);
        if store.get(table, &key)?.is_none() {
            break;
        }
        batch.delete(table, &key);
    }
    Ok(())
}

fn page_key(index: u64, page: u32) -> Vec<u8> {
    [&index.to_be_bytes()[..], &page.to_be_bytes()].concat()
}
