//! What a run is made of: drawn from its seed before anything happens.

use flash_channel::store::Fault;
use flash_proto::{Amount, Side, limits};

use super::{rng::Rng, script::Script};

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
pub(super) const WINDOW_MIN: u32 = 24;

/// A watchtower of a run.
#[derive(Clone, Debug)]
pub(super) struct TowerPlan {
    /// Whether A and whether B hands over to it.
    pub(super) clients: [bool; 2],
    /// It confirms what it does not keep, and shows and claims old balances.
    pub(super) lies: bool,
    /// At this milestone it is gone for ever.
    pub(super) gone_at: Option<u64>,
    /// Ticks between two looks of a client at whether there is something to hand over, at most.
    pub(super) pace: u64,
    /// Messages and transactions in a hundred that are lost.
    pub(super) loss: u64,
    /// A crash in a hundred commits.
    pub(super) crashes: u64,
    /// An outage of its view in a hundred milestones.
    pub(super) stale: u64,
    /// Events in a thousand before which its process stands still.
    pub(super) pauses: u64,
}

impl TowerPlan {
    fn drawn(rng: &mut Rng) -> Self {
        let both = [[true, false], [false, true], [true, true]];
        Self {
            clients: *rng.pick(&both).unwrap_or(&[true, true]),
            lies: rng.chance(20),
            gone_at: rng.chance(15).then(|| rng.between(5, 80)),
            pace: rng.between(2, 60),
            loss: sometimes(rng, 40, 5, 60),
            crashes: sometimes(rng, 50, 1, 30),
            stale: sometimes(rng, 40, 2, 20),
            pauses: sometimes(rng, 40, 1, 20),
        }
    }

    fn calm(&mut self) {
        *self = Self { gone_at: None, loss: 0, crashes: 0, stale: 0, pauses: 0, ..*self };
    }

    pub(super) fn serves(&self, side: Side) -> bool {
        let [a, b] = self.clients;
        side.pick(a, b)
    }

    /// Whether a client may rely on it.
    pub(super) const fn works(&self) -> bool {
        !self.lies && self.gone_at.is_none()
    }
}

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
    /// Milestones in a hundred after which a node shows an older one again.
    pub(super) old_views: u64,
    /// Milestones in a hundred at which a party's clock jumps, so that what it saw seems long ago.
    pub(super) clock_jumps: u64,
    /// Turns in a thousand before which a process stands still, as long as an outage.
    pub(super) pauses: u64,
    /// Returns in a hundred at which a bit of the disk is found flipped, and put right from a copy.
    pub(super) bit_flips: u64,
    pub(super) late_inclusion: bool,
    pub(super) lost_transactions: u64,
    /// Cooperative closes are kept out of the ledger for longer than they are valid.
    pub(super) censored_closes: bool,
    /// This side comes back with an old store. If the other one is hostile it may put itself back as well.
    pub(super) old_store: Option<Side>,
    /// The process finds out that its store is an old one before it starts.
    pub(super) noticed: bool,
    /// Returns in a hundred at which a process takes its store for an old one that it is not.
    pub(super) false_alarms: u64,
    /// This side does what it wants.
    pub(super) hostile: Option<Side>,
    /// The watchtowers that there are.
    pub(super) towers: Vec<TowerPlan>,
    /// Outages in a hundred of a side with a working tower that are longer than the contest window.
    pub(super) long_outages: u64,
    /// Acts in a hundred that pay by ticks.
    pub(super) ticks: u64,
    /// Acts in a hundred that ask for a receipt.
    pub(super) receipts: u64,
    /// Acts in a thousand that lock more or take something out.
    pub(super) stakes: u64,
    /// Users close in the middle, in a thousand acts.
    pub(super) early_close: u64,
    pub(super) ending: Ending,
    /// Faults at exactly these non-empty commits of these sides.
    pub(super) crash_at: Vec<(Side, u64, Fault)>,
    /// Only this is done.
    pub(super) script: Option<Script>,
    /// Prints every step.
    pub(super) print: bool,
}

/// Leaves one kind of fault out of a plan.
type Switch = fn(&mut Plan);

