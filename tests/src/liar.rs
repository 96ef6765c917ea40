//! A node that passes everything on, but changes some of the answers.

use std::sync::Arc;

use flash_node_client::{
    protocol::{NodeRequest, NodeResponse, TransactionAnswer},
    quic::{
        Endpoint, NODE_ALPN, PeerAddress, StreamLimits,
        frames::{FrameReader, FrameWriter},
    },
};
use flash_proto::{SecretKey, limits};
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
}

impl LyingNode {
    /// A node before `honest`.
    pub fn start(honest: &PeerAddress) -> Self {
        let key = SecretKey::from_bytes(rand::random());
        let local = "127.0.0.1:0".parse().expect("an address");
        let limits = StreamLimits { bidirectional: 64 };
        let endpoint = Endpoint::listen(&key, NODE_ALPN, local, limits).expect("a socket");
        let port = endpoint.local_address().expect("it is bound").port();
        let address = PeerAddress::new(key.public(), "127.0.0.1", port).expect("an address");
        let none = StreamLimits { bidirectional: 0 };
        let dialler = Endpoint::dialler(&key, NODE_ALPN, local, none).expect("a socket");
        let honest = honest.clone();
        let accepting = tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let Ok(client) = incoming.await else { continue };
                let Ok(upstream) = dialler.dial(&honest).await else { continue };
                tokio::spawn(serve(client, Arc::new(upstream)));
            }
        });
        Self { address, accepting: accepting.abort_handle() }
    }
}

impl Drop for LyingNode {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(client: Connection, node: Arc<Connection>) {
    while let Ok(stream) = client.accept_bi().await {
        tokio::spawn(pass_on(stream, Arc::clone(&node)));
    }
    node.close(0_u8.into(), b"");
}

/// Passes one request on, and all answers to it. `None` if either side has left.
async fn pass_on((send, receive): (SendStream, RecvStream), node: Arc<Connection>) -> Option<()> {
    let mut asked = FrameReader::new(receive, FRAME_BYTES_MAX);
    let request = asked.message::<NodeRequest, FRAME_BYTES_MAX>().await.ok()??;
    let (to_node, from_node) = node.open_bi().await.ok()?;
    let mut asking = FrameWriter::new(to_node, FRAME_BYTES_MAX);
    asking.send(&request).await.ok()?;
    asking.finish().await.ok()?;
    let mut answers = FrameReader::new(from_node, FRAME_BYTES_MAX);
    let mut writer = FrameWriter::new(send, FRAME_BYTES_MAX);
    while let Some(answer) = answers.message::<NodeResponse, FRAME_BYTES_MAX>().await.ok()? {
        writer.send(&lie(answer)).await.ok()?;
    }
    writer.finish().await.ok()
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
