//! The lane state and the signed balance.
//!
//! A lane is one direction of a channel. Only its payer writes it, and its counters only grow. The
//! payer's newest signature over the lane's state is all that its payee needs, on the ledger and off
//! it: `history` makes that one signature vouch for every payment ever made on the lane.

use bincode::{Decode, Encode};

use crate::{
    Amount, ChannelId, Hash, NetworkId, PaymentList, PublicKey, SecretKey, Side, Signature, Verifier,
    hash::{Layout, Tag},
    payment::PaymentError,
};

/// A hash chain that pays for itself tick by tick; all zero while no ticks are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TickTerms {
    /// The end of the chain: `H^max(secret)`.
    pub anchor: Hash,
    /// What one revealed preimage pays.
    pub unit: Amount,
    /// The length of the chain.
    pub max: u32,
}

impl TickTerms {
    /// No ticks.
    pub const NONE: Self = Self { anchor: Hash::ZERO, unit: Amount::ZERO, max: 0 };
}

/// The state of a lane: what its payer signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LaneState {
    /// The channel.
    pub channel: ChannelId,
    /// The lane's payer.
    pub payer: Side,
    /// Number of the newest update, from 1; 0 before the first.
    pub seq: u64,
    /// All that was ever paid on the lane.
    pub cumulative: Amount,
    /// Running hash over every payment ever made on the lane.
    pub history: Hash,
    /// The hash chain in use, if any.
    pub ticks: TickTerms,
    /// Commitment to pending conditional amounts; zero while there are none.
    pub locks_root: Hash,
}

impl LaneState {
    /// The state of a lane on which nothing was paid yet.
    pub const fn new(channel: ChannelId, payer: Side) -> Self {
        Self {
            channel,
            payer,
            seq: 0,
            cumulative: Amount::ZERO,
            history: Hash::ZERO,
            ticks: TickTerms::NONE,
            locks_root: Hash::ZERO,
        }
    }

    /// The state after one more update with these payments:
    /// `history' = SHA3-256(tag ‖ history ‖ packed payments)`.
    ///
    /// # Errors
    /// [`PaymentError`] if the list is not a valid one or a sum does not fit.
    pub fn advance(&self, payments: &PaymentList) -> Result<Self, PaymentError> {
        let total = payments.total()?;
        Ok(Self {
            seq: self.seq.checked_add(1).ok_or(PaymentError::Overflow)?,
            cumulative: self.cumulative.checked_add(total.amount).ok_or(PaymentError::Overflow)?,
            history: Layout::new(Tag::HISTORY)
                .bytes(self.history.as_bytes())
                .bytes(payments.as_bytes())
                .hash(),
            ..*self
        })
    }

    /// The hash that the payer signs (`docs/protocol.md`, "Lane state").
    pub fn signing_hash(&self, network: NetworkId) -> Hash {
        self.write(Layout::new(Tag::LANE).bytes(network.as_bytes())).hash()
    }

    /// The fields in their fixed layout, after whatever `layout` already holds.
    pub(crate) fn write(&self, layout: Layout) -> Layout {
        layout
            .bytes(self.channel.as_bytes())
            .side(self.payer)
            .u64(self.seq)
            .amount(self.cumulative)
            .bytes(self.history.as_bytes())
            .bytes(self.ticks.anchor.as_bytes())
            .amount(self.ticks.unit)
            .u32(self.ticks.max)
            .bytes(self.locks_root.as_bytes())
    }

    /// Signs the state as the lane's payer.
    #[must_use]
    pub fn sign(self, network: NetworkId, payer: &SecretKey) -> SignedBalance {
        SignedBalance { state: self, signature: payer.sign(&self.signing_hash(network)) }
    }
}

/// A lane's state with its payer's signature. It is its own proof: anybody may show it to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedBalance {
    /// What was signed.
    pub state: LaneState,
    /// The payer's signature.
    pub signature: Signature,
}

impl SignedBalance {
    /// Whether `payer` signed this state on this network.
    pub fn verify(&self, network: NetworkId, payer: &PublicKey) -> bool {
        payer.verify(&self.state.signing_hash(network), &self.signature)
    }

    /// The same with a key made ready for many checks.
    pub fn verify_with(&self, network: NetworkId, payer: &Verifier) -> bool {
        payer.verify(&self.state.signing_hash(network), &self.signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Payment;

    fn list(amounts: &[u64]) -> PaymentList {
        let mut list = PaymentList::new();
        for amount in amounts {
            list.push(&Payment::new(Amount::new(*amount), b"r").unwrap()).unwrap();
        }
        list
    }

    #[test]
    fn history_depends_on_every_payment_and_on_the_batching() {
        let start = LaneState::new(ChannelId::new([1; 32]), Side::A);
        let together = start.advance(&list(&[1, 2])).unwrap();
        let apart = start.advance(&list(&[1])).unwrap().advance(&list(&[2])).unwrap();
        let swapped = start.advance(&list(&[2, 1])).unwrap();
        assert_eq!(together.cumulative, apart.cumulative);
        assert_eq!((together.seq, apart.seq), (1, 2));
        assert!(together.history != apart.history && together.history != swapped.history);
    }

    #[test]
    fn counters_do_not_wrap() {
        let mut state = LaneState::new(ChannelId::new([1; 32]), Side::A);
        state.cumulative = Amount::MAX;
        assert_eq!(state.advance(&list(&[1])), Err(PaymentError::Overflow));
        state.cumulative = Amount::ZERO;
        state.seq = u64::MAX;
        assert_eq!(state.advance(&list(&[1])), Err(PaymentError::Overflow));
    }

    /// Every field is under the signature: changing any one of them changes the hash.
    #[test]
    fn every_field_is_signed() {
        let network = NetworkId::new([9; 32]);
        let key = SecretKey::from_bytes([5; 32]);
        let state = LaneState::new(ChannelId::new([1; 32]), Side::A).advance(&list(&[5])).unwrap();
        let balance = state.sign(network, &key);
        assert!(balance.verify(network, &key.public()));
        assert!(!balance.verify(NetworkId::new([8; 32]), &key.public()), "network");
        let changes: [fn(&mut LaneState); 9] = [
            |s| s.channel = ChannelId::new([2; 32]),
            |s| s.payer = Side::B,
            |s| s.seq += 1,
            |s| s.cumulative = Amount::new(6),
            |s| s.history = Hash::ZERO,
            |s| s.ticks.anchor = Hash::new([1; 32]),
            |s| s.ticks.unit = Amount::new(1),
            |s| s.ticks.max = 1,
            |s| s.locks_root = Hash::new([1; 32]),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut forged = balance;
            change(&mut forged.state);
            assert!(!forged.verify(network, &key.public()), "field {index}");
        }
    }
}
