//! However many payments a channel has carried, it costs what it cost at first.

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use flash_proto::Amount;
use flash_tests::{Flow, Net, Random, rounds};

const DEPOSIT: u64 = 100_000_000;
/// Parts of the payments; the first is compared with the last.
const PARTS: u64 = 4;
/// What noise may make of it: the store keeps some segments in reserve, the system some pages.
const STORE_BYTES_MAX: u64 = 8 << 20;
const MEMORY_BYTES_MAX: u64 = 24 << 20;

/// Bytes that a directory takes on the disk.
fn disk_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
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

#[tokio::test(flavor = "multi_thread")]
async fn after_any_number_of_payments_a_channel_costs_what_it_cost_at_first() {
    let count = rounds(20_000, 10_000_000);
    let mut random = Random::new();
    let net = Net::start().await;
    let money = Amount::new(2 * DEPOSIT);
    let (mut car, mut charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", money));
    let channel = car.open(&charger, DEPOSIT, DEPOSIT, 60).await;
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
    }
    let updates = car.channel(channel).await.sent.updates;
    let begun = Instant::now();
    car.close(channel).await;
    println!("{count} payments in {updates} updates: {costs:#?}, closed in {:?}", begun.elapsed());
    let (first, last) = (&costs[0], &costs[costs.len() - 1]);
    for side in 0..2 {
        assert!(last.store[side] <= first.store[side] + STORE_BYTES_MAX, "the store grows: {costs:#?}");
        assert!(last.memory[side] <= first.memory[side] + MEMORY_BYTES_MAX, "the memory grows: {costs:#?}");
    }
    assert!(last.start < 2 * first.start + Duration::from_secs(5), "starting takes longer: {costs:#?}");
    net.assert_supply().await;
}
