//! Proof of single payments, by the command line: out of many, by either side, with nothing else at hand.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use flash_proto::{Amount, ChannelId};
use flash_tests::{Daemon, Ended, Flow, Net, Random, binary, full, run};
use flashd::api::{ErrorCode, PayRequest};
use serde_json::Value;

/// A directory in which there is nothing.
fn nowhere(net: &Net) -> PathBuf {
    net.path().join("nowhere")
}

async fn flash(data: &Path, arguments: &[&str]) -> Ended {
    let mut command = Command::new(binary("flash"));
    command.arg("--data").arg(data).arg("--json").arg("receipt").args(arguments);
    run(command).await
}

/// Has a payment proven into a file; what is said of it.
async fn prove(daemon: &Daemon, channel: ChannelId, payment: u64, more: &[&str], file: &Path) -> Ended {
    let (channel, payment) = (channel.to_string(), payment.to_string());
    let named = [channel.as_str(), "--payment", &payment, "--out", file.to_str().unwrap()];
    flash(daemon.data(), &[&named[..], more].concat()).await
}

/// Checks a proof where there is no daemon, no network and no data directory.
async fn verify(net: &Net, file: &Path, more: &[&str]) -> Ended {
    flash(&nowhere(net), &[&["verify", file.to_str().unwrap()], more].concat()).await
}

fn report(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    serde_json::from_str(&ended.output).unwrap()
}

fn refused(ended: &Ended, code: i32, says: &str) {
    assert_eq!(ended.code, Some(code), "{}", ended.output);
    assert!(ended.output.contains(says), "should say `{says}`: {}", ended.output);
}

