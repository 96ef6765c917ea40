//! What a run is made of: drawn from its seed before anything happens.

use flash_channel::store::Fault;
use flash_proto::{Amount, Side};

use super::rng::Rng;

/// Ticks between two milestones.
pub(super) const MILESTONE_TICKS: u64 = 20;
/// A view of at most this many milestones' age is fresh.
pub(super) const FRESH_MILESTONES: u64 = 3;
/// No party is without a view of the ledger for longer than this.
pub(super) const BLIND_MILESTONES_MAX: u64 = 8;
/// No outage of a party is longer than this.
pub(super) const OUTAGE_MILESTONES_MAX: u64 = 3;
/// Between two outages of a party lie at least this many milestones.
pub(super) const OUTAGE_REST_MILESTONES: u64 = 8;
/// A party's transactions are never lost more often than this in a row.
pub(super) const DROPS_IN_A_ROW_MAX: u64 = 3;
/// Milestones that a transaction waits at most before it is confirmed.
pub(super) const INCLUSION_MILESTONES_MAX: u64 = 2;
/// The smallest contest window within which an honest party that suffers all of the above still claims
/// in time: no view, a process that is down, lost transactions, late inclusion, and time to spare.
const WINDOW_MIN: u64 = 24;

/// How the users end a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// One side or both wish to close together.
    Together([bool; 2]),
    /// One side or both close alone.
    Alone([bool; 2]),
    /// This side is gone for ever; the other closes alone.
    Gone(Side),
}

/// Which faults exist in a run, and how often. Chances are in percent.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) seed: u64,
    pub(super) deposits: [u64; 2],
    pub(super) window: u32,
    pub(super) open_expiry: u64,
    /// Milestones with faults and payments.
    pub(super) busy_milestones: u64,
    /// Ticks between two acts of a user, at most.
    pub(super) pace: u64,
    /// Ticks that a message travels, at most; now and then ten times as long if `heavy_tail`.
    pub(super) delay: u64,
    pub(super) heavy_tail: bool,
    /// Ticks that a commit takes, at most.
    pub(super) commit_ticks: u64,
    /// Breaks of the link, in a thousand messages.
    pub(super) breaks: u64,
    pub(super) duplicates: u64,
    pub(super) reorder: u64,
    pub(super) corrupt: u64,
    /// A crash in a hundred commits.
    pub(super) crashes: u64,
    /// An outage of the view in a hundred milestones.
    pub(super) stale: u64,
    pub(super) late_inclusion: bool,
    pub(super) lost_transactions: u64,
    /// Cooperative closes are kept out of the ledger for longer than they are valid.
    pub(super) censored_closes: bool,
    /// This side comes back with an old store.
    pub(super) old_store: Option<Side>,
    /// This side does what it wants.
    pub(super) hostile: Option<Side>,
    /// Users close in the middle, in a thousand acts.
    pub(super) early_close: u64,
    pub(super) ending: Ending,
    /// One crash at exactly this non-empty commit of this side.
    pub(super) crash_at: Option<(Side, u64, Fault)>,
    /// Prints every step.
    pub(super) print: bool,
}

fn sometimes(rng: &mut Rng, percent: u64, low: u64, high: u64) -> u64 {
    let value = rng.between(low, high);
    if rng.chance(percent) { value } else { 0 }
}

impl Plan {
    /// The plan of a seed.
    pub fn of_seed(seed: u64) -> Self {
        let rng = &mut Rng::new(seed);
        let deposits = match rng.below(4) {
            0 => [rng.between(10, 1_000), 0],
            1 => [0, rng.between(10, 1_000)],
            _ => [rng.between(10, 100_000), rng.between(10, 100_000)],
        };
        let side = *rng.pick(&Side::BOTH).unwrap_or(&Side::A);
        let both = [[true, false], [false, true], [true, true]];
        let who = *rng.pick(&both).unwrap_or(&[true, true]);
        let ending = match rng.below(5) {
            0 | 1 => Ending::Together(who),
            2 | 3 => Ending::Alone(who),
            _ => Ending::Gone(!side),
        };
        let hostile = rng.chance(35).then_some(side);
        Self {
            seed,
            deposits,
            window: u32::try_from(rng.between(WINDOW_MIN, 40)).unwrap_or(40),
            open_expiry: if rng.chance(90) { 50 } else { rng.between(1, 3) },
            busy_milestones: rng.between(10, 50),
            pace: rng.between(2, 12),
            delay: rng.between(1, 10),
            heavy_tail: rng.chance(30),
            commit_ticks: rng.between(0, 4),
            breaks: sometimes(rng, 60, 5, 150),
            duplicates: sometimes(rng, 30, 1, 40),
            reorder: sometimes(rng, 30, 1, 30),
            corrupt: sometimes(rng, 30, 1, 15),
            crashes: sometimes(rng, 60, 1, 30),
            stale: sometimes(rng, 40, 2, 20),
            late_inclusion: rng.chance(50),
            lost_transactions: sometimes(rng, 40, 5, 60),
            censored_closes: rng.chance(10),
            old_store: (hostile.is_none() && rng.chance(15)).then_some(side),
            hostile,
            early_close: sometimes(rng, 30, 1, 20),
            ending: if hostile == Some(side) && matches!(ending, Ending::Gone(_)) {
                Ending::Gone(side)
            } else {
                ending
            },
            crash_at: None,
            print: false,
        }
    }

    /// A run of this seed without any fault.
    pub fn calm(seed: u64) -> Self {
        Self {
            open_expiry: 50,
            busy_milestones: 4,
            heavy_tail: false,
            breaks: 0,
            duplicates: 0,
            reorder: 0,
            corrupt: 0,
            crashes: 0,
            stale: 0,
            late_inclusion: false,
            lost_transactions: 0,
            censored_closes: false,
            old_store: None,
            hostile: None,
            early_close: 0,
            ..Self::of_seed(seed)
        }
    }

    /// The same with one crash at exactly the `commit`th non-empty commit of `side`, from 1.
    #[must_use]
    pub fn crashing_at(self, side: Side, commit: u64, fault: Fault) -> Self {
        Self { crash_at: Some((side, commit, fault)), ..self }
    }

    /// The same with every step printed.
    #[must_use]
    pub fn printed(self) -> Self {
        Self { print: true, ..self }
    }

    pub(super) fn deposit(&self, side: Side) -> Amount {
        let [a, b] = self.deposits;
        Amount::new(side.pick(a, b))
    }

    pub(super) fn is_hostile(&self, side: Side) -> bool {
        self.hostile == Some(side)
    }
}
