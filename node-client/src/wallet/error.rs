//! Why a wallet refuses.

use flash_proto::{Address, Amount, TransactionId, codec::CodecError, limits};
use thiserror::Error;

/// Why a wallet refuses. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WalletError {
    /// There is not enough money that is confirmed and not reserved.
    #[error("{wanted} is needed, but only {available} is there and not reserved")]
    Insufficient {
        /// What is needed.
        wanted: Amount,
        /// What can be spent.
        available: Amount,
    },
    /// The money is there, but in too many pieces for one transaction.
    #[error(
        "{wanted} is needed, but the {max} largest outputs hold only {largest}; \
         send that to an own address first to join them",
        max = limits::FUNDING_INPUTS_MAX
    )]
    TooManyInputs {
        /// What is needed.
        wanted: Amount,
        /// What one transaction can bring together.
        largest: Amount,
    },
    /// What is left over would be a smaller output than the network allows.
    #[error(
        "spending {wanted} would leave {change} over, less than the smallest output of {min}; \
         spend exactly {all}, or at most {all} less {min}"
    )]
    ChangeTooSmall {
        /// What is needed.
        wanted: Amount,
        /// What would be left over.
        change: Amount,
        /// The network's smallest output.
        min: Amount,
        /// What the inputs hold.
        all: Amount,
    },
    /// The amount itself is smaller than the network allows.
    #[error("{got} is less than the smallest output of {min} on this network")]
    BelowMinimum {
        /// The amount.
        got: Amount,
        /// The network's smallest output.
        min: Amount,
    },
    /// All 2^31 keys of an account are used.
    #[error("this seed has no fresh keys left; make a new wallet and move the money there")]
    Exhausted,
    /// An output's address is none of this wallet.
    #[error("{0} is no address of this wallet")]
    NotOurs(Address),
    /// The transaction does not spend what is to be unlocked, or commits to something else.
    #[error("transaction {0} does not spend the outputs that are to be unlocked")]
    OtherInputs(TransactionId),
    /// The outputs hold more than there is.
    #[error("the outputs add up to more than the supply of {}", Amount::SUPPLY)]
    Supply,
    /// The stored record cannot be read.
    #[error("the wallet's record cannot be read: {0}; recover the wallet from its words")]
    Record(#[from] CodecError),
    /// The stored record is of another seed.
    #[error("the wallet's record belongs to another seed")]
    OtherSeed,
}
