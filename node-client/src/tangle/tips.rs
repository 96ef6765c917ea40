//! Sets of tips, and picking from them by random numbers that come from outside.

use std::collections::{BTreeSet, HashMap};

use flash_proto::BlockId;

/// The tips among the waiting blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Tips {
    /// Those that nothing approves.
    pub(super) all: TipSet,
    /// Those that are not lazy, and that nothing approves which is not lazy.
    pub(super) fit: TipSet,
}

impl Tips {
    /// Puts a new block in the place of those that it approves. One that is lazy takes no place among
    /// those that are fit: else it could hide them all.
    pub(super) fn place(&mut self, block: BlockId, parents: &[BlockId], fit: bool) {
        for parent in parents {
            self.all.remove(parent);
            if fit {
                self.fit.remove(parent);
            }
        }
        self.all.insert(block);
        if fit {
            self.fit.insert(block);
        }
    }
}

/// A set that can be picked from by index.
#[derive(Clone, Debug, Default)]
pub(super) struct TipSet {
    list: Vec<BlockId>,
    place: HashMap<BlockId, usize>,
}

impl TipSet {
    fn insert(&mut self, tip: BlockId) {
        if !self.place.contains_key(&tip) {
            self.place.insert(tip, self.list.len());
            self.list.push(tip);
        }
    }

    fn remove(&mut self, tip: &BlockId) {
        if let Some(place) = self.place.remove(tip) {
            self.list.swap_remove(place);
            if let Some(moved) = self.list.get(place) {
                self.place.insert(*moved, place);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = BlockId> + '_ {
        self.list.iter().copied()
    }

    pub(super) fn contains(&self, tip: &BlockId) -> bool {
        self.place.contains_key(tip)
    }

    /// As many different members as there are, up to `count`, each as likely as any other (Floyd's way).
    pub(super) fn sample(&self, count: usize, draws: &mut impl Iterator<Item = u64>) -> Vec<BlockId> {
        let mut places = BTreeSet::new();
        for (last, draw) in (self.list.len().saturating_sub(count)..self.list.len()).zip(draws) {
            let place = below(draw, last.saturating_add(1));
            if !places.insert(place) {
                places.insert(last);
            }
        }
        places.into_iter().filter_map(|place| self.list.get(place).copied()).collect()
    }
}

/// An endless row of numbers from a seed (SplitMix64). Fair, not secret: tips need no more.
pub(super) fn draws(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// Spreads a draw evenly over the numbers below `count`; 0 if there are none.
pub(super) fn below(draw: u64, count: usize) -> usize {
    let wide = u128::from(draw).saturating_mul(u128::try_from(count).unwrap_or(0)) >> 64;
    usize::try_from(wide).unwrap_or(0)
}
