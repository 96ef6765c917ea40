//! What two peers say to each other.
//!
//! A connection between peers carries streams; the first frame on each says what it is for
//! ([`StreamStart`]). The control stream exchanges [`Hello`]; an Open is one request and one reply on a
//! stream of its own; each channel has a stream, on which both sides send [`ChannelMessage`]s.

use bincode::{Decode, Encode};

use crate::{
    Address, Amount, ChannelId, Essence, LaneState, NetworkId, Output, OutputId, PaymentList, PublicKey,
    Side, Signature, SignedBalance, TickProof, TickStep, Unlock, limits,
    payment::PaymentError,
    record::Party,
    transaction::{Action, CooperativeClose, Open, Withdraw, commit_inputs},
};

/// The version of this protocol.
pub const PROTOCOL_VERSION: u16 = 1;

/// The first frame on a stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum StreamStart {
    /// The control stream; the answer is a [`Hello`].
    Control(Hello),
    /// A wish to open a channel; the answer is an [`OpenReply`].
    Open(Box<OpenProposal>),
    /// A channel's stream; [`ChannelMessage`]s follow both ways.
    Channel(ChannelId),
}

/// Who speaks, and what it understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`]. Peers of different versions part.
    pub version: u16,
    /// Optional abilities, one bit each; none yet. Unknown bits are ignored.
    pub features: u64,
    /// The network. Peers of different networks part.
    pub network: NetworkId,
}

/// An output that funds a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Funding {
    /// Its id.
    pub id: OutputId,
    /// What it holds; the transaction commits to it, so a lie makes it void.
    pub output: Output,
}

/// What one party brings to an Open.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OpenParty {
    /// Its key in the channel.
    pub key: PublicKey,
    /// Where its balance goes at the end.
    pub payout: Address,
    /// What it locks.
    pub deposit: Amount,
    /// The outputs it pays that with.
    pub funding: Vec<Funding>,
    /// What it gets back of them at once.
    pub change: Option<Output>,
}

/// A wish to open a channel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OpenProposal {
    /// The proposer, party A.
    pub party_a: OpenParty,
    /// What party B is asked to lock.
    pub deposit_b: Amount,
    /// Milestones between a unilateral close and its settlement.
    pub contest_window_milestones: u32,
    /// Index of the last milestone that may apply the Open.
    pub expiry_milestone: u64,
}

/// The answer to an [`OpenProposal`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum OpenReply {
    /// Agreed; party B has the channel on its disk and waits for the ledger.
    Accept(Box<OpenAccept>),
    /// Not agreed.
    Refuse(Refusal),
}

/// Party B's part of an Open.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OpenAccept {
    /// Party B.
    pub party_b: OpenParty,
    /// B's unlocks, in the order of its funding.
    pub unlocks: Vec<Unlock>,
}

impl OpenProposal {
    /// The transaction that both parties sign: A's funding, then B's; A's change, then B's.
    pub fn essence(&self, network: NetworkId, party_b: &OpenParty) -> Essence {
        let parties = [&self.party_a, party_b];
        let funding: Vec<Funding> = parties.iter().flat_map(|party| party.funding.iter().copied()).collect();
        let spent: Vec<Output> = funding.iter().map(|funding| funding.output).collect();
        Essence {
            network,
            inputs: funding.iter().map(|funding| funding.id).collect(),
            inputs_commitment: commit_inputs(&spent),
            outputs: parties.iter().filter_map(|party| party.change).collect(),
            action: Action::Open(Open {
                party_a: self.party_a.on_ledger(),
                party_b: party_b.on_ledger(),
                contest_window_milestones: self.contest_window_milestones,
                expiry_milestone: self.expiry_milestone,
            }),
        }
    }
}

impl OpenParty {
    /// The party as the ledger will know it.
    pub fn on_ledger(&self) -> Party {
        Party { key: self.key, payout: self.payout, deposit: self.deposit }
    }
}

/// One step of a lane: payments and the payer's signature over the state after them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Update {
    /// Its number on the lane, from 1.
    pub seq: u64,
    /// The lane's total after it.
    pub cumulative: Amount,
    /// The payments; none if the update only changes the ticks.
    pub payments: PaymentList,
    /// What it does about ticks; `None`: there were none, and are none.
    pub ticks: Option<TickStep>,
    /// The payer's signature over the lane's state after it.
    pub signature: Signature,
}

impl Update {
    /// The lane's state after it.
    ///
    /// # Errors
    /// [`PaymentError`] if it cannot follow.
    pub fn after(&self, before: &LaneState) -> Result<LaneState, PaymentError> {
        before.step(&self.payments, &self.ticks.unwrap_or_default())
    }

