//! Finding blocks on the disk.
//!
//! Every record here costs as much as one of the ledger's own, so there are as few as can be: those of tags
//! and addresses, written with the block, and those of transactions that were rejected. Which blocks carry
//! a transaction that was applied, and which approve another, is found without (`explore`).

use std::collections::BTreeSet;

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
/// Transaction id and the id of a block with which it was rejected, to nothing.
const REJECTED_CARRIERS: Table = Table::small(42, "rejected blocks by transaction");
/// Id of a block whose transaction was rejected, to [`Conflict`].
const REJECTED: Table = Table::small(43, "rejected blocks");

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

/// A key of a table without the block id that ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    table: Table,
    bytes: Vec<u8>,
}

impl Prefix {
    pub(super) fn tag(tag: &[u8]) -> Self {
        let len = tag.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
        // A tag that is too long for a block begins like no key.
        let mut bytes = vec![u8::try_from(len).unwrap_or(u8::MAX)];
        bytes.extend(tag.iter().take(len));
        Self { table: TAGS, bytes }
    }

    pub(super) fn address(address: &Address) -> Self {
        Self { table: ADDRESSES, bytes: address.as_bytes().to_vec() }
    }

    pub(super) fn rejected(transaction: TransactionId) -> Self {
        Self { table: REJECTED_CARRIERS, bytes: transaction.as_bytes().to_vec() }
    }

    fn key(&self, block: BlockId) -> Vec<u8> {
        [&self.bytes[..], block.as_bytes()].concat()
    }

    /// At most `limit` of the blocks, in rising order of their ids from the first above `after`.
    pub(super) fn blocks(
        &self,
        store: &dyn Store,
        after: Option<BlockId>,
        limit: usize,
    ) -> Result<Vec<BlockId>, NodeError> {
        let after = after.map(|after| self.key(after));
        // No key may be longer than a store's, so a tag that is too long is in no block.
        if self.bytes.len() > flash_channel::store::KEY_BYTES_MAX {
            return Ok(Vec::new());
        }
        let entries = store.scan(self.table, &self.bytes, after.as_deref(), limit)?;
        let id = |key: &[u8]| key.last_chunk::<32>().map(|id| BlockId::new(*id));
        entries.iter().map(|(key, _)| id(key).ok_or(NodeError::Damaged("index of blocks"))).collect()
    }
}

/// Everything under which a block stands from its arrival on.
fn prefixes(bytes: &[u8]) -> Result<Vec<Prefix>, CodecError> {
    Ok(match codec::decode::<Block, BLOCK_BYTES_MAX>(bytes)?.payload {
        Payload::Data(data) => vec![Prefix::tag(&data.tag)],
        Payload::Transaction(transaction) => addresses(&transaction).iter().map(Prefix::address).collect(),
        Payload::Empty | Payload::Milestone(_) => Vec::new(),
    })
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
    for prefix in prefixes(bytes).map_err(|_| NodeError::Damaged("block"))? {
        batch.put(prefix.table, &prefix.key(id), Vec::new());
    }
    Ok(())
}

/// A block that goes.
pub(super) fn remove(batch: &mut Batch, id: BlockId, bytes: &[u8]) -> Result<(), NodeError> {
    let block = codec::decode::<Block, BLOCK_BYTES_MAX>(bytes).map_err(|_| NodeError::Damaged("block"))?;
    let mut gone = prefixes(bytes).map_err(|_| NodeError::Damaged("block"))?;
    if let Payload::Transaction(transaction) = block.payload {
        gone.push(Prefix::rejected(transaction.id()));
    }
    for prefix in gone {
        batch.delete(prefix.table, &prefix.key(id));
    }
    batch.delete(REJECTED, id.as_bytes());
    Ok(())
}

/// A milestone rejected these.
pub(super) fn confirm(batch: &mut Batch, confirmation: &Confirmation) {
    for (block, transaction, conflict) in &confirmation.conflicts {
        let prefix = Prefix::rejected(*transaction);
        batch.put(prefix.table, &prefix.key(*block), Vec::new());
        batch.put(REJECTED, block.as_bytes(), codec::encode(conflict));
    }
}

/// Why a confirmed block's transaction was rejected, if it was.
pub(super) fn rejected(store: &dyn Store, block: BlockId) -> Result<Option<Conflict>, NodeError> {
    Ok(load(store, REJECTED, block.as_bytes())?)
}
