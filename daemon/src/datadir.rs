//! The data directory: who may read it, who may use it, and whose it is.
//!
//! | file | what it is | can be rebuilt |
//! | --- | --- | --- |
//! | `seed` | the secret that all keys come from | only from the written-down words |
//! | `network.json` | the network's parameters | from any other member of the network |
//! | `flash.toml` | the configuration | by hand |
//! | `store/` | channels, wallet, events | no: losing it can lose payments |
//! | `lock` | who uses the directory | yes |
//! | `ready.json` | where the running daemon answers | yes, at every start |
//!
//! Two copies of one data directory must never run: each would sign without knowing of the other.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use flash_channel::store::directory_of;
use flash_proto::NetworkParams;
use thiserror::Error;

use crate::exit::Exit;

/// The environment variable that names the data directory.
pub const DATA_ENV: &str = "FLASH_DATA";

/// A data directory that this process alone may use, until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Held for its lock.
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// There is no such directory, or nothing was set up in it.
    #[error("{path} is not a data directory: {missing} is missing. Set one up with `flash init --data {path}`", path = .path.display())]
    NotSetUp {
        /// The directory.
        path: PathBuf,
        /// The file that is missing.
        missing: &'static str,
    },
    /// It is already set up.
    #[error("{path} is set up already: it has a seed. Choose another directory, or use this one as it is", path = .0.display())]
    AlreadySetUp(PathBuf),
    /// Others may enter or read.
    #[error("{path} can be read by other users (mode {mode:03o}). Run: chmod {wanted} {path}", path = .path.display())]
    Readable {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        wanted: &'static str,
    },
    /// Another process uses it.
    #[error("{path} is in use by process {pid}. Only one daemon may run on a data directory; stop that one, or choose another with --data", path = .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, as far as it is known.
        pid: String,
    },
    /// `network.json` does not name a network.
    #[error("{path} does not describe a network: {reason}. Copy the file from the network's operator again", path = .path.display())]
    Network {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// The store belongs to another network or key.
    #[error("the store in {path} belongs to {found}, but this data directory is {expected}. Restore the files that belong together", path = .path.display())]
    Identity {
        /// The directory.
        path: PathBuf,
        /// Whose the store is.
        found: String,
        /// Whose the directory is.
        expected: String,
    },
    /// Reading or writing failed.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataDirError {
    /// The exit code for it.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::InUse { .. } => Exit::DataDirInUse,
            Self::Io { .. } => Exit::Failed,
            _ => Exit::DataDirUnusable,
        }
    }

    /// An error of the system about a path.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// The data directory when nobody names one: `~/.flash`, or `.flash` where there is no home.
pub fn default_path() -> PathBuf {
    in_home(".flash")
}

/// The directory of this name at home, or here where there is no home.
pub(crate) fn in_home(name: &str) -> PathBuf {
    std::env::var_os("HOME").map_or_else(PathBuf::new, PathBuf::from).join(name)
}

/// The seed file in the data directory `path`.
pub fn seed_path(path: &Path) -> PathBuf {
    path.join("seed")
}

/// The network file in the data directory `path`.
pub fn network_path(path: &Path) -> PathBuf {
    path.join("network.json")
}

/// The configuration file in the data directory `path`.
pub fn config_path(path: &Path) -> PathBuf {
    path.join("flash.toml")
}

/// The file that says where the running daemon answers.
pub fn ready_path(path: &Path) -> PathBuf {
    path.join("ready.json")
}

