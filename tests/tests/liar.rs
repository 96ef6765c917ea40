//! A node that lies, beside an honest one.

use std::{net::Ipv4Addr, process::Command};

use flash_node_client::protocol::{NodeResponse, TransactionAnswer};
use flash_proto::Amount;
use flash_tests::{Daemon, LyingNode, Net, binary, poll, run};
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
