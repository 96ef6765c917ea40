//! A node that lies, beside an honest one.

use std::{net::Ipv4Addr, process::Command};

use flash_node_client::protocol::{NodeResponse, TransactionAnswer};
use flash_proto::{
    Action, Amount, Essence, Side, Transaction,
    message::{ChannelMessage, PauseReason},
    transaction::UnilateralClose,
};
use flash_tests::{Daemon, LyingNode, Net, ScriptedPeer, binary, poll, rounds, run};
use serde_json::Value;

/// Lies about channels, outputs and transactions. Its milestones are true.
fn lie(answer: &mut NodeResponse) -> bool {
    match answer {
        NodeResponse::Channel { record, .. } => *record = None,
        NodeResponse::Outputs { outputs, .. } => outputs.clear(),
        NodeResponse::Transaction(answer) => **answer = TransactionAnswer::Unknown,
        _ => return false,
    }
    true
}

/// The state of a node and what it was caught at, as `flash ledger status` shows them.
async fn shown(daemon: &Daemon, node: &str) -> (String, String) {
    let mut command = Command::new(binary("flash"));
    command.args(["ledger", "status", "--json", "--data"]).arg(daemon.data());
    let ended = run(command).await;
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    let status: Value = serde_json::from_str(&ended.output).expect("JSON");
    let nodes = status["nodes"].as_array().expect("a list");
    let found = nodes.iter().find(|shown| shown["node"] == node).expect("it is configured");
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("fault"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_opens_pays_and_closes_beside_a_lying_node() {
    let net = Net::start().await;
    let (liar, honest) =
        (LyingNode::start(Ipv4Addr::LOCALHOST.into(), &net.node.address, lie), net.node.address.to_string());
    let charger = net.daemon("charger", Amount::ZERO).await;
    let mut car = Daemon::init(&net, "car").await;
    let mut command = car.command();
    command.args(["--node", &liar.address.to_string(), "--node", &honest]);
    car.spawn(command);
    car.ready().await;

    let address = car.client().new_address().await.expect("an address").address;
    net.fund(address, Amount::new(50_000)).await;
    poll("the car to see its money and the liar", || async {
        let balance = car.client().balance().await.ok()?;
        let (state, _) = shown(&car, &liar.address.to_string()).await;
        (balance.available >= Amount::new(50_000) && state == "lying").then_some(())
    })
    .await;

    let channel = car.open(&charger, 10_000, 0, 600).await;
    car.pay(channel, 2_500).await.expect("the payment is acknowledged");
    let closed = car.close(channel).await;
    let paid = (Some(Amount::new(7_500)), Some(Amount::new(2_500)));
    assert_eq!((closed.payout, closed.peer_payout), paid);
    poll("the charger's money", || async {
        let balance = charger.client().balance().await.ok()?;
        (balance.available == Amount::new(2_500)).then_some(())
    })
    .await;
    let (state, fault) = shown(&car, &liar.address.to_string()).await;
    assert_eq!(state, "lying", "{fault}");
    let lies = ["it leaves out output", "calls a transaction unknown", "proof"];
    assert!(lies.iter().any(|lie| fault.contains(lie)), "{fault}");
    assert_eq!(shown(&car, &honest).await, ("following".to_owned(), String::new()));
    net.assert_supply().await;
}

/// The only node is behind for longer than a view of the ledger may be old: nothing is taken in, nothing is closed,
/// and what happened meanwhile is answered as soon as it is seen.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_node_that_is_late_payments_pause_and_a_close_is_answered_once_it_is_seen() {
    let net = Net::start().await;
    let node = LyingNode::start(Ipv4Addr::LOCALHOST.into(), &net.node.address, |_| false);
    let arguments = ["--node", &node.address.to_string()];
    let mut charger = Daemon::init_at(net.path().join("charger"), &net.node.network(), &arguments).await;
    charger.configure("freshness_ms_max = 1500\n");
    charger.start().await;
    let peer = ScriptedPeer::new(&net, &charger.ticket().await);
    let channel = peer.open_with(&net, Amount::new(1_000_000), 6_000).await;
    charger.wait(channel, "open", |info| info.state == "open").await;
    let mut stream = peer.greet().await.channel(channel, None).await;
    let (first, newest) = peer.update(peer.lane(channel), &[700]);
    stream.say(&ChannelMessage::Update(first)).await;
    stream.acknowledged(1).await;

    node.is_late(true);
    let paused = charger.wait(channel, "paused", |info| info.paused.is_some()).await;
    assert_eq!(paused.paused.as_deref(), Some("the ledger has not been seen here for too long"));
    stream.say(&ChannelMessage::Update(peer.update(newest.state, &[55]).0)).await;
    match stream.next().await.expect("an answer") {
        ChannelMessage::Paused { held_seq: 1, reason: PauseReason::StaleLedgerView } => {}
        other => panic!("{other:?}"),
    }
    // The peer closes meanwhile and hides what it has paid.
    let close = UnilateralClose { channel, closer: Side::A, balance: None };
    let essence = Essence::acting(net.params().id(), Action::UnilateralClose(close));
    let unlocks = vec![essence.unlock(&peer.key)];
    net.client.submit_and_wait(Transaction { essence, unlocks }, None).await.expect("the close is applied");
    net.milestones(3).await;
    assert_eq!(charger.channel(channel).await.state, "open", "it has not been told");
    node.is_late(false);
    charger.wait(channel, "contested", |info| info.state == "contested").await;
    let claimed = poll("the claim to be applied", || async {
        let record = net.client.channel(channel).await.ok()?.value?;
        (record.lane_a.cumulative == Amount::new(700)).then_some(record)
    })
    .await;
    assert_eq!(claimed.lane_b.cumulative, Amount::ZERO);
    assert_eq!(charger.channel(channel).await.received.cumulative, Amount::new(700));
}

/// The only node that is left refuses the claim, or says that it has it and loses it, or does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_made_again_until_it_is_final() {
    let losses = rounds(8, 50);
    let net = Net::start().await;
    let node = LyingNode::losing(Ipv4Addr::LOCALHOST.into(), &net.node.address, losses);
    let mut charger = Daemon::init_at(
        net.path().join("charger"),
        &net.node.network(),
        &["--node", &node.address.to_string()],
    )
    .await;
    charger.start().await;
    let peer = ScriptedPeer::new(&net, &charger.ticket().await);
    let channel = peer.open_with(&net, Amount::new(1_000_000), 6_000).await;
    charger.wait(channel, "open", |info| info.state == "open").await;
    let mut stream = peer.greet().await.channel(channel, None).await;
    stream.say(&ChannelMessage::Update(peer.update(peer.lane(channel), &[700]).0)).await;
    stream.acknowledged(1).await;

    // The peer hides what it has paid.
    let close = UnilateralClose { channel, closer: Side::A, balance: None };
    let essence = Essence::acting(net.params().id(), Action::UnilateralClose(close));
    let unlocks = vec![essence.unlock(&peer.key)];
    net.client.submit_and_wait(Transaction { essence, unlocks }, None).await.expect("the close is applied");
    poll("the claim to be lost again and again", || {
        std::future::ready((node.still_loses() == 0).then_some(()))
    })
    .await;
    let claimed = poll("the claim to be applied", || async {
        let record = net.client.channel(channel).await.ok()?.value?;
        (record.lane_a.cumulative == Amount::new(700)).then_some(record)
    })
    .await;
    assert_eq!(claimed.lane_b.cumulative, Amount::ZERO);
}
