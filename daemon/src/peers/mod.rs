//! The peers: one QUIC endpoint, one connection to each, one stream for each channel.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`connection`] | greets, accepts streams, opens the streams of the channels that we opened |
//! | [`stream`] | one channel's messages, both ways |
//! | [`dialer`] | keeps connected to the peers that we know how to reach |
//!
//! Nothing a peer sends is kept beyond its share: it waits on its stream instead (I12). What breaks the
//! protocol ends its stream; the peer's other channels go on.

mod connection;
mod dialer;
mod stream;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use flash_node_client::quic::{Endpoint, PeerAddress};
use flash_proto::{
    NetworkId, PublicKey,
    message::{OpenProposal, OpenReply},
};
use thiserror::Error;
use tokio::sync::watch;

use self::connection::Link;
pub(crate) use self::connection::Proposals;
use crate::{
    engine::{Engine, Views},
    metrics::Metrics,
    stop::Stop,
};

/// Streams that a peer may have open at once beside one for each live channel: its greeting and negotiations. QUIC
/// takes memory for each stream that there may be, so that a machine without a channel must not have many.
pub(crate) const STREAMS_BESIDE_CHANNELS: u32 = 16;
/// Handshakes that may be under way at once with machines that have not shown yet that they are where they say.
const HANDSHAKES_UNPROVEN_MAX: usize = 128;
/// The same of machines that have shown it, which costs them a round trip when the others are too many.
const HANDSHAKES_PROVEN_MAX: usize = 128;
/// Machines that are connected and have no live channel with this one, at a time.
const STRANGERS_MAX: usize = 512;
/// So long such a machine may ask for nothing.
const STRANGER_IDLE_MAX: Duration = Duration::from_secs(60);
/// A peer must have greeted within this time.
const GREETING_MAX: Duration = Duration::from_secs(10);
/// An answer to a proposal must come within this time.
const PROPOSAL_MAX: Duration = Duration::from_secs(30);

/// All connections; cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers(Arc<Shared>);

struct Shared {
    endpoint: Endpoint,
    network: NetworkId,
    engine: Engine,
    views: Views,
    proposals: Arc<dyn Proposals>,
    metrics: Metrics,
    stop: Stop,
    links: Mutex<HashMap<PublicKey, Link>>,
    /// Places for machines without a channel.
    strangers: Arc<tokio::sync::Semaphore>,
    /// By peer: one dial at a time, and as many proposals as it takes.
    reaching: Mutex<HashMap<PublicKey, Arc<Reaching>>>,
    /// Rises with every connection that comes or goes.
    changed: watch::Sender<u64>,
    dialers: Mutex<HashMap<PublicKey, watch::Sender<PeerAddress>>>,
}

/// What is shared by those who want something of one peer.
struct Reaching {
    dial: tokio::sync::Mutex<()>,
    proposals: tokio::sync::Semaphore,
}

/// Why a peer did not answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum PeerError {
    /// There is no way to it now.
    #[error("{0}")]
    Unreachable(String),
    /// It refused.
    #[error("{0}")]
    Refused(String),
}

impl Peers {
    pub(crate) fn start(
        endpoint: Endpoint,
        network: NetworkId,
        engine: Engine,
        views: Views,
        proposals: Arc<dyn Proposals>,
        metrics: Metrics,
        stop: Stop,
    ) -> Self {
        let shared = Shared {
            endpoint,
            network,
            engine,
            views,
            proposals,
            metrics,
            stop,
            links: Mutex::default(),
            strangers: Arc::new(tokio::sync::Semaphore::new(STRANGERS_MAX)),
            reaching: Mutex::default(),
            changed: watch::Sender::new(0),
            dialers: Mutex::default(),
        };
        let peers = Self(Arc::new(shared));
        tokio::spawn(peers.clone().accept());
        peers
    }

    async fn accept(self) {
        let unproven = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES_UNPROVEN_MAX));
        let proven = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES_PROVEN_MAX));
        while let Some(incoming) = self.0.endpoint.accept().await {
            let is_proven = incoming.remote_address_validated();
            let handshakes = if is_proven { &proven } else { &unproven };
            let Ok(permit) = Arc::clone(handshakes).try_acquire_owned() else {
                // Whoever forges addresses never hears of this, and cannot keep out those who do.
                if is_proven {
                    incoming.refuse();
                } else if let Err(refused) = incoming.retry() {
                    refused.into_incoming().refuse();
                }
                continue;
            };
            let shared = Arc::clone(&self.0);
            tokio::spawn(async move {
                let accepted = tokio::time::timeout(GREETING_MAX, incoming).await;
                if let Ok(Ok(connection)) = accepted {
                    connection::accepted(shared, connection, permit).await;
                }
            });
        }
    }

    /// Peers connected now.
    pub(crate) fn connected(&self) -> usize {
        self.0.links().len()
    }

    /// Brings the metrics up to what was sent to peers by now.
    pub(crate) fn count_sent(&self) {
        for link in self.0.links().values() {
            link.count_sent(&self.0.metrics);
        }
    }

    /// Keeps connected to a peer for as long as there are live channels with it.
    pub(crate) fn keep(&self, address: PeerAddress) {
        dialer::keep(&self.0, address);
    }

    /// Asks a peer to open a channel.
    ///
    /// # Errors
    /// [`PeerError`].
    pub(crate) async fn propose(
        &self,
        peer: &PeerAddress,
        proposal: OpenProposal,
    ) -> Result<OpenReply, PeerError> {
        let reaching = self.0.reaching(peer.key);
        // More at a time the peer would refuse. Never closed.
        let _permit = reaching.proposals.acquire().await;
        let link = self.0.reach(peer).await?;
        match tokio::time::timeout(PROPOSAL_MAX, connection::propose(&link, proposal)).await {
            Ok(reply) => reply,
            Err(_) => Err(PeerError::Unreachable(format!("{} did not answer in time", peer.key))),
        }
    }

    /// Closes all connections in order.
    pub(crate) async fn close(&self) {
        self.0.endpoint.close().await;
    }
}

impl Shared {
    fn links(&self) -> std::sync::MutexGuard<'_, HashMap<PublicKey, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link_changed(&self) {
        self.metrics.peers.set(i64::try_from(self.links().len()).unwrap_or(i64::MAX));
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The connection to a peer: the one there is, or a new one.
    async fn reach(self: &Arc<Self>, peer: &PeerAddress) -> Result<Link, PeerError> {
        let reaching = self.reaching(peer.key);
        let _dialling = reaching.dial.lock().await;
        if let Some(link) = self.links().get(&peer.key) {
            return Ok(link.clone());
        }
        connection::dial(self, peer).await
    }

    fn reaching(&self, peer: PublicKey) -> Arc<Reaching> {
        let mut reaching = self.reaching.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Reaching {
            dial: tokio::sync::Mutex::new(()),
            proposals: tokio::sync::Semaphore::new(connection::NEGOTIATIONS_MAX),
        };
        Arc::clone(reaching.entry(peer).or_insert_with(|| Arc::new(new())))
    }
}
