//! Proof that one single payment was made, out of the millions that one signature vouches for.
//!
//! A lane's history takes in every payment (`docs/protocol.md`, P9), and the state that holds it is signed: by
//! the payer with each update, by the payee with a receipt. So one signature, the state before the update
//! that made the payment, and what that update took in prove it, with nothing else at hand.

use bincode::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::{
    Action, Amount, ChannelId, Essence, LaneState, NetworkId, PaymentList, PublicKey, Side, Signature,
    TickStep, TickTerms,
    codec::{self, CodecError},
    limits,
    payment::{PaymentError, Reference},
};

/// The format of proofs.
const PROOF_VERSION: u8 = 1;
/// Updates in one proof: that of the payment, and those up to the one that was signed for.
pub const PROOF_UPDATES_MAX: usize = 64;
/// Bytes of the JSON text of the largest proof that is read.
pub const PROOF_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a lane's history takes in with one update.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HistoryStep {
    /// The payments.
    pub payments: PaymentList,
    /// What it does about ticks; `None`: there were none, and are none.
    pub ticks: Option<TickStep>,
}

/// Who signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signer {
    /// The payee, for having received it: a receipt.
    Payee,
    /// The payer, whose signature made the payment.
    Payer,
}

/// A value as its encoding in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Encoded<T>(T);

impl<T: Encode> Serialize for Encoded<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(codec::encode(&self.0)))
    }
}

impl<'de, T: Decode<()>> Deserialize<'de> for Encoded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = hex::decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
        let value: Result<T, CodecError> = codec::decode::<T, { limits::PEER_FRAME_BYTES_MAX }>(&bytes);
        value.map(Self).map_err(serde::de::Error::custom)
    }
}

/// Proves one payment: the content of a proof file (JSON).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentProof {
    version: u8,
    /// The transaction that opened the channel, without signatures: the channel's id commits to it.
    open: Encoded<Essence>,
    /// The payment's number on its lane, by the records of whoever made the proof.
    payment: String,
    /// Where in what the first update takes in the payment is, from 0: folded ticks first, then payments.
    position: u32,
    /// The lane's state before the update that made the payment.
    before: Encoded<LaneState>,
    /// What the history takes in, from that update up to the one that was signed for.
    updates: Vec<Encoded<HistoryStep>>,
    signed_by: Signer,
    signature: Signature,
}

/// What a proof is made of. Nothing of it is checked before [`PaymentProof::verify`].
#[derive(Clone, Debug)]
pub struct ProofParts {
    /// The transaction that opened the channel.
    pub open: Essence,
    /// The payment's number on its lane.
    pub payment: u64,
    /// Its place in what the first update takes in, from 0.
    pub position: u32,
    /// The lane's state before that update.
    pub before: LaneState,
    /// What the history takes in up to what was signed for.
    pub updates: Vec<HistoryStep>,
    /// Who signed.
    pub signed_by: Signer,
    /// The signature.
    pub signature: Signature,
}

