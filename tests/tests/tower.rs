//! Watchtowers: whoever is paid and then goes away gets all of it, whatever the peer shows the ledger.

use flash_node_client::{
    client::NodeClient,
    quic::{
        Endpoint, PeerAddress, StreamLimits, TOWER_ALPN,
        frames::{FrameReader, FrameWriter},
    },
    wallet::Account,
};
use flash_proto::{
    Action, Amount, ChannelId, ChannelRecord, Claim, Essence, LaneState, Payment, PaymentList, SecretKey,
    Side, Signature, SignedBalance, Transaction, Unlock,
    limits::TOWER_FRAME_BYTES_MAX,
    tower::{Claimable, TowerReceipt, TowerRefusalCode, TowerRequest, TowerResponse, client_hash},
    transaction::UnilateralClose,
};
use flash_tests::{Daemon, Flow, Net, Random, RawNode, Tower, TowerClient, full, is_release, poll, until};
use flashd::api::{ChannelInfo, TowerStanding};

const DEPOSIT: u64 = 20_000_000;
const METRICS: [&str; 2] = ["--metrics", "127.0.0.1:0"];

/// A car that pays a charger which has watchtowers.
struct Scene {
    net: Net,
    car: Daemon,
    charger: Daemon,
    channel: ChannelId,
}

impl Scene {
    async fn set(net: Net, towers: &[PeerAddress], window: u32) -> Self {
        let towers: Vec<String> = towers.iter().map(ToString::to_string).collect();
        let arguments: Vec<&str> = towers.iter().flat_map(|tower| ["--tower", tower]).collect();
        let charger = Daemon::init(&net, "charger").await.with(&arguments);
        let money = Amount::new(2 * DEPOSIT);
        let charger = net.run_with_money(charger, money).await;
        let car = net.daemon("car", money).await;
        let channel = car.open(&charger, DEPOSIT, DEPOSIT, window).await;
        Self { net, car, charger, channel }
    }

    async fn car_pays(&self, amount: u64) {
        self.car.pay(self.channel, amount).await.expect("the car pays");
    }

    /// What a tower has of the channel, once it is so.
    async fn tower(&self, number: usize, so: impl Fn(&TowerStanding) -> bool) -> TowerStanding {
        let so = |info: &ChannelInfo| info.towers.get(number).is_some_and(&so);
        self.charger.wait(self.channel, "with its tower", so).await.towers.swap_remove(number)
    }

    async fn tower_has_the_newest(&self, number: usize) {
        let standing = self.tower(number, |tower| tower.state == "newest").await;
        assert_eq!((standing.updates_behind, standing.error), (0, None));
    }

    async fn record(&self) -> ChannelRecord {
        self.net.client.channel(self.channel).await.unwrap().value.expect("the channel is on the ledger")
    }

    /// The key of one of the parties in the channel.
    async fn key(&self, side: Side) -> SecretKey {
        let (record, daemon) = (self.record().await, side.pick(&self.car, &self.charger));
        (0..100)
            .map(|index| daemon.key(Account::Channels, index))
            .find(|key| key.public() == record.party(side).key)
            .expect("one of its keys")
    }

    /// The first balance that one of them signed, if its first payment was this one.
    async fn oldest_of(&self, payer: Side, amount: u64) -> SignedBalance {
        let mut payments = PaymentList::new();
        payments.push(&Payment::new(Amount::new(amount), b"").unwrap()).unwrap();
        let first = LaneState::new(self.channel, payer).advance(&payments).unwrap();
        first.sign(self.net.params().id(), &self.key(payer).await)
    }

    /// Claims for the charger what the car's first payment was, so that it seems to have been the only one.
    async fn car_shows_its_oldest(&self, amount: u64) {
        let oldest = self.oldest_of(Side::A, amount).await;
        let claim = Action::Claim(Claim::of(oldest.state));
        let key = self.record().await.party_a.key;
        let unlocks = vec![Unlock { key, signature: oldest.signature }];
        let transaction = Transaction { essence: Essence::acting(self.net.params().id(), claim), unlocks };
        self.net.client.submit_and_wait(transaction, None).await.expect("the claim is applied");
    }

