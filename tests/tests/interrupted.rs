//! `kill -9` while channels open and close: each ends open or not, closed or not, but no money is lost.

use std::time::Duration;

use flash_proto::{Amount, ChannelId};
use flash_tests::{Daemon, Net, NetOptions, Random, rounds, until};
use flashd::api::{ChannelInfo, CloseRequest, OpenRequest, SendRequest, WalletBalance};

const MONEY: u64 = 10_000_000;
const DEPOSIT: u64 = 1_000_000;

/// Kills one of the two, or both, at a random moment.
async fn kill(car: &mut Daemon, charger: &mut Daemon, random: &mut Random) {
    // Nothing is waited for here: this is the random moment.
    tokio::time::sleep(Duration::from_millis(random.between(0, 300))).await;
    match random.between(0, 2) {
        0 => car.crash().await,
        1 => charger.crash().await,
        _ => {
            car.kill();
            charger.kill();
            tokio::join!(car.start(), charger.start());
        }
    }
}

async fn wait_for_money(daemon: &Daemon, so: impl Fn(&WalletBalance) -> bool) {
    until("the money to be back", || async {
        daemon.client().balance().await.is_ok_and(|balance| so(&balance))
    })
    .await;
}

/// Opens a channel while somebody is killed, and waits until it is open for both or for neither.
async fn open(car: &mut Daemon, charger: &mut Daemon, random: &mut Random) -> Vec<ChannelId> {
    // What an opening was to spend that came to nothing is free again once that has expired.
    for daemon in [&*car, &*charger] {
        wait_for_money(daemon, |balance| balance.available >= Amount::new(DEPOSIT)).await;
    }
    let request = OpenRequest {
        peer: charger.ticket().await,
        deposit: Amount::new(DEPOSIT),
        peer_deposit: Amount::new(DEPOSIT),
        contest_window_milestones: Some(60),
    };
    let client = car.client().clone();
    let opening = tokio::spawn(async move { client.open(&request).await.map(|channel| channel.id) });
    kill(car, charger, random).await;
    match opening.await.expect("the call ends") {
        Ok(channel) => println!("opened {channel}"),
        Err(error) => println!("not opened: {error}"),
    }
    until("no channel to be half open", || async {
        let (Ok(here), Ok(there)) =
            tokio::join!(car.client().channels(false), charger.client().channels(false))
        else {
            return false;
        };
        let ids = |channels: &[ChannelInfo]| {
            let mut ids: Vec<_> = channels.iter().map(|channel| channel.id).collect();
            ids.sort_unstable();
            ids
        };
        let mut all = here.iter().chain(&there);
        ids(&here) == ids(&there) && all.all(|channel| channel.state == "open" && channel.paused.is_none())
    })
    .await;
    let open = car.client().channels(false).await.expect("it answers");
    open.into_iter().map(|channel| channel.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_money_is_lost_whenever_an_opening_or_closing_is_interrupted() {
    let mut random = Random::new();
    let net = Net::with(NetOptions { milestone_ms: 50, ..NetOptions::default() }).await;
    let (mut car, mut charger) =
        tokio::join!(net.daemon("car", Amount::new(MONEY)), net.daemon("charger", Amount::new(MONEY)));
    let (mut opened, mut owned) = (0, [MONEY; 2]);
    for _ in 0..rounds(3, 30) {
        for channel in open(&mut car, &mut charger, &mut random).await {
            opened += 1;
            car.pay(channel, 1_234).await.expect("the car pays");
            charger.pay(channel, 234).await.expect("the charger pays");
            owned = [owned[0] - 1_000, owned[1] + 1_000];
            let force = random.between(0, 3) == 0;
            car.client().close(channel, CloseRequest { force }, false).await.expect("it is to be closed");
            kill(&mut car, &mut charger, &mut random).await;
            let exact = [DEPOSIT - 1_000, DEPOSIT + 1_000].map(|amount| Some(Amount::new(amount)));
            let closed = car.wait(channel, "closed", |info| info.state == "closed").await;
            assert_eq!([closed.payout, closed.peer_payout], exact, "{closed:?}");
            let closed = charger.wait(channel, "closed", |info| info.state == "closed").await;
            assert_eq!([closed.peer_payout, closed.payout], exact, "{closed:?}");
        }
    }
    println!("{opened} channels opened");
    for (daemon, owned) in [(&car, owned[0]), (&charger, owned[1])] {
        let owned = Amount::new(owned);
        wait_for_money(daemon, |it| it.available == owned && it.reserved.is_zero()).await;
        daemon.assert_nothing_forgotten().await;
    }
    assert_eq!(net.info().await.channels, (0, Amount::ZERO));
    net.assert_supply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_is_interrupted_is_made_once_or_not_at_all() {
    const AMOUNT: u64 = 100_000;
    let mut random = Random::new();
    let net = Net::with(NetOptions { milestone_ms: 50, ..NetOptions::default() }).await;
    let (mut car, charger) =
        tokio::join!(net.daemon("car", Amount::new(MONEY)), net.daemon("charger", Amount::ZERO));
    let mut received = 0;
    for _ in 0..rounds(5, 30) {
        let to = charger.client().new_address().await.expect("an address").address;
        let client = car.client().clone();
        let request = SendRequest { to, amount: Amount::new(AMOUNT) };
        let sending = tokio::spawn(async move { client.send(&request).await });
        // Nothing is waited for here: this is the random moment.
        let latest_ms = if random.coin() { 4 } else { 150 };
        tokio::time::sleep(Duration::from_millis(random.between(0, latest_ms))).await;
        car.crash().await;
        let sent = sending.await.expect("the call ends").is_ok();
        wait_for_money(&car, |it| it.reserved.is_zero()).await;
        let left = car.client().balance().await.expect("it answers").available;
        assert!([received, received + AMOUNT].contains(&(MONEY - left.units())), "{left} is left");
        if sent {
            assert_eq!(MONEY - left.units(), received + AMOUNT, "what was said to be sent was sent");
        }
        received = MONEY - left.units();
        wait_for_money(&charger, |it| it.available == Amount::new(received)).await;
    }
    println!("{} transfers were made", received / AMOUNT);
    net.assert_supply().await;
}
