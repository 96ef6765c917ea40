//! However much a channel has carried, it costs what it cost at first.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use flash_channel::{
    machine::{HistoryRule, Input},
    store::StoreKind,
};
use flash_node_client::ledger::{Checked, LedgerState, genesis::genesis_entries};
use flash_proto::{Action, Amount, BlockId, Side};
use flash_tests::{Daemon, Flow, Net, Random, rounds, wait_unlocked};

use super::parties::{Party, agreements, params, run};

const DEPOSIT: u64 = 100_000_000;
/// Parts of the payments; the first is compared with the last.
const PARTS: u64 = 4;
/// Updates that are kept: fewer than the first part makes, so that the history has come to its full size in it.
const HISTORY_KEEP: u64 = 4;
/// What noise may make of it: the store keeps some segments in reserve, the system some pages.
const STORE_BYTES_MAX: u64 = 8 << 20;
const MEMORY_BYTES_MAX: u64 = 24 << 20;

/// Bytes that a directory takes on the disk.
fn disk_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    let of = |path: &Path| {
        let metadata = path.metadata().expect("a file");
        if metadata.is_dir() { disk_bytes(path) } else { metadata.blocks() * 512 }
    };
    entries.map(|entry| of(&entry.path())).sum()
}

#[derive(Debug)]
struct Cost {
    store: [u64; 2],
    memory: [u64; 2],
    start: Duration,
}

/// A daemon that keeps little of the past, and has money.
async fn forgetful(net: &Net, name: &str) -> Daemon {
    let daemon = Daemon::init(net, name).await;
    daemon.configure(&format!("history_keep = {HISTORY_KEEP}\n"));
    net.run_with_money(daemon, Amount::new(3 * DEPOSIT)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_any_number_of_payments_a_channel_costs_what_it_cost_at_first() {
    let count = rounds(20_000, 10_000_000);
    let mut random = Random::new();
    let net = Net::start().await;
    let (mut car, mut charger) = tokio::join!(forgetful(&net, "car"), forgetful(&net, "charger"));
    let channel = car.open(&charger, DEPOSIT, DEPOSIT, 60).await;
    let unused = car.open(&charger, DEPOSIT, 0, 60).await;
    let mut costs = Vec::new();
    for _ in 0..PARTS {
        let flow = Flow { count: count / PARTS, amount_max: 9 };
        let before = car.channel(channel).await.sent.payments;
        let paid = flow.pay_after(before, car.client(), channel, random.split()).await;
        assert_eq!(paid.payments, count / PARTS);
        let memory = [car.process().resident_bytes(), charger.process().resident_bytes()];
        for daemon in [&mut car, &mut charger] {
            assert_eq!(daemon.stop().await.code, Some(0));
        }
        let store = [&car, &charger].map(|daemon| disk_bytes(&daemon.data().join("store")));
        let begun = Instant::now();
        tokio::join!(car.start(), charger.start());
        let start = begun.elapsed();
        car.agree(&charger, channel).await;
        costs.push(Cost { store, memory, start });
        let full = car.channel(channel).await.sent.updates > HISTORY_KEEP;
        assert!(full, "so few updates fill no history");
    }
    let updates = car.channel(channel).await.sent.updates;
    let mut closed_in = Vec::new();
    for channel in [unused, channel] {
        let begun = Instant::now();
        car.close(channel).await;
        closed_in.push(begun.elapsed());
    }
    println!("{count} payments in {updates} updates: {costs:#?}, closed in {closed_in:?}");
    assert!(closed_in[1] < 2 * closed_in[0] + Duration::from_secs(5), "closing takes longer: {closed_in:?}");
    let (first, last) = (&costs[0], &costs[costs.len() - 1]);
    for side in 0..2 {
        assert!(last.store[side] <= first.store[side] + STORE_BYTES_MAX, "the store grows: {costs:#?}");
        assert!(last.memory[side] <= first.memory[side] + MEMORY_BYTES_MAX, "the memory grows: {costs:#?}");
    }
    assert!(last.start < 2 * first.start + Duration::from_secs(5), "starting takes longer: {costs:#?}");
    net.assert_supply().await;
}

/// How many updates: `FLASH_UPDATES` says another number.
fn updates() -> u64 {
    let wished = std::env::var("FLASH_UPDATES").ok();
    wished.map_or_else(|| rounds(800, 200_000), |wished| wished.parse().expect("a number"))
}

/// The same for updates, each with a commit of its own on both sides: the machine and the store alone, as nobody has
/// the time to send so many.
#[test]
fn after_any_number_of_updates_the_records_are_what_they_were_at_first() {
    let count = updates();
    let dir = tempfile::tempdir().expect("a directory");
    let open = |side: Side| {
        let path = dir.path().join(side.to_string());
        wait_unlocked(&path);
        StoreKind::open(None, &path, b"flat").expect("a store")
    };
    let params = params();
    let agreements = agreements(&params);
    let mut ledger = LedgerState::from_entries(genesis_entries(&params));
    let mut parties = Side::BOTH.map(|side| Party::new(&agreements[usize::from(side.byte())], open(side)));
    let mut confirm = |index: u64, transaction| {
        let checked = Checked::new(transaction, &params).expect("well-formed");
        let confirmation = ledger.confirm(index, &[(BlockId::new([9; 32]), Some(&checked))]);
        assert!(confirmation.conflicts.is_empty(), "{:?}", confirmation.conflicts);
        ledger.accept(&confirmation);
        let record = ledger.channel(&agreements[0].channel()).copied();
        flash_channel::machine::LedgerView { index, record, payouts: None }
    };
    let opened = confirm(1, parties[0].channel.wanted().expect("it is to be opened"));
    let mut costs = Vec::new();
    for part in 1..=PARTS {
        let begun = Instant::now();
        // All of it is read from the disk.
        drop(parties);
        parties = Side::BOTH.map(|side| Party::loaded(&agreements[usize::from(side.byte())], open(side)));
        let start = begun.elapsed();
        for party in &mut parties {
            party.channel.set_history(HistoryRule { keep: HISTORY_KEEP, receipt_every: 0 });
            party.sees(opened);
            party.take(vec![Input::Connected]);
        }
        run(&mut parties);
        let begun = Instant::now();
        for number in 0..count / PARTS {
            let side = if number % 2 == 0 { Side::A } else { Side::B };
            parties[usize::from(side.byte())].pays(1);
            run(&mut parties);
        }
        let store = Side::BOTH.map(|side| disk_bytes(&dir.path().join(side.to_string())));
        println!("part {part}: {store:?} bytes, loaded in {start:?}, {:?} for the updates", begun.elapsed());
        costs.push((store, start));
    }
    let made: u64 = parties.iter().map(|party| party.channel.outgoing().acknowledged).sum();
    assert_eq!(made, count, "each is an update of its own, and acknowledged");
    for side in 0..2 {
        let (first, last) = (costs[0].0[side], costs[costs.len() - 1].0[side]);
        assert!(last <= first + STORE_BYTES_MAX, "the store grows: {costs:?}");
    }
    // The first start had an empty channel to read.
    let (second, last) = (costs[1].1, costs[costs.len() - 1].1);
    assert!(last < 2 * second + Duration::from_secs(1), "starting takes longer: {costs:?}");
    let begun = Instant::now();
    parties[0].take(vec![Input::Close]);
    run(&mut parties);
    let close = parties[0].channel.wanted().expect("both have signed");
    assert!(matches!(close.essence.action, Action::CooperativeClose(_)), "{close:?}");
    confirm(2, close);
    assert!(begun.elapsed() < Duration::from_secs(1), "closing takes {:?}", begun.elapsed());
}
