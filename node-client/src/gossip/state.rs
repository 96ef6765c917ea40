//! What all tasks of the gossip share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use flash_proto::{Block, BlockId, PublicKey, codec};
use quinn::{Connection, VarInt};
use tokio::sync::{Notify, broadcast, mpsc};
use tracing::{debug, info};

use super::{
    Filter, GossipConfig, NEIGHBOURS_MAX, NeighbourInfo,
    book::Book,
    intake::Parcel,
    message::{Live, NodeAddress, Reached},
    neighbours::{Bans, Deed, Standing, Use, replaces, useless},
    orphans::Orphans,
    recent::Recent,
};
use crate::{
    node::{
        Node, NodeError,
        rate::{Budget, RateRule},
    },
    quic::{Endpoint, PeerAddress},
};

/// Parcels of neighbours that wait to be taken in.
pub(super) const INTAKE_MAX: usize = 16;
/// Accepted connections that wait for their greeting.
pub(super) const ACCEPTED_WAITING_MAX: usize = 32;
/// Coordinators' messages that a listener may be behind.
pub(super) const FLOODED_MAX: usize = 256;
/// Messages that wait to be sent to one neighbour, beside blocks.
pub(super) const OUTBOX_MAX: usize = 128;
/// Blocks that one neighbour is remembered to have.
const KNOWN_MAX: usize = 8_192;
/// Blocks that are remembered to be here.
const SEEN_MAX: usize = 32_768;
/// Coordinators' messages that are remembered.
const FLOODS_MAX: usize = 4_096;
/// Bytes of the addresses that are kept.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// Addresses that are kept.
const KEPT_MAX: usize = 128;
/// For how long a node that is full or useless is not dialled.
const REST: Duration = Duration::from_secs(60);
/// For how long a neighbour is not asked to catch up with after it had nothing.
const NO_SYNC: Duration = Duration::from_secs(30);
/// Blocks that a neighbour may bring at once without more work: what one milestone can confirm.
const BURST: u64 = 7_000;
/// A neighbour may bring this part of what the milestones can confirm without more work.
const SHARE: u64 = 2;
/// Messages beside blocks that a neighbour may send.
const CHATTER: RateRule = RateRule { per_kilosecond: 50_000, burst: 500 };

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
    pub(super) filter: Arc<Filter>,
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

/// Where tasks get their work.
#[derive(Debug)]
pub(super) struct Channels {
    pub(super) intake: mpsc::Sender<Parcel>,
    /// Connections that other nodes dialled.
    pub(super) accepted: mpsc::Sender<Connection>,
    /// Addresses at which neighbours say that they are reached.
    pub(super) claims: mpsc::Sender<PeerAddress>,
    /// Coordinators' messages.
    pub(super) flooded: broadcast::Sender<Arc<Vec<u8>>>,
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
    floods: Recent,
    /// The next neighbour's number.
    next_number: u64,
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
    dialler: PublicKey,
    pub(super) address: Option<PeerAddress>,
    pub(super) standing: Standing,
    pub(super) newest: u64,
    /// Not asked to catch up with before.
    no_sync_before: Duration,
    /// Blocks that it has.
    pub(super) known: Recent,
    pub(super) budget: Budget,
    chatter: Budget,
    outbox: mpsc::Sender<Live>,
    since: Duration,
    /// Blocks whose absence here would show that something was missed; empty: something was.
    pub(super) doubt: Option<Vec<BlockId>>,
    pub(super) doubted: Arc<Notify>,
}

/// A neighbour that was greeted.
pub(super) struct Greeted {
    pub(super) connection: Connection,
    pub(super) key: PublicKey,
    pub(super) inbound: bool,
    pub(super) address: Option<PeerAddress>,
    pub(super) newest: u64,
}

/// What its task needs to know of a new neighbour.
pub(super) struct Admitted {
    pub(super) number: u64,
    pub(super) outbox: mpsc::Receiver<Live>,
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
            filter: config.filter,
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

