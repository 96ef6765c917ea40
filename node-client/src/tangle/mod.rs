//! The graph of blocks: pure and deterministic.
//!
//! [`Tangle`] holds the blocks that no milestone has confirmed yet and those confirmed lately: all that a
//! new block may approve. Its rules:
//!
//! - A block comes in when all its parents are here, so everything here has its whole past: it is *solid*.
//! - A *tip* is a block that nothing here approves.
//! - A tip is *lazy* (after TIP-3) if the newest milestone that confirmed anything in its past is more than
//!   [`LAZY_MILESTONES`] behind the newest one: it approves only old history. Lazy tips are never offered.
//! - Tips are offered uniformly at random, up to [`limits::PARENTS_MAX`]; where none is fit, the newest
//!   milestone's block is.
//! - A milestone approves the oldest tips first, lazy or not, so that every block is confirmed in the end.
//! - Confirmed blocks leave [`CONFIRMED_MILESTONES`] milestones later. A block that waits and approves one that
//!   leaves *expires*, with all that approve it: no milestone can confirm it any more, on any node. So a node
//!   that follows the milestones always holds all that the next one may confirm approves.

mod tips;
pub mod white_flag;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use flash_proto::{BlockId, limits};
use thiserror::Error;
use tips::Tips;

/// Milestones after which a tip that approves nothing newer is lazy.
pub const LAZY_MILESTONES: u64 = 15;
/// Milestones for which a confirmed block can still be approved.
pub const CONFIRMED_MILESTONES: u64 = 100;
/// Random picks for each tip that is wanted, before fewer are offered.
const PICKS_PER_TIP: usize = 8;

/// Why a block cannot come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InsertError {
    /// It approves a block that is not here: never seen, or confirmed too long ago.
    #[error("block {0} is not known here, or was confirmed too long ago; ask for tips and attach again")]
    UnknownParent(BlockId),
}

#[derive(Clone, Debug)]
struct Vertex {
    /// Its place in the order of arrival, which is an order of the graph.
    number: u64,
    parents: Vec<BlockId>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Confirmed by this milestone.
    Confirmed(u64),
    /// Not confirmed; this milestone is the newest that confirmed anything in its past.
    Waiting { newest_past: u64 },
}

impl State {
    /// The newest milestone that a block sees which approves this one.
    const fn seen(self) -> u64 {
        match self {
            Self::Confirmed(milestone) | Self::Waiting { newest_past: milestone } => milestone,
        }
    }
}

/// The graph. See the [module](self).
#[derive(Clone, Debug)]
pub struct Tangle {
    blocks: HashMap<BlockId, Vertex>,
    tips: Tips,
    /// The blocks that wait for a milestone, in the order of arrival.
    waiting: BTreeMap<u64, BlockId>,
    /// What the milestones confirmed, the oldest first.
    confirmed: VecDeque<(u64, Vec<BlockId>)>,
    newest_milestone: u64,
    /// The newest milestone's block.
    milestone_block: BlockId,
}

impl Tangle {
    /// A graph of one block that milestone `milestone` confirmed: the genesis, or where a stored graph
    /// begins.
    ///
    /// ```
    /// use flash_node_client::tangle::Tangle;
    /// use flash_proto::BlockId;
    /// let [genesis, first] = [BlockId::new([0; 32]), BlockId::new([1; 32])];
    /// let mut tangle = Tangle::new(genesis, 0);
    /// tangle.insert(first, 1, vec![genesis])?;
    /// assert_eq!(tangle.select_tips(7), [first]);
    /// # Ok::<(), flash_node_client::tangle::InsertError>(())
    /// ```
    pub fn new(root: BlockId, milestone: u64) -> Self {
        let mut tangle = Self {
            blocks: HashMap::new(),
            tips: Tips::default(),
            waiting: BTreeMap::new(),
            confirmed: VecDeque::new(),
            newest_milestone: milestone,
            milestone_block: root,
        };
        tangle.restore(milestone, vec![root]);
        tangle
    }

