//! When each milestone was first seen, by clients of all nodes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use flash_node_client::client::NodeClient;
use tokio::sync::broadcast::error::RecvError;

/// The milestones as they came. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    seen: Arc<Mutex<BTreeMap<u64, Instant>>>,
    interval: Duration,
}

impl Clock {
    /// A clock that follows these clients; each must be new.
    pub(super) fn new(clients: &[NodeClient], interval: Duration) -> Self {
        let clock = Self { seen: Arc::default(), interval };
        for client in clients {
            let (clock, mut followed) = (clock.clone(), client.follow());
            tokio::spawn(async move {
                loop {
                    match followed.recv().await {
                        Ok(milestone) => {
                            let index = milestone.checkpoint.essence.index;
                            clock.seen().entry(index).or_insert_with(Instant::now);
                        }
                        Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => return,
                    }
                }
            });
        }
        clock
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest milestone anywhere.
    pub(super) fn newest(&self) -> u64 {
        self.seen().keys().next_back().copied().unwrap_or(0)
    }

    /// How long after `since` a milestone was seen first.
    pub(super) fn until(&self, index: u64, since: Instant) -> Option<Duration> {
        self.seen().get(&index).map(|at| at.saturating_duration_since(since))
    }

    /// Waits for so many more milestones; whether they came in time.
    pub(super) async fn wait(&self, count: u64, patience: Duration) -> bool {
        let (goal, started) = (self.newest() + count, Instant::now());
        while self.newest() < goal {
            if started.elapsed() > patience {
                return false;
            }
            tokio::time::sleep(self.interval / 20).await;
        }
        true
    }

    /// Between milestones, as it is intended.
    pub(super) const fn interval(&self) -> Duration {
        self.interval
    }
}
