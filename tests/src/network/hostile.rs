//! Machines that mean no good: one that floods a node, one that tells its neighbours nonsense, one that lies to
//! its clients.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use flash_node_client::{
    gossip::message::{GOSSIP_VERSION, Hello, LIVE_FRAME_BYTES_MAX, Live, Reached},
    protocol::{NodeRequest, NodeResponse, RefusedCode, TransactionAnswer},
    quic::{
        GOSSIP_ALPN, NODE_ALPN, PeerAddress,
        frames::{FrameReader, FrameWriter},
    },
};
use flash_proto::{Block, Hash, NetworkParams, Payload, block::Data, block::Work, limits};
use quinn::Connection;
use tokio::task::JoinSet;

use crate::liar::{LyingNode, dialler};

const FRAME_BYTES_MAX: usize = limits::NODE_FRAME_BYTES_MAX;
/// Connections of one that floods, all with the same key.
const CONNECTIONS: usize = 4;
/// Blocks of a flood that are on their way at once on each.
const AT_ONCE: usize = 32;
/// Blocks that approve the same ones, so that the flood need not ask all the time.
const BLOCKS_ON_SAME_TIPS: usize = 64;
/// How long a node may take to part with a neighbour that talks nonsense.
const PART_WAIT: Duration = Duration::from_secs(30);

async fn ask(node: &Connection, request: &NodeRequest) -> Option<NodeResponse> {
    let (send, receive) = node.open_bi().await.ok()?;
    let mut writer = FrameWriter::new(send, FRAME_BYTES_MAX);
    writer.send(request).await.ok()?;
    writer.finish().await.ok()?;
    let mut reader = FrameReader::new(receive, FRAME_BYTES_MAX);
    reader.message::<NodeResponse, FRAME_BYTES_MAX>().await.ok()?
}

/// What became of a flood.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flooded {
    /// Blocks that were taken.
    pub(super) taken: u64,
    /// Blocks that would have needed more work.
    pub(super) refused: u64,
}

/// Submits blocks with no more work than the network asks for, as fast as the node takes them.
pub(super) async fn flood(node: &PeerAddress, pow_bits: u8, time: Duration) -> Flooded {
    let endpoint = dialler(NODE_ALPN);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.extend(endpoint.dial(node).await);
    }
    let (taken, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let until = Instant::now() + time;
    let mut senders = JoinSet::new();
    for connection in connections.iter().cycle().take(connections.len() * AT_ONCE) {
        let (connection, taken, refused) = (connection.clone(), Arc::clone(&taken), Arc::clone(&refused));
        senders.spawn(async move {
            let mut parents = Vec::new();
            for count in 0_usize.. {
                if Instant::now() > until {
                    return;
                }
                if count.is_multiple_of(BLOCKS_ON_SAME_TIPS) {
                    let tips = ask(&connection, &NodeRequest::Tips).await;
                    let Some(NodeResponse::Tips(tips)) = tips else { return };
                    parents = tips.into_iter().take(limits::PARENTS_MAX).collect();
                }
                let data = Data { tag: b"flood".to_vec(), data: rand::random::<[u8; 32]>().to_vec() };
                let mut block = Block::new(parents.clone(), Payload::Data(data));
                block.nonce = Work::of(&block.to_bytes()).search(pow_bits, 0, u64::MAX).expect("a nonce");
                match ask(&connection, &NodeRequest::Submit(block.to_bytes())).await {
                    Some(NodeResponse::Submitted(_)) => taken.fetch_add(1, Ordering::Relaxed),
                    Some(NodeResponse::Refused(refusal))
                        if matches!(refusal.code, RefusedCode::MoreWork { .. }) =>
                    {
                        refused.fetch_add(1, Ordering::Relaxed)
                    }
                    Some(_) => 0,
                    None => return,
                };
            }
        });
    }
    while senders.join_next().await.is_some() {}
    Flooded { taken: taken.load(Ordering::Relaxed), refused: refused.load(Ordering::Relaxed) }
}

