//! What a node can try: each lie is told by one node beside an honest one, is noticed and named, and the
//! client goes on to the right answer.

mod catalogue;

use flash_proto::{Action, BlockId, Output};

use super::{
    node::{Lie, Reply, Script},
    *,
};
use crate::{
    light::tests::record,
    protocol::{NodeRequest, NodeResponse},
};

/// What the client does while the node lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// It follows milestones; the lie is told from the first on.
    Follow,
    Channel,
    NoChannel,
    ManyChannels,
    Outputs,
    Channels,
    Applied,
    Rejected,
    Pending,
    Block,
    Inclusion,
    Milestone,
    Info,
    /// It sees a transaction through.
    Submit,
}

struct Row {
    name: &'static str,
    scene: Scene,
    lie: Lie,
    kind: FaultKind,
    /// What the node is said to have been caught at.
    what: &'static str,
}

/// The transactions of the scenes: the first is applied, the second rejected, the third waits.
struct Facts {
    opening: Transaction,
    double_spend: Transaction,
    waiting: Transaction,
}

fn facts() -> Facts {
    let params = params();
    Facts {
        opening: open(&params),
        double_spend: transfer(&params, destination()),
        waiting: second_transfer(&params, destination()),
    }
}

/// Moves the second genesis output.
fn second_transfer(params: &NetworkParams, to: Address) -> Transaction {
    let Output { amount, .. } = params.genesis[1];
    let essence = Essence {
        network: params.id(),
        inputs: vec![OutputId { transaction: TransactionId::new(*params.id().as_bytes()), index: 1 }],
        inputs_commitment: flash_proto::transaction::commit_inputs(&params.genesis[1..2]),
        outputs: vec![Output { address: to, amount }],
        action: Action::Transfer,
    };
    let unlocks = vec![essence.unlock(&key(11))];
    Transaction { essence, unlocks }
}

fn block_of(transaction: &Transaction) -> Vec<u8> {
    in_block(&params(), transaction.clone())
}

fn id_of(transaction: &Transaction) -> BlockId {
    flash_proto::Block::id_of(&block_of(transaction))
}

const NO_CHANNEL: ChannelId = ChannelId::new([7; 32]);

/// Three milestones, of which the first opens a channel and the second meets a double spend.
fn begin(node: &ScriptedNode) {
    let Facts { opening, double_spend, .. } = facts();
    node.put(block_of(&opening));
    node.milestone();
    node.put(block_of(&double_spend));
    node.milestone();
    node.milestone();
}

/// Two nodes with the same ledger, and a client that has heard all of both.
async fn two_nodes(answer_ms: u64, quiet_ms: u64) -> (ScriptedNode, ScriptedNode, NodeClient) {
    let (one, other) = (ScriptedNode::start(100), ScriptedNode::start(101));
    let client = impatient(&[&one, &other], answer_ms, quiet_ms);
    // A node is only asked for what is not known from the other yet.
    drop(client.shared().nodes.subscribe().wait_for(|nodes| nodes.links(0, &[]).len() == 2).await.unwrap());
    begin(&one);
    begin(&other);
    in_step(&client, 3, 2).await;
    (one, other, client)
}

fn impatient(nodes: &[&ScriptedNode], answer_ms: u64, quiet_ms: u64) -> NodeClient {
    let nodes = nodes.iter().map(|node| node.address.clone()).collect();
    let config = ClientConfig::new(params(), nodes, key(50), loopback());
    let patience =
        Patience { answer: Duration::from_millis(answer_ms), quiet: Duration::from_millis(quiet_ms) };
    NodeClient::start(ClientConfig { patience, ..config }).unwrap()
}

/// Waits until so many nodes have sent milestone `index`.
async fn in_step(client: &NodeClient, index: u64, count: usize) {
    let so = |nodes: &Nodes| nodes.links(index, &[]).iter().filter(|link| link.heard).count() >= count;
    let mut changes = client.shared().nodes.subscribe();
    drop(changes.wait_for(so).await.unwrap());
}

async fn caught(client: &NodeClient) {
    let mut changes = client.shared().nodes.subscribe();
    drop(changes.wait_for(|nodes| nodes.faults_count() > 0).await.unwrap());
}

