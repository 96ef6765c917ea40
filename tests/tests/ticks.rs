//! Payments of one hash each, between real daemons and on a real ledger.

use std::io;

use flash_proto::{Action, Amount, ChannelId, Claim};
use flash_tests::{Daemon, Net, Payer, Random, RawNode, Wish, until};
use flashd::api::{CloseRequest, ErrorCode, PayRequest, PayResult, StreamOutcome, TickRequest};
use futures_util::{StreamExt, stream};

const DEPOSIT: u64 = 1_000_000;

struct Scene {
    net: Net,
    car: Daemon,
    charger: Daemon,
    channel: ChannelId,
}

impl Scene {
    async fn set(window: u32) -> Self {
        let net = Net::start().await;
        let money = Amount::new(2 * DEPOSIT);
        let (car, charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", money));
        let channel = car.open(&charger, DEPOSIT, DEPOSIT, window).await;
        Self { net, car, charger, channel }
    }

    /// What the channel's claims and closes on the ledger showed.
    async fn shown(&self) -> Vec<Claim> {
        let node = RawNode::connect(&self.net.node.address).await;
        let transactions = node.transactions_of(self.channel, self.net.params().pow_bits).await;
        let shown = transactions.iter().filter_map(|it| match it.essence.action {
            Action::Claim(claim) => Some(claim),
            Action::UnilateralClose(close) => close.balance,
            _ => None,
        });
        shown.collect()
    }
}

fn ticks(unit: u64, count: u32, key: Option<&str>) -> TickRequest {
    TickRequest { unit: Amount::new(unit), count, key: key.map(str::to_owned) }
}

/// Pays under the key of a turn; every fourth time it is a payment, the others are ticks.
async fn take_turn(payer: &Payer, turn: u64, unit: u64, count: u32) -> PayResult {
    let key = format!("turn-{turn}");
    let wish = if turn.is_multiple_of(4) {
        Wish::Payment(PayRequest { amount: Amount::new(unit), reference: None, key: Some(key) })
    } else {
        Wish::Ticks(ticks(unit, count, Some(&key)))
    };
    payer.insist(&wish).await
}

/// Payments made and their sum.
async fn take_turns(payer: Payer, unit: u64, turns: u64, mut random: Random) -> (u64, u64) {
    let (mut payments, mut sum) = (0, 0);
    for turn in 0..turns {
        let count = u32::try_from(random.between(1, 300)).unwrap();
        let paid = take_turn(&payer, turn, unit, count).await;
        let made = u64::from(paid.ticks.unwrap_or(1));
        payments += made;
        sum += paid.amount.units();
        assert_eq!(paid.amount.units(), made * unit, "{paid:?}");
        assert_eq!(paid.number, payments, "{paid:?}");
        let again = take_turn(&payer, turn, unit, count).await;
        assert!(again.repeated && again.number == paid.number, "{again:?}");
    }
    (payments, sum)
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_go_both_ways_between_payments_whoever_is_killed() {
    let mut random = Random::new();
    let mut scene = Scene::set(100).await;
    let channel = scene.channel;
    let units = [5, 7];
    let payers = [Payer::of(&scene.car, channel), Payer::of(&scene.charger, channel)];
    let mut paying = Vec::new();
    for (payer, unit) in payers.into_iter().zip(units) {
        paying.push(tokio::spawn(take_turns(payer, unit, 60, random.split())));
    }
    for kill in 0..4_u64 {
        let before = scene.car.channel(channel).await;
        until("payments to go on", || async {
            let now = scene.car.client().channel(channel).await;
            now.is_ok_and(|now| {
                now.sent.acknowledged > before.sent.acknowledged
                    && now.received.payments > before.received.payments
            }) || paying.iter().any(tokio::task::JoinHandle::is_finished)
        })
        .await;
        if kill.is_multiple_of(2) { scene.charger.crash().await } else { scene.car.crash().await }
    }
    let mut made = Vec::new();
    for paying in paying {
        made.push(paying.await.expect("the payer ends"));
    }
    let [there, back] = [made[0], made[1]];
    let owned = [DEPOSIT + back.1 - there.1, DEPOSIT + there.1 - back.1].map(Amount::new);
    let sides = [(&scene.car, there, back, owned[0]), (&scene.charger, back, there, owned[1])];
    for (daemon, sent, received, owned) in sides {
        let info = daemon.channel(channel).await;
        assert_eq!((info.sent.payments, info.sent.cumulative), (sent.0, Amount::new(sent.1)), "{info:?}");
        let counted = (info.received.payments, info.received.cumulative);
        assert_eq!(counted, (received.0, Amount::new(received.1)), "I8: {info:?}");
        assert_eq!((info.sent.acknowledged, info.balance), (sent.0, Some(owned)));
        assert!(info.sent.updates < sent.0 / 20, "few signatures: {info:?}");
        assert!(daemon.event_kinds().await.iter().any(|kind| kind == "ticks_received"));
        daemon.assert_nothing_forgotten().await;
    }
    let closed = scene.car.close(channel).await;
    assert_eq!([closed.payout, closed.peer_payout], owned.map(Some));
    scene.net.assert_supply().await;
}

/// The car closes with what the charger paid by ticks; the charger is back in time to claim what it was paid so.
#[tokio::test(flavor = "multi_thread")]
async fn ticks_count_on_the_ledger() {
    let mut scene = Scene::set(80).await;
    let channel = scene.channel;
    scene.car.pay(channel, 1_000).await.expect("the car pays");
    scene.car.client().tick(channel, &ticks(5, 321, None)).await.expect("the car ticks");
    scene.charger.client().tick(channel, &ticks(7, 1, None)).await.expect("the charger ticks");
    scene.charger.client().tick(channel, &ticks(7, 12, None)).await.expect("the charger ticks");
    let info = scene.charger.channel(channel).await;
    let (sent, received) = (info.sent.ticks.unwrap(), info.received.ticks.unwrap());
    assert_eq!((sent.unit, sent.paid, sent.left), (Amount::new(7), 13, 4_096 - 13));
    assert_eq!((received.unit, received.paid), (Amount::new(5), 321));
    scene.charger.kill();
    scene.car.client().close(channel, CloseRequest { force: true }, false).await.unwrap();
    scene.car.wait(channel, "contested", |info| info.state == "contested").await;
    scene.charger.start().await;
    let paid = [1_000 + 5 * 321, 7 * 13];
    let owned = [DEPOSIT - paid[0] + paid[1], DEPOSIT + paid[0] - paid[1]].map(|it| Some(Amount::new(it)));
    for (daemon, owned) in [(&scene.car, owned), (&scene.charger, [owned[1], owned[0]])] {
        let closed = daemon.wait(channel, "closed", |info| info.state == "closed").await;
        assert_eq!([closed.payout, closed.peer_payout], owned, "{closed:?}");
    }
    let mut shown: Vec<_> =
        scene.shown().await.iter().map(|claim| (claim.ticks.map(|it| it.index), claim.total())).collect();
    shown.sort_by_key(|(index, _)| *index);
    let total = |units| Ok(Amount::new(units));
    assert_eq!(shown, [(Some(13), total(paid[1])), (Some(321), total(paid[0]))], "one transaction of each");
    scene.net.assert_supply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_carries_ticks_and_payments() {
    let scene = Scene::set(20).await;
    let lines = ["10", r#"{"unit":"3","count":4}"#, r#"{"unit":"3"}"#, r#"{"unit":"3","count":4097}"#, "7"];
    let lines = stream::iter(lines.map(|line| io::Result::Ok(line.to_owned())));
    let answers = scene.car.client().stream(scene.channel, lines).await.expect("the stream begins");
    let outcomes: Vec<_> = answers
        .map(|answer| match answer.expect("the stream goes on").outcome {
            StreamOutcome::Paid(paid) => Ok((paid.number, paid.amount.units(), paid.ticks)),
            StreamOutcome::Refused { error } => Err(error.code),
        })
        .collect()
        .await;
    let wanted = [
        Ok((1, 10, None)),
        Ok((5, 12, Some(4))),
        Ok((6, 3, Some(1))),
        Err(ErrorCode::InvalidRequest),
        Ok((7, 7, None)),
    ];
    assert_eq!(outcomes, wanted);
    assert_eq!(scene.charger.channel(scene.channel).await.received.cumulative, Amount::new(32));
}
