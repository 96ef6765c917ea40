//! What a daemon and a watchtower say to each other.
//!
//! A watchtower keeps the newest balance of each lane that its client is paid on, and claims it if the channel is
//! closed with less. One request on each stream, and one response.

use bincode::{Decode, Encode};

use crate::{
    ChannelId, Hash, LaneState, NetworkId, PublicKey, Side, Signature, SignedBalance,
    hash::{Layout, Tag},
    message::cut,
};

/// What a client asks of a watchtower.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TowerRequest {
    /// Keep this balance in place of the one that is held. The answer is `Holds`, `Newer` or `Refused`.
    Keep {
        /// The newest balance of a lane that the client is paid on.
        balance: Box<SignedBalance>,
        /// What makes this client the party's: see [`client_hash`].
        permit: Signature,
    },
    /// Show what is held of a lane. The answer is `Shown` or `Refused`.
    Show {
        /// The channel.
        channel: ChannelId,
        /// The payer of the lane.
        payer: Side,
        /// What makes this client the payee's: see [`client_hash`].
        permit: Signature,
    },
}

/// What a watchtower answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TowerResponse {
    /// The balance that was just handed over is on the tower's disk, and the newest that it was shown: its
    /// signature over [`receipt_hash`].
    Holds(Signature),
    /// The tower holds this one, which pays the client more.
    Newer(Box<SignedBalance>),
    /// What is held of the lane.
    Shown(Option<Box<SignedBalance>>),
    /// The request is refused, and nothing was changed.
    Refused(TowerRefusal),
}

/// Why a watchtower refuses a request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TowerRefusal {
    /// For programs.
    pub code: TowerRefusalCode,
    /// For people: at most [`crate::limits::DETAIL_BYTES_MAX`] bytes.
    pub detail: String,
}

/// Why a watchtower refuses a request, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TowerRefusalCode {
    /// The frame is no request.
    Malformed,
    /// The ledger has no such channel.
    UnknownChannel,
    /// The balance is not signed by the payer of that lane, on this network.
    Signature,
    /// The payee of that lane did not name this client.
    NotThePayee,
    /// The ledger would not take such a balance.
    Terms,
    /// This client, or the tower, has as many lanes as it may.
    Full,
    /// This tower serves others only.
    NotAClient,
    /// Not now: too many requests, or the ledger cannot be seen. Ask again later.
    Busy,
}

impl TowerRefusal {
    /// A refusal; `detail` is cut to what is allowed.
    pub fn new(code: TowerRefusalCode, detail: impl Into<String>) -> Self {
        Self { code, detail: cut(detail.into()) }
    }
}

/// What a payee signs with its key in the channel, once, to name the machine that may hand over and ask for the
/// balances of its lane (`docs/protocol.md`, "Watchtowers").
pub fn client_hash(network: NetworkId, channel: ChannelId, payer: Side, client: &PublicKey) -> Hash {
    Layout::new(Tag::TOWER_CLIENT)
        .bytes(network.as_bytes())
        .bytes(channel.as_bytes())
        .side(payer)
        .bytes(client.as_bytes())
        .hash()
}

/// What a tower signs: "this is on my disk, and the newest of its lane that I was shown".
pub fn receipt_hash(network: NetworkId, state: &LaneState) -> Hash {
    Layout::new(Tag::TOWER).bytes(network.as_bytes()).bytes(state.signing_hash(network).as_bytes()).hash()
}

/// A tower's word for what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TowerReceipt {
    /// What it holds.
    pub state: LaneState,
    /// Its signature over [`receipt_hash`].
    pub signature: Signature,
}

impl TowerReceipt {
    /// Whether the tower with this key signed it.
    pub fn verify(&self, network: NetworkId, tower: &PublicKey) -> bool {
        tower.verify(&receipt_hash(network, &self.state), &self.signature)
    }
}
