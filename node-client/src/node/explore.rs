//! Answers about the Tangle and the ledger to those who look at it: nothing here proves itself, the
//! proofs apart.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Bound,
};

use flash_proto::{
    Address, Amount, Block, BlockId, Milestone, Output, OutputId, Payload, StateKey, TransactionId, codec,
    limits::BLOCK_BYTES_MAX,
};

use super::{
    Node, NodeError,
    index::{self, Find, Prefix},
    pages::Reader,
    records::{self, APPLIED, INCLUDED, Outcome},
};
use crate::{
    ledger::{Conflict, state_tree::Proof},
    tangle::{CONFIRMED_MILESTONES, Measures, Score},
};

/// Blocks that are looked at to tell whether one is in the past of another.
const PAST_BLOCKS_MAX: usize = 20_000;
/// Confirmed blocks that are looked at to find those that approve another.
const CHILDREN_BLOCKS_MAX: usize = 50_000;

/// What a milestone made of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOutcome {
    /// It carries no transaction.
    Included,
    /// Its transaction changed the ledger.
    Applied,
    /// Its transaction changed nothing, and why.
    Rejected(Conflict),
}

/// The milestone that confirmed a block, and what it made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The milestone's index.
    pub milestone_index: u64,
    /// What it made of the block.
    pub outcome: BlockOutcome,
}

/// Where a block of the Tangle is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// No milestone has confirmed it yet.
    Waiting,
    /// A milestone confirmed it.
    Confirmed(Confirmed),
}

/// The same without what the milestone made of the block.
#[derive(Clone, Copy)]
enum Stage {
    Waiting,
    ConfirmedBy(u64),
}