/// What the client finds out, as text.
async fn ask(client: &NodeClient, scene: Scene) -> String {
    let Facts { opening, double_spend, waiting } = facts();
    match scene {
        Scene::Follow => format!("{:?}", client.newest()),
        Scene::Channel => format!("{:?}", client.channel(opening.channel().unwrap()).await),
        Scene::NoChannel => format!("{:?}", client.channel(NO_CHANNEL).await),
        Scene::ManyChannels => {
            format!("{:?}", client.channels(&[opening.channel().unwrap(), NO_CHANNEL]).await)
        }
        Scene::Outputs => {
            let addresses = [Address::of(&owner().public()), destination()];
            format!("{:?}", client.outputs_of(&addresses).await)
        }
        Scene::Channels => format!("{:?}", client.channels_of(&[record().party_a.key]).await),
        Scene::Applied => format!("{:?}", client.transaction(opening.id()).await),
        Scene::Rejected => format!("{:?}", client.transaction(double_spend.id()).await),
        Scene::Pending => format!("{:?}", client.transaction(waiting.id()).await),
        Scene::Block => format!("{:?}", client.block(id_of(&opening)).await),
        Scene::Inclusion => format!("{:?}", client.inclusion(id_of(&opening)).await),
        Scene::Milestone => format!("{:?}", client.milestone(Some(2)).await),
        Scene::Info => format!("{:?}", client.info().await),
        Scene::Submit => format!("{:?}", client.submit_and_wait(waiting, None).await),
    }
}

/// Lets one node tell the lie, and returns what the client has found out after all.
async fn tell(row: &Row, liar: &ScriptedNode, honest: &ScriptedNode, client: &NodeClient) -> String {
    if row.scene == Scene::Follow {
        // The honest one has nothing to say until the liar is through.
        caught(client).await;
        begin(honest);
        in_step(client, 3, 1).await;
        return ask(client, row.scene).await;
    }
    liar.lie(Arc::clone(&row.lie));
    match row.scene {
        Scene::Pending => [liar, honest].iter().for_each(|node| node.put(block_of(&facts().waiting))),
        Scene::Submit => {
            let asking = tokio::spawn({
                let client = client.clone();
                async move { ask(&client, Scene::Submit).await }
            });
            honest.submitted(1).await;
            liar.adopt(honest);
            honest.milestone();
            let answer = asking.await.unwrap();
            liar.milestone();
            if client.faults().is_empty() {
                in_step(client, 4, 2).await;
                client.transaction(facts().waiting.id()).await.unwrap();
            }
            return answer;
        }
        _ => {}
    }
    ask(client, row.scene).await
}

async fn try_lie(row: &Row, after_the_truth: bool) {
    let (liar, honest, client) = if row.scene == Scene::Follow {
        let (liar, honest) = (ScriptedNode::start(100), ScriptedNode::start(101));
        begin(&liar);
        liar.lie(Arc::clone(&row.lie));
        let client = impatient(&[&liar, &honest], 400, 30_000);
        (liar, honest, client)
    } else {
        two_nodes(400, 30_000).await
    };
    let before = if after_the_truth { Some(ask(&client, row.scene).await) } else { None };
    let answer = tell(row, &liar, &honest, &client).await;
    if let Some(before) = before {
        assert_eq!(answer, before, "{}: the story stays", row.name);
    }
    let alone = client_of(&honest).await;
    assert_eq!(answer, ask(&alone, row.scene).await, "{}", row.name);
    assert!(alone.faults().is_empty(), "{}: {:?}", row.name, alone.faults());

    caught(&client).await;
    let faults = client.faults();
    let named = |fault: &NodeFault| {
        fault.node == liar.address && fault.kind == row.kind && fault.what.contains(row.what)
    };
    assert!(faults.iter().any(named), "{}: {faults:?}", row.name);
    assert!(faults.iter().all(|fault| fault.node == liar.address), "{}: {faults:?}", row.name);
    let status = client.nodes();
    assert_eq!(status[0].state, NodeState::Avoided(row.kind), "{}: {status:?}", row.name);
    assert_eq!(status[1].state, NodeState::Following, "{}: {status:?}", row.name);
    client.view().wait_for(|view| view.node.as_ref() == Some(&honest.address)).await.unwrap();
}

async fn client_of(node: &ScriptedNode) -> NodeClient {
    let client = client(&[node]);
    in_step(&client, node.newest().index, 1).await;
    client
}

#[tokio::test]
async fn every_lie_is_noticed_and_the_liar_named() {
    let rows = catalogue::rows();
    assert!(rows.len() >= 40, "{}", rows.len());
    for row in &rows {
        let tried = tokio::time::timeout(Duration::from_secs(30), try_lie(row, false)).await;
        assert!(tried.is_ok(), "{}: it hangs", row.name);
    }
}

