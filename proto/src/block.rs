//! Blocks: the vertices of the Tangle.

mod work;

use bincode::{Decode, Encode};
use thiserror::Error;
pub use work::Work;

use crate::{
    BlockId, Milestone, Transaction,
    codec::{self, CodecError},
    hash::{Layout, Tag},
    limits,
};

/// The only version of blocks so far.
pub const BLOCK_VERSION: u8 = 1;

/// Bytes that somebody wants on the ledger: a firmware's hash, a meter's readings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Data {
    /// What kind of data, for those who search for it.
    pub tag: Vec<u8>,
    /// The data.
    pub data: Vec<u8>,
}

/// What a block carries.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Payload {
    /// Nothing: the block only approves its parents.
    Empty,
    /// A transaction.
    Transaction(Box<Transaction>),
    /// A milestone.
    Milestone(Box<Milestone>),
    /// Data.
    Data(Data),
}

/// A vertex of the Tangle: it approves 1 to 8 earlier blocks and may carry a payload.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Block {
    /// [`BLOCK_VERSION`].
    pub version: u8,
    /// Approved blocks, strictly rising, so that a set of parents has one spelling.
    pub parents: Vec<BlockId>,
    /// What the block carries.
    pub payload: Payload,
    /// Makes the proof of work come out.
    pub nonce: u64,
}

/// Why bytes are not a block.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The bytes are no encoding of a block.
    #[error("not a block: {0}")]
    Codec(#[from] CodecError),
    /// A version this software does not know.
    #[error("block version {0} is not known here; this software knows {BLOCK_VERSION}")]
    Version(u8),
    /// No parents, too many, or not strictly rising.
    #[error("a block approves 1 to {max} parents in strictly rising order", max = limits::PARENTS_MAX)]
    Parents,
    /// A data payload's tag or data is too long.
    #[error("a data payload holds at most {tag} bytes of tag and {data} of data", tag = limits::DATA_TAG_BYTES_MAX, data = limits::DATA_BYTES_MAX)]
    Data,
    /// A milestone names other parents than its block.
    #[error("the milestone names other parents than its block")]
    MilestoneParents,
    /// The proof of work is too little.
    #[error("the proof of work has {got} bits, this network asks for {wanted}")]
    Work {
        /// Bits found.
        got: u32,
        /// Bits asked for.
        wanted: u8,
    },
}

impl Block {
    /// A block with `nonce` 0, its parents sorted and made unique.
    pub fn new(mut parents: Vec<BlockId>, payload: Payload) -> Self {
        parents.sort_unstable();
        parents.dedup();
        Self { version: BLOCK_VERSION, parents, payload, nonce: 0 }
    }

