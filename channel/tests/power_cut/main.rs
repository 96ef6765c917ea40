//! A power cut on the real stores: a commit that was acknowledged is there afterwards (I4, I10).
//!
//! `kill -9` cannot show this, since what a process wrote stays in the kernel. So a writer runs under
//! `strace`, which records what it wrote, what it synced and what it acknowledged, in order. From the
//! recording the test rebuilds what a disk may hold if the power fails at a given moment, opens that with the
//! store, looks, and commits once more.
//!
//! Further tests do the same without the journal's sync, and with sled's own `flush` in place of its store's, and must lose
//! commits: that is what sled does as it comes, and it shows that the others would see it.
//!
//! Needs `strace`. Without it the tests say so and pass, unless `FLASH_REQUIRE_STRACE` is set.
//! `FLASH_CI=full` cuts ten times as often; `FLASH_POWER_CUT_SEED` and `FLASH_POWER_CUTS` set the seed and the number of cuts. Threads make every
//! recording a little different; a failure keeps its own, and `FLASH_POWER_CUT_RECORDING` plays it again.
#![cfg(all(feature = "journal", feature = "sled", target_os = "linux"))]
#![allow(clippy::disallowed_methods, reason = "the crate is pure, its tests are not")]

mod disk;
mod random;
mod recording;
mod workload;

use std::{
    env, fs,
    io::{self, Write},
    panic,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use disk::{Disk, Unsynced};
use random::Random;
use recording::{Event, Recorded};
use tempfile::TempDir;
use workload::{Found, Writer};

const COMMITS: u64 = 400;
/// How near to the making of a file every other cut is: openings are short, and hard to survive.
const NEAR_EVENTS: usize = 16;
const WRITER: &str = "FLASH_POWER_CUT_WRITER";
const DIRECTORY: &str = "FLASH_POWER_CUT_DIRECTORY";
const RECORDING: &str = "FLASH_POWER_CUT_RECORDING";

/// What came of all cuts.
#[derive(Debug, Default)]
struct Tally {
    openings: u64,
    /// Commits acknowledged before a cut, over all openings.
    acknowledged: u64,
    /// Of those, the ones missing from a store that opened without complaint.
    lost: u64,
    /// Each opening that did not end as it must.
    wrong: Vec<String>,
}

fn number_from(variable: &str, default: u64) -> u64 {
    env::var(variable).ok().map_or(default, |value| value.parse().unwrap())
}

/// Not a test: the process that the tests record.
#[test]
#[ignore = "run by the other tests"]
fn writer() {
    let Ok(writer) = env::var(WRITER) else { return };
    let writer = Writer::ALL.into_iter().find(|kind| format!("{kind:?}") == writer).unwrap();
    workload::write(writer, &PathBuf::from(env::var(DIRECTORY).unwrap()).join("store"), COMMITS);
}

/// Runs a writer in `root` and records it. Gives back the recording's file.
fn record(writer: Writer, root: &Path) -> PathBuf {
    fs::create_dir(root).unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "writer", "--ignored", "--nocapture", "--test-threads=1"])
        .env(WRITER, format!("{writer:?}"))
        .env(DIRECTORY, root);
    recording::record(&command, root)
}

/// What the writer did, each sync where it returned and everything else where it began.
fn events(recording: &Path) -> Vec<Recorded> {
    let mut recorded = recording::read(recording);
    recorded.sort_by_key(|recorded| match recorded.event {
        Event::Sync { .. } => recorded.returned,
        _ => recorded.began,
    });
    let acknowledged = recorded.iter().filter(|recorded| matches!(recorded.event, Event::Acknowledged(_)));
    assert_eq!(acknowledged.count() as u64, COMMITS, "the recording is not whole");
    recorded
}

/// When the power fails: half of the times anywhere, half of the times near the making of a file.
fn moments(recorded: &[Recorded], cuts: usize, random: &mut Random) -> Vec<usize> {
    let made: Vec<usize> = (0..recorded.len())
        .filter(|index| matches!(recorded[*index].event, Event::Create { .. } | Event::Rename { .. }))
        .collect();
    let mut moments: Vec<usize> = (0..cuts)
        .map(|cut| {
            if cut % 2 == 0 {
                return random.below(recorded.len() + 1);
            }
            let near = made[random.below(made.len())] + random.below(NEAR_EVENTS);
            near.saturating_sub(NEAR_EVENTS / 4).min(recorded.len())
        })
        .collect();
    moments.sort_unstable();
    moments
}