    /// Brings back blocks that `milestone` confirmed, when a stored graph is read: milestones in rising
    /// order, and before the blocks that wait.
    pub fn restore(&mut self, milestone: u64, blocks: Vec<BlockId>) {
        for block in &blocks {
            let vertex = Vertex { number: 0, parents: Vec::new(), state: State::Confirmed(milestone) };
            self.blocks.insert(*block, vertex);
        }
        self.confirmed.push_back((milestone, blocks));
        self.newest_milestone = milestone;
        self.let_go();
    }

    /// Takes a block in. Its number must be above all numbers before; a block that is here already
    /// changes nothing.
    ///
    /// # Errors
    /// [`InsertError::UnknownParent`].
    pub fn insert(&mut self, block: BlockId, number: u64, parents: Vec<BlockId>) -> Result<(), InsertError> {
        if self.blocks.contains_key(&block) {
            return Ok(());
        }
        if let Some(unknown) = parents.iter().find(|parent| !self.blocks.contains_key(parent)) {
            return Err(InsertError::UnknownParent(*unknown));
        }
        self.insert_solid(block, number, parents);
        Ok(())
    }

    fn insert_solid(&mut self, block: BlockId, number: u64, parents: Vec<BlockId>) {
        let known = parents.iter().filter_map(|parent| self.blocks.get(parent));
        let newest_past = known.map(|parent| parent.state.seen()).max().unwrap_or(0);
        for parent in &parents {
            self.tips.remove(parent);
        }
        self.tips.insert(block);
        self.waiting.insert(number, block);
        self.blocks.insert(block, Vertex { number, parents, state: State::Waiting { newest_past } });
    }

    /// The number with which a block that waits came in.
    pub fn number_of(&self, block: &BlockId) -> Option<u64> {
        let vertex = self.blocks.get(block)?;
        matches!(vertex.state, State::Waiting { .. }).then_some(vertex.number)
    }

    /// Whether a block is here and may be approved.
    pub fn contains(&self, block: &BlockId) -> bool {
        self.blocks.contains_key(block)
    }

