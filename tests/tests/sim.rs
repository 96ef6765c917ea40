//! Runs the simulator over many seeds.
//!
//! `FLASH_SIM_SEED=n` runs one seed and prints every step; `FLASH_SIM_SEEDS=n` runs that many, from
//! `FLASH_SIM_FIRST` on.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use flash_channel::store::Fault;
use flash_proto::Side;
use flash_tests::sim::{Outcome, Plan, Stats, run};

/// Seeds by default.
const SEEDS: u64 = 300;
/// Seeds that found something once. They are run for ever.
///
/// - 10869: a close is said again in the very batch in which it lapses.
/// - 40577: after a restart the first view of the ledger is from before the opening.
const REGRESSIONS: [u64; 2] = [10_869, 40_577];

/// What must happen now and then, or the runs show nothing.
const SOMETIMES: [&str; 27] = [
    "agreed_at_rest",
    "claims",
    "crashes_after_the_write",
    "crashes_before_the_write",
    "disk_errors",
    "disks_full",
    "early_closes_alone",
    "early_closes_together",
    "ended_alone",
    "ended_lapsed",
    "ended_together",
    "hostile_messages",
    "hostile_transactions",
    "links_broken",
    "messages_corrupted",
    "messages_duplicated",
    "messages_lost",
    "messages_refused",
    "messages_reordered",
    "messages_very_late",
    "messages_withheld",
    "old_stores_restored",
    "parties_gone",
    "payments_under_a_used_key",
    "records_recovered",
    "transactions_lost",
    "views_gone",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs a plan; what is wrong becomes text.
fn checked(plan: Plan) -> Result<Outcome, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(plan))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        format!("panic: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?"))
    })?;
    match &outcome.violation {
        Some(violation) => Err(violation.clone()),
        None => Ok(outcome),
    }
}

fn of_seed(seed: u64) -> Outcome {
    checked(Plan::of_seed(seed)).unwrap_or_else(|violation| {
        panic!(
            "seed {seed}: {violation}\nrepeat it with: FLASH_SIM_SEED={seed} cargo test -p flash-tests --test sim \
             seeds -- --nocapture"
        )
    })
}

#[test]
fn seeds() {
    if let Some(seed) = number("FLASH_SIM_SEED") {
        let outcome = checked(Plan::of_seed(seed).printed());
        println!("{outcome:?}");
        outcome.unwrap();
        return;
    }
    let count = number("FLASH_SIM_SEEDS").unwrap_or(SEEDS);
    let first = number("FLASH_SIM_FIRST").unwrap_or(0);
    let begun = Instant::now();
    let mut stats = Stats::default();
    for seed in REGRESSIONS.into_iter().chain(first..first + count) {
        stats.merge(&of_seed(seed).stats);
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{count} seeds in {seconds:.1} s: {stats}");
    if count >= SEEDS {
        let never: Vec<_> = SOMETIMES.into_iter().filter(|what| stats.of(what) == 0).collect();
        assert_eq!(never, [""; 0], "these never happened");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..5 {
        assert_eq!(of_seed(seed), of_seed(seed), "seed {seed}");
    }
    let traces: BTreeSet<u64> = (0..5).map(|seed| of_seed(seed).trace).collect();
    assert_eq!(traces.len(), 5, "different seeds are different runs");
}

/// One party dies at every single commit in turn, in every phase of it.
#[test]
fn every_persist_point() {
    let mut crashes = 0;
    let mut stats = Stats::default();
    for seed in 0..4 {
        let calm = checked(Plan::calm(seed)).unwrap();
        stats.merge(&calm.stats);
        let commits = calm.commits;
        for (side, commits) in Side::BOTH.into_iter().zip(commits) {
            for commit in 2..=commits {
                for fault in [Fault::CrashBefore, Fault::CrashAfter] {
                    let outcome = checked(Plan::calm(seed).crashing_at(side, commit, fault));
                    let outcome = outcome.unwrap_or_else(|violation| {
                        panic!("seed {seed}, {side} dies at commit {commit}, {fault:?}: {violation}")
                    });
                    assert!(outcome.stats.of("restarts") >= 1);
                    crashes += 1;
                }
            }
        }
    }
    println!("{crashes} crashes: {stats}");
    for end in ["ended_together", "ended_alone", "claims"] {
        assert!(stats.of(end) > 0, "{end} is not among the runs");
    }
}
