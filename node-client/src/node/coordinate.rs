//! A coordinator that needs no others.

use std::{
    future::Future,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use flash_proto::SecretKey;
use tokio::time::MissedTickBehavior;
use tracing::debug;

use super::{Node, NodeError};

/// Issues a milestone every `interval`, until `stop` is ready or the node stops.
///
/// # Errors
/// [`NodeError`]: why no milestone can be issued any more.
pub async fn run_coordinator(
    node: Node,
    keys: Vec<SecretKey>,
    interval: Duration,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            _ = ticks.tick() => {}
        }
        let (issuing, keys) = (node.clone(), keys.clone());
        let issued = tokio::task::spawn_blocking(move || issuing.issue_milestone(now_ms(), &keys)).await;
        match issued {
            Ok(followed) => {
                let essence = &followed?.milestone.essence;
                debug!(index = essence.index, "milestone issued");
            }
            Err(_) => {
                return Err(node.halt(&NodeError::Damaged("state in memory: an invariant did not hold")));
            }
        }
    }
}

/// Milliseconds since 1970; 0 on a clock that stands before it.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
