//! The backup brings a daemon back with its channels and their peers; an old data directory, or two of one seed, are
//! noticed, and nobody loses more than is documented.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use flash_proto::{Amount, ChannelId, Side, SignedBalance, message::ChannelMessage};
use flash_tests::{Daemon, Ended, Net, NetOptions, ScriptedPeer, binary, copy, run, until};
use flashd::{
    api::{ChannelInfo, CloseRequest, ErrorCode},
    exit::Exit,
};
use serde_json::Value;

const MI: u64 = 1_000_000;
const WINDOW: u32 = 40;

/// Milestones come fast, as a daemon in doubt counts them until it pays again.
async fn network() -> Net {
    Net::with(NetOptions { milestone_ms: 100, ..NetOptions::default() }).await
}

/// The data directory as it is now is put back by `put_back`.
fn keep_copy(daemon: &Daemon) -> PathBuf {
    let copied = daemon.data().with_extension("copy");
    copy(daemon.data(), &copied);
    copied
}

fn put_back(daemon: &Daemon, copied: &Path) {
    fs::remove_dir_all(daemon.data()).unwrap();
    copy(copied, daemon.data());
}

fn words(net: &Net, daemon: &Daemon) -> PathBuf {
    let words = flashd::seedfile::read(&flashd::datadir::seed_path(daemon.data()), || Ok(None)).unwrap();
    let file = net.path().join("words");
    fs::write(&file, words.as_bytes()).unwrap();
    file
}

async fn backup(command: &str, file: &Path, data: &Path, arguments: &[&str]) -> Ended {
    let mut flash = Command::new(binary("flash"));
    flash.args(["--json", "backup", command]).arg(file).arg("--data").arg(data).args(arguments);
    run(flash).await
}

/// Opens a channel between a new car, which keeps a backup, and a new charger; the car is A.
async fn connected(net: &Net, arguments: &[&str]) -> (Daemon, Daemon, ChannelId) {
    let car = Daemon::init(net, "car").await.with(arguments);
    let (car, charger) = tokio::join!(
        net.run_with_money(car, Amount::new(9 * MI)),
        net.daemon("charger", Amount::new(9 * MI))
    );
    let channel = car.open(&charger, MI, MI, WINDOW).await;
    (car, charger, channel)
}

async fn in_the_backup(daemon: &Daemon) {
    until("the backup to be current", || async {
        daemon.client().info().await.is_ok_and(|info| info.backup.is_some_and(|backup| backup.current))
    })
    .await;
}

fn balances(info: &ChannelInfo) -> (Option<u64>, Option<u64>) {
    (info.balance.map(Amount::units), info.peer_balance.map(Amount::units))
}

