//! Short lives in which only what is written down happens: for crashes at every commit of each.

use flash_channel::machine::Input;
use flash_proto::{Amount, Side};

use super::{
    faults::{Ending, MILESTONE_TICKS, Plan},
    hostile,
    ledger::By,
    setup,
    world::{Event, World},
};

/// Something that is done at a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// A user pays.
    Pay(Side, u64),
    /// A user wishes to close together.
    Close(Side),
    /// A user closes alone.
    CloseAlone(Side),
    /// A party closes with the oldest balance that it holds.
    CloseStale(Side),
    /// A user pays by so many ticks.
    Tick(Side, u32),
    /// A user locks more.
    TopUp(Side, u64),
    /// A user takes something out.
    Withdraw(Side, u64),
    /// The link breaks for so many ticks.
    Break(u64),
}

/// What is done when, beside opening the channel; at the end it is closed as the plan says.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// What it shows.
    pub name: &'static str,
    deposits: [u64; 2],
    open_expiry: u64,
    pub(super) acts: &'static [(u64, Act)],
    ending: Ending,
}

/// The tick of a milestone at which the channel is open on the ledger and both know.
const OPEN: u64 = 4 * MILESTONE_TICKS;
const FIRST: [bool; 2] = [true, false];
const SECOND: [bool; 2] = [false, true];
const BOTH: [bool; 2] = [true, true];

const fn script(name: &'static str, acts: &'static [(u64, Act)], ending: Ending) -> Script {
    Script { name, deposits: [1_000, 500], open_expiry: 50, acts, ending }
}

/// All scripts.
pub const SCRIPTS: [Script; 20] = [
    script("open", &[], Ending::Together(FIRST)),
    Script { open_expiry: 0, ..script("open too late", &[], Ending::Together(FIRST)) },
    script("pay", &[(OPEN, Act::Pay(Side::A, 10))], Ending::Together(SECOND)),
    Script {
        deposits: [1_000, 0],
        ..script(
            "pay back what was received",
            &[(OPEN, Act::Pay(Side::A, 100)), (OPEN + 30, Act::Pay(Side::B, 100))],
            Ending::Together(BOTH),
        )
    },
    script(
        "both pay at once",
        &[(OPEN, Act::Pay(Side::A, 1_000)), (OPEN, Act::Pay(Side::B, 500))],
        Ending::Alone(FIRST),
    ),
    script(
        "many payments",
        &[
            (OPEN, Act::Pay(Side::A, 1)),
            (OPEN + 2, Act::Pay(Side::A, 2)),
            (OPEN + 3, Act::Pay(Side::B, 3)),
            (OPEN + 5, Act::Pay(Side::A, 4)),
            (OPEN + 8, Act::Pay(Side::B, 5)),
        ],
        Ending::Alone(SECOND),
    ),
    script(
        "reconnect",
        &[
            (OPEN, Act::Pay(Side::A, 10)),
            (OPEN, Act::Pay(Side::B, 20)),
            (OPEN + 3, Act::Break(5)),
            (OPEN + 20, Act::Pay(Side::A, 30)),
            (OPEN + 23, Act::Break(5)),
        ],
        Ending::Together(FIRST),
    ),
    script(
        "A closes together while B pays",
        &[(OPEN, Act::Pay(Side::A, 10)), (OPEN + 20, Act::Close(Side::A)), (OPEN + 20, Act::Pay(Side::B, 5))],
        Ending::Together(FIRST),
    ),
    script(
        "both close together",
        &[(OPEN, Act::Pay(Side::A, 10)), (OPEN + 20, Act::Close(Side::A)), (OPEN + 20, Act::Close(Side::B))],
        Ending::Together(BOTH),
    ),
    script(
        "close together, and break in between",
        &[(OPEN, Act::Pay(Side::B, 10)), (OPEN + 20, Act::Close(Side::B)), (OPEN + 24, Act::Break(5))],
        Ending::Together(SECOND),
    ),
    script(
        "A closes alone",
        &[(OPEN, Act::Pay(Side::A, 10)), (OPEN, Act::Pay(Side::B, 7)), (OPEN + 20, Act::CloseAlone(Side::A))],
        Ending::Alone(FIRST),
    ),
    script(
        "both close alone",
        &[
            (OPEN, Act::Pay(Side::A, 10)),
            (OPEN, Act::Pay(Side::B, 7)),
            (OPEN + 20, Act::CloseAlone(Side::A)),
            (OPEN + 20, Act::CloseAlone(Side::B)),
        ],
        Ending::Alone(BOTH),
    ),
    script(
        "A closes alone while both close together",
        &[
            (OPEN, Act::Pay(Side::A, 10)),
            (OPEN + 20, Act::Close(Side::B)),
            (OPEN + 22, Act::CloseAlone(Side::A)),
        ],
        Ending::Alone(FIRST),
    ),
    script(
        "ticks, a payment between them, and ticks again",
        &[
            (OPEN, Act::Tick(Side::A, 2)),
            (OPEN + 15, Act::Tick(Side::A, 3)),
            (OPEN + 20, Act::Pay(Side::A, 10)),
            (OPEN + 35, Act::Tick(Side::A, 1)),
            (OPEN + 38, Act::Break(5)),
        ],
        Ending::Alone(SECOND),
    ),
    script(
        "both pay by ticks and close together",
        &[(OPEN, Act::Tick(Side::A, 2)), (OPEN, Act::Tick(Side::B, 3))],
        Ending::Together(BOTH),
    ),
    script(
        "top up, and pay more than there was",
        &[
            (OPEN, Act::Pay(Side::A, 900)),
            (OPEN + 10, Act::TopUp(Side::A, 2_000)),
            (OPEN + 12, Act::Pay(Side::A, 50)),
            (OPEN + 70, Act::Pay(Side::A, 1_500)),
        ],
        Ending::Together(FIRST),
    ),
    script(
        "withdraw while payments go on",
        &[
            (OPEN, Act::Withdraw(Side::A, 600)),
            (OPEN + 2, Act::Pay(Side::B, 5)),
            (OPEN + 10, Act::Pay(Side::A, 100)),
            (OPEN + 13, Act::Break(5)),
        ],
        Ending::Together(SECOND),
    ),
    script(
        "both change what is locked, and one closes alone meanwhile",
        &[
            (OPEN, Act::Withdraw(Side::A, 100)),
            (OPEN, Act::TopUp(Side::B, 100)),
            (OPEN + 5, Act::Pay(Side::A, 10)),
            (OPEN + 15, Act::CloseAlone(Side::B)),
        ],
        Ending::Alone(SECOND),
    ),
    script(
        "A closes with an old balance and B claims",
        &[
            (OPEN, Act::Pay(Side::B, 5)),
            (OPEN + 20, Act::Pay(Side::B, 5)),
            (OPEN + 25, Act::Pay(Side::A, 400)),
            (OPEN + 45, Act::CloseStale(Side::A)),
        ],
        Ending::Alone(SECOND),
    ),
    script(
        "B closes with an old balance and A claims",
        &[
            (OPEN, Act::Pay(Side::A, 5)),
            (OPEN + 20, Act::Pay(Side::A, 5)),
            (OPEN + 25, Act::Pay(Side::B, 400)),
            (OPEN + 45, Act::CloseStale(Side::B)),
        ],
        Ending::Alone(FIRST),
    ),
];

