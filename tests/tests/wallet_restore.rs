//! The words of a seed bring the money and the channels back; no address and no channel key is used twice; several
//! outputs pay together.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    process::Command,
};

use flash_node_client::{client::TransactionStatus, wallet::Account};
use flash_proto::{Action, Address, Amount, ChannelId, Payload, PublicKey, Transaction, TransactionId};
use flash_tests::{Daemon, Net, binary, run, until};
use flashd::api::{ChannelInfo, CloseRequest, ErrorCode, PeerRequest, RecoverRequest, SendRequest};

const MI: u64 = 1_000_000;

async fn address(daemon: &Daemon) -> Address {
    daemon.client().new_address().await.expect("an address").address
}

/// Everything is applied: what can be spent is all there is.
async fn settled(daemon: &Daemon) -> Amount {
    until("nothing to be reserved", || async {
        daemon.client().balance().await.is_ok_and(|balance| balance.reserved.is_zero())
    })
    .await;
    daemon.client().balance().await.expect("its balance").available
}

async fn has(daemon: &Daemon, money: Amount) {
    until(&format!("{} to have {money}", daemon.data().display()), || async {
        daemon.client().balance().await.is_ok_and(|balance| balance.available == money)
    })
    .await;
}

async fn send(from: &Daemon, to: Address, amount: u64) -> TransactionId {
    let sent = from.client().send(&SendRequest { to, amount: Amount::new(amount) }).await;
    sent.expect("the transfer is applied").transaction
}

/// The addresses that a daemon's wallet has given out, as far as they can matter here.
fn addresses(daemon: &Daemon) -> HashSet<Address> {
    let seed = daemon.seed();
    (0..300).map(|index| Address::of(&seed.key(Account::Money, index).public())).collect()
}

/// All transactions of a network, read block by block from the newest milestone down to the genesis.
async fn transactions(net: &Net) -> BTreeMap<TransactionId, Transaction> {
    let newest = net.client.milestone(None).await.expect("the newest milestone");
    let mut waiting = newest.essence.parents;
    let mut seen = HashSet::from([net.params().genesis_block()]);
    let mut found = BTreeMap::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        let block = net.client.block(id).await.expect("the node answers").expect("the node keeps it");
        waiting.extend(block.parents);
        if let Payload::Transaction(transaction) = block.payload {
            found.insert(transaction.id(), *transaction);
        }
    }
    found
}

/// Where a transaction puts money, at once or when the channel that it opens is closed.
fn receivers(transaction: &Transaction) -> Vec<Address> {
    let outputs = transaction.essence.outputs.iter().map(|output| output.address);
    let payouts = match &transaction.essence.action {
        Action::Open(open) => vec![open.party_a.payout, open.party_b.payout],
        _ => Vec::new(),
    };
    outputs.chain(payouts).collect()
}

