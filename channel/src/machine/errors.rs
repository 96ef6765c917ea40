//! Why something is not done, and whose fault that is.

use flash_proto::{Amount, limits};
use thiserror::Error;

use super::PAYMENT_KEY_BYTES_MAX;

/// Why a payment is not taken. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PayError {
    /// More than this side owns in the channel, payments that wait counted as paid.
    #[error("the payment of {amount} is more than the {available} that can be paid on this channel now")]
    Insufficient {
        /// The payment.
        amount: Amount,
        /// What can be paid.
        available: Amount,
    },
    /// The channel is not in use.
    #[error("the channel takes no payments: it is {0}")]
    NotOpen(&'static str),
    /// The peer is not there.
    #[error("the peer is not connected")]
    NotConnected,
    /// Too many payments wait.
    #[error("too many payments wait for this channel")]
    Full,
    /// No ticks, or too many at a time.
    #[error("1 to {max} ticks of at least 1i each can be paid at a time", max = limits::TICKS_MAX)]
    Ticks,
    /// The packed payments are none, or malformed.
    #[error("the payments cannot be made: {0}")]
    Payments(#[from] flash_proto::payment::PaymentError),
    /// The key is too long.
    #[error("a payment key has at most {max} bytes", max = PAYMENT_KEY_BYTES_MAX)]
    KeyTooLong,
}

/// Why a command cannot be followed. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Not in this phase.
    #[error("the channel is {0}")]
    Phase(&'static str),
    /// The records were lost, and the peer has not shown its own.
    #[error("nothing is known of this channel's balances until the peer has shown them")]
    NotShown,
    /// There is nothing to trust.
    #[error("this channel's records are not in doubt")]
    NotInDoubt,
    /// One at a time.
    #[error("a top-up or withdraw of this side is under way")]
    StakeChanging,
    /// The peer is needed and not there.
    #[error("the peer is not connected")]
    NotConnected,
    /// The ledger is out of sight.
    #[error("the ledger has not been seen here for too long")]
    StaleLedgerView,
    /// More than can be taken out.
    #[error("{amount} cannot be taken out; at most {available} can")]
    Insufficient {
        /// What was asked for.
        amount: Amount,
        /// What can be taken out, payments that wait counted as paid.
        available: Amount,
    },
    /// A channel cannot hold so little.
    #[error("{left} would be left in the channel, and it must be at least {min}: close it instead")]
    TooLittleLeft {
        /// What would be left of both sides' money.
        left: Amount,
        /// What must be.
        min: Amount,
    },
    /// Not a top-up of this side of this channel.
    #[error("the transaction does not top up this side of this channel")]
    NotThisTopUp,
    /// The peer is known already.
    #[error("the channel's peer is known since it was opened")]
    PeerKnown,
}

/// How the peer broke the protocol. Nothing changed; the stream must end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// A message before it said where it stands.
    #[error("a message came before the re-establishment")]
    NotEstablished,
    /// An update that leaves numbers out.
    #[error("update {got} came after update {held}: a gap")]
    Gap {
        /// Its number.
        got: u64,
        /// The newest that is held.
        held: u64,
    },
    /// Another body under a number that was used.
    #[error("two different updates under number {0}")]
    TwoBodies(u64),
    /// The payments are malformed.
    #[error("malformed payments: {0}")]
    Payments(#[from] flash_proto::payment::PaymentError),
    /// The total is not the last one and the payments.
    #[error("the lane's total is said to be {got}, but it is {wanted}")]
    Cumulative {
        /// Said.
        got: Amount,
        /// Right.
        wanted: Amount,
    },
    /// A signature does not verify.
    #[error("a signature is not the peer's over this state")]
    Signature,
    /// More than the payer owns.
    #[error("the payer owns {owned} and cannot have paid {total} in all")]
    Overspent {
        /// The lane's total.
        total: Amount,
        /// What the payer ever owned.
        owned: Amount,
    },
    /// A balance with terms that are not in use, or of another lane.
    #[error("a balance of another lane, or with terms that are not in use")]
    Terms,
    /// An acknowledgement of what was never sent.
    #[error("update {got} is acknowledged, but only {sent} were sent")]
    AckBeyond {
        /// Acknowledged.
        got: u64,
        /// Sent.
        sent: u64,
    },
    /// An acknowledgement of ticks that were never revealed.
    #[error("tick {got} is acknowledged, but only {sent} were revealed")]
    TickAckBeyond {
        /// Acknowledged.
        got: u32,
        /// Revealed.
        sent: u32,
    },
    /// An update without ticks that were paid before it.
    #[error("the update counts {got} ticks under the balance before it, but {held} were paid")]
    TicksTakenBack {
        /// Counted.
        got: u32,
        /// Paid.
        held: u32,
    },
    /// A balance that this side signed, with less or something else than it remembers.
    #[error("two different balances that this side signed under number {0}")]
    OwnTwoBodies(u64),
    /// A newer balance of this side's than it remembers, without what the peer had paid for it.
    #[error("the peer shows what this side paid, but holds back what it paid itself")]
    HeldBack,
    /// A close that is not what the records say.
    #[error("the close that the peer signed is not what the records say")]
    WrongClose,
    /// A withdraw of another channel or side, or of nothing.
    #[error("the withdraw that the peer signed makes no sense")]
    WrongWithdraw,
    /// The peer would take out more than it has.
    #[error("the peer owns {owned} and cannot take out {amount}")]
    WithdrawsTooMuch {
        /// What it would take out.
        amount: Amount,
        /// What it owns.
        owned: Amount,
    },
    /// What the peer wants signed would be valid for too long.
    #[error("what the peer signed expires with milestone {got}, and at most {max} is accepted")]
    Expiry {
        /// Its expiry.
        got: u64,
        /// The latest that is accepted.
        max: u64,
    },
    /// The peer refused.
    #[error("the peer refused: {0}")]
    Refused(String),
}