/// A payment that is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenPayment {
    /// The network.
    pub network: NetworkId,
    /// The channel.
    pub channel: ChannelId,
    /// Who paid.
    pub payer: Side,
    /// The payer's key in the channel.
    pub payer_key: PublicKey,
    /// The payee's.
    pub payee_key: PublicKey,
    /// How much.
    pub amount: Amount,
    /// What for; of a tick, nothing.
    pub reference: Reference,
    /// Whether it is a tick.
    pub tick: bool,
    /// The payment's number, which is what the file says: no signature covers it.
    pub number: u64,
    /// The update that made it.
    pub seq: u64,
    /// Its place there, from 0.
    pub position: u32,
    /// The state that was signed for.
    pub signed: LaneState,
    /// By whom.
    pub signed_by: Signer,
}

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProofError {
    /// A version of proofs that this software does not know.
    #[error("proof version {0} is not known here; this software knows {PROOF_VERSION}")]
    Version(u8),
    /// The transaction opens no channel.
    #[error("the transaction in the proof opens no channel")]
    NoOpen,
    /// The state is of another channel than the one that was opened.
    #[error("the lane's state is of channel {0}, which is not the one that the transaction opens")]
    Channel(ChannelId),
    /// No updates, or too many.
    #[error("a proof has 1 to {max} updates, not {0}", max = PROOF_UPDATES_MAX)]
    Updates(usize),
    /// An update that cannot follow.
    #[error("an update does not follow from what is before it: {0}")]
    Step(#[from] PaymentError),
    /// It says something about ticks that nothing signs for.
    #[error("the state before the payment says something about ticks that nothing signs for")]
    Unsigned,
    /// No payment at that place, or a number that is none.
    #[error("there is no payment at the place that the proof names")]
    NoPayment,
    /// The signature is not valid.
    #[error("the signature is not the {0}'s over the history that these payments lead to")]
    Signature(&'static str),
}

impl Signer {
    /// As a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Payee => "payee",
            Self::Payer => "payer",
        }
    }

    /// What was signed of a lane's state.
    pub fn hash(self, state: &LaneState, network: NetworkId) -> crate::Hash {
        match self {
            Self::Payee => state.receipt_hash(network),
            Self::Payer => state.signing_hash(network),
        }
    }
}

impl HistoryStep {
    /// The state after this step.
    ///
    /// # Errors
    /// [`PaymentError`] if it cannot follow.
    pub fn after(&self, before: &LaneState) -> Result<LaneState, PaymentError> {
        before.step(&self.payments, &self.ticks.unwrap_or_default())
    }

    fn folded(&self) -> u32 {
        self.ticks.and_then(|ticks| ticks.folded).map_or(0, |folded| folded.index)
    }

    /// The tick terms before this step, as far as what it folds commits to them.
    fn committed(&self, before: TickTerms) -> TickTerms {
        match self.folded() {
            0 => TickTerms::NONE,
            folded => TickTerms { max: folded, ..before },
        }
    }

    /// Amount and reference of the payment at a place; whether it is a tick. The step was checked.
    fn at(&self, position: u32, unit: Amount) -> Option<(Amount, Reference, bool)> {
        let Some(listed) = position.checked_sub(self.folded()) else {
            return Some((unit, Reference::default(), true));
        };
        let payment = self.payments.iter().nth(usize::try_from(listed).ok()?)?.ok()?;
        Some((payment.amount, payment.reference, false))
    }
}

impl PaymentProof {
    /// A proof of these parts.
    pub fn new(mut parts: ProofParts) -> Self {
        if let Some(first) = parts.updates.first() {
            parts.before.ticks = first.committed(parts.before.ticks);
        }
        Self {
            version: PROOF_VERSION,
            open: Encoded(parts.open),
            payment: parts.payment.to_string(),
            position: parts.position,
            before: Encoded(parts.before),
            updates: parts.updates.into_iter().map(Encoded).collect(),
            signed_by: parts.signed_by,
            signature: parts.signature,
        }
    }