    /// Takes a greeted node as a neighbour; `None` if it is not wanted.
    pub(super) fn admit(&self, greeted: Greeted) -> Option<Admitted> {
        let Greeted { connection, key, inbound, address, newest } = greeted;
        let (own, now) = (self.endpoint.public_key(), self.now());
        let dialler = if inbound { key } else { own };
        let mut state = self.state();
        if state.bans.banned(&key, now) || key == own {
            return None;
        }
        match state.neighbours.get(&key) {
            Some(old) if !replaces(old.dialler, dialler) => return None,
            Some(old) => old.connection.close(VarInt::from_u32(CLOSE_DONE), b"another link"),
            None if state.neighbours.len() >= NEIGHBOURS_MAX => return None,
            None => info!(%key, inbound, newest, "a new neighbour"),
        }
        let number = state.next_number;
        state.next_number = number.wrapping_add(1);
        let (sender, outbox) = mpsc::channel(OUTBOX_MAX);
        let doubted = Arc::new(Notify::new());
        let neighbour = Neighbour {
            number,
            connection,
            inbound,
            dialler,
            address,
            standing: Standing::new(now),
            newest,
            no_sync_before: Duration::ZERO,
            known: Recent::new(KNOWN_MAX),
            budget: Budget::default(),
            chatter: Budget::default(),
            outbox: sender,
            since: now,
            doubt: None,
            doubted: Arc::clone(&doubted),
        };
        state.neighbours.insert(key, neighbour);
        state.dialled.remove(&key);
        drop(state);
        self.ahead.notify_one();
        Some(Admitted { number, outbox, doubted })
    }

    /// A neighbour's link has ended.
    pub(super) fn part(&self, key: &PublicKey, number: u64) {
        let mut state = self.state();
        if state.neighbours.get(key).is_some_and(|neighbour| neighbour.number == number) {
            state.neighbours.remove(key);
            self.orphans().forget(key);
            info!(%key, "a neighbour has gone");
        }
        drop(state);
        self.dial.notify_one();
    }

    /// Counts what a neighbour did, and drops it if that was too much.
    pub(super) fn count(&self, key: &PublicKey, deed: Deed) {
        let now = self.now();
        let mut state = self.state();
        let Some(neighbour) = state.neighbours.get_mut(key) else { return };
        if neighbour.standing.count(deed, now) {
            state.drop_faulty(key, now);
        } else if deed != Deed::NewBlock {
            debug!(%key, ?deed, "a neighbour's fault");
        }
    }

    /// Whether a neighbour may say something beside blocks; counts it.
    pub(super) fn may_chat(&self, key: &PublicKey) -> bool {
        let now = self.now();
        let mut state = self.state();
        let Some(neighbour) = state.neighbours.get_mut(key) else { return false };
        let quiet = neighbour.chatter.extra_bits(CHATTER, now) == 0;
        if quiet {
            neighbour.chatter.spend(0);
        }
        drop(state);
        if !quiet {
            self.count(key, Deed::Worthless);
        }
        quiet
    }

    /// A neighbour says that it has applied a milestone.
    pub(super) fn is_at(&self, key: &PublicKey, newest: u64) {
        if let Some(neighbour) = self.state().neighbours.get_mut(key) {
            neighbour.newest = newest;
        }
        self.ahead.notify_one();
    }

    /// A neighbour sent something of that milestone.
    pub(super) fn is_at_least(&self, key: &PublicKey, index: u64) {
        if let Some(neighbour) = self.state().neighbours.get_mut(key) {
            neighbour.newest = neighbour.newest.max(index);
        }
        self.ahead.notify_one();
    }

    /// All neighbours, the best first.
    pub(super) fn best_connections(&self) -> Vec<(PublicKey, Connection)> {
        let state = self.state();
        let mut all: Vec<_> = state.neighbours.iter().collect();
        all.sort_by_key(|(_, neighbour)| std::cmp::Reverse(neighbour.standing.score));
        all.into_iter().map(|(key, neighbour)| (*key, neighbour.connection.clone())).collect()
    }

    /// The neighbour that is the furthest ahead of a milestone, and where it is.
    pub(super) fn furthest(&self, ours: u64) -> Option<(PublicKey, Connection, u64)> {
        let now = self.now();
        let state = self.state();
        let ahead = state
            .neighbours
            .iter()
            .filter(|(_, neighbour)| neighbour.newest > ours && neighbour.no_sync_before <= now);
        let best = ahead.max_by_key(|(_, neighbour)| (neighbour.newest, neighbour.standing.score));
        best.map(|(key, neighbour)| (*key, neighbour.connection.clone(), neighbour.newest))
    }

