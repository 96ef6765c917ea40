//! A million payments each way at the same time over one channel, and two transactions on the ledger.

use std::time::Instant;

use flash_proto::{Action, Amount};
use flash_tests::{Flow, Net, Random, RawNode, full, is_release};
use flashd::api::ChannelInfo;

const DEPOSIT: u64 = 500_000;
const AMOUNT_MAX: u64 = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_both_ways_is_paid_out_to_the_unit_by_two_transactions() {
    let count = if full() || is_release() { 1_000_000 } else { 20_000 };
    let mut random = Random::new();
    let net = Net::start().await;
    let (car, charger) = tokio::join!(
        net.daemon("car", Amount::new(1_000_000)),
        net.daemon("charger", Amount::new(1_000_000))
    );
    let channel = car.open(&charger, DEPOSIT, DEPOSIT, 60).await;

    let flow = Flow { count, amount_max: AMOUNT_MAX };
    let started = Instant::now();
    let (there, back) = tokio::join!(
        flow.pay(car.client(), channel, random.split()),
        flow.pay(charger.client(), channel, random.split()),
    );
    println!("{there:?} there and {back:?} back in {:?}", started.elapsed());
    assert!(there.sum > 10 * DEPOSIT && back.sum > 10 * DEPOSIT, "far more than was ever locked");

    let owned = (DEPOSIT + back.sum - there.sum, DEPOSIT + there.sum - back.sum);
    for (daemon, sent, received, owned, other) in
        [(&car, there, back, owned.0, owned.1), (&charger, back, there, owned.1, owned.0)]
    {
        let all = |info: &ChannelInfo| info.sent.acknowledged == count;
        let info = daemon.wait(channel, "all acknowledged", all).await;
        for (lane, paid) in [(info.sent, sent), (info.received, received)] {
            assert_eq!((lane.payments, lane.cumulative), (paid.payments, Amount::new(paid.sum)));
        }
        assert_eq!((info.balance, info.peer_balance), (Some(Amount::new(owned)), Some(Amount::new(other))));
    }

    let closed = car.close(channel).await;
    assert_eq!((closed.payout, closed.peer_payout), (Some(Amount::new(owned.0)), Some(Amount::new(owned.1))));
    let closed = charger.wait(channel, "closed", |info| info.state == "closed").await;
    assert_eq!((closed.payout, closed.peer_payout), (Some(Amount::new(owned.1)), Some(Amount::new(owned.0))));

    let node = RawNode::connect(&net.node.address).await;
    let transactions = node.transactions_of(channel, net.params().pow_bits).await;
    assert_eq!(transactions.len(), 2, "{transactions:?}");
    assert!(transactions.iter().any(|it| matches!(it.essence.action, Action::Open(_))));
    assert!(transactions.iter().any(|it| matches!(it.essence.action, Action::CooperativeClose(_))));
    for (daemon, owned) in [(&car, owned.0), (&charger, owned.1)] {
        let money = daemon.client().balance().await.unwrap().available;
        assert_eq!(money, Amount::new(1_000_000 - DEPOSIT + owned), "the payout is in the wallet");
    }
    assert_eq!(net.info().await.channels, (0, Amount::ZERO));
    net.assert_supply().await;
}
