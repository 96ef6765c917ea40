//! A client of nodes that believes nothing it cannot check.
//!
//! [`NodeClient::start`] returns at once. In the background the client follows the milestones of several
//! nodes, and does so again for ever when a link breaks. All feed one light core ([`crate::light`]): the first
//! valid milestone of an index is taken, those of the other nodes must be the same. Everything that calls
//! return was checked against the coordinators' signatures; what cannot be checked (that something is
//! *pending*, or *why* it was rejected, or that there are no more outputs at an address or channels of a key) is asked of
//! all nodes that are in step, and says so. A node that lies, withholds milestones or does not answer is
//! named ([`NodeClient::faults`]) and avoided, and another one is asked.
//!
//! Every request has a stream of its own, a limit on its bytes and a limit on its time.

mod ask;
mod batch;
mod error;
mod follower;
mod link;
mod listing;
mod nodes;
mod publish;
mod status;
mod submit;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use batch::Batches;
pub use error::ClientError;
use flash_proto::{ChannelId, MilestoneEssence, NetworkParams, SecretKey};
use nodes::Nodes;
pub use nodes::{BEHIND_MAX, FAULTS_MAX, FaultKind, NodeFault, NodeState, NodeStatus};
use quinn::VarInt;
pub use status::TransactionStatus;
pub use submit::Applied;
use tokio::{
    sync::{Semaphore, broadcast, watch},
    task::AbortHandle,
};

use crate::{
    light::{Checkpoint, LightCore},
    quic::{Endpoint, NODE_ALPN, PeerAddress, StreamLimits},
};

/// Milestones that a receiver of [`NodeClient::follow`] may be behind.
pub const FOLLOW_BEHIND_MAX: usize = 16_384;
/// Nodes that are followed at a time, unless the configuration says otherwise.
pub const NODES_AT_ONCE: usize = 3;
/// Proofs of work at a time.
const WORK_AT_A_TIME: usize = 2;

/// What a client needs to start.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The network.
    pub params: Arc<NetworkParams>,
    /// Nodes, the preferred one first.
    pub nodes: Vec<PeerAddress>,
    /// How many of them are followed at a time; at least one always is.
    pub nodes_at_once: usize,
    /// The key that this client shows.
    pub key: SecretKey,
    /// A milestone that was verified before, to start after; `None` to start from the genesis.
    pub checkpoint: Option<Checkpoint>,
    /// The local address to dial from; port 0 for any.
    pub bind: SocketAddr,
    /// How long nodes are waited for.
    pub patience: Patience,
}

/// How long nodes are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For an answer.
    pub answer: Duration,
    /// For a node that sends no milestone, or stays more than [`BEHIND_MAX`] milestones behind the others.
    pub quiet: Duration,
}

impl ClientConfig {
    /// A client with the usual number of nodes and the usual patience, from the genesis on.
    pub fn new(
        params: Arc<NetworkParams>,
        nodes: Vec<PeerAddress>,
        key: SecretKey,
        bind: SocketAddr,
    ) -> Self {
        let patience = Patience::of(&params);
        Self { params, nodes, nodes_at_once: NODES_AT_ONCE, key, checkpoint: None, bind, patience }
    }
}

impl Patience {
    /// Ten seconds for an answer; ten milestone intervals for a milestone, but at least half a minute.
    pub fn of(params: &NetworkParams) -> Self {
        let interval = Duration::from_millis(params.milestone_interval_ms);
        let quiet = interval.saturating_mul(10).max(Duration::from_secs(30));
        Self { answer: Duration::from_secs(10), quiet }
    }
}

/// The newest milestone and when it came.
#[derive(Clone, Debug)]
pub struct Tip {
    /// The milestone.
    pub essence: Arc<MilestoneEssence>,
    /// When this client had verified it.
    pub arrived: Instant,
}

/// Where a client is.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The newest milestone that came since the client started; `None` before the first.
    pub tip: Option<Tip>,
    /// The best of the nodes that there is a link to.
    pub node: Option<PeerAddress>,
    /// Why nothing is believed any more: a fork. Never taken back.
    pub halted: Option<String>,
}

/// A verified milestone and the channels that it changed, in rising order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowedMilestone {
    /// The milestone, as a place to start from again.
    pub checkpoint: Arc<Checkpoint>,
    /// The channels that it changed: all of them, as the milestone commits to them.
    pub channels: Vec<ChannelId>,
}

/// A value that is proven to have been on the ledger at a milestone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven<T> {
    /// The milestone.
    pub milestone_index: u64,
    /// What was on the ledger after it.
    pub value: T,
}