    /// Closes as the car does that hides what it paid, and shows this balance of the charger's.
    async fn car_closes_with(&self, balance: Option<SignedBalance>) {
        let close = UnilateralClose {
            channel: self.channel,
            closer: Side::A,
            balance: balance.map(|balance| Claim::of(balance.state)),
        };
        let essence = Essence::acting(self.net.params().id(), Action::UnilateralClose(close));
        let key = self.record().await.party_b.key;
        let shown = balance.map(|balance| Unlock { key, signature: balance.signature });
        let unlocks = [essence.unlock(&self.key(Side::A).await)].into_iter().chain(shown).collect();
        let transaction = Transaction { essence, unlocks };
        self.net.client.submit_and_wait(transaction, None).await.expect("the close is applied");
    }

    /// What the ledger has paid to each, once the channel is gone from it. Neither daemon is needed.
    async fn paid_out(&self, record: ChannelRecord) -> [u64; 2] {
        until("the channel to be paid out", || gone(&self.net.client, self.channel)).await;
        let addresses = Side::BOTH.map(|side| record.party(side).payout);
        let outputs = self.net.client.outputs_of(&addresses).await.unwrap().value;
        Side::BOTH.map(|side| {
            let paid = outputs.iter().find(|(id, _)| *id == self.channel.payout(side));
            paid.map_or(0, |(_, output)| output.amount.units())
        })
    }

    async fn kinds(&self) -> Vec<&'static str> {
        let node = RawNode::connect(&self.net.node.address).await;
        let transactions = node.transactions_of(self.channel, self.net.params().pow_bits).await;
        let mut kinds: Vec<_> = transactions.iter().map(|it| it.essence.action.name()).collect();
        kinds.sort_unstable();
        kinds
    }
}