    /// Decodes a block and checks everything that needs no ledger: the form and the proof of work.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn from_bytes(bytes: &[u8], pow_bits: u8) -> Result<Self, BlockError> {
        let block: Self = codec::decode::<_, { limits::BLOCK_BYTES_MAX }>(bytes)?;
        block.check_form()?;
        let got = Work::of(bytes).bits(block.nonce);
        if got < u32::from(pow_bits) {
            return Err(BlockError::Work { got, wanted: pow_bits });
        }
        Ok(block)
    }

    fn check_form(&self) -> Result<(), BlockError> {
        if self.version != BLOCK_VERSION {
            return Err(BlockError::Version(self.version));
        }
        let count_fits = (1..=limits::PARENTS_MAX).contains(&self.parents.len());
        if !count_fits || !self.parents.is_sorted_by(|left, right| left < right) {
            return Err(BlockError::Parents);
        }
        match &self.payload {
            Payload::Data(data)
                if data.tag.len() > limits::DATA_TAG_BYTES_MAX
                    || data.data.len() > limits::DATA_BYTES_MAX =>
            {
                Err(BlockError::Data)
            }
            Payload::Milestone(milestone) if milestone.essence.parents != self.parents => {
                Err(BlockError::MilestoneParents)
            }
            _ => Ok(()),
        }
    }

    /// The block's bytes, as they are sent, stored and hashed.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The block's id, of its bytes as [`Block::to_bytes`] gives them.
    pub fn id_of(bytes: &[u8]) -> BlockId {
        BlockId::new(*Layout::new(Tag::BLOCK).bytes(bytes).hash().as_bytes())
    }

    /// The block's id.
    pub fn id(&self) -> BlockId {
        Self::id_of(&self.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Hash, MilestoneEssence, MilestoneId, NetworkId};

    fn worked(mut block: Block, pow_bits: u8) -> Vec<u8> {
        block.nonce = Work::of(&block.to_bytes()).search(pow_bits, 0, u64::MAX).unwrap();
        block.to_bytes()
    }

    fn parents(count: u8) -> Vec<BlockId> {
        (0..count).map(|n| BlockId::new([n; 32])).collect()
    }

    #[test]
    fn blocks_read_back_and_their_work_is_checked() {
        let bytes = worked(Block::new(parents(2), Payload::Empty), 10);
        assert_eq!(Block::from_bytes(&bytes, 10).unwrap().to_bytes(), bytes);
        assert!(matches!(Block::from_bytes(&bytes, 200), Err(BlockError::Work { .. })));
        let mut changed = bytes.clone();
        changed[12] ^= 1; // in the first parent: the old work does not fit the new block
        assert!(Block::from_bytes(&changed, 10).is_err());
    }

    #[test]
    fn parents_have_one_spelling() {
        for bad in
            [vec![], parents(9), vec![BlockId::new([1; 32]); 2], parents(2).into_iter().rev().collect()]
        {
            let block = Block { version: BLOCK_VERSION, parents: bad, payload: Payload::Empty, nonce: 0 };
            assert_eq!(Block::from_bytes(&block.to_bytes(), 0), Err(BlockError::Parents));
        }
        assert_eq!(
            Block::new(parents(2).into_iter().rev().chain(parents(2)).collect(), Payload::Empty).parents,
            parents(2)
        );
    }

    #[test]
    fn other_versions_and_long_data_are_refused() {
        let mut block = Block::new(parents(1), Payload::Empty);
        block.version = 2;
        assert_eq!(Block::from_bytes(&block.to_bytes(), 0), Err(BlockError::Version(2)));
        let data = Data { tag: vec![0; limits::DATA_TAG_BYTES_MAX + 1], data: Vec::new() };
        let block = Block::new(parents(1), Payload::Data(data));
        assert_eq!(Block::from_bytes(&block.to_bytes(), 0), Err(BlockError::Data));
    }

    #[test]
    fn limits_belong_to_what_is_allowed() {
        let data = Data { tag: vec![1; limits::DATA_TAG_BYTES_MAX], data: vec![1; limits::DATA_BYTES_MAX] };
        for payload in [Payload::Data(data.clone()), Payload::Empty] {
            let bytes = Block::new(parents(8), payload).to_bytes();
            assert!(Block::from_bytes(&bytes, 0).is_ok());
        }
        let long = Data { data: vec![1; limits::DATA_BYTES_MAX + 1], ..data };
        let bytes = Block::new(parents(1), Payload::Data(long)).to_bytes();
        assert_eq!(Block::from_bytes(&bytes, 0), Err(BlockError::Data));
    }

    #[test]
    fn a_milestone_approves_what_its_block_does() {
        let essence = MilestoneEssence {
            network: NetworkId::new([1; 32]),
            index: 1,
            timestamp_ms: 1,
            previous: MilestoneId::new([0; 32]),
            parents: parents(2),
            included_root: Hash::ZERO,
            applied_root: Hash::ZERO,
            channels_root: Hash::ZERO,
            state_root: Hash::ZERO,
            next: None,
        };
        let milestone = Payload::Milestone(Box::new(Milestone { essence, signatures: Vec::new() }));
        let block = Block::new(parents(2), milestone.clone());
        assert_eq!(Block::from_bytes(&block.to_bytes(), 0), Ok(block));
        let other = Block::new(parents(3), milestone);
        assert_eq!(Block::from_bytes(&other.to_bytes(), 0), Err(BlockError::MilestoneParents));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_block_or_a_typed_error(bytes: Vec<u8>) {
            let _ = Block::from_bytes(&bytes, 0);
        }
    }
}
