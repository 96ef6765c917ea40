//! SHA3-256 under domain tags, and the fixed byte layouts that are hashed and signed.

use sha3::{Digest, Sha3_256};

use crate::{Amount, Hash, Side};

/// A domain tag: 16 bytes, ASCII, zero-padded. It comes first in everything that is hashed, so that
/// bytes made for one purpose can never be read as bytes of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag([u8; 16]);

impl Tag {
    /// The address of a public key.
    pub const ADDRESS: Self = Self(*b"flash/address\0\0\0");
    /// A network's parameters.
    pub const NETWORK: Self = Self(*b"flash/network\0\0\0");
    /// A transaction's essence.
    pub const TRANSACTION: Self = Self(*b"flash/tx\0\0\0\0\0\0\0\0");
    /// The outputs that a transaction spends.
    pub const INPUTS: Self = Self(*b"flash/inputs\0\0\0\0");
    /// A channel's id, from the id of the transaction that opened it.
    pub const CHANNEL: Self = Self(*b"flash/channel\0\0\0");
    /// The id under which a channel's payouts are outputs.
    pub const PAYOUT: Self = Self(*b"flash/payout\0\0\0\0");
    /// A lane's state: what the payer signs.
    pub const LANE: Self = Self(*b"flash/lane\0\0\0\0\0\0");
    /// What a watchtower holds: what it signs.
    pub const TOWER: Self = Self(*b"flash/tower\0\0\0\0\0");
    /// Which machine speaks for a payee to its watchtowers.
    pub const TOWER_CLIENT: Self = Self(*b"flash/tower-for\0");
    /// A lane's running history.
    pub const HISTORY: Self = Self(*b"flash/history\0\0\0");
    /// One step along a chain of ticks.
    pub const TICK: Self = Self(*b"flash/tick\0\0\0\0\0\0");
    /// Ticks that a lane's running history takes in.
    pub const TICKS: Self = Self(*b"flash/ticks\0\0\0\0\0");
    /// The secret of a chain of ticks, from its payer's key.
    pub const TICK_SECRET: Self = Self(*b"flash/tick-secr\0");
    /// A lane's state as its payee signs for having received it.
    pub const RECEIPT: Self = Self(*b"flash/receipt\0\0\0");
    /// Signatures that are checked together.
    pub const SIGNATURES: Self = Self(*b"flash/signatures");
    /// A block's id.
    pub const BLOCK: Self = Self(*b"flash/block\0\0\0\0\0");
    /// A block's proof of work.
    pub const WORK: Self = Self(*b"flash/work\0\0\0\0\0\0");
    /// A milestone's essence.
    pub const MILESTONE: Self = Self(*b"flash/milestone\0");
    /// A snapshot's bytes.
    pub const SNAPSHOT: Self = Self(*b"flash/snapshot\0\0");
    /// What coordinators say to each other while they agree on the next milestone.
    pub const COORDINATION: Self = Self(*b"flash/coord\0\0\0\0\0");
    /// The key of an output or a channel in the state tree.
    pub const STATE_KEY: Self = Self(*b"flash/state-key\0");
    /// The value of an output or a channel in the state tree.
    pub const STATE_VALUE: Self = Self(*b"flash/state-val\0");
    /// A leaf of the state tree.
    pub const TREE_LEAF: Self = Self(*b"flash/smt-leaf\0\0");
    /// A branch of the state tree.
    pub const TREE_NODE: Self = Self(*b"flash/smt-node\0\0");

    /// A file's content.
    pub const FILE: Self = Self(*b"flash/file\0\0\0\0\0\0");
    /// What a data payload begins with that notarizes files.
    pub const NOTE: Self = Self(*b"flash/note\0\0\0\0\0\0");

    /// The 16 bytes.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

/// Writes a fixed layout straight into SHA3-256: the domain tag, then little-endian integers and
/// fixed-size arrays in the order of the calls.
///
/// ```
/// use flash_proto::hash::{Layout, Tag};
/// let id = Layout::new(Tag::CHANNEL).bytes(&[0; 32]).hash();
/// assert_eq!(id.to_string().len(), 64);
/// ```
#[derive(Clone)]
pub struct Layout(Sha3_256);

impl Layout {
    /// A layout that begins with `tag`.
    pub fn new(tag: Tag) -> Self {
        Self(Sha3_256::new().chain_update(tag.0))
    }

    /// Appends bytes as they are.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    /// Appends one byte.
    #[must_use]
    pub fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    /// Appends two bytes, little-endian.
    #[must_use]
    pub fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends four bytes, little-endian.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends eight bytes, little-endian.
    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends an amount as its base units, eight bytes.
    #[must_use]
    pub fn amount(self, amount: Amount) -> Self {
        self.u64(amount.units())
    }

    /// Appends a side as one byte: A is 0, B is 1.
    #[must_use]
    pub fn side(self, side: Side) -> Self {
        self.u8(side.byte())
    }

    /// Appends how many items follow, as two bytes.
    ///
    /// Lists are bounded far below 65,536 ([`crate::limits`]) before anything is hashed; a longer one
    /// would be written as 65,535, which no list that passed the limits can produce.
    #[must_use]
    pub fn count(self, items: usize) -> Self {
        self.u16(u16::try_from(items).unwrap_or(u16::MAX))
    }

    /// The SHA3-256 of all that was written.
    pub fn hash(self) -> Hash {
        Hash::new(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_the_sha3_of_its_concatenated_bytes() {
        let written = Layout::new(Tag::LANE).u8(1).u16(2).u32(3).u64(4).side(Side::B).amount(Amount::new(5));
        let mut plain = b"flash/lane\0\0\0\0\0\0".to_vec();
        plain.extend([1, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(plain[..16], Tag::LANE.bytes());
        assert_eq!(written.hash(), Hash::new(Sha3_256::digest(plain).into()));
    }
}
