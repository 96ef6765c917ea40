//! One neighbour: the greeting, and what is new in both directions.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use flash_proto::{BlockId, PublicKey};
use quinn::{Connection, VarInt};
use thiserror::Error;
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc, watch,
    },
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::debug;

use super::{
    answer,
    ask::deed_of,
    message::{
        ADDRESSES_MAX, GOSSIP_VERSION, Hello, LIVE_FRAME_BYTES_MAX, Live, NodeAddress, Reached, TIPS_MAX,
        TooMuch,
    },
    neighbours::Deed,
    relay::Verdict,
    roster::{Admitted, Greeted},
    state::{CLOSE_DONE, CLOSE_FULL, Parcel, Shared},
    sync,
};
use crate::{
    node::{Arrival, Source},
    quic::{
        PeerAddress,
        frames::{FrameError, FrameReader, FrameWriter},
        peer_key,
    },
};

/// How long a greeting, or a neighbour's reading of one frame, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often neighbours compare their tips.
const COMPARE: Duration = Duration::from_secs(10);
/// Requests that a neighbour may have open at once.
const REQUESTS_MAX: u32 = 16;
/// Bytes that a neighbour may have sent and that were not read yet.
const WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Bytes of blocks in one frame, beside at most one more block.
const FRAME_BLOCK_BYTES: usize = 24 * 1024;

