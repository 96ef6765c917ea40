//! What must hold at the end: one ledger, all money there, every transfer accounted for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use flash_node_client::{
    client::{NodeClient, TransactionStatus},
    protocol::NodeInfo,
};
use flash_proto::{Address, Amount, Output, OutputId, TransactionId};
use futures_util::future::join_all;

use super::{
    book::{Entry, Outcome},
    purses::Purses,
};
use crate::poll;

/// How often the nodes are asked until all answer about the same milestone.
const TRIES: usize = 200;

/// All transfers, and where the wallets' first money came from.
pub(super) struct Accounts<'a> {
    pub(super) entries: &'a BTreeMap<TransactionId, Entry>,
    pub(super) given: &'a [(OutputId, Output)],
}

/// What all nodes say of themselves at one milestone.
pub(super) async fn one_ledger(clients: &[NodeClient], wrong: &mut Vec<String>) -> Option<NodeInfo> {
    let mut infos = Vec::new();
    for _ in 0..TRIES {
        infos.clear();
        for client in clients {
            infos.push(poll("a node's info", async || client.info().await.ok()).await);
        }
        let index = infos.first().map(|info| info.milestone_index);
        if infos.iter().all(|info| Some(info.milestone_index) == index) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (first, others) = infos.split_first()?;
    let state = |info: &NodeInfo| (info.milestone_index, info.state_root, info.outputs, info.channels);
    for (number, info) in (1..).zip(others) {
        if state(info) != state(first) {
            wrong.push(format!("node {number} is at {:?}, node 0 at {:?}", state(info), state(first)));
        }
    }
    if first.outputs.1.checked_add(first.channels.1) != Some(Amount::SUPPLY) {
        wrong.push(format!(
            "{} in outputs and {} in channels are not the supply",
            first.outputs.1, first.channels.1
        ));
    }
    Some(first.clone())
}

/// Asks every node about every transfer.
pub(super) async fn transfers(clients: &[NodeClient], accounts: &Accounts<'_>, wrong: &mut Vec<String>) {
    for (id, entry) in accounts.entries {
        let Some(outcome) = &entry.outcome else {
            wrong.push(format!("transfer {id} of stage `{}` was neither applied nor refused", entry.stage));
            continue;
        };
        let fates: BTreeSet<String> =
            join_all(clients.iter().map(|client| fate(client, *id))).await.into_iter().collect();
        let told = match outcome {
            Outcome::Applied(index) => format!("applied by {index} in"),
            Outcome::Refused(reason) => format!("refused: {reason}"),
        };
        if fates.len() != 1 || !fates.iter().all(|fate| fate.starts_with(&told)) {
            wrong.push(format!(
                "transfer {id} of stage `{}`: told {told}, the nodes say {fates:?}",
                entry.stage
            ));
        }
        let rival = entry.rival.and_then(|rival| accounts.entries.get(&rival));
        let applied = |entry: &Entry| matches!(entry.outcome, Some(Outcome::Applied(_)));
        match rival {
            Some(rival) if applied(rival) == applied(entry) => {
                wrong.push(format!("of {id} and its rival not exactly one was applied"));
            }
            None if !applied(entry) => wrong.push(format!("transfer {id} was refused without need: {told}")),
            _ => {}
        }
    }
}

/// What a node says became of a transfer.
async fn fate(client: &NodeClient, id: TransactionId) -> String {
    match poll("a transfer's state", async || client.transaction(id).await.ok()).await {
        TransactionStatus::Applied { milestone_index, block, .. } => {
            format!("applied by {milestone_index} in {block}")
        }
        TransactionStatus::Rejected { conflict, .. } => format!("refused: {}", conflict.code()),
        other => format!("{other:?}"),
    }
}

/// Follows all money of the wallets from transfer to transfer, and compares what is left with the ledger.
pub(super) async fn money(
    purses: &Purses,
    node: &NodeClient,
    accounts: &Accounts<'_>,
    wrong: &mut Vec<String>,
) {
    let applied: Vec<&Entry> = accounts
        .entries
        .values()
        .filter(|entry| matches!(entry.outcome, Some(Outcome::Applied(_))))
        .collect();
    let mut outputs: BTreeMap<OutputId, Output> = accounts.given.iter().copied().collect();
    let mut used: BTreeMap<Address, u64> = BTreeMap::new();
    for entry in &applied {
        let transaction = entry.transaction.id();
        let made = (0..).zip(&entry.transaction.essence.outputs);
        outputs.extend(made.map(|(index, output)| (OutputId { transaction, index }, *output)));
    }
    for output in outputs.values() {
        *used.entry(output.address).or_default() += 1;
    }
    let twice = used.values().filter(|count| **count > 1).count();
    if twice > 0 {
        wrong.push(format!("{twice} addresses were used more than once"));
    }
    for input in applied.iter().flat_map(|entry| &entry.transaction.essence.inputs) {
        if outputs.remove(input).is_none() {
            wrong.push(format!("output {input} was spent twice, or never made"));
        }
    }
    let owners = purses.owners();
    let mut expected: Vec<BTreeMap<OutputId, Output>> = Vec::new();
    for (id, output) in outputs {
        let owner = owners.get(&output.address).copied().unwrap_or(usize::MAX);
        if owner >= expected.len() && owner != usize::MAX {
            expected.resize_with(owner + 1, BTreeMap::new);
        }
        match expected.get_mut(owner) {
            Some(own) => drop(own.insert(id, output)),
            None => wrong.push(format!("output {id} belongs to no wallet")),
        }
    }
    match purses.shown(node).await {
        Ok(shown) if shown == expected => {}
        Ok(_) => {
            wrong.push("the ledger shows other outputs of the wallets than the transfers made".to_owned());
        }
        Err(error) => wrong.push(format!("the ledger does not show the wallets' outputs: {error}")),
    }
    for (wallet, (balance, own)) in purses.balances().await.into_iter().zip(&expected).enumerate() {
        let owned = Amount::checked_sum(own.values().map(|output| output.amount));
        if Some(balance) != owned {
            wrong.push(format!("wallet {wallet} believes to have {balance}, the ledger says {owned:?}"));
        }
    }
}
