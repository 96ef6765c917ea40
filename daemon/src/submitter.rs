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
use flash_proto::{Action, ChannelId, Payload, Transaction, TransactionId};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    engine::{Engine, View, Views},
    stop::Stop,
};

/// Pause before a transaction is tried again that could not be submitted.
const AGAIN: Duration = Duration::from_secs(1);
/// Pause before a close or claim is tried again that a node says is refused.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);

/// A block is mostly confirmed by the next milestone, and what it changed proven before the one after that, or a little later
/// where very many channels are opened at once. Only then is the node asked what became of a transaction.
const CONFIRMED_WITHIN: u64 = 4;
/// So long that is waited for at most.
const CONFIRMED_WAIT: Duration = Duration::from_secs(10);

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
    let mut submitted = None;
    if matches!(transaction.essence.action, Action::Open(_)) {
        match open(client, views, channel, &transaction).await {
            Opened::Proven => {
                tracing::info!(%channel, kind, transaction = %id, "the channel is proven");
                return;
            }
            Opened::NotYet { since } => submitted = since,
        }
    }
    let deadline = transaction.essence.action.expiry_milestone();
    loop {
        match client.see_through(transaction.clone(), deadline, submitted.take()).await {
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

/// What came of an Open.
enum Opened {
    /// The watcher has proven its channel.
    Proven,
    /// Nothing yet; it was submitted after this milestone, if it was.
    NotYet { since: Option<u64> },
}

/// Submits an Open once, and waits a little for the watcher to prove its channel: of very many that are opened at once
/// nearly all need no more.
async fn open(client: &NodeClient, views: &Views, channel: ChannelId, transaction: &Transaction) -> Opened {
    let Ok(mut view) = views.follow(channel) else { return Opened::NotYet { since: None } };
    let opening = |view: &View| view.info.state == "opening";
    let (mut tip, since) = (client.view(), client.newest().index);
    if let Err(error) = client.submit(Payload::Transaction(Box::new(transaction.clone()))).await {
        tracing::debug!(%channel, %error, "it is tried again");
        return Opened::NotYet { since: None };
    }
    let confirmed = since.saturating_add(CONFIRMED_WITHIN);
    let waited = async {
        tokio::select! {
            opened = view.wait_for(|view| !opening(view)) => opened.is_ok(),
            _ = tip.wait_for(|view| view.tip.as_ref().is_some_and(|tip| tip.essence.index >= confirmed)) => false,
        }
    };
    match tokio::time::timeout(CONFIRMED_WAIT, waited).await {
        Ok(true) => Opened::Proven,
        Ok(false) | Err(_) => Opened::NotYet { since: Some(since) },
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
