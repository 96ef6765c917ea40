//! Clocks that jump, many channels at once, tokens that are taken back.

use std::{fs, path::Path, process::Command, time::Instant};

use flash_proto::{Amount, ChannelId};
use flash_tests::{Daemon, Net, poll, rounds};
use flashd::{
    api::{ErrorCode, PayRequest, StreamOutcome},
    client::{Client, Ready},
    rpc::{Scope, read_token, token_path},
};
use futures_util::{StreamExt, stream};

const DEPOSIT: u64 = 1_000_000;

/// The library that shows a process another time.
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];

/// A daemon's command that takes its wall clock from a file, `+86400` being a day ahead.
fn with_clock(daemon: &Daemon, library: &str, clock: &Path) -> Command {
    let mut command = daemon.command();
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", clock);
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command
}

/// Ahead, nothing that the ledger says looks new any more, so nothing is taken in until the clock is right; no
/// money depends on it, nothing is closed, and no window gets shorter: those count milestones.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_a_day_either_way_costs_at_most_a_pause() {
    let Some(library) = FAKETIME.into_iter().find(|path| Path::new(path).exists()) else {
        println!("skipped: there is no libfaketime; on Debian install faketime");
        return;
    };
    let net = Net::start().await;
    let money = Amount::new(2 * DEPOSIT);
    let (car, mut charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", money));
    let channel = car.open(&charger, DEPOSIT, DEPOSIT, 100).await;
    let clock = net.path().join("clock");
    fs::write(&clock, "+0").unwrap();
    assert_eq!(charger.stop().await.code, Some(0));
    let command = with_clock(&charger, library, &clock);
    charger.spawn(command);
    charger.ready().await;
    for day in ["-86400", "+86400"] {
        car.agree(&charger, channel).await;
        let before = charger.channel(channel).await;
        fs::write(&clock, day).unwrap();
        net.milestones(10).await;
        let during = charger.channel(channel).await;
        println!("{day} s: {:?}", during.paused);
        assert_eq!(during.state, "open", "{day}");
        if during.paused.is_none() {
            car.pay(channel, 1).await.expect("it is in use");
        }
        assert!(during.received.cumulative >= before.received.cumulative, "I3");
        fs::write(&clock, "+0").unwrap();
        car.agree(&charger, channel).await;
    }
    // A contest under a clock a day ahead: the claim is made, and in time.
    let owned = charger.channel(channel).await.balance;
    fs::write(&clock, "+86400").unwrap();
    let close = flashd::api::CloseRequest { force: true };
    car.client().close(channel, close, false).await.expect("it is closed");
    let closed = charger.wait(channel, "closed", |info| info.state == "closed").await;
    assert_eq!(closed.payout, owned, "{closed:?}");
    net.assert_supply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_many_channels_a_daemon_restarts_and_all_are_in_use() {
    // A peer may have 64 with one machine.
    let (peers, each) = rounds((2, 15), (20, 50));
    let net = Net::start().await;
    let mut charger = net.daemon("charger", Amount::ZERO).await;
    let mut cars = Vec::new();
    for number in 0..peers {
        cars.push(net.daemon(&format!("car{number}"), Amount::new(100 * DEPOSIT)).await);
    }
    let mut channels: Vec<(usize, ChannelId)> = Vec::new();
    for (number, car) in cars.iter().enumerate() {
        for _ in 0..each {
            // One after the other: a wallet's change is in use until it is applied.
            channels.push((number, car.open(&charger, DEPOSIT, 0, 400).await));
        }
    }
    for (number, channel) in &channels {
        cars[*number].pay(*channel, 10).await.expect("it is in use");
    }
    let memory = charger.process().resident_bytes();
    for crashes in [false, true] {
        let begun = Instant::now();
        if crashes {
            charger.crash().await;
        } else {
            assert_eq!(charger.stop().await.code, Some(0));
            charger.start().await;
        }
        let started = begun.elapsed();
        for (number, channel) in &channels {
            let car = &cars[*number];
            car.wait(*channel, "in use", |info| info.connected && info.paused.is_none()).await;
            poll("the payment", || async { car.pay(*channel, 1).await.ok() }).await;
        }
        println!(
            "{} channels: started in {started:?}, all paid on after {:?}",
            channels.len(),
            begun.elapsed()
        );
    }
    println!("the memory was {} KiB", memory / 1024);
    for (_, channel) in &channels {
        assert_eq!(charger.channel(*channel).await.received.cumulative, Amount::new(12));
    }
}

/// A token is taken back by removing its file: what runs under it ends, and nobody comes in with it any more. The
/// daemon goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_taken_back_in_the_middle_of_a_stream_pays_no_more() {
    let net = Net::start().await;
    let money = Amount::new(100 * DEPOSIT);
    let (car, charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", Amount::ZERO));
    let channel = car.open(&charger, 50 * DEPOSIT, 0, 400).await;
    let old = read_token(car.data(), Scope::Pay).unwrap();
    let payer = Client::of_data_dir(car.data(), Scope::Pay, None, None).unwrap();
    let answers = payer.stream(channel, stream::repeat_with(|| Ok("1".to_owned()))).await.unwrap();
    let paying = tokio::spawn(answers.fold(0_u64, |paid, answer| async move {
        match answer {
            Ok(line) if matches!(line.outcome, StreamOutcome::Paid(_)) => paid + 1,
            _ => paid,
        }
    }));
    charger.wait(channel, "being paid", |info| info.received.payments > 100).await;
    let looking = Client::of_data_dir(car.data(), Scope::Read, None, None).unwrap();
    let mut events = looking.events(None, true).await.unwrap();
    fs::remove_file(token_path(car.data(), Scope::Pay)).unwrap();
    let told = paying.await.expect("the stream ends");
    let rpc = Ready::read(car.data()).unwrap().rpc;
    let request = PayRequest { amount: Amount::new(1), reference: None, key: None };
    let refused = Client::new(&rpc, old).unwrap().pay(channel, &request).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unauthorized, "{refused:?}");
    car.agree(&charger, channel).await;
    assert!(charger.channel(channel).await.received.payments >= told, "I4");
    // The new one is in the file, and the other tokens are as good as before.
    Client::of_data_dir(car.data(), Scope::Pay, None, None).unwrap().pay(channel, &request).await.unwrap();
    charger.pay(channel, 1).await.expect("the channel is in use");
    while events.next().await.expect("another token's stream goes on").unwrap().kind != "payments_received" {}
}
