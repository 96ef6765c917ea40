//! The full node: it keeps the Tangle and the ledger on its disk, issues milestones if it holds the
//! coordinators' keys, and answers clients.
//!
//! Memory follows the disk, never the other way round: a block is durable before its sender is told so, and
//! everything that a milestone changes is one batch, so that a node that dies at any moment comes back
//! with exactly what it had told anyone. When the store fails, the node stops and stays stopped.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`service`] | serving clients over QUIC |
//! | [`dev`] | making a network for development |
//! | [`rate`] | how many blocks one sender may put into the Tangle |
//! | `receive`, `milestone`, `queries`, `exchange` | what a node does |
//! | `index`, `explore` | finding blocks, and telling what became of them |
//! | `snapshot` | starting from the state at a milestone instead of from the genesis |
//! | `prune`, `upkeep` | letting go of the past, and what is done beside the milestones |
//! | `core`, `records`, `pages`, `outputs`, `load` | what it holds in memory, on disk, and the way from one to the other |

mod coordinate;
mod core;
pub mod dev;
mod error;
mod exchange;
mod explore;
mod index;
mod load;
mod milestone;
mod outputs;
mod pages;
mod prune;
mod queries;
pub mod rate;
mod receive;
mod records;
pub mod service;
mod snapshot;
#[cfg(test)]
mod tests;
mod upkeep;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

pub use coordinate::{CoordinatorConfig, Floodgate, Handover, run_coordinator};
pub use error::NodeError;
pub use explore::{AddressBalances, BlockOutcome, BlockState, CarriedMilestone, Confirmed, ProvenOutput};
use flash_channel::store::{Batch, Durable, Store, StoreKind, Table};
use flash_proto::{BlockId, NetworkParams};
pub use index::Find;
pub use milestone::Judgement;
pub use prune::{KEEP_MILESTONES_MIN, Keep};
pub use queries::ConePage;
pub use receive::{PreparedBlocks, Received, Source};
pub use records::Past;
pub use snapshot::{SnapshotError, SnapshotInfo, verify_snapshot};
use tokio::sync::{broadcast, watch};
use tracing::error;
pub use upkeep::{Upkeep, run_upkeep};

use self::{core::Core, milestone::Draft, rate::clients::ClientRates, receive::Queued};
use crate::{
    ledger::{LedgerState, merkle},
    protocol::Followed,
    tangle::TipSelection,
};

/// What a node is.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The directory of its store; made if it is not there.
    pub directory: PathBuf,
    /// The network.
    pub params: NetworkParams,
    /// Whether blocks are to be found by tag, address and transaction, which the HTTP API needs: some more
    /// records for each block. Blocks that come while it is off are not found later.
    pub index: bool,
    /// How tips are picked for those who ask what to approve.
    pub tips: TipSelection,
}

impl NodeConfig {
    /// A node of this network in `directory`, with the index, that picks tips uniformly.
    pub fn new(directory: impl Into<PathBuf>, params: NetworkParams) -> Self {
        Self { directory: directory.into(), params, index: true, tips: TipSelection::Uniform }
    }
}

/// A list of blocks that a milestone commits to, by its table and the milestone's index, and the tree over it.
type ListTree = ((Table, u64), Arc<merkle::Tree>);

/// Blocks that those who listen to [`Node::arrivals`] may be behind.
const ARRIVALS_MAX: usize = 1_024;

/// A block that was just taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The block.
    pub id: BlockId,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A full node. Clones are handles to one node.
///
/// All calls block for as long as the disk takes; in async code they belong into [`Node::blocking`].
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

struct Shared {
    params: NetworkParams,
    /// Whether blocks are indexed.
    index: bool,
    tips: TipSelection,
    store: Box<dyn Store>,
    core: RwLock<Core>,
    /// Held while something is made durable and taken over: one at a time, so that what was checked
    /// against memory still holds when it is on the disk. Taken before `core`, never after.
    writer: Mutex<()>,
    /// Blocks that wait for the next commit.
    queue: Mutex<Vec<Queued>>,
    /// The trees of the lists that were proven from last, the newest first.
    trees: Mutex<VecDeque<ListTree>>,
    /// Why the node stopped.
    halted: OnceLock<String>,
    /// What the next milestone was worked out to change.
    draft: Mutex<Option<Draft>>,
    /// Blocks as they come in.
    arrivals: broadcast::Sender<Arc<Arrival>>,
    /// Index of the newest milestone.
    newest: watch::Sender<u64>,
    /// What clients have submitted.
    rates: ClientRates,
    /// Where the random picks of tips go on.
    seed: AtomicU64,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("network", &self.shared.params.name).finish_non_exhaustive()
    }
}

/// Keeps the writer lock.
struct Writer<'a>(#[expect(dead_code, reason = "held for its drop")] MutexGuard<'a, ()>);

impl Node {
    /// Opens the node in its directory, with everything that the last milestone vouches for checked.
    ///
    /// # Errors
    /// [`NodeError`]: wrong parameters or keys, or a store that cannot be opened or is damaged.
    pub fn open(config: NodeConfig) -> Result<Self, NodeError> {
        config.params.check()?;
        let store = StoreKind::open(None, &config.directory, config.params.id().as_bytes())?;
        Self::start(config, store, None)
    }

