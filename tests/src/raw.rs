//! The node's protocol without the checks and the good manners of the real client.

use std::collections::BTreeSet;

use flash_node_client::{
    protocol::{NodeRequest, NodeResponse},
    quic::{
        Endpoint, NODE_ALPN, PeerAddress, StreamLimits,
        frames::{FrameReader, FrameWriter},
    },
};
use flash_proto::{Block, BlockId, ChannelId, Payload, SecretKey, Transaction, limits};

const FRAME_BYTES_MAX: usize = limits::NODE_FRAME_BYTES_MAX;

/// A connection to a node.
#[derive(Debug)]
pub struct RawNode {
    connection: quinn::Connection,
    /// Kept open.
    _endpoint: Endpoint,
}

impl RawNode {
    /// Connects.
    pub async fn connect(node: &PeerAddress) -> Self {
        let key = SecretKey::from_bytes(rand::random());
        let any = "0.0.0.0:0".parse().expect("an address");
        let endpoint = Endpoint::dialler(&key, NODE_ALPN, any, StreamLimits { bidirectional: 0 });
        let endpoint = endpoint.expect("a socket");
        let connection = endpoint.dial(node).await.expect("the node answers");
        Self { connection, _endpoint: endpoint }
    }

    /// A new stream to the node.
    pub async fn stream(&self) -> (quinn::SendStream, quinn::RecvStream) {
        self.connection.open_bi().await.expect("a stream")
    }

    /// Asks one thing.
    pub async fn ask(&self, request: &NodeRequest) -> NodeResponse {
        let (send, receive) = self.stream().await;
        let mut writer = FrameWriter::new(send, FRAME_BYTES_MAX);
        writer.send(request).await.expect("the request goes out");
        writer.finish().await.expect("the stream ends");
        let mut reader = FrameReader::new(receive, FRAME_BYTES_MAX);
        reader.message::<NodeResponse, FRAME_BYTES_MAX>().await.expect("an answer").expect("an answer")
    }

    /// Blocks to approve.
    pub async fn tips(&self) -> Vec<BlockId> {
        match self.ask(&NodeRequest::Tips).await {
            NodeResponse::Tips(tips) => tips,
            other => panic!("tips: {other:?}"),
        }
    }

    /// Every block that the tips lead to.
    pub async fn tangle(&self, pow_bits: u8) -> Vec<Block> {
        let (mut seen, mut blocks) = (BTreeSet::new(), Vec::new());
        let mut next = self.tips().await;
        while let Some(id) = next.pop() {
            if !seen.insert(id) {
                continue;
            }
            // The genesis is no block.
            let NodeResponse::Block(Some(bytes)) = self.ask(&NodeRequest::Block(id)).await else { continue };
            let block = Block::from_bytes(&bytes, pow_bits).expect("a valid block");
            next.extend_from_slice(&block.parents);
            blocks.push(block);
        }
        blocks
    }

    /// Every transaction in the Tangle that opens a channel or acts on it, each once.
    pub async fn transactions_of(&self, channel: ChannelId, pow_bits: u8) -> Vec<Transaction> {
        let mut seen = BTreeSet::new();
        let transactions = self.tangle(pow_bits).await.into_iter().filter_map(|block| match block.payload {
            Payload::Transaction(transaction) => Some(*transaction),
            _ => None,
        });
        transactions
            .filter(|transaction| transaction.channel() == Some(channel) && seen.insert(transaction.id()))
            .collect()
    }
}
