//! However many updates a channel has carried, both machines and their records are what they were after the first ones.
//!
//! `FLASH_CI=full` makes ten million (or as many as `FLASH_UPDATES` says), which is for the workspace `tests/fast` with its cheap signatures; what a real
//! disk and a whole daemon make of fewer is in `tests/tests/faults/flat.rs`.

use std::time::{Duration, Instant};

use flash_channel::{
    machine::{HistoryRule, Input, LedgerView},
    store::MemoryStore,
};
use flash_proto::{Action, ChannelRecord, Side};

#[path = "../../tests/faults/parties.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod parties;

use parties::{Party, agreements, params, run};

/// Parts of the updates; the first is compared with the last.
const PARTS: u64 = 4;
/// Updates that are kept: fewer than the first part makes.
const HISTORY_KEEP: u64 = 64;
/// What noise may make of it: less than a byte for each of ten million updates.
const MEMORY_BYTES_MAX: u64 = 8 << 20;

/// Bytes of this process's memory.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux system");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the memory");
    let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number") * 1_024
}

fn updates() -> u64 {
    let full = std::env::var("FLASH_CI").is_ok_and(|value| value == "full");
    let wished = std::env::var("FLASH_UPDATES").ok();
    wished.map_or(if full { 10_000_000 } else { 2_000 }, |wished| wished.parse().expect("a number"))
}

#[test]
fn ten_million_updates_leave_no_more_behind_than_the_first_ones() {
    let count = updates();
    let agreements = agreements(&params());
    let record = Some(ChannelRecord::opened(&agreements[0].open));
    let view = LedgerView { index: 1, record, payouts: None };
    let mut parties = agreements.each_ref().map(|agreement| Party::new(agreement, MemoryStore::new()));
    let mut costs = Vec::new();
    for part in 1..=PARTS {
        let begun = Instant::now();
        parties = Side::BOTH.map(|side| {
            let at = usize::from(side.byte());
            Party::loaded(&agreements[at], parties[at].store.reopen())
        });
        let start = begun.elapsed();
        for party in &mut parties {
            party.channel.set_history(HistoryRule { keep: HISTORY_KEEP, receipt_every: 0 });
            party.sees(view);
            party.take(vec![Input::Connected]);
        }
        run(&mut parties);
        for number in 0..count / PARTS {
            let side = if number % 2 == 0 { Side::A } else { Side::B };
            parties[usize::from(side.byte())].pays(1);
            run(&mut parties);
        }
        let memory = resident_bytes();
        println!("part {part}: {memory} bytes, loaded in {start:?}, {:?} in all", begun.elapsed());
        costs.push((memory, start));
    }
    let made: u64 = parties.iter().map(|party| party.channel.outgoing().acknowledged).sum();
    assert_eq!(made, count, "each is an update of its own, and acknowledged");
    let (first, second, last) = (costs[0], costs[1], costs[costs.len() - 1]);
    assert!(last.0 <= first.0 + MEMORY_BYTES_MAX, "I12: the memory or the records grow: {costs:?}");
    // The first start had an empty channel to read.
    assert!(last.1 < 2 * second.1 + Duration::from_secs(1), "starting takes longer: {costs:?}");
    let begun = Instant::now();
    parties[0].take(vec![Input::Close]);
    run(&mut parties);
    let close = parties[0].channel.wanted().expect("both have signed");
    assert!(matches!(close.essence.action, Action::CooperativeClose(_)), "{close:?}");
    assert!(begun.elapsed() < Duration::from_secs(1), "closing takes {:?}", begun.elapsed());
}