    /// A neighbour had nothing to catch up with.
    pub(super) fn no_sync(&self, key: &PublicKey) {
        let until = self.now().saturating_add(NO_SYNC);
        if let Some(neighbour) = self.state().neighbours.get_mut(key) {
            neighbour.no_sync_before = until;
        }
    }

    /// Something may be missed that a neighbour has: not if all of `signs` are here; surely if there are none.
    pub(super) fn doubt(&self, key: &PublicKey, signs: Vec<BlockId>) {
        if let Some(neighbour) = self.state().neighbours.get_mut(key) {
            if !neighbour.doubt.as_ref().is_some_and(Vec::is_empty) {
                neighbour.doubt = Some(signs);
            }
            neighbour.doubted.notify_one();
        }
    }

    /// Whether a coordinator's message is new.
    pub(super) fn remember_flooded(&self, message: &[u8]) -> bool {
        // The hash that names blocks is as good as any.
        self.state().floods.insert(Block::id_of(message).as_bytes())
    }

    /// Sends a message to all neighbours but one. One that does not keep up misses it.
    pub(super) fn tell_all(&self, message: &Live, but: Option<&PublicKey>) {
        for (key, neighbour) in &self.state().neighbours {
            if Some(key) != but {
                let _ = neighbour.outbox.try_send(message.clone());
            }
        }
    }

    pub(super) fn add(&self, address: PeerAddress) {
        if address.key == self.endpoint.public_key() {
            return;
        }
        let mut state = self.state();
        state.bans.lift(&address.key);
        state.book.add_by_hand(address);
        drop(state);
        self.dial.notify_one();
    }

    pub(super) fn remove(&self, key: &PublicKey) -> bool {
        let now = self.now();
        let mut state = self.state();
        let known = state.book.forget(key);
        state.bans.ban(*key, now);
        let neighbour = state.neighbours.get(key);
        if let Some(neighbour) = neighbour {
            neighbour.connection.close(VarInt::from_u32(CLOSE_DONE), b"removed");
        }
        known || neighbour.is_some()
    }

    /// Parts with the neighbour that is of no use, if there is one and somebody else to try.
    pub(super) fn replace_useless(&self, wanted: usize) {
        let (now, ours) = (self.now(), self.newest());
        let mut state = self.state();
        if state.neighbours.len() < wanted {
            return;
        }
        let uses: Vec<Use> = state.neighbours.iter().map(|(key, neighbour)| neighbour.use_of(*key)).collect();
        let fit = |key: &PublicKey| state.is_fit(key, now);
        if !state.book.to_dial(now, 1, fit, 0).is_empty()
            && let Some(key) = useless(&uses, ours, now)
            && let Some(neighbour) = state.neighbours.get(&key)
        {
            info!(%key, "a neighbour of no use makes room for another");
            neighbour.connection.close(VarInt::from_u32(CLOSE_FULL), b"of no use");
            state.book.rest(&key, now.saturating_add(REST));
        }
    }

    /// The dialled node has enough neighbours.
    pub(super) fn rest(&self, key: &PublicKey) {
        let until = self.now().saturating_add(REST);
        self.state().book.rest(key, until);
    }

    pub(super) fn neighbours(&self) -> Vec<NeighbourInfo> {
        let now = self.now();
        self.state().neighbours.iter().map(|(key, neighbour)| neighbour.info(*key, now)).collect()
    }

    pub(super) fn close_all(&self) {
        for neighbour in self.state().neighbours.values() {
            neighbour.connection.close(VarInt::from_u32(CLOSE_DONE), b"");
        }
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

impl Neighbour {
    fn use_of(&self, key: PublicKey) -> Use {
        Use { key, standing: self.standing, newest: self.newest, since: self.since }
    }

    fn info(&self, key: PublicKey, now: Duration) -> NeighbourInfo {
        NeighbourInfo {
            key,
            address: self.address.clone(),
            inbound: self.inbound,
            score: self.standing.score,
            newest_milestone: self.newest,
            received_blocks: self.standing.received,
            new_blocks: self.standing.new,
            invalid_blocks: self.standing.invalid,
            dropped_blocks: self.standing.over_budget,
            connected_seconds: now.saturating_sub(self.since).as_secs(),
        }
    }
}
