//! What people and peers do that is no attack yet: policies that change, sums that are too small, peers that do
//! not answer.

use std::time::Duration;

use flash_proto::{Amount, ChannelId, message::ChannelMessage};
use flash_tests::{Daemon, Net, RawNode, ScriptedPeer, rounds};
use flashd::api::{PayRequest, StreamOutcome};
use futures_util::{StreamExt, stream};

const DEPOSIT: u64 = 1_000_000;

async fn pair(net: &Net, deposits: [u64; 2]) -> (Daemon, Daemon, ChannelId) {
    let money = Amount::new(2 * DEPOSIT);
    let (car, charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", money));
    let channel = car.open(&charger, deposits[0], deposits[1], 60).await;
    (car, charger, channel)
}

/// The kinds of a channel's transactions in the Tangle.
async fn kinds(net: &Net, channel: ChannelId) -> Vec<&'static str> {
    let node = RawNode::connect(&net.node.address).await;
    let transactions = node.transactions_of(channel, net.params().pow_bits).await;
    transactions.iter().map(|it| it.essence.action.name()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_that_look_the_same_all_count() {
    let net = Net::start().await;
    let (car, charger, channel) = pair(&net, [DEPOSIT, 0]).await;
    let request = |key: Option<&str>| PayRequest {
        amount: Amount::new(7),
        reference: Some("meter 5".to_owned()),
        key: key.map(str::to_owned),
    };
    for number in 1..=5 {
        let paid = car.client().pay(channel, &request(None)).await.expect("it is in use");
        assert_eq!((paid.number, paid.repeated), (number, false));
    }
    // In one batch, too.
    let lines = stream::iter((0..5).map(|_| Ok("7".to_owned())));
    let answers: Vec<_> = car.client().stream(channel, lines).await.expect("a stream").collect().await;
    assert!(answers.iter().all(|it| matches!(it.as_ref().unwrap().outcome, StreamOutcome::Paid(_))));
    // The same key is the same payment.
    for repeated in [false, true, true] {
        let paid = car.client().pay(channel, &request(Some("once"))).await.expect("it is in use");
        assert_eq!((paid.number, paid.repeated), (11, repeated));
    }
    let received = charger.channel(channel).await.received;
    assert_eq!((received.payments, received.cumulative), (11, Amount::new(77)));
    car.close(channel).await;
}

/// A peer that takes what it is paid and never says so is not paid on and on.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_acknowledges_is_not_paid_on() {
    let net = Net::start().await;
    let charger = net.daemon("charger", Amount::ZERO).await;
    let peer = ScriptedPeer::new(&net, &charger.ticket().await);
    let channel = peer.open(&net, Amount::new(DEPOSIT)).await;
    charger.wait(channel, "open", |info| info.state == "open").await;
    let mut silent = peer.greet().await.channel(channel, None).await;
    silent.say(&ChannelMessage::Update(peer.update(peer.lane(channel), &[DEPOSIT]).0)).await;
    silent.acknowledged(1).await;

    let mut calls = tokio::task::JoinSet::new();
    let mut updates = 0;
    for _ in 0..2 * flash_proto::limits::UPDATES_UNACKNOWLEDGED_MAX {
        let client = charger.client().clone();
        calls.spawn(async move {
            let request = PayRequest { amount: Amount::new(1), reference: None, key: None };
            client.pay(channel, &request).await
        });
        // One call each, so that each makes an update, while there are any.
        let message = tokio::time::timeout(Duration::from_secs(2), silent.next::<ChannelMessage>()).await;
        match message {
            Ok(Some(ChannelMessage::Update(_))) => updates += 1,
            Ok(other) => panic!("{other:?}"),
            Err(_) => break,
        }
    }
    assert_eq!(updates, flash_proto::limits::UPDATES_UNACKNOWLEDGED_MAX, "the exposure limit");
    let sent = charger.channel(channel).await.sent;
    assert_eq!((sent.cumulative.units(), sent.acknowledged), (u64::try_from(updates).unwrap(), 0));
    assert!(calls.try_join_next().is_none(), "nobody was told that it is paid");
    // What waits goes on once the peer says what it has.
    silent.say(&ChannelMessage::Ack { seq: u64::try_from(updates).unwrap() }).await;
    let ChannelMessage::Update(last) = silent.next().await.expect("an update") else { panic!("an update") };
    silent.say(&ChannelMessage::Ack { seq: last.seq }).await;
    while let Some(paid) = calls.join_next().await {
        paid.expect("the call ends").expect("it is acknowledged");
    }
}

/// Terms that an operator would not accept today are no reason to end what was agreed on, and neither is a
/// peer that is not there.
#[tokio::test(flavor = "multi_thread")]
async fn no_channel_is_closed_over_a_policy_or_because_it_holds_too_little() {
    let net = Net::start().await;
    let (mut car, mut charger, channel) = pair(&net, [DEPOSIT, DEPOSIT]).await;
    // All but one unit is the charger's: far below what any output of a transfer may be.
    car.pay(channel, DEPOSIT - 1).await.expect("it is in use");
    for daemon in [&mut car, &mut charger] {
        assert_eq!(daemon.stop().await.code, Some(0));
        daemon.configure("[accept]\ncontest_window_min = 900000\nchannels_per_peer_max = 1\n");
        daemon.start().await;
    }
    for side in [&car, &charger] {
        side.wait(channel, "in use", |info| info.connected && info.paused.is_none()).await;
    }
    charger.pay(channel, 5).await.expect("it is in use");
    car.pay(channel, 5).await.expect("it is in use");
    car.kill();
    charger.wait(channel, "without its peer", |info| !info.connected).await;
    net.milestones(rounds(10, 300)).await;
    let info = charger.channel(channel).await;
    assert_eq!((info.state.as_str(), info.peer_balance), ("open", Some(Amount::new(1))));
    assert_eq!(kinds(&net, channel).await, ["open"]);
    car.start().await;
    car.agree(&charger, channel).await;
    // When its people wish so it is closed, and even the one unit is paid out.
    let closed = car.close(channel).await;
    let paid = (Some(Amount::new(1)), Some(Amount::new(2 * DEPOSIT - 1)));
    assert_eq!((closed.payout, closed.peer_payout), paid);
    let wallet = Amount::new(DEPOSIT + 1);
    flash_tests::until("the unit to be in the wallet", || async {
        car.client().balance().await.is_ok_and(|balance| balance.available == wallet)
    })
    .await;
    net.assert_supply().await;
}

/// Both ask to end it in their own way at the same moment, with payments under way both ways.
#[tokio::test(flavor = "multi_thread")]
async fn closed_in_both_ways_at_once_under_load_everybody_gets_the_balance() {
    let net = Net::start().await;
    let money = Amount::new(20 * DEPOSIT);
    let (car, charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", money));
    for round in 0..rounds(1, 20) {
        let channel = car.open(&charger, DEPOSIT, DEPOSIT, 8).await;
        let paying = [(&car, 3), (&charger, 2)].map(|(daemon, amount): (&Daemon, u64)| {
            let client = daemon.client().clone();
            tokio::spawn(async move {
                let mut told = 0;
                let request = PayRequest { amount: Amount::new(amount), reference: None, key: None };
                while client.pay(channel, &request).await.is_ok() {
                    told += amount;
                }
                told
            })
        });
        for side in [&car, &charger] {
            side.wait(channel, "being paid", |info| info.received.payments > 10).await;
        }
        let request = |force| flashd::api::CloseRequest { force };
        let (first, second) = tokio::join!(
            car.client().close(channel, request(round % 2 == 0), true),
            charger.client().close(channel, request(round % 2 == 1), true),
        );
        assert!(first.is_ok() || second.is_ok(), "{first:?}, {second:?}");
        let [told, told_back] = {
            let [there, back] = paying;
            [there.await.expect("a payer ends"), back.await.expect("a payer ends")]
        };
        let is_closed = |info: &flashd::api::ChannelInfo| info.state == "closed";
        let here = car.wait(channel, "closed", is_closed).await;
        let there = charger.wait(channel, "closed", is_closed).await;
        assert_eq!((here.payout, here.peer_payout), (there.peer_payout, there.payout));
        // Each gets at least its balance as it knows it; what is on its way may count on top (claim 2).
        assert!(here.payout >= here.balance && there.payout >= there.balance, "{here:?} {there:?}");
        assert!(there.received.cumulative >= Amount::new(told), "I4");
        assert!(here.received.cumulative >= Amount::new(told_back), "I4");
        net.assert_supply().await;
    }
}
