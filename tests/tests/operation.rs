//! What an operator meets: wrong directories and configurations, signals, tokens.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use flash_proto::{Amount, ChannelId};
use flash_tests::{Daemon, Net, run, until};
use flashd::{
    api::{
        CloseRequest, ErrorCode, OpenRequest, PayRequest, PayResult, SendRequest, StreamLine, StreamOutcome,
    },
    client::{Client, Ready},
    rpc::Scope,
};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Runs a command that must fail in this way.
async fn assert_fails(command: Command, code: i32, says: &[&str]) {
    let shown = format!("{command:?}");
    let ended = run(command).await;
    assert_eq!(ended.code, Some(code), "{shown}: {}", ended.output);
    for part in says {
        assert!(ended.output.contains(part), "{shown} should say `{part}`: {}", ended.output);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_names_the_first_and_leaves_it_alone() {
    let net = Net::start().await;
    let mut car = net.daemon("car", Amount::ZERO).await;
    let pid = car.process().pid().to_string();
    assert_fails(car.command(), 3, &["in use", &pid]).await;
    let mut node = Command::new(flash_tests::binary("flashd"));
    node.args(["node", "--listen", "127.0.0.1:0", "--data"]).arg(net.node.data());
    assert_fails(node, 3, &["in use"]).await;
    car.client().info().await.expect("the first goes on");
    car.crash().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_that_are_unsafe_or_not_ours_are_refused_with_the_remedy() {
    let net = Net::start().await;
    let mut car = Daemon::init(&net, "car").await;
    let data = car.data().to_owned();
    let (seed, network) = (data.join("seed"), data.join("network.json"));

    chmod(&seed, 0o644);
    assert_fails(car.command(), 4, &["mode 644", &format!("chmod 600 {}", seed.display())]).await;
    chmod(&seed, 0o600);
    chmod(&data, 0o755);
    assert_fails(car.command(), 4, &[&format!("chmod 700 {}", data.display())]).await;
    chmod(&data, 0o700);

    let nowhere = Daemon::at(net.path().join("nowhere"));
    assert_fails(nowhere.command(), 4, &["flash init --data"]).await;
    let kept = fs::read(&seed).unwrap();
    fs::write(&seed, "flash-seed 1 plain abandon abandon").unwrap();
    let ended = run(car.command()).await;
    assert!(ended.code.is_some_and(|code| code != 0), "half a seed: {}", ended.output);
    fs::write(&seed, &kept).unwrap();

    // It ran on its own network first; then somebody copies another network's file into it.
    car.start().await;
    assert_eq!(car.stop().await.code, Some(0));
    let other = Net::start().await;
    let own = fs::read(&network).unwrap();
    fs::copy(other.node.network(), &network).unwrap();
    assert_fails(car.command(), 4, &["belongs to another network"]).await;
    fs::write(&network, own).unwrap();
    // None of this did any harm.
    car.start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_named() {
    let net = Net::start().await;
    let car = Daemon::init(&net, "car").await;
    let store = car.data().join("store");
    fs::write(&store, "not a directory").unwrap();
    let ended = run(car.command()).await;
    assert!(ended.code.is_some_and(|code| code != 0 && code != 101), "{}", ended.output);
    assert!(ended.output.contains("error: "), "{}", ended.output);
    fs::remove_file(&store).unwrap();
    let network = car.data().join("network.json");
    fs::write(&network, "{}").unwrap();
    assert_fails(car.command(), 4, &["network.json", "does not describe a network"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_configuration_is_refused_with_its_line() {
    let net = Net::start().await;
    let car = Daemon::init(&net, "car").await;
    let config = car.data().join("flash.toml");
    let good = fs::read_to_string(&config).unwrap();
    for (added, says) in [
        ("contest_window = 5\n", "contest_window"),
        ("contest_window_milestones = \"soon\"\n", "contest_window_milestones"),
        ("contest_window_milestones = 1\n", "contest_window_milestones"),
        ("listen = \n", "line 2"),
        ("[accept]\ndeposit_max = \"-1\"\n", "deposit_max"),
    ] {
        fs::write(&config, format!("{good}{added}")).unwrap();
        assert_fails(car.command(), 2, &[says]).await;
    }
    fs::write(&config, format!("{good}rcp = \"127.0.0.1:1\"\n")).unwrap();
    assert_fails(car.command(), 2, &["line 2", "rcp", "Known keys"]).await;
    fs::write(&config, "").unwrap();
    assert_fails(car.command(), 2, &["no node is configured"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_node_a_daemon_says_so_and_goes_on_when_it_is_back() {
    let mut net = Net::start().await;
    let mut car = net.daemon("car", Amount::new(100_000)).await;
    net.node.kill();
    car.crash().await;
    let info = car.client().info().await.expect("it answers all the same");
    assert!(!info.ledger.fresh, "{info:?}");
    let error = car.client().balance().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::LedgerUnavailable, "{error:?}");
    net.node.restart().await;
    until("the money to be seen again", || async {
        car.client().balance().await.is_ok_and(|balance| balance.available == Amount::new(100_000))
    })
    .await;
}

async fn pair(net: &Net) -> (Daemon, Daemon, ChannelId) {
    let money = Amount::new(1_000_000_000);
    let (car, charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", money));
    let channel = car.open(&charger, 500_000_000, 500_000_000, 100).await;
    (car, charger, channel)
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_paying_daemon_in_order() {
    let net = Net::start().await;
    let (mut car, mut charger, channel) = pair(&net).await;
    let answers = car.client().stream(channel, stream::repeat_with(|| Ok("1".to_owned()))).await;
    let paying = tokio::spawn(answers.expect("the stream begins").fold(0_u64, |paid, answer| async move {
        match answer {
            Ok(StreamLine { outcome: StreamOutcome::Paid(_), .. }) => paid + 1,
            _ => paid,
        }
    }));
    charger.wait(channel, "being paid", |info| info.received.payments > 1_000).await;
    let ended = car.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(!ended.output.contains("panicked"), "{}", ended.output);
    assert!(!car.data().join("ready.json").exists());
    let told = paying.await.expect("the stream ends");
    let counted = charger.channel(channel).await.received.payments;
    assert!(counted >= told, "{told} payments were acknowledged, {counted} are counted");

    // Ctrl-C does the same.
    charger.process().signal("INT");
    assert_eq!(charger.process().wait().await.code, Some(0));
    tokio::join!(car.start(), charger.start());
    assert_agree(&car, &charger, channel).await;
}

/// Both see the same payments, and go on paying.
async fn assert_agree(car: &Daemon, charger: &Daemon, channel: ChannelId) {
    for side in [car, charger] {
        side.wait(channel, "in use", |info| info.connected && info.paused.is_none()).await;
    }
    car.pay(channel, 1).await.expect("it is in use");
    charger.pay(channel, 1).await.expect("it is in use");
    let (here, there) = (car.channel(channel).await, charger.channel(channel).await);
    assert_eq!(here.sent.cumulative, there.received.cumulative, "I8");
    assert_eq!(here.received.cumulative, there.sent.cumulative, "I8");
    assert_eq!((here.balance, here.peer_balance), (there.peer_balance, there.balance), "I8");
}

/// The status line of the answer to a request without a token.
async fn without_token(rpc: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(rpc).await.unwrap();
    let request = format!("GET /v1/info HTTP/1.1\r\nHost: {rpc}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_allows_what_its_scope_says_and_no_more() {
    let net = Net::start().await;
    let (car, charger, channel) = pair(&net).await;
    let rpc = Ready::read(car.data()).unwrap().rpc;
    let with = |token: &str| Client::new(&rpc, Zeroizing::new(token.to_owned())).unwrap();
    let of = |scope| Client::of_data_dir(car.data(), scope, None, None).unwrap();
    let pay = PayRequest { amount: Amount::new(1), reference: None, key: None };
    let open = OpenRequest {
        peer: charger.ticket().await,
        deposit: Amount::new(10_000),
        peer_deposit: Amount::ZERO,
        contest_window_milestones: None,
    };

    assert!(without_token(&rpc).await.contains("401"));
    for token in ["", "wrong", &"0".repeat(64)] {
        assert_eq!(with(token).info().await.unwrap_err().code, ErrorCode::Unauthorized);
        assert_eq!(with(token).pay(channel, &pay).await.unwrap_err().code, ErrorCode::Unauthorized);
    }
    // Another daemon's token is nobody's here.
    let foreign = flashd::rpc::read_token(charger.data(), Scope::Admin).unwrap();
    assert_eq!(with(&foreign).info().await.unwrap_err().code, ErrorCode::Unauthorized);

    let read = of(Scope::Read);
    read.channel(channel).await.expect("to read is allowed");
    assert_eq!(read.pay(channel, &pay).await.unwrap_err().code, ErrorCode::Forbidden);
    let refused = read.stream(channel, stream::empty()).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::Forbidden);
    let payer = of(Scope::Pay);
    payer.pay(channel, &pay).await.expect("to pay is allowed");
    let send =
        SendRequest { to: car.client().new_address().await.unwrap().address, amount: Amount::new(1_000_000) };
    for client in [&read, &payer] {
        assert_eq!(client.open(&open).await.unwrap_err().code, ErrorCode::Forbidden);
        assert_eq!(client.send(&send).await.unwrap_err().code, ErrorCode::Forbidden);
        let close = client.close(channel, CloseRequest { force: true }, false).await;
        assert_eq!(close.unwrap_err().code, ErrorCode::Forbidden);
        assert_eq!(client.shutdown().await.unwrap_err().code, ErrorCode::Forbidden);
    }
    let info = car.channel(channel).await;
    assert_eq!((info.sent.payments, info.state.as_str()), (1, "open"));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_amounts_are_refused_and_nothing_is_paid() {
    let net = Net::start().await;
    let (car, _charger, channel) = pair(&net).await;
    let path = format!("/v1/channels/{channel}/payments");
    let malformed = [
        json!({ "amount": "0" }),
        json!({ "amount": "-1" }),
        json!({ "amount": "" }),
        json!({ "amount": "1e3" }),
        json!({ "amount": "1.5" }),
        json!({ "amount": "0.5i" }),
        json!({ "amount": "1 000" }),
        json!({ "amount": "18446744073709551616" }),
        json!({ "amount": "99999999999999999999Pi" }),
        json!({ "amount": null }),
        json!({ "amount": [1] }),
        json!({}),
        json!({ "amount": "1", "ammount": "2" }),
        json!({ "amount": "1", "key": "" }),
        json!({ "amount": "1", "key": "k".repeat(65) }),
        json!({ "amount": "1", "reference": "r".repeat(33) }),
    ];
    for body in malformed {
        let error = car.client().post::<PayResult>(&path, &body).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest, "{body}: {error:?}");
        assert!(!error.hint.is_empty(), "{body}: {error:?}");
    }
    let error = car.pay(channel, 500_000_001).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InsufficientBalance, "{error:?}");
    assert_eq!(car.channel(channel).await.sent.payments, 0);
}