/// A light client of one network. A clone is the same client; the last one that is dropped ends it.
#[derive(Clone, Debug)]
pub struct NodeClient {
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    background: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.background.abort();
        self.shared.disconnect(0);
    }
}

/// What calls and the follower share.
#[derive(Debug)]
struct Shared {
    params: Arc<NetworkParams>,
    endpoint: Endpoint,
    core: Mutex<LightCore>,
    patience: Patience,
    view: watch::Sender<View>,
    nodes: watch::Sender<Nodes>,
    followed: broadcast::Sender<Arc<FollowedMilestone>>,
    /// For the first caller of `follow`, so that it misses nothing from the start on.
    first: Mutex<Option<broadcast::Receiver<Arc<FollowedMilestone>>>>,
    work: Arc<Semaphore>,
    batches: Batches,
    /// The newest milestone when a node was last left because it did not see something through.
    left: AtomicU64,
}

impl NodeClient {
    /// Starts a client. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::NoNodes`], [`ClientError::Setup`], [`ClientError::Start`]. That no node answers is
    /// no error: it is tried for ever.
    pub fn start(config: ClientConfig) -> Result<Self, ClientError> {
        let ClientConfig { params, nodes, nodes_at_once, key, checkpoint, bind, patience } = config;
        if nodes.is_empty() {
            return Err(ClientError::NoNodes);
        }
        let core = LightCore::new(Arc::clone(&params), checkpoint).map_err(ClientError::Setup)?;
        let endpoint = Endpoint::dialler(&key, NODE_ALPN, bind, StreamLimits { bidirectional: 0 })?;
        let at_once = nodes_at_once.clamp(1, nodes.len());
        let (followed, first) = broadcast::channel(FOLLOW_BEHIND_MAX);
        let shared = Arc::new(Shared {
            params,
            endpoint,
            core: Mutex::new(core),
            patience,
            view: watch::Sender::new(View::default()),
            nodes: watch::Sender::new(Nodes::new(nodes)),
            followed,
            first: Mutex::new(Some(first)),
            work: Arc::new(Semaphore::new(WORK_AT_A_TIME)),
            batches: Batches::default(),
            left: AtomicU64::new(0),
        });
        let background = tokio::spawn(follower::run(Arc::clone(&shared), at_once)).abort_handle();
        Ok(Self { running: Arc::new(Running { shared, background }) })
    }

    /// Where the client is, now and whenever it changes.
    pub fn view(&self) -> watch::Receiver<View> {
        self.shared().view.subscribe()
    }

    /// Every verified milestone, in order, none left out. The first receiver gets all since the client
    /// started; later ones those from the call on. A receiver that is more than [`FOLLOW_BEHIND_MAX`]
    /// milestones behind gets `Lagged` and must then look at every channel it cares about.
    pub fn follow(&self) -> broadcast::Receiver<Arc<FollowedMilestone>> {
        let first = lock(&self.shared().first).take();
        first.unwrap_or_else(|| self.shared().followed.subscribe())
    }

    /// The newest milestone that is known: at first the checkpoint, or the genesis.
    pub fn newest(&self) -> MilestoneEssence {
        self.shared().core().newest().clone()
    }

    /// Every configured node and how it does, the preferred one first.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        let newest = self.newest().index;
        self.shared().nodes.borrow().status(newest)
    }

    /// What nodes were caught at, oldest first: at most [`FAULTS_MAX`], each once.
    pub fn faults(&self) -> Vec<NodeFault> {
        self.shared().nodes.borrow().faults()
    }

    /// How often nodes were caught at something since the client started.
    pub fn faults_count(&self) -> u64 {
        self.shared().nodes.borrow().faults_count()
    }

    /// Leaves the best node for one that was not tried for longer, as if it does not see a transaction
    /// through. Of a single node this is a new connection.
    pub fn leave_node(&self) {
        if let Some(link) = self.shared().nodes.borrow().links(0, &[]).first() {
            link.connection.close(VarInt::from_u32(0), b"");
        }
    }

    /// Leaves the best node because of something that it has had since milestone `since` and has not seen through; once
    /// for all that wait so, because the next one needs time, too.
    fn leave_node_of(&self, since: u64) {
        let newest = self.newest().index;
        let left = &self.shared().left;
        let first = |left: u64| (left <= since).then_some(newest);
        if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, first).is_ok() {
            self.leave_node();
        }
    }

    /// The network.
    pub fn params(&self) -> &Arc<NetworkParams> {
        &self.shared().params
    }

    fn shared(&self) -> &Shared {
        &self.running.shared
    }
}

impl Shared {
    /// Never held across an await.
    fn core(&self) -> MutexGuard<'_, LightCore> {
        lock(&self.core)
    }
}

/// What these locks guard is whole after every statement, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
