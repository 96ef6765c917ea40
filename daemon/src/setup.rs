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
    backup::{file::Content, restore},
    datadir::{DataDir, DataDirError, config_path, network_path, seed_path, write_atomically},
    exit::Exit,
    failure::Failure,
    seedfile::{self, SeedFileError},
};

/// How to set up a data directory.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The directory, made if it is missing.
    pub data: &'a Path,
    /// The network.
    pub network: &'a NetworkParams,
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
    /// The backup.
    #[error("{0}")]
    Backup(Failure),
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
            Self::Backup(failure) => failure.exit,
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

/// Sets up a data directory, with the records of a backup if there is one. The seed is written last, so that a setup that failed half-way can be
/// repeated; a directory that has a seed is never touched.
///
/// # Errors
/// [`SetupError`].
pub fn init(setup: Setup<'_>, backup: Option<&Content>) -> Result<Made, SetupError> {
    let new_words = if setup.words.is_none() { Some(new_words()?) } else { None };
    let words = setup.words.or_else(|| new_words.clone()).unwrap_or_default();
    // Words that are no seed are refused before anything is written.
    let secret = Seed::from_words(&words, "")?;

    let dir = DataDir::create(setup.data)?;
    let seed = seed_path(dir.path());
    if seed.exists() {
        return Err(DataDirError::AlreadySetUp(dir.path().to_owned()).into());
    }
    keep_network(&dir, setup.network)?;
    if let Some(content) = backup {
        restore::fill(&dir, &restore::identity(setup.network, &secret), content)
            .map_err(SetupError::Backup)?;
    }
    if let Some(node) = setup.node {
        write_config(dir.path(), node)?;
    }
    seedfile::write(&seed, &words, setup.passphrase.as_ref().map(|passphrase| passphrase.as_str()))?;
    Ok(Made { new_words, configured: setup.node.is_some() })
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

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str =
        "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
    const NODE: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a@127.0.0.1:14265";

    fn network(name: &str) -> NetworkParams {
        NetworkParams {
            name: name.to_owned(),
            coordinators: vec![flash_proto::SecretKey::from_bytes([7; 32]).public()],
            threshold: 1,
            pow_bits: 8,
            output_min: flash_proto::Amount::new(1),
            milestone_interval_ms: 1_000,
            genesis_ms: 1_700_000_000_000,
            genesis: vec![flash_proto::Output {
                address: flash_proto::Address::of(&flash_proto::SecretKey::from_bytes([8; 32]).public()),
                amount: flash_proto::Amount::SUPPLY,
            }],
        }
    }

    fn setup<'a>(data: &'a Path, network: &'a NetworkParams) -> Setup<'a> {
        Setup { data, network, words: None, passphrase: None, node: None }
    }

    #[test]
    fn what_is_set_up_can_be_opened_and_is_never_set_up_again() {
        let dir = tempfile::tempdir().unwrap();
        let (data, network) = (dir.path().join("data"), network("test"));
        let node: PeerAddress = NODE.parse().unwrap();
        let made = init(Setup { node: Some(&node), ..setup(&data, &network) }, None).unwrap();
        let words = made.new_words.unwrap();
        assert_eq!(words.split(' ').count(), 24);
        let opened = DataDir::open(&data).unwrap();
        assert_eq!(opened.network().unwrap(), network);
        assert_eq!(*seedfile::read(&seed_path(&data), || Ok(None)).unwrap(), *words);
        let config = crate::config::Config::load(
            &config_path(&data),
            true,
            &std::collections::BTreeMap::new(),
            &|_| None,
        )
        .unwrap();
        assert_eq!(config.nodes, [node]);
        drop(opened);

        let again = init(setup(&data, &network), None).unwrap_err();
        assert_eq!(again.exit(), Exit::DataDirUnusable);
        assert!(again.to_string().contains("set up already"), "{again}");
        assert_eq!(*seedfile::read(&seed_path(&data), || Ok(None)).unwrap(), *words);
    }

    #[test]
    fn given_words_are_checked_and_encrypted() {
        let dir = tempfile::tempdir().unwrap();
        let (data, network) = (dir.path().join("data"), network("test"));
        let file = dir.path().join("words");
        fs::write(&file, WORDS.replace("about", "abandon")).unwrap();
        let wrong = init(Setup { words: Some(read_words(&file).unwrap()), ..setup(&data, &network) }, None);
        assert_eq!(wrong.unwrap_err().exit(), Exit::Usage);
        assert!(!data.exists(), "nothing is written for words that are no seed");

        fs::write(&file, WORDS.replace(' ', "\n ")).unwrap();
        let passphrase = Some(Zeroizing::new("secret".to_owned()));
        let words = Some(read_words(&file).unwrap());
        let made = init(Setup { words, passphrase, ..setup(&data, &network) }, None).unwrap();
        assert!(made.new_words.is_none());
        assert!(seedfile::is_encrypted(&seed_path(&data)).unwrap());
        let read = seedfile::read(&seed_path(&data), || Ok(Some(Zeroizing::new("secret".to_owned()))));
        assert_eq!(*read.unwrap(), WORDS);
    }

    #[test]
    fn another_network_or_configuration_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let (one, other) = (network("one"), network("other"));
        init(setup(&data, &one), None).unwrap();
        fs::remove_file(seed_path(&data)).unwrap();
        let refused = init(setup(&data, &other), None).unwrap_err().to_string();
        assert!(refused.contains("one") && refused.contains("other"), "{refused}");
        fs::write(config_path(&data), "log = \"debug\"\n").unwrap();
        let node: PeerAddress = NODE.parse().unwrap();
        let refused = init(Setup { node: Some(&node), ..setup(&data, &one) }, None).unwrap_err();
        assert_eq!(refused.exit(), Exit::Usage);
        assert!(refused.to_string().contains(NODE), "{refused}");
        assert_eq!(fs::read_to_string(config_path(&data)).unwrap(), "log = \"debug\"\n");
    }
}
