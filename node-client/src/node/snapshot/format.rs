//! The bytes of a snapshot (`docs/protocol.md`, P50): frames in sections, and a digest over all.

use std::io::{self, Read, Write};

use bincode::{Decode, Encode};
use flash_proto::{
    BlockId, Hash, Milestone, MilestoneId, NetworkId, StateKey, codec, codec::CodecError, hash::Tag,
    limits::NODE_FRAME_BYTES_MAX, milestone::MilestoneError,
};
use sha3::{Digest, Sha3_256};
use thiserror::Error;

use crate::{ledger::StateValue, node::NodeError};

/// The first bytes of every snapshot.
const MAGIC: [u8; 8] = *b"flashsnp";
/// The version that is written and read.
const VERSION: u8 = 1;
/// Bytes of one frame: the ids of a full milestone fit.
const FRAME_BYTES_MAX: usize = NODE_FRAME_BYTES_MAX;
/// Entries of the state in one frame.
pub(super) const FRAME_ENTRIES: usize = 512;

/// Why a snapshot cannot be written, or is not one to start from.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file cannot be read or written.
    #[error("the snapshot {path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// Reading or writing fails.
    #[error("the snapshot cannot be read or written: {0}")]
    Stream(#[from] io::Error),
    /// It does not begin as a snapshot does.
    #[error("this is no snapshot")]
    Magic,
    /// It was written by a newer version of this software.
    #[error("the snapshot has format version {0}, which this software does not know; update it")]
    Version(u8),
    /// A part is longer than any can be.
    #[error("a part of the snapshot claims {0} bytes, more than any has")]
    TooLong(u32),
    /// A part does not decode.
    #[error("a part of the snapshot is malformed: {0}")]
    Codec(#[from] CodecError),
    /// A part is missing, or stands where another should.
    #[error("the snapshot's {0} is not what belongs there")]
    Part(&'static str),
    /// It is of another network.
    #[error("the snapshot is of network {0}, not of this one")]
    Network(NetworkId),
    /// A milestone in it is not signed as it must be, or does not follow the one before it.
    #[error("milestone {index} in the snapshot is not valid: {error}")]
    Milestone {
        /// Its index.
        index: u64,
        /// What is wrong.
        error: MilestoneError,
    },
    /// Something is not what its milestone commits to.
    #[error("the {what} in the snapshot are not those that milestone {index} commits to")]
    Root {
        /// The milestone.
        index: u64,
        /// What.
        what: &'static str,
    },
    /// A state entry stands out of order or twice.
    #[error("the state in the snapshot is not in order")]
    Order,
    /// I1 does not hold for what is in it.
    #[error("outputs and channels in the snapshot do not hold the supply")]
    Supply,
    /// The bytes are not the ones that were written.
    #[error("the snapshot is damaged: its digest is {got}, but it ends with {wanted}")]
    Digest {
        /// What the bytes give.
        got: Hash,
        /// What the file says.
        wanted: Hash,
    },
    /// Bytes follow the end.
    #[error("bytes follow the end of the snapshot")]
    Trailing,
    /// There is no milestone yet.
    #[error("there is no milestone to make a snapshot at yet; wait for the first")]
    Genesis,
    /// The node's directory is in use already.
    #[error(
        "the store holds a ledger already; a snapshot is only for a node that has none. Remove the store directory to start over"
    )]
    NotEmpty,
    /// The store does not take it.
    #[error("{0}")]
    Node(Box<NodeError>),
}

impl From<NodeError> for SnapshotError {
    fn from(error: NodeError) -> Self {
        Self::Node(Box::new(error))
    }
}

/// The first part.
#[derive(Debug, Encode, Decode)]
pub(super) struct Header {
    pub network: NetworkId,
    /// The milestone.
    pub index: u64,
    /// And which one it is: for who looks at the file without reading it whole.
    pub milestone: MilestoneId,
}

/// A milestone, and the block that carried it to whoever wrote the snapshot.
#[derive(Debug, Encode, Decode)]
pub(super) struct Carried {
    pub milestone: Milestone,
    pub block: BlockId,
}

