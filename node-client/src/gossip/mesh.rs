//! Who is a neighbour: dialling, accepting, dropping.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use flash_proto::PublicKey;
use quinn::{Connection, ConnectionError, ReadError, VarInt};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{debug, error};

use super::{
    NEIGHBOURS_MAX, WANTED, intake,
    link::{self, LinkError},
    message::{Live, NodeAddress},
    state::{ACCEPTED_WAITING_MAX, CLOSE_DONE, CLOSE_FULL, Parcel, Shared},
    sync,
};
use crate::{
    node::NodeError,
    quic::{PeerAddress, frames::FrameError},
};

/// How often it is looked whom to dial.
const LOOK: Duration = Duration::from_millis(250);
/// How often it is looked who is of no use, and the addresses are kept, in looks.
const REVIEW_LOOKS: u64 = 40;
/// Nodes that are dialled at once.
const DIALS_MAX: usize = 8;
/// Addresses that are tried out at once.
const TRIALS_MAX: usize = 8;
/// How long a handshake may take.
const DIAL_WAIT: Duration = Duration::from_secs(5);
/// How long after the end of a link its node is dialled again, at least.
const AGAIN: Duration = Duration::from_secs(1);

/// Keeps up the mesh until the node stops or this is dropped.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut accepting: mpsc::Receiver<Connection>,
    parcels: mpsc::Receiver<Parcel>,
    mut claims: mpsc::Receiver<PeerAddress>,
) {
    let mut work: JoinSet<NodeError> = JoinSet::new();
    work.spawn(intake::run(Arc::clone(&shared), parcels));
    work.spawn(sync::run(Arc::clone(&shared)));
    let mut links = JoinSet::new();
    let mut accepted = JoinSet::new();
    let mut trials = JoinSet::new();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0_u64;
    loop {
        tokio::select! {
            Some(ended) = work.join_next() => {
                // The node says why by itself.
                error!(?ended, "the gossip stops with the node");
                break;
            }
            Some(_) = links.join_next() => {}
            Some(_) = accepted.join_next() => {}
            Some(_) = trials.join_next() => {}
            Some(address) = claims.recv(), if trials.len() < TRIALS_MAX => {
                trials.spawn(try_out(Arc::clone(&shared), address));
            }
            Some(connection) = accepting.recv() => {
                if accepted.len() < NEIGHBOURS_MAX.saturating_add(ACCEPTED_WAITING_MAX) {
                    let shared = Arc::clone(&shared);
                    accepted.spawn(async move { link::run(&shared, connection, None).await });
                } else {
                    connection.close(VarInt::from_u32(CLOSE_FULL), b"");
                }
            }
            () = shared.dial.notified() => dial_some(&shared, &mut links),
            _ = looks.tick() => {
                dial_some(&shared, &mut links);
                count = count.wrapping_add(1);
                if count.is_multiple_of(REVIEW_LOOKS) {
                    shared.replace_useless(WANTED);
                }
                keep_addresses(&shared).await;
            }
        }
    }
    shared.close_all();
}

/// Dials as many as are missing.
fn dial_some(shared: &Arc<Shared>, links: &mut JoinSet<()>) {
    let now = shared.now();
    let mut state = shared.state();
    let room = DIALS_MAX.saturating_sub(state.dialled.len());
    let missing = WANTED.saturating_sub(state.neighbours.len()).saturating_sub(state.dialled.len());
    let addresses = state.book.to_dial(now, missing, |key| state.is_fit(key, now), shared.draw());
    for address in addresses.into_iter().take(room) {
        state.dialled.insert(address.key);
        links.spawn(dial(Arc::clone(shared), address));
    }
}

/// Dials a node and keeps it as a neighbour.
async fn dial(shared: Arc<Shared>, address: PeerAddress) {
    let key = address.key;
    if let Some(connection) = connect(&shared, &address).await {
        shared.reached_at(&address);
        let ended = link::run(&shared, connection, Some(address)).await;
        if is_full(&ended) {
            shared.rest(&key);
        } else {
            let until = shared.now().saturating_add(AGAIN);
            shared.state().book.rest(&key, until);
        }
    } else {
        let (now, draw) = (shared.now(), shared.draw());
        shared.state().book.failed(&key, now, draw);
    }
    shared.state().dialled.remove(&key);
}

/// Finds out whether a neighbour is reached where it says.
async fn try_out(shared: Arc<Shared>, address: PeerAddress) {
    if !shared.state().book.is_reached(&address)
        && let Some(connection) = connect(&shared, &address).await
    {
        connection.close(VarInt::from_u32(CLOSE_DONE), b"it is there");
        shared.reached_at(&address);
    }
}

/// Whether one of both has enough neighbours.
fn is_full(ended: &LinkError) -> bool {
    match ended {
        LinkError::NotWanted => true,
        LinkError::Lost(reason) | LinkError::Frame(FrameError::Read(ReadError::ConnectionLost(reason))) => {
            let full = VarInt::from_u32(CLOSE_FULL);
            matches!(reason, ConnectionError::ApplicationClosed(close) if close.error_code == full)
        }
        _ => false,
    }
}

async fn connect(shared: &Shared, address: &PeerAddress) -> Option<Connection> {
    match timeout(DIAL_WAIT, shared.endpoint.dial(address)).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            debug!(%address, %error, "a node cannot be reached");
            None
        }
        Err(_) => {
            debug!(%address, "a node does not answer");
            None
        }
    }
}

impl Shared {
    /// A neighbour says that it is reached there.
    pub(super) fn claims(&self, address: PeerAddress) {
        // One that is not tried out now is not told to others.
        let _ = self.channels.claims.try_send(address);
    }

    /// The machine with that key answered there: others may know.
    fn reached_at(&self, address: &PeerAddress) {
        let mut state = self.state();
        if let Some(neighbour) = state.neighbours.get_mut(&address.key) {
            neighbour.address = Some(address.clone());
        }
        let news = state.book.reached(address);
        state.unkept |= news;
        drop(state);
        if news {
            self.tell_all(&Live::Addresses(vec![NodeAddress::from(address)]), Some(&address.key));
        }
    }

    /// A neighbour tells where others are.
    pub(super) fn told(&self, by: &PublicKey, addresses: &[NodeAddress]) {
        let own = self.endpoint.public_key();
        let mut state = self.state();
        for address in addresses.iter().filter_map(NodeAddress::to_peer).filter(|address| address.key != own)
        {
            state.book.told(address, *by);
        }
        drop(state);
        self.dial.notify_one();
    }

    /// A random number (SplitMix64): fair, not secret.
    pub(super) fn draw(&self) -> u64 {
        let state = self.draws.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Keeps the addresses for the next start, if they changed.
async fn keep_addresses(shared: &Shared) {
    let kept = {
        let mut state = shared.state();
        if !std::mem::take(&mut state.unkept) {
            return;
        }
        state.to_keep()
    };
    // A node that cannot store says so itself.
    let _ = shared.node.blocking(move |node| node.keep_addresses(kept)).await;
}
