//! `flashd node snapshot`: writing the snapshot of a stopped node, and checking any.

use std::path::Path;

use flash_node_client::node::{Node, NodeConfig, SnapshotInfo, verify_snapshot};

use crate::{
    datadir::{self, DataDir, read_network},
    failure::Failure,
};

/// Writes a snapshot of the node in a data directory, on which no node runs.
///
/// # Errors
/// [`Failure`].
pub fn write(data: &Path, file: &Path) -> Result<SnapshotInfo, Failure> {
    if !datadir::network_path(data).exists() {
        return Err(Failure::new(format!("{} is not a node's data directory", data.display())));
    }
    let dir = DataDir::create(data)?;
    let config = NodeConfig::new(dir.store_path(), dir.network()?);
    let node = Node::open(config).map_err(Failure::new)?;
    node.write_snapshot(file).map_err(Failure::new)
}

/// Checks a snapshot against the parameters of its network alone.
///
/// # Errors
/// [`Failure`].
pub fn verify(network: &Path, file: &Path) -> Result<SnapshotInfo, Failure> {
    verify_snapshot(&read_network(network)?, file).map_err(Failure::new)
}

/// What a snapshot is, for people.
pub fn describe(info: &SnapshotInfo) -> String {
    let essence = &info.checkpoint.essence;
    format!(
        "milestone {} ({})\nstate root {}\n{} outputs, {} channels, {} bytes\ndigest {}",
        essence.index,
        essence.id(),
        essence.state_root,
        info.outputs,
        info.channels,
        info.bytes,
        info.digest
    )
}