    /// The same by whoever knows a tick under the state before to be right.
    ///
    /// # Errors
    /// As [`Update::after`].
    pub fn after_tick(
        &self,
        before: &LaneState,
        known: Option<&TickProof>,
    ) -> Result<LaneState, PaymentError> {
        before.step_after(&self.payments, &self.ticks.unwrap_or_default(), known)
    }

    /// How many payments it makes; each tick that it folds is one.
    ///
    /// # Errors
    /// [`PaymentError`] if the list is malformed.
    pub fn count(&self) -> Result<u64, PaymentError> {
        let listed = self.payments.total()?.count;
        let folded = self.ticks.and_then(|ticks| ticks.folded).map_or(0, |folded| folded.index);
        u64::from(folded).checked_add(listed).ok_or(PaymentError::Overflow)
    }
}

/// A message on a channel's stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ChannelMessage {
    /// The first message of both sides on every new stream, and of a payee whose lane resumes.
    Reestablish(Box<Reestablish>),
    /// Payments.
    Update(Update),
    /// The payee has every update up to this one on its disk.
    Ack {
        /// Number of the newest update.
        seq: u64,
    },
    /// The newest balance without the payments that led to it: what a payee is sent that lost updates
    /// which the payer no longer keeps, and a payer that lost its own.
    Balance(Box<SignedBalance>),
    /// The payee did not take an update and will ask again with [`ChannelMessage::Reestablish`].
    Paused {
        /// Newest update it has.
        held_seq: u64,
        /// Why it waits.
        reason: PauseReason,
    },
    /// The sender pays no more and asks to close.
    CloseRequest,
    /// The sender's signature under a close; from here on it neither pays nor accepts until the close
    /// is applied or its expiry has passed.
    CloseSigned {
        /// What it signed.
        close: CooperativeClose,
        /// Its signature over the transaction's id.
        signature: Signature,
    },
    /// The second signature under the close that the receiver signed: either may now submit it.
    CloseComplete {
        /// Signature over the transaction's id.
        signature: Signature,
    },
    /// The sender stops on this channel because of what it was sent.
    Refuse(Refusal),
    /// Ticks under a balance: the newest tells of all before it.
    Tick {
        /// Number of the balance.
        seq: u64,
        /// The newest tick.
        proof: TickProof,
    },
    /// The payee has the ticks up to this one on its disk.
    TickAck {
        /// Number of the balance.
        seq: u64,
        /// The newest tick.
        index: u32,
    },
    /// What the sender counts as locked by each side, whenever that changes.
    Stakes(Stakes),
    /// The sender's signature under a withdraw of its own; from here on it counts that as taken out, until
    /// it is applied or its expiry has passed.
    WithdrawSigned {
        /// What it signed.
        withdraw: Withdraw,
        /// Its signature over the transaction's id.
        signature: Signature,
    },
    /// The second signature under the withdraw that the receiver signed: either may now submit it.
    WithdrawComplete {
        /// What was signed.
        withdraw: Withdraw,
        /// Signature over the transaction's id.
        signature: Signature,
    },
    /// The payer asks for a receipt for all up to this update.
    ReceiptRequest {
        /// Number of the update.
        seq: u64,
    },
    /// The payee's signature for having received all up to this update.
    Receipt {
        /// Number of the update.
        seq: u64,
        /// Over [`LaneState::receipt_hash`](crate::LaneState::receipt_hash) of the lane's state after it;
        /// `None`: it keeps no record of that update, or does not hold it.
        signature: Option<Signature>,
    },
}

/// What each side has locked, as the sender counts it.
///
/// A payer pays only from what its payee counts as well, so that two views of the ledger that differ for a
/// moment never make an honest payment one that must be refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Stakes {
    /// Party A's.
    pub a: Stake,
    /// Party B's.
    pub b: Stake,
}

/// What one side has locked: its deposit without what it took out. Both are named, as a side may take out
/// more than it locked: what it received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Stake {
    /// All that it locked.
    pub deposit: Amount,
    /// All that it took out, with what it has signed to take out.
    pub withdrawn: Amount,
}

impl Stake {
    /// What the side owns in all once it has received this much on top: the most that it may have paid. None if
    /// that is not a sum of money.
    pub fn owned(self, received: Amount) -> Option<Amount> {
        self.deposit.checked_add(received)?.checked_sub(self.withdrawn)
    }
}

