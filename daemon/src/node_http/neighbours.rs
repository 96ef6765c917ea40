//! What the API needs of the part of the node that talks to other nodes.

use std::fmt::Debug;

use flash_node_client::quic::PeerAddress;
use flash_proto::PublicKey;
use serde::Serialize;
use utoipa::ToSchema;

/// Another node that this one exchanges blocks with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Neighbour {
    /// Its key and where it is: `KEY@HOST:PORT`.
    #[schema(value_type = String)]
    pub address: PeerAddress,
    /// Whether there is a connection now.
    pub connected: bool,
    /// Blocks that it sent.
    pub received: u64,
    /// Those among them that were new here.
    pub new: u64,
    /// Those among them that were not valid.
    pub invalid: u64,
    /// Blocks that were sent to it.
    pub sent: u64,
}

/// The neighbours of a node.
pub trait Neighbours: Debug + Send + Sync {
    /// All of them.
    fn list(&self) -> Vec<Neighbour>;
    /// Adds one; `false` if it was there already.
    fn add(&self, address: PeerAddress) -> bool;
    /// Removes one; `false` if there is none with this key.
    fn remove(&self, key: &PublicKey) -> bool;
}
