//! A node that passes everything on, but changes some of the answers, or loses what it is given.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use flash_node_client::{
    protocol::{NodeRequest, NodeResponse, Refused, RefusedCode, TransactionAnswer},
    quic::{
        Endpoint, NODE_ALPN, PeerAddress, StreamLimits,
        frames::{FrameReader, FrameWriter},
    },
};
use flash_proto::{Block, SecretKey, limits};
use quinn::{Connection, RecvStream, SendStream};
use tokio::task::AbortHandle;

const FRAME_BYTES_MAX: usize = limits::NODE_FRAME_BYTES_MAX;

/// A node that lies about channels, outputs and transactions. Its milestones are true: it has them from an
/// honest node.
#[derive(Debug)]
pub struct LyingNode {
    /// Where clients connect.
    pub address: PeerAddress,
    accepting: AbortHandle,
    ways: Arc<Ways>,
}

/// What such a node does.
#[derive(Debug, Default)]
struct Ways {
    /// It lies about channels, outputs and transactions.
    lies: bool,
    /// So many more blocks that it is given get lost, each in the next of several ways.
    loses: AtomicU64,
}

impl LyingNode {
    /// A node before `honest` that lies.
    pub fn start(honest: &PeerAddress) -> Self {
        Self::with(honest, Ways { lies: true, ..Ways::default() })
    }

    /// A node before `honest` that tells the truth, but refuses, claims to have taken, or does not answer to the
    /// first `count` blocks that it is given, and passes none of these on.
    pub fn losing(honest: &PeerAddress, count: u64) -> Self {
        Self::with(honest, Ways { loses: count.into(), ..Ways::default() })
    }

    /// How many more blocks it will lose.
    pub fn still_loses(&self) -> u64 {
        self.ways.loses.load(Ordering::Relaxed)
    }

    fn with(honest: &PeerAddress, ways: Ways) -> Self {
        let ways = Arc::new(ways);
        let key = SecretKey::from_bytes(rand::random());
        let local = "127.0.0.1:0".parse().expect("an address");
        let limits = StreamLimits { bidirectional: 64 };
        let endpoint = Endpoint::listen(&key, NODE_ALPN, local, limits).expect("a socket");
        let port = endpoint.local_address().expect("it is bound").port();
        let address = PeerAddress::new(key.public(), "127.0.0.1", port).expect("an address");
        let none = StreamLimits { bidirectional: 0 };
        let dialler = Endpoint::dialler(&key, NODE_ALPN, local, none).expect("a socket");
        let honest = honest.clone();
        let shared = Arc::clone(&ways);
        let accepting = tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let Ok(client) = incoming.await else { continue };
                let Ok(upstream) = dialler.dial(&honest).await else { continue };
                tokio::spawn(serve(client, Arc::new(upstream), Arc::clone(&shared)));
            }
        });
        Self { address, accepting: accepting.abort_handle(), ways }
    }
}

impl Drop for LyingNode {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(client: Connection, node: Arc<Connection>, ways: Arc<Ways>) {
    while let Ok(stream) = client.accept_bi().await {
        tokio::spawn(pass_on(stream, Arc::clone(&node), Arc::clone(&ways)));
    }
    node.close(0_u8.into(), b"");
}

/// Passes one request on, and all answers to it. `None` if either side has left.
async fn pass_on(
    (send, receive): (SendStream, RecvStream),
    node: Arc<Connection>,
    ways: Arc<Ways>,
) -> Option<()> {
    let mut asked = FrameReader::new(receive, FRAME_BYTES_MAX);
    let request = asked.message::<NodeRequest, FRAME_BYTES_MAX>().await.ok()??;
    if let NodeRequest::Submit(block) = &request
        && let Ok(left) =
            ways.loses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
    {
        let answer = lose(left, block)?;
        let mut writer = FrameWriter::new(send, FRAME_BYTES_MAX);
        writer.send(&answer).await.ok()?;
        return writer.finish().await.ok();
    }
    let (to_node, from_node) = node.open_bi().await.ok()?;
    let mut asking = FrameWriter::new(to_node, FRAME_BYTES_MAX);
    asking.send(&request).await.ok()?;
    asking.finish().await.ok()?;
    let mut answers = FrameReader::new(from_node, FRAME_BYTES_MAX);
    let mut writer = FrameWriter::new(send, FRAME_BYTES_MAX);
    while let Some(answer) = answers.message::<NodeResponse, FRAME_BYTES_MAX>().await.ok()? {
        let answer = if ways.lies { lie(answer) } else { answer };
        writer.send(&answer).await.ok()?;
    }
    writer.finish().await.ok()
}

/// What is said about a block that gets lost, if anything.
fn lose(left: u64, block: &[u8]) -> Option<NodeResponse> {
    let refused = |code| NodeResponse::Refused(Refused { code, reason: "not today".to_owned() });
    match left % 4 {
        0 => Some(refused(RefusedCode::Busy)),
        1 => Some(refused(RefusedCode::InvalidBlock)),
        2 => Some(NodeResponse::Submitted(Block::id_of(block))),
        _ => None,
    }
}

fn lie(answer: NodeResponse) -> NodeResponse {
    match answer {
        NodeResponse::Channel { milestone_index, record: Some(_), proof } => {
            NodeResponse::Channel { milestone_index, record: None, proof }
        }
        NodeResponse::Outputs { milestone_index, .. } => {
            NodeResponse::Outputs { milestone_index, outputs: Vec::new() }
        }
        NodeResponse::Transaction(_) => NodeResponse::Transaction(Box::new(TransactionAnswer::Unknown)),
        answer => answer,
    }
}