async fn gone(client: &NodeClient, channel: ChannelId) -> bool {
    client.channel(channel).await.is_ok_and(|proven| proven.value.is_none())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tower_wins_against_the_oldest_balance_after_a_flood_of_payments() {
    let count = if full() || is_release() { 1_000_000 } else { 20_000 };
    let net = Net::start().await;
    let mut tower = Tower::start(&net, "tower", &METRICS).await;
    let scene = Scene::set(net, &[tower.address()], 120).await;
    scene.charger.pay(scene.channel, 1_000).await.expect("the charger pays");
    let oldest = scene.oldest_of(Side::B, 1_000).await;
    let flow = Flow { count, amount_max: 15 };
    let paid = flow.pay(scene.car.client(), scene.channel, Random::new()).await;
    scene.charger.pay(scene.channel, 500).await.expect("the charger pays again");
    scene.tower_has_the_newest(0).await;
    let info = scene.charger.channel(scene.channel).await;
    assert_eq!((info.received.payments, info.received.cumulative.units()), (count, paid.sum));
    assert_eq!(tower.metric("flash_tower_lanes").await, 1);
    println!("{} payments, {} of them handed over", count, tower.metric("flash_tower_balances_total").await);

    // Nobody but the tower is left, and it has one balance.
    let record = scene.record().await;
    let Scene { mut car, mut charger, .. } = scene;
    car.kill();
    charger.kill();
    let scene = Scene { car, charger, ..scene };
    tower.stop().await;
    assert_eq!(tower.stored_lanes(), 1);
    tower.restart().await;
    scene.car_closes_with(Some(oldest)).await;
    let payouts = scene.paid_out(record).await;
    // What the car did not show of the charger's payments is the charger's.
    assert_eq!(payouts, [DEPOSIT - paid.sum + 1_000, DEPOSIT + paid.sum - 1_000]);
    assert_eq!(scene.kinds().await, ["claim", "open", "unilateral_close"]);
    scene.net.assert_supply().await;
    until("the tower to forget", || async { tower.metric("flash_tower_lanes").await == 0 }).await;
    tower.stop().await;
    assert_eq!(tower.stored_lanes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_towers_one_is_enough_and_a_daemon_is_one() {
    let net = Net::start().await;
    let mut alone = Tower::start(&net, "tower", &[]).await;
    let helper = Daemon::init(&net, "helper").await.with(&["--tower-listen", "127.0.0.1:0"]);
    let helper = net.run_with_money(helper, Amount::ZERO).await;
    let helping = helper.client().info().await.unwrap().tower.expect("it is a tower");
    let scene = Scene::set(net, &[alone.address(), helping.parse().unwrap()], 100).await;
    let unpaid = scene.charger.channel(scene.channel).await.towers;
    assert!(unpaid.iter().all(|tower| tower.state == "nothing_received"), "{unpaid:?}");
    scene.car_pays(100_000).await;
    for number in [0, 1] {
        scene.tower_has_the_newest(number).await;
    }
    alone.kill();
    scene.car_pays(23_456).await;
    scene.tower_has_the_newest(1).await;
    let dead = scene.tower(0, |tower| tower.state == "behind").await;
    assert_eq!(dead.updates_behind, 1);
    let listed = poll("the daemon to notice", || async {
        let listed = scene.charger.client().towers().await.unwrap();
        (!listed[0].connected).then_some(listed)
    })
    .await;
    assert_eq!((listed[0].newest, listed[0].behind, listed[1].newest, listed[1].behind), (0, 1, 1, 0));
    assert!(listed[1].connected && listed[1].answered_ms.is_some(), "{listed:?}");

    let record = scene.record().await;
    let Scene { mut charger, .. } = scene;
    charger.kill();
    let mut scene = Scene { charger, ..scene };
    scene.car_closes_with(None).await;
    assert_eq!(scene.paid_out(record).await, [DEPOSIT - 123_456, DEPOSIT + 123_456]);
    assert_eq!(scene.kinds().await, ["claim", "open", "unilateral_close"]);
    // The charger finds its money when it is back.
    scene.charger.start().await;
    let closed = scene.charger.wait(scene.channel, "closed", |info| info.state == "closed").await;
    assert_eq!(closed.payout, Some(Amount::new(DEPOSIT + 123_456)));
    scene.net.assert_supply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tower_that_was_away_catches_up_and_claims_what_began_without_it() {
    let net = Net::start().await;
    let mut tower = Tower::start(&net, "tower", &METRICS).await;
    let mut scene = Scene::set(net, &[tower.address()], 150).await;
    scene.car_pays(1_000).await;
    scene.tower_has_the_newest(0).await;
    tower.kill();
    // Nobody waits for it.
    for _ in 0..5 {
        scene.car_pays(1_000).await;
    }
    scene.tower(0, |tower| tower.state == "behind").await;
    // What it has signed is remembered.
    assert_eq!(scene.charger.stop().await.code, Some(0));
    scene.charger.start().await;
    let behind = scene.tower(0, |tower| tower.state == "behind").await;
    assert_eq!(behind.updates_behind, 5);
    tower.restart().await;
    scene.tower_has_the_newest(0).await;

    tower.kill();
    scene.charger.kill();
    let record = scene.record().await;
    scene.car_closes_with(None).await;
    scene.net.milestones(5).await;
    tower.restart().await;
    assert_eq!(scene.paid_out(record).await, [DEPOSIT - 6_000, DEPOSIT + 6_000]);
    assert_eq!(tower.metric("flash_tower_claims_total").await, 1);
    scene.net.assert_supply().await;
}

/// A tower is handed what is durable, so at any moment it may have the newest balance but one. Whoever is away for the
/// whole window gets what the tower has; whoever is back in it gets all.
#[tokio::test(flavor = "multi_thread")]
async fn a_tower_that_is_one_update_behind_claims_what_it_has_and_its_client_the_rest() {
    let net = Net::start().await;
    let mut tower = Tower::start(&net, "tower", &METRICS).await;
    let mut scene = Scene::set(net, &[tower.address()], 40).await;
    let away = scene.channel;
    let back = scene.car.open(&scene.charger, DEPOSIT / 2, 0, 90).await;
    for channel in [away, back] {
        scene.channel = channel;
        for amount in [1_000, 20_000] {
            scene.car_pays(amount).await;
        }
        scene.tower_has_the_newest(0).await;
    }
    tower.kill();
    for channel in [away, back] {
        scene.channel = channel;
        scene.car_pays(300_000).await;
        assert_eq!(scene.tower(0, |tower| tower.state == "behind").await.updates_behind, 1);
    }
    scene.charger.kill();
    scene.channel = away;
    let record = scene.record().await;
    for channel in [away, back] {
        scene.channel = channel;
        // All that the car shows of what it has paid is the oldest balance.
        scene.car_closes_with(None).await;
        scene.car_shows_its_oldest(1_000).await;
    }
    tower.restart().await;
    scene.channel = away;
    assert_eq!(scene.paid_out(record).await, [DEPOSIT - 21_000, DEPOSIT + 21_000]);
    scene.channel = back;
    assert_eq!(scene.record().await.lane_a.cumulative, Amount::new(21_000));
    scene.charger.start().await;
    let closed = scene.charger.wait(back, "closed", |info| info.state == "closed").await;
    assert_eq!(closed.payout, Some(Amount::new(321_000)));
    assert_eq!(scene.kinds().await, ["claim", "claim", "claim", "open", "unilateral_close"]);
    // What it was not claimed of the other channel is lost, and it is said.
    let lost = scene.charger.channel(away).await;
    assert_eq!(
        (lost.received.cumulative, lost.payout),
        (Amount::new(321_000), Some(Amount::new(DEPOSIT + 21_000)))
    );
    scene.net.assert_supply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_loss_of_everything_and_of_the_peer_a_tower_brings_the_money_back() {
    let net = Net::start().await;
    let tower = Tower::start(&net, "tower", &METRICS).await;
    let Scene { net, mut car, mut charger, channel } = Scene::set(net, &[tower.address()], 60).await;
    for _ in 0..3 {
        car.pay(channel, 7_000).await.expect("the car pays");
    }
    charger.wait(channel, "kept", |info| info.towers[0].state == "newest").await;
    let words = flashd::seedfile::read(&flashd::datadir::seed_path(charger.data()), || Ok(None)).unwrap();
    let (file, data) = (net.path().join("words"), net.path().join("charger-again"));
    std::fs::write(&file, words.as_bytes()).unwrap();
    charger.kill();
    car.kill();
    let arguments = ["--node", &net.node.address.to_string(), "--words", &file.to_string_lossy()];
    let charger = Daemon::init_at(data, &net.node.network(), &arguments).await;
    let mut charger = charger.with(&["--tower", &tower.address().to_string()]);
    charger.start().await;
    poll("the channel to be found", || async { charger.client().channel(channel).await.ok() }).await;
    let held = poll("the tower to be asked", || async {
        let held = charger.client().tower_held(channel).await.ok()?.pop()?;
        held.error.is_none().then_some(held)
    })
    .await;
    assert_eq!((held.update, held.paid), (Some(3), Some(Amount::new(21_000))));
    let shown = |info: &ChannelInfo| info.received.cumulative == Amount::new(21_000);
    let info = charger.wait(channel, "shown by the tower", shown).await;
    assert_eq!((info.state.as_str(), info.balance), ("recovered", None), "its own lane nobody has shown");
    let closed = charger.close_alone(channel).await;
    assert_eq!(closed.payout, closed.deposit.checked_add(Amount::new(21_000)), "what it locked and was paid");
}

fn code(response: &TowerResponse) -> Option<TowerRefusalCode> {
    match response {
        TowerResponse::Refused(refusal) => Some(refusal.code),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tower_takes_only_newer_balances_of_its_own_clients() {
    let net = Net::start().await;
    let tower = Tower::start(&net, "tower", &METRICS).await;
    let scene = Scene::set(net, &[], 60).await;
    let (payer, receiver) = (scene.key(Side::A).await, scene.key(Side::B).await);
    let network = scene.net.params().id();
    let [machine, stranger] = [SecretKey::from_bytes([1; 32]), SecretKey::from_bytes([2; 32])];
    let permit = |key: &SecretKey, machine: &SecretKey| {
        key.sign(&client_hash(network, scene.channel, Side::A, &machine.public()))
    };
    let balance = |channel, seq, total, key: &SecretKey| {
        let state = LaneState { seq, cumulative: Amount::new(total), ..LaneState::new(channel, Side::A) };
        Claimable { balance: state.sign(network, key), ticks: None }
    };
    let keep = |newest, permit| TowerRequest::Keep { newest: Box::new(newest), permit };
    let own = TowerClient::connect(&tower.address(), &machine).await;
    let (newest, older) = (balance(scene.channel, 5, 500, &payer), balance(scene.channel, 4, 400, &payer));
    let permitted = permit(&receiver, &machine);
    for (refused, request) in [
        (TowerRefusalCode::UnknownChannel, keep(balance(ChannelId::new([7; 32]), 5, 500, &payer), permitted)),
        (TowerRefusalCode::Signature, keep(balance(scene.channel, 5, 500, &receiver), permitted)),
        (TowerRefusalCode::NotThePayee, keep(newest, permit(&payer, &machine))),
        (TowerRefusalCode::NotThePayee, keep(newest, permit(&receiver, &stranger))),
    ] {
        assert_eq!(code(&own.ask(&request).await), Some(refused), "{request:?}");
    }
    assert_eq!(tower.metric("flash_tower_lanes").await, 0);
    let TowerResponse::Holds(signature) = own.ask(&keep(newest, permitted)).await else {
        panic!("it is taken")
    };
    assert!(TowerReceipt { held: newest, signature }.verify(network, &tower.address().key));
    assert_eq!(own.ask(&keep(older, permitted)).await, TowerResponse::Newer(Box::new(newest)));

    let show = |permit| TowerRequest::Show { channel: scene.channel, payer: Side::A, permit };
    let none = Signature::new([0; 64]);
    assert_eq!(own.ask(&show(none)).await, TowerResponse::Shown(Some(Box::new(newest))));
    let other = TowerClient::connect(&tower.address(), &stranger).await;
    for request in [show(permitted), show(none), keep(balance(scene.channel, 6, 600, &payer), permitted)] {
        assert_eq!(code(&other.ask(&request).await), Some(TowerRefusalCode::NotThePayee), "{request:?}");
    }
    // What is no request is refused, and the connection goes on.
    for bytes in [
        vec![0, 0, 0, 0],
        vec![1, 0, 0, 0, 9],
        vec![255; 8],
        [&2000_u32.to_le_bytes()[..], &[0; 99]].concat(),
    ] {
        assert_eq!(code(&other.say(&bytes).await), Some(TowerRefusalCode::Malformed), "{bytes:?}");
    }
    // A new connection of the same machine takes the place of the old one.
    let again = TowerClient::connect(&tower.address(), &machine).await;
    assert!(matches!(again.ask(&show(none)).await, TowerResponse::Shown(Some(_))));
    assert_eq!((tower.metric("flash_tower_lanes").await, tower.metric("flash_tower_clients").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tower_can_be_for_named_machines_only() {
    let net = Net::start().await;
    let [machine, stranger] = [SecretKey::from_bytes([1; 32]), SecretKey::from_bytes([2; 32])];
    let tower = Tower::start(&net, "tower", &["--client", &machine.public().to_string()]).await;
    let show = TowerRequest::Show {
        channel: ChannelId::new([7; 32]),
        payer: Side::A,
        permit: Signature::new([0; 64]),
    };
    let own = TowerClient::connect(&tower.address(), &machine).await;
    assert_eq!(own.ask(&show).await, TowerResponse::Shown(None));
    let other = TowerClient::connect(&tower.address(), &stranger).await;
    assert_eq!(code(&other.ask(&show).await), Some(TowerRefusalCode::NotAClient));
}

/// Answers every balance with a signature of another key.
async fn lie(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(connection) = incoming.await else { continue };
        tokio::spawn(async move {
            while let Ok((send, receive)) = connection.accept_bi().await {
                let mut reader = FrameReader::new(receive, TOWER_FRAME_BYTES_MAX);
                let Ok(Some(_)) = reader.message::<TowerRequest, TOWER_FRAME_BYTES_MAX>().await else {
                    return;
                };
                let mut writer = FrameWriter::new(send, TOWER_FRAME_BYTES_MAX);
                let _ = writer.send(&TowerResponse::Holds(Signature::new([7; 64]))).await;
                let _ = writer.finish().await;
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tower_that_lies_only_shows() {
    let net = Net::start().await;
    let key = SecretKey::from_bytes([3; 32]);
    let limits = StreamLimits { bidirectional: 32 };
    let endpoint = Endpoint::listen(&key, TOWER_ALPN, "127.0.0.1:0".parse().unwrap(), limits).unwrap();
    let port = endpoint.local_address().unwrap().port();
    let liar = PeerAddress::new(key.public(), "127.0.0.1", port).unwrap();
    let lying = tokio::spawn(lie(endpoint));
    let scene = Scene::set(net, &[liar], 60).await;
    for _ in 0..3 {
        scene.car_pays(1_000).await;
    }
    let standing = scene.tower(0, |tower| tower.error.is_some()).await;
    assert_eq!(standing.state, "never");
    assert!(standing.error.as_ref().is_some_and(|error| error.contains("not the tower's")), "{standing:?}");
    scene.car_pays(1_000).await;
    let closed = scene.charger.close(scene.channel).await;
    assert_eq!(closed.payout, Some(Amount::new(DEPOSIT + 4_000)));
    lying.abort();
}
