//! A daemon with a full node of its own serves it to others, and goes on when no other node is left.

use flash_proto::{Amount, ChannelId};
use flash_tests::{Daemon, Net, until};
use flashd::{datadir, node_service};

const MI: u64 = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_a_full_node_serves_light_ones() {
    let net = Net::start().await;
    let operator = Daemon::init(&net, "operator").await;
    let mut operator = operator.with(&["--full-node", "--node-listen", "127.0.0.1:0"]);
    operator.start().await;
    let own = node_service::address(&operator.data().join("node")).expect("its node is ready");
    let ledger = operator.client().ledger_status().await.unwrap();
    assert_eq!(ledger.nodes[0].node, own.to_string(), "its own is the first that it follows");

    // This one knows only the operator's node: it gets money, pays and closes over that.
    let (network, node) = (datadir::network_path(operator.data()), own.to_string());
    let car = Daemon::init_at(net.path().join("car"), &network, &["--node", &node]).await;
    let mut car = net.run_with_money(car, Amount::new(9 * MI)).await;
    let channel: ChannelId = car.open(&operator, MI, 0, 60).await;
    car.pay(channel, 250_000).await.expect("it pays");
    car.close(channel).await;
    until("the operator to be paid", || async {
        operator.client().balance().await.is_ok_and(|balance| balance.available == Amount::new(250_000))
    })
    .await;

    operator.stop().await;
    assert!(node_service::address(&operator.data().join("node")).is_err(), "its node has stopped with it");
    operator.start().await;
    let balance = operator.client().balance().await.unwrap();
    assert_eq!(balance.available, Amount::new(250_000));
    car.stop().await;
    operator.stop().await;
    net.assert_supply().await;
}
