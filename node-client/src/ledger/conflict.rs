//! Why the ledger does not apply a transaction.

use bincode::{Decode, Encode};
use thiserror::Error;

/// Why the ledger, as it is at a milestone, does not apply a transaction. The block stays in the Tangle
/// and is marked; nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Error)]
#[non_exhaustive]
pub enum Conflict {
    /// An input is spent or never existed.
    #[error("an input is spent already, or never existed")]
    InputMissing,
    /// The signer was shown other inputs than those on the ledger.
    #[error("the inputs hold something else than the signer committed to")]
    InputsCommitment,
    /// An input's unlock is of another key than its address.
    #[error("an input belongs to another key than the one that signed")]
    WrongKey,
    /// Inputs and outputs do not add up.
    #[error("the inputs do not add up to the outputs and deposits")]
    Sum,
    /// No such channel: never opened, or closed already.
    #[error("there is no such channel on the ledger; it was closed, or never opened")]
    ChannelUnknown,
    /// The channel is already being closed.
    #[error("the channel is already being closed")]
    ChannelClosing,
    /// Nobody is closing the channel, so there is nothing to claim.
    #[error("the channel is open; a balance can be claimed once somebody closes it alone")]
    ChannelOpen,
    /// Signed by a key that is not the party's.
    #[error("signed by a key that is not the channel party's")]
    NotAParty,
    /// The ledger knows as much or more of this lane.
    #[error("the ledger already knows a balance of this lane that is as high")]
    NotHigher,
    /// Payouts do not add up to the channel's money.
    #[error("the payouts do not add up to what is in the channel")]
    Payouts,
    /// The channel's withdrawn total is not the one that the withdraw follows.
    #[error("the withdraw does not follow what was withdrawn so far; it was applied, or is an old one")]
    Withdrawn,
    /// A deposit would be more than can be counted, or too little would be left.
    #[error("the channel would be left with too little, or its deposits would be more than can be counted")]
    Deposits,
    /// Past its expiry milestone.
    #[error("it came after its expiry milestone")]
    Expired,
}

impl Conflict {
    /// A short stable name for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::InputMissing => "input_missing",
            Self::InputsCommitment => "inputs_commitment",
            Self::WrongKey => "wrong_key",
            Self::Sum => "sum",
            Self::ChannelUnknown => "channel_unknown",
            Self::ChannelClosing => "channel_closing",
            Self::ChannelOpen => "channel_open",
            Self::NotAParty => "not_a_party",
            Self::NotHigher => "not_higher",
            Self::Payouts => "payouts",
            Self::Withdrawn => "withdrawn",
            Self::Deposits => "deposits",
            Self::Expired => "expired",
        }
    }
}
