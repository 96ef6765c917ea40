//! Runs the simulator over many seeds.
//!
//! `FLASH_SIM_SEED=n` runs one seed and prints every step; `FLASH_SIM_SEEDS=n` runs that many, from
//! `FLASH_SIM_FIRST` on.

use std::{collections::BTreeSet, time::Instant};

use flash_sim::{Outcome, Plan, Stats, checked};

/// Seeds in `cargo test`.
const SEEDS: u64 = 300;
/// Seeds with `FLASH_CI=full`.
const FULL_SEEDS: u64 = 5_000;
/// Seeds that found something once. They are run for ever.
///
/// - 2217: a tower's first view after a restart is from before the opening.
/// - 321: what was written before a false alarm is sent after it.
/// - 3345: while both close, a false alarm makes a side take what it is shown.
/// - 10869: a close is said again in the very batch in which it lapses.
/// - 12160: a close alone with a balance that pays nothing.
/// - 26040, 27344: the peer shows what only lost records proved when it is too late to claim it.
/// - 36567: in doubt what is shown is taken over by any view of the ledger.
/// - 40577: after a restart the first view of the ledger is from before the opening.
/// - 209101: a close is said again from old records, whose side is shown then that it owns more.
/// - 218387: a contest that an earlier life saw is claimed in while an old view shows the channel open.
/// - 222019: who takes its records for old ones claims twice.
/// - 235838: a close is signed by old records, before the peer shows what was paid since.
/// - 241334: a hostile payee gives a receipt for an update of which it was shown only the balance.
/// - 301958: a side that doubted its records is put back to before it did.
/// - 310469, 332932: old records, and the peer's words about the newer ones are changed on the way.
/// - 1002604, 1006046: an old balance is claimed before the newer one is learnt.
/// - 1003936: a withdraw is signed in the batch in which the close is seen.
/// - 1004216: what was paid before the loss is shown while the ledger is out of sight.
/// - 1007227: more was taken out than old records explain.
/// - 2011627, 2135620: old records were put back earlier in the life, and the peer's signed close is refused by them.
/// - 2034585, 2127602: a side in doubt is shown more during a contest, too late to claim it.
/// - 2031342: a side with old records has signed a close when its hostile peer shows a newer balance.
/// - 2138390: the link changed the number of a tick to that of another update with the same chain.
/// - 3080133: one transaction twice in a milestone, of which the second was told of the first.
/// - 4158053: old views of the ledger went on to be shown where faults had stopped.
/// - 6165564: a peer that saw a signed close lapse first, and signed another one, was refused for it.
const REGRESSIONS: [u64; 31] = [
    321, 2_217, 3_345, 10_869, 12_160, 26_040, 27_344, 36_567, 40_577, 209_101, 218_387, 222_019, 235_838,
    241_334, 301_958, 310_469, 332_932, 1_002_604, 1_003_936, 1_004_216, 1_006_046, 1_007_227, 2_011_627,
    2_031_342, 2_034_585, 2_127_602, 2_135_620, 2_138_390, 3_080_133, 4_158_053, 6_165_564,
];

/// What must happen now and then, or the runs show nothing.
const SOMETIMES: [&str; 50] = [
    "agreed_at_rest",
    "bits_flipped",
    "claims",
    "clocks_jumped",
    "crashes_after_the_write",
    "crashes_before_the_sync",
    "crashes_before_the_sync_in_time",
    "crashes_before_the_write",
    "disk_errors",
    "disks_full",
    "early_closes_alone",
    "early_closes_together",
    "ended_alone",
    "ended_lapsed",
    "ended_together",
    "false_alarms",
    "hostile_messages",
    "hostile_transactions",
    "links_broken",
    "long_outages",
    "messages_corrupted",
    "messages_duplicated",
    "messages_lost",
    "messages_refused",
    "messages_reordered",
    "messages_very_late",
    "messages_withheld",
    "old_records_shown",
    "old_stores_noticed",
    "old_stores_restored",
    "old_views_shown",
    "paid_out_to_somebody_away",
    "parties_gone",
    "payments_acknowledged",
    "payments_under_a_used_key",
    "payments_proven",
    "peers_put_back_too",
    "processes_paused",
    "receipts_given",
    "records_recovered",
    "tower_claims",
    "tower_messages_lost",
    "towers_claimed_old_balances",
    "towers_confirmed",
    "towers_crashed",
    "towers_gone",
    "towers_paused",
    "towers_showed",
    "transactions_lost",
    "views_gone",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn of_seed(seed: u64) -> Outcome {
    checked(Plan::of_seed(seed)).unwrap_or_else(|violation| {
        panic!(
            "seed {seed}: {violation}\nrepeat it with: FLASH_SIM_SEED={seed} cargo test -p flash-sim --test seeds \
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
    let full = std::env::var("FLASH_CI").is_ok_and(|value| value == "full");
    let count = number("FLASH_SIM_SEEDS").unwrap_or(if full { FULL_SEEDS } else { SEEDS });
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
