//! The backup: one encrypted file, always current, on another disk.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `mod.rs` | the settings, and why a backup is refused |
//! | `file` | the file's bytes: sealing and opening |
//! | `mirror` | what goes into it, kept along with every commit |
//! | `keeper` | the thread that writes it |
//! | `restore` | putting it back, and noticing that a store is older than what was signed |

pub mod file;
mod keeper;
mod mirror;
pub mod restore;

use std::path::PathBuf;

use flash_node_client::wallet::{Account, Seed};
use flash_proto::SecretKey;
use thiserror::Error;

pub(crate) use keeper::{Keeper, Status};

use crate::{datadir::DataDirError, exit::Exit};

/// Where the backup is, and when a commit counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file.
    pub path: PathBuf,
    /// Whether nothing is acknowledged before it is in the file, too.
    pub sync: bool,
}

/// The key of a seed's backups.
pub fn key(seed: &Seed) -> SecretKey {
    seed.key(Account::Backup, 0)
}

/// Why a backup cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The file.
    #[error(transparent)]
    File(#[from] DataDirError),
    /// Something else.
    #[error("{path} is no backup of Flash ({what}). Name another file", path = .path.display())]
    NotABackup {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It was written by a newer version.
    #[error("{path} has format version {version}, newer than this software knows; update it", path = .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u8,
    },
    /// It is of another seed.
    #[error("{path} was made with another seed: these words do not open it", path = .0.display())]
    OtherSeed(PathBuf),
    /// It was changed.
    #[error(
        "{path} is damaged: it is of this seed, but its content is not what was written. Use another copy of it; \
         without one, the words alone still bring the channels back (`flash init --words`)",
        path = .0.display()
    )]
    Damaged(PathBuf),
    /// Another daemon keeps it.
    #[error(
        "{path} is being written by another daemon: two of one seed must never run. Stop that one, or, if it is of \
         another seed, choose another file",
        path = .0.display()
    )]
    InUse(PathBuf),
    /// There are no random bytes, or they cannot be used.
    #[error("cannot encrypt the backup: {0}")]
    Crypto(String),
}

impl BackupError {
    /// The exit code for it.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::File(error) => error.exit(),
            Self::OtherSeed(_) => Exit::Usage,
            Self::NotABackup { .. } | Self::Newer { .. } | Self::Damaged(_) => Exit::DataDirUnusable,
            Self::InUse(_) => Exit::DataDirInUse,
            Self::Crypto(_) => Exit::Failed,
        }
    }
}
