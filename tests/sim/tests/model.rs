//! The model check: every order of events of a small channel, through the real machine, store and ledger.
//!
//! The small bounds run in `cargo test`; `FLASH_CI=full` goes on to [`FULL_STATES`] states of each game, and to
//! [`HOSTILE_STATES`] of that with a hostile party, which is for the workspace `tests/fast` with its cheap signatures.
//! `FLASH_MODEL_STATES` sets another number.

use std::time::Instant;

use flash_sim::{Budget, Duel, Step};
use stateright::{Checker, HasDiscoveries, Model, Property};

/// States of each game in `cargo test`.
const SMALL_STATES: usize = 8_000;
/// States of each game with `FLASH_CI=full`, counted as often as they are reached.
const FULL_STATES: usize = 2_000_000;
/// The same of the game with a hostile party, of which a third are different: 343,803 of the first 1,000,000.
const HOSTILE_STATES: usize = 16_500_000;

/// A channel and how much may happen to it.
#[derive(Clone, Copy, Debug)]
struct Game {
    deposits: [u64; 2],
    budget: Budget,
}

impl Model for Game {
    type State = Duel;
    type Action = Step;

    fn init_states(&self) -> Vec<Duel> {
        vec![Duel::opened(self.deposits, self.budget)]
    }

    fn actions(&self, duel: &Duel, steps: &mut Vec<Step>) {
        steps.extend(duel.steps());
    }

    fn next_state(&self, duel: &Duel, step: Step) -> Option<Duel> {
        let mut next = duel.clone();
        next.take(step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no rule is broken", |_, duel: &Duel| duel.violation().is_none()),
            Property::sometimes("a payment is acknowledged", |_, duel: &Duel| duel.acknowledged() > 0),
            Property::sometimes("at rest after a payment", |_, duel: &Duel| {
                duel.is_at_rest() && duel.acknowledged() > 0
            }),
            Property::sometimes("one side closes alone", |_, duel: &Duel| duel.is_contested()),
            Property::sometimes("paid out", |_, duel: &Duel| duel.is_paid_out()),
            Property::sometimes("a tower claims", |_, duel: &Duel| duel.tower_claimed()),
        ]
    }
}

/// Nothing but what is named, and time to settle.
const NOTHING: Budget = Budget { milestones: 10, ..Budget::NOTHING };

/// Explores a game in depth, until nothing is left or the states suffice; all `sometimes` must have been seen.
fn explore(name: &str, deposits: [u64; 2], budget: Budget, full_states: usize) {
    let full = std::env::var("FLASH_CI").is_ok_and(|value| value == "full");
    let set = std::env::var("FLASH_MODEL_STATES").ok().map(|number| number.parse().expect("a number"));
    let states = set.unwrap_or(if full { full_states } else { SMALL_STATES });
    let begun = Instant::now();
    let checker = Game { deposits, budget }
        .checker()
        .threads(std::thread::available_parallelism().map_or(1, usize::from))
        .target_state_count(states)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_dfs()
        .join();
    let seconds = begun.elapsed().as_secs_f64();
    let (unique, depth) = (checker.unique_state_count(), checker.max_depth());
    println!(
        "{{\"model\":{name:?},\"unique_states\":{unique},\"depth\":{depth},\"seconds\":{seconds:.1},\"complete\":{}}}",
        checker.state_count() < states
    );
    if let Some(path) = checker.discovery("no rule is broken") {
        let violation = path.last_state().violation().map(str::to_owned);
        panic!("{name}: {violation:?} after {:?}", path.into_actions());
    }
    let tower = (budget.hands > 0).then_some("a tower claims");
    for property in
        ["a payment is acknowledged", "at rest after a payment", "one side closes alone", "paid out"]
            .into_iter()
            .chain(tower)
    {
        assert!(checker.discovery(property).is_some(), "{name}: never {property}");
    }
}

#[test]
fn honest_parties_and_a_stream_that_breaks() {
    let budget = Budget { payments: 3, breaks: 1, closes: 2, ..NOTHING };
    explore("honest, breaks", [2, 1], budget, FULL_STATES);
}

#[test]
fn honest_parties_that_die_twice() {
    let budget = Budget { payments: 2, crashes: 2, closes: 1, ..NOTHING };
    explore("honest, two crashes", [2, 0], budget, FULL_STATES);
}

#[test]
fn a_hostile_party_and_two_crashes() {
    let budget = Budget { payments: 3, crashes: 2, closes: 1, hostile: 2, hostile_kinds: 12, ..NOTHING };
    explore("hostile, two crashes", [3, 2], budget, HOSTILE_STATES);
}

/// Each of them may be late or down for any time, but never both.
#[test]
fn a_watchtower_and_its_client_take_turns() {
    let crowd = Budget { payments: 2, crashes: 2, closes: 1, hostile: 2, hostile_kinds: 12, ..NOTHING };
    explore("hostile, tower", [2, 3], Budget { hands: 2, ..crowd }, FULL_STATES);
}