impl Stage {
    const fn milestone(self) -> Option<u64> {
        match self {
            Self::Waiting => None,
            Self::ConfirmedBy(index) => Some(index),
        }
    }
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
    /// above `after`; `None` if that cannot be told because too many blocks came after a parent.
    ///
    /// # Errors
    /// [`NodeError::Halted`], or the store's failure.
    pub fn find(
        &self,
        what: &Find,
        after: Option<BlockId>,
        limit: usize,
    ) -> Result<Option<Vec<BlockId>>, NodeError> {
        self.alive()?;
        let found = match what {
            Find::Tag(tag) => {
                return self.stored(Prefix::tag(tag).blocks(self.store(), after, limit)).map(Some);
            }
            Find::Address(address) => {
                return self.stored(Prefix::address(address).blocks(self.store(), after, limit)).map(Some);
            }
            Find::Transaction(id) => self.carriers(*id, after, limit)?,
            Find::Parent(parent) => match self.children(parent)? {
                Some(children) => children,
                None => return Ok(None),
            },
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(Some(found.range((from, Bound::Unbounded)).take(limit).copied().collect()))
    }

    /// The blocks that carry a transaction: those that wait, the one that was applied, and those that were
    /// rejected, of these at most `limit` above `after`.
    fn carriers(
        &self,
        id: TransactionId,
        after: Option<BlockId>,
        limit: usize,
    ) -> Result<BTreeSet<BlockId>, NodeError> {
        let mut found: BTreeSet<BlockId> = {
            let core = self.read();
            let waiting = core.carried.get(&id).map(|_| core.waiting.iter()).into_iter().flatten();
            let carries = waiting.filter(|(_, waiting)| {
                waiting.transaction.as_ref().is_some_and(|transaction| transaction.id() == id)
            });
            carries.map(|(block, _)| *block).collect()
        };
        match self.stored(records::outcome(self.store(), id))? {
            Some(Outcome::Applied { block, .. } | Outcome::Rejected { block, .. }) => {
                found.insert(block);
            }
            None => {}
        }
        found.extend(self.stored(Prefix::rejected(id).blocks(self.store(), after, limit))?);
        Ok(found)
    }

    /// The blocks that approve this one. They came while it could be approved: they wait still, or were
    /// confirmed at most so many milestones after it.
    fn children(&self, parent: &BlockId) -> Result<Option<BTreeSet<BlockId>>, NodeError> {
        let (mut found, newest): (BTreeSet<BlockId>, u64) = {
            let core = self.read();
            (core.tangle.waiting_children(parent).collect(), core.index())
        };
        let Some(Stage::ConfirmedBy(first)) = self.stage(*parent)? else { return Ok(Some(found)) };
        let (mut reader, mut looked_at) = (Reader::default(), 0_usize);
        let last = first.saturating_add(CONFIRMED_MILESTONES).min(newest);
        for index in first..=last {
            let included =
                self.stored(records::ids(self.store(), INCLUDED, index).map_err(NodeError::from))?;
            for id in included.map(BlockId::new) {
                looked_at = looked_at.saturating_add(1);
                if looked_at > CHILDREN_BLOCKS_MAX {
                    return Ok(None);
                }
                let Some(bytes) = self.read_block(&mut reader, &id)? else { continue };
                if decode(&bytes)?.parents.contains(parent) {
                    found.insert(id);
                }
            }
        }
        Ok(Some(found))
    }

    /// Where a block is in its life; `None` if the node does not have it.
    ///
    /// # Errors
    /// [`NodeError::Halted`], or the store's failure.
    pub fn block_state(&self, block: BlockId) -> Result<Option<BlockState>, NodeError> {
        let milestone_index = match self.stage(block)? {
            None => return Ok(None),
            Some(Stage::Waiting) => return Ok(Some(BlockState::Waiting)),
            Some(Stage::ConfirmedBy(index)) => index,
        };
        let is_applied = self.applied_by(milestone_index)?.any(|applied| applied == block);
        let outcome = self.outcome(block, is_applied)?;
        Ok(Some(BlockState::Confirmed(Confirmed { milestone_index, outcome })))
    }

    fn stage(&self, block: BlockId) -> Result<Option<Stage>, NodeError> {
        self.alive()?;
        if block == self.shared.params.genesis_block() {
            return Ok(Some(Stage::ConfirmedBy(0)));
        }
        // First, so that a block is never missed on its way from waiting to confirmed.
        let (waits, newest) = {
            let core = self.read();
            (core.waiting.contains_key(&block), core.index())
        };
        if waits {
            return Ok(Some(Stage::Waiting));
        }
        let confirmed = self.stored(records::confirmed(self.store(), &block))?;
        // One of a later milestone is on the disk already, but not yet taken over.
        Ok(confirmed.map(|confirmed| match confirmed.milestone {
            index if index <= newest => Stage::ConfirmedBy(index),
            _ => Stage::Waiting,
        }))
    }

    /// The blocks with which a milestone changed the ledger.
    fn applied_by(&self, index: u64) -> Result<impl Iterator<Item = BlockId> + use<>, NodeError> {
        let ids = self.stored(records::ids(self.store(), APPLIED, index).map_err(NodeError::from))?;
        Ok(ids.map(BlockId::new).collect::<Vec<_>>().into_iter())
    }

    fn outcome(&self, block: BlockId, applied: bool) -> Result<BlockOutcome, NodeError> {
        if applied {
            return Ok(BlockOutcome::Applied);
        }
        let rejected = self.stored(index::rejected(self.store(), block))?;
        Ok(rejected.map_or(BlockOutcome::Included, BlockOutcome::Rejected))
    }

    /// What the white paper says of a block, while it is held with its parents.
    pub fn measures(&self, block: &BlockId) -> Option<Measures> {
        self.read().tangle.measures(block)
    }

    /// The score (TIP-3) of a block that waits.
    pub fn score(&self, block: &BlockId) -> Option<Score> {
        self.read().tangle.score(block)
    }

    /// The milestone with this index, the newest if `None`, and its block.
    ///
    /// # Errors
    /// [`NodeError::Pruned`], [`NodeError::Halted`], or the store's failure.
    pub fn milestone(&self, index: Option<u64>) -> Result<Option<CarriedMilestone>, NodeError> {
        self.alive()?;
        let newest = self.read().index();
        let index = index.unwrap_or(newest);
        if index > newest {
            return Ok(None);
        }
        match self.stored(records::milestone(self.store(), index))? {
            Some(record) => Ok(Some(CarriedMilestone { milestone: record.milestone, block: record.block })),
            None => Err(self.gone(index, self.past().milestones, "milestone")),
        }
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
        let applied: HashSet<BlockId> = self.applied_by(index)?.collect();
        let ids = ids.skip(skip).take(limit).map(BlockId::new);
        ids.map(|id| Ok((id, self.outcome(id, applied.contains(&id))?))).collect::<Result<_, _>>().map(Some)
    }

    /// The unspent money at each of these addresses.
    pub fn balances(&self, addresses: &[Address]) -> AddressBalances {
        let core = self.read();
        // The supply bounds every sum. One that is asked for again is not summed up again.
        let mut sums = HashMap::new();
        let mut sum = |address| {
            let amounts = || core.ledger.outputs_at(address).map(|(_, output)| output.amount);
            *sums.entry(address).or_insert_with(|| Amount::checked_sum(amounts()).unwrap_or(Amount::MAX))
        };
        AddressBalances { milestone_index: core.index(), amounts: addresses.iter().map(&mut sum).collect() }
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
            wanted.push(self.stage(*block)?.and_then(Stage::milestone));
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
            let decoded = decode(&bytes)?;
            if let Payload::Milestone(milestone) = &decoded.payload {
                // Its past is all that it and the milestones before it confirmed.
                newest_milestone = newest_milestone.max(Some(milestone.essence.index));
                continue;
            }
            if self.stage(block)?.and_then(Stage::milestone).is_none_or(|index| index >= oldest) {
                next.extend(decoded.parents);
            }
        }
        let told = blocks.iter().zip(wanted).map(|(block, confirmed)| {
            seen.contains(block) || confirmed.is_some_and(|index| Some(index) <= newest_milestone)
        });
        Ok(Some(told.collect()))
    }
}

fn decode(bytes: &[u8]) -> Result<Block, NodeError> {
    codec::decode::<Block, BLOCK_BYTES_MAX>(bytes).map_err(|_| NodeError::Damaged("block"))
}