/// The same question was answered rightly by both before. What is about milestones and submissions has its truth
/// before the lie in any case, and what waits is not known before.
#[tokio::test]
async fn a_node_that_changes_its_story_is_named_and_the_story_stays() {
    let asked_before = |row: &&Row| !matches!(row.scene, Scene::Follow | Scene::Submit | Scene::Pending);
    let rows = catalogue::rows();
    let rows: Vec<&Row> = rows.iter().filter(asked_before).collect();
    assert!(rows.len() >= 20, "{}", rows.len());
    for row in rows {
        let tried = tokio::time::timeout(Duration::from_secs(30), try_lie(row, true)).await;
        assert!(tried.is_ok(), "{}: it hangs", row.name);
    }
}

/// The liar's milestones are true, but late or not there at all.
#[tokio::test]
async fn withheld_and_delayed_milestones_are_noticed() {
    for delayed in [false, true] {
        let (liar, honest, client) = two_nodes(10_000, 2_000).await;
        for index in 4..=30 {
            honest.milestone();
            reach(&client, index).await;
            if delayed && index > 4 + 2 * BEHIND_MAX {
                liar.milestone();
            }
        }
        caught(&client).await;
        let faults = client.faults();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!((&faults[0].node, faults[0].kind), (&liar.address, FaultKind::Withholds));
        assert!(faults[0].what.contains("milestones behind"), "{faults:?}");
        assert_eq!(client.newest(), honest.newest());
        assert_eq!(client.channel(NO_CHANNEL).await.unwrap().milestone_index, 30);
    }
}

/// It goes on at the same pace, always ten minutes late: it is left, named, and nothing is believed of it.
#[tokio::test]
async fn a_node_ten_minutes_behind_is_left_for_one_that_is_not() {
    let late = 600_000 / params().milestone_interval_ms;
    let (slow, quick) = (ScriptedNode::start(100), ScriptedNode::start(101));
    begin(&slow);
    begin(&quick);
    for _ in 0..late {
        quick.milestone();
    }
    let client = impatient(&[&slow, &quick], 10_000, 500);
    in_step(&client, 3 + late, 1).await;
    let going_on = async {
        loop {
            quick.milestone();
            slow.milestone();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = caught(&client) => {}
        () = going_on => {}
    }
    let faults = client.faults();
    assert_eq!((faults.len(), &faults[0].node, faults[0].kind), (1, &slow.address, FaultKind::Withholds));
    reach(&client, quick.newest().index).await;
    assert_eq!(client.newest(), quick.newest());
    let channel = client.channel(facts().opening.channel().unwrap()).await.unwrap();
    assert!(channel.value.is_some() && channel.milestone_index >= 3 + late);
}

#[tokio::test]
async fn a_node_a_little_behind_is_no_liar() {
    let (slow, quick, client) = two_nodes(10_000, 30_000).await;
    for index in 4..=3 + BEHIND_MAX {
        quick.milestone();
        reach(&client, index).await;
        assert_eq!(client.channel(NO_CHANNEL).await.unwrap().milestone_index, index);
    }
    let behind = |client: &NodeClient| client.shared().nodes.borrow().lags(&slow.address.key);
    assert_eq!(behind(&client), None);
    assert_eq!(client.faults(), []);
    assert_eq!(client.nodes()[0].state, NodeState::Behind);
    quick.milestone();
    reach(&client, 4 + BEHIND_MAX).await;
    in_step(&client, 4 + BEHIND_MAX, 1).await;
    assert_eq!(behind(&client), Some(BEHIND_MAX + 1));
}

#[tokio::test]
async fn faults_are_bounded() {
    let node = ScriptedNode::start(100);
    let mut nodes = Nodes::new(vec![node.address.clone()]);
    let fault = |n: usize| NodeFault {
        node: node.address.clone(),
        kind: FaultKind::Lies,
        what: n.to_string(),
        since: std::time::SystemTime::UNIX_EPOCH,
    };
    for n in (0..FAULTS_MAX + 10).chain([FAULTS_MAX + 9]) {
        nodes.caught(fault(n));
    }
    assert_eq!(nodes.faults().len(), FAULTS_MAX);
    assert_eq!(nodes.faults().last(), Some(&fault(FAULTS_MAX + 9)));
    assert_eq!(nodes.faults_count(), u64::try_from(FAULTS_MAX).unwrap() + 11);
}
