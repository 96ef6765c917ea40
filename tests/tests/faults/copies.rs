//! Old copies of a data directory, copies that run twice, and directories of others.

use std::{
    fs,
    path::{Path, PathBuf},
};

use flash_proto::{
    Amount, ChannelId, Claim, SignedBalance,
    message::{ChannelMessage, Reestablish, StreamStart, Update},
};
use flash_tests::{Daemon, Net, STAKES, ScriptedPeer, Stream, copy, poll, rounds, run};
use flashd::api::PayRequest;

const DEPOSIT: u64 = 1_000_000;

/// Stops a daemon in order, copies its directory and starts it again.
async fn copy_of(net: &Net, daemon: &mut Daemon, name: &str) -> PathBuf {
    assert_eq!(daemon.stop().await.code, Some(0));
    let to = net.path().join(name);
    copy(daemon.data(), &to);
    daemon.start().await;
    to
}

/// Kills a daemon and starts it with an old copy of its directory in place of the newest.
async fn restore(daemon: &mut Daemon, from: &Path) {
    daemon.kill();
    fs::remove_dir_all(daemon.data()).unwrap();
    copy(from, daemon.data());
    daemon.start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_learns_from_an_honest_peer_what_it_has_forgotten() {
    let net = Net::start().await;
    let money = Amount::new(2 * DEPOSIT);
    let (mut car, mut charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", money));
    let channel = car.open(&charger, DEPOSIT, DEPOSIT, 400).await;
    for (behind, restores_car) in
        [(1, false), (1, true), (rounds(150, 1_000), false), (rounds(150, 1_000), true)]
    {
        car.agree(&charger, channel).await;
        let old = net.path().join(format!("old-{behind}-{restores_car}"));
        let daemon = if restores_car { &mut car } else { &mut charger };
        let name = old.file_name().unwrap().to_str().unwrap();
        copy_of(&net, daemon, name).await;
        for side in [&car, &charger] {
            side.wait(channel, "in use", |info| info.connected && info.paused.is_none()).await;
        }
        // Each is an update of its own, as it is acknowledged before the next.
        for _ in 0..behind {
            car.pay(channel, 10).await.expect("the car pays");
            charger.pay(channel, 3).await.expect("the charger pays");
        }
        let before = (car.channel(channel).await, charger.channel(channel).await);
        let daemon = if restores_car { &mut car } else { &mut charger };
        restore(daemon, &old).await;
        for (side, before) in [(&car, &before.0), (&charger, &before.1)] {
            let same = |info: &flashd::api::ChannelInfo| info.connected && info.balance == before.balance;
            let after = side.wait(channel, "as before", same).await;
            assert_eq!(after.sent.cumulative, before.sent.cumulative);
            assert_eq!(after.received.cumulative, before.received.cumulative);
        }
        let restored = if restores_car { &car } else { &charger };
        let kinds = restored.event_kinds().await;
        for wanted in ["records_old", "balance_recovered"] {
            assert!(kinds.iter().any(|kind| kind == wanted), "{behind}: {wanted} in {kinds:?}");
        }
        assert_eq!(restored.channel(channel).await.state, "recovered");
        // The operator knows that the peer is honest, and does not wait.
        restored.client().trust(channel).await.expect("it is in doubt");
    }
    car.agree(&charger, channel).await;
    let balance = car.channel(channel).await.balance;
    assert_eq!(car.close(channel).await.payout, balance);
    net.assert_supply().await;
}

/// The balance that an update of the daemon leads to.
fn after(balance: Option<SignedBalance>, channel: ChannelId, update: &Update) -> SignedBalance {
    let before = balance.map_or(flash_proto::LaneState::new(channel, flash_proto::Side::B), |it| it.state);
    let state = before.advance(&update.payments).expect("a next state");
    assert_eq!((state.seq, state.cumulative), (update.seq, update.cumulative));
    SignedBalance { state, signature: update.signature }
}

async fn next_update(stream: &mut Stream) -> Update {
    loop {
        if let ChannelMessage::Update(update) = stream.next().await.expect("an update") {
            return update;
        }
    }
}

/// Has the daemon pay the peer, who acknowledges. Gives back the daemon's balance after it.
async fn paid_by_daemon(
    daemon: &Daemon,
    stream: &mut Stream,
    channel: ChannelId,
    before: Option<SignedBalance>,
    amount: u64,
) -> SignedBalance {
    let client = daemon.client().clone();
    let request = PayRequest { amount: Amount::new(amount), reference: None, key: None };
    let paying = tokio::spawn(async move { client.pay(channel, &request).await });
    let update = next_update(stream).await;
    let balance = after(before, channel, &update);
    stream.say(&ChannelMessage::Ack { seq: balance.state.seq }).await;
    paying.await.expect("the call ends").expect("it is acknowledged");
    balance
}

/// A stream on which both sides have said where they stand.
async fn standing(
    peer: &ScriptedPeer,
    channel: ChannelId,
    signed: Option<SignedBalance>,
    held: Option<SignedBalance>,
) -> Stream {
    let standing = Reestablish { signed, signed_ticks: None, held, held_ticks: None, stakes: STAKES };
    let mut stream = peer.greet().await.stream(&StreamStart::Channel(channel)).await;
    stream.say(&ChannelMessage::Reestablish(Box::new(standing))).await;
    let theirs: ChannelMessage = stream.next().await.expect("where it stands");
    assert!(matches!(theirs, ChannelMessage::Reestablish(_)), "{theirs:?}");
    stream
}

/// The bound of `docs/safety.md`, claim 8: of what it paid, the daemon loses no more than the largest total that
/// it ever signed; of what it was paid, only what the lost records alone proved.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_loses_to_a_lying_peer_only_what_its_records_proved() {
    let net = Net::start().await;
    let mut charger = net.daemon("charger", Amount::ZERO).await;
    let peer = ScriptedPeer::new(&net, &charger.ticket().await);
    let channel = peer.open(&net, Amount::new(DEPOSIT)).await;
    charger.wait(channel, "open", |info| info.state == "open").await;
    let mut stream = peer.greet().await.channel(channel, None).await;
    let (update, peers_first) = peer.update(peer.lane(channel), &[500]);
    stream.say(&ChannelMessage::Update(update)).await;
    stream.acknowledged(1).await;
    let own_first = paid_by_daemon(&charger, &mut stream, channel, None, 100).await;

    let old = copy_of(&net, &mut charger, "charger-before").await;
    let mut stream = standing(&peer, channel, Some(peers_first), Some(own_first)).await;
    charger.wait(channel, "in use", |info| info.connected && info.paused.is_none()).await;
    let (update, _) = peer.update(peers_first.state, &[200]);
    stream.say(&ChannelMessage::Update(update)).await;
    stream.acknowledged(2).await;
    let own_second = paid_by_daemon(&charger, &mut stream, channel, Some(own_first), 50).await;
    assert_eq!(charger.channel(channel).await.balance, Some(Amount::new(550)));

    restore(&mut charger, &old).await;
    // The operator is wrong about the copy, and the peer shows neither what it paid since then nor what it holds.
    charger.client().trust(channel).await.expect("it is in doubt");
    let mut stream = standing(&peer, channel, Some(peers_first), None).await;
    charger.wait(channel, "in use", |info| info.connected && info.paused.is_none()).await;
    let (update, _) = peer.update(peers_first.state, &[30]);
    stream.say(&ChannelMessage::Update(update)).await;
    stream.acknowledged(2).await;
    let lied_to = paid_by_daemon(&charger, &mut stream, channel, Some(own_first), 20).await;
    assert_eq!(lied_to.state.seq, own_second.state.seq, "two bodies under one number, as claim 8 says");
    assert_eq!(charger.channel(channel).await.balance, Some(Amount::new(410)));

    // What it held back it can show now: the ledger counts the higher of the two, not both.
    let close = flash_proto::transaction::UnilateralClose {
        channel,
        closer: flash_proto::Side::A,
        balance: Some(Claim::of(own_second.state)),
    };
    let record = net.client.channel(channel).await.expect("the node answers").value.expect("it is open");
    let proof = flash_proto::Unlock { key: record.party_b.key, signature: own_second.signature };
    let essence =
        flash_proto::Essence::acting(net.params().id(), flash_proto::Action::UnilateralClose(close));
    let unlocks = vec![essence.unlock(&peer.key), proof];
    let transaction = flash_proto::Transaction { essence, unlocks };
    net.client.submit_and_wait(transaction, None).await.expect("the close is applied");
    let closed = charger.wait(channel, "closed", |info| info.state == "closed").await;
    assert_eq!(closed.payout, Some(Amount::new(530 - 150)), "{closed:?}");
    net.assert_supply().await;
}

/// Somebody restores a copy on another machine and forgets that the first one runs.
#[tokio::test(flavor = "multi_thread")]
async fn one_identity_on_two_machines_loses_nothing_that_was_acknowledged() {
    let net = Net::start().await;
    let money = Amount::new(2 * DEPOSIT);
    let (mut car, charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", money));
    let channel = car.open(&charger, DEPOSIT, DEPOSIT, 12).await;
    car.agree(&charger, channel).await;
    let mut twin = Daemon::at(copy_of(&net, &mut car, "twin").await);
    car.agree(&charger, channel).await;
    twin.start().await;
    let before = charger.channel(channel).await;

    let mut acknowledged = 0;
    for trusted in [false, true] {
        if trusted {
            // Somebody tells both that theirs are the newest records; one of them cannot be in doubt at all.
            for machine in [&car, &twin] {
                let _ = machine.client().trust(channel).await;
            }
        }
        for amount in 1..=rounds(4, 100) {
            for machine in [&car, &twin] {
                // The peer talks to one of the two at a time; whom the other asks it cannot know.
                let paid = machine.pay(channel, amount);
                if let Ok(Ok(_)) = tokio::time::timeout(std::time::Duration::from_secs(1), paid).await {
                    acknowledged += amount;
                }
            }
        }
    }
    println!("{acknowledged} acknowledged by the two together");
    let mut warned = twin.event_kinds().await;
    warned.extend(car.event_kinds().await);
    assert!(warned.iter().any(|kind| kind == "records_old"), "somebody is told: {warned:?}");
    let counted =
        charger.channel(channel).await.received.cumulative.units() - before.received.cumulative.units();
    assert!(counted >= acknowledged, "I4: {acknowledged} acknowledged, {counted} counted");
    twin.kill();
    let paid_back = charger.channel(channel).await.sent.cumulative;
    // The ledger ends it, whatever the two have signed against each other.
    let closed = charger.close_alone(channel).await;
    let owned = DEPOSIT - paid_back.units() + before.received.cumulative.units() + counted;
    assert!(closed.payout >= Some(Amount::new(owned)), "{owned} at least: {closed:?}");
    car.wait(channel, "closed", |info| info.state == "closed").await;
    net.assert_supply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_the_records_of_another_identity_is_refused() {
    let net = Net::start().await;
    let (mut car, mut charger) =
        tokio::join!(net.daemon("car", Amount::ZERO), net.daemon("charger", Amount::ZERO));
    for daemon in [&mut car, &mut charger] {
        assert_eq!(daemon.stop().await.code, Some(0));
    }
    let kept = car.data().with_extension("kept");
    fs::rename(car.data().join("store"), &kept).unwrap();
    copy(&charger.data().join("store"), &car.data().join("store"));
    let ended = run(car.command()).await;
    assert_eq!(ended.code, Some(4), "{}", ended.output);
    assert!(ended.output.contains("belongs to"), "{}", ended.output);
    fs::remove_dir_all(car.data().join("store")).unwrap();
    fs::rename(&kept, car.data().join("store")).unwrap();
    car.start().await;
    poll("it to answer", || async { car.client().info().await.ok() }).await;
}