impl Plan {
    /// A life in which only this happens; the seed says how fast messages and disks are.
    pub fn scripted(seed: u64, script: Script) -> Self {
        let stale = script.acts.iter().find_map(|(_, act)| match act {
            Act::CloseStale(side) => Some(*side),
            _ => None,
        });
        Self {
            deposits: script.deposits,
            open_expiry: script.open_expiry,
            busy_milestones: 8,
            window: super::faults::WINDOW_MIN,
            ending: script.ending,
            hostile: stale,
            script: Some(script),
            ..Self::calm(seed)
        }
    }
}

impl World {
    pub(super) fn begin_script(&mut self, script: Script) {
        for (at, act) in script.acts {
            self.schedule(*at, Event::Act(*act));
        }
    }

    pub(super) fn act(&mut self, act: Act) {
        match act {
            Act::Pay(side, amount) => {
                self.payments += 1;
                self.pay(side, self.payments, Amount::new(amount), true);
            }
            Act::Tick(side, count) => self.tick(side, Amount::new(1), count),
            Act::TopUp(side, amount) => {
                let expiry = self.ledger.index() + 10;
                if let Some(top_up) = self.ledger.top_up(side, Amount::new(amount), expiry) {
                    self.input(side, top_up);
                }
            }
            Act::Withdraw(side, amount) => {
                let left_min = setup::left_min();
                self.input(side, Input::Withdraw { amount: Amount::new(amount), left_min });
            }
            Act::Close(side) => self.input(side, Input::Close),
            Act::CloseAlone(side) => self.input(side, Input::CloseAlone),
            Act::CloseStale(side) => {
                let [a, b] = &self.parties;
                let close = hostile::stale_close(side.pick(a, b), self.network);
                let taken = self.ledger.submit(By::Party(side), close, self.ledger.index() + 1);
                self.oracle.require(taken, || format!("no node takes {side}'s close"));
            }
            Act::Break(ticks) => self.break_link(ticks),
        }
    }
}
