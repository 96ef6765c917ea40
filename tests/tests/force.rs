//! Closing alone: who is honest gets the exact balance, whatever the other does or leaves undone.

use std::time::Duration;

use flash_node_client::wallet::Account;
use flash_proto::{
    Action, Amount, ChannelId, Essence, SecretKey, Side, Transaction, transaction::UnilateralClose,
};
use flash_tests::{Daemon, Net, Random, RawNode, copy, rounds};
use flashd::api::{ChannelInfo, CloseRequest, ErrorCode};

const DEPOSIT: u64 = 1_000_000;

/// Two daemons with an open channel, over which both have paid.
struct Scene {
    net: Net,
    car: Daemon,
    charger: Daemon,
    channel: ChannelId,
    /// What the car and the charger own.
    owned: [u64; 2],
}

impl Scene {
    async fn set(window: u32) -> Self {
        let net = Net::start().await;
        let money = Amount::new(2 * DEPOSIT);
        let (car, charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", money));
        let channel = car.open(&charger, DEPOSIT, DEPOSIT, window).await;
        Self { net, car, charger, channel, owned: [DEPOSIT; 2] }
    }

    async fn car_pays(&mut self, amount: u64) {
        self.car.pay(self.channel, amount).await.expect("the car pays");
        self.owned = [self.owned[0] - amount, self.owned[1] + amount];
    }

    async fn charger_pays(&mut self, amount: u64) {
        self.charger.pay(self.channel, amount).await.expect("the charger pays");
        self.owned = [self.owned[0] + amount, self.owned[1] - amount];
    }

    fn payouts(&self) -> [Option<Amount>; 2] {
        self.owned.map(|owned| Some(Amount::new(owned)))
    }

    /// The car sees the exact payouts, and its wallet has the money.
    async fn assert_exact(&self) -> ChannelInfo {
        let closed = self.car.wait(self.channel, "closed", |info| info.state == "closed").await;
        assert_eq!([closed.payout, closed.peer_payout], self.payouts(), "{closed:?}");
        let wallet = Amount::new(DEPOSIT + self.owned[0]);
        flash_tests::until("the payout to be in the wallet", || async {
            self.car.client().balance().await.is_ok_and(|balance| balance.available == wallet)
        })
        .await;
        self.net.assert_supply().await;
        closed
    }

    /// The charger's key in the channel.
    async fn charger_key(&self) -> SecretKey {
        let record = self.net.client.channel(self.channel).await.unwrap().value.unwrap();
        (0..100)
            .map(|index| self.charger.key(Account::Channels, index))
            .find(|key| key.public() == record.party_b.key)
            .expect("one of the charger's keys")
    }

    /// Closes as the charger does that hides all that it paid and was paid.
    async fn charger_closes_with_nothing(&self) {
        let close = UnilateralClose { channel: self.channel, closer: Side::B, balance: None };
        let essence = Essence::acting(self.net.params().id(), Action::UnilateralClose(close));
        let unlocks = vec![essence.unlock(&self.charger_key().await)];
        let transaction = Transaction { essence, unlocks };
        self.net.client.submit_and_wait(transaction, None).await.expect("the close is applied");
    }

    async fn kinds(&self) -> Vec<&'static str> {
        kinds(&self.net, self.channel).await
    }
}

