//! The neighbours: who comes and goes, and what each has done.

use std::{sync::Arc, time::Duration};

use flash_proto::{Block, BlockId, PublicKey};
use quinn::{Connection, VarInt};
use tokio::sync::{Notify, mpsc};
use tracing::{debug, info};

use super::{
    NEIGHBOURS_MAX, NeighbourInfo,
    message::Live,
    neighbours::{Deed, Standing, Use, replaces, useless},
    recent::Recent,
    state::{CLOSE_DONE, CLOSE_FULL, Neighbour, OUTBOX_MAX, Shared},
};
use crate::{
    node::rate::{Budget, RateRule},
    quic::PeerAddress,
};

/// Blocks that one neighbour is remembered to have.
const KNOWN_MAX: usize = 8_192;
/// For how long a node that is full or useless is not dialled.
const REST: Duration = Duration::from_secs(60);
/// For how long a neighbour is not asked to catch up with after it had nothing.
const NO_SYNC: Duration = Duration::from_secs(30);
/// Messages beside blocks that a neighbour may send.
const CHATTER: RateRule = RateRule { per_kilosecond: 1_000_000, burst: 5_000 };

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

impl Shared {
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
            sent: Recent::new(KNOWN_MAX),
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
            neighbour.chatter.spend(0, 1);
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