/// Kills a daemon and starts it again with this many updates kept.
async fn keeping(daemon: &mut Daemon, updates: &str) {
    daemon.kill();
    let mut command = daemon.command();
    command.env("FLASH_HISTORY_KEEP", updates);
    daemon.spawn(command);
    daemon.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_payment_out_of_many_is_proven_offline() {
    let count = if full() { 1_000_000 } else { 20_000 };
    let mut random = Random::new();
    let seed = random.between(0, u64::MAX);
    let net = Net::start().await;
    let mut car = net.daemon("car", Amount::new(20_000_000)).await;
    let mut charger = net.daemon("charger", Amount::ZERO).await;
    let channel = car.open(&charger, 10_000_000, 0, 100).await;
    // By its amount a payment is known again.
    let mut amounts = Random::seeded(seed);
    let amounts: Vec<u64> = (0..count).map(|_| amounts.between(1, 9)).collect();
    let paid = Flow { count, amount_max: 9 }.pay(car.client(), channel, Random::seeded(seed)).await;
    assert_eq!((paid.payments, paid.refused), (count, 0));
    let marked = PayRequest { amount: Amount::new(77), reference: Some("session 1".to_owned()), key: None };
    assert_eq!(car.client().pay(channel, &marked).await.unwrap().number, count + 1);
    let updates = car.channel(channel).await.sent.updates;
    println!("{}", serde_json::json!({ "payments": count + 1, "updates": updates }));

    let mut chosen = vec![1, count];
    chosen.extend((0..8).map(|_| random.between(1, count)));
    for (at, payment) in chosen.into_iter().enumerate() {
        let file = net.path().join(format!("{at}.json"));
        let said = report(&prove(&car, channel, payment, &[], &file).await);
        assert_eq!(report(&verify(&net, &file, &[]).await), said);
        assert_eq!(
            said["amount"],
            amounts[usize::try_from(payment - 1).unwrap()].to_string(),
            "{payment}: {said}"
        );
        assert_eq!((&said["signed_by"], &said["payment"]), (&"payee".into(), &payment.to_string().into()));
        let file = net.path().join(format!("{at}.received.json"));
        let theirs = report(&prove(&charger, channel, payment, &["--received"], &file).await);
        assert_eq!((&theirs["amount"], &theirs["signed_by"]), (&said["amount"], &"payer".into()));
        assert_eq!(report(&verify(&net, &file, &[]).await), theirs);
    }
    let last = net.path().join("last.json");
    let said = report(&prove(&car, channel, count + 1, &[], &last).await);
    assert_eq!((&said["amount"], &said["reference"]), (&"77".into(), &"session 1".into()));
    let keys = [said["payee_key"].as_str().unwrap(), said["payer_key"].as_str().unwrap()];
    let id = channel.to_string();
    report(&verify(&net, &last, &["--channel", &id, "--payee", keys[0], "--payer", keys[1]]).await);
    refused(&verify(&net, &last, &["--payee", keys[1]]).await, 12, "the proof's payee is");
    refused(&prove(&car, channel, 1, &[], &last).await, 2, "exists already");
    changed(&net, &last).await;

    let file = net.path().join("none.json");
    refused(&prove(&car, channel, count + 2, &[], &file).await, 8, "there is no payment");
    refused(&prove(&car, channel, 0, &[], &file).await, 8, "there is no payment");
    // The payee is down: what it signed before, or soon after, proves the payment; nothing else does.
    charger.kill();
    car.wait(channel, "without its peer", |info| !info.connected).await;
    let again = net.path().join("again.json");
    assert_eq!(report(&prove(&car, channel, 1, &[], &again).await)["amount"], amounts[0].to_string());
    car.crash().await;
    let after = net.path().join("after.json");
    assert_eq!(report(&prove(&car, channel, count + 1, &[], &after).await)["signed_by"], "payee");
    assert!(!file.exists());
}

/// Every part of a proof counts.
async fn changed(net: &Net, proof: &Path) {
    let original: Value = serde_json::from_str(&fs::read_to_string(proof).unwrap()).unwrap();
    let file = net.path().join("changed.json");
    for part in ["/open", "/before", "/updates/0", "/signature"] {
        let mut value = original.clone();
        let text = value.pointer_mut(part).unwrap();
        let mut digits = text.as_str().unwrap().as_bytes().to_vec();
        // A digit in the middle of something that is signed: of a key, a hash, a reference, a number.
        let at = digits.len() * 2 / 3;
        digits[at] = if digits[at] == b'0' { b'1' } else { b'0' };
        *text = String::from_utf8(digits).unwrap().into();
        fs::write(&file, value.to_string()).unwrap();
        refused(&verify(net, &file, &[]).await, 12, "");
    }
    for (part, other) in
        [("/signed_by", Value::from("payer")), ("/position", 1.into()), ("/version", 2.into())]
    {
        let mut value = original.clone();
        *value.pointer_mut(part).unwrap() = other;
        fs::write(&file, value.to_string()).unwrap();
        refused(&verify(net, &file, &[]).await, 12, "proves nothing");
    }
    fs::write(&file, "{}").unwrap();
    refused(&verify(net, &file, &[]).await, 12, "is no proof");
    refused(&verify(net, &nowhere(net), &[]).await, 2, "nowhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kept_is_not_proven() {
    let net = Net::start().await;
    let mut car = net.daemon("car", Amount::new(20_000_000)).await;
    let mut charger = net.daemon("charger", Amount::ZERO).await;
    let channel = car.open(&charger, 10_000_000, 0, 100).await;
    for amount in 1..=3 {
        car.pay(channel, amount).await.unwrap();
    }
    let file = |name: &str| net.path().join(name);
    // The payee is down and never signed for it; then it keeps the newest update alone.
    charger.kill();
    car.wait(channel, "without its peer", |info| !info.connected).await;
    refused(&prove(&car, channel, 3, &[], &file("down")).await, 9, "is not connected");
    keeping(&mut charger, "1").await;
    // Both dial, and one of two connections may give way.
    for (amount, key) in [(4, "d"), (5, "e"), (6, "f")] {
        car.pay_after(ErrorCode::PeerUnreachable, channel, amount, key).await;
    }
    refused(&prove(&car, channel, 2, &[], &file("gone")).await, 8, "keeps no record");
    refused(&prove(&charger, channel, 2, &["--received"], &file("gone")).await, 8, "older than what is kept");
    // A receipt that comes later vouches for all before it.
    assert_eq!(report(&prove(&car, channel, 6, &[], &file("newest")).await)["amount"], "6");
    let said = report(&prove(&car, channel, 2, &[], &file("before")).await);
    assert_eq!(
        (&said["amount"], &said["update"], &said["signed_update"]),
        (&"2".into(), &"2".into(), &"6".into())
    );
    assert_eq!(report(&verify(&net, &file("before"), &[]).await), said);
    // The payer keeps nothing any more.
    keeping(&mut car, "0").await;
    for (amount, key) in [(7, "g"), (8, "h"), (9, "i")] {
        car.pay_after(ErrorCode::PeerUnreachable, channel, amount, key).await;
    }
    refused(&prove(&car, channel, 2, &[], &file("pruned")).await, 8, "older than what is kept");
}
