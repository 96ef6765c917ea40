//! A client and nodes that a test scripts, over real sockets on loopback.

mod batches;
mod lies;
mod node;
mod real;

use std::net::{Ipv4Addr, SocketAddr};

use flash_proto::{Address, Amount, Essence, Milestone, OutputId, Payload, Transaction, TransactionId};
use node::{Reply, ScriptedNode};

use super::*;
use crate::{
    ledger::Conflict,
    light::tests::{in_block, key, open, owner, params, sign, transfer},
    protocol::{ADDRESSES_MAX, NodeResponse},
};

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn client(nodes: &[&ScriptedNode]) -> NodeClient {
    start(nodes.iter().map(|node| node.address.clone()).collect(), None)
}

fn start(nodes: Vec<PeerAddress>, checkpoint: Option<Checkpoint>) -> NodeClient {
    let config = ClientConfig::new(params(), nodes, key(50), loopback());
    NodeClient::start(ClientConfig { checkpoint, ..config }).unwrap()
}

async fn reach(client: &NodeClient, index: u64) {
    let at = |view: &View| view.tip.as_ref().is_some_and(|tip| tip.essence.index >= index);
    client.view().wait_for(at).await.unwrap();
}

fn destination() -> Address {
    Address::of(&key(60).public())
}

#[tokio::test]
async fn every_milestone_comes_in_order_from_the_first_on() {
    let node = ScriptedNode::start(30);
    for _ in 0..3 {
        node.milestone();
    }
    let client = client(&[&node]);
    reach(&client, 3).await;
    let mut followed = client.follow();
    let mut checkpoint = None;
    node.milestone();
    for index in 1..=4 {
        let milestone = followed.recv().await.unwrap();
        assert_eq!(milestone.checkpoint.essence.index, index);
        checkpoint = Some(Checkpoint::clone(&milestone.checkpoint));
    }
    assert_eq!(client.newest(), node.newest());
    assert_eq!(client.view().borrow().node, Some(node.address.clone()));

    let again = start(vec![node.address.clone()], checkpoint);
    let mut followed = again.follow();
    node.milestone();
    assert_eq!(followed.recv().await.unwrap().checkpoint.essence.index, 5);
}

#[tokio::test]
async fn a_transfer_is_seen_through_and_proven() {
    let node = ScriptedNode::start(31);
    let client = client(&[&node]);
    let transaction = transfer(&params(), destination());
    let id = transaction.id();
    assert_eq!(client.transaction(id).await.unwrap(), TransactionStatus::Unknown);

    let waiting = tokio::spawn({
        let client = client.clone();
        let transaction = transaction.clone();
        async move { client.submit_and_wait(transaction, None).await }
    });
    node.submitted(1).await;
    assert!(matches!(client.transaction(id).await.unwrap(), TransactionStatus::Pending { .. }));
    node.milestone();
    let applied = waiting.await.unwrap().unwrap();
    assert_eq!(applied.milestone_index, 1);

    let status = client.transaction(id).await.unwrap();
    let TransactionStatus::Applied { transaction: proven, .. } = status else { panic!("{status:?}") };
    assert_eq!(*proven, transaction);
    let block = client.block(applied.block).await.unwrap().unwrap();
    assert_eq!(block.payload, Payload::Transaction(Box::new(transaction.clone())));

    let outputs = client.outputs_of(&[destination(), Address::of(&owner().public())]).await.unwrap();
    let received = (OutputId { transaction: id, index: 0 }, transaction.essence.outputs[0]);
    assert_eq!(outputs, Proven { milestone_index: 1, value: vec![received] });
    // A second call finds it applied, without another block.
    assert_eq!(client.submit_and_wait(transaction, Some(0)).await.unwrap(), applied);
    node.submitted(1).await;
    assert_eq!(client.outputs_of(&[]).await.unwrap().value, vec![]);
    assert_eq!(client.info().await.unwrap().network, params().id());
}

#[tokio::test]
async fn a_list_of_many_addresses_goes_across_milestones() {
    let node = ScriptedNode::start(38);
    let client = client(&[&node]);
    let transaction = transfer(&params(), destination());
    let received = (OutputId { transaction: transaction.id(), index: 0 }, transaction.essence.outputs[0]);
    client.submit(Payload::Transaction(Box::new(transaction))).await.unwrap();
    let mut followed = client.follow();
    node.milestone();
    followed.recv().await.unwrap();
    node.hurry();
    let parts = 5;
    let others = (0..).map(|n: u16| {
        let mut bytes = [99; 32];
        bytes[..2].copy_from_slice(&n.to_le_bytes());
        Address::new(bytes)
    });
    let addresses: Vec<_> = others.take((parts - 1) * ADDRESSES_MAX).chain([destination()]).collect();
    let listed = client.outputs_of(&addresses).await.unwrap();
    assert_eq!(
        listed,
        Proven { milestone_index: 1, value: vec![received] },
        "with the milestone of the oldest part"
    );
    assert_eq!(node.newest().index, 1 + u64::try_from(parts).unwrap(), "each part was asked for once");
}

