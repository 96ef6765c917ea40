//! The commands about neighbours.

use std::collections::BTreeSet;

use flash_node_client::quic::PeerAddress;
use serde::{Deserialize, Serialize};

use super::{Api, Failed};
use crate::node_http::neighbours::{Neighbour, Neighbours};

/// Neighbours to add or remove.
#[derive(Debug, Deserialize)]
pub(super) struct Uris {
    uris: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct GetNeighbors {
    neighbors: Vec<NeighborInfo>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NeighborInfo {
    address: String,
    domain: String,
    connection_type: &'static str,
    number_of_all_transactions: u64,
    number_of_new_transactions: u64,
    number_of_invalid_transactions: u64,
    number_of_stale_transactions: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AddNeighbors {
    added_neighbors: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RemoveNeighbors {
    removed_neighbors: usize,
}

impl From<Neighbour> for NeighborInfo {
    fn from(neighbour: Neighbour) -> Self {
        let address = neighbour.address.as_ref();
        let told = [neighbour.new_blocks, neighbour.invalid_blocks, neighbour.dropped_blocks];
        let stale = told.into_iter().fold(neighbour.received_blocks, u64::saturating_sub);
        Self {
            address: address.map_or_else(|| neighbour.key.to_string(), ToString::to_string),
            domain: address.map(|address| address.host().to_owned()).unwrap_or_default(),
            connection_type: "quic",
            number_of_all_transactions: neighbour.received_blocks,
            number_of_new_transactions: neighbour.new_blocks,
            number_of_invalid_transactions: neighbour.invalid_blocks,
            number_of_stale_transactions: stale,
        }
    }
}

impl Uris {
    /// `KEY@HOST:PORT`, with or without a scheme before it: libraries of that time insist on one.
    fn addresses(&self) -> Result<Vec<PeerAddress>, Failed> {
        super::bounded("uris", &self.uris)?;
        let bare = |uri: &String| uri.split_once("://").map_or(uri.as_str(), |(_, rest)| rest).to_owned();
        let parse =
            |uri| bare(uri).parse().map_err(|error| Failed::Invalid(format!("Invalid uris: {error}")));
        self.uris.iter().map(parse).collect()
    }
}

impl Api {
    pub(super) fn get_neighbors(&self) -> GetNeighbors {
        let all = self.neighbours.as_ref().map(|neighbours| neighbours.list()).unwrap_or_default();
        GetNeighbors { neighbors: all.into_iter().map(NeighborInfo::from).collect() }
    }

    pub(super) fn add_neighbors(&self, uris: &Uris) -> Result<AddNeighbors, Failed> {
        let (addresses, neighbours) = (uris.addresses()?, self.changeable()?);
        let mut known: BTreeSet<_> = neighbours.list().into_iter().map(|known| known.key).collect();
        let mut added_neighbors = 0_usize;
        for address in addresses {
            added_neighbors = added_neighbors.saturating_add(usize::from(known.insert(address.key)));
            // One that is known may have moved.
            neighbours.add(address);
        }
        Ok(AddNeighbors { added_neighbors })
    }

    pub(super) fn remove_neighbors(&self, uris: &Uris) -> Result<RemoveNeighbors, Failed> {
        let (addresses, neighbours) = (uris.addresses()?, self.changeable()?);
        let removed = addresses.iter().filter(|address| neighbours.remove(&address.key)).count();
        Ok(RemoveNeighbors { removed_neighbors: removed })
    }

    fn changeable(&self) -> Result<&dyn Neighbours, Failed> {
        self.neighbours.as_deref().ok_or_else(|| Failed::invalid("this node runs without neighbours"))
    }
}
