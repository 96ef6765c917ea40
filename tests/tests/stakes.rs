//! Topping up and withdrawing while payments flow both ways, with real daemons.

use std::net::Ipv4Addr;

use flash_proto::{Amount, ChannelId};
use flash_tests::{Daemon, Flow, Lane, LyingNode, Net, Random, until};
use flashd::api::{ApiError, ErrorCode, StakeRequest};

const DEPOSIT: u64 = 1_000_000;
const MONEY: u64 = 3 * DEPOSIT;

fn stake(amount: u64) -> StakeRequest {
    StakeRequest { amount: Amount::new(amount) }
}

/// Small payments one way, as many as there is time for while `work` goes on.
async fn flow(daemon: &Daemon, channel: ChannelId) -> Lane {
    Flow { count: 4_000, amount_max: 20 }.pay(daemon.client(), channel, Random::new()).await
}

async fn assert_wallet(daemon: &Daemon, amount: u64) {
    until("the money to be in the wallet", || async {
        let balance = daemon.client().balance().await;
        balance.is_ok_and(|balance| balance.available == Amount::new(amount) && balance.reserved.is_zero())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_topped_up_and_money_taken_out_while_payments_flow() {
    let net = Net::start().await;
    let (car, charger) =
        tokio::join!(net.daemon("car", Amount::new(MONEY)), net.daemon("charger", Amount::new(MONEY)));
    let channel = car.open(&charger, DEPOSIT, 500_000, 60).await;
    let changes = async {
        let topped_up = car.client().top_up(channel, stake(700_000), true).await.expect("topped up");
        assert_eq!(topped_up.deposit, Amount::new(DEPOSIT + 700_000));
        let out = charger.client().withdraw(channel, stake(300_000), true).await.expect("taken out");
        assert_eq!((out.deposit, out.withdrawn), (Amount::new(500_000), Amount::new(300_000)));
        let both = tokio::join!(
            car.client().withdraw(channel, stake(100_000), true),
            charger.client().top_up(channel, stake(50_000), true),
        );
        both.0.expect("the car takes out");
        both.1.expect("the charger tops up");
    };
    let (there, back, ()) = tokio::join!(flow(&car, channel), flow(&charger, channel), changes);
    assert_eq!((there.payments, back.payments), (4_000, 4_000), "nothing is lost");
    let paid = there.sum;
    let (car_owns, charger_owns) =
        (DEPOSIT + 700_000 - 100_000 + back.sum - paid, 500_000 + paid + 50_000 - 300_000 - back.sum);
    let info = car.channel(channel).await;
    assert_eq!(
        (info.balance, info.peer_balance),
        (Some(Amount::new(car_owns)), Some(Amount::new(charger_owns)))
    );
    let closed = charger.close(channel).await;
    assert_eq!(
        (closed.payout, closed.peer_payout),
        (Some(Amount::new(charger_owns)), Some(Amount::new(car_owns)))
    );
    assert_wallet(&car, MONEY + back.sum - paid).await;
    assert_wallet(&charger, MONEY + paid - back.sum).await;
    net.assert_supply().await;
    for daemon in [&car, &charger] {
        daemon.assert_nothing_forgotten().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdraw_that_nobody_answers_lapses_and_blocks_nothing() {
    let net = Net::start().await;
    let (car, mut charger) =
        tokio::join!(net.daemon("car", Amount::new(MONEY)), net.daemon("charger", Amount::ZERO));
    let channel = car.open(&charger, DEPOSIT, 0, 600).await;
    let refused =
        |result: Result<_, ApiError>| result.map(|_: flashd::api::ChannelInfo| ()).unwrap_err().code;
    let client = car.client();
    assert_eq!(
        refused(client.withdraw(channel, stake(DEPOSIT + 1), true).await),
        ErrorCode::InsufficientBalance
    );
    assert_eq!(refused(client.withdraw(channel, stake(DEPOSIT), true).await), ErrorCode::ChannelState);
    assert_eq!(refused(client.withdraw(channel, stake(0), true).await), ErrorCode::InvalidRequest);
    assert_eq!(refused(client.top_up(channel, stake(0), true).await), ErrorCode::InvalidRequest);
    assert_eq!(refused(client.top_up(channel, stake(MONEY), true).await), ErrorCode::InsufficientBalance);

    // The charger stands still: its connection is there, and it answers nothing.
    charger.process().signal("STOP");
    let waiting = client.withdraw(channel, stake(400_000), false).await.expect("asked for");
    assert_eq!(waiting.withdrawing, Some(Amount::new(400_000)));
    assert_eq!(refused(client.withdraw(channel, stake(1), true).await), ErrorCode::InvalidRequest);
    assert_eq!(refused(client.withdraw(channel, stake(1_000), true).await), ErrorCode::ChannelState);
    charger.process().signal("CONT");
    // It is back before the withdraw has lapsed, signs it after all, and payments have gone on.
    car.wait(channel, "rid of the money", |info| info.withdrawn == Amount::new(400_000)).await;
    car.pay(channel, 100_000).await.expect("the car pays");

    charger.process().signal("STOP");
    let lapsed = client.withdraw(channel, stake(200_000), true).await.unwrap_err();
    assert_eq!(lapsed.code, ErrorCode::LedgerRefused, "{lapsed:?}");
    assert!(lapsed.message.contains("has lapsed"), "{lapsed:?}");
    let lapsed = car.channel(channel).await;
    assert_eq!(lapsed.withdrawing, None, "the money is in use again");
    assert_eq!((lapsed.withdrawn, lapsed.balance), (Amount::new(400_000), Some(Amount::new(500_000))));
    assert!(car.event_kinds().await.iter().any(|kind| kind == "withdraw_lapsed"));
    charger.process().signal("CONT");
    // The charger finds the request that waited for it, signs it by the ledger as it last saw it, and counts the
    // money as taken until it sees that milestones have passed. All of it can be paid then.
    car.pay_after(ErrorCode::InsufficientBalance, channel, 500_000, "all of it").await;
    let closed = car.close(channel).await;
    assert_eq!((closed.payout, closed.peer_payout), (Some(Amount::ZERO), Some(Amount::new(600_000))));
    assert_wallet(&car, MONEY - DEPOSIT + 400_000).await;
    net.assert_supply().await;
}

/// The node that a daemon follows refuses each block with the top-up, or takes and loses it, until it has expired.
#[tokio::test(flavor = "multi_thread")]
async fn a_top_up_that_is_not_applied_says_why_and_its_money_comes_back() {
    const MORE: u64 = 10_000;
    let net = Net::start().await;
    let node = LyingNode::losing(Ipv4Addr::LOCALHOST.into(), &net.node.address, 0);
    let arguments = ["--node", &node.address.to_string()];
    let car = Daemon::init_at(net.path().join("car"), &net.node.network(), &arguments).await;
    let (car, charger) =
        tokio::join!(net.run_with_money(car, Amount::new(MONEY)), net.daemon("charger", Amount::ZERO));
    let channel = car.open(&charger, DEPOSIT, 0, 600).await;
    let address = car.client().new_address().await.expect("an address").address;
    net.fund(address, Amount::new(MORE)).await;
    assert_wallet(&car, MONEY - DEPOSIT + MORE).await;

    node.loses(u64::MAX);
    let asked = car.client().top_up(channel, stake(700_000), false).await.expect("it is on its way");
    assert_eq!((asked.topping_up, asked.deposit), (Some(Amount::new(700_000)), Amount::new(DEPOSIT)));
    let another = car.client().top_up(channel, stake(1_000), true).await.unwrap_err();
    assert_eq!(another.code, ErrorCode::ChannelState, "{another:?}");
    car.pay(channel, DEPOSIT).await.expect("payments go on");
    car.wait(channel, "rid of the top-up", |info| info.topping_up.is_none()).await;
    assert_wallet(&car, MONEY - DEPOSIT + MORE).await;

    let lapsed = car.client().top_up(channel, stake(700_000), true).await.unwrap_err();
    assert_eq!(lapsed.code, ErrorCode::LedgerRefused, "{lapsed:?}");
    assert!(lapsed.message.starts_with("the top-up of 700Ki: "), "{lapsed:?}");
    assert_eq!(car.channel(channel).await.deposit, Amount::new(DEPOSIT), "nothing more is locked");

    assert_wallet(&car, MONEY - DEPOSIT + MORE).await;
    net.assert_supply().await;
}
