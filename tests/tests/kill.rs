//! `kill -9` at random moments while both sides pay: nothing is paid twice, nothing acknowledged is lost.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use flash_proto::{Amount, ChannelId};
use flash_tests::{Daemon, Net, Payer, Random, Wish, rounds, until};
use flashd::api::{PayRequest, PayResult};

const DEPOSIT: u64 = 50_000_000;
/// Callers that pay at the same time, on each side.
const CALLERS: u64 = 6;

/// One who pays until he is told to stop.
#[derive(Clone)]
struct Purse {
    payer: Payer,
    stop: Arc<AtomicBool>,
    /// The sum of what was acknowledged so far.
    acknowledged: Arc<AtomicU64>,
}

/// What was asked for under a key, and the number that it was paid under.
type Paid = BTreeMap<String, (u64, u64)>;

impl Purse {
    fn of(daemon: &Daemon, channel: ChannelId) -> Self {
        Self { payer: Payer::of(daemon, channel), stop: Arc::default(), acknowledged: Arc::default() }
    }

    async fn pay(&self, key: &str, amount: u64) -> PayResult {
        let request = PayRequest { amount: Amount::new(amount), reference: None, key: Some(key.to_owned()) };
        self.payer.insist(&Wish::Payment(request)).await
    }

    async fn pay_on(self, caller: u64, mut random: Random) -> Paid {
        let mut paid = Paid::new();
        for count in 0_u64.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let (key, amount) = (format!("{caller}-{count}"), random.between(1, 1_000));
            let number = self.pay(&key, amount).await.number;
            self.acknowledged.fetch_add(amount, Ordering::Relaxed);
            paid.insert(key, (number, amount));
        }
        paid
    }

    async fn run(self, mut random: Random) -> Paid {
        let callers: Vec<_> =
            (0..CALLERS).map(|caller| tokio::spawn(self.clone().pay_on(caller, random.split()))).collect();
        let mut paid = Paid::new();
        for caller in callers {
            paid.append(&mut caller.await.expect("a caller pays on"));
        }
        paid
    }

    fn so_far(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }
}

async fn kill_one(net: &mut Net, sides: [&mut Daemon; 2], random: &mut Random) {
    // Nothing is waited for here: this is the random moment.
    tokio::time::sleep(Duration::from_millis(random.between(0, 400))).await;
    let [car, charger] = sides;
    match random.between(0, 9) {
        0 => {
            net.node.kill();
            net.node.restart().await;
        }
        choice => {
            let daemon = if choice % 2 == 0 { car } else { charger };
            daemon.crash().await;
        }
    }
}

/// What the payer was told is acknowledged is counted by the payee, whatever happened since.
async fn assert_counted(purse: &Purse, counting: &Daemon) {
    let told = purse.so_far();
    let counted = counting.channel(purse.payer.channel).await.received.cumulative;
    assert!(counted >= Amount::new(told), "{told} acknowledged, {counted} counted");
}

/// Every key was paid once, under a number of its own, and is not paid again.
async fn assert_paid_once(purse: &Purse, paid: &Paid) -> u64 {
    let numbers: std::collections::BTreeSet<u64> = paid.values().map(|(number, _)| *number).collect();
    assert_eq!(numbers.len(), paid.len(), "every payment has a number of its own");
    assert_eq!(numbers.last().copied(), u64::try_from(paid.len()).ok(), "and there are no others");
    for (key, (number, amount)) in paid {
        let again = purse.pay(key, *amount).await;
        assert!(again.repeated && again.number == *number, "{key}: {again:?}");
    }
    paid.values().map(|(_, amount)| amount).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_whenever_each_key_is_paid_exactly_once() {
    let kills = rounds(12, 300);
    let mut random = Random::new();
    let mut net = Net::start().await;
    let money = Amount::new(2 * DEPOSIT);
    let (mut car, mut charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", money));
    let channel = car.open(&charger, DEPOSIT, DEPOSIT, 100).await;

    let purses = [Purse::of(&car, channel), Purse::of(&charger, channel)];
    let paying = purses.clone().map(|payer| tokio::spawn(payer.run(random.split())));
    for kill in 0..kills {
        // Half of the kills come only after something went through again, the others before that.
        let before = purses[0].so_far() + purses[1].so_far();
        kill_one(&mut net, [&mut car, &mut charger], &mut random).await;
        assert_counted(&purses[0], &charger).await;
        assert_counted(&purses[1], &car).await;
        if kill == 0 || random.coin() {
            let so_far = || std::future::ready(purses[0].so_far() + purses[1].so_far() > before);
            until("payments to go on", so_far).await;
        }
    }
    let mut sums = Vec::new();
    for (purse, paying) in purses.iter().zip(paying) {
        purse.stop.store(true, Ordering::Relaxed);
        let paid = paying.await.expect("the payer ends");
        println!("{} payments survived {kills} kills", paid.len());
        sums.push((u64::try_from(paid.len()).unwrap(), assert_paid_once(purse, &paid).await));
    }
    let [there, back] = [sums[0], sums[1]];
    let owned = [DEPOSIT + back.1 - there.1, DEPOSIT + there.1 - back.1].map(Amount::new);
    for (daemon, sent, received, owned) in [(&car, there, back, owned[0]), (&charger, back, there, owned[1])]
    {
        let info = daemon.channel(channel).await;
        assert_eq!((info.sent.payments, info.sent.cumulative), (sent.0, Amount::new(sent.1)), "{info:?}");
        let counted = (info.received.payments, info.received.cumulative);
        assert_eq!(counted, (received.0, Amount::new(received.1)), "I8: {info:?}");
        assert_eq!(info.balance, Some(owned));
        daemon.assert_nothing_forgotten().await;
    }
    let closed = car.close(channel).await;
    assert_eq!([closed.payout, closed.peer_payout], owned.map(Some));
    net.assert_supply().await;
}