    /// Checks the proof by itself. Whose keys those are, and that the channel was opened on the ledger, it does not
    /// prove.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(&self) -> Result<ProvenPayment, ProofError> {
        if self.version != PROOF_VERSION {
            return Err(ProofError::Version(self.version));
        }
        let (essence, before) = (&self.open.0, &self.before.0);
        let Action::Open(open) = &essence.action else { return Err(ProofError::NoOpen) };
        let channel = ChannelId::opened_by(essence.id());
        if before.channel != channel {
            return Err(ProofError::Channel(before.channel));
        }
        let first = match self.updates.as_slice() {
            [first, ..] if self.updates.len() <= PROOF_UPDATES_MAX => &first.0,
            updates => return Err(ProofError::Updates(updates.len())),
        };
        if before.ticks != first.committed(before.ticks) {
            return Err(ProofError::Unsigned);
        }
        let signed = self.updates.iter().try_fold(*before, |state, update| update.0.after(&state))?;
        let payer = before.payer;
        let (from, to) = (open.party(payer).key, open.party(!payer).key);
        let key = match self.signed_by {
            Signer::Payee => to,
            Signer::Payer => from,
        };
        if !key.verify(&self.signed_by.hash(&signed, essence.network), &self.signature) {
            return Err(ProofError::Signature(self.signed_by.name()));
        }
        let (amount, reference, tick) =
            first.at(self.position, before.ticks.unit).ok_or(ProofError::NoPayment)?;
        Ok(ProvenPayment {
            network: essence.network,
            channel,
            payer,
            payer_key: from,
            payee_key: to,
            amount,
            reference,
            tick,
            number: self.payment.parse().map_err(|_| ProofError::NoPayment)?,
            seq: before.seq.saturating_add(1),
            position: self.position,
            signed,
            signed_by: self.signed_by,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Address, Hash, Open, Payment, SecretKey, TickChain, TickProof, TickTerms, record::Party,
        transaction::Withdraw,
    };

    const NETWORK: NetworkId = NetworkId::new([9; 32]);

    fn key(side: Side) -> SecretKey {
        SecretKey::from_bytes([side.pick(1, 2); 32])
    }

    fn open() -> Essence {
        let party = |side| Party {
            key: key(side).public(),
            payout: Address::of(&key(side).public()),
            deposit: Amount::new(1_000),
        };
        let open = Open {
            party_a: party(Side::A),
            party_b: party(Side::B),
            contest_window_milestones: 60,
            expiry_milestone: 9,
        };
        Essence::acting(NETWORK, Action::Open(open))
    }

    fn step(amounts: &[u64], ticks: Option<TickStep>) -> HistoryStep {
        let mut payments = PaymentList::new();
        for amount in amounts {
            payments.push(&Payment::new(Amount::new(*amount), b"Wh").unwrap()).unwrap();
        }
        HistoryStep { payments, ticks }
    }

    /// B pays A: payments 1 to 3, three ticks and payments 7 and 8, payment 9.
    fn parts(signed_by: Signer) -> ProofParts {
        let open = open();
        let mut chain = TickChain::new(Hash::new([3; 32]), Amount::new(5), 10).unwrap();
        let anchored = step(&[10, 20, 30], Some(TickStep { folded: None, terms: chain.terms() }));
        let folded = TickStep { folded: chain.reveal(3), terms: TickTerms::NONE };
        let updates = vec![step(&[70, 80], Some(folded)), step(&[90], None)];
        let start = LaneState::new(ChannelId::opened_by(open.id()), Side::B);
        let before = anchored.after(&start).unwrap();
        let last = updates.iter().fold(before, |state, update| update.after(&state).unwrap());
        let signer = match signed_by {
            Signer::Payee => key(Side::A),
            Signer::Payer => key(Side::B),
        };
        let signature = signer.sign(&signed_by.hash(&last, NETWORK));
        ProofParts { open, payment: 8, position: 4, before, updates, signed_by, signature }
    }

    #[test]
    fn a_payment_or_a_tick_is_proven_by_either_signature() {
        for signed_by in [Signer::Payee, Signer::Payer] {
            let proof = PaymentProof::new(parts(signed_by));
            let text = serde_json::to_string(&proof).unwrap();
            let read: PaymentProof = serde_json::from_str(&text).unwrap();
            assert_eq!(read, proof);
            let proven = read.verify().unwrap();
            assert_eq!((proven.payer, proven.number, proven.seq, proven.tick), (Side::B, 8, 2, false));
            assert_eq!((proven.amount, proven.reference.as_bytes()), (Amount::new(80), &b"Wh"[..]));
            assert_eq!((proven.payer_key, proven.payee_key), (key(Side::B).public(), key(Side::A).public()));
            assert_eq!((proven.signed.seq, proven.signed.cumulative), (3, Amount::new(60 + 15 + 150 + 90)));
        }
        for position in 0..3 {
            let tick = PaymentProof::new(ProofParts { position, ..parts(Signer::Payee) }).verify().unwrap();
            assert_eq!(
                (tick.amount, tick.tick, tick.reference),
                (Amount::new(5), true, Reference::default())
            );
        }
    }

    #[test]
    fn whatever_is_changed_proves_nothing() {
        let wrong = |change: fn(&mut ProofParts)| {
            let mut parts = parts(Signer::Payee);
            change(&mut parts);
            PaymentProof::new(parts).verify().unwrap_err()
        };
        let signature = ProofError::Signature("payee");
        let signed: [fn(&mut ProofParts); 9] = [
            |it| it.before.seq += 1,
            |it| it.before.cumulative = Amount::new(61),
            |it| it.before.history = Hash::ZERO,
            |it| it.before.payer = Side::A,
            |it| it.before.locks_root = Hash::new([1; 32]),
            |it| it.updates[0].payments = step(&[70, 81], None).payments,
            |it| drop(it.updates.pop()),
            |it| it.updates[1].ticks = Some(TickStep { folded: None, terms: it.before.ticks }),
            |it| it.signature = key(Side::A).sign(&Hash::ZERO),
        ];
        for (index, change) in signed.into_iter().enumerate() {
            assert_eq!(wrong(change), signature, "change {index}");
        }
        assert_eq!(wrong(|it| it.signed_by = Signer::Payer), ProofError::Signature("payer"));
        assert_eq!(wrong(|it| it.signature = key(Side::B).sign(&Hash::ZERO)), signature);
        // Another unit or chain: the folded ticks are not of it.
        assert!(matches!(wrong(|it| it.before.ticks.anchor = Hash::ZERO), ProofError::Step(_)));
        assert_eq!(wrong(|it| it.before.ticks.unit = Amount::new(6)), signature);
        let no_preimage = |it: &mut ProofParts| {
            let folded = Some(TickProof { index: 4, preimage: Hash::ZERO });
            it.updates[0].ticks = Some(TickStep { folded, terms: TickTerms::NONE });
        };
        assert!(matches!(wrong(no_preimage), ProofError::Step(_)));
        assert_eq!(wrong(|it| it.position = 5), ProofError::NoPayment);
        assert_eq!(wrong(|it| it.updates.clear()), ProofError::Updates(0));
        let many = |it: &mut ProofParts| it.updates = vec![it.updates[1].clone(); PROOF_UPDATES_MAX + 1];
        assert_eq!(wrong(many), ProofError::Updates(PROOF_UPDATES_MAX + 1));
        // The keys are those of the transaction that the channel's id commits to.
        let others = |it: &mut ProofParts| {
            let Action::Open(open) = &mut it.open.action else { unreachable!("it is an open") };
            open.party_a.key = key(Side::B).public();
        };
        assert!(matches!(wrong(others), ProofError::Channel(_)));
        assert!(matches!(wrong(|it| it.open.network = NetworkId::new([8; 32])), ProofError::Channel(_)));
        let no_open = |it: &mut ProofParts| {
            let amount = Amount::new(1);
            it.open.action = Action::Withdraw(Withdraw {
                channel: it.before.channel,
                side: Side::A,
                amount,
                total: amount,
                expiry_milestone: 1,
            });
        };
        assert_eq!(wrong(no_open), ProofError::NoOpen);
        let mut longer = PaymentProof::new(parts(Signer::Payee));
        longer.before.0.ticks.max += 1;
        assert_eq!(longer.verify(), Err(ProofError::Unsigned));
        let newer = PaymentProof { version: 2, ..PaymentProof::new(parts(Signer::Payee)) };
        assert_eq!(newer.verify(), Err(ProofError::Version(2)));
    }
}
