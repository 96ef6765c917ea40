//! A node that passes everything on, but changes some of the answers, loses what it is given, or is late.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flash_node_client::{
    protocol::{NodeRequest, NodeResponse, Refused, RefusedCode},
    quic::{
        Endpoint, NODE_ALPN, PeerAddress, StreamLimits,
        frames::{FrameReader, FrameWriter},
    },
};
use flash_proto::{Block, SecretKey, limits};
use quinn::{Connection, RecvStream, SendStream};
use tokio::{sync::watch, task::AbortHandle};

const FRAME_BYTES_MAX: usize = limits::NODE_FRAME_BYTES_MAX;

/// A node that lies. Whatever it does not lie about it has from an honest node.
#[derive(Debug)]
pub struct LyingNode {
    /// Where clients connect.
    pub address: PeerAddress,
    told: Arc<AtomicU64>,
    losses: Arc<AtomicU64>,
    late: watch::Sender<bool>,
    accepting: AbortHandle,
}

impl LyingNode {
    /// A node before `honest` that listens on `host` and does `lie` to every answer, which says whether it lied.
    pub fn start(
        host: IpAddr,
        honest: &PeerAddress,
        lie: impl Fn(&mut NodeResponse) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::with(host, honest, lie, 0)
    }

    /// A node before `honest` that tells the truth, but refuses, claims to have taken, or does not answer to the
    /// first `count` blocks that it is given, and passes none of these on.
    pub fn losing(host: IpAddr, honest: &PeerAddress, count: u64) -> Self {
        Self::with(host, honest, |_| false, count)
    }

    fn with(
        host: IpAddr,
        honest: &PeerAddress,
        lie: impl Fn(&mut NodeResponse) -> bool + Send + Sync + 'static,
        losses: u64,
    ) -> Self {
        let key = SecretKey::from_bytes(rand::random());
        let limits = StreamLimits { bidirectional: 64 };
        let endpoint = Endpoint::listen(&key, NODE_ALPN, SocketAddr::new(host, 0), limits).expect("a socket");
        let own = endpoint.local_address().expect("it is bound");
        let address = PeerAddress::new(key.public(), own.ip().to_string(), own.port()).expect("an address");
        let told = Arc::<AtomicU64>::default();
        let losses = Arc::new(AtomicU64::new(losses));
        let late = watch::Sender::new(false);
        let is_late = late.subscribe();
        let (honest, count, lost) = (honest.clone(), Arc::clone(&told), Arc::clone(&losses));
        let lie = Arc::new(move |answer: &mut NodeResponse| {
            count.fetch_add(u64::from(lie(answer)), Ordering::Relaxed);
        });
        let accepting = tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let (honest, lie, lost) = (honest.clone(), Arc::clone(&lie), Arc::clone(&lost));
                let is_late = is_late.clone();
                tokio::spawn(async move {
                    let dialler = dialler(NODE_ALPN);
                    let Ok(client) = incoming.await else { return };
                    let Ok(node) = dialler.dial(&honest).await else { return };
                    while let Ok(stream) = client.accept_bi().await {
                        let (node, lie, lost) = (node.clone(), Arc::clone(&lie), Arc::clone(&lost));
                        let is_late = is_late.clone();
                        tokio::spawn(async move { pass_on(stream, &node, &*lie, (&lost, is_late)).await });
                    }
                    node.close(0_u8.into(), b"");
                });
            }
        });
        Self { address, told, losses, late, accepting: accepting.abort_handle() }
    }

    /// While it is late, it holds back the milestones; everything else it answers as if nothing were.
    pub fn is_late(&self, late: bool) {
        self.late.send_replace(late);
    }

    /// Lies that it has told.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// From now on it loses so many blocks.
    pub fn loses(&self, count: u64) {
        self.losses.store(count, Ordering::Relaxed);
    }

    /// How many more blocks it will lose.
    pub fn still_loses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }
}

impl Drop for LyingNode {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One that dials with a key of its own.
pub(crate) fn dialler(alpn: &'static [u8]) -> Endpoint {
    let key = SecretKey::from_bytes(rand::random());
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    Endpoint::dialler(&key, alpn, any, StreamLimits { bidirectional: 0 }).expect("a socket")
}

/// Passes one request on, and all answers to it. `None` if either side has left.
async fn pass_on(
    (send, receive): (SendStream, RecvStream),
    node: &Connection,
    lie: &(impl Fn(&mut NodeResponse) + Sync),
    (losses, mut late): (&AtomicU64, watch::Receiver<bool>),
) -> Option<()> {
    let mut asked = FrameReader::new(receive, FRAME_BYTES_MAX);
    let request = asked.message::<NodeRequest, FRAME_BYTES_MAX>().await.ok()??;
    if let NodeRequest::Submit(block) = &request
        && let Ok(left) =
            losses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
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
    while let Some(mut answer) = answers.message::<NodeResponse, FRAME_BYTES_MAX>().await.ok()? {
        if matches!(answer, NodeResponse::Followed(_)) {
            late.wait_for(|late| !late).await.ok()?;
        }
        lie(&mut answer);
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
