//! Nodes that gossip, and a neighbour whose every byte a test writes itself.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use flash_channel::store::MemoryStore;
use flash_proto::{
    Block, BlockId, Hash, NetworkParams, Payload, PublicKey, SecretKey,
    block::{Data, Work},
};
use quinn::Connection;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    gossip::{
        Gossip, GossipConfig, NeighbourInfo, Relay, Verdict,
        message::{GOSSIP_VERSION, Hello, LIVE_FRAME_BYTES_MAX, Live, Reached},
    },
    ledger::tests::support::{coordinators, key, params},
    node::{Node, service},
    protocol::{NodeRequest, NodeResponse},
    quic::{
        Endpoint, GOSSIP_ALPN, NODE_ALPN, PeerAddress, StreamLimits,
        frames::{FrameReader, FrameWriter},
    },
};

/// How long anything may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node that gossips and serves, until it is dropped.
pub(super) struct Member {
    pub(super) node: Node,
    pub(super) gossip: Gossip,
    pub(super) address: PeerAddress,
    stop: Arc<Notify>,
    _serving: JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

impl Member {
    /// A member with key `n` that knows these addresses.
    pub(super) fn new(n: u8, known: &[&Self]) -> Self {
        Self::with(n, known, &params(), &MemoryStore::new(), all())
    }

    pub(super) fn with(
        n: u8,
        known: &[&Self],
        params: &NetworkParams,
        store: &MemoryStore,
        relay: Arc<dyn Relay>,
    ) -> Self {
        Self::with_relay(n, known, params, store, |_| relay)
    }

    pub(super) fn with_relay(
        n: u8,
        known: &[&Self],
        params: &NetworkParams,
        store: &MemoryStore,
        relay: impl FnOnce(Node) -> Arc<dyn Relay>,
    ) -> Self {
        let node = Node::with_store(params.clone(), Box::new(store.clone())).unwrap();
        let kinds = [GOSSIP_ALPN, NODE_ALPN];
        let local = (Ipv4Addr::LOCALHOST, 0).into();
        let endpoint =
            Endpoint::listen_for_all(&key(n), GOSSIP_ALPN, &kinds, local, service::STREAM_LIMITS).unwrap();
        let port = endpoint.local_address().unwrap().port();
        let address = PeerAddress::new(key(n).public(), "127.0.0.1", port).unwrap();
        let neighbours = known.iter().map(|member| member.address.clone()).collect();
        let config = GossipConfig { neighbours, reached: Reached::Port(port), relay: relay(node.clone()) };
        let gossip = Gossip::start(node.clone(), endpoint.clone(), config).unwrap();
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let stopped = async move { stopped.notified().await };
        let serving = tokio::spawn(service::serve_all(node.clone(), endpoint, Some(gossip.clone()), stopped));
        Self { node, gossip, address, stop, _serving: serving }
    }

    pub(super) fn key(&self) -> PublicKey {
        self.address.key
    }

    pub(super) fn neighbour(&self, key: PublicKey) -> Option<NeighbourInfo> {
        self.gossip.neighbours().into_iter().find(|neighbour| neighbour.key == key)
    }

    /// Takes a new block of data on its own tips.
    pub(super) fn data(&self, text: &str) -> BlockId {
        let NodeResponse::Tips(tips) = self.node.answer(NodeRequest::Tips) else { panic!("no tips") };
        self.node.submit(&data_on(self.node.params(), tips, text)).unwrap()
    }

    pub(super) fn has(&self, id: &BlockId) -> bool {
        self.node.block(id).unwrap().is_some()
    }

    pub(super) fn issue(&self, count: usize) {
        for _ in 0..count {
            self.node.issue_milestone(1, &signers()).unwrap();
        }
    }

    pub(super) fn newest(&self) -> u64 {
        *self.node.newest().borrow()
    }

    pub(super) fn root(&self) -> Hash {
        let NodeResponse::Info(info) = self.node.answer(NodeRequest::Info) else { panic!("no info") };
        info.state_root
    }

