//! The peer's signatures, checked one by one or, by whoever runs many channels, together.

use flash_proto::{Hash, PublicKey, Signature, Verified, Verifier, message::Update};

use super::{Channel, Misbehaviour};

/// Bytes of payments up to which it is worth to hash an update once more so that its signature can be checked together
/// with others.
const HASHED_TWICE_BYTES_MAX: usize = 512;

impl Channel {
    /// What is to be checked of the signature under the peer's next update, if that can be told beforehand and an update is
    /// small enough to gain by it. What is wrong with the update itself shows when it is taken.
    ///
    /// Whoever has it checked together with those of other channels says so by [`Channel::knows`] before it hands the
    /// update in.
    pub fn to_verify(&self, update: &Update) -> Option<(PublicKey, Hash, Signature)> {
        let before = self.incoming_state();
        let next = before.seq.checked_add(1) == Some(update.seq);
        let small = update.payments.as_bytes().len() <= HASHED_TWICE_BYTES_MAX;
        if !next || !small || update.ticks.is_some() || self.refusal().is_some() {
            return None;
        }
        let state = update.after(&before).ok()?;
        Some((self.peer_key(), state.signing_hash(self.agreement.network), update.signature))
    }

    /// A signature that was found to be right: it needs no check here.
    pub const fn knows(&mut self, verified: Verified) {
        self.verified = Some(verified);
    }

    /// Checks that the peer has signed a hash by its key in the channel.
    pub(super) fn check_signature(&self, hash: &Hash, signature: &Signature) -> Result<(), Misbehaviour> {
        let known = self.verified.is_some_and(|known| known.says(&self.peer_key(), hash, signature));
        let valid = known || self.peer_verifier().is_some_and(|verifier| verifier.verify(hash, signature));
        if valid { Ok(()) } else { Err(Misbehaviour::Signature) }
    }

    fn peer_verifier(&self) -> Option<&Verifier> {
        self.peer_verifier.get_or_init(|| self.peer_key().verifier().map(Box::new)).as_deref()
    }

    pub(super) fn peer_key(&self) -> PublicKey {
        self.agreement.open.party(!self.agreement.side).key
    }
}
