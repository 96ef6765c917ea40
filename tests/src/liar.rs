//! A node that passes everything on, but changes some of the answers.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flash_node_client::{
    protocol::{NodeRequest, NodeResponse},
    quic::{
        Endpoint, NODE_ALPN, PeerAddress, StreamLimits,
        frames::{FrameReader, FrameWriter},
    },
};
use flash_proto::{SecretKey, limits};
use quinn::{Connection, RecvStream, SendStream};
use tokio::task::AbortHandle;

const FRAME_BYTES_MAX: usize = limits::NODE_FRAME_BYTES_MAX;

/// A node that lies. Whatever it does not lie about it has from an honest node.
#[derive(Debug)]
pub struct LyingNode {
    /// Where clients connect.
    pub address: PeerAddress,
    told: Arc<AtomicU64>,
    accepting: AbortHandle,
}

impl LyingNode {
    /// A node before `honest` that listens on `host` and does `lie` to every answer, which says whether it lied.
    pub fn start(
        host: IpAddr,
        honest: &PeerAddress,
        lie: impl Fn(&mut NodeResponse) -> bool + Send + Sync + 'static,
    ) -> Self {
        let key = SecretKey::from_bytes(rand::random());
        let limits = StreamLimits { bidirectional: 64 };
        let endpoint = Endpoint::listen(&key, NODE_ALPN, SocketAddr::new(host, 0), limits).expect("a socket");
        let own = endpoint.local_address().expect("it is bound");
        let address = PeerAddress::new(key.public(), own.ip().to_string(), own.port()).expect("an address");
        let told = Arc::<AtomicU64>::default();
        let (honest, count) = (honest.clone(), Arc::clone(&told));
        let lie = Arc::new(move |answer: &mut NodeResponse| {
            count.fetch_add(u64::from(lie(answer)), Ordering::Relaxed);
        });
        let accepting = tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let (honest, lie) = (honest.clone(), Arc::clone(&lie));
                tokio::spawn(async move {
                    let dialler = dialler(NODE_ALPN);
                    let Ok(client) = incoming.await else { return };
                    let Ok(node) = dialler.dial(&honest).await else { return };
                    while let Ok(stream) = client.accept_bi().await {
                        let (node, lie) = (node.clone(), Arc::clone(&lie));
                        tokio::spawn(async move { pass_on(stream, &node, &*lie).await });
                    }
                    node.close(0_u8.into(), b"");
                });
            }
        });
        Self { address, told, accepting: accepting.abort_handle() }
    }

    /// Lies that it has told.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
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
) -> Option<()> {
    let mut asked = FrameReader::new(receive, FRAME_BYTES_MAX);
    let request = asked.message::<NodeRequest, FRAME_BYTES_MAX>().await.ok()??;
    let (to_node, from_node) = node.open_bi().await.ok()?;
    let mut asking = FrameWriter::new(to_node, FRAME_BYTES_MAX);
    asking.send(&request).await.ok()?;
    asking.finish().await.ok()?;
    let mut answers = FrameReader::new(from_node, FRAME_BYTES_MAX);
    let mut writer = FrameWriter::new(send, FRAME_BYTES_MAX);
    while let Some(mut answer) = answers.message::<NodeResponse, FRAME_BYTES_MAX>().await.ok()? {
        lie(&mut answer);
        writer.send(&answer).await.ok()?;
    }
    writer.finish().await.ok()
}
