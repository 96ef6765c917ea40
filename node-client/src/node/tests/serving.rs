//! Over real QUIC on loopback.

use std::{net::Ipv4Addr, sync::Arc};

use flash_channel::store::MemoryStore;
use flash_proto::{
    Block, CoordinatorHistory, Milestone, MilestoneEssence, NetworkParams, Payload,
    block::{Data, Work},
    limits::NODE_FRAME_BYTES_MAX,
};
use quinn::Connection;
use tokio::{sync::Notify, task::JoinHandle};

use super::support::*;
use crate::{
    ledger::{genesis::genesis_essence, tests::support::*},
    node::{
        Node, NodeError,
        service::{STREAM_LIMITS, serve},
    },
    protocol::{NodeRequest, NodeResponse, RefusedCode},
    quic::{
        Endpoint, NODE_ALPN,
        frames::{FrameReader, FrameWriter},
    },
};

/// A node that is served, and a client's connection to it.
struct Served {
    node: Node,
    connection: Connection,
    stop: Arc<Notify>,
    serving: JoinHandle<()>,
    _client: Endpoint,
}

impl Served {
    async fn new(store: &MemoryStore) -> Self {
        Self::of(node_on(store)).await
    }

    async fn of(node: Node) -> Self {
        let local = (Ipv4Addr::LOCALHOST, 0).into();
        let endpoint = Endpoint::listen(&key(1), NODE_ALPN, local, STREAM_LIMITS).unwrap();
        let address = endpoint.local_address().unwrap();
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let serving = tokio::spawn(serve(node.clone(), endpoint, async move { stopped.notified().await }));
        let client = Endpoint::dialler(&key(2), NODE_ALPN, local, STREAM_LIMITS).unwrap();
        let connection = client.connect(address, key(1).public()).await.unwrap();
        Self { node, connection, stop, serving, _client: client }
    }

    async fn send(&self, request: &NodeRequest) -> FrameReader {
        let (send, receive) = self.connection.open_bi().await.unwrap();
        let mut writer = FrameWriter::new(send, NODE_FRAME_BYTES_MAX);
        writer.send(request).await.unwrap();
        writer.finish().await.unwrap();
        FrameReader::new(receive, NODE_FRAME_BYTES_MAX)
    }

    async fn ask(&self, request: NodeRequest) -> NodeResponse {
        let mut reader = self.send(&request).await;
        let response = next(&mut reader).await.unwrap();
        assert!(reader.next().await.unwrap().is_none(), "one answer for one question");
        response
    }

    async fn close(self) {
        self.stop.notify_one();
        self.serving.await.unwrap();
    }
}

async fn next(reader: &mut FrameReader) -> Option<NodeResponse> {
    reader.message::<NodeResponse, NODE_FRAME_BYTES_MAX>().await.unwrap()
}

async fn followed(reader: &mut FrameReader) -> Milestone {
    match next(reader).await {
        Some(NodeResponse::Followed(followed)) => followed.milestone,
        other => panic!("{other:?}"),
    }
}

fn issue(node: &Node, count: u64) {
    for _ in 0..count {
        node.issue_milestone(1, &signers()).unwrap();
    }
}

#[tokio::test]
async fn who_follows_gets_every_milestone_across_a_restart() {
    let store = MemoryStore::new();
    let mut last: MilestoneEssence = genesis_essence(&params());
    let mut check = |milestone: Milestone| {
        CoordinatorHistory::new(&params()).verify(&milestone).unwrap();
        milestone.essence.follows(&last).unwrap();
        last = milestone.essence;
        last.index
    };
    let served = Served::new(&store).await;
    // More than a node keeps in memory, so that the first come from the disk.
    issue(&served.node, 150);
    let mut reader = served.send(&NodeRequest::Follow { after: 0 }).await;
    for index in 1..=150 {
        assert_eq!(check(followed(&mut reader).await), index);
    }
    issue(&served.node, 3);
    for index in 151..=153 {
        assert_eq!(check(followed(&mut reader).await), index);
    }
    served.close().await;

    let served = Served::new(&store.reopen()).await;
    issue(&served.node, 2);
    let mut reader = served.send(&NodeRequest::Follow { after: 153 }).await;
    for index in 154..=155 {
        assert_eq!(check(followed(&mut reader).await), index);
    }
    served.close().await;
}

