//! Files on the ledger: that a file's content existed when a milestone confirmed its hash, proven offline.
//!
//! One block holds one [`Note`]: the Merkle root over the hashes of one file or of many. Each file gets a
//! [`FileProof`] of its own, which needs nothing but the network's parameters to check.
//!
//! ```
//! use flash_node_client::light::notary::{FileDigest, Note};
//!
//! let readings = [b"7 kWh".as_slice(), b"9 kWh"].map(FileDigest::of);
//! let (note, paths) = Note::over(&readings).ok_or("no files, or too many")?;
//! assert_eq!(Note::from_data(&note.to_data()), Some(note));
//! assert!(paths[1].verify(&note.root, readings[1].hash.as_bytes()));
//! // `note.to_data()` goes into a block; what proves that it was confirmed and a path make a `FileProof`.
//! # Ok::<(), &str>(())
//! ```

use flash_proto::{
    BlockId, Hash, NetworkId, NetworkParams, Payload,
    hash::{Layout, Tag},
    milestone::MilestoneError,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::evidence::{Confirmed, Evidence, EvidenceError};
use crate::ledger::{merkle, merkle::AuditPath};

/// The only version of proofs so far.
const PROOF_VERSION: u8 = 1;
/// Files in one note.
pub const FILES_MAX: usize = 1_024;

/// What a file is known by: its length and the hash of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// How many bytes it has.
    pub bytes: u64,
    /// `SHA3-256("flash/file" ‖ content ‖ bytes u64)`.
    pub hash: Hash,
}

/// Hashes a file piece by piece.
#[derive(Clone)]
pub struct FileHasher {
    layout: Layout,
    bytes: u64,
}

impl Default for FileHasher {
    fn default() -> Self {
        Self { layout: Layout::new(Tag::FILE), bytes: 0 }
    }
}

impl FileHasher {
    /// Takes the next piece of the content.
    #[must_use]
    pub fn update(self, piece: &[u8]) -> Self {
        // No file has 2^64 bytes.
        let bytes = self.bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        Self { layout: self.layout.bytes(piece), bytes }
    }

    /// The digest of all pieces.
    pub fn finish(self) -> FileDigest {
        FileDigest { bytes: self.bytes, hash: self.layout.u64(self.bytes).hash() }
    }
}

impl FileDigest {
    /// The digest of this content.
    pub fn of(content: &[u8]) -> Self {
        FileHasher::default().update(content).finish()
    }
}

/// What a block says of one file or of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// How many files.
    pub files: u32,
    /// The Merkle root over their hashes.
    pub root: Hash,
}

impl Note {
    /// The note over these files, and the path from each of them to its root; `None` if there are no files,
    /// or more than [`FILES_MAX`].
    pub fn over(files: &[FileDigest]) -> Option<(Self, Vec<AuditPath>)> {
        if !(1..=FILES_MAX).contains(&files.len()) {
            return None;
        }
        let leaves = || files.iter().map(|file| *file.hash.as_bytes());
        let paths: Option<Vec<_>> = (0..files.len()).map(|place| merkle::prove(leaves(), place)).collect();
        let note = Self { files: u32::try_from(files.len()).ok()?, root: merkle::root(leaves()) };
        Some((note, paths?))
    }

    /// The data of a data payload: `"flash/note" ‖ files u32 ‖ root`.
    pub fn to_data(&self) -> Vec<u8> {
        [&Tag::NOTE.bytes()[..], &self.files.to_le_bytes(), self.root.as_bytes()].concat()
    }

    /// The note in a data payload, if it is one.
    pub fn from_data(data: &[u8]) -> Option<Self> {
        let (files, root) = data.strip_prefix(&Tag::NOTE.bytes()[..])?.split_first_chunk::<4>()?;
        let note = Self { files: u32::from_le_bytes(*files), root: Hash::new(root.try_into().ok()?) };
        (note.files > 0).then_some(note)
    }
}

