//! The background: connects, follows, and begins again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::{ClientError, FollowedMilestone, Shared, Tip, link::Link};
use crate::{
    protocol::{Followed, NodeRequest, NodeResponse},
    quic::{PeerAddress, jittered},
};

/// How long a connection may take.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// The first wait before another try.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(100);
/// The waits double up to this.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(20);
/// A node that sends no milestone for so many intervals is left for another one…
const QUIET_INTERVALS_MAX: u32 = 10;
/// … but not before this time.
const QUIET_MIN: Duration = Duration::from_secs(30);

/// Follows one node after the other, until there is a fork.
pub(super) async fn run(shared: Arc<Shared>, nodes: Vec<PeerAddress>) {
    let (mut next, mut failures) = (0_usize, 0_u32);
    while let Some((place, node)) = choose(&shared, &nodes, next) {
        let before = shared.core().newest().index;
        let Err(error) = follow(&shared, node).await;
        shared.disconnect(0);
        if shared.check_halted().is_err() {
            return;
        }
        let advanced = shared.core().newest().index > before;
        failures =
            if advanced && shared.shunned_until(node).is_none() { 0 } else { failures.saturating_add(1) };
        let wait = retry_wait(failures);
        info!(%node, %error, ?wait, "not following any more; the next node is tried after the wait");
        next = place.saturating_add(1);
        sleep(wait).await;
    }
}

/// The first node from place `next` on that is not avoided, or the one that was avoided the longest.
fn choose<'a>(shared: &Shared, nodes: &'a [PeerAddress], next: usize) -> Option<(usize, &'a PeerAddress)> {
    let length = nodes.len();
    let start = next.checked_rem(length)?;
    let round = || nodes.iter().enumerate().cycle().skip(start).take(length);
    round()
        .find(|(_, node)| shared.shunned_until(node).is_none())
        .or_else(|| round().min_by_key(|(_, node)| shared.shunned_until(node)))
}

/// Doubles with every failure; part of it is drawn, so that clients do not all come at once.
fn retry_wait(failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.min(16)).unwrap_or(1);
    jittered(RETRY_WAIT_MIN.saturating_mul(factor).min(RETRY_WAIT_MAX))
}

/// Follows one node until that ends.
async fn follow(shared: &Shared, node: &PeerAddress) -> Result<std::convert::Infallible, ClientError> {
    let late = |_| ClientError::Timeout { node: node.clone(), waited: CONNECT_WAIT_MAX };
    let failed = |error| ClientError::Connect { node: node.clone(), error: Box::new(error) };
    let dialled = timeout(CONNECT_WAIT_MAX, shared.endpoint.dial(node)).await.map_err(late)?;
    let connection = dialled.map_err(failed)?;
    let link = Link { connection, node: node.clone() };
    shared.link.send_replace(Some(link.clone()));
    shared.view.send_modify(|view| view.node = Some(node.clone()));

    let after = shared.core().newest().index;
    info!(%node, after, "following");
    let mut reader = link.request(&NodeRequest::Follow { after }).await?;
    let interval = Duration::from_millis(shared.params.milestone_interval_ms);
    let quiet_max = interval.saturating_mul(QUIET_INTERVALS_MAX).max(QUIET_MIN);
    loop {
        let late = |_| ClientError::Timeout { node: node.clone(), waited: quiet_max };
        let answer = timeout(quiet_max, link.answer(&mut reader)).await.map_err(late)?;
        let NodeResponse::Followed(followed) = answer.inspect_err(|error| shared.blame(&link, error))? else {
            return Err(shared.unexpected(&link));
        };
        shared.take(&link, *followed)?;
    }
}

impl Shared {
    /// Takes the next milestone over and tells everybody.
    fn take(&self, link: &Link, followed: Followed) -> Result<(), ClientError> {
        let (checked, checkpoint) = {
            let mut core = self.core();
            (core.advance(&followed), Arc::new(core.checkpoint()))
        };
        self.judge(link, checked)?;
        let Followed { milestone, channels } = followed;
        let essence = Arc::new(milestone.essence);
        debug!(index = essence.index, channels = channels.len(), "milestone");
        // Nobody listening is no error.
        let _ = self.followed.send(Arc::new(FollowedMilestone { checkpoint, channels }));
        self.view.send_modify(|view| view.tip = Some(Tip { essence, arrived: Instant::now() }));
        Ok(())
    }
}