    /// The same above any store, with the index; the store must hold nothing or what a node of this network stored.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn with_store(params: NetworkParams, store: Box<dyn Store>) -> Result<Self, NodeError> {
        Self::start(NodeConfig::new(PathBuf::new(), params), store, None)
    }

    /// `ledger` is what is stored, if it was just put there.
    fn start(
        config: NodeConfig,
        store: Box<dyn Store>,
        ledger: Option<LedgerState>,
    ) -> Result<Self, NodeError> {
        let NodeConfig { directory: _, params, index, tips } = config;
        params.check()?;
        let seed = getrandom::u64().map_err(|error| NodeError::Random(error.to_string()))?;
        let core = load::load(store.as_ref(), &params, ledger)?;
        let (newest, _) = watch::channel(core.index());
        let rates = ClientRates::new(&params);
        Ok(Self {
            shared: Arc::new(Shared {
                params,
                index,
                tips,
                store,
                core: RwLock::new(core),
                writer: Mutex::new(()),
                queue: Mutex::default(),
                trees: Mutex::default(),
                halted: OnceLock::new(),
                draft: Mutex::default(),
                arrivals: broadcast::channel(ARRIVALS_MAX).0,
                newest,
                rates,
                seed: AtomicU64::new(seed),
            }),
        })
    }

    /// The network's parameters.
    pub fn params(&self) -> &NetworkParams {
        &self.shared.params
    }

    /// The index of the newest milestone, now and as it rises.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.shared.newest.subscribe()
    }

    /// Blocks newly taken in, in order. Whoever is more than some hundred behind misses some.
    pub fn arrivals(&self) -> broadcast::Receiver<Arc<Arrival>> {
        self.shared.arrivals.subscribe()
    }

    /// Why the node has stopped, if it has.
    pub fn halted(&self) -> Option<&str> {
        self.shared.halted.get().map(String::as_str)
    }

    /// What is here of the past.
    pub fn past(&self) -> Past {
        self.read().past
    }

    /// Does what may wait for the disk on a thread where it holds up nobody else. Must be called inside a
    /// tokio runtime; what has begun goes on if the future is dropped.
    ///
    /// # Errors
    /// What `work` returns, or [`NodeError::Halted`] if it did not come to its end.
    pub async fn blocking<T: Send + 'static, E: From<NodeError> + Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let node = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&node)).await;
        done.unwrap_or_else(|_| Err(NodeError::Halted("an invariant did not hold".to_owned()).into()))
    }

    /// At most `limit` milestones after index `after`, in order; none skipped, none if there are none yet.
    ///
    /// # Errors
    /// [`NodeError::Pruned`], [`NodeError::Halted`], or the store's failure.
    pub fn followed_after(&self, after: u64, limit: usize) -> Result<Vec<Arc<Followed>>, NodeError> {
        self.alive()?;
        let (newest, recent) = {
            let core = self.read();
            (core.index(), core.recent_after(after, limit))
        };
        if let Some(recent) = recent {
            return Ok(recent);
        }
        let mut found = Vec::new();
        let first = after.saturating_add(1);
        for index in (first..=newest).take(limit) {
            // Those that hand over stay when the ones around them go, and do not count then.
            let followed = self.stored(records::followed(self.store(), index))?;
            match followed.filter(|_| index > self.past().milestones) {
                Some(followed) => found.push(Arc::new(followed)),
                None => return Err(self.gone(index, self.past().milestones, "milestone")),
            }
        }
        Ok(found)
    }

    fn store(&self) -> &dyn Store {
        self.shared.store.as_ref()
    }

    /// Memory to read. A panic while it was written is a broken invariant: `writer` stops everything then.
    fn read(&self) -> RwLockReadGuard<'_, Core> {
        self.shared.core.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Core> {
        self.shared.core.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> Result<(), NodeError> {
        self.halted().map_or(Ok(()), |why| Err(NodeError::Halted(why.to_owned())))
    }

    /// The right to make something durable.
    fn writer(&self) -> Result<Writer<'_>, NodeError> {
        let Ok(guard) = self.shared.writer.lock() else {
            return Err(self.halt(&NodeError::Damaged("state in memory: an invariant did not hold")));
        };
        self.alive()?;
        Ok(Writer(guard))
    }

    fn commit(&self, _writer: &Writer<'_>, batch: &Batch) -> Result<Durable, NodeError> {
        self.stored(self.store().commit(batch).map_err(NodeError::from))
    }

    /// Passes the store's answer on; stops the node if it is an error, since nothing is known then of
    /// what the disk holds.
    fn stored<T>(&self, result: Result<T, NodeError>) -> Result<T, NodeError> {
        result.map_err(|error| self.halt(&error))
    }

    fn halt(&self, why: &NodeError) -> NodeError {
        let text = self.shared.halted.get_or_init(|| {
            error!(%why, "the node stops");
            why.to_string()
        });
        // Wakes those who follow, so that they hear of it.
        self.shared.newest.send_modify(|_| {});
        NodeError::Halted(text.clone())
    }

    /// Why something of milestone `index` is not here: those up to `pruned` were let go of, which is known
    /// before anything of them is deleted.
    fn gone(&self, index: u64, pruned: u64, what: &'static str) -> NodeError {
        if index <= pruned {
            NodeError::Pruned { upto: pruned }
        } else {
            self.halt(&NodeError::Damaged(what))
        }
    }

    fn next_seed(&self) -> u64 {
        // Any odd step reaches every seed; the picks mix it.
        self.shared.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }
}