/// Why a link ended.
#[derive(Debug, Error)]
pub(super) enum LinkError {
    #[error("no connection: {0}")]
    Lost(#[from] quinn::ConnectionError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("a message that is not allowed: {0}")]
    TooMuch(#[from] TooMuch),
    #[error("it did not greet, or not read, within {PATIENCE:?}")]
    Slow,
    #[error("it is of another network, or speaks another version")]
    Foreign,
    #[error("it is not wanted as a neighbour, or has enough of them")]
    NotWanted,
    #[error("it ended the link")]
    Ended,
    #[error("the node has stopped")]
    Stopped,
}

/// Keeps a neighbour until the link ends. `address` is where it was dialled; `None` if it dialled this node.
pub(super) async fn run(
    shared: &Arc<Shared>,
    connection: Connection,
    address: Option<PeerAddress>,
) -> LinkError {
    let ended = keep(shared, &connection, address).await;
    debug!(from = %connection.remote_address(), %ended, "a link ended");
    let code = if matches!(ended, LinkError::NotWanted) { CLOSE_FULL } else { CLOSE_DONE };
    connection.close(VarInt::from_u32(code), b"");
    ended
}

async fn keep(shared: &Arc<Shared>, connection: &Connection, address: Option<PeerAddress>) -> LinkError {
    let Some(key) = peer_key(connection) else { return LinkError::Foreign };
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(REQUESTS_MAX));
    connection.set_receive_window(VarInt::from_u32(WINDOW_BYTES));
    let greeted = timeout(PATIENCE, greet(shared, connection, address.is_none())).await;
    let (mut reader, mut writer, hello) = match greeted.unwrap_or(Err(LinkError::Slow)) {
        Ok(greeted) => greeted,
        Err(error) => return error,
    };
    let inbound = address.is_none();
    let claimed = claimed_address(key, connection.remote_address(), &hello.reached);
    let newest = hello.newest;
    let address =
        address.or_else(|| claimed.clone().filter(|claimed| shared.state().book.is_reached(claimed)));
    // From before it is a neighbour on, so that nothing is missed that comes in just then.
    let news = (shared.node.arrivals(), shared.node.newest());
    let greeted = Greeted { connection: connection.clone(), key, inbound, address, newest };
    let Some(Admitted { number, outbox, doubted }) = shared.admit(greeted) else {
        return farewell(shared, key, &mut writer, connection).await;
    };
    if let Some(claimed) = claimed.filter(|_| inbound) {
        shared.claims(claimed);
    }
    let ended = tokio::select! {
        ended = read(shared, key, &mut reader) => {
            if let LinkError::Frame(error) = &ended
                && let Some(deed) = deed_of(error)
            {
                shared.count(&key, deed);
            }
            ended
        }
        ended = write(shared, key, &mut writer, outbox, news) => ended,
        ended = answer::all(shared, key, connection) => ended.into(),
        _ = sync::make_good(shared, key, connection, &doubted) => LinkError::Ended,
    };
    shared.part(&key, number);
    ended
}

/// Both say who they are.
async fn greet(
    shared: &Shared,
    connection: &Connection,
    inbound: bool,
) -> Result<(FrameReader, FrameWriter, Hello), LinkError> {
    let network = shared.node.params().id();
    let (send, receive) = if inbound { connection.accept_bi().await? } else { connection.open_bi().await? };
    let mut reader = FrameReader::new(receive, LIVE_FRAME_BYTES_MAX);
    let mut writer = FrameWriter::new(send, LIVE_FRAME_BYTES_MAX);
    let own = Hello {
        version: GOSSIP_VERSION,
        features: 0,
        network,
        newest: shared.newest(),
        reached: shared.reached.clone(),
    };
    writer.send(&own).await?;
    let hello: Hello = reader.message::<Hello, LIVE_FRAME_BYTES_MAX>().await?.ok_or(LinkError::Ended)?;
    if hello.network != network || hello.version != GOSSIP_VERSION {
        return Err(LinkError::Foreign);
    }
    Ok((reader, writer, hello))
}

/// Where a node says that it is reached.
fn claimed_address(key: PublicKey, seen: SocketAddr, reached: &Reached) -> Option<PeerAddress> {
    match reached {
        Reached::Nowhere => None,
        Reached::Port(port) => PeerAddress::new(key, seen.ip().to_canonical().to_string(), *port).ok(),
        Reached::Host(host, port) => PeerAddress::new(key, host.clone(), *port).ok(),
    }
}

/// Tells a node that cannot be a neighbour of others, and waits until it has read that.
async fn farewell(
    shared: &Shared,
    key: PublicKey,
    writer: &mut FrameWriter,
    connection: &Connection,
) -> LinkError {
    let now = shared.now();
    if !shared.state().bans.banned(&key, now) {
        let addresses = shared.sample(&key);
        let told = async {
            writer.send(&Live::Addresses(addresses)).await?;
            writer.send(&Live::Newest(shared.newest())).await
        };
        // The other end closes once it has read that; a slow one is not waited for.
        let _ = timeout(PATIENCE / 10, async { (told.await, connection.closed().await) }).await;
    }
    LinkError::NotWanted
}

/// Takes what a neighbour tells.
async fn read(shared: &Arc<Shared>, key: PublicKey, reader: &mut FrameReader) -> LinkError {
    loop {
        let message = match reader.message::<Live, LIVE_FRAME_BYTES_MAX>().await {
            Ok(Some(message)) => message,
            Ok(None) => return LinkError::Ended,
            Err(error) => return error.into(),
        };
        if let Err(error) = message.check() {
            shared.count(&key, Deed::Malformed);
            return error.into();
        }
        match message {
            Live::Blocks(blocks) => {
                let blocks = shared.worth_taking(&key, blocks);
                let parcel = Parcel { from: key, blocks, source: Source::Sent };
                if !parcel.blocks.is_empty() && shared.channels.intake.send(parcel).await.is_err() {
                    return LinkError::Stopped;
                }
            }
            _ if !shared.may_chat(&key) => {}
            Live::Newest(newest) => shared.is_at(&key, newest),
            Live::Tips(tips) if tips.is_empty() => {}
            Live::Tips(tips) => shared.doubt(&key, tips),
            Live::Addresses(addresses) => shared.told(&key, &addresses),
            Live::Coordinator(message) => {
                if !shared.remember_flooded(&message) {
                    continue;
                }
                match shared.relay.judge(&message) {
                    Verdict::News => shared.tell_all(&Live::Coordinator(message), Some(&key)),
                    Verdict::Stale => {}
                    Verdict::Bad => shared.count(&key, Deed::Worthless),
                }
            }
        }
    }
}

/// Tells a neighbour what is new.
async fn write(
    shared: &Shared,
    key: PublicKey,
    writer: &mut FrameWriter,
    mut outbox: mpsc::Receiver<Live>,
    (mut arrivals, mut newest): (broadcast::Receiver<Arc<Arrival>>, watch::Receiver<u64>),
) -> LinkError {
    // The first tick is at once.
    let mut compare = interval(COMPARE);
    compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = Some(Live::Addresses(shared.sample(&key)));
    for message in shared.relay.held() {
        if let Err(error) = send(writer, &Live::Coordinator(message)).await {
            return error;
        }
    }
    loop {
        if let Some(message) = next.take()
            && let Err(error) = send(writer, &message).await
        {
            return error;
        }
        next = tokio::select! {
            biased;
            message = outbox.recv() => match message {
                Some(message) => Some(message),
                None => return LinkError::Ended,
            },
            changed = newest.changed() => match changed {
                Ok(()) => Some(Live::Newest(*newest.borrow_and_update())),
                Err(_) => return LinkError::Stopped,
            },
            _ = compare.tick() => Some(Live::Tips(shared.node.tips(TIPS_MAX))),
            arrival = arrivals.recv() => match arrival {
                Ok(arrival) => {
                    let more = std::iter::from_fn(|| arrivals.try_recv().ok());
                    shared.unknown_to(&key, std::iter::once(arrival).chain(more))
                }
                // What it misses now it finds out by the tips.
                Err(RecvError::Lagged(_)) => Some(Live::Tips(shared.node.tips(TIPS_MAX))),
                Err(RecvError::Closed) => return LinkError::Stopped,
            },
        };
    }
}

async fn send(writer: &mut FrameWriter, message: &Live) -> Result<(), LinkError> {
    Ok(timeout(PATIENCE, writer.send(message)).await.map_err(|_| LinkError::Slow)??)
}

impl Shared {
    /// The first frame of those blocks that a neighbour does not have.
    fn unknown_to(&self, key: &PublicKey, arrivals: impl Iterator<Item = Arc<Arrival>>) -> Option<Live> {
        let (mut blocks, mut bytes) = (Vec::new(), 0_usize);
        for arrival in arrivals {
            let id: &BlockId = &arrival.id;
            let mut state = self.state();
            let old = state.old.contains(id.as_bytes());
            let Some(neighbour) = state.neighbours.get_mut(key) else { break };
            if !old && neighbour.known.insert(id.as_bytes()) {
                bytes = bytes.saturating_add(arrival.bytes.len()).saturating_add(8);
                blocks.push(arrival.bytes.clone());
            }
            if bytes >= FRAME_BLOCK_BYTES {
                break;
            }
        }
        (!blocks.is_empty()).then_some(Live::Blocks(blocks))
    }

    /// Addresses for a neighbour.
    fn sample(&self, key: &PublicKey) -> Vec<NodeAddress> {
        let sample = self.state().book.sample(ADDRESSES_MAX, self.draw());
        sample.iter().filter(|address| address.key != *key).map(NodeAddress::from).collect()
    }
}
