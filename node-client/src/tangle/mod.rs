//! The graph of blocks: pure and deterministic.
//!
//! [`Tangle`] holds the blocks that no milestone has confirmed yet and those confirmed lately: all that a
//! new block may approve. Its rules:
//!
//! - A block comes in when all its parents are here, so everything here has its whole past: it is *solid*.
//! - A *tip* is a block that nothing here approves. Which tips are worth approving is TIP-3's to say
//!   ([`Score`]); a block that is lazy itself hides no tip from those who look for one.
//! - Tips that are not lazy are offered, as many as a block can approve, picked uniformly at random or by
//!   a weighted walk ([`TipSelection`]); where none is fit, the newest milestone's block is.
//! - A milestone approves the oldest blocks first, lazy or not, so that every block is confirmed in the
//!   end; but half of its room is for blocks that stand on recent ones only ([`Tangle::heads`]).
//! - The white paper's [`measures`](Measures) are served over all blocks whose parents are kept: those that
//!   wait, and the last [`LINKED_MAX`] confirmed ones.
//! - Confirmed blocks leave [`CONFIRMED_MILESTONES`] milestones later. A block that waits and approves one that
//!   leaves *expires*, with all that approve it: no milestone can confirm it any more, on any node. So a node
//!   that follows the milestones always holds all that the next one may confirm approves.

mod heads;
mod linked;
mod measures;
mod score;
mod selection;
mod tips;
pub mod walk;
pub mod white_flag;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ops::Bound,
};

use flash_proto::BlockId;
use thiserror::Error;

pub use self::{
    linked::LINKED_MAX,
    measures::{Graph, Measures},
    score::{BELOW_MAX_DEPTH, OTRSI_DELTA_MAX, Score, YTRSI_DELTA_MAX},
    selection::TipSelection,
};
use self::{score::Roots, tips::Tips};

/// Milestones for which a confirmed block can still be approved.
pub const CONFIRMED_MILESTONES: u64 = 100;

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
    /// None of a confirmed block that is no longer linked.
    parents: Vec<BlockId>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Confirmed by this milestone.
    Confirmed(u64),
    /// Not confirmed.
    Waiting { roots: Roots },
}

impl State {
    /// What a block stands on that approves this one.
    const fn roots(self) -> Roots {
        match self {
            Self::Confirmed(milestone) => Roots::of(milestone),
            Self::Waiting { roots } => roots,
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
    /// So many of these, the oldest, have blocks without parents.
    unlinked: usize,
    newest_milestone: u64,
    /// The newest milestone's block.
    milestone_block: BlockId,
    /// The blocks of the newest milestones, where walks start, the oldest first.
    walk_starts: VecDeque<BlockId>,
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
            unlinked: 0,
            newest_milestone: milestone,
            milestone_block: root,
            walk_starts: VecDeque::new(),
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
        self.unlinked = self.confirmed.len();
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
        let roots = self.roots_of(&parents);
        self.tips.place(block, &parents, self.is_fit(roots));
        self.waiting.insert(number, block);
        self.blocks.insert(block, Vertex { number, parents, state: State::Waiting { roots } });
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
        self.tips.all.iter()
    }

    /// The waiting blocks that approve this one. Takes time linear in the number of waiting blocks.
    pub fn waiting_children<'a>(&'a self, parent: &'a BlockId) -> impl Iterator<Item = BlockId> + 'a {
        let approves =
            |block: &&BlockId| self.blocks.get(*block).is_some_and(|vertex| vertex.parents.contains(parent));
        self.waiting.values().filter(approves).copied()
    }

    /// Blocks that nothing approves yet.
    pub fn tips_count(&self) -> usize {
        self.tips.all.len()
    }

    /// The blocks that no milestone has confirmed yet, in the order of arrival.
    pub fn waiting(&self) -> impl Iterator<Item = &BlockId> {
        self.waiting.values()
    }

    /// The blocks that wait for a milestone and came after number `after`, with their numbers, in order.
    pub fn waiting_after(&self, after: u64) -> impl Iterator<Item = (u64, BlockId)> + '_ {
        let after = (Bound::Excluded(after), Bound::Unbounded);
        self.waiting.range(after).map(|(number, block)| (*number, *block))
    }

    /// Blocks that no milestone has confirmed yet.
    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
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
        // What stands on nothing old approves nothing that leaves: mostly that is all.
        let on_old = |block: &BlockId| match self.blocks.get(block).map(|vertex| vertex.state) {
            Some(State::Waiting { roots }) => milestone.saturating_sub(roots.oldest) >= CONFIRMED_MILESTONES,
            _ => true,
        };
        let mut waiting = self.waiting.iter().filter(|(_, block)| on_old(block)).peekable();
        if waiting.peek().is_none() {
            return Vec::new();
        }
        let cone: HashSet<&BlockId> = cone.iter().collect();
        let mut expiring = HashSet::new();
        let mut found = Vec::new();
        // Parents come before their children, so one pass finds the descendants, too.
        for (number, block) in waiting {
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
        }
        for confirmed in &cone {
            if let Some(vertex) = self.blocks.get_mut(confirmed) {
                vertex.state = State::Confirmed(milestone);
                self.waiting.remove(&vertex.number);
            }
        }
        self.confirmed.push_back((milestone, cone));
        self.newest_milestone = milestone;
        self.set_milestone_block(block);
        self.let_go();
        self.unlink();
        self.look_again();
    }

    /// Forgets what was confirmed too long ago.
    fn let_go(&mut self) {
        let newest = self.newest_milestone;
        let too_old = |milestone: u64| newest.saturating_sub(milestone) >= CONFIRMED_MILESTONES;
        while self.confirmed.front().is_some_and(|(milestone, _)| too_old(*milestone)) {
            for block in self.confirmed.pop_front().map(|(_, blocks)| blocks).into_iter().flatten() {
                self.blocks.remove(&block);
            }
            self.unlinked = self.unlinked.saturating_sub(1);
        }
    }

    /// Says which block is the newest milestone's, when a stored graph is read.
    pub fn set_milestone_block(&mut self, block: BlockId) {
        self.milestone_block = block;
        self.walk_starts.push_back(block);
        if self.walk_starts.len() > walk::WALK_MILESTONES {
            self.walk_starts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