impl DataDir {
    /// Makes the directory if it is missing, checks that nobody else may enter it, and takes the lock.
    ///
    /// # Errors
    /// [`DataDirError`]: readable by others, or in use by another process.
    pub fn create(path: &Path) -> Result<Self, DataDirError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(DataDirError::io(path))?;
        Self::lock(path)
    }

    /// Takes a directory that was set up before.
    ///
    /// # Errors
    /// [`DataDirError`]: not set up, readable by others, or in use by another process.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        for (file, missing) in [(seed_path(path), "seed"), (network_path(path), "network.json")] {
            if !file.exists() {
                return Err(DataDirError::NotSetUp { path: path.to_owned(), missing });
            }
        }
        let dir = Self::lock(path)?;
        check_private(&seed_path(path), "600")?;
        Ok(dir)
    }

    fn lock(path: &Path) -> Result<Self, DataDirError> {
        check_private(path, "700")?;
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(DataDirError::io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = lock.take(20).read_to_string(&mut pid);
                let pid = pid.trim();
                let pid = if pid.is_empty() { "(unknown)".to_owned() } else { pid.to_owned() };
                return Err(DataDirError::InUse { path: path.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(DataDirError::Io { path: lock_path, source }),
        }
        let mut record_pid = || {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        record_pid().map_err(DataDirError::io(&lock_path))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the store is.
    pub fn store_path(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Keeps the network's parameters.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn write_network(&self, params: &NetworkParams) -> Result<(), DataDirError> {
        let path = network_path(&self.path);
        let text = serde_json::to_string_pretty(params)
            .map_err(|error| DataDirError::Network { path: path.clone(), reason: error.to_string() })?;
        write_atomically(&path, format!("{text}\n").as_bytes())
    }

    /// The network's parameters.
    ///
    /// # Errors
    /// [`DataDirError::Network`], [`DataDirError::Io`].
    pub fn network(&self) -> Result<NetworkParams, DataDirError> {
        read_network(&network_path(&self.path))
    }
}

/// Reads and checks a network file.
///
/// # Errors
/// [`DataDirError::Network`], [`DataDirError::Io`].
pub fn read_network(path: &Path) -> Result<NetworkParams, DataDirError> {
    let text = fs::read_to_string(path).map_err(DataDirError::io(path))?;
    let reason = |reason: String| DataDirError::Network { path: path.to_owned(), reason };
    let params: NetworkParams = serde_json::from_str(&text).map_err(|error| reason(error.to_string()))?;
    params.check().map_err(|error| reason(error.to_string()))?;
    Ok(params)
}

/// Refuses a file or directory that other users may read, write or enter.
///
/// # Errors
/// [`DataDirError::Readable`] with the command that mends it.
pub fn check_private(path: &Path, wanted: &'static str) -> Result<(), DataDirError> {
    let mode = fs::metadata(path).map_err(DataDirError::io(path))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(DataDirError::Readable { path: path.to_owned(), mode, wanted });
    }
    Ok(())
}

/// Writes a file that only its owner may read, so that after a crash there is either the old content or
/// the new one, never a part.
///
/// # Errors
/// [`DataDirError::Io`].
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), DataDirError> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory_of(path))?.sync_all()
    };
    write().map_err(DataDirError::io(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_may_be_named_without_its_directory() {
        let file = tempfile::NamedTempFile::new_in(".").unwrap();
        let name = Path::new(file.path().file_name().unwrap());
        write_atomically(name, b"here").unwrap();
        assert_eq!(fs::read(file.path()).unwrap(), b"here");
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn one_process_at_a_time_and_it_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let first = DataDir::create(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        let error = DataDir::create(&path).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        assert_eq!(error.exit(), Exit::DataDirInUse);
        drop(first);
        DataDir::create(&path).unwrap();
    }

    #[test]
    fn what_others_can_read_is_refused_with_the_command_to_mend_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        drop(DataDir::create(&path).unwrap());
        assert!(matches!(DataDir::open(&path), Err(DataDirError::NotSetUp { missing: "seed", .. })));
        write_atomically(&seed_path(&path), b"secret").unwrap();
        write_atomically(&network_path(&path), b"{}").unwrap();
        assert_eq!(mode(&seed_path(&path)), 0o600);
        drop(DataDir::open(&path).unwrap());

        fs::set_permissions(seed_path(&path), fs::Permissions::from_mode(0o640)).unwrap();
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600 ") && error.contains("mode 640"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 700 "), "{error}");
    }

    #[test]
    fn a_broken_network_file_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::create(&parent.path().join("data")).unwrap();
        write_atomically(&network_path(dir.path()), b"{\"name\": 1}").unwrap();
        let error = dir.network().unwrap_err();
        assert!(error.to_string().contains("network.json does not describe a network"), "{error}");
        assert_eq!(error.exit(), Exit::DataDirUnusable);
    }
}