    /// Whether it works as it should: what it takes goes to `other`.
    pub(super) async fn is_well(&self, other: &Self, text: &str) {
        let id = self.data(text);
        until("a block goes on", || other.has(&id)).await;
        assert_eq!(self.node.halted(), None);
    }
}

/// Passes every message on.
pub(super) fn all() -> Arc<dyn Relay> {
    Arc::new(|_: &[u8]| Verdict::News)
}

/// A relay that judges like `relay` and tells what was news.
pub(super) fn overheard(relay: Arc<dyn Relay>) -> (Arc<dyn Relay>, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (news, heard) = mpsc::unbounded_channel();
    (Arc::new(Overheard { relay, news }), heard)
}

struct Overheard {
    relay: Arc<dyn Relay>,
    news: mpsc::UnboundedSender<Vec<u8>>,
}

impl Relay for Overheard {
    fn judge(&self, message: &[u8]) -> Verdict {
        let verdict = self.relay.judge(message);
        if verdict == Verdict::News {
            // Nobody listening is no error.
            let _ = self.news.send(message.to_vec());
        }
        verdict
    }

    fn held(&self) -> Vec<Vec<u8>> {
        self.relay.held()
    }
}

pub(super) fn signers() -> Vec<SecretKey> {
    coordinators().into_iter().take(2).collect()
}

pub(super) fn worked(params: &NetworkParams, mut block: Block) -> Vec<u8> {
    block.nonce = Work::of(&block.to_bytes()).search(params.pow_bits, 0, u64::MAX).unwrap();
    block.to_bytes()
}

pub(super) fn data_on(params: &NetworkParams, parents: Vec<BlockId>, text: &str) -> Vec<u8> {
    let data = Data { tag: b"test".to_vec(), data: text.as_bytes().to_vec() };
    worked(params, Block::new(parents, Payload::Data(data)))
}

/// Waits until something is so.
pub(super) async fn until(what: &str, so: impl Fn() -> bool) {
    let look = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}

/// A neighbour made by hand.
pub(super) struct Raw {
    pub(super) connection: Connection,
    reader: FrameReader,
    pub(super) writer: FrameWriter,
    _endpoint: Endpoint,
}

impl Raw {
    /// Dials a member and greets it as one that has applied milestone `newest`.
    pub(super) async fn new(n: u8, member: &Member, newest: u64) -> Self {
        let local = (Ipv4Addr::LOCALHOST, 0).into();
        let limits = StreamLimits { bidirectional: 16 };
        let endpoint = Endpoint::dialler(&key(n), GOSSIP_ALPN, local, limits).unwrap();
        let connection = endpoint.dial(&member.address).await.unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        let mut raw = Self {
            connection,
            reader: FrameReader::new(receive, LIVE_FRAME_BYTES_MAX),
            // So that it can send more than is allowed.
            writer: FrameWriter::new(send, 16 * LIVE_FRAME_BYTES_MAX),
            _endpoint: endpoint,
        };
        let network = member.node.params().id();
        let hello =
            Hello { version: GOSSIP_VERSION, features: 0, network, newest, reached: Reached::Nowhere };
        raw.writer.send(&hello).await.unwrap();
        let hello: Hello = raw.reader.message::<Hello, LIVE_FRAME_BYTES_MAX>().await.unwrap().unwrap();
        assert_eq!((hello.network, hello.version), (network, GOSSIP_VERSION));
        until("it is a neighbour", || member.neighbour(key(n).public()).is_some()).await;
        raw
    }

    /// Listens until it is sent this block; its bytes.
    pub(super) async fn hears(&mut self, wanted: BlockId) -> Vec<u8> {
        loop {
            let message = self.reader.message::<Live, LIVE_FRAME_BYTES_MAX>().await.unwrap().unwrap();
            let Live::Blocks(blocks) = message else { continue };
            if let Some(bytes) = blocks.into_iter().find(|bytes| Block::id_of(bytes) == wanted) {
                return bytes;
            }
        }
    }

    pub(super) async fn tell(&mut self, message: &Live) {
        self.writer.send(message).await.unwrap();
    }
}
