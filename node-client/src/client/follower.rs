//! The background: connects to several nodes, follows each, and begins again.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, info};

use super::{ClientError, FollowedMilestone, Shared, Tip, link::Link};
use crate::{
    light::LightError,
    protocol::{Followed, NodeRequest, NodeResponse},
    quic::{PeerAddress, jittered},
};

/// How long a connection may take.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// The first wait before another try.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(100);
/// The waits double up to this.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(20);
/// How often a follower without a node looks whether there is one for it.
const CLAIM_AGAIN: Duration = Duration::from_secs(1);

/// Follows so many nodes at a time, until there is a fork.
pub(super) async fn run(shared: Arc<Shared>, at_once: usize) {
    let mut followers = JoinSet::new();
    for _ in 0..at_once {
        followers.spawn(run_one(Arc::clone(&shared)));
    }
    while followers.join_next().await.is_some() {}
}

/// Follows one node after the other.
async fn run_one(shared: Arc<Shared>) {
    let mut failures = 0_u32;
    while shared.check_halted().is_ok() {
        let mut claimed = None;
        shared.change(|nodes| claimed = nodes.claim());
        let Some(node) = claimed else {
            sleep(CLAIM_AGAIN).await;
            continue;
        };
        let Err(error) = shared.follow(&node).await;
        let mut useful = false;
        shared.change(|nodes| useful = nodes.release(&node.key));
        failures = if useful { 0 } else { failures.saturating_add(1) };
        let wait = retry_wait(failures);
        info!(%node, %error, ?wait, "not following any more; a node is tried after the wait");
        sleep(wait).await;
    }
}

/// Doubles with every failure; part of it is drawn, so that clients do not all come at once.
fn retry_wait(failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.min(16)).unwrap_or(1);
    jittered(RETRY_WAIT_MIN.saturating_mul(factor).min(RETRY_WAIT_MAX))
}

impl Shared {
    /// Follows one node until that ends.
    async fn follow(&self, node: &PeerAddress) -> Result<Infallible, ClientError> {
        let late = |_| ClientError::Timeout { node: node.clone(), waited: CONNECT_WAIT_MAX };
        let failed = |error| ClientError::Connect { node: node.clone(), error: Box::new(error) };
        let dialled = timeout(CONNECT_WAIT_MAX, self.endpoint.dial(node)).await.map_err(late)?;
        let connection = dialled.map_err(failed)?;
        let mut tip = self.core().newest().index;
        let link = Link { connection, node: node.clone(), tip, heard: false };
        self.change(|nodes| nodes.connected(&node.key, link.connection.clone(), tip));
        info!(%node, after = tip, "following");
        let left_behind = self.left_behind(&link);
        tokio::pin!(left_behind);
        let mut reader = link.request(&NodeRequest::Follow { after: tip }).await?;
        let quiet = self.patience.quiet;
        loop {
            let answer = tokio::select! {
                answer = timeout(quiet, link.answer(&mut reader)) => match (answer, self.lag(node)) {
                    (Ok(answer), _) => answer,
                    (Err(_), Some(withheld)) => Err(withheld),
                    // Nobody has sent anything.
                    (Err(_), None) => return Err(ClientError::Timeout { node: node.clone(), waited: quiet }),
                },
                error = &mut left_behind => Err(error),
            };
            let NodeResponse::Followed(followed) = answer.inspect_err(|error| self.blame(&link, error))?
            else {
                return Err(self.unexpected(&link));
            };
            self.take(&link, tip, *followed)?;
            tip = tip.saturating_add(1);
            self.change(|nodes| nodes.heard(&node.key, tip));
        }
    }

    /// What is to be said of a node that is far behind the others.
    fn lag(&self, node: &PeerAddress) -> Option<ClientError> {
        let behind = self.nodes.borrow().lags(&node.key)?;
        Some(ClientError::Withheld { node: node.clone(), behind })
    }

    /// Ends once the node has been far behind the others for too long.
    async fn left_behind(&self, link: &Link) -> ClientError {
        let key = link.node.key;
        let mut changes = self.nodes.subscribe();
        loop {
            // The sender lives as long as this.
            let _ = changes.wait_for(|nodes| nodes.lags(&key).is_some()).await;
            let caught_up = changes.wait_for(|nodes| nodes.lags(&key).is_none());
            if timeout(self.patience.quiet, caught_up).await.is_err()
                && let Some(withheld) = self.lag(&link.node)
            {
                return withheld;
            }
        }
    }

    /// Takes the milestone after `tip` from a node: if it is the next one here it is taken over and
    /// everybody is told, else it must be the known one.
    fn take(&self, link: &Link, tip: u64, followed: Followed) -> Result<(), ClientError> {
        let checked = {
            let mut core = self.core();
            let index = followed.milestone.essence.index;
            let newest = core.newest().index;
            if tip.checked_add(1) != Some(index) {
                // Evidence of a fork counts all the same.
                let out_of_order = LightError::OutOfOrder { got: index, after: tip };
                core.witness(&followed.milestone).and(Err(out_of_order))
            } else if index <= newest {
                core.confirm(&followed)
            } else {
                core.advance(&followed).map(|()| {
                    let checkpoint = Arc::new(core.checkpoint());
                    let essence = Arc::new(followed.milestone.essence);
                    let channels = followed.channels;
                    debug!(index, channels = channels.len(), "milestone");
                    // While the core is held, so that all hear of all in order. Nobody listening is no error.
                    let _ = self.followed.send(Arc::new(FollowedMilestone { checkpoint, channels }));
                    self.view.send_modify(|view| view.tip = Some(Tip { essence, arrived: Instant::now() }));
                })
            }
        };
        self.judge(link, checked)
    }
}
