//! Every transfer that was ever made, and what became of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use flash_node_client::client::{ClientError, NodeClient};
use flash_proto::{Payload, Transaction, TransactionId};
use tokio::task::JoinSet;

use super::clock::Clock;

/// A transfer.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) transaction: Transaction,
    /// The other transfer of the same money, if it was paid twice.
    pub(super) rival: Option<TransactionId>,
    /// What was going on when it was made.
    pub(super) stage: &'static str,
    issued: Instant,
    pub(super) outcome: Option<Outcome>,
}

/// What its sender was told in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was applied by this milestone.
    Applied(u64),
    /// It was not, and why.
    Refused(String),
}

/// All transfers. A clone is the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    entries: Arc<Mutex<BTreeMap<TransactionId, Entry>>>,
    stage: Arc<Mutex<Option<&'static str>>>,
    under_way: Arc<Mutex<JoinSet<()>>>,
    attachments: Arc<Mutex<u64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Book {
    /// What goes on from now on; `None` while nothing does.
    pub(super) fn stage(&self, stage: Option<&'static str>) {
        *lock(&self.stage) = stage;
    }

    /// Enters a transfer and sees it through over `client`.
    pub(super) fn issue(&self, client: &NodeClient, transaction: Transaction, rival: Option<TransactionId>) {
        let (id, stage) = (transaction.id(), lock(&self.stage).unwrap_or(CALM));
        let entry =
            Entry { transaction: transaction.clone(), rival, stage, issued: Instant::now(), outcome: None };
        lock(&self.entries).insert(id, entry);
        let (client, entries) = (client.clone(), Arc::clone(&self.entries));
        lock(&self.under_way).spawn(async move {
            let outcome = match client.submit_and_wait(transaction, None).await {
                Ok(applied) => Outcome::Applied(applied.milestone_index),
                Err(ClientError::Rejected { conflict, .. }) => Outcome::Refused(conflict.code().to_owned()),
                // Whatever this is, it is not what the ledger says; the check at the end finds it.
                Err(error) => Outcome::Refused(format!("error: {error}")),
            };
            if let Some(entry) = lock(&entries).get_mut(&id) {
                entry.outcome = Some(outcome);
            }
        });
    }

    /// Puts a transfer into one more block.
    pub(super) fn attach_again(&self, client: &NodeClient, transaction: Transaction, after: Duration) {
        let (client, attachments) = (client.clone(), Arc::clone(&self.attachments));
        lock(&self.under_way).spawn(async move {
            tokio::time::sleep(after).await;
            if client.submit(Payload::Transaction(Box::new(transaction))).await.is_ok() {
                *lock(&attachments) += 1;
            }
        });
    }

    /// Waits until all that is under way has ended; what has not in time stays without an outcome.
    pub(super) async fn drain(&self, patience: Duration) {
        let mut under_way = std::mem::take(&mut *lock(&self.under_way));
        let all = async { while under_way.join_next().await.is_some() {} };
        // What is left is found by its missing outcome.
        let _ = tokio::time::timeout(patience, all).await;
    }

    /// All entries as they are now.
    pub(super) fn entries(&self) -> BTreeMap<TransactionId, Entry> {
        lock(&self.entries).clone()
    }

    /// Blocks that carried a transfer once more.
    pub(super) fn attachments(&self) -> u64 {
        *lock(&self.attachments)
    }
}

/// What the stage is called when nothing is broken.
pub(super) const CALM: &str = "calm";

impl Entry {
    /// From when it was made until the milestone that applied it was seen.
    pub(super) fn latency(&self, clock: &Clock) -> Option<Duration> {
        match self.outcome {
            Some(Outcome::Applied(index)) => clock.until(index, self.issued),
            _ => None,
        }
    }
}
