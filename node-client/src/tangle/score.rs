//! Which tips are worth approving: the scores of TIP-3.
//!
//! The *roots* of a waiting block are the first confirmed blocks that one meets on all ways down from it.
//! With `L` the newest milestone, `Y` the newest milestone that confirmed a root (YTRSI) and `O` the oldest
//! one (OTRSI), a block is
//!
//! - lazy (0) if `L − Y >` [`YTRSI_DELTA_MAX`] or `L − O >` [`BELOW_MAX_DEPTH`],
//! - otherwise semi-lazy (1) if `L − O >` [`OTRSI_DELTA_MAX`],
//! - otherwise not lazy (2).

/// Milestones (C1) that the newest root of a tip may be behind before the tip is lazy.
pub const YTRSI_DELTA_MAX: u64 = 8;
/// Milestones (C2) that the oldest root of a tip may be behind before the tip is semi-lazy.
pub const OTRSI_DELTA_MAX: u64 = 13;
/// Milestones (M) that the oldest root of a tip may be behind before the tip is lazy.
pub const BELOW_MAX_DEPTH: u64 = 15;

/// How much a block helps what is new to be confirmed (TIP-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Score {
    /// It stands on old history only, or on too old a part of it.
    Lazy = 0,
    /// A part of what it stands on is old.
    SemiLazy = 1,
    /// It stands on what was confirmed lately. Only such tips are offered.
    NonLazy = 2,
}

/// The oldest and the newest milestone that confirmed a root of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Roots {
    pub oldest: u64,
    pub newest: u64,
}

impl Roots {
    /// Of a block that was confirmed so long ago that it is not here any more.
    pub(super) const LONG_AGO: Self = Self::of(0);

    /// Of a block that stands on one that this milestone confirmed.
    pub(super) const fn of(milestone: u64) -> Self {
        Self { oldest: milestone, newest: milestone }
    }

    /// Of a block that stands on both.
    pub(super) fn and(self, other: Self) -> Self {
        Self { oldest: self.oldest.min(other.oldest), newest: self.newest.max(other.newest) }
    }

    pub(super) fn score(self, newest_milestone: u64) -> Score {
        let behind = newest_milestone.saturating_sub(self.oldest);
        if newest_milestone.saturating_sub(self.newest) > YTRSI_DELTA_MAX || behind > BELOW_MAX_DEPTH {
            Score::Lazy
        } else if behind > OTRSI_DELTA_MAX {
            Score::SemiLazy
        } else {
            Score::NonLazy
        }
    }

    /// Whether nothing that the block stands on is old. Its parents' oldest roots are not older than its
    /// own, so a block of which this holds has only such parents.
    pub(super) fn all_recent(self, newest_milestone: u64) -> bool {
        newest_milestone.saturating_sub(self.oldest) <= OTRSI_DELTA_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_those_of_tip_3() {
        let score = |oldest, newest| Roots { oldest, newest }.score(100);
        assert_eq!([score(100, 100), score(92, 92), score(87, 92)], [Score::NonLazy; 3]);
        assert_eq!([score(86, 92), score(85, 100)], [Score::SemiLazy; 2]);
        assert_eq!([score(91, 91), score(84, 100), score(0, 0)], [Score::Lazy; 3]);
        assert_eq!(Roots::of(0).score(8), Score::NonLazy, "a young network has no history yet");
        assert_eq!(Roots::of(5).and(Roots::of(3)), Roots { oldest: 3, newest: 5 });
    }
}
