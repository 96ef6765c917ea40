//! Every crash point: each script, each side, each commit, each phase of it, each state of the disk that a crash in
//! that phase can leave.
//!
//! | phase | what the disk may hold afterwards | fault |
//! | --- | --- | --- |
//! | before the write | the state before | `CrashBefore` |
//! | written, not synced | the state before, or the batch | `CrashUnsynced`, `CrashUnsyncedKept` |
//! | synced, nothing sent | the batch | `CrashAfter` |
//! | the disk is full, or the sync fails | the state before | `Full`, `Io` |
//!
//! There are no other torn states: a batch is atomic in the real store, and each commit ends with a sync before the
//! next begins, so that at most one batch is ever in doubt. That both hold on a real disk is what the power cut test
//! of `flash-channel` shows.
//!
//! `FLASH_CI=full` takes more seeds (speeds of disks and links) and more double crashes.

use flash_channel::store::Fault;
use flash_proto::Side;
use flash_sim::{Plan, SCRIPTS, Script, Stats, checked};

/// What the faults are counted as.
const CRASHES: [&str; 6] = [
    "crashes_before_the_write",
    "crashes_before_the_sync",
    "crashes_before_the_sync_in_time",
    "crashes_after_the_write",
    "disks_full",
    "disk_errors",
];

fn is_full() -> bool {
    std::env::var("FLASH_CI").is_ok_and(|value| value == "full")
}

/// What happened in a run with these faults.
fn run(seed: u64, script: Script, faults: &[(Side, u64, Fault)]) -> (Stats, [u64; 2]) {
    let plan = faults.iter().fold(Plan::scripted(seed, script), |plan, (side, commit, fault)| {
        plan.crashing_at(*side, *commit, *fault)
    });
    match checked(plan) {
        Ok(outcome) => (outcome.stats, outcome.commits),
        Err(violation) => panic!("script \"{}\", seed {seed}, {faults:?}: {violation}", script.name),
    }
}

/// All places at which a fault can be. The very first commit is the agreement: without it there is no channel.
fn places(commits: [u64; 2]) -> Vec<(Side, u64)> {
    let of = |(side, commits)| (2..=commits).map(move |commit| (side, commit));
    Side::BOTH.into_iter().zip(commits).flat_map(of).collect()
}

#[test]
fn every_crash_point_of_every_script() {
    let mut stats = Stats::default();
    let mut crashes = 0;
    for script in SCRIPTS {
        for seed in 0..if is_full() { 20 } else { 1 } {
            let (calm, commits) = run(seed, script, &[]);
            stats.merge(&calm);
            for (side, commit) in places(commits) {
                for fault in Fault::ALL {
                    let (with, _) = run(seed, script, &[(side, commit, fault)]);
                    let died: u64 = CRASHES.iter().map(|what| with.of(what)).sum();
                    assert_eq!(died, 1, "{}, seed {seed}: {side} {commit} {fault:?}", script.name);
                    stats.merge(&with);
                    crashes += 1;
                }
            }
        }
    }
    println!("{crashes} crashes: {stats}");
    assert!(crashes > 1_000);
    for end in
        ["ended_together", "ended_alone", "ended_lapsed", "claims", "top_ups", "withdraws", "ticks_taken"]
    {
        assert!(stats.of(end) > 0, "{end} is not among the runs");
    }
}

/// Two crashes, of one side or of both, at places that lie close together or far apart: every `stride`th pair.
#[test]
fn double_crashes() {
    let mut crashes = 0;
    for (number, script) in SCRIPTS.into_iter().enumerate() {
        let (_, commits) = run(7, script, &[]);
        let places = places(commits);
        let pairs: Vec<_> =
            places.iter().flat_map(|first| places.iter().map(move |second| (first, second))).collect();
        let stride = if is_full() { 1 } else { 17 };
        for (at, (first, second)) in pairs.into_iter().enumerate().skip(number % stride).step_by(stride) {
            if first == second {
                continue;
            }
            let fault = |n: usize| Fault::ALL[n % Fault::ALL.len()];
            run(
                7,
                script,
                &[(first.0, first.1, fault(at)), (second.0, second.1, fault(at / Fault::ALL.len()))],
            );
            crashes += 2;
        }
    }
    println!("{crashes} crashes in pairs");
    assert!(crashes > 100);
}
