//! A client of nodes that believes nothing it cannot check.
//!
//! [`NodeClient::start`] returns at once. In the background the client connects to one node after the
//! other until one answers, follows the milestones there, and does so again for ever when the link
//! breaks. Everything that calls return was checked by the light core ([`crate::light`]) against the
//! coordinators' signatures; what cannot be checked (that something is *pending*, or *why* it was
//! rejected) says so. A node can withhold outputs at an address; it cannot make any up.
//!
//! Every request has a stream of its own, a limit on its bytes and a limit on its time.

mod ask;
mod error;
mod follower;
mod link;
mod publish;
mod submit;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

pub use ask::TransactionStatus;
pub use error::ClientError;
use flash_proto::{ChannelId, MilestoneEssence, NetworkParams, PublicKey, SecretKey};
use link::Link;
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
/// Proofs of work at a time.
const WORK_AT_A_TIME: usize = 2;

/// What a client needs to start.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The network.
    pub params: Arc<NetworkParams>,
    /// Nodes, the preferred one first.
    pub nodes: Vec<PeerAddress>,
    /// The key that this client shows.
    pub key: SecretKey,
    /// A milestone that was verified before, to start after; `None` to start from the genesis.
    pub checkpoint: Option<Checkpoint>,
    /// The local address to dial from; port 0 for any.
    pub bind: SocketAddr,
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
    /// The node that is followed, while there is a link to one.
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
    view: watch::Sender<View>,
    link: watch::Sender<Option<Link>>,
    followed: broadcast::Sender<Arc<FollowedMilestone>>,
    /// For the first caller of `follow`, so that it misses nothing from the start on.
    first: Mutex<Option<broadcast::Receiver<Arc<FollowedMilestone>>>>,
    /// Nodes that lied, and until when they are avoided.
    shunned: Mutex<HashMap<PublicKey, Instant>>,
    work: Arc<Semaphore>,
}

impl NodeClient {
    /// Starts a client. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::NoNodes`], [`ClientError::Setup`], [`ClientError::Start`]. That no node answers is
    /// no error: it is tried for ever.
    pub fn start(config: ClientConfig) -> Result<Self, ClientError> {
        let ClientConfig { params, nodes, key, checkpoint, bind } = config;
        if nodes.is_empty() {
            return Err(ClientError::NoNodes);
        }
        let core = LightCore::new(Arc::clone(&params), checkpoint).map_err(ClientError::Setup)?;
        let endpoint = Endpoint::dialler(&key, NODE_ALPN, bind, StreamLimits { bidirectional: 0 })?;
        let (followed, first) = broadcast::channel(FOLLOW_BEHIND_MAX);
        let shared = Arc::new(Shared {
            params,
            endpoint,
            core: Mutex::new(core),
            view: watch::Sender::new(View::default()),
            link: watch::Sender::new(None),
            followed,
            first: Mutex::new(Some(first)),
            shunned: Mutex::new(HashMap::new()),
            work: Arc::new(Semaphore::new(WORK_AT_A_TIME)),
        });
        let background = tokio::spawn(follower::run(Arc::clone(&shared), nodes)).abort_handle();
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

    /// Leaves the node that is followed and goes on with the next one, as one does that does not see a
    /// transaction through. Of a single node this is a new connection.
    pub fn leave_node(&self) {
        self.shared().disconnect(0);
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
