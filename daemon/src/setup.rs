//! Setting up a data directory: `flash init`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use flash_node_client::{
    quic::PeerAddress,
    wallet::{Seed, SeedError, new_words},
};
use flash_proto::NetworkParams;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    datadir::{DataDir, DataDirError, config_path, network_path, read_network, seed_path, write_atomically},
    exit::Exit,
    seedfile::{self, SeedFileError},
};

/// How to set up a data directory.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The directory, made if it is missing.
    pub data: &'a Path,
    /// The network's file, which is copied.
    pub network: &'a Path,
    /// The words of a seed; new ones are made if left out.
    pub words: Option<Zeroizing<String>>,
    /// Encrypts the seed file.
    pub passphrase: Option<Zeroizing<String>>,
    /// The node to follow, for `flash.toml`.
    pub node: Option<&'a PeerAddress>,
}

/// What was set up.
#[derive(Debug)]
pub struct Made {
    /// The network.
    pub network: NetworkParams,
    /// The words, if they are new: the only copy outside of the seed file.
    pub new_words: Option<Zeroizing<String>>,
    /// Whether `flash.toml` was written.
    pub configured: bool,
}

/// Why a data directory cannot be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The directory or one of its files.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The seed file.
    #[error(transparent)]
    SeedFile(#[from] SeedFileError),
    /// The words.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// There is a configuration already, and a node was to be written to it.
    #[error("{path} exists already: add nodes = [\"{node}\"] to it by hand, and leave out --node", path = .path.display())]
    Configured {
        /// The file.
        path: PathBuf,
        /// The node.
        node: PeerAddress,
    },
}

impl SetupError {
    /// The exit code for it.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::DataDir(error) => error.exit(),
            Self::SeedFile(error) => error.exit(),
            Self::Seed(SeedError::Words(_)) | Self::Configured { .. } => Exit::Usage,
            Self::Seed(_) => Exit::Failed,
        }
    }
}

/// Reads the words of a seed from a file, whatever white space is between them.
///
/// # Errors
/// [`SetupError`] if it cannot be read.
pub fn read_words(path: &Path) -> Result<Zeroizing<String>, SetupError> {
    let text = Zeroizing::new(fs::read_to_string(path).map_err(DataDirError::io(path))?);
    let mut words = Zeroizing::new(String::with_capacity(text.len()));
    for word in text.split_whitespace() {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
    }
    Ok(words)
}

/// Sets up a data directory. The seed is written last, so that a setup that failed half-way can be
/// repeated; a directory that has a seed is never touched.
///
/// # Errors
/// [`SetupError`].
pub fn init(setup: Setup<'_>) -> Result<Made, SetupError> {
    let network = read_network(setup.network)?;
    let (words, new_words) = match setup.words {
        Some(words) => (words, None),
        None => {
            let words = new_words()?;
            (words.clone(), Some(words))
        }
    };
    // Words that are no seed are refused before anything is written.
    Seed::from_words(&words, "")?;

    let dir = DataDir::create(setup.data)?;
    let seed = seed_path(dir.path());
    if seed.exists() {
        return Err(DataDirError::AlreadySetUp(dir.path().to_owned()).into());
    }
    keep_network(&dir, &network)?;
    if let Some(node) = setup.node {
        write_config(dir.path(), node)?;
    }
    seedfile::write(&seed, &words, setup.passphrase.as_ref().map(|passphrase| passphrase.as_str()))?;
    Ok(Made { network, new_words, configured: setup.node.is_some() })
}

fn keep_network(dir: &DataDir, network: &NetworkParams) -> Result<(), DataDirError> {
    if network_path(dir.path()).exists() && dir.network()?.id() != network.id() {
        return Err(DataDirError::Identity {
            path: dir.path().to_owned(),
            found: format!("network {}", dir.network()?.name),
            expected: format!("of network {}", network.name),
        });
    }
    dir.write_network(network)
}

fn write_config(dir: &Path, node: &PeerAddress) -> Result<(), SetupError> {
    let path = config_path(dir);
    let text = format!("nodes = [{}]\n", toml::Value::String(node.to_string()));
    match fs::read_to_string(&path) {
        Ok(there) if there == text => Ok(()),
        Ok(_) => Err(SetupError::Configured { path, node: node.clone() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(write_atomically(&path, text.as_bytes())?)
        }
        Err(error) => Err(DataDirError::io(&path)(error).into()),
    }
}