    /// The blocks that nothing here approves, in no order.
    pub fn tips(&self) -> impl Iterator<Item = BlockId> + '_ {
        self.tips.iter()
    }

    /// Blocks that nothing approves yet.
    pub fn tips_count(&self) -> usize {
        self.tips.len()
    }

    /// Blocks that no milestone has confirmed yet.
    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// Blocks to approve: different tips that are not lazy, picked uniformly at random by `seed`; all of
    /// them where they are few. Never empty.
    pub fn select_tips(&self, seed: u64) -> Vec<BlockId> {
        let mut picked = BTreeSet::new();
        if self.tips.len() <= limits::PARENTS_MAX * PICKS_PER_TIP {
            // Few enough to shuffle them all, so that none that is fit is missed.
            let mut fit: Vec<BlockId> = self.tips.iter().filter(|tip| !self.is_lazy(tip)).collect();
            for draw in tips::draws(seed).take(limits::PARENTS_MAX) {
                if fit.is_empty() {
                    break;
                }
                picked.insert(fit.swap_remove(tips::below(draw, fit.len())));
            }
        } else {
            for draw in tips::draws(seed).take(limits::PARENTS_MAX * PICKS_PER_TIP) {
                if picked.len() == limits::PARENTS_MAX {
                    break;
                }
                picked.extend(self.tips.pick(draw).filter(|tip| !self.is_lazy(tip)));
            }
        }
        if picked.is_empty() {
            picked.insert(self.milestone_block);
        }
        picked.into_iter().collect()
    }

    fn is_lazy(&self, tip: &BlockId) -> bool {
        let seen = self.blocks.get(tip).map_or(0, |vertex| vertex.state.seen());
        self.newest_milestone.saturating_sub(seen) > LAZY_MILESTONES
    }

    /// What the next milestone shall approve, never nothing: the newest milestone's block, and the heads
    /// of the oldest `blocks_max` waiting blocks, the oldest first, at most `heads_max` in all. The past
    /// of all these holds at most `blocks_max` waiting blocks beside that milestone's.
    pub fn heads(&self, blocks_max: usize, heads_max: usize) -> Vec<BlockId> {
        // The oldest blocks are closed under "approves": parents came before their children.
        let oldest = || self.waiting.values().take(blocks_max);
        let vertices = oldest().filter_map(|block| self.blocks.get(block));
        let approved: HashSet<&BlockId> = vertices.flat_map(|vertex| &vertex.parents).collect();
        let others = oldest().filter(|block| **block != self.milestone_block);
        let all = std::iter::once(&self.milestone_block).chain(others);
        all.filter(|block| !approved.contains(block)).take(heads_max).copied().collect()
    }

    /// The waiting blocks that a milestone with these parents confirms, in white-flag order.
    pub fn cone(&self, parents: &[BlockId]) -> Vec<BlockId> {
        white_flag::order(parents, |block| {
            self.blocks
                .get(block)
                .filter(|vertex| matches!(vertex.state, State::Waiting { .. }))
                .map(|vertex| vertex.parents.clone())
        })
    }

    /// The waiting blocks that expire when `milestone` confirms `cone`, with their numbers, in the order of
    /// arrival.
    pub fn expiring(&self, milestone: u64, cone: &[BlockId]) -> Vec<(u64, BlockId)> {
        let cone: HashSet<&BlockId> = cone.iter().collect();
        let mut expiring = HashSet::new();
        let mut found = Vec::new();
        // Parents come before their children, so one pass finds the descendants, too.
        for (number, block) in &self.waiting {
            let parents = self.blocks.get(block).map_or(&[][..], |vertex| &vertex.parents);
            let leaves = |parent: &BlockId| match self.blocks.get(parent).map(|vertex| vertex.state) {
                Some(State::Confirmed(at)) => milestone.saturating_sub(at) >= CONFIRMED_MILESTONES,
                Some(State::Waiting { .. }) => expiring.contains(parent),
                None => true,
            };
            if !cone.contains(block) && parents.iter().any(leaves) {
                expiring.insert(*block);
                found.push((*number, *block));
            }
        }
        found
    }

    /// Marks what `milestone`, whose own block is `block`, confirmed, lets go of what was confirmed too long
    /// ago, and drops what expires thereby.
    pub fn confirm(&mut self, milestone: u64, block: BlockId, cone: Vec<BlockId>) {
        for (number, expired) in self.expiring(milestone, &cone) {
            self.waiting.remove(&number);
            self.blocks.remove(&expired);
            self.tips.remove(&expired);
        }
        for confirmed in &cone {
            if let Some(vertex) = self.blocks.get_mut(confirmed) {
                vertex.state = State::Confirmed(milestone);
                vertex.parents = Vec::new();
                self.waiting.remove(&vertex.number);
            }
        }
        self.confirmed.push_back((milestone, cone));
        self.newest_milestone = milestone;
        self.milestone_block = block;
        self.look_again();
        self.let_go();
    }

    /// Forgets what was confirmed too long ago.
    fn let_go(&mut self) {
        let newest = self.newest_milestone;
        let too_old = |milestone: u64| newest.saturating_sub(milestone) >= CONFIRMED_MILESTONES;
        while self.confirmed.front().is_some_and(|(milestone, _)| too_old(*milestone)) {
            for block in self.confirmed.pop_front().map(|(_, blocks)| blocks).into_iter().flatten() {
                self.blocks.remove(&block);
            }
        }
    }

    /// Says which block is the newest milestone's, when a stored graph is read.
    pub fn set_milestone_block(&mut self, block: BlockId) {
        self.milestone_block = block;
    }

    /// Works out again what the waiting blocks see, after some of their parents were confirmed.
    fn look_again(&mut self) {
        for block in self.waiting.values() {
            let Some(vertex) = self.blocks.get(block) else { continue };
            let seen = vertex.parents.iter().filter_map(|parent| self.blocks.get(parent));
            // A parent that is gone was confirmed so long ago that it cannot be the newest.
            let newest_past = seen.map(|parent| parent.state.seen()).max();
            if let Some(vertex) = self.blocks.get_mut(block)
                && let (State::Waiting { newest_past: old }, Some(new)) = (&mut vertex.state, newest_past)
            {
                *old = new.max(*old);
            }
        }
    }
}

#[cfg(test)]
mod tests;
