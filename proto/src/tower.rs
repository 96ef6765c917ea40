//! What a daemon and a watchtower say to each other.
//!
//! A watchtower keeps the newest balance of each lane that its client is paid on, and claims it if the channel is
//! closed with less. One request on each stream, and one response.

use bincode::{Decode, Encode};

use crate::{
    Amount, ChannelId, Claim, Hash, NetworkId, PublicKey, Side, Signature, SignedBalance, TickProof,
    hash::{Layout, Tag},
    message::cut,
    payment::PaymentError,
};

/// What is kept of a lane: all that a claim needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Claimable {
    /// The newest balance.
    pub balance: SignedBalance,
    /// The newest tick that was revealed under it, if any.
    pub ticks: Option<TickProof>,
}

impl Claimable {
    /// What the ledger is shown.
    pub const fn claim(&self) -> Claim {
        Claim { state: self.balance.state, ticks: self.ticks }
    }

    /// What it pays, and then which update and which tick it is: what has more of these is newer. The tick itself
    /// is not checked.
    ///
    /// # Errors
    /// [`PaymentError`] if the sum does not fit or the tick is beyond the chain.
    pub fn rank(&self) -> Result<(Amount, u64, u32), PaymentError> {
        let state = &self.balance.state;
        let tick = self.ticks.map_or(0, |ticks| ticks.index);
        let total = state.cumulative.checked_add(state.ticks.amount(tick)?).ok_or(PaymentError::Overflow)?;
        Ok((total, state.seq, tick))
    }
}

/// What a client asks of a watchtower.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TowerRequest {
    /// Keep this balance in place of the one that is held. The answer is `Holds`, `Newer` or `Refused`.
    Keep {
        /// The newest of a lane that the client is paid on.
        newest: Box<Claimable>,
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
    Newer(Box<Claimable>),
    /// What is held of the lane.
    Shown(Option<Box<Claimable>>),
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
pub fn receipt_hash(network: NetworkId, held: &Claimable) -> Hash {
    Layout::new(Tag::TOWER)
        .bytes(network.as_bytes())
        .bytes(held.balance.state.signing_hash(network).as_bytes())
        .u32(held.ticks.map_or(0, |ticks| ticks.index))
        .hash()
}

/// A tower's word for what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TowerReceipt {
    /// What it holds.
    pub held: Claimable,
    /// Its signature over [`receipt_hash`].
    pub signature: Signature,
}

impl TowerReceipt {
    /// Whether the tower with this key signed it.
    pub fn verify(&self, network: NetworkId, tower: &PublicKey) -> bool {
        tower.verify(&receipt_hash(network, &self.held), &self.signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LaneState, SecretKey, TickTerms};

    const NETWORK: NetworkId = NetworkId::new([1; 32]);

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_bytes([seed; 32])
    }

    fn held(tick: Option<u32>, cumulative: u64) -> Claimable {
        let terms = TickTerms { anchor: Hash::new([3; 32]), unit: Amount::new(2), max: 5 };
        let state = LaneState {
            seq: 4,
            cumulative: Amount::new(cumulative),
            ticks: terms,
            ..LaneState::new(ChannelId::new([2; 32]), Side::A)
        };
        let ticks = tick.map(|index| TickProof { index, preimage: Hash::new([4; 32]) });
        Claimable { balance: state.sign(NETWORK, &key(1)), ticks }
    }

    #[test]
    fn a_receipt_is_for_one_balance_one_tick_one_network_and_of_one_tower() {
        let held_here = held(Some(2), 100);
        let signature = key(9).sign(&receipt_hash(NETWORK, &held_here));
        let receipt = TowerReceipt { held: held_here, signature };
        assert!(receipt.verify(NETWORK, &key(9).public()));
        assert!(!receipt.verify(NETWORK, &key(8).public()));
        assert!(!receipt.verify(NetworkId::new([2; 32]), &key(9).public()));
        for other in [held(Some(3), 100), held(None, 100), held(Some(2), 101)] {
            assert!(!TowerReceipt { held: other, signature }.verify(NETWORK, &key(9).public()));
        }
    }

    #[test]
    fn what_pays_more_is_newer() {
        assert_eq!(held(Some(3), 100).rank(), Ok((Amount::new(106), 4, 3)));
        assert_eq!(held(None, 100).rank(), Ok((Amount::new(100), 4, 0)));
        assert_eq!(held(Some(1), u64::MAX).rank(), Err(PaymentError::Overflow));
        assert!(held(Some(6), 100).rank().is_err(), "beyond the chain");
    }
}
