//! What a node does beside its milestones: letting go of the past, and writing snapshots.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tracing::{info, warn};

use super::{Keep, Node, NodeError, SnapshotError};

/// Snapshots that stay in their directory.
const SNAPSHOTS_KEPT: usize = 2;
/// How the name of a snapshot ends.
const SUFFIX: &str = ".snapshot";

/// What to do after milestones.
#[derive(Clone, Debug, Default)]
pub struct Upkeep {
    /// How much of the past to keep; all of it if `None`.
    pub keep: Option<Keep>,
    /// A directory, and after how many milestones each to write a snapshot into it. The newest two stay.
    pub snapshots: Option<(PathBuf, u64)>,
}

/// Does the upkeep after each milestone until the future is dropped or the node stops.
///
/// # Errors
/// [`NodeError`]: why the node stopped. A snapshot that cannot be written is only logged.
pub async fn run_upkeep(node: Node, upkeep: Upkeep) -> Result<(), NodeError> {
    let mut newest = node.newest();
    loop {
        let (working, upkeep) = (node.clone(), upkeep.clone());
        let done = tokio::task::spawn_blocking(move || working.keep_up(&upkeep)).await;
        done.unwrap_or_else(|_| {
            Err(node.halt(&NodeError::Damaged("state in memory: an invariant did not hold")))
        })?;
        if newest.changed().await.is_err() {
            return Ok(());
        }
    }
}

impl Node {
    pub(super) fn keep_up(&self, upkeep: &Upkeep) -> Result<(), NodeError> {
        if let Some(keep) = &upkeep.keep {
            while self.prune(keep)? {}
        }
        let Some((directory, every)) = &upkeep.snapshots else { return Ok(()) };
        match self.snapshot_into(directory, *every) {
            Err(NodeError::Snapshot(error)) => {
                warn!(%error, "no snapshot was written");
                Ok(())
            }
            other => other,
        }
    }

    /// Writes a snapshot if it is time for one, and removes those before the last two.
    fn snapshot_into(&self, directory: &Path, every: u64) -> Result<(), NodeError> {
        let failed = |error| SnapshotError::Io { path: directory.display().to_string(), error };
        let newest = self.read().index();
        fs::create_dir_all(directory).map_err(failed)?;
        let mut written = snapshots(directory).map_err(failed)?;
        let last = written.last().map_or(0, |(index, _)| *index);
        if newest == 0 || newest.saturating_sub(last) < every {
            return Ok(());
        }
        // Named after the milestone that it is of at least; it may be a later one by then.
        let path = directory.join(format!("{newest}{SUFFIX}"));
        let made = self.write_snapshot(&path)?;
        info!(snapshot = %path.display(), milestone = made.checkpoint.essence.index, "snapshot written");
        written.push((newest, path));
        let old = written.len().saturating_sub(SNAPSHOTS_KEPT);
        for (_, path) in written.drain(..old) {
            fs::remove_file(path).map_err(failed)?;
        }
        Ok(())
    }
}

/// The snapshots in a directory, the oldest first.
fn snapshots(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let index = name.and_then(|name| name.strip_suffix(SUFFIX)).and_then(|index| index.parse().ok());
        found.extend(index.map(|index| (index, path)));
    }
    found.sort_unstable();
    Ok(found)
}
