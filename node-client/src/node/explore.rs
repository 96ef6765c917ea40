//! Answers about the Tangle and the ledger to those who look at it: nothing here proves itself, the
//! proofs apart.

use std::collections::HashSet;

use flash_proto::{Address, Amount, Block, BlockId, Milestone, Output, OutputId, StateKey, codec, limits};

use super::{
    Node, NodeError,
    index::{self, BlockOutcome, Confirmed, Find},
    records::{self, INCLUDED},
};
use crate::ledger::state_tree::Proof;

/// Blocks that are looked at to tell whether one is in the past of another.
const PAST_BLOCKS_MAX: usize = 20_000;

/// Where a block of the Tangle is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// No milestone has confirmed it yet.
    Waiting,
    /// A milestone confirmed it.
    Confirmed(Confirmed),
}

/// A milestone and the block that carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedMilestone {
    /// The milestone.
    pub milestone: Milestone,
    /// Its block.
    pub block: BlockId,
}

/// The amounts at some addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressBalances {
    /// The milestone after which they held.
    pub milestone_index: u64,
    /// One for each address, in order.
    pub amounts: Vec<Amount>,
}

/// An output, or that there is none, with what proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenOutput {
    /// The milestone whose state root the proof leads to.
    pub milestone_index: u64,
    /// The unspent output.
    pub output: Option<Output>,
    /// Proves it, or that it is not there.
    pub proof: Proof,
}

impl Node {
    /// At most `limit` of the blocks that are looked for, in rising order of their ids from the first
    /// above `after`.
    ///
    /// # Errors
    /// [`NodeError::Halted`], or the store's failure.
    pub fn find(&self, what: &Find, after: Option<BlockId>, limit: usize) -> Result<Vec<BlockId>, NodeError> {
        self.alive()?;
        self.stored(index::find(self.store(), what, after, limit))
    }

    /// Where a block is in its life; `None` if the node does not have it.
    ///
    /// # Errors
    /// [`NodeError::Halted`], or the store's failure.
    pub fn block_state(&self, block: BlockId) -> Result<Option<BlockState>, NodeError> {
        self.alive()?;
        if block == self.shared.params.genesis_block() {
            let genesis = Confirmed { milestone_index: 0, outcome: BlockOutcome::Included };
            return Ok(Some(BlockState::Confirmed(genesis)));
        }
        // First, so that a block is never missed on its way from waiting to confirmed.
        let (waits, newest) = {
            let core = self.read();
            (core.tangle.number_of(&block).is_some(), core.index())
        };
        if waits {
            return Ok(Some(BlockState::Waiting));
        }
        match self.stored(index::confirmed(self.store(), block))? {
            Some(confirmed) if confirmed.milestone_index <= newest => {
                Ok(Some(BlockState::Confirmed(confirmed)))
            }
            // On the disk already, but not yet taken over.
            Some(_) => Ok(Some(BlockState::Waiting)),
            None => Ok(None),
        }
    }

    /// The milestone with this index, the newest if `None`, and its block.
    ///
    /// # Errors
    /// [`NodeError::Halted`], or the store's failure.
    pub fn milestone(&self, index: Option<u64>) -> Result<Option<CarriedMilestone>, NodeError> {
        self.alive()?;
        let newest = self.read().index();
        let index = index.unwrap_or(newest);
        if index > newest {
            return Ok(None);
        }
        let record = self.stored(records::milestone(self.store(), index))?;
        Ok(record.map(|record| CarriedMilestone { milestone: record.milestone, block: record.block }))
    }

    /// At most `limit` of the blocks that milestone `index` confirmed, in white-flag order, `skip` of them
    /// left out; `None` if there is no such milestone.
    ///
    /// # Errors
    /// [`NodeError::Halted`], or the store's failure.
    pub fn included(
        &self,
        index: u64,
        skip: usize,
        limit: usize,
    ) -> Result<Option<Vec<(BlockId, BlockOutcome)>>, NodeError> {
        self.alive()?;
        if index > self.read().index() {
            return Ok(None);
        }
        let ids = self.stored(records::ids(self.store(), INCLUDED, index).map_err(NodeError::from))?;
        let mut found = Vec::new();
        for id in ids.skip(skip).take(limit).map(BlockId::new) {
            let confirmed = self.stored(index::confirmed(self.store(), id))?;
            found.push((id, confirmed.ok_or(NodeError::Damaged("index of blocks"))?.outcome));
        }
        Ok(Some(found))
    }

    /// The unspent money at each of these addresses.
    pub fn balances(&self, addresses: &[Address]) -> AddressBalances {
        let core = self.read();
        // The supply bounds every sum.
        let sum = |address| {
            let amounts = core.ledger.outputs_at(address).map(|(_, output)| output.amount);
            Amount::checked_sum(amounts).unwrap_or(Amount::MAX)
        };
        AddressBalances { milestone_index: core.index(), amounts: addresses.iter().map(sum).collect() }
    }

    /// An unspent output, or that there is none.
    pub fn output(&self, id: OutputId) -> ProvenOutput {
        let core = self.read();
        ProvenOutput {
            milestone_index: core.index(),
            output: core.ledger.output(&id).copied(),
            proof: core.ledger.tree().prove(&StateKey::Output(id).tree_key()),
        }
    }

    /// Whether a new block may approve this one.
    pub fn may_approve(&self, block: &BlockId) -> bool {
        self.read().tangle.contains(block)
    }

    /// For each of `blocks` whether it is a tip in `tips` or in the past of one; `None` if that cannot be
    /// told because the past is too long.
    ///
    /// # Errors
    /// [`NodeError::Halted`], or the store's failure.
    pub fn in_past(&self, tips: &[BlockId], blocks: &[BlockId]) -> Result<Option<Vec<bool>>, NodeError> {
        // What the wanted blocks are confirmed by; older blocks need no look.
        let mut wanted = Vec::new();
        for block in blocks {
            wanted.push(self.confirmed_by(*block)?);
        }
        let oldest = wanted.iter().flatten().copied().min().unwrap_or(u64::MAX);
        let (mut seen, mut newest_milestone) = (HashSet::new(), None);
        let mut next = tips.to_vec();
        while let Some(block) = next.pop() {
            if !seen.insert(block) {
                continue;
            }
            if seen.len() > PAST_BLOCKS_MAX {
                return Ok(None);
            }
            let Some(bytes) = self.block(&block)? else { continue };
            let decoded = codec::decode::<Block, { limits::BLOCK_BYTES_MAX }>(&bytes);
            let decoded = decoded.map_err(|_| NodeError::Damaged("block"))?;
            if let flash_proto::Payload::Milestone(milestone) = &decoded.payload {
                // Its past is all that it and the milestones before it confirmed.
                newest_milestone = newest_milestone.max(Some(milestone.essence.index));
                continue;
            }
            if self.confirmed_by(block)?.is_none_or(|index| index >= oldest) {
                next.extend(decoded.parents);
            }
        }
        let told = blocks.iter().zip(wanted).map(|(block, confirmed)| {
            seen.contains(block) || confirmed.is_some_and(|index| Some(index) <= newest_milestone)
        });
        Ok(Some(told.collect()))
    }

    fn confirmed_by(&self, block: BlockId) -> Result<Option<u64>, NodeError> {
        Ok(match self.block_state(block)? {
            Some(BlockState::Confirmed(confirmed)) => Some(confirmed.milestone_index),
            _ => None,
        })
    }
}