/// Proves that a file's hash stood on the ledger: the content of a proof file (JSON).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileProof {
    version: u8,
    network: NetworkId,
    file: FileDigest,
    /// Leads from the file's hash to the note's root.
    path: AuditPath,
    evidence: Evidence,
}

/// A file whose hash is proven to have stood on the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notarized {
    /// The block with the note.
    pub block: BlockId,
    /// The tag beside the note.
    pub tag: Vec<u8>,
    /// How many files the note is over.
    pub files: u32,
    /// The milestone that confirmed it.
    pub milestone_index: u64,
    /// Milliseconds since 1970, as the coordinators signed: the file existed before.
    pub timestamp_ms: u64,
}

/// Why a file is not proven to have stood on the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotaryError {
    /// A version of proofs that this software does not know.
    #[error("proof version {0} is not known here; this software knows {PROOF_VERSION}")]
    Version(u8),
    /// The proof is of another network.
    #[error("the proof is of network {proof}, not of {ours}")]
    Network {
        /// The proof's.
        proof: NetworkId,
        /// Of the parameters.
        ours: NetworkId,
    },
    /// The file is not the one of the proof.
    #[error("the file has {} bytes and hash {}; the proof is of {} bytes and hash {}", .found.bytes, .found.hash, .proven.bytes, .proven.hash)]
    File {
        /// The file's.
        found: FileDigest,
        /// The proof's.
        proven: FileDigest,
    },
    /// The signatures of the milestone that confirmed the block, or of one that handed over, are not valid.
    #[error("the coordinators' signatures are not valid: {0}")]
    Signatures(MilestoneError),
    /// The evidence proves nothing for another reason.
    #[error(transparent)]
    Evidence(EvidenceError),
    /// The block carries no note.
    #[error("block {0} carries no note about files")]
    NoNote(BlockId),
    /// The path does not lead to the note's root.
    #[error("nothing proves that the file is among those that block {0} notarizes")]
    NotInNote(BlockId),
}

impl FileProof {
    /// The proof of one of a note's files. What is given is not checked.
    pub const fn new(network: NetworkId, file: FileDigest, path: AuditPath, evidence: Evidence) -> Self {
        Self { version: PROOF_VERSION, network, file, path, evidence }
    }

    /// The proof of the only file that a note is over. What is given is not checked.
    pub const fn of_one(network: NetworkId, file: FileDigest, evidence: Evidence) -> Self {
        let path = AuditPath { index: 0, leaves: 1, siblings: Vec::new() };
        Self::new(network, file, path, evidence)
    }

    /// Checks that `file` is the proof's and that its hash stood on the ledger of this network.
    ///
    /// # Errors
    /// [`NotaryError`].
    pub fn verify(&self, params: &NetworkParams, file: FileDigest) -> Result<Notarized, NotaryError> {
        if self.version != PROOF_VERSION {
            return Err(NotaryError::Version(self.version));
        }
        let ours = params.id();
        if self.network != ours {
            return Err(NotaryError::Network { proof: self.network, ours });
        }
        let Confirmed { id, block, milestone_index, timestamp_ms } = self.evidence.verify(params)?;
        let Payload::Data(data) = block.payload else { return Err(NotaryError::NoNote(id)) };
        let note = Note::from_data(&data.data).ok_or(NotaryError::NoNote(id))?;
        let all = self.path.leaves == u64::from(note.files);
        if !all || !self.path.verify(&note.root, self.file.hash.as_bytes()) {
            return Err(NotaryError::NotInNote(id));
        }
        // Last: what is proven of a file that was changed is worth knowing only if it is proven.
        if file != self.file {
            return Err(NotaryError::File { found: file, proven: self.file });
        }
        Ok(Notarized { block: id, tag: data.tag, files: note.files, milestone_index, timestamp_ms })
    }
}

impl From<EvidenceError> for NotaryError {
    fn from(error: EvidenceError) -> Self {
        match error {
            EvidenceError::Milestone(error) => Self::Signatures(error),
            other => Self::Evidence(other),
        }
    }
}

#[cfg(test)]
mod tests;
