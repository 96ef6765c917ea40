//! Why a process does not run, or no longer, and with which exit code it ends.

use flash_channel::store::StoreError;

use crate::{datadir::DataDirError, exit::Exit, seedfile::SeedFileError};

/// Why the daemon does not run, or no longer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What failed and what to do.
    pub message: String,
    /// How the process ends.
    pub exit: Exit,
}

impl Failure {
    /// A data directory that cannot be used.
    pub(crate) fn unusable_data(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit: Exit::DataDirUnusable }
    }

    /// A failure of no special kind.
    pub fn new(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), exit: Exit::Failed }
    }
}

impl From<DataDirError> for Failure {
    fn from(error: DataDirError) -> Self {
        Self { message: error.to_string(), exit: error.exit() }
    }
}

impl From<SeedFileError> for Failure {
    fn from(error: SeedFileError) -> Self {
        Self { message: error.to_string(), exit: error.exit() }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match error {
            StoreError::InUse(_) => Exit::DataDirInUse,
            StoreError::WrongIdentity(_) => Exit::DataDirUnusable,
            _ => Exit::StoreFailed,
        };
        Self { message: error.to_string(), exit }
    }
}
