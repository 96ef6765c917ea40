//! What nodes say to each other (`docs/protocol.md`, "Gossip").
//!
//! The dialler opens the live stream; on it both send [`Hello`] and then [`Live`] messages for as long as
//! they are neighbours. Every [`Request`] has a stream of its own, so that a long answer never holds up
//! what is new: one request frame there, [`Reply`] frames back until the stream ends.

use bincode::{Decode, Encode};
use flash_proto::{BlockId, NetworkId, PublicKey, limits::BLOCK_BYTES_MAX};
use thiserror::Error;

use crate::quic::PeerAddress;

/// The version of this protocol.
pub const GOSSIP_VERSION: u16 = 1;
/// Bytes of one frame on the live stream.
pub const LIVE_FRAME_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one request.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Bytes of one frame of an answer.
pub const REPLY_FRAME_BYTES_MAX: usize = 256 * 1024;
/// Blocks that one request asks for.
pub const WANT_IDS_MAX: usize = 256;
/// Ids in one frame of an answer.
pub const IDS_MAX: usize = 4_096;
/// Addresses in one message.
pub const ADDRESSES_MAX: usize = 64;
/// Tips in one message.
pub const TIPS_MAX: usize = 64;
/// Bytes of a coordinator's message.
pub const COORDINATOR_BYTES_MAX: usize = 4 * 1024;
/// Blocks in one message: none is shorter than a parent's id.
pub const BLOCKS_MAX: usize = REPLY_FRAME_BYTES_MAX / 32;

/// Where others reach a node that speaks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reached {
    /// Nowhere.
    Nowhere,
    /// At the address that it is seen to have, and this port.
    Port(u16),
    /// At this host name or IP address and port.
    Host(String, u16),
}

/// The first message of both on the live stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// [`GOSSIP_VERSION`]. Nodes of different versions part.
    pub version: u16,
    /// Optional abilities, one bit each; none yet. Unknown bits are ignored.
    pub features: u64,
    /// The network. Nodes of different networks part.
    pub network: NetworkId,
    /// Index of the newest milestone that it has applied.
    pub newest: u64,
    /// Where it is reached.
    pub reached: Reached,
}

/// Where a node is that was reached there.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeAddress {
    key: PublicKey,
    host: String,
    port: u16,
}

/// What neighbours send without being asked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Live {
    /// New blocks, in an order in which each comes after those that it approves.
    Blocks(Vec<Vec<u8>>),
    /// The sender has applied this milestone.
    Newest(u64),
    /// Nodes that the sender has reached.
    Addresses(Vec<NodeAddress>),
    /// Blocks that nothing approves yet at the sender: who lacks one has missed something.
    Tips(Vec<BlockId>),
    /// A coordinator's message, which only coordinators understand.
    Coordinator(Vec<u8>),
}

/// What one neighbour asks of another.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// These blocks, at most [`WANT_IDS_MAX`]. The answer holds those that are there.
    Want(Vec<BlockId>),
    /// Everything that the milestones after this one confirmed, in order: for each its blocks, parents
    /// first, and then the milestone's own block.
    Sync {
        /// The newest milestone that the asker has applied.
        after: u64,
    },
    /// The ids of all blocks that wait for a milestone, in the order in which they came.
    Waiting,
}

/// A frame of an answer; the answer is over when the stream ends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// Blocks.
    Blocks(Vec<Vec<u8>>),
    /// Ids.
    Ids(Vec<BlockId>),
}

/// A message that holds more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{got} {what}, but at most {max} are allowed in one message")]
pub struct TooMuch {
    what: &'static str,
    got: usize,
    max: usize,
}

fn at_most(what: &'static str, got: usize, max: usize) -> Result<(), TooMuch> {
    if got > max { Err(TooMuch { what, got, max }) } else { Ok(()) }
}

fn check_blocks(blocks: &[Vec<u8>]) -> Result<(), TooMuch> {
    at_most("blocks", blocks.len(), BLOCKS_MAX)?;
    let longest = blocks.iter().map(Vec::len).max().unwrap_or(0);
    at_most("bytes of a block", longest, BLOCK_BYTES_MAX)
}

impl Live {
    /// Whether everything in it is within its limit.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn check(&self) -> Result<(), TooMuch> {
        match self {
            Self::Blocks(blocks) => check_blocks(blocks),
            Self::Newest(_) => Ok(()),
            Self::Addresses(addresses) => at_most("addresses", addresses.len(), ADDRESSES_MAX),
            Self::Tips(tips) => at_most("tips", tips.len(), TIPS_MAX),
            Self::Coordinator(bytes) => at_most("bytes", bytes.len(), COORDINATOR_BYTES_MAX),
        }
    }
}

