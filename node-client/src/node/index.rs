//! Finding blocks: by tag, address, parent and transaction, and what a milestone made of each.
//!
//! Every entry is written in the batch of what it is about, so that the index never lags behind or runs
//! ahead of the blocks.

use std::collections::{BTreeSet, HashMap};

use bincode::{Decode, Encode};
use flash_channel::store::{Batch, Store, Table, records::load};
use flash_proto::{
    Action, Address, Block, BlockId, Payload, Transaction, TransactionId,
    codec::{self, CodecError},
    limits::BLOCK_BYTES_MAX,
};

use super::NodeError;
use crate::ledger::{Confirmation, Conflict};

/// Length of the tag, tag and block id, to nothing.
const TAGS: Table = Table::small(40, "blocks by tag");
/// Address and block id, to nothing.
const ADDRESSES: Table = Table::small(41, "blocks by address");
/// Parent and block id, to nothing.
const CHILDREN: Table = Table::small(42, "blocks by parent");
/// Transaction id and block id, to nothing.
const CARRIERS: Table = Table::small(43, "blocks by transaction");
/// Block id to [`Confirmed`].
const CONFIRMED: Table = Table::small(44, "confirmed blocks");

/// What to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Find {
    /// Blocks with data under this tag. Zero bytes at the end of a tag do not count: in trytes they are
    /// the padding.
    Tag(Vec<u8>),
    /// Blocks with a transaction that spends from this address, pays to it, or opens a channel that will.
    Address(Address),
    /// Blocks that approve this one.
    Parent(BlockId),
    /// Blocks that carry this transaction.
    Transaction(TransactionId),
}

/// What a milestone made of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum BlockOutcome {
    /// It carries no transaction.
    Included,
    /// Its transaction changed the ledger.
    Applied,
    /// Its transaction changed nothing, and why.
    Rejected(Conflict),
}

/// The milestone that confirmed a block, and what it made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Confirmed {
    /// The milestone's index.
    pub milestone_index: u64,
    /// What it made of the block.
    pub outcome: BlockOutcome,
}

impl Find {
    /// The table, and what its keys begin with.
    fn place(&self) -> (Table, Vec<u8>) {
        match self {
            Self::Tag(tag) => {
                let len = tag.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
                let tag = tag.iter().take(len);
                // A tag that is too long for a block begins like no key.
                let mut key = vec![u8::try_from(len).unwrap_or(u8::MAX)];
                key.extend(tag);
                (TAGS, key)
            }
            Self::Address(address) => (ADDRESSES, address.as_bytes().to_vec()),
            Self::Parent(parent) => (CHILDREN, parent.as_bytes().to_vec()),
            Self::Transaction(id) => (CARRIERS, id.as_bytes().to_vec()),
        }
    }

    fn key(&self, block: BlockId) -> (Table, Vec<u8>) {
        let (table, mut key) = self.place();
        key.extend(block.as_bytes());
        (table, key)
    }
}

/// Everything by which a block is found.
fn finds(bytes: &[u8]) -> Result<Vec<Find>, CodecError> {
    let block = codec::decode::<Block, BLOCK_BYTES_MAX>(bytes)?;
    let mut finds: Vec<_> = block.parents.into_iter().map(Find::Parent).collect();
    match block.payload {
        Payload::Data(data) => finds.push(Find::Tag(data.tag)),
        Payload::Transaction(transaction) => {
            finds.push(Find::Transaction(transaction.id()));
            finds.extend(addresses(&transaction).into_iter().map(Find::Address));
        }
        Payload::Empty | Payload::Milestone(_) => {}
    }
    Ok(finds)
}

/// The addresses that a transaction spends from and pays to.
fn addresses(transaction: &Transaction) -> BTreeSet<Address> {
    let essence = &transaction.essence;
    let spent = transaction.unlocks.iter().take(essence.inputs.len()).map(|unlock| Address::of(&unlock.key));
    let paid = essence.outputs.iter().map(|output| output.address);
    let opened = match &essence.action {
        Action::Open(open) => vec![open.party_a.payout, open.party_b.payout],
        _ => Vec::new(),
    };
    spent.chain(paid).chain(opened).collect()
}

/// A new block.
pub(super) fn add(batch: &mut Batch, id: BlockId, bytes: &[u8]) -> Result<(), NodeError> {
    for find in finds(bytes).map_err(|_| NodeError::Damaged("block"))? {
        let (table, key) = find.key(id);
        batch.put(table, &key, Vec::new());
    }
    Ok(())
}

/// A block that goes.
pub(super) fn remove(batch: &mut Batch, id: BlockId, bytes: &[u8]) -> Result<(), NodeError> {
    for find in finds(bytes).map_err(|_| NodeError::Damaged("block"))? {
        let (table, key) = find.key(id);
        batch.delete(table, &key);
    }
    batch.delete(CONFIRMED, id.as_bytes());
    Ok(())
}

/// Milestone `index` confirmed these blocks.
pub(super) fn confirm(batch: &mut Batch, index: u64, included: &[BlockId], confirmation: &Confirmation) {
    let applied = confirmation.applied.iter().map(|(block, _)| (block, BlockOutcome::Applied));
    let rejected = confirmation.conflicts.iter().map(|(block, _, why)| (block, BlockOutcome::Rejected(*why)));
    let outcomes: HashMap<_, _> = applied.chain(rejected).collect();
    for block in included {
        let outcome = outcomes.get(block).copied().unwrap_or(BlockOutcome::Included);
        let confirmed = Confirmed { milestone_index: index, outcome };
        batch.put(CONFIRMED, block.as_bytes(), codec::encode(&confirmed));
    }
}

/// At most `limit` of the blocks, in rising order of their ids from the first above `after`.
pub(super) fn find(
    store: &dyn Store,
    find: &Find,
    after: Option<BlockId>,
    limit: usize,
) -> Result<Vec<BlockId>, NodeError> {
    let (table, prefix) = find.place();
    let after = after.map(|after| find.key(after).1);
    let entries = store.scan(table, &prefix, after.as_deref(), limit)?;
    let id = |key: &[u8]| key.last_chunk::<32>().map(|id| BlockId::new(*id));
    entries.iter().map(|(key, _)| id(key).ok_or(NodeError::Damaged("index of blocks"))).collect()
}

/// What became of a block, if a milestone confirmed it.
pub(super) fn confirmed(store: &dyn Store, block: BlockId) -> Result<Option<Confirmed>, NodeError> {
    Ok(load(store, CONFIRMED, block.as_bytes())?)
}