impl Stakes {
    /// One side's.
    pub fn of(&self, side: Side) -> Stake {
        side.pick(self.a, self.b)
    }
}

/// What each side holds of both lanes, so that the one that is behind can be sent what it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reestablish {
    /// The newest balance that the sender signed on its own lane.
    pub signed: Option<SignedBalance>,
    /// The newest tick that the sender revealed under it.
    pub signed_ticks: Option<TickProof>,
    /// The newest balance that the sender holds of the receiver's lane.
    pub held: Option<SignedBalance>,
    /// The newest tick that the sender holds under that one.
    pub held_ticks: Option<TickProof>,
    /// What the sender counts as locked by each side.
    pub stakes: Stakes,
}

/// Why a payee takes no payments for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PauseReason {
    /// Its view of the ledger is too old to rule out that the channel is being closed.
    StaleLedgerView,
    /// The channel is not yet open on the ledger as far as it has seen.
    NotOpenYet,
    /// The channel is being closed.
    Closing,
    /// It has lost records, and what it signed before may not have lapsed yet.
    Recovered,
}

/// Why a peer refuses, for people and for programs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people; at most 256 bytes.
    pub detail: String,
}

/// What kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RefusalCode {
    /// Another network.
    WrongNetwork,
    /// A version or message that is not understood.
    Unsupported,
    /// No such channel between these peers.
    UnknownChannel,
    /// Terms that this peer's operator does not accept.
    Policy,
    /// Not possible for now; try again later.
    Busy,
    /// The message breaks the protocol.
    Misbehaved,
}

/// The text of a refusal, cut to the limit.
pub(crate) fn cut(mut detail: String) -> String {
    let mut end = detail.len().min(limits::DETAIL_BYTES_MAX);
    while !detail.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    detail.truncate(end);
    detail
}

impl Refusal {
    /// A refusal whose text is cut to the limit.
    pub fn new(code: RefusalCode, detail: impl Into<String>) -> Self {
        Self { code, detail: cut(detail.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_owns_what_it_locked_and_received_without_what_it_took_out() {
        let stake =
            |deposit, withdrawn| Stake { deposit: Amount::new(deposit), withdrawn: Amount::new(withdrawn) };
        let owned = |stake: Stake, received| stake.owned(Amount::new(received)).map(Amount::units);
        assert_eq!(owned(stake(100, 30), 5), Some(75));
        assert_eq!(owned(stake(0, 5), 5), Some(0), "it took out what it received");
        assert_eq!(owned(stake(0, 6), 5), None);
        assert_eq!(owned(stake(u64::MAX, 0), 1), None);
    }

    #[test]
    fn each_side_has_its_own_stake() {
        let stake = |deposit| Stake { deposit: Amount::new(deposit), withdrawn: Amount::new(1) };
        let stakes = Stakes { a: stake(2), b: stake(3) };
        assert_eq!((stakes.of(Side::A), stakes.of(Side::B)), (stake(2), stake(3)));
    }

    #[test]
    fn an_update_counts_its_payments_and_the_ticks_that_it_folds() {
        let mut payments = PaymentList::new();
        for _ in 0..3 {
            payments.push(&crate::Payment::new(Amount::new(5), b"").unwrap()).unwrap();
        }
        let folded = Some(TickProof { index: 4, preimage: crate::Hash::new([1; 32]) });
        let count = |payments: &PaymentList, ticks| {
            let signature = Signature::new([0; 64]);
            let payments = payments.clone();
            Update { seq: 1, cumulative: Amount::new(15), payments, ticks, signature }.count()
        };
        assert_eq!(count(&PaymentList::new(), None), Ok(0));
        assert_eq!(count(&payments, None), Ok(3));
        assert_eq!(count(&payments, Some(TickStep::NONE)), Ok(3));
        assert_eq!(count(&payments, Some(TickStep { folded, ..TickStep::NONE })), Ok(7));
        assert!(count(&PaymentList::from_packed(vec![1]), None).is_err());
    }

    #[test]
    fn a_refusal_is_cut_between_characters() {
        let max = limits::DETAIL_BYTES_MAX;
        for (given, kept) in [
            ("x".repeat(max), max),
            ("x".repeat(max + 1), max),
            ("x".repeat(max - 1) + "ä", max - 1),
            ("x".repeat(max - 2) + "ä", max),
            ("€".repeat(max), max / 3 * 3),
        ] {
            let refusal = Refusal::new(RefusalCode::Busy, given.clone());
            assert_eq!(refusal.detail, given[..kept]);
        }
    }
}
