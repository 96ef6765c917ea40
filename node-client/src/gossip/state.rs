//! What all tasks of the gossip share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use flash_proto::{BlockId, PublicKey, codec};
use quinn::{Connection, VarInt};
use tokio::sync::{Notify, mpsc};
use tracing::info;

use super::{
    GossipConfig, Relay,
    book::Book,
    message::{Live, NodeAddress, Reached},
    neighbours::{Bans, Standing},
    orphans::Orphans,
    recent::Recent,
};
use crate::{
    node::{
        Node, NodeError, Source,
        rate::{Budget, RateRule},
    },
    quic::{Endpoint, PeerAddress},
};

/// Parcels of neighbours that wait to be taken in.
pub(super) const INTAKE_MAX: usize = 16;
/// Accepted connections that wait for their greeting.
pub(super) const ACCEPTED_WAITING_MAX: usize = 32;
/// Messages that wait to be sent to one neighbour, beside blocks.
pub(super) const OUTBOX_MAX: usize = 128;
/// Blocks that are remembered to be here.
const SEEN_MAX: usize = 32_768;
/// Coordinators' messages that are remembered.
const FLOODS_MAX: usize = 4_096;
/// Bytes of the addresses that are kept.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// Addresses that are kept.
const KEPT_MAX: usize = 128;
/// Blocks that a neighbour may bring at once without more work: what one milestone can confirm.
const BURST: u64 = 7_000;
/// A neighbour may bring this part of what the milestones can confirm without more work.
const SHARE: u64 = 2;

/// Why connections are closed: nothing is wrong, or this end is no neighbour any more.
pub(super) const CLOSE_DONE: u32 = 0;
/// The other end broke the rules.
pub(super) const CLOSE_FAULTY: u32 = 1;
/// There are enough neighbours.
pub(super) const CLOSE_FULL: u32 = 2;

/// See the [module](self).
pub(super) struct Shared {
    pub(super) node: Node,
    pub(super) endpoint: Endpoint,
    pub(super) reached: Reached,
    pub(super) relay: Arc<dyn Relay>,
    pub(super) rule: RateRule,
    started: Instant,
    state: Mutex<State>,
    pub(super) orphans: Mutex<Orphans>,
    pub(super) channels: Channels,
    pub(super) draws: AtomicU64,
    /// A neighbour may be ahead.
    pub(super) ahead: Notify,
    /// There may be somebody to dial.
    pub(super) dial: Notify,
    /// Whether this node is catching up.
    pub(super) syncing: AtomicBool,
}

/// Blocks of one neighbour on their way in.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) from: PublicKey,
    pub(super) blocks: Vec<(BlockId, Vec<u8>)>,
    pub(super) source: Source,
}

/// Where tasks get their work.
#[derive(Debug)]
pub(super) struct Channels {
    pub(super) intake: mpsc::Sender<Parcel>,
    /// Connections that other nodes dialled.
    pub(super) accepted: mpsc::Sender<Connection>,
    /// Addresses at which neighbours say that they are reached.
    pub(super) claims: mpsc::Sender<PeerAddress>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) book: Book,
    pub(super) bans: Bans,
    pub(super) neighbours: BTreeMap<PublicKey, Neighbour>,
    /// Being dialled.
    pub(super) dialled: BTreeSet<PublicKey>,
    /// Blocks that are here.
    pub(super) seen: Recent,
    /// Blocks that came while catching up, which neighbours have.
    pub(super) old: Recent,
    /// Coordinators' messages.
    pub(super) floods: Recent,
    /// The next neighbour's number.
    pub(super) next_number: u64,
    /// Whether addresses changed since they were kept.
    pub(super) unkept: bool,
}