impl Request {
    /// Whether everything in it is within its limit.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn check(&self) -> Result<(), TooMuch> {
        match self {
            Self::Want(ids) => at_most("ids", ids.len(), WANT_IDS_MAX),
            Self::Sync { .. } | Self::Waiting => Ok(()),
        }
    }
}

impl Reply {
    /// Whether everything in it is within its limit.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn check(&self) -> Result<(), TooMuch> {
        match self {
            Self::Blocks(blocks) => check_blocks(blocks),
            Self::Ids(ids) => at_most("ids", ids.len(), IDS_MAX),
        }
    }
}

impl NodeAddress {
    /// The address as it is dialled; `None` if the host cannot be one.
    pub fn to_peer(&self) -> Option<PeerAddress> {
        PeerAddress::new(self.key, self.host.clone(), self.port).ok()
    }
}

impl From<&PeerAddress> for NodeAddress {
    fn from(address: &PeerAddress) -> Self {
        Self { key: address.key, host: address.host().to_owned(), port: address.port() }
    }
}

const _: () = {
    assert!(BLOCK_BYTES_MAX + 1024 < LIVE_FRAME_BYTES_MAX, "a block fits a live frame");
    assert!(WANT_IDS_MAX * 32 + 1024 < REQUEST_BYTES_MAX, "so many ids fit a request");
    assert!(IDS_MAX * 32 + 1024 < REPLY_FRAME_BYTES_MAX, "so many ids fit an answer");
};

#[cfg(test)]
mod tests {
    use flash_proto::codec;

    use super::*;

    fn id(n: u8) -> BlockId {
        BlockId::new([n; 32])
    }

    /// The bytes as `docs/protocol.md` gives them.
    #[test]
    fn messages_have_the_specified_bytes() {
        let hello = Hello {
            version: GOSSIP_VERSION,
            features: 0,
            network: NetworkId::new([7; 32]),
            newest: 3,
            reached: Reached::Host("a.b".to_owned(), 258),
        };
        let network = "07".repeat(32);
        let expected =
            format!("01000000000000000000{network}0300000000000000020000000300000000000000612e620201");
        assert_eq!(hex::encode(codec::encode(&hello)), expected);
        let ids = format!("0100000000000000{}", "01".repeat(32));
        for (message, expected) in [
            (Live::Blocks(vec![vec![9, 8]]), "00000000010000000000000002000000000000000908".to_owned()),
            (Live::Newest(5), "010000000500000000000000".to_owned()),
            (Live::Tips(vec![id(1)]), format!("03000000{ids}")),
            (Live::Coordinator(vec![6]), "04000000010000000000000006".to_owned()),
        ] {
            assert_eq!(hex::encode(codec::encode(&message)), expected, "{message:?}");
        }
        let address = PeerAddress::new(PublicKey::new([1; 32]), "h", 9).unwrap();
        let addresses = Live::Addresses(vec![NodeAddress::from(&address)]);
        let expected = format!("02000000{ids}0100000000000000680900");
        assert_eq!(hex::encode(codec::encode(&addresses)), expected);
        for (request, expected) in [
            (Request::Want(vec![id(1)]), format!("00000000{ids}")),
            (Request::Sync { after: 4 }, "010000000400000000000000".to_owned()),
            (Request::Waiting, "02000000".to_owned()),
        ] {
            assert_eq!(hex::encode(codec::encode(&request)), expected, "{request:?}");
        }
        let reply = codec::encode(&Reply::Ids(vec![id(1)]));
        assert_eq!(hex::encode(reply), format!("01000000{ids}"));
    }

    #[test]
    fn more_than_the_limits_is_told() {
        let many = |count| vec![id(1); count];
        assert!(Live::Tips(many(TIPS_MAX)).check().is_ok());
        assert!(Live::Tips(many(TIPS_MAX + 1)).check().is_err());
        assert!(Live::Blocks(vec![vec![0; BLOCK_BYTES_MAX + 1]]).check().is_err());
        assert!(Live::Coordinator(vec![0; COORDINATOR_BYTES_MAX + 1]).check().is_err());
        assert!(Request::Want(many(WANT_IDS_MAX + 1)).check().is_err());
        assert!(Reply::Ids(many(IDS_MAX + 1)).check().is_err());
        assert!(Reply::Blocks(vec![Vec::new(); BLOCKS_MAX + 1]).check().is_err());
    }
}