/// The kinds of the transactions of a channel that are in the Tangle, in alphabetical order.
async fn kinds(net: &Net, channel: ChannelId) -> Vec<&'static str> {
    let node = RawNode::connect(&net.node.address).await;
    let transactions = node.transactions_of(channel, net.params().pow_bits).await;
    let mut kinds: Vec<_> = transactions.iter().map(|it| it.essence.action.name()).collect();
    kinds.sort_unstable();
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn the_money_comes_out_alone_when_the_peer_is_gone() {
    let mut scene = Scene::set(12).await;
    scene.charger_pays(123_456).await;
    scene.charger.kill();
    let closed = scene.car.close_alone(scene.channel).await;
    assert_eq!([closed.payout, closed.peer_payout], scene.payouts());
    scene.assert_exact().await;
    assert_eq!(scene.kinds().await, ["open", "unilateral_close"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_comes_back_within_the_window_gets_what_it_was_paid() {
    let mut scene = Scene::set(80).await;
    scene.charger_pays(123_456).await;
    scene.car_pays(654_321).await;
    scene.charger.kill();
    scene.car.client().close(scene.channel, CloseRequest { force: true }, false).await.unwrap();
    scene.car.wait(scene.channel, "contested", |info| info.state == "contested").await;
    scene.charger.start().await;
    scene.assert_exact().await;
    let closed = scene.charger.wait(scene.channel, "closed", |info| info.state == "closed").await;
    assert_eq!([closed.peer_payout, closed.payout], scene.payouts());
    assert_eq!(scene.kinds().await, ["claim", "open", "unilateral_close"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_with_nothing_is_corrected_by_the_watcher() {
    let mut scene = Scene::set(20).await;
    scene.charger_pays(700_000).await;
    scene.charger.kill();
    scene.charger_closes_with_nothing().await;
    scene.assert_exact().await;
    assert_eq!(scene.kinds().await, ["claim", "open", "unilateral_close"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_while_the_honest_side_is_down_is_corrected_when_it_is_back() {
    let mut scene = Scene::set(80).await;
    scene.charger_pays(700_000).await;
    scene.car.kill();
    scene.charger.kill();
    scene.charger_closes_with_nothing().await;
    scene.net.milestones(5).await;
    scene.car.start().await;
    scene.assert_exact().await;
    assert_eq!(scene.kinds().await, ["claim", "open", "unilateral_close"]);
}

/// The old state is a real one: a copy of the charger's directory from before the later payments, with a
/// daemon of its own that the car cannot reach, so that nobody tells it what it has forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_with_an_old_balance_is_corrected_to_the_newest() {
    let mut scene = Scene::set(80).await;
    scene.car_pays(400_000).await;
    scene.charger_pays(50_000).await;
    assert_eq!(scene.charger.stop().await.code, Some(0));
    let old = scene.net.path().join("charger-before");
    copy(scene.charger.data(), &old);
    scene.charger.start().await;
    for side in [&scene.car, &scene.charger] {
        side.wait(scene.channel, "in use", |info| info.connected && info.paused.is_none()).await;
    }
    scene.charger_pays(800_000).await;
    scene.car_pays(20_000).await;
    scene.charger.kill();

    let mut old = Daemon::at(old);
    old.start().await;
    // It has noticed that its records are a copy, and closes nothing before somebody says that they are the newest.
    let wait = "to have seen that it is a copy";
    old.wait(scene.channel, wait, |info| info.state == "recovered").await;
    let refused = old.client().close(scene.channel, CloseRequest { force: true }, false).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::ChannelState, "{refused:?}");
    old.client().trust(scene.channel).await.expect("it is in doubt");
    // Once it has seen the channel on the ledger it may close.
    old.wait(scene.channel, "open", |info| info.state == "open").await;
    old.client().close(scene.channel, CloseRequest { force: true }, false).await.unwrap();
    let contested = scene.car.wait(scene.channel, "contested", |info| info.state == "contested").await;
    assert_eq!(contested.received.cumulative, Amount::new(850_000));
    old.kill();
    // What the car paid since then is for the charger to claim, and the charger is honest again.
    scene.charger.start().await;
    scene.assert_exact().await;
    assert_eq!(scene.kinds().await, ["claim", "claim", "open", "unilateral_close"]);
}

/// Whichever of the two the ledger sees first, and however far the other had come by then.
#[tokio::test(flavor = "multi_thread")]
async fn closing_together_raced_by_closing_alone_pays_the_same() {
    let mut random = Random::new();
    let net = Net::start().await;
    let money = Amount::new(10 * DEPOSIT);
    let (car, charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", money));
    let races = (0..rounds(4, 20)).map(|_| Duration::from_millis(random.between(0, 250)));
    for head_start in races.collect::<Vec<_>>() {
        let channel = car.open(&charger, DEPOSIT, DEPOSIT, 8).await;
        car.pay(channel, 111_111).await.expect("the car pays");
        charger.pay(channel, 22_222).await.expect("the charger pays");
        let alone = async {
            tokio::time::sleep(head_start).await;
            charger.client().close(channel, CloseRequest { force: true }, true).await
        };
        let (together, alone) = tokio::join!(car.close(channel), alone);
        let (ours, peers) = (Amount::new(DEPOSIT - 88_889), Amount::new(DEPOSIT + 88_889));
        assert_eq!((together.payout, together.peer_payout), (Some(ours), Some(peers)));
        // Too late, it finds nothing left to close.
        let ended = alone.map_or_else(|error| error.message, |info| info.state);
        let kinds = kinds(&net, channel).await;
        println!("{head_start:?}: {ended}; {kinds:?}");
        let closed = charger.wait(channel, "closed", |info| info.state == "closed").await;
        assert_eq!((closed.payout, closed.peer_payout), (Some(peers), Some(ours)));
        net.assert_supply().await;
    }
}
