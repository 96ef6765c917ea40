//! Which tips are offered.

use flash_proto::{BlockId, limits};

use super::{
    State, Tangle,
    score::{Roots, Score},
    tips::{self, Tips},
};

/// How tips are picked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum TipSelection {
    /// Uniformly at random among the tips that are not lazy (TIP-3).
    #[default]
    Uniform,
    /// By the white paper's weighted random walk, see [`walk`](super::walk).
    Weighted {
        /// How strongly a walk prefers heavy blocks: 0 is not at all. What is below 0, or no number, is
        /// taken for 0. The classic nodes used 0.001.
        alpha: f64,
    },
}

impl Tangle {
    /// Blocks to approve: different tips that are not lazy, up to [`limits::PARENTS_MAX`], picked uniformly
    /// at random by `seed`; all of them where they are few. Never empty.
    pub fn select_tips(&self, seed: u64) -> Vec<BlockId> {
        self.select_tips_by(TipSelection::Uniform, seed)
    }

    /// Blocks to approve, picked in this way: different tips that are not lazy, in rising order, the same
    /// ones for the same seed. Never empty: where no tip is fit, the newest milestone's block is offered,
    /// and where a walk finds none, or would have to weigh too much, tips are picked uniformly.
    pub fn select_tips_by(&self, selection: TipSelection, seed: u64) -> Vec<BlockId> {
        let mut draws = tips::draws(seed);
        let mut picked = match selection {
            TipSelection::Uniform => Vec::new(),
            TipSelection::Weighted { alpha } => self.walk(alpha, &mut draws),
        };
        if picked.is_empty() {
            picked = self.tips.fit.sample(limits::PARENTS_MAX, &mut draws);
        }
        if picked.is_empty() {
            picked.push(self.milestone_block);
        }
        picked.sort_unstable();
        picked
    }

    /// The score (TIP-3) of a block that waits.
    pub fn score(&self, block: &BlockId) -> Option<Score> {
        let vertex = self.blocks.get(block)?;
        let State::Waiting { roots } = vertex.state else { return None };
        Some(roots.score(self.newest_milestone))
    }

    /// The roots of a block with these parents.
    pub(super) fn roots_of(&self, parents: &[BlockId]) -> Roots {
        let of = |parent| self.blocks.get(parent).map_or(Roots::LONG_AGO, |parent| parent.state.roots());
        parents.iter().map(of).reduce(Roots::and).unwrap_or(Roots::LONG_AGO)
    }

    /// Whether a block with these roots may be offered.
    pub(super) fn is_fit(&self, roots: Roots) -> bool {
        roots.score(self.newest_milestone) == Score::NonLazy
    }

    /// Works out again the roots of all waiting blocks, and with them the tips, after a milestone confirmed
    /// some of their parents and others expired.
    pub(super) fn look_again(&mut self) {
        let mut tips = Tips::default();
        // Parents came before their children: their roots are known, and their places given up, in time.
        for block in self.waiting.values() {
            let Some(vertex) = self.blocks.get(block) else { continue };
            let roots = self.roots_of(&vertex.parents);
            tips.place(*block, &vertex.parents, self.is_fit(roots));
            if let Some(vertex) = self.blocks.get_mut(block) {
                vertex.state = State::Waiting { roots };
            }
        }
        self.tips = tips;
    }
}
