//! What the API needs of the part of the node that talks to other nodes.

use std::fmt::Debug;

use flash_node_client::{
    gossip::{Gossip, NeighbourInfo},
    quic::PeerAddress,
};
use flash_proto::PublicKey;
use serde::Serialize;
use utoipa::ToSchema;

/// Another node that this one is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Neighbour {
    /// Its key.
    #[schema(value_type = String)]
    pub key: PublicKey,
    /// Where it is reached, if that is known: `KEY@HOST:PORT`.
    #[schema(value_type = Option<String>)]
    pub address: Option<PeerAddress>,
    /// Whether it dialled this node.
    pub inbound: bool,
    /// Between -100, at which it is dropped, and 100.
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

/// The neighbours of a node.
pub trait Neighbours: Debug + Send + Sync {
    /// All of them.
    fn list(&self) -> Vec<Neighbour>;
    /// Makes the node there a neighbour, now or as soon as it can be reached.
    fn add(&self, address: PeerAddress);
    /// Parts with one; `false` if there is none with this key.
    fn remove(&self, key: &PublicKey) -> bool;
}

impl Neighbours for Gossip {
    fn list(&self) -> Vec<Neighbour> {
        let shown = |info: NeighbourInfo| Neighbour {
            key: info.key,
            address: info.address,
            inbound: info.inbound,
            score: info.score,
            newest_milestone: info.newest_milestone,
            received_blocks: info.received_blocks,
            new_blocks: info.new_blocks,
            invalid_blocks: info.invalid_blocks,
            dropped_blocks: info.dropped_blocks,
            connected_seconds: info.connected_seconds,
        };
        self.neighbours().into_iter().map(shown).collect()
    }

    fn add(&self, address: PeerAddress) {
        Self::add(self, address);
    }

    fn remove(&self, key: &PublicKey) -> bool {
        Self::remove(self, key)
    }
}
