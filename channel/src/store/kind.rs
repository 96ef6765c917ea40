//! Which store a directory is for.

use std::{fmt, path::Path, str::FromStr};

use super::{JournalStore, SledStore, Store, StoreError};

/// The kinds of stores that are in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// [`JournalStore`].
    Journal,
    /// [`SledStore`], that of older releases.
    Sled,
}

impl StoreKind {
    /// Opens or creates the store of this kind in `directory` for `identity`. If none is wished for, the kind is the one that
    /// made the directory, and the journal for a new one.
    ///
    /// # Errors
    /// As [`JournalStore::open`] and [`SledStore::open`].
    pub fn open(
        wished: Option<Self>,
        directory: &Path,
        identity: &[u8],
    ) -> Result<Box<dyn Store>, StoreError> {
        let found = if SledStore::made(directory) { Self::Sled } else { Self::Journal };
        Ok(match wished.unwrap_or(found) {
            Self::Journal => Box::new(JournalStore::open(directory, identity)?),
            Self::Sled => Box::new(SledStore::open(directory, identity)?),
        })
    }
}

impl FromStr for StoreKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "journal" => Ok(Self::Journal),
            "sled" => Ok(Self::Sled),
            _ => Err(format!("`{text}` is neither `journal` nor `sled`")),
        }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Journal => "journal",
            Self::Sled => "sled",
        })
    }
}