/// The daemon is in doubt, learns what it has from its peer, and pays again when its time has come.
async fn recovers(daemon: &Daemon, peer: &Daemon, channel: ChannelId) {
    let shown = daemon.wait(channel, "shown by the peer", |info| info.balance.is_some()).await;
    assert!(shown.recovered && shown.state == "recovered", "{shown:?}");
    let theirs = peer.channel(channel).await;
    assert_eq!(balances(&shown), (theirs.peer_balance.map(Amount::units), theirs.balance.map(Amount::units)));
    let refused = daemon.pay(channel, 1).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::ChannelState, "{refused:?}");
    daemon.wait(channel, "in use again", |info| info.state == "open" && info.connected).await;
    daemon.pay(channel, 10).await.expect("it pays again");
    peer.pay(channel, 20).await.expect("it is paid again");
    let (ours, theirs) = (daemon.channel(channel).await, peer.channel(channel).await);
    assert_eq!((ours.balance, ours.peer_balance), (theirs.peer_balance, theirs.balance));
    assert_eq!(balances(&ours).0, balances(&shown).0.map(|balance| balance + 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn words_and_backup_bring_a_daemon_back_with_its_peers() {
    let net = network().await;
    let file = net.path().join("second.backup");
    let name = file.display().to_string();
    let (mut car, charger, channel) = connected(&net, &["--backup", &name]).await;
    car.pay(channel, 7_000).await.expect("the car pays");
    charger.pay(channel, 2_000).await.expect("the charger pays");
    in_the_backup(&car).await;
    let words = words(&net, &car).display().to_string();
    let verified = backup("verify", &file, car.data(), &[]).await;
    assert_eq!(verified.code, Some(0), "{}", verified.output);
    car.kill();
    fs::remove_dir_all(car.data()).unwrap();

    let node = net.node.address.to_string();
    let restore = ["--words", &words, "--node", &node];
    let no_words = backup("restore", &file, car.data(), &[]).await;
    assert_eq!(no_words.code, Some(2), "{}", no_words.output);
    let other = net.path().join("other-words");
    let zoo = "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong";
    fs::write(&other, zoo).unwrap();
    let wrong = backup("restore", &file, car.data(), &["--words", &other.display().to_string()]).await;
    assert_eq!(wrong.code, Some(i32::from(Exit::Usage.code())), "{}", wrong.output);
    assert!(wrong.output.contains("another seed"), "{}", wrong.output);
    let damaged = net.path().join("damaged.backup");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let refused = backup("restore", &damaged, car.data(), &restore).await;
    assert_eq!(refused.code, Some(i32::from(Exit::DataDirUnusable.code())), "{}", refused.output);
    assert!(refused.output.contains("damaged") && !car.data().exists(), "{}", refused.output);

    let restored = backup("restore", &file, car.data(), &restore).await;
    assert_eq!(restored.code, Some(0), "{}", restored.output);
    let again = backup("restore", &file, car.data(), &restore).await;
    assert_eq!(again.code, Some(i32::from(Exit::DataDirUnusable.code())), "{}", again.output);

    // Nobody says who the peer is.
    let mut car = Daemon::at(car.data().to_owned()).with(&["--backup", &name]);
    car.start().await;
    recovers(&car, &charger, channel).await;
    assert_eq!(balances(&charger.channel(channel).await), (Some(MI + 5_000 - 10), Some(MI - 5_000 + 10)));
    let closed = car.close(channel).await;
    assert_eq!(closed.payout, Some(Amount::new(MI - 5_000 + 10)));
    until("all of its money", || async {
        let balance = car.client().balance().await;
        balance.is_ok_and(|balance| balance.available == Amount::new(9 * MI - 5_000 + 10))
    })
    .await;
    net.assert_supply().await;
}

/// A directory that is put back, with nothing else that knows better than the peer.
async fn put_back_is_noticed(updates: u64) {
    let net = network().await;
    let (mut car, charger, channel) = connected(&net, &[]).await;
    charger.pay(channel, 500).await.expect("the charger pays");
    assert_eq!(car.stop().await.code, Some(0));
    let copied = keep_copy(&car);
    car.start().await;
    car.wait(channel, "connected", |info| info.connected).await;
    let before = car.event_kinds().await;
    assert!(!before.iter().any(|kind| kind == "records_old"), "{before:?}");
    for number in 0..updates {
        // Both have dialled, and one of the two connections gives way: a payment may find none for a moment.
        car.pay_after(ErrorCode::PeerUnreachable, channel, 3, &format!("after the copy {number}")).await;
    }
    charger.pay(channel, 40).await.expect("the charger pays");
    car.kill();
    put_back(&car, &copied);
    car.start().await;
    let kinds = car.event_kinds().await;
    assert!(kinds.iter().any(|kind| kind == "records_old"), "{kinds:?}");
    recovers(&car, &charger, channel).await;
    let sent = charger.channel(channel).await.received;
    assert_eq!(sent.cumulative, Amount::new(3 * updates + 10), "each payment counts once");
    let kinds = charger.event_kinds().await;
    assert!(!kinds.iter().any(|kind| kind == "peer_misbehaved"), "{kinds:?}");
    net.assert_supply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_put_back_one_update_old_is_harmless() {
    put_back_is_noticed(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_put_back_1000_updates_old_is_harmless() {
    put_back_is_noticed(1_000).await;
}

/// The peer pays 100, and 900 more once the directory was copied; the copy and what the peer signed.
async fn paid_twice(
    peer: &ScriptedPeer,
    charger: &mut Daemon,
    channel: ChannelId,
) -> (PathBuf, [SignedBalance; 2]) {
    charger.wait(channel, "open", |info| info.state == "open").await;
    let mut stream = peer.greet().await.channel(channel, None).await;
    let (update, first) = peer.update(peer.lane(channel), &[100]);
    stream.say(&ChannelMessage::Update(update)).await;
    stream.acknowledged(1).await;
    assert_eq!(charger.stop().await.code, Some(0));
    let copied = keep_copy(charger);
    charger.start().await;
    let mut stream = peer.greet().await.channel(channel, Some(first)).await;
    charger.wait(channel, "in use", |info| info.paused.is_none()).await;
    let (update, second) = peer.update(first.state, &[900]);
    stream.say(&ChannelMessage::Update(update)).await;
    stream.acknowledged(2).await;
    (copied, [first, second])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_put_back_takes_over_the_newer_backup_and_a_liar_gains_nothing() {
    let net = network().await;
    let file = net.path().join("second.backup");
    let charger = Daemon::init(&net, "charger").await.with(&["--backup", &file.display().to_string()]);
    let mut charger = net.run_with_money(charger, Amount::ZERO).await;
    let liar = ScriptedPeer::new(&net, &charger.ticket().await);
    let channel = liar.open(&net, Amount::new(MI)).await;
    let (copied, [first, second]) = paid_twice(&liar, &mut charger, channel).await;
    in_the_backup(&charger).await;
    charger.kill();
    let behind = backup("verify", &file, &copied, &[]).await;
    assert_eq!(behind.code, Some(0), "the backup is ahead: {}", behind.output);
    put_back(&charger, &copied);
    charger.start().await;

    // The liar shows less than it paid, wishes to close on that, and pays on from there.
    let mut stream = liar.greet().await.channel(channel, Some(first)).await;
    stream.say(&ChannelMessage::CloseRequest).await;
    let (update, _) = liar.update(first.state, &[1]);
    stream.say(&ChannelMessage::Update(update)).await;
    let answer = stream.ending().await;
    let info = charger.channel(channel).await;
    assert_eq!(info.received.cumulative, Amount::new(1_000), "{answer}: {info:?}");
    assert_eq!(info.state, "recovered", "it has signed no close: {info:?}");
    let closed = charger.close_alone(channel).await;
    assert_eq!(closed.payout, Some(second.state.cumulative));
    net.assert_supply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_liar_and_no_backup_nothing_is_signed_and_what_the_records_hold_is_kept() {
    let net = network().await;
    let mut charger = net.daemon("charger", Amount::ZERO).await;
    let liar = ScriptedPeer::new(&net, &charger.ticket().await);
    let channel = liar.open(&net, Amount::new(MI)).await;
    let (copied, _) = paid_twice(&liar, &mut charger, channel).await;
    charger.kill();
    put_back(&charger, &copied);
    charger.start().await;

    // Before the peer has shown anything nobody can make it sign.
    let refused = charger.client().close(channel, CloseRequest { force: true }, false).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::ChannelState, "{refused:?}");
    let mut stream = liar.greet().await.channel(channel, None).await;
    stream.say(&ChannelMessage::CloseRequest).await;
    net.milestones(3).await;
    let info = charger.channel(channel).await;
    assert_eq!((info.state.as_str(), info.received.cumulative), ("recovered", Amount::new(100)), "{info:?}");
    assert_eq!(info.side, Side::B);
    let closed = charger.close_alone(channel).await;
    assert_eq!(closed.payout, Some(Amount::new(100)), "what only the lost records proved is lost");
    net.assert_supply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_of_one_seed_are_noticed() {
    let net = network().await;
    let file = net.path().join("second.backup");
    let name = file.display().to_string();
    let (mut car, charger, channel) = connected(&net, &["--backup", &name]).await;
    car.pay(channel, 100).await.expect("the car pays");
    assert_eq!(car.stop().await.code, Some(0));
    let copied = keep_copy(&car);
    car.start().await;
    car.wait(channel, "connected", |info| info.connected).await;

    // On the same machine the lock of the backup is enough.
    let mut twin = Daemon::at(copied.clone()).with(&["--backup", &name]);
    let command = twin.command();
    let ended = twin.spawn(command).wait().await;
    assert_eq!(ended.code, Some(i32::from(Exit::DataDirInUse.code())), "{}", ended.output);

    // Elsewhere it is the copy that knows what it is, and signs nothing; the original goes on.
    let mut twin = Daemon::at(copied);
    twin.start().await;
    let kinds = twin.event_kinds().await;
    assert!(kinds.iter().any(|kind| kind == "records_old"), "{kinds:?}");
    assert_eq!(twin.pay(channel, 1).await.unwrap_err().code, ErrorCode::ChannelState);
    twin.kill();
    car.wait(channel, "connected again", |info| info.connected).await;
    until("the original to pay", || async { car.pay(channel, 10).await.is_ok() }).await;
    assert!(!car.channel(channel).await.recovered);
    let closed = car.close(channel).await;
    // The charger may see it a moment later.
    let seen = charger.wait(channel, "closed", |info| info.state == "closed").await;
    assert_eq!(closed.payout, seen.peer_payout);
    net.assert_supply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_with_backup_sync_is_in_the_file() {
    let net = network().await;
    let file = net.path().join("second.backup");
    let charger = Daemon::init(&net, "charger").await;
    let charger = charger.with(&["--backup", &file.display().to_string(), "--backup-sync"]);
    let (mut charger, car) =
        tokio::join!(net.run_with_money(charger, Amount::ZERO), net.daemon("car", Amount::new(9 * MI)));
    let channel = car.open(&charger, MI, 0, WINDOW).await;
    for _ in 0..20 {
        car.pay(channel, 50).await.expect("the car pays");
    }
    charger.kill();
    let verified = backup("verify", &file, charger.data(), &[]).await;
    assert_eq!(verified.code, Some(0), "{}", verified.output);
    let report: Value = serde_json::from_str(&verified.output).expect("JSON");
    assert_eq!(report["behind"], false);
    assert_eq!(report["channels"][0]["received"], "1000", "{report}");
}
