//! The commands about neighbours.

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
    connected: bool,
    connection_type: &'static str,
    number_of_all_transactions: u64,
    number_of_new_transactions: u64,
    number_of_invalid_transactions: u64,
    number_of_stale_transactions: u64,
    number_of_sent_transactions: u64,
    number_of_random_transaction_requests: u64,
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
        let known = neighbour.new.saturating_add(neighbour.invalid);
        Self {
            address: neighbour.address.to_string(),
            domain: neighbour.address.host().to_owned(),
            connected: neighbour.connected,
            connection_type: "quic",
            number_of_all_transactions: neighbour.received,
            number_of_new_transactions: neighbour.new,
            number_of_invalid_transactions: neighbour.invalid,
            number_of_stale_transactions: neighbour.received.saturating_sub(known),
            number_of_sent_transactions: neighbour.sent,
            number_of_random_transaction_requests: 0,
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
        let added = addresses.into_iter().filter(|address| neighbours.add(address.clone())).count();
        Ok(AddNeighbors { added_neighbors: added })
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
