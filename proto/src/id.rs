//! 32-byte identifiers and the two sides of a channel.

use std::{fmt, ops::Not, str::FromStr};

use bincode::{Decode, Encode};
use thiserror::Error;

use crate::hash::{Layout, Tag};

/// Why a text is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdError {
    /// Not exactly the expected number of hexadecimal digits.
    #[error("`{text}` is not {what}: expected {digits} hexadecimal digits")]
    NotHex {
        /// The text as given.
        text: String,
        /// What it should have named.
        what: &'static str,
        /// How many digits it needs.
        digits: usize,
    },
    /// An output id without its index.
    #[error("`{0}` is not an output id: expected TRANSACTION:INDEX, such as 3f…c2:0")]
    NotAnOutput(String),
}

/// Defines a newtype over a byte array that is hexadecimal as text.
macro_rules! hex_newtype {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
        pub struct $name([u8; $len]);

        impl $name {
            #[doc = concat!("Takes the bytes of ", $what, ".")]
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&hex::encode(self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex::encode(self.0))
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::id::IdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| $crate::id::IdError::NotHex {
                    text: text.chars().take(80).collect(),
                    what: $what,
                    digits: $len * 2,
                })?;
                Ok(Self(bytes))
            }
        }

        $crate::serde_as_text!($name);
    };
}
pub(crate) use hex_newtype;

/// Implements serde through `Display` and `FromStr`, in a crate that has `serde`.
#[macro_export]
macro_rules! serde_as_text {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_newtype!(
    /// A SHA3-256 hash whose meaning its place gives: a root, a history, an anchor.
    Hash, 32, "a hash"
);
hex_newtype!(
    /// Names a network: the hash of its parameters and genesis. Part of everything that is signed.
    NetworkId, 32, "a network id"
);
hex_newtype!(
    /// Names a channel for ever: the hash of the id of the transaction that opened it.
    ChannelId, 32, "a channel id"
);
hex_newtype!(
    /// Names a transaction: the hash of its essence, never of its signatures.
    TransactionId, 32, "a transaction id"
);
hex_newtype!(
    /// Names a block: the hash of its bytes.
    BlockId, 32, "a block id"
);
hex_newtype!(
    /// Names a milestone: the hash of its essence, which the coordinators sign.
    MilestoneId, 32, "a milestone id"
);

impl Hash {
    /// 32 zero bytes: "nothing here" in fields that are not in use.
    pub const ZERO: Self = Self([0; 32]);
}

impl ChannelId {
    /// The channel that the transaction `open` opens. Unique, because an opening transaction spends
    /// at least one output and an output can be spent once.
    pub fn opened_by(open: TransactionId) -> Self {
        Self(*Layout::new(Tag::CHANNEL).bytes(open.as_bytes()).hash().as_bytes())
    }

    /// The output that pays `side` when the channel is closed, in whichever way it is closed.
    pub fn payout(self, side: Side) -> OutputId {
        let source = Layout::new(Tag::PAYOUT).bytes(&self.0).hash();
        OutputId { transaction: TransactionId(*source.as_bytes()), index: u16::from(side.byte()) }
    }
}

/// Names an output: the transaction that made it and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct OutputId {
    /// The transaction that made the output (for a channel's payout, see [`ChannelId::payout`]).
    pub transaction: TransactionId,
    /// Its place among that transaction's outputs, from 0.
    pub index: u16,
}

impl fmt::Display for OutputId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transaction, self.index)
    }
}

impl FromStr for OutputId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || IdError::NotAnOutput(text.chars().take(80).collect());
        let (transaction, index) = text.split_once(':').ok_or_else(malformed)?;
        Ok(Self { transaction: transaction.parse()?, index: index.parse().map_err(|_| malformed())? })
    }
}

crate::serde_as_text!(OutputId);

/// Which party of a channel: A opened it. Also names a lane by its payer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Side {
    /// The party that opened the channel.
    A,
    /// The other one.
    B,
}

impl Side {
    /// Both sides, A first.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The side's byte in signed layouts: A is 0, B is 1.
    pub const fn byte(self) -> u8 {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    /// Picks the value that belongs to this side.
    pub fn pick<T>(self, a: T, b: T) -> T {
        match self {
            Self::A => a,
            Self::B => b,
        }
    }
}

impl Not for Side {
    type Output = Self;

    /// The other side.
    fn not(self) -> Self {
        self.pick(Self::B, Self::A)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.pick("A", "B"))
    }
}

impl FromStr for Side {
    type Err = SideError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "A" => Ok(Self::A),
            "B" => Ok(Self::B),
            other => Err(SideError(other.to_owned())),
        }
    }
}

/// A text that names neither side of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a side: use A or B")]
pub struct SideError(String);

crate::serde_as_text!(Side);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_refuse_what_is_not_theirs() {
        let id = BlockId::new([0xab; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "ab", &"g".repeat(64), &"a".repeat(63), &"a".repeat(66)] {
            assert!(text.parse::<BlockId>().is_err(), "{text}");
        }
        let output = OutputId { transaction: TransactionId::new([1; 32]), index: 65_535 };
        assert_eq!(output.to_string().parse(), Ok(output));
        assert!(format!("{}:65536", output.transaction).parse::<OutputId>().is_err());
        assert!(output.transaction.to_string().parse::<OutputId>().is_err());
    }

    #[test]
    fn the_two_payouts_of_a_channel_differ() {
        let id = ChannelId::opened_by(TransactionId::new([3; 32]));
        assert_ne!(id.payout(Side::A), id.payout(Side::B));
        assert_eq!(!Side::A, Side::B);
    }

    #[test]
    fn a_side_reads_back_and_nothing_else_is_one() {
        for side in Side::BOTH {
            assert_eq!(side.to_string().parse(), Ok(side));
        }
        for text in ["", "a", "AB"] {
            assert_eq!(text.parse::<Side>(), Err(SideError(text.to_owned())));
        }
    }
}
