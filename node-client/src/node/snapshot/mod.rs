//! Snapshots: everything that a node needs to start at a milestone, verified against the signatures of
//! the network's coordinators alone. Who gave the file need not be trusted.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `format` | the bytes |
//! | `verify` | what makes them a snapshot to start from |
//! | `write` | a node's own |

mod format;
mod verify;
mod write;

use std::{
    ffi::OsString,
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

use flash_channel::store::{Batch, Store, StoreKind, directory_of};
use flash_proto::{NetworkParams, codec};
pub use verify::SnapshotInfo;

pub use self::format::SnapshotError;
use self::{
    format::{Carried, Recent},
    verify::{Part, first_recent},
};
use super::{
    Node, NodeConfig, NodeError,
    load::put_ledger,
    outputs::PAGES,
    pages::Pages,
    records::{self, CHANNELS, INCLUDED, META, MILESTONES, MilestoneRecord, Past, TOUCHED},
};
use crate::ledger::LedgerState;

/// Checks a snapshot of the network completely: everything in it is what its milestone commits to, and
/// the milestone is signed by coordinators to whom those of the parameters have handed over.
///
/// # Errors
/// [`SnapshotError`].
pub fn verify_snapshot(params: &NetworkParams, path: &Path) -> Result<SnapshotInfo, SnapshotError> {
    verify::read(params, open(path)?, &mut |_| Ok(())).map(|(info, _)| info)
}

impl Node {
    /// Opens a new node in its directory, starting at the milestone of a snapshot.
    ///
    /// # Errors
    /// [`NodeError::Snapshot`] if the snapshot is not valid, or the directory holds a ledger already; and
    /// those of [`Node::open`].
    pub fn open_from_snapshot(config: NodeConfig, path: &Path) -> Result<Self, NodeError> {
        config.params.check()?;
        let store = StoreKind::open(None, &config.directory, config.params.id().as_bytes())?;
        Self::from_snapshot(config, store, path)
    }

    /// The same above any store, which must be empty, with the index.
    ///
    /// # Errors
    /// As [`Node::open_from_snapshot`].
    pub fn start_from_snapshot(
        params: NetworkParams,
        store: Box<dyn Store>,
        path: &Path,
    ) -> Result<Self, NodeError> {
        Self::from_snapshot(NodeConfig::new(PathBuf::new(), params), store, path)
    }

    fn from_snapshot(config: NodeConfig, store: Box<dyn Store>, path: &Path) -> Result<Self, NodeError> {
        for table in [META, MILESTONES, CHANNELS, PAGES] {
            if store.last(table, &[])?.is_some() {
                return Err(SnapshotError::NotEmpty.into());
            }
        }
        let ledger = import(&config.params, store.as_ref(), path)?;
        Self::start(config, store, Some(ledger))
    }

    /// Writes a snapshot at the newest milestone, as a whole or not at all. Meanwhile the node takes no
    /// blocks and applies no milestones: for as long as its state takes to be written.
    ///
    /// # Errors
    /// [`NodeError::Snapshot`] if the file cannot be written, [`NodeError::Halted`], or the store's
    /// failure, which stops the node.
    pub fn write_snapshot(&self, path: &Path) -> Result<SnapshotInfo, NodeError> {
        let part = with_suffix(path, ".part");
        let failed = |error| SnapshotError::Io { path: part.display().to_string(), error };
        let written = File::create(&part).map_err(failed).map_err(NodeError::from).and_then(|file| {
            let info = self.write_parts(&file)?;
            file.sync_all().map_err(failed)?;
            fs::rename(&part, path).map_err(failed)?;
            File::open(directory_of(path)).and_then(|directory| directory.sync_all()).map_err(failed)?;
            Ok(info)
        });
        if written.is_err() {
            // It may not be there at all; either way it is of no use.
            let _ = fs::remove_file(&part);
        }
        written
    }
}

/// Stores a snapshot in an empty store. It is read to its end first, so that a bad file leaves an empty store
/// behind; and nothing of it counts before the last commit.
fn import(params: &NetworkParams, store: &dyn Store, path: &Path) -> Result<LedgerState, SnapshotError> {
    let mut batch = Batch::new();
    records::set_unfinished(&mut batch, true);
    let (info, mut ledger) = verify::read(params, open(path)?, &mut |part| Ok(put(&mut batch, part)?))?;
    put_ledger(&mut ledger, &mut batch, |batch| commit(store, batch))?;
    let index = info.checkpoint.essence.index;
    let milestones = first_recent(index).saturating_sub(1);
    records::put_coordinators(&mut batch, &info.checkpoint.coordinators);
    records::put_past(&mut batch, &Past { blocks: index, milestones, ..Past::default() });
    records::set_unfinished(&mut batch, false);
    commit(store, &mut batch)?;
    Ok(ledger)
}

fn commit(store: &dyn Store, batch: &mut Batch) -> Result<(), SnapshotError> {
    let _durable = store.commit(batch).map_err(NodeError::from)?;
    batch.clear();
    Ok(())
}

fn put(batch: &mut Batch, part: Part<'_>) -> Result<(), NodeError> {
    match part {
        Part::HandOver(carried) => put_milestone(batch, carried),
        Part::Recent(Recent { carried, included, touched }) => {
            let index = carried.milestone.essence.index;
            put_milestone(batch, carried);
            records::put_ids(batch, INCLUDED, index, included);
            records::put_ids(batch, TOUCHED, index, touched);
        }
        // It waits for the next milestone, as the only one.
        Part::Block(bytes) => {
            let mut pages = Pages::from(0);
            pages.push(bytes)?;
            pages.write(batch)?;
        }
    }
    Ok(())
}

fn put_milestone(batch: &mut Batch, carried: &Carried) {
    let Carried { milestone, block } = carried;
    let record =
        MilestoneRecord { milestone: milestone.clone(), block: *block, waiting_page: 0, confirmed: 0 };
    batch.put(MILESTONES, &milestone.essence.index.to_be_bytes(), codec::encode(&record));
}

fn open(path: &Path) -> Result<BufReader<File>, SnapshotError> {
    let failed = |error| SnapshotError::Io { path: path.display().to_string(), error };
    Ok(BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