/// A neighbour.
#[derive(Debug)]
pub(super) struct Neighbour {
    /// Tells two links to one machine apart.
    pub(super) number: u64,
    pub(super) connection: Connection,
    pub(super) inbound: bool,
    pub(super) dialler: PublicKey,
    pub(super) address: Option<PeerAddress>,
    pub(super) standing: Standing,
    pub(super) newest: u64,
    /// Not asked to catch up with before.
    pub(super) no_sync_before: Duration,
    /// Blocks that it has.
    pub(super) known: Recent,
    /// Blocks that it sent of its own accord. What it was sent may cross with what it sends.
    pub(super) sent: Recent,
    pub(super) budget: Budget,
    pub(super) chatter: Budget,
    pub(super) outbox: mpsc::Sender<Live>,
    pub(super) since: Duration,
    /// Blocks whose absence here would show that something was missed; empty: something was.
    pub(super) doubt: Option<Vec<BlockId>>,
    pub(super) doubted: Arc<Notify>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        node: Node,
        endpoint: Endpoint,
        config: GossipConfig,
        channels: Channels,
    ) -> Result<Self, NodeError> {
        let draws = getrandom::u64().map_err(|error| NodeError::Random(error.to_string()))?;
        let mut book = Book::default();
        let own = endpoint.public_key();
        let kept = node.kept_addresses()?.unwrap_or_default();
        // Kept by another version: as if there were none.
        let kept = codec::decode::<Vec<NodeAddress>, KEPT_BYTES_MAX>(&kept).unwrap_or_default();
        for address in kept.iter().filter_map(NodeAddress::to_peer) {
            book.told(address, own);
        }
        for address in config.neighbours.into_iter().filter(|address| address.key != own) {
            book.add_by_hand(address);
        }
        let interval = Duration::from_millis(node.params().milestone_interval_ms);
        let state = State {
            book,
            bans: Bans::default(),
            neighbours: BTreeMap::new(),
            dialled: BTreeSet::new(),
            seen: Recent::new(SEEN_MAX),
            old: Recent::new(SEEN_MAX),
            floods: Recent::new(FLOODS_MAX),
            next_number: 0,
            unkept: false,
        };
        Ok(Self {
            rule: RateRule::share(usize::try_from(BURST).unwrap_or(usize::MAX), SHARE, BURST, interval),
            node,
            endpoint,
            reached: config.reached,
            relay: config.relay,
            started: Instant::now(),
            state: Mutex::new(state),
            orphans: Mutex::default(),
            channels,
            draws: AtomicU64::new(draws),
            ahead: Notify::new(),
            dial: Notify::new(),
            syncing: AtomicBool::new(false),
        })
    }

    /// Never held across an await.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never held across an await; taken after `state` or alone.
    pub(super) fn orphans(&self) -> MutexGuard<'_, Orphans> {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time since the start.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Index of the newest milestone here.
    pub(super) fn newest(&self) -> u64 {
        *self.node.newest().borrow()
    }

    pub(super) fn is_syncing(&self) -> bool {
        self.syncing.load(Ordering::Relaxed)
    }
}

impl State {
    /// Whether a node may be dialled: neither a neighbour yet nor banned.
    pub(super) fn is_fit(&self, key: &PublicKey, now: Duration) -> bool {
        !self.neighbours.contains_key(key) && !self.dialled.contains(key) && !self.bans.banned(key, now)
    }

    /// Drops a neighbour that broke the rules too often.
    pub(super) fn drop_faulty(&mut self, key: &PublicKey, now: Duration) {
        let Some(neighbour) = self.neighbours.get(key) else { return };
        if self.bans.banned(key, now) {
            // Its link is on its way down.
            return;
        }
        info!(%key, standing = ?neighbour.standing, "a neighbour is dropped");
        neighbour.connection.close(VarInt::from_u32(CLOSE_FAULTY), b"broke the rules");
        self.bans.ban(*key, now);
    }

    /// The addresses to keep, encoded.
    pub(super) fn to_keep(&self) -> Vec<u8> {
        let kept: Vec<NodeAddress> = self.book.all_reached().take(KEPT_MAX).map(NodeAddress::from).collect();
        codec::encode(&kept)
    }
}