/// One of the last milestones, with what can still be asked of it.
#[derive(Debug, Encode, Decode)]
pub(super) struct Recent {
    pub carried: Carried,
    /// The blocks that it confirmed.
    pub included: Vec<[u8; 32]>,
    /// The channels that it changed.
    pub touched: Vec<[u8; 32]>,
}

/// Entries of the state.
pub(super) type Entries = Vec<(StateKey, StateValue)>;

/// Writes frames, and hashes what it writes.
pub(super) struct Frames<W> {
    out: W,
    digest: Sha3_256,
    buffer: Vec<u8>,
    bytes: u64,
}

impl<W: Write> Frames<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        let digest = Sha3_256::new().chain_update(Tag::SNAPSHOT.bytes());
        let mut frames = Self { out, digest, buffer: Vec::new(), bytes: 0 };
        frames.write(&MAGIC)?;
        frames.write(&[VERSION])?;
        Ok(frames)
    }

    pub(super) fn frame<T: Encode>(&mut self, value: &T) -> Result<(), SnapshotError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        codec::encode_into(value, &mut buffer);
        let len = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        if buffer.len() > FRAME_BYTES_MAX {
            return Err(SnapshotError::TooLong(len));
        }
        self.write(&len.to_le_bytes())?;
        self.write(&buffer)?;
        self.buffer = buffer;
        Ok(())
    }

    /// Ends a section.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.write(&[0; 4])
    }

    /// Ends the file; its digest, and how many bytes it has.
    pub(super) fn finish(mut self) -> io::Result<(Hash, u64)> {
        let digest = Hash::new(self.digest.clone().finalize().into());
        self.write(digest.as_bytes())?;
        self.out.flush()?;
        Ok((digest, self.bytes))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.out.write_all(bytes)
    }
}

/// Reads frames, one in memory at a time.
pub(super) struct Parts<R> {
    input: R,
    digest: Sha3_256,
    buffer: Vec<u8>,
    bytes: u64,
}

impl<R: Read> Parts<R> {
    pub(super) fn new(input: R) -> Result<Self, SnapshotError> {
        let digest = Sha3_256::new().chain_update(Tag::SNAPSHOT.bytes());
        let mut parts = Self { input, digest, buffer: Vec::new(), bytes: 0 };
        if parts.array()? != MAGIC {
            return Err(SnapshotError::Magic);
        }
        match parts.array()? {
            [VERSION] => Ok(parts),
            [version] => Err(SnapshotError::Version(version)),
        }
    }

    /// The next part of a section, or `None` at its end.
    pub(super) fn next<T: Decode<()>>(&mut self) -> Result<Option<T>, SnapshotError> {
        let len = u32::from_le_bytes(self.array()?);
        let wanted = usize::try_from(len).unwrap_or(usize::MAX);
        if wanted > FRAME_BYTES_MAX {
            return Err(SnapshotError::TooLong(len));
        }
        if wanted == 0 {
            return Ok(None);
        }
        self.buffer.resize(wanted, 0);
        self.input.read_exact(&mut self.buffer)?;
        self.digest.update(&self.buffer);
        self.bytes = self.bytes.saturating_add(u64::from(len));
        Ok(Some(codec::decode::<T, FRAME_BYTES_MAX>(&self.buffer)?))
    }

    /// Checks the digest, and that nothing follows; the digest and how many bytes there were.
    pub(super) fn finish(mut self) -> Result<(Hash, u64), SnapshotError> {
        let got = Hash::new(self.digest.clone().finalize().into());
        let wanted = Hash::new(self.array()?);
        if got != wanted {
            return Err(SnapshotError::Digest { got, wanted });
        }
        if self.input.read(&mut [0])? > 0 {
            return Err(SnapshotError::Trailing);
        }
        Ok((got, self.bytes))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        self.digest.update(bytes);
        self.bytes = self.bytes.saturating_add(u64::try_from(N).unwrap_or(u64::MAX));
        Ok(bytes)
    }
}