/// Faults by name, and how each is left out of a plan.
const SWITCHES: [(&str, Switch); 26] = [
    ("slow_messages", |plan| plan.heavy_tail = false),
    ("breaks", |plan| plan.breaks = 0),
    ("duplicates", |plan| plan.duplicates = 0),
    ("reorder", |plan| plan.reorder = 0),
    ("corrupt", |plan| plan.corrupt = 0),
    ("crashes", |plan| plan.crashes = 0),
    ("stale_views", |plan| plan.stale = 0),
    ("old_views", |plan| plan.old_views = 0),
    ("clock_jumps", |plan| plan.clock_jumps = 0),
    ("pauses", |plan| plan.pauses = 0),
    ("bit_flips", |plan| plan.bit_flips = 0),
    ("late_inclusion", |plan| plan.late_inclusion = false),
    ("lost_transactions", |plan| plan.lost_transactions = 0),
    ("censored_closes", |plan| plan.censored_closes = false),
    ("old_store", |plan| plan.old_store = None),
    ("noticed", |plan| plan.noticed = false),
    ("false_alarms", |plan| plan.false_alarms = 0),
    ("hostile", |plan| plan.hostile = None),
    ("towers", |plan| plan.towers.clear()),
    ("lying_towers", |plan| plan.towers.iter_mut().for_each(|tower| tower.lies = false)),
    ("tower_faults", |plan| plan.towers.iter_mut().for_each(TowerPlan::calm)),
    ("long_outages", |plan| plan.long_outages = 0),
    ("ticks", |plan| plan.ticks = 0),
    ("receipts", |plan| plan.receipts = 0),
    ("stakes", |plan| plan.stakes = 0),
    ("early_close", |plan| plan.early_close = 0),
];

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
        // Each from numbers of its own: what is drawn otherwise stays as it is.
        let of_records = &mut Rng::new(seed.rotate_left(48));
        let of_towers = &mut Rng::new(seed.rotate_left(16));
        let towers: Vec<_> = match of_towers.below(4) {
            0 => vec![TowerPlan::drawn(of_towers)],
            1 => vec![TowerPlan::drawn(of_towers), TowerPlan::drawn(of_towers)],
            _ => Vec::new(),
        };
        Self {
            seed,
            deposits,
            window: u32::try_from(rng.between(u64::from(WINDOW_MIN), 40)).unwrap_or(40),
            open_expiry: if rng.chance(90) { 50 } else { rng.between(1, 3) },
            busy_milestones: rng.between(20, 80),
            pace: rng.between(2, 10),
            delay: rng.between(1, 10),
            heavy_tail: rng.chance(30),
            commit_ticks: rng.between(0, 4),
            breaks: sometimes(rng, 60, 5, 150),
            duplicates: sometimes(rng, 30, 1, 40),
            reorder: sometimes(rng, 30, 1, 30),
            corrupt: sometimes(rng, 30, 1, 15),
            crashes: sometimes(rng, 60, 1, 30),
            stale: sometimes(rng, 40, 2, 20),
            old_views: sometimes(rng, 30, 5, 50),
            clock_jumps: sometimes(rng, 30, 2, 20),
            pauses: sometimes(rng, 30, 1, 20),
            bit_flips: sometimes(rng, 30, 10, 100),
            late_inclusion: rng.chance(50),
            lost_transactions: sometimes(rng, 40, 5, 60),
            censored_closes: rng.chance(10),
            old_store: match hostile {
                Some(hostile) => of_records.chance(25).then_some(!hostile),
                None => rng.chance(15).then_some(side),
            },
            noticed: of_records.chance(50),
            false_alarms: sometimes(of_records, 15, 1, 30),
            receipts: sometimes(of_records, 25, 5, 30),
            hostile,
            long_outages: if towers.is_empty() { 0 } else { sometimes(of_towers, 50, 10, 60) },
            towers,
            ticks: sometimes(rng, 20, 5, 50),
            stakes: sometimes(rng, 40, 1, 30),
            early_close: sometimes(rng, 30, 1, 20),
            ending: if hostile == Some(side) && matches!(ending, Ending::Gone(_)) {
                Ending::Gone(side)
            } else {
                ending
            },
            crash_at: Vec::new(),
            script: None,
            print: false,
        }
    }

    /// A run of this seed without any fault.
    pub fn calm(seed: u64) -> Self {
        let plan = Self { open_expiry: 50, busy_milestones: 4, ..Self::of_seed(seed) };
        SWITCHES.iter().fold(plan, |plan, (_, off)| plan.with(*off))
    }

    fn with(mut self, off: Switch) -> Self {
        off(&mut self);
        self
    }

    /// No faults, and the shortest contest.
    pub(super) fn small(deposits: [u64; 2]) -> Self {
        Self { deposits, window: limits::CONTEST_WINDOW_MILESTONES_MIN, ..Self::calm(0) }
    }

    /// The same without one kind of fault; `None` if there is none of that name.
    #[must_use]
    pub fn without(self, fault: &str) -> Option<Self> {
        SWITCHES.iter().find(|(name, _)| *name == fault).map(|(_, off)| self.with(*off))
    }

    /// The names of the faults that can be left out.
    pub fn faults() -> impl Iterator<Item = &'static str> {
        SWITCHES.iter().map(|(name, _)| *name)
    }

    /// Milestones with faults and payments.
    pub const fn milestones(&self) -> u64 {
        self.busy_milestones
    }

    /// The same with so many milestones of faults and payments.
    #[must_use]
    pub fn lasting(self, busy_milestones: u64) -> Self {
        Self { busy_milestones, ..self }
    }

    /// The same with one more fault at exactly the `commit`th non-empty commit of `side`, from 1.
    #[must_use]
    pub fn crashing_at(mut self, side: Side, commit: u64, fault: Fault) -> Self {
        self.crash_at.push((side, commit, fault));
        self
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
