//! What a network does to two daemons: nothing but to delay them.

use std::time::Duration;

use flash_proto::{Amount, ChannelId};
use flash_tests::{Daemon, Flow, Net, Proxy, Random, Weather, rounds, until};
use flashd::api::{ChannelInfo, PayRequest};

const DEPOSIT: u64 = 100_000_000;

/// A car and a charger with a network between them.
struct Scene {
    net: Net,
    car: Daemon,
    charger: Daemon,
    proxy: Proxy,
    channel: ChannelId,
    random: Random,
}

impl Scene {
    async fn set() -> Self {
        let mut random = Random::new();
        let net = Net::start().await;
        let money = Amount::new(2 * DEPOSIT);
        let (car, charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", money));
        let proxy = Proxy::to(&charger.ticket().await, random.split()).await;
        let ticket = proxy.ticket(&charger.ticket().await);
        let channel = car.open_by(ticket, &charger, DEPOSIT, DEPOSIT, 400).await;
        Self { net, car, charger, proxy, channel, random }
    }

    /// Both pay so often at the same time; each payment must be acknowledged, once.
    async fn flood(&mut self, count: u64) {
        let flow = Flow { count, amount_max: 100 };
        let (there, back) = tokio::join!(
            flow.pay(self.car.client(), self.channel, self.random.split()),
            flow.pay(self.charger.client(), self.channel, self.random.split()),
        );
        assert_eq!((there.payments, back.payments), (count, count));
        for (daemon, sent, received) in [(&self.car, there, back), (&self.charger, back, there)] {
            let all = |info: &ChannelInfo| info.received.payments == count;
            let info = daemon.wait(self.channel, "all received", all).await;
            assert_eq!(info.sent.cumulative, Amount::new(sent.sum), "I8");
            assert_eq!(info.received.cumulative, Amount::new(received.sum), "I8");
        }
    }

    /// Nothing was lost or refused on the way, and both are paid to the unit.
    async fn end(self) {
        self.car.agree(&self.charger, self.channel).await;
        for daemon in [&self.car, &self.charger] {
            daemon.assert_nothing_forgotten().await;
        }
        let balance = self.car.channel(self.channel).await.balance;
        assert_eq!(self.car.close(self.channel).await.payout, balance);
        self.net.assert_supply().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_lost_repeated_delayed_and_reordered_cost_time_only() {
    let mut scene = Scene::set().await;
    scene.proxy.set(Weather {
        lost_percent: 10,
        repeated_percent: 10,
        delay_ms_max: 20,
        ..Weather::default()
    });
    scene.flood(rounds(500, 50_000)).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_in_a_burst_is_survived() {
    let mut scene = Scene::set().await;
    let (car, channel, charger) = (scene.car.client().clone(), scene.channel, &scene.charger);
    let random = scene.random.split();
    // One update after the other: a stream sends what waits as one.
    let paying =
        tokio::spawn(async move { Flow { count: 1_000, amount_max: 100 }.pay(&car, channel, random).await });
    charger.wait(channel, "being paid", |info| info.received.payments > 0).await;
    scene.proxy.set(Weather::BLACK_HOLE);
    for side in [&scene.car, charger] {
        side.wait(channel, "disconnected", |info| !info.connected).await;
    }
    let before = charger.channel(channel).await.received;
    assert!(scene.car.channel(channel).await.sent.acknowledged <= before.payments, "I4");
    scene.proxy.set(Weather::default());
    let paid = paying.await.expect("the burst ends");
    assert_eq!(paid.payments, 1_000);
    let received = charger.channel(channel).await.received;
    assert_eq!((received.payments, received.cumulative), (1_000, Amount::new(paid.sum)));
    scene.end().await;
}

/// Half of a path may fail: then one side hears and the other does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_open_one_way_only_is_survived() {
    let scene = Scene::set().await;
    let ways = [(true, false), (false, true)];
    for (amount, (swallows_there, swallows_back)) in (1_u64..).zip(ways) {
        scene.proxy.set(Weather { swallows_there, swallows_back, ..Weather::default() });
        let (car, channel) = (scene.car.client().clone(), scene.channel);
        let request = PayRequest {
            amount: Amount::new(amount),
            reference: None,
            key: Some(format!("one way {amount}")),
        };
        let paying = {
            let request = request.clone();
            tokio::spawn(async move { car.pay(channel, &request).await })
        };
        scene.car.wait(channel, "disconnected", |info| !info.connected).await;
        scene.proxy.set(Weather::default());
        let paid = paying.await.expect("the call ends");
        // Whatever it was told, the same key is the same payment.
        until("the payment to be acknowledged", || async {
            scene.car.client().pay(channel, &request).await.is_ok_and(|again| again.number == amount)
        })
        .await;
        assert!(paid.is_ok_and(|paid| paid.number == amount), "a payment that was taken is made");
        let received = scene.charger.channel(channel).await.received;
        assert_eq!(received.payments, amount);
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_changes_breaks_no_connection() {
    let mut scene = Scene::set().await;
    let (car, channel, random) = (scene.car.client().clone(), scene.channel, scene.random.split());
    let begun = scene.proxy.begun();
    assert!(begun > 0, "the path is used");
    let count = rounds(3_000, 300_000);
    let paying =
        tokio::spawn(async move { Flow { count, amount_max: 100 }.pay(&car, channel, random).await });
    for part in 1..=5 {
        let so_far = |info: &ChannelInfo| info.received.payments >= part * count / 6;
        scene.charger.wait(channel, "being paid", so_far).await;
        scene.proxy.change_addresses();
    }
    assert_eq!(paying.await.expect("the payments end").payments, count);
    assert_eq!(scene.proxy.begun(), begun, "the same connection goes on");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_before_says_nothing_again() {
    let mut scene = Scene::set().await;
    scene.flood(100).await;
    let before = scene.charger.channel(scene.channel).await;
    for _ in 0..3 {
        let datagrams = scene.proxy.replay().await;
        assert!(datagrams > 10, "{datagrams}");
        scene.car.pay(scene.channel, 1).await.expect("the connection stands");
    }
    let after = scene.charger.channel(scene.channel).await;
    assert_eq!(after.received.payments, before.received.payments + 3);
    scene.end().await;
}

/// Each of the two opened a channel, so each dials the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_reconnects_from_both_sides_ends_with_one_connection() {
    let mut scene = Scene::set().await;
    let back = scene.charger.open(&scene.car, DEPOSIT / 2, 0, 400).await;
    for round in 0..rounds(2, 100) {
        if round % 2 == 0 {
            // Both find the connection dead at about the same moment.
            scene.proxy.set(Weather::BLACK_HOLE);
            scene.car.process().signal("STOP");
            scene.charger.wait(back, "disconnected", |info| !info.connected).await;
            scene.car.process().signal("CONT");
            scene.proxy.set(Weather::default());
        } else {
            scene.car.kill();
            scene.charger.kill();
            tokio::join!(scene.car.start(), scene.charger.start());
        }
        // While the two connections meet, one of them ends: what was asked for under a key is asked for again.
        for (number, (payer, channel)) in
            [(&scene.car, scene.channel), (&scene.charger, scene.channel), (&scene.charger, back)]
                .iter()
                .enumerate()
        {
            let key = Some(format!("{round} {number}"));
            let request = PayRequest { amount: Amount::new(1), reference: None, key };
            until("a payment to be acknowledged", || async {
                payer.client().pay(*channel, &request).await.is_ok()
            })
            .await;
        }
    }
    scene.charger.agree(&scene.car, back).await;
    scene.car.agree(&scene.charger, scene.channel).await;
    let owed = Amount::new(rounds(2, 100));
    let closed = scene.charger.close(back).await;
    assert_eq!(closed.peer_payout, Some(owed));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stands_still_for_longer_than_a_connection_lives_goes_on() {
    let mut scene = Scene::set().await;
    for stopped_is_payee in [true, false].into_iter().take(rounds(1, 2)) {
        let (still, other) = if stopped_is_payee {
            (&mut scene.charger, &scene.car)
        } else {
            (&mut scene.car, &scene.charger)
        };
        still.process().signal("STOP");
        let (client, channel) = (other.client().clone(), scene.channel);
        let paying = tokio::spawn(async move {
            let request = PayRequest { amount: Amount::new(5), reference: None, key: None };
            client.pay(channel, &request).await
        });
        other.wait(scene.channel, "disconnected", |info| !info.connected).await;
        still.process().signal("CONT");
        let paid = tokio::time::timeout(Duration::from_secs(60), paying).await.expect("in time");
        assert!(paid.expect("the call ends").is_ok(), "a payment that was taken is made");
    }
    scene.end().await;
}
