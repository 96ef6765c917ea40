//! The work: what the writer of a daemon commits when it is busy in one way or another.

use std::{path::Path, time::Instant};

use flash_channel::store::{Batch, Table};

use super::{
    candidates::{self, Candidate},
    usage::{Usage, disk_bytes, resident_bytes},
};

pub(crate) const WORKLOADS: [(&str, &str); 4] = [
    (
        "saturated",
        "one channel, 98 to 164 kB of payments in each commit, 256 kept, and its lanes and a counter",
    ),
    ("single", "one channel, one small update in each commit, 256 kept"),
    ("many", "10,000 channels at random, 256 small updates in each commit, 4 kept of each channel"),
    ("million", "1,000,000 channels at rest: an agreement, a phase and two lanes each; opened again"),
];

const AGREEMENTS: Table = Table::large(1, "channels");
const PHASES: Table = Table::small(2, "phases");
const OUTGOING: Table = Table::small(3, "outgoing");
const INCOMING: Table = Table::small(4, "incoming");
const UPDATES: Table = Table::large(5, "updates");
const COUNTER: Table = Table::small(65, "events");

const LANE_BYTES: usize = 250;
const AGREEMENT_BYTES: usize = 600;
const UPDATE_BYTES: usize = 180;
/// 7,700 payments of 17 bytes, more or less.
const LARGE_UPDATE_BYTES: u64 = 130_900;

/// Bytes that nothing compresses.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

fn id(channel: u64) -> [u8; 32] {
    let mut random = Random(channel);
    let mut id = [0; 32];
    id.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&random.next().to_le_bytes()));
    id
}

fn update_key(channel: u64, seq: u64) -> Vec<u8> {
    [&id(channel)[..], &seq.to_be_bytes()].concat()
}

/// The changes of one update: payments as history, of which the newest `keep` stay, and the lane.
fn update(batch: &mut Batch, random: &mut Random, channel: u64, seq: u64, keep: u64, bytes: usize) {
    batch.put(UPDATES, &update_key(channel, seq), random.bytes(bytes));
    batch.put(OUTGOING, &id(channel), random.bytes(LANE_BYTES));
    if seq > keep {
        batch.delete(UPDATES, &update_key(channel, seq - keep));
    }
}

pub(crate) fn run(workload: &str, store: &str, short: bool) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("store");
    let scale = |full: u64| if short { full / 100 } else { full };
    let open = || candidates::open(store, &path);
    let mut random = Random(7);
    match workload {
        "saturated" => measured(store, &path, open(), scale(6_000), |number, batch| {
            let bytes = LARGE_UPDATE_BYTES * 3 / 4 + random.next() % (LARGE_UPDATE_BYTES / 2);
            update(batch, &mut random, 1, number, 256, usize::try_from(bytes).expect("small"));
            batch.put(INCOMING, &id(1), random.bytes(LANE_BYTES));
            batch.put(COUNTER, b"events", number.to_le_bytes().to_vec());
        }),
        "single" => measured(store, &path, open(), scale(10_000), |number, batch| {
            update(batch, &mut random, 1, number, 256, UPDATE_BYTES);
            batch.put(COUNTER, b"events", number.to_le_bytes().to_vec());
        }),
        "many" => {
            let mut seqs = vec![0_u64; 10_000];
            measured(store, &path, open(), scale(2_000), |number, batch| {
                for _ in 0..256 {
                    let channel = random.next() % 10_000;
                    let seq = &mut seqs[usize::try_from(channel).expect("small")];
                    *seq += 1;
                    update(batch, &mut random, channel, *seq, 4, UPDATE_BYTES);
                }
                batch.put(COUNTER, b"events", number.to_le_bytes().to_vec());
            });
        }
        "million" => {
            fill(store, &path, open(), scale(1_000_000));
            super::again(&format!("reopened {store}"), &path);
        }
        _ => unreachable!("no such workload"),
    }
}

/// Makes so many commits and prints what they cost.
#[allow(clippy::cast_precision_loss, reason = "it is printed with three digits")]
fn measured(
    name: &str,
    path: &Path,
    mut store: Box<dyn Candidate>,
    commits: u64,
    mut fill: impl FnMut(u64, &mut Batch),
) {
    let mut batch = Batch::new();
    let (mut bytes, mut filling, mut sizes, mut times) = (0_usize, 0.0, Vec::new(), Vec::new());
    let usage = Usage::now();
    for number in 1..=commits {
        let filled = Usage::now();
        batch.clear();
        fill(number, &mut batch);
        bytes += batch.changes().filter_map(|(_, _, value)| Some(value?.len())).sum::<usize>();
        // To the tick of the clock, which evens out over many.
        filling += filled.since().cpu_seconds;
        let begun = Instant::now();
        store.commit(&batch);
        times.push(begun.elapsed());
        if number.is_multiple_of((commits / 3).max(1)) {
            sizes.push(disk_bytes(path) >> 20);
        }
    }
    let used = usage.since();
    let committing: f64 = times.iter().map(std::time::Duration::as_secs_f64).sum();
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 1_000];
    let (commits, bytes) = (commits as f64, bytes as f64);
    println!(
        "  {name:<10} {:>7.0} commits/s {:>6.1} MB/s, p50 {:>8.1?} p99 {:>8.1?} p99.9 {:>8.1?}, {:>6.1} µs CPU; written per byte of value: \
         {:.2} pages, {:.2} bytes; disk {sizes:?} MB; memory {} MB",
        commits / committing,
        bytes / committing / 1e6,
        at(500),
        at(990),
        at(999),
        (used.cpu_seconds - filling) / commits * 1e6,
        used.written as f64 / bytes,
        used.handed_over as f64 / bytes,
        resident_bytes() >> 20,
    );
}

fn fill(name: &str, path: &Path, mut store: Box<dyn Candidate>, channels: u64) {
    let mut random = Random(3);
    let mut batch = Batch::new();
    let usage = Usage::now();
    for channel in 0..channels {
        batch.put(AGREEMENTS, &id(channel), random.bytes(AGREEMENT_BYTES));
        batch.put(PHASES, &id(channel), random.bytes(20));
        batch.put(OUTGOING, &id(channel), random.bytes(LANE_BYTES));
        batch.put(INCOMING, &id(channel), random.bytes(LANE_BYTES));
        if batch.len() >= 2_048 || channel + 1 == channels {
            store.commit(&batch);
            batch.clear();
        }
    }
    let used = usage.since();
    let memory = resident_bytes();
    drop(store);
    println!(
        "  {name:<10} filled in {:.1} s, {:.1} s CPU; disk {} MB, memory {} MB",
        used.seconds,
        used.cpu_seconds,
        disk_bytes(path) >> 20,
        memory >> 20
    );
}

/// Opens a store of channels in a process that has done nothing else, whose memory is that of the store.
pub(crate) fn reopen(name: &str, path: &Path) {
    let usage = Usage::now();
    let mut store = candidates::open(name, path);
    let opened = usage.since();
    let memory = resident_bytes();
    let usage = Usage::now();
    let found = store.count(PHASES);
    let scanned = usage.since();
    println!(
        "  {name:<10} opened in {:.2} s, {:.2} s CPU, memory {} MB; {found} phases read in {:.2} s, {:.2} s CPU, memory {} MB",
        opened.seconds,
        opened.cpu_seconds,
        memory >> 20,
        scanned.seconds,
        scanned.cpu_seconds,
        resident_bytes() >> 20
    );
}
