//! A client, two wallets and a full node with its disk, over real sockets.

use flash_proto::{Action, NetworkParams, Open, Output, Unlock, record::Party};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::{
    light::tests::coordinators,
    node::{Node, NodeConfig, service},
    wallet::{Seed, Wallet, WalletEvent},
};

fn seed(passphrase: &str) -> Seed {
    let words =
        "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
    Seed::from_words(words, passphrase).unwrap()
}

/// A node in a directory.
struct Running {
    node: Node,
    address: PeerAddress,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<()>,
    now_ms: u64,
}

impl Running {
    fn start(directory: &TempDir, params: &NetworkParams, at: SocketAddr) -> Self {
        let config = NodeConfig::new(directory.path().to_owned(), params.clone());
        let node = Node::open(config).unwrap();
        let endpoint = Endpoint::listen(&key(70), NODE_ALPN, at, service::STREAM_LIMITS).unwrap();
        let at = endpoint.local_address().unwrap();
        let address = PeerAddress::new(key(70).public(), at.ip().to_string(), at.port()).unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { drop(stopped.await) };
        let serving = tokio::spawn(service::serve(node.clone(), endpoint, stopped));
        let now_ms = 1_000_000;
        Self { node, address, stop, serving, now_ms }
    }

    async fn milestone(&mut self) -> u64 {
        self.now_ms += 1_000;
        let (node, now_ms) = (self.node.clone(), self.now_ms);
        let issue = move || node.issue_milestone(now_ms, &coordinators()).unwrap();
        tokio::task::spawn_blocking(issue).await.unwrap().milestone.essence.index
    }

    fn newest(&self) -> u64 {
        *self.node.newest().borrow()
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap();
    }
}

/// Issues milestones until what is waited for has happened.
async fn confirm<T>(node: &mut Running, client: &NodeClient, wanted: impl Future<Output = T>) -> T {
    tokio::pin!(wanted);
    loop {
        let index = node.milestone().await;
        tokio::select! {
            biased;
            done = &mut wanted => return done,
            () = reach(client, index) => {}
        }
    }
}

async fn observe(wallet: &mut Wallet, client: &NodeClient) -> Vec<WalletEvent> {
    let due = wallet.due();
    let outputs = client.outputs_of(&due).await.unwrap();
    wallet.observe(outputs.milestone_index, &due, outputs.value)
}

