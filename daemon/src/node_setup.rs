//! Beginning a network of several coordinators: each makes its keys (`flashd node keys`), somebody puts the
//! public ones into a network file (`flashd node network`), and everybody starts with it.

use std::path::Path;

use flash_node_client::{
    coordinator::check_quorum,
    node::{
        Handover,
        dev::{OUTPUT_MIN, treasury},
    },
};
use flash_proto::{Address, NetworkParams, PublicKey};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    datadir::DataDir,
    events::now_ms,
    exit::Exit,
    failure::Failure,
    node_keys::{Keys, keys_path, new_key, read_keys, shown, write_keys},
};

/// The public side of a node's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublicKeys {
    /// By which clients and other nodes know it.
    pub node: PublicKey,
    /// With which it signs milestones, if it is a coordinator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<PublicKey>,
    /// Where its treasury gets money, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub treasury: Option<Address>,
}

/// What to make a network file of.
#[derive(Clone, Debug)]
pub struct NetworkPlan {
    /// Its name.
    pub name: String,
    /// The coordinators' keys, in any order.
    pub coordinators: Vec<PublicKey>,
    /// How many of them must sign a milestone.
    pub threshold: u8,
    /// Who owns the whole supply at the beginning.
    pub treasury: Address,
    /// Milliseconds between milestones.
    pub milestone_interval_ms: u64,
    /// Zero bits of proof of work.
    pub pow_bits: u8,
}

/// Makes the keys of a node, or shows those that are there.
///
/// # Errors
/// [`Failure`].
pub fn keys(data: &Path, coordinator: bool, treasury: bool) -> Result<PublicKeys, Failure> {
    let dir = DataDir::create(data)?;
    let keys = if keys_path(data).exists() {
        read_keys(data)?
    } else {
        let keys = Keys {
            node: new_key()?,
            coordinator: coordinator.then(new_key).transpose()?,
            treasury: treasury.then(new_key).transpose()?,
        };
        write_keys(&dir, &keys)?;
        keys
    };
    let public = |text: &Zeroizing<String>| shown(text).map(|key| key.public());
    Ok(PublicKeys {
        node: public(&keys.node)?,
        coordinator: keys.coordinator.as_ref().map(public).transpose()?,
        treasury: keys.treasury.as_ref().map(public).transpose()?.map(|key| Address::of(&key)),
    })
}

/// Makes the parameters of a network that begins now.
///
/// # Errors
/// [`Failure`] if they make no network, or if its coordinators could not agree as separate processes.
pub fn network(plan: NetworkPlan) -> Result<NetworkParams, Failure> {
    let mut coordinators = plan.coordinators;
    coordinators.sort_unstable();
    let params = NetworkParams {
        name: plan.name,
        coordinators,
        threshold: plan.threshold,
        pow_bits: plan.pow_bits,
        output_min: OUTPUT_MIN,
        milestone_interval_ms: plan.milestone_interval_ms,
        genesis_ms: now_ms(),
        genesis: treasury(plan.treasury),
    };
    params.check().map_err(|error| usage(&error))?;
    check_quorum(&params.coordinator_set()).map_err(|error| usage(&error))?;
    Ok(params)
}

/// Reads to whom a coordinator agrees to hand over.
///
/// # Errors
/// [`Failure`].
pub fn read_handover(file: &Path) -> Result<Handover, Failure> {
    let wrong = |error: &dyn std::fmt::Display| usage(&format_args!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
    let handover: Handover = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    check_quorum(&handover.to).map_err(|error| wrong(&error))?;
    Ok(handover)
}

fn usage(error: &dyn std::fmt::Display) -> Failure {
    Failure { message: error.to_string(), exit: Exit::Usage }
}
