//! Sees the transactions that channels need through, until the ledger has applied or refused them.
//!
//! Nothing here is stored: a channel says again after a restart what it needs, and submitting a
//! transaction twice does no harm, for its id does not depend on its blocks or signatures.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use flash_node_client::client::{ClientError, NodeClient};
use flash_proto::{Action, Transaction, TransactionId};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{engine::Engine, stop::Stop};

/// Pause before a transaction is tried again that could not be submitted.
const AGAIN: Duration = Duration::from_secs(1);

type UnderWay = Arc<Mutex<HashSet<TransactionId>>>;

/// Runs until the daemon stops.
pub(crate) async fn run(
    client: NodeClient,
    engine: Engine,
    mut submissions: mpsc::UnboundedReceiver<Transaction>,
    stop: Stop,
) {
    let under_way = UnderWay::default();
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            transaction = submissions.recv() => {
                let Some(transaction) = transaction else { return };
                let id = transaction.id();
                if under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
                    let (client, engine, under_way) = (client.clone(), engine.clone(), Arc::clone(&under_way));
                    tasks.spawn(async move {
                        see_through(&client, &engine, transaction).await;
                        under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                    });
                }
            }
            Some(_) = tasks.join_next() => {}
            () = stop.stopped() => return,
        }
    }
}

async fn see_through(client: &NodeClient, engine: &Engine, transaction: Transaction) {
    let (id, kind) = (transaction.id(), transaction.essence.action.name());
    let Some(channel) = transaction.channel() else { return };
    let deadline = match transaction.essence.action {
        Action::Open(open) => Some(open.expiry_milestone),
        Action::CooperativeClose(close) => Some(close.expiry_milestone),
        _ => None,
    };
    loop {
        match client.submit_and_wait(transaction.clone(), deadline).await {
            Ok(applied) => {
                tracing::info!(%channel, kind, transaction = %id, milestone = applied.milestone_index, "applied");
                return;
            }
            Err(
                error @ (ClientError::Rejected { .. }
                | ClientError::Deadline { .. }
                | ClientError::Refused { .. }),
            ) if !error.is_retryable() => {
                tracing::warn!(%channel, kind, transaction = %id, %error, "not applied");
                engine.refused(channel, id, error.to_string()).await;
                return;
            }
            Err(error) => {
                tracing::warn!(%channel, kind, transaction = %id, %error, "tried again in a while");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}
