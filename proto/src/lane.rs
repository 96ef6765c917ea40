//! The lane state and the signed balance.
//!
//! A lane is one direction of a channel. Only its payer writes it, and its counters only grow. The
//! payer's newest signature over the lane's state is all that its payee needs, on the ledger and off
//! it: `history` makes that one signature vouch for every payment ever made on the lane.

use bincode::{Decode, Encode};

use crate::{
    Amount, ChannelId, Hash, NetworkId, PaymentList, PublicKey, SecretKey, Side, Signature, TickProof,
    TickStep, TickTerms, Verifier,
    hash::{Layout, Tag},
    payment::PaymentError,
};

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

    /// The state after one more update with these payments and no ticks.
    ///
    /// # Errors
    /// [`PaymentError`] if the list is not a valid one or a sum does not fit.
    pub fn advance(&self, payments: &PaymentList) -> Result<Self, PaymentError> {
        self.step(payments, &TickStep::NONE)
    }

    /// The state after one more update (`docs/protocol.md`, P9). First the ticks that it folds:
    /// `history' = SHA3-256(tag ‖ history ‖ anchor ‖ unit ‖ index ‖ preimage)`; then its payments, if any:
    /// `history' = SHA3-256(tag ‖ history ‖ packed payments)`.
    ///
    /// # Errors
    /// [`PaymentError`] if the list is not a valid one, ticks are not of the chain in use, a sum does not
    /// fit, or nothing is done.
    pub fn step(&self, payments: &PaymentList, ticks: &TickStep) -> Result<Self, PaymentError> {
        self.step_after(payments, ticks, None)
    }

    /// The same by whoever knows a tick under this state to be right: those up to it are not hashed again.
    ///
    /// # Errors
    /// As [`LaneState::step`].
    pub fn step_after(
        &self,
        payments: &PaymentList,
        ticks: &TickStep,
        known: Option<&TickProof>,
    ) -> Result<Self, PaymentError> {
        ticks.terms.check_form()?;
        let mut next =
            Self { seq: self.seq.checked_add(1).ok_or(PaymentError::Overflow)?, ticks: ticks.terms, ..*self };
        if let Some(folded) = &ticks.folded {
            let amount = match known {
                Some(known) if known == folded => self.ticks.amount(folded.index)?,
                Some(known) => self.ticks.check_after(known, folded)?,
                None => self.ticks.check(folded)?,
            };
            next.cumulative = self.cumulative.checked_add(amount).ok_or(PaymentError::Overflow)?;
            next.history = self.history_with(folded);
        }
        if !payments.is_empty() {
            let total = payments.total()?;
            next.cumulative = next.cumulative.checked_add(total.amount).ok_or(PaymentError::Overflow)?;
            next.history =
                Layout::new(Tag::HISTORY).bytes(next.history.as_bytes()).bytes(payments.as_bytes()).hash();
        }
        let idle = payments.is_empty() && ticks.folded.is_none() && ticks.terms == self.ticks;
        if idle { Err(PaymentError::Empty) } else { Ok(next) }
    }

    /// All that was paid on the lane if these ticks were revealed under this state.
    ///
    /// # Errors
    /// [`PaymentError`] if they are not of the chain in use, or the sum does not fit.
    pub fn with_ticks(&self, ticks: Option<&TickProof>) -> Result<Amount, PaymentError> {
        let Some(ticks) = ticks else { return Ok(self.cumulative) };
        let amount = self.ticks.check(ticks)?;
        self.cumulative.checked_add(amount).ok_or(PaymentError::Overflow)
    }

    fn history_with(&self, folded: &TickProof) -> Hash {
        Layout::new(Tag::TICKS)
            .bytes(self.history.as_bytes())
            .bytes(self.ticks.anchor.as_bytes())
            .amount(self.ticks.unit)
            .u32(folded.index)
            .bytes(folded.preimage.as_bytes())
            .hash()
    }

    /// The hash that the payer signs (`docs/protocol.md`, "Lane state").
    pub fn signing_hash(&self, network: NetworkId) -> Hash {
        self.write(Layout::new(Tag::LANE).bytes(network.as_bytes())).hash()
    }

    /// The hash that the payee signs for having received all that the state says (`docs/protocol.md`,
    /// "Receipts"). It is another one than the payer's, so that neither signature is ever read as the other.
    pub fn receipt_hash(&self, network: NetworkId) -> Hash {
        self.write(Layout::new(Tag::RECEIPT).bytes(network.as_bytes())).hash()
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
    use crate::{Payment, TickChain, ticks::TickError};

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
    fn ticks_become_part_of_the_total_and_of_the_history() {
        let mut chain = TickChain::new(Hash::new([3; 32]), Amount::new(5), 10).unwrap();
        let start = LaneState::new(ChannelId::new([1; 32]), Side::A).advance(&list(&[100])).unwrap();
        let none = PaymentList::new();
        let anchored = start.step(&none, &TickStep { folded: None, terms: chain.terms() }).unwrap();
        assert_eq!(
            (anchored.seq, anchored.cumulative, anchored.history),
            (2, Amount::new(100), start.history)
        );
        let third = chain.reveal(3).unwrap();
        assert_eq!(anchored.with_ticks(Some(&third)), Ok(Amount::new(115)));

        let folding = TickStep { folded: Some(third), terms: TickTerms::NONE };
        let folded = anchored.step(&list(&[7]), &folding).unwrap();
        assert_eq!((folded.seq, folded.cumulative), (3, Amount::new(122)));
        // Whoever knows a tick hashes back to that one only, and a wrong one is found all the same.
        let wrong = TickProof { index: 3, preimage: Hash::new([8; 32]) };
        let step = |known: &TickProof, newest: TickProof| {
            let folding = TickStep { folded: Some(newest), terms: TickTerms::NONE };
            anchored.step_after(&list(&[7]), &folding, Some(known))
        };
        let [second, fourth] = [2, 4].map(|index| chain.reveal(index).unwrap());
        assert_eq!(step(&third, third), Ok(folded));
        assert_eq!(step(&second, third), Ok(folded));
        for (known, newest) in [(third, wrong), (second, wrong), (third, second), (wrong, fourth)] {
            let index = newest.index;
            let refused = Err(PaymentError::Ticks(TickError::Preimage { index, max: 10 }));
            assert_eq!(step(&known, newest), refused, "{known:?} {newest:?}");
        }
        let other = anchored.step(&list(&[7]), &TickStep { folded: chain.reveal(4), ..folding }).unwrap();
        assert!(folded.history != other.history && folded.history != anchored.history);
        assert_eq!(
            start.step(&none, &folding),
            Err(PaymentError::Ticks(TickError::Preimage { index: 3, max: 0 }))
        );
        assert_eq!(
            anchored.step(&none, &TickStep { folded: None, terms: chain.terms() }),
            Err(PaymentError::Empty)
        );
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
        let ready = key.public().verifier().unwrap();
        assert!(balance.verify_with(network, &ready));
        assert!(!balance.verify_with(NetworkId::new([8; 32]), &ready), "network");
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