/// What is wrong with what was found, if anything; and how many acknowledged commits are missing.
fn judge(found: Result<Found, String>, acknowledged: u64, digests: &[u32]) -> Option<(String, u64)> {
    let Found { head, digest, digest_after } = match found {
        Ok(found) => found,
        Err(refusal) => return Some((refusal, 0)),
    };
    let index = usize::try_from(head).unwrap();
    if head < acknowledged {
        Some((format!("commit {head} is the newest"), acknowledged - head))
    } else if head > acknowledged + 1 {
        Some((format!("commit {head} was not begun yet"), 0))
    } else if digest != digests[index] {
        Some((format!("commit {head} is not whole"), 0))
    } else if digest_after != digests[index + 1] {
        Some((format!("commit {} after the cut is not whole", head + 1), 0))
    } else {
        None
    }
}

fn cut_power(writer: Writer, recorded: &[Recorded], root: &Path, cuts: usize, seed: u64) -> Tally {
    let digests = workload::digests(COMMITS + 1);
    let rebuilt = TempDir::new().unwrap();
    let mut random = Random(seed);
    let mut disk = Disk::new(root);
    let mut played = 0;
    let mut tally = Tally::default();
    for (cut, moment) in moments(recorded, cuts, &mut random).into_iter().enumerate() {
        recorded[played..moment].iter().for_each(|event| disk.play(event));
        played = moment;
        let last = if cut.is_multiple_of(4) { Unsynced::Kept } else { Unsynced::Random };
        for unsynced in [Unsynced::Lost, Unsynced::Random, last] {
            let rebuilt = rebuilt.path().join("disk");
            disk.cut(unsynced, &mut random, &rebuilt);
            let found = panic::catch_unwind(|| workload::read(writer, &rebuilt.join("store")))
                .map_err(|_| "a panic".to_owned())
                .and_then(|found| found.map_err(|error| error.to_string()));
            tally.openings += 1;
            tally.acknowledged += disk.acknowledged;
            if let Some((what, lost)) = judge(found, disk.acknowledged, &digests) {
                tally.lost += lost;
                tally.wrong.push(format!(
                    "cut at {moment} of {}, unsynced {unsynced:?}, commit {} acknowledged: {what}",
                    recorded.len(),
                    disk.acknowledged
                ));
            }
            fs::remove_dir_all(&rebuilt).unwrap();
        }
    }
    tally
}

/// Runs the cuts and has `check` look at what came of them, or says why not.
fn run(writer: Writer, cuts: u64, check: impl Fn(&Tally) -> bool) {
    // Standard error itself: the harness keeps what the print macros write to itself.
    let say = |text: String| io::stderr().write_all(text.as_bytes()).unwrap();
    if let Some(reason) = recording::unavailable() {
        assert!(env::var_os("FLASH_REQUIRE_STRACE").is_none(), "{reason}");
        return say(format!("SKIPPED the power cut test ({writer:?}): {reason}\n"));
    }
    let seed = number_from("FLASH_POWER_CUT_SEED", 1);
    let cuts = number_from("FLASH_POWER_CUTS", cuts);
    let started = Instant::now();
    let directory = TempDir::new().unwrap();
    let recording = env::var(RECORDING).map_or_else(
        |_| record(writer, &directory.path().canonicalize().unwrap().join("disk")),
        PathBuf::from,
    );
    let recorded = events(&recording);
    let root = recording::root_of(&recording);
    let tally = cut_power(writer, &recorded, &root, usize::try_from(cuts).unwrap(), seed);
    let Tally { openings, acknowledged, lost, wrong } = &tally;
    say(format!(
        "power cuts ({writer:?}): {{\"seed\":{seed},\"cuts\":{cuts},\"openings\":{openings},\
         \"acknowledged\":{acknowledged},\"lost\":{lost},\"wrong\":{},\"seconds\":{:.1}}}\n",
        wrong.len(),
        started.elapsed().as_secs_f64()
    ));
    if !check(&tally) {
        let _ = directory.keep();
        let first = wrong.iter().take(10).collect::<Vec<_>>();
        panic!(
            "{} of {openings} openings were wrong, {lost} commits lost; the first: {first:#?}\nagain with FLASH_POWER_CUT_SEED={seed} FLASH_POWER_CUTS={cuts} \
             {RECORDING}={} and the name of this test",
            wrong.len(),
            recording.display()
        );
    }
}

fn cuts() -> u64 {
    if env::var("FLASH_CI").is_ok_and(|value| value == "full") { 2_000 } else { 200 }
}

#[test]
fn an_acknowledged_commit_survives_a_power_cut() {
    run(Writer::Journal, cuts(), |tally| tally.acknowledged > 0 && tally.wrong.is_empty());
}

#[test]
fn an_acknowledged_commit_to_sled_survives_a_power_cut() {
    run(Writer::Sled, cuts(), |tally| tally.acknowledged > 0 && tally.wrong.is_empty());
}

#[test]
fn without_the_sync_commits_are_lost() {
    run(Writer::JournalUnsynced, 40, |tally| tally.lost > 0);
}

#[test]
fn with_the_flush_of_sled_alone_commits_are_lost() {
    run(Writer::SledFlushOnly, 40, |tally| tally.lost > 0);
}
