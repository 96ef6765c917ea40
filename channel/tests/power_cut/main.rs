//! A power cut on the real store: a commit that was acknowledged is there afterwards (I4, I10).
//!
//! `kill -9` cannot show this, since what a process wrote stays in the kernel. So a writer runs under
//! `strace`, which records what it wrote, what it synced and what it acknowledged, in order. From the
//! recording the test rebuilds what a disk may hold if the power fails at a given moment, opens that with the
//! store, and looks.
//!
//! A second test does the same with sled's own `flush` in place of the store's sync and must lose commits:
//! that is what sled does as it comes, and it shows that this test would see it.
//!
//! Needs `strace`. Without it the tests say so and pass, unless `FLASH_REQUIRE_STRACE` is set.
//! `FLASH_POWER_CUT_SEED` and `FLASH_POWER_CUTS` set the seed and the number of cuts.
#![cfg(all(feature = "sled", target_os = "linux"))]

mod disk;
mod random;
mod recording;
mod workload;

use std::{
    env,
    io::{self, Write},
    panic,
    path::PathBuf,
    process::Command,
    time::Instant,
};

use disk::{Disk, Unsynced};
use random::Random;
use recording::{Event, Recorded};
use workload::Writer;

const COMMITS: u64 = 600;
const WRITER: &str = "FLASH_POWER_CUT_WRITER";
const DIRECTORY: &str = "FLASH_POWER_CUT_DIRECTORY";

/// What came of all cuts.
#[derive(Debug, Default)]
struct Tally {
    cuts: u64,
    openings: u64,
    acknowledged: u64,
    lost: u64,
    /// Openings that failed, or found something that no commit left behind.
    broken: Vec<String>,
}

fn number_from(variable: &str, default: u64) -> u64 {
    env::var(variable).ok().map_or(default, |value| value.parse().unwrap())
}

/// Not a test: the process that the tests record.
#[test]
#[ignore = "run by the other tests"]
fn writer() {
    let Ok(writer) = env::var(WRITER) else { return };
    let writer = if writer == "store" { Writer::Store } else { Writer::FlushOnly };
    workload::write(writer, &PathBuf::from(env::var(DIRECTORY).unwrap()).join("store"), COMMITS);
}

/// What the writer did, each sync where it returned and everything else where it began.
fn record(writer: Writer, directory: &std::path::Path) -> Vec<Recorded> {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "writer", "--ignored", "--nocapture", "--test-threads=1"])
        .env(WRITER, if writer == Writer::Store { "store" } else { "flush" })
        .env(DIRECTORY, directory);
    let mut recorded = recording::record(&command, directory);
    recorded.sort_by_key(|recorded| match recorded.event {
        Event::Sync { .. } => recorded.returned,
        _ => recorded.began,
    });
    recorded
}

fn cut_power(writer: Writer, cuts: usize, seed: u64) -> Tally {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap().join("disk");
    std::fs::create_dir(&root).unwrap();
    let recorded = record(writer, &root);
    let digests = workload::digests(COMMITS);
    let mut random = Random(seed);
    let mut moments: Vec<usize> = (0..cuts).map(|_| random.below(recorded.len() + 1)).collect();
    moments.sort_unstable();
    let mut disk = Disk::new(&root);
    let mut played = 0;
    let mut tally = Tally::default();
    for moment in moments {
        recorded[played..moment].iter().for_each(|event| disk.play(event));
        played = moment;
        tally.cuts += 1;
        let last = if tally.cuts.is_multiple_of(4) { Unsynced::Kept } else { Unsynced::Random };
        for unsynced in [Unsynced::Lost, Unsynced::Random, last] {
            let rebuilt = directory.path().join("rebuilt");
            disk.cut(unsynced, &mut random, &rebuilt);
            tally.openings += 1;
            tally.acknowledged += disk.acknowledged;
            let wrong = match panic::catch_unwind(|| workload::read(&rebuilt.join("store"))) {
                Err(_) => Some((0, "sled panicked".to_owned())),
                Ok(Err(error)) => Some((0, error.to_string())),
                Ok(Ok((found, _))) if found < disk.acknowledged => Some((found, "older".to_owned())),
                Ok(Ok((found, _))) if found > disk.acknowledged + 1 => Some((found, "never written".to_owned())),
                Ok(Ok((found, digest))) => (digest != digests[usize::try_from(found).unwrap()])
                    .then(|| (found, "not as committed".to_owned())),
            };
            if let Some((found, what)) = wrong {
                tally.lost += disk.acknowledged.saturating_sub(found);
                tally.broken.push(format!(
                    "cut {moment} of {}, {unsynced:?}: acknowledged {}, found {found}: {what}",
                    recorded.len(),
                    disk.acknowledged
                ));
            }
            std::fs::remove_dir_all(&rebuilt).unwrap();
        }
    }
    assert_eq!(recorded.iter().filter(|r| matches!(r.event, Event::Acknowledged(_))).count() as u64, COMMITS);
    tally
}

/// Runs the cuts, or says why not.
fn run(writer: Writer, cuts: u64) -> Option<Tally> {
    // Standard error itself: the harness keeps what the print macros write to itself.
    let say = |text: String| io::stderr().write_all(text.as_bytes()).unwrap();
    if let Some(reason) = recording::unavailable() {
        assert!(env::var_os("FLASH_REQUIRE_STRACE").is_none(), "{reason}");
        say(format!("SKIPPED the power cut test ({writer:?}): {reason}\n"));
        return None;
    }
    let seed = number_from("FLASH_POWER_CUT_SEED", 1);
    let cuts = number_from("FLASH_POWER_CUTS", cuts);
    let started = Instant::now();
    let tally = cut_power(writer, usize::try_from(cuts).unwrap(), seed);
    say(format!(
        "power cuts ({writer:?}): {{\"seed\":{seed},\"cuts\":{},\"openings\":{},\"acknowledged\":{},\"lost\":{},\
         \"broken\":{},\"seconds\":{:.1}}}\n",
        tally.cuts,
        tally.openings,
        tally.acknowledged,
        tally.lost,
        tally.broken.len(),
        started.elapsed().as_secs_f64()
    ));
    Some(tally)
}

#[test]
fn an_acknowledged_commit_survives_a_power_cut() {
    let Some(tally) = run(Writer::Store, 200) else { return };
    assert!(tally.acknowledged > 0);
    assert!(tally.broken.is_empty(), "{:#?}", tally.broken);
}

#[test]
fn without_the_sync_commits_are_lost() {
    let Some(tally) = run(Writer::FlushOnly, 40) else { return };
    assert!(tally.lost > 0, "the cuts lose nothing, so this test could not see a missing sync: {tally:?}");
}
