//! Nodes that keep each other up to date: neighbours over QUIC.
//!
//! Every block that a node takes in goes to all its neighbours that do not have it; what is missed is asked
//! for. Whoever is behind is sent everything that milestones confirmed, in order. Neighbours find each other
//! from one address: each tells the others whom it has reached. Each is judged by what it brings, and one
//! that breaks the rules or does not answer is dropped.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`message`] | what nodes say to each other |
//! | `book`, `neighbours`, `orphans`, `recent` | the rules, pure |
//! | `state`, `roster` | what all tasks share, and who the neighbours are |
//! | `mesh` | who is a neighbour: dialling, accepting, dropping |
//! | `link` | one neighbour: greeting, what is new in both directions |
//! | `relay` | which coordinators' messages go on |
//! | `ask`, `answer` | a request and its answer, on either side |
//! | `intake` | taking in what neighbours send |
//! | `sync` | catching up |
//!
//! Nothing that a neighbour sends takes more memory than the constants named `…_MAX` allow.

mod answer;
mod ask;
mod book;
mod intake;
mod link;
mod mesh;
pub mod message;
mod neighbours;
mod orphans;
mod recent;
mod relay;
mod roster;
mod state;
mod sync;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use flash_proto::PublicKey;
use quinn::{Connection, VarInt};
use thiserror::Error;
use tokio::{sync::mpsc, task::AbortHandle};

pub use self::relay::{Relay, Verdict};
use self::{
    message::{COORDINATOR_BYTES_MAX, Live, Reached},
    state::{ACCEPTED_WAITING_MAX, CLOSE_DONE, Channels, INTAKE_MAX, Shared},
};
use crate::{
    node::{Node, NodeError},
    quic::{Endpoint, PeerAddress},
};

/// Neighbours that a node looks for.
pub const WANTED: usize = 8;
/// Neighbours that a node has at most.
pub const NEIGHBOURS_MAX: usize = 16;

/// How a node takes part.
#[derive(Clone)]
pub struct GossipConfig {
    /// Addresses given by hand.
    pub neighbours: Vec<PeerAddress>,
    /// Where others reach this node.
    pub reached: Reached,
    /// Which coordinators' messages are passed on: the [`Floodgate`](crate::node::Floodgate) decides that.
    pub relay: Arc<dyn Relay>,
}

impl std::fmt::Debug for GossipConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { neighbours, reached, relay: _ } = self;
        f.debug_struct("GossipConfig")
            .field("neighbours", neighbours)
            .field("reached", reached)
            .finish_non_exhaustive()
    }
}

/// What is known of a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourInfo {
    /// Its key.
    pub key: PublicKey,
    /// Where it is reached, if that is known.
    pub address: Option<PeerAddress>,
    /// Whether it dialled this node.
    pub inbound: bool,
    /// Between −100, at which it is dropped, and 100.
    pub score: i32,
    /// The newest milestone that it says it has applied.
    pub newest_milestone: u64,
    /// Blocks that it sent.
    pub received_blocks: u64,
    /// Those that were new and good.
    pub new_blocks: u64,
    /// Those that break the rules.
    pub invalid_blocks: u64,
    /// Those that were dropped because it sent too many with too little work.
    pub dropped_blocks: u64,
    /// For how long it has been a neighbour, in seconds.
    pub connected_seconds: u64,
}

/// A message that cannot be sent to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a coordinator's message has 1 to {COORDINATOR_BYTES_MAX} bytes, not {0}")]
pub struct FloodError(usize);

/// A node's part in the gossip. A clone is the same; the last one that is dropped ends it.
#[derive(Clone, Debug)]
pub struct Gossip {
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    background: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.background.abort();
        self.shared.close_all();
    }
}

impl Gossip {
    /// Takes part. `endpoint` dials [`GOSSIP_ALPN`](crate::quic::GOSSIP_ALPN); what it accepts of that kind
    /// must be handed to [`Gossip::accept`]. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`NodeError`] if the addresses kept from last time cannot be read.
    pub fn start(node: Node, endpoint: Endpoint, config: GossipConfig) -> Result<Self, NodeError> {
        let (intake, parcels) = mpsc::channel(INTAKE_MAX);
        let (accepted, accepting) = mpsc::channel(ACCEPTED_WAITING_MAX);
        let (claims, claimed) = mpsc::channel(ACCEPTED_WAITING_MAX);
        let channels = Channels { intake, accepted, claims };
        let shared = Arc::new(Shared::new(node, endpoint, config, channels)?);
        let running = mesh::run(Arc::clone(&shared), accepting, parcels, claimed);
        let background = tokio::spawn(running).abort_handle();
        Ok(Self { running: Arc::new(Running { shared, background }) })
    }

    /// Takes over a connection that another node dialled.
    pub fn accept(&self, connection: Connection) {
        if let Err(error) = self.shared().channels.accepted.try_send(connection) {
            error.into_inner().close(VarInt::from_u32(CLOSE_DONE), b"busy");
        }
    }

    /// All neighbours, in the order of their keys.
    pub fn neighbours(&self) -> Vec<NeighbourInfo> {
        self.shared().neighbours()
    }

    /// Makes the node there a neighbour, now or as soon as it can be reached, also one that was dropped or
    /// removed before.
    pub fn add(&self, address: PeerAddress) {
        self.shared().add(address);
    }

    /// Parts with a neighbour and forgets its address: for ten minutes it is neither dialled nor accepted,
    /// unless it is added again. Whether it was known.
    pub fn remove(&self, key: &PublicKey) -> bool {
        self.shared().remove(key)
    }

    /// Sends a coordinator's message to all nodes.
    ///
    /// # Errors
    /// [`FloodError`] if it is empty or too long.
    pub fn flood(&self, message: Vec<u8>) -> Result<(), FloodError> {
        if message.is_empty() || message.len() > COORDINATOR_BYTES_MAX {
            return Err(FloodError(message.len()));
        }
        self.shared().remember_flooded(&message);
        // It goes out in any case; so those hear of it, too, who come later.
        self.shared().relay.judge(&message);
        self.shared().tell_all(&Live::Coordinator(message), None);
        Ok(())
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.running.shared
    }
}