#[tokio::test(flavor = "multi_thread")]
async fn money_moves_between_wallets_and_into_a_channel() {
    let (mut alice, mut bob) = (Wallet::new(seed("alice")), Wallet::new(seed("bob")));
    let genesis = vec![Output { address: alice.fresh_address().unwrap(), amount: Amount::SUPPLY }];
    let params = Arc::new(NetworkParams { genesis, ..(*params()).clone() });
    let directory = TempDir::new().unwrap();
    let mut node = Running::start(&directory, &params, loopback());
    let nodes = vec![node.address.clone()];
    let client =
        NodeClient::start(ClientConfig::new(Arc::clone(&params), nodes, key(50), loopback())).unwrap();
    assert_eq!(observe(&mut alice, &client).await.len(), 1);
    assert_eq!(alice.available(), Amount::SUPPLY);

    // A transfer, applied and proven; the same money again is rejected.
    let before = alice.take_changes();
    let held = client.outputs_of(alice.addresses()).await.unwrap().value;
    let to = bob.fresh_address().unwrap();
    let transfer = alice.transfer(to, Amount::new(5_000), &params).unwrap().0;
    let applied = confirm(&mut node, &client, client.submit_and_wait(transfer.clone(), None)).await.unwrap();
    reach(&client, applied.milestone_index).await;
    assert_eq!(observe(&mut alice, &client).await.len(), 2);
    let received = observe(&mut bob, &client).await;
    let output = Output { address: to, amount: Amount::new(5_000) };
    assert_eq!(
        received,
        [WalletEvent::Received {
            id: OutputId { transaction: transfer.id(), index: 0 },
            output,
            change: false
        }]
    );
    let rest = Amount::SUPPLY.checked_sub(Amount::new(5_000)).unwrap();
    assert_eq!((alice.available(), alice.reserved()), (rest, Amount::ZERO));
    let mut forgetful = Wallet::from_record(seed("alice"), &before.record, [], held, Vec::new()).unwrap();
    let again = forgetful.transfer(to, Amount::new(7_000), &params).unwrap().0;
    let error = confirm(&mut node, &client, client.submit_and_wait(again, None)).await.unwrap_err();
    assert!(matches!(error, ClientError::Rejected { conflict: Conflict::InputMissing, .. }), "{error}");

    // A channel that both fund, over a restart of the node.
    let open = open_channel(&mut alice, &mut bob, &params);
    let channel = open.channel().unwrap();
    let at = (Ipv4Addr::LOCALHOST, node.address.port()).into();
    let (now_ms, old) = (node.now_ms, node.newest());
    node.stop().await;
    node = Running { now_ms, ..Running::start(&directory, &params, at) };
    assert_eq!(node.newest(), old);
    let mut followed = client.follow();
    let applied = confirm(&mut node, &client, client.submit_and_wait(open, Some(60))).await.unwrap();
    let touched = async {
        loop {
            let milestone = followed.recv().await.unwrap();
            if milestone.channels == [channel] {
                return milestone.checkpoint.essence.index;
            }
        }
    };
    assert_eq!(touched.await, applied.milestone_index);
    let record = client.channel(channel).await.unwrap().value.unwrap();
    assert_eq!(record.total(), Some(Amount::new(13_000)));
    observe(&mut bob, &client).await;
    assert_eq!((bob.available(), bob.reserved()), (Amount::new(2_000), Amount::ZERO));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_of_outputs_come_whole() {
    let mut alice = Wallet::new(seed("alice"));
    // 512 outputs at the first 256 addresses fill one answer exactly; one address has more than that.
    let mut genesis: Vec<Output> = Vec::new();
    for n in 0..300 {
        let address = alice.fresh_address().unwrap();
        let count = if n == 299 { 600 } else { 2 };
        genesis.extend([Output { address, amount: Amount::new(1_000) }].repeat(count));
    }
    let rest = Amount::SUPPLY.units() - 1_000 * u64::try_from(genesis.len()).unwrap();
    genesis.push(Output { address: destination(), amount: Amount::new(rest) });
    let count = genesis.len() - 1;
    let params = Arc::new(NetworkParams { genesis, ..(*params()).clone() });
    let directory = TempDir::new().unwrap();
    let node = Running::start(&directory, &params, loopback());
    let nodes = vec![node.address.clone()];
    let client = NodeClient::start(ClientConfig::new(params, nodes, key(50), loopback())).unwrap();
    assert_eq!(observe(&mut alice, &client).await.len(), count);
    assert_eq!(alice.available(), Amount::new(1_000 * u64::try_from(count).unwrap()));
    node.stop().await;
}

/// Alice locks 10,000, Bob 3,000.
fn open_channel(alice: &mut Wallet, bob: &mut Wallet, params: &NetworkParams) -> Transaction {
    let funded = [(alice, 10_000), (bob, 3_000)].map(|(wallet, deposit)| {
        let reserved = wallet.reserve(Amount::new(deposit), params.output_min, Some(60)).unwrap();
        let key = wallet.fresh_channel_key().unwrap().1.public();
        let payout = wallet.fresh_address().unwrap();
        let change = Output { address: wallet.fresh_address().unwrap(), amount: reserved.change };
        (wallet, reserved.funding, change, Party { key, payout, deposit: Amount::new(deposit) })
    });
    let inputs = || funded.iter().flat_map(|(_, funding, ..)| funding);
    let spent: Vec<Output> = inputs().map(|funding| funding.output).collect();
    let essence = Essence {
        network: params.id(),
        inputs: inputs().map(|funding| funding.id).collect(),
        inputs_commitment: flash_proto::transaction::commit_inputs(&spent),
        outputs: funded.iter().map(|(_, _, change, _)| *change).collect(),
        action: Action::Open(Open {
            party_a: funded[0].3,
            party_b: funded[1].3,
            contest_window_milestones: 10,
            expiry_milestone: 60,
        }),
    };
    let unlocks: Vec<Unlock> =
        funded.iter().flat_map(|(wallet, funding, ..)| wallet.unlocks(&essence, funding)).collect();
    Transaction { essence, unlocks }
}