/// Becomes a node's neighbour, claims to be far ahead and sends blocks that are none; whether the node parts with
/// it and does not take it back.
pub(super) async fn talk_nonsense(node: &PeerAddress, params: &NetworkParams) -> Result<(), String> {
    let endpoint = dialler(GOSSIP_ALPN);
    let connection = endpoint.dial(node).await.map_err(|error| format!("the liar is not let in: {error}"))?;
    let (mut writer, _reader) = greet(&connection, params).await.ok_or("the liar is not greeted")?;
    // The node may have parted with it before all of this is sent.
    for number in 0..20_u8 {
        let block = Block::new(vec![params.genesis_block()], Payload::Empty);
        let mut bytes = block.to_bytes();
        bytes.push(number);
        if writer.send(&Live::Blocks(vec![bytes])).await.is_err() {
            break;
        }
    }
    let parted = tokio::time::timeout(PART_WAIT, connection.closed()).await;
    parted.map_err(|_| "a node keeps a neighbour that sends blocks that are none".to_owned())?;
    let again = endpoint.dial(node).await.map_err(|error| error.to_string())?;
    let kept = async {
        let (_writer, mut reader) = greet(&again, params).await?;
        // Whoever is not wanted hears no more than a greeting.
        while reader.message::<Live, LIVE_FRAME_BYTES_MAX>().await.ok()?.is_some() {}
        None::<()>
    };
    let ended = tokio::time::timeout(PART_WAIT, kept).await;
    ended.map(|_| ()).map_err(|_| "a node takes a neighbour back that it has dropped".to_owned())
}

async fn greet(connection: &Connection, params: &NetworkParams) -> Option<(FrameWriter, FrameReader)> {
    let (send, receive) = connection.open_bi().await.ok()?;
    let mut writer = FrameWriter::new(send, LIVE_FRAME_BYTES_MAX);
    let mut reader = FrameReader::new(receive, LIVE_FRAME_BYTES_MAX);
    let hello = Hello {
        version: GOSSIP_VERSION,
        features: 0,
        network: params.id(),
        newest: u64::MAX / 2,
        reached: Reached::Nowhere,
    };
    writer.send(&hello).await.ok()?;
    reader.message::<Hello, LIVE_FRAME_BYTES_MAX>().await.ok()??;
    Some((writer, reader))
}

/// A node that passes on what an honest one says, until it is told to lie.
#[derive(Debug)]
pub(super) struct Liar {
    node: LyingNode,
    lies: Arc<AtomicBool>,
}

impl Liar {
    /// Starts it in front of an honest node.
    pub(super) fn start(host: IpAddr, honest: &PeerAddress) -> Self {
        let lies = Arc::new(AtomicBool::new(false));
        let told_to = Arc::clone(&lies);
        let lie = move |answer: &mut NodeResponse| told_to.load(Ordering::Relaxed) && falsify(answer);
        Self { node: LyingNode::start(host, honest, lie), lies }
    }

    /// Where clients reach it.
    pub(super) fn address(&self) -> &PeerAddress {
        &self.node.address
    }

    /// Lies from now on.
    pub(super) fn lie(&self) {
        self.lies.store(true, Ordering::Relaxed);
    }

    /// Lies that it has told.
    pub(super) fn told(&self) -> u64 {
        self.node.told()
    }
}

/// Makes an answer a lie; whether there is one to tell.
fn falsify(answer: &mut NodeResponse) -> bool {
    match answer {
        NodeResponse::Followed(followed) => {
            followed.milestone.essence.state_root = Hash::new(rand::random());
        }
        NodeResponse::Channel { record, .. } => *record = None,
        NodeResponse::Outputs { outputs, .. } => {
            let Some((_, output, _)) = outputs.first_mut() else { return false };
            output.amount = output.amount.checked_add(output.amount).unwrap_or_default();
        }
        NodeResponse::Transaction(answer) => match answer.as_mut() {
            TransactionAnswer::Applied { block, .. } => block.reverse(),
            _ => return false,
        },
        _ => return false,
    }
    true
}