/// The same daemon after its data directory was lost: made from the words of its seed, on an empty disk.
async fn restored(net: &Net, mut daemon: Daemon) -> Daemon {
    let words = flashd::seedfile::read(&flashd::datadir::seed_path(daemon.data()), || Ok(None)).unwrap();
    let file = net.path().join("words");
    fs::write(&file, words.as_bytes()).unwrap();
    daemon.kill();
    fs::remove_dir_all(daemon.data()).unwrap();
    let mut init = Command::new(binary("flash"));
    init.arg("init").arg("--data").arg(daemon.data()).arg("--network").arg(net.node.network());
    init.args(["--node", &net.node.address.to_string()]).arg("--words").arg(&file);
    let ended = run(init).await;
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    let mut daemon = Daemon::at(daemon.data().to_owned());
    daemon.start().await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn the_words_alone_bring_all_money_back() {
    let net = Net::start().await;
    let (car, charger) =
        tokio::join!(net.daemon("car", Amount::new(9 * MI)), net.daemon("charger", Amount::new(9 * MI)));
    // Money at an address that was received at, in change, in the payouts of two channels, and in one that is
    // still open.
    net.fund(address(&car).await, Amount::new(2 * MI)).await;
    has(&car, Amount::new(11 * MI)).await;
    send(&car, address(&charger).await, MI).await;
    for _ in 0..2 {
        let channel = car.open(&charger, MI, 0, 6).await;
        car.pay(channel, 1_000).await.expect("the car pays");
        car.close(channel).await;
    }
    let open = car.open(&charger, MI, 0, 6).await;
    car.pay(open, 5_000).await.expect("the car pays");
    has(&car, Amount::new(9 * MI - 2_000)).await;
    let before = settled(&car).await;
    let used: HashSet<Address> = transactions(&net).await.values().flat_map(receivers).collect();

    let car = restored(&net, car).await;
    // What lies within the gap is found without a word; the rest of the addresses is told.
    has(&car, before).await;
    let recovered = car.client().recover(RecoverRequest { addresses: 100 }).await.expect("it looks");
    assert_eq!(recovered.balance.available, before);
    let ids = |channels: Vec<ChannelInfo>| channels.into_iter().map(|channel| channel.id).collect::<Vec<_>>();
    assert_eq!(ids(recovered.channels), [open]);
    assert_eq!(ids(car.client().channels(true).await.unwrap()), [open], "closed ones have left the ledger");

    // The channel that was open pays out once the peer closes it: the payout's address is of the words.
    let closed = charger.close_alone(open).await;
    assert_eq!(closed.peer_payout, Some(Amount::new(MI - 5_000)), "{closed:?}");
    let after = before.checked_add(Amount::new(MI - 5_000)).unwrap();
    has(&car, after).await;
    let seen = car.wait(open, "closed", |info| info.state == "closed").await;
    assert_eq!((seen.recovered, seen.payout), (true, closed.peer_payout));
    // The money is the car's to spend, and its addresses are new ones.
    let fresh = address(&car).await;
    assert!(!used.contains(&fresh), "{fresh} was used before");
    send(&car, address(&charger).await, 8 * MI).await;
    has(&car, after.checked_sub(Amount::new(8 * MI)).unwrap()).await;
    net.assert_supply().await;
}

/// The keys that were ever parties of channels.
async fn parties(net: &Net) -> HashSet<PublicKey> {
    let keys = |transaction: Transaction| match transaction.essence.action {
        Action::Open(open) => vec![open.party_a.key, open.party_b.key],
        _ => Vec::new(),
    };
    transactions(net).await.into_values().flat_map(keys).collect()
}

/// Nothing can be done with a channel whose balances are not known but to wait for the peer.
async fn assert_untouchable(daemon: &Daemon, channel: ChannelId) {
    let info = daemon.wait(channel, "recovered", |info| info.state == "recovered").await;
    assert_eq!((info.balance, info.peer_balance, info.recovered), (None, None, true), "{info:?}");
    assert!(info.paused.is_some() && !info.connected, "{info:?}");
    let refused = daemon.pay(channel, 1).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::ChannelState, "{refused:?}");
    let refused = daemon.client().close(channel, CloseRequest { force: true }, false).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::ChannelState, "{refused:?}");
}

