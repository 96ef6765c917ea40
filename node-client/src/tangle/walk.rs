//! The weighted random walk of the white paper (section 4.1, "MCMC").
//!
//! A walk starts at the block of a milestone a few back and goes from a block to one that approves it, until
//! nothing does. From block `x` it goes to `y` with probability
//!
//! `exp(−α · (H(x) − H(y)))  /  Σ over all z that approve x of  exp(−α · (H(x) − H(z)))`
//!
//! where `H` is the cumulative weight. So it stays where most work was done, and seldom enters a branch on
//! which somebody has worked alone. Blocks that are lazy (TIP-3) neither weigh nor lead anywhere.
//!
//! Only what approves the start is weighed, at most [`WALK_BLOCKS_MAX`] blocks; where it is more, the walk
//! starts at a newer milestone. Its steps are floating-point numbers: the same seed gives the same tips on
//! the same kind of machine, and nothing that nodes must agree on depends on it.

use std::collections::{BTreeSet, HashMap};

use flash_proto::{BlockId, limits};

use super::{Graph, State, Tangle, linked::OWN_WEIGHT};

/// Milestones that a walk starts back at most: what the classic clients asked for.
pub const WALK_MILESTONES: usize = 3;
/// Blocks that are weighed for a walk: some 5 MB and a twentieth of a second.
pub const WALK_BLOCKS_MAX: usize = 32_768;
/// So strong a preference takes the heaviest way always, and times any weight is still a number.
const ALPHA_MAX: f64 = 1e6;

impl Tangle {
    /// The different tips that as many walks as a block has parents end at; none if there is nowhere to
    /// start.
    pub(super) fn walk(&self, alpha: f64, draws: &mut impl Iterator<Item = u64>) -> Vec<BlockId> {
        let Some((blocks, graph)) = self.walk_starts.iter().find_map(|start| self.future(start)) else {
            return Vec::new();
        };
        let (children, weights) = (graph.children(), graph.cumulative_weights());
        // Not a number is not above 0 either.
        let alpha = if alpha > 0.0 { alpha.min(ALPHA_MAX) } else { 0.0 };
        let mut tips = BTreeSet::new();
        for _ in 0..limits::PARENTS_MAX {
            let mut at = 0;
            while let Some(next) = children.get(at).and_then(|ways| step(ways, &weights, alpha, draws)) {
                at = next;
            }
            tips.extend(blocks.get(at).filter(|tip| self.tips.fit.contains(tip)));
        }
        tips.into_iter().collect()
    }

    /// A block and all that approve it and are not lazy; `None` if it is not linked or they are too many.
    fn future(&self, start: &BlockId) -> Option<(Vec<BlockId>, Graph)> {
        let mut graph = Graph::default();
        let (mut blocks, mut places) = (Vec::new(), HashMap::new());
        for (block, parents) in self.linked() {
            let parents: Vec<usize> =
                parents.iter().filter_map(|parent| places.get(parent).copied()).collect();
            if block != start && (parents.is_empty() || !self.leads_on(block)) {
                continue;
            }
            if blocks.len() >= WALK_BLOCKS_MAX {
                return None;
            }
            places.insert(block, graph.push(OWN_WEIGHT, parents));
            blocks.push(*block);
        }
        (!blocks.is_empty()).then_some((blocks, graph))
    }

    fn leads_on(&self, block: &BlockId) -> bool {
        self.blocks.get(block).is_some_and(|vertex| match vertex.state {
            State::Confirmed(_) => true,
            State::Waiting { roots } => self.is_fit(roots),
        })
    }
}

/// Where a walk goes next; `None` where it ends.
fn step(ways: &[usize], weights: &[u64], alpha: f64, draws: &mut impl Iterator<Item = u64>) -> Option<usize> {
    let weight = |way: &usize| weights.get(*way).copied().unwrap_or(0);
    let heaviest = ways.iter().map(weight).max()?;
    // Dividing all by the heaviest one's share changes no probability and leaves one share of 1.
    let share = |way: &usize| {
        let lighter = u32::try_from(heaviest.saturating_sub(weight(way))).unwrap_or(u32::MAX);
        (-alpha * f64::from(lighter)).exp()
    };
    let shares: Vec<f64> = ways.iter().map(share).collect();
    let unit = f64::from(u32::try_from(draws.next()? >> 32).ok()?) / 2_f64.powi(32);
    let mut left = unit * shares.iter().sum::<f64>();
    let found = shares.iter().position(|share| {
        left -= share;
        left < 0.0
    });
    found.and_then(|at| ways.get(at)).or(ways.last()).copied()
}
