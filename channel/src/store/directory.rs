//! The directory of a store: made for its owner alone, and used by one process at a time.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::Path,
};

use super::{Batch, Store, StoreError, Table};

/// What a store keeps about itself.
pub(super) const IDENTITY: Table = Table::small(255, "identity");

pub(super) fn create_private(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Takes the directory for this process, until the file is dropped or the process ends. The file is written to each time:
/// whatever puts an older copy of it back then makes another file.
pub(super) fn lock(directory: &Path) -> Result<File, StoreError> {
    let mut file = File::options().create(true).truncate(false).write(true).open(directory.join("lock"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(directory.display().to_string())),
        Err(TryLockError::Error(error)) => return Err(StoreError::Io(error)),
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// The directory that has the name of this file or directory: a name survives a power cut only once it was synced. It is
/// that in which the process runs if the path has no other.
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the names in a directory durable, and its own.
pub(super) fn sync_names(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()?;
    File::open(directory_of(directory))?.sync_all()
}

/// Refuses a store that belongs to another identity; a new one belongs to this one from now on.
pub(super) fn check_identity(
    store: &impl Store,
    directory: &Path,
    identity: &[u8],
) -> Result<(), StoreError> {
    match store.get(IDENTITY, b"identity")? {
        Some(found) if found == identity => Ok(()),
        Some(_) => Err(StoreError::WrongIdentity(directory.display().to_string())),
        None => {
            let mut batch = Batch::new();
            batch.put(IDENTITY, b"identity", identity.to_vec());
            store.commit(&batch).map(|_durable| ())
        }
    }
}
