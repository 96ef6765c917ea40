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

use crate::{
    engine::{Engine, Views},
    stop::Stop,
};

/// Pause before a transaction is tried again that could not be submitted.
const AGAIN: Duration = Duration::from_secs(1);
/// Pause before a close or claim is tried again that a node says is refused.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);

type UnderWay = Arc<Mutex<HashSet<TransactionId>>>;

/// Runs until the daemon stops.
pub(crate) async fn run(
    client: NodeClient,
    engine: Engine,
    views: Views,
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
                    let (client, engine, views) = (client.clone(), engine.clone(), views.clone());
                    let under_way = Arc::clone(&under_way);
                    tasks.spawn(async move {
                        see_through(&client, &engine, &views, transaction).await;
                        under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                    });
                }
            }
            Some(_) = tasks.join_next() => {}
            () = stop.stopped() => return,
        }
    }
}

async fn see_through(client: &NodeClient, engine: &Engine, views: &Views, transaction: Transaction) {
    let (id, kind) = (transaction.id(), transaction.essence.action.name());
    let Some(channel) = transaction.channel() else { return };
    let deadline = transaction.essence.action.expiry_milestone();
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
                // Why something is not applied is only the node's word, and a balance that is due is not
                // given up on a word: it is tried again until the channel is proven to need it no more.
                let state = match transaction.essence.action {
                    Action::UnilateralClose(_) => "closing",
                    Action::Claim(_) => "contested",
                    _ => return,
                };
                if !views.get(channel).is_ok_and(|view| view.info.state == state) {
                    return;
                }
                client.leave_node();
                tokio::time::sleep(REFUSED_AGAIN).await;
            }
            Err(error) => {
                tracing::warn!(%channel, kind, transaction = %id, %error, "tried again in a while");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Submits a claim until it is proven to be applied, whatever nodes say, and be it for ever: whoever wants it ends
/// this when it is not needed any more.
pub(crate) async fn insist(client: &NodeClient, transaction: &Transaction) {
    let id = transaction.id();
    loop {
        match client.submit_and_wait(transaction.clone(), None).await {
            Ok(applied) => {
                tracing::info!(transaction = %id, milestone = applied.milestone_index, "the claim is applied");
                return;
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(transaction = %id, %error, "the claim is tried again in a while");
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => {
                tracing::warn!(transaction = %id, %error, "the claim is not applied");
                client.leave_node();
                tokio::time::sleep(REFUSED_AGAIN).await;
            }
        }
    }
}