#[tokio::test]
async fn a_client_sends_money_over_the_wire() {
    let served = Served::new(&MemoryStore::new()).await;
    let params = params();
    let pay = transfer(&params, &[genesis_coin(&params, 1)], vec![output(4, 1_000_000)]);
    let NodeResponse::Tips(parents) = served.ask(NodeRequest::Tips).await else { panic!("no tips") };
    let block = Block::new(parents, Payload::Transaction(Box::new(pay.clone())));
    let bytes = worked(&params, block);
    let id = Block::id_of(&bytes);
    assert_eq!(served.ask(NodeRequest::Submit(bytes)).await, NodeResponse::Submitted(id));
    issue(&served.node, 1);
    let answer = served.ask(NodeRequest::Transaction(pay.id())).await;
    assert_eq!(answer, served.node.answer(NodeRequest::Transaction(pay.id())));
    served.close().await;
}

#[tokio::test]
async fn malformed_requests_are_refused_and_harm_nobody() {
    let served = Served::new(&MemoryStore::new()).await;
    let too_long = [&200_000_u32.to_le_bytes()[..], &[0; 100]].concat();
    for bytes in [vec![1, 0, 0, 0, 200], vec![0; 4], too_long] {
        let (mut send, receive) = served.connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        let mut reader = FrameReader::new(receive, NODE_FRAME_BYTES_MAX);
        assert_eq!(refused(next(&mut reader).await.unwrap()).code, RefusedCode::Malformed);
    }
    assert!(matches!(served.ask(NodeRequest::Info).await, NodeResponse::Info(_)));
    // More streams that follow than one client may have.
    let mut streams = Vec::new();
    issue(&served.node, 1);
    for _ in 0..4 {
        let mut reader = served.send(&NodeRequest::Follow { after: 0 }).await;
        followed(&mut reader).await;
        streams.push(reader);
    }
    let mut reader = served.send(&NodeRequest::Follow { after: 0 }).await;
    assert_eq!(refused(next(&mut reader).await.unwrap()).code, RefusedCode::Busy);
    served.close().await;
}

#[tokio::test]
async fn who_follows_hears_that_the_node_stopped() {
    let store = MemoryStore::new();
    let served = Served::new(&store).await;
    issue(&served.node, 1);
    let mut reader = served.send(&NodeRequest::Follow { after: 0 }).await;
    followed(&mut reader).await;
    store.fail_next(flash_channel::store::Fault::Io);
    assert!(matches!(served.node.issue_milestone(1, &signers()), Err(NodeError::Halted(_))));
    assert_eq!(refused(next(&mut reader).await.unwrap()).code, RefusedCode::Halted);
    served.close().await;
}

/// A client that submits without end is asked for more and more work, which the client software does by
/// itself; another client's block goes in with no more than the network's.
#[tokio::test]
async fn a_flood_of_one_client_keeps_no_other_out() {
    // What drains in the time of this test is less than a block, however slow the machine.
    let params = NetworkParams { milestone_interval_ms: 24 * 3_600_000, ..params() };
    let node = Node::with_store(params.clone(), Box::new(MemoryStore::new())).unwrap();
    let served = Served::of(node).await;
    let submit = |n: usize, bits| {
        let data = Data { tag: b"flood".to_vec(), data: n.to_le_bytes().to_vec() };
        let mut block = Block::new(vec![params.genesis_block()], Payload::Data(data));
        block.nonce = Work::of(&block.to_bytes()).search(bits, 0, u64::MAX).unwrap();
        served.ask(NodeRequest::Submit(block.to_bytes()))
    };
    let mut asked = None;
    for n in 0..5_000 {
        if let NodeResponse::Refused(refused) = submit(n, params.pow_bits).await {
            asked = Some((n, refused.code));
            break;
        }
    }
    let Some((n, RefusedCode::MoreWork { bits })) = asked else { panic!("{asked:?}") };
    // The burst of a client of the node's own host.
    assert_eq!((n, bits), (2_048, params.pow_bits + 1));
    assert!(matches!(submit(n, bits).await, NodeResponse::Submitted(_)));

    let local = (Ipv4Addr::LOCALHOST, 0).into();
    let honest = Endpoint::dialler(&key(3), NODE_ALPN, local, STREAM_LIMITS).unwrap();
    let connection = honest.connect(served.connection.remote_address(), key(1).public()).await.unwrap();
    let block = worked(&params, Block::new(vec![params.genesis_block()], Payload::Empty));
    let (send, receive) = connection.open_bi().await.unwrap();
    let mut writer = FrameWriter::new(send, NODE_FRAME_BYTES_MAX);
    writer.send(&NodeRequest::Submit(block)).await.unwrap();
    let answer = next(&mut FrameReader::new(receive, NODE_FRAME_BYTES_MAX)).await;
    assert!(matches!(answer, Some(NodeResponse::Submitted(_))), "{answer:?}");
    served.close().await;
}