#[tokio::test]
async fn a_double_spend_is_rejected() {
    let node = ScriptedNode::start(32);
    let client = client(&[&node]);
    let first = transfer(&params(), destination());
    let second = transfer(&params(), Address::new([61; 32]));
    client.submit(Payload::Transaction(Box::new(first))).await.unwrap();
    node.milestone();
    let waiting = tokio::spawn({
        let client = client.clone();
        let second = second.clone();
        async move { client.submit_and_wait(second, None).await }
    });
    node.submitted(2).await;
    node.milestone();
    let error = waiting.await.unwrap().unwrap_err();
    let ClientError::Rejected { transaction, milestone_index: 2, conflict } = error else {
        panic!("{error}")
    };
    assert_eq!((transaction, conflict), (second.id(), Conflict::InputMissing));
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn a_forgotten_transaction_is_submitted_again() {
    let node = ScriptedNode::start(33);
    let client = client(&[&node]);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.submit_and_wait(transfer(&params(), destination()), None).await }
    });
    node.submitted(1).await;
    node.forget();
    node.milestone();
    node.submitted(2).await;
    node.milestone();
    assert_eq!(waiting.await.unwrap().unwrap().milestone_index, 2);
}

#[tokio::test]
async fn a_deadline_ends_the_waiting() {
    let node = ScriptedNode::start(34);
    let client = client(&[&node]);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.submit_and_wait(transfer(&params(), destination()), Some(1)).await }
    });
    node.submitted(1).await;
    node.hold();
    node.milestone();
    node.milestone();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Deadline { deadline: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_channel_is_proven_and_announced() {
    let node = ScriptedNode::start(35);
    let client = client(&[&node]);
    let mut followed = client.follow();
    let transaction = open(&params());
    let id = transaction.channel().unwrap();
    assert_eq!(client.channel(id).await.unwrap(), Proven { milestone_index: 0, value: None });
    client.submit(Payload::Transaction(Box::new(transaction))).await.unwrap();
    node.milestone();
    assert_eq!(followed.recv().await.unwrap().channels, [id]);
    let proven = client.channel(id).await.unwrap();
    assert_eq!(proven.milestone_index, 1);
    assert_eq!(proven.value.unwrap().party_a.deposit, Amount::new(999_000));
    let milestone = client.milestone(Some(1)).await.unwrap();
    assert_eq!(milestone.essence, client.newest());
    assert!(matches!(client.milestone(Some(7)).await, Err(ClientError::NoSuchMilestone(Some(7)))));
}

#[tokio::test]
async fn a_node_that_keeps_a_transaction_to_itself_is_left() {
    let (censor, honest) = (ScriptedNode::start(142), ScriptedNode::start(143));
    let nodes = vec![censor.address.clone(), honest.address.clone()];
    let config = ClientConfig::new(params(), nodes, key(50), loopback());
    let client = NodeClient::start(ClientConfig { nodes_at_once: 1, ..config }).unwrap();
    censor.milestone();
    honest.milestone();
    reach(&client, 1).await;
    let waiting = tokio::spawn({
        let client = client.clone();
        let transaction = transfer(&params(), destination());
        async move { client.submit_and_wait(transaction, None).await }
    });
    censor.submitted(1).await;
    // Milestones come, but none with the transaction.
    censor.hold();
    for index in 2..=8 {
        censor.milestone();
        honest.milestone();
        reach(&client, index).await;
    }
    honest.submitted(1).await;
    honest.milestone();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_node_is_not_blamed_for_an_answer_that_has_become_old_here() {
    let node = ScriptedNode::start(36);
    node.milestone();
    let client = client(&[&node]);
    reach(&client, 1).await;
    for _ in 0..=BEHIND_MAX {
        node.milestone();
    }
    reach(&client, BEHIND_MAX + 2).await;
    node.lie(Arc::new(|_, answer, _| {
        Reply::Answer(match answer {
            NodeResponse::Channel { record, proof, .. } => {
                NodeResponse::Channel { milestone_index: 1, record, proof }
            }
            other => other,
        })
    }));
    let link = client.shared().links(1, &[]).await.unwrap().remove(0);
    // Asked for when milestone 1 was the newest, and only checked now.
    let error = client.shared().channel_at(link.clone(), 1, ChannelId::new([1; 32])).await.unwrap_err();
    assert!(matches!(error, ClientError::Stale { .. }) && error.is_retryable(), "{error}");
    assert_eq!(client.faults(), []);
    assert!(link.connection.close_reason().is_none(), "other calls go on");
    // What is older than what was known when it was asked for is the node's fault, as ever.
    client.channel(ChannelId::new([1; 32])).await.unwrap_err();
    assert_eq!(client.faults().len(), 1);
}

#[tokio::test]
async fn all_that_wait_too_long_leave_their_node_once() {
    let node = ScriptedNode::start(37);
    for _ in 0..6 {
        node.milestone();
    }
    let client = client(&[&node]);
    reach(&client, 6).await;
    client.leave_node_of(1);
    node.connection_closed().await;
    node.milestone();
    reach(&client, 7).await;
    let link = client.shared().links(7, &[]).await.unwrap().remove(0);
    for since in 1..6 {
        client.leave_node_of(since);
    }
    assert!(link.connection.close_reason().is_none(), "the next node needs time, too");
    client.leave_node_of(6);
    assert!(link.connection.close_reason().is_some());
}

#[tokio::test]
async fn a_fork_halts_the_client() {
    let node = ScriptedNode::start(40);
    node.milestone();
    let client = client(&[&node]);
    reach(&client, 1).await;
    let known = client.newest();
    let other: Milestone = sign(MilestoneEssence { timestamp_ms: known.timestamp_ms + 1, ..known });
    node.push(other);
    client.view().wait_for(|view| view.halted.is_some()).await.unwrap();
    let error = client.channel(ChannelId::new([1; 32])).await.unwrap_err();
    assert!(matches!(error, ClientError::Halted(_)), "{error}");
    assert!(!error.is_retryable());
    let transaction = transfer(&params(), destination());
    assert!(matches!(client.submit_and_wait(transaction, None).await, Err(ClientError::Halted(_))));
}

#[tokio::test]
async fn it_comes_back_to_a_node_that_restarts() {
    let node = ScriptedNode::start(41);
    node.milestone();
    let client = client(&[&node]);
    reach(&client, 1).await;
    let node = node.restart().await;
    node.milestone();
    reach(&client, 2).await;
    assert_eq!(client.newest(), node.newest());
    assert_eq!(client.channel(ChannelId::new([1; 32])).await.unwrap().milestone_index, 2);
}

#[tokio::test]
async fn the_last_clone_ends_the_connection() {
    let node = ScriptedNode::start(42);
    node.milestone();
    let client = client(&[&node]);
    reach(&client, 1).await;
    let clone = client.clone();
    drop(client);
    assert_eq!(clone.info().await.unwrap().milestone_index, 1);
    drop(clone);
    node.connection_closed().await;
}

#[tokio::test]
async fn refusals_carry_the_nodes_reason() {
    let node = ScriptedNode::start(43);
    let client = client(&[&node]);
    let mut transaction = transfer(&params(), destination());
    transaction.essence = Essence { network: flash_proto::NetworkId::new([1; 32]), ..transaction.essence };
    let error = client.submit_and_wait(transaction, None).await.unwrap_err();
    assert!(error.to_string().contains("another network"), "{error}");
    let data = flash_proto::block::Data { tag: vec![], data: vec![0; 40_000] };
    let error = client.submit(Payload::Data(data)).await.unwrap_err();
    assert!(matches!(error, ClientError::BlockTooLarge { .. }), "{error}");
    assert!(matches!(client.transaction(TransactionId::new([3; 32])).await, Ok(TransactionStatus::Unknown)));
}

#[tokio::test]
async fn a_client_needs_a_node_and_its_own_network() {
    let config = |nodes, checkpoint| ClientConfig {
        checkpoint,
        ..ClientConfig::new(params(), nodes, key(50), loopback())
    };
    assert!(matches!(NodeClient::start(config(vec![], None)), Err(ClientError::NoNodes)));
    let node = ScriptedNode::start(44);
    let mut foreign = LightCore::new(params(), None).unwrap().checkpoint();
    foreign.essence.network = flash_proto::NetworkId::new([9; 32]);
    let nodes = vec![node.address.clone()];
    assert!(matches!(NodeClient::start(config(nodes, Some(foreign))), Err(ClientError::Setup(_))));
}