async fn meet(daemon: &Daemon, channel: ChannelId, peer: &Daemon) {
    let request = PeerRequest { peer: peer.ticket().await };
    daemon.client().meet(channel, &request).await.expect("the peer can be named");
    daemon.wait(channel, "shown by the peer", |info| info.balance.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payer_that_lost_everything_closes_its_channel_with_the_peer() {
    let net = Net::start().await;
    let (car, charger) =
        tokio::join!(net.daemon("car", Amount::new(9 * MI)), net.daemon("charger", Amount::new(9 * MI)));
    let first = car.open(&charger, MI, 0, 60).await;
    car.close(first).await;
    let open = car.open(&charger, MI, MI, 60).await;
    let last = car.open(&charger, MI, 0, 60).await;
    car.close(last).await;
    car.pay(open, 7_000).await.expect("the car pays");
    charger.pay(open, 2_000).await.expect("the charger pays");
    has(&car, Amount::new(8 * MI)).await;
    let (used, keys) =
        (transactions(&net).await.values().flat_map(receivers).collect::<HashSet<_>>(), parties(&net).await);

    // Nothing but the words, and nobody asks it to look for anything.
    let car = restored(&net, car).await;
    assert_untouchable(&car, open).await;
    has(&car, Amount::new(8 * MI)).await;
    meet(&car, open, &charger).await;
    let info = car.channel(open).await;
    assert_eq!(
        (info.balance, info.peer_balance),
        (Some(Amount::new(MI - 5_000)), Some(Amount::new(MI + 5_000)))
    );
    assert_eq!(car.pay(open, 1).await.unwrap_err().code, ErrorCode::ChannelState, "it can only be closed");
    let closed = car.close(open).await;
    assert_eq!((closed.payout, closed.peer_payout), (info.balance, info.peer_balance));
    has(&car, Amount::new(9 * MI - 5_000)).await;

    // A new channel has a key and addresses that were never used.
    let new = car.open(&charger, MI, 0, 60).await;
    let record = net.client.channel(new).await.unwrap().value.expect("it is open");
    assert!(!keys.contains(&record.party_a.key), "{} was used before", record.party_a.key);
    assert!(!used.contains(&record.party_a.payout), "{} was used before", record.party_a.payout);
    net.assert_supply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payee_that_lost_everything_gets_what_it_was_paid() {
    let net = Net::start().await;
    let (car, charger) =
        tokio::join!(net.daemon("car", Amount::new(9 * MI)), net.daemon("charger", Amount::ZERO));
    let open = car.open(&charger, MI, 0, 60).await;
    car.pay(open, 7_000).await.expect("the car pays");
    charger.pay(open, 2_000).await.expect("the charger pays");
    let charger = restored(&net, charger).await;
    assert_untouchable(&charger, open).await;
    meet(&charger, open, &car).await;
    // The peer alone closes nothing.
    car.client().close(open, CloseRequest { force: false }, false).await.expect("the car may wish to");
    net.milestones(2).await;
    assert_eq!(charger.channel(open).await.state, "recovered");
    let closed = charger.close(open).await;
    assert_eq!(
        (closed.payout, closed.peer_payout),
        (Some(Amount::new(5_000)), Some(Amount::new(MI - 5_000)))
    );
    has(&charger, Amount::new(5_000)).await;
    net.assert_supply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_address_is_used_twice() {
    let net = Net::start().await;
    let (car, charger) =
        tokio::join!(net.daemon("car", Amount::new(9 * MI)), net.daemon("charger", Amount::new(9 * MI)));
    for round in 0..3 {
        net.fund(address(&car).await, Amount::new(MI)).await;
        send(&car, address(&charger).await, 100_000).await;
        send(&charger, address(&car).await, 200_000).await;
        let channel = car.open(&charger, MI, MI, 6).await;
        car.pay(channel, 1_000).await.expect("the car pays");
        charger.pay(channel, 2_000).await.expect("the charger pays");
        if round == 1 {
            charger.close_alone(channel).await;
        } else {
            car.close(channel).await;
        }
        for daemon in [&car, &charger] {
            settled(daemon).await;
        }
    }
    net.milestones(1).await;
    let transactions = transactions(&net).await;
    for daemon in [&car, &charger] {
        let own = addresses(daemon);
        let mut used: HashMap<Address, usize> = HashMap::new();
        for receiver in transactions.values().flat_map(receivers).filter(|address| own.contains(address)) {
            *used.entry(receiver).or_default() += 1;
        }
        let name = daemon.data().display();
        // In each round: one received, one change of a transfer, one change and one payout of a channel.
        assert!(used.len() >= 12, "{name}: only {} addresses were used", used.len());
        let twice: Vec<_> = used.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "{name}: {twice:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_outputs_are_joined_in_one_payment() {
    let net = Net::start().await;
    let car = net.daemon("car", Amount::ZERO).await;
    for _ in 0..5 {
        net.fund(address(&car).await, Amount::new(400_000)).await;
    }
    has(&car, Amount::new(5 * 400_000)).await;
    let to = address(&car).await;
    let sent = send(&car, to, 1_900_000).await;
    let status = net.client.transaction(sent).await.expect("the node answers");
    let TransactionStatus::Applied { transaction, .. } = status else { panic!("{status:?}") };
    assert_eq!(transaction.essence.inputs.len(), 5);
    let paid = net.client.outputs_of(&[to]).await.expect("the node answers").value;
    assert!(matches!(paid.as_slice(), [(_, output)] if output.amount == Amount::new(1_900_000)), "{paid:?}");
    net.assert_supply().await;
}
