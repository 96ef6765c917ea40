//! One connection to a peer: the greeting, which of two connections stays, and its streams.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use flash_node_client::quic::{PeerAddress, allow_streams, frames, jittered, peer_key};
use flash_proto::{
    ChannelId, PublicKey, Side, limits,
    message::{Hello, OpenProposal, OpenReply, PROTOCOL_VERSION, Refusal, RefusalCode, StreamStart},
};
use quinn::{Connection, VarInt};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use super::{GREETING_MAX, PeerError, STRANGER_IDLE_MAX, STREAMS_BESIDE_CHANNELS, Shared, stream};
use crate::{engine::Looked, metrics::Metrics};

/// Two connections that come up within this time are one attempt from each side.
const SIMULTANEOUS_MAX: Duration = Duration::from_secs(5);
/// Bytes of a peer's messages, over all its channels, that may wait for the engine.
const WAITING_BYTES_MAX: usize = 8 * limits::PEER_FRAME_BYTES_MAX;
/// Negotiations with one peer at a time.
pub(super) const NEGOTIATIONS_MAX: usize = 12;
/// Looks for new channels with a peer are so far apart at least: many may be opened at once.
const LOOKS_APART: Duration = Duration::from_millis(5);
/// Pause before the stream of a channel that ended is opened again, and the longest such pause.
const REOPEN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

type Reader = frames::FrameReader;
type Writer = frames::FrameWriter;

/// What answers the proposals of peers.
pub(crate) trait Proposals: Send + Sync {
    /// Answers one, once the answer is durable.
    fn answer(
        &self,
        peer: PublicKey,
        proposal: OpenProposal,
    ) -> std::pin::Pin<Box<dyn Future<Output = OpenReply> + Send + '_>>;
}

/// A connection that has greeted; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) peer: PublicKey,
    id: u64,
    dialled_here: bool,
    since: Instant,
    /// What of the peer's messages may wait.
    pub(super) waiting: Arc<Semaphore>,
    /// What the metrics have of the bytes and the datagrams that were sent.
    counted: Arc<Mutex<[u64; 2]>>,
}

static LINKS: AtomicU64 = AtomicU64::new(0);

impl Link {
    fn new(connection: Connection, peer: PublicKey, dialled_here: bool) -> Self {
        Self {
            connection,
            peer,
            id: LINKS.fetch_add(1, Ordering::Relaxed),
            dialled_here,
            since: Instant::now(),
            waiting: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
            counted: Arc::default(),
        }
    }

    /// Brings the metrics up to what was sent by now.
    pub(super) fn count_sent(&self, metrics: &Metrics) {
        let sent = self.connection.stats().udp_tx;
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let [bytes, datagrams] = std::mem::replace(&mut *counted, [sent.bytes, sent.datagrams]);
        metrics.peer_bytes_sent.inc_by(sent.bytes.saturating_sub(bytes));
        metrics.peer_datagrams_sent.inc_by(sent.datagrams.saturating_sub(datagrams));
    }

    fn close(&self, reason: &str) {
        self.connection.close(VarInt::from_u32(0), reason.as_bytes());
    }
}

/// Greets whoever connected, and serves it until the connection ends.
pub(super) async fn accepted(shared: Arc<Shared>, connection: Connection, permit: OwnedSemaphorePermit) {
    let Some(peer) = peer_key(&connection) else { return };
    let link = Link::new(connection, peer, false);
    let greeted = tokio::time::timeout(GREETING_MAX, greet_back(&shared, &link)).await;
    drop(permit);
    match greeted {
        Ok(Ok(())) => {
            let stranger = if shared.views.live_with(&peer) == 0 {
                let Ok(place) = Arc::clone(&shared.strangers).try_acquire_owned() else {
                    link.close("too many machines without a channel are connected; try again later");
                    return;
                };
                Some(place)
            } else {
                None
            };
            if install(&shared, &link) {
                run(shared, link, stranger).await;
            }
        }
        Ok(Err(reason)) => {
            tracing::info!(%peer, reason, "refused a connection");
            link.close(&reason);
        }
        Err(_) => link.close("no greeting in time"),
    }
}

/// Connects to a peer and greets it. The connection is served until it ends.
pub(super) async fn dial(shared: &Arc<Shared>, peer: &PeerAddress) -> Result<Link, PeerError> {
    let unreachable = |reason: String| PeerError::Unreachable(format!("cannot reach {peer}: {reason}"));
    let connect = async {
        let connected = shared.endpoint.dial(peer).await;
        let connection = connected.map_err(|error| unreachable(error.to_string()))?;
        let link = Link::new(connection, peer.key, true);
        match greet(shared, &link).await {
            Ok(()) => Ok(link),
            Err(reason) => {
                link.close(&reason);
                Err(PeerError::Refused(reason))
            }
        }
    };
    let link = match tokio::time::timeout(GREETING_MAX, connect).await {
        Ok(link) => link?,
        Err(_) => return Err(unreachable("no answer in time".to_owned())),
    };
    if install(shared, &link) {
        tokio::spawn(run(Arc::clone(shared), link.clone(), None));
        return Ok(link);
    }
    let other = shared.links().get(&peer.key).cloned();
    other.ok_or_else(|| unreachable("the connection was displaced and is gone".to_owned()))
}

fn hello(shared: &Shared) -> Hello {
    Hello { version: PROTOCOL_VERSION, features: 0, network: shared.network }
}

fn check_hello(shared: &Shared, theirs: &Hello) -> Result<(), String> {
    if theirs.version != PROTOCOL_VERSION {
        return Err(format!("protocol version {}, here it is {PROTOCOL_VERSION}", theirs.version));
    }
    if theirs.network != shared.network {
        return Err(format!("network {}, here it is {}", theirs.network, shared.network));
    }
    Ok(())
}

async fn greet(shared: &Shared, link: &Link) -> Result<(), String> {
    let (mut writer, mut reader) = open_stream(link).await?;
    let start = StreamStart::Control(hello(shared));
    writer.send(&start).await.map_err(|error| error.to_string())?;
    let theirs: Hello = next(&mut reader).await?;
    check_hello(shared, &theirs)
}

async fn greet_back(shared: &Shared, link: &Link) -> Result<(), String> {
    let streams = link.connection.accept_bi().await.map_err(|error| error.to_string())?;
    let (mut writer, mut reader) = frame_streams(streams);
    reader.set_frame_bytes_max(limits::START_FRAME_BYTES_MAX);
    let StreamStart::Control(theirs) = next(&mut reader).await? else {
        return Err("the first stream must be the control stream".to_owned());
    };
    writer.send(&hello(shared)).await.map_err(|error| error.to_string())?;
    let _ = writer.finish().await;
    check_hello(shared, &theirs)
}

fn frame_streams((send, receive): (quinn::SendStream, quinn::RecvStream)) -> (Writer, Reader) {
    (Writer::new(send, limits::PEER_FRAME_BYTES_MAX), Reader::new(receive, limits::PEER_FRAME_BYTES_MAX))
}

async fn open_stream(link: &Link) -> Result<(Writer, Reader), String> {
    link.connection.open_bi().await.map(frame_streams).map_err(|error| error.to_string())
}

/// The next frame as a message.
async fn next<T: bincode::Decode<()>>(reader: &mut Reader) -> Result<T, String> {
    let message = reader.message::<T, { limits::PEER_FRAME_BYTES_MAX }>().await;
    message.map_err(|error| error.to_string())?.ok_or_else(|| "the stream ended".to_owned())
}

/// Asks the peer to open a channel.
pub(super) async fn propose(link: &Link, proposal: OpenProposal) -> Result<OpenReply, PeerError> {
    let lost = |reason: String| PeerError::Unreachable(format!("the connection was lost: {reason}"));
    let (mut writer, mut reader) = open_stream(link).await.map_err(lost)?;
    let start = StreamStart::Open(Box::new(proposal));
    writer.send(&start).await.map_err(|error| lost(error.to_string()))?;
    next(&mut reader).await.map_err(lost)
}

/// Whether `new` takes the place of `old`. Both ends come to the same answer.
fn replaces(new: &Link, old: &Link, here: PublicKey) -> bool {
    let simultaneous = old.dialled_here != new.dialled_here && old.since.elapsed() < SIMULTANEOUS_MAX;
    if old.connection.close_reason().is_some() || !simultaneous {
        return true;
    }
    let dialler = if new.dialled_here { here } else { new.peer };
    dialler == here.min(new.peer)
}

/// Makes this the connection to the peer, unless another one stays. False if so; it is closed then.
fn install(shared: &Shared, link: &Link) -> bool {
    let here = shared.endpoint.public_key();
    let displaced = {
        let mut links = shared.links();
        if links.get(&link.peer).is_some_and(|old| !replaces(link, old, here)) {
            drop(links);
            link.close("another connection stays");
            return false;
        }
        links.insert(link.peer, link.clone())
    };
    if let Some(old) = displaced {
        old.close("another connection stays");
    }
    true
}

/// Serves a connection until it ends. Who connected without a channel has the place of a `stranger`.
async fn run(shared: Arc<Shared>, link: Link, stranger: Option<OwnedSemaphorePermit>) {
    shared.link_changed();
    tracing::info!(peer = %link.peer, dialled = link.dialled_here, "connected");
    let mut streams = serve(&shared, &link, stranger).await;
    {
        let mut links = shared.links();
        if links.get(&link.peer).is_some_and(|current| current.id == link.id) {
            links.remove(&link.peer);
        }
    }
    shared.link_changed();
    link.count_sent(&shared.metrics);
    tracing::info!(peer = %link.peer, reason = ?link.connection.close_reason(), "disconnected");
    // Each of them finds that the connection has ended, and tells the engine. Were they dropped instead, the engine
    // would go on to take their channels for connected.
    while streams.join_next().await.is_some() {}
}

/// Serves the connection until it ends; gives back its streams that have not ended yet.
async fn serve(shared: &Arc<Shared>, link: &Link, mut stranger: Option<OwnedSemaphorePermit>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let mut opened: std::collections::HashSet<ChannelId> = std::collections::HashSet::new();
    let (mut added, mut looked) = (shared.views.added(), Looked::default());
    let negotiations = Arc::new(Semaphore::new(NEGOTIATIONS_MAX));
    let mut places = 0;
    let mut idle = std::pin::pin!(tokio::time::sleep(STRANGER_IDLE_MAX));
    let (mut due, mut next_look) = (true, tokio::time::Instant::now());
    loop {
        if due && next_look <= tokio::time::Instant::now() {
            added.mark_unchanged();
            due = false;
            let channels = shared.views.new_with(&link.peer, &mut looked);
            let live = shared.views.live_with(&link.peer);
            next_look = tokio::time::Instant::now() + LOOKS_APART;
            if live > 0 {
                stranger = None;
            }
            if live > places {
                places = live;
                let streams =
                    u32::try_from(places).unwrap_or(u32::MAX).saturating_add(STREAMS_BESIDE_CHANNELS);
                allow_streams(&link.connection, streams);
            }
            for (id, side) in channels {
                if side == Side::A && opened.insert(id) {
                    tasks.spawn(keep_stream(Arc::clone(shared), link.clone(), id));
                }
            }
        }
        tokio::select! {
            streams = link.connection.accept_bi() => {
                let Ok(streams) = streams else { break };
                tasks.spawn(start_stream(Arc::clone(shared), link.clone(), streams, Arc::clone(&negotiations)));
            }
            _ = added.changed(), if !due => due = true,
            () = tokio::time::sleep_until(next_look), if due => {}
            Some(_) = tasks.join_next() => idle.as_mut().reset(tokio::time::Instant::now() + STRANGER_IDLE_MAX),
            () = idle.as_mut(), if stranger.is_some() && tasks.is_empty() => {
                link.close("there is no channel between us");
                break;
            }
            () = shared.stop.stopped() => break,
        }
    }
    tasks
}

/// Party A's part: keeps the channel's stream open while the channel lives.
async fn keep_stream(shared: Arc<Shared>, link: Link, channel: ChannelId) {
    let Ok(mut view) = shared.views.follow(channel) else { return };
    let (mut pause, longest) = REOPEN;
    while view.borrow_and_update().is_live() {
        let Ok((mut writer, reader)) = open_stream(&link).await else { return };
        let started = Instant::now();
        if writer.push(&StreamStart::Channel(channel)).is_err() {
            return;
        }
        stream::run(&shared.engine, &shared.metrics, &link, channel, writer, reader).await;
        if link.connection.close_reason().is_some() {
            return;
        }
        if started.elapsed() > longest {
            (pause, _) = REOPEN;
        }
        let gone = view.wait_for(|view| !view.is_live());
        if tokio::time::timeout(jittered(pause), gone).await.is_ok() {
            return;
        }
        pause = pause.saturating_mul(2).min(longest);
    }
}

/// Which party this side is in a channel with that peer.
fn side_in(shared: &Shared, channel: ChannelId, peer: PublicKey) -> Option<Side> {
    let view = shared.views.get(channel).ok()?;
    (view.info.peer == peer).then_some(view.info.side)
}

/// A stream that the peer opened: its first frame says what for.
async fn start_stream(
    shared: Arc<Shared>,
    link: Link,
    streams: (quinn::SendStream, quinn::RecvStream),
    negotiations: Arc<Semaphore>,
) {
    let (mut writer, mut reader) = frame_streams(streams);
    // Until it is known what a stream is for, it may be one of thousands.
    reader.set_frame_bytes_max(limits::START_FRAME_BYTES_MAX);
    let start = tokio::time::timeout(GREETING_MAX, next::<StreamStart>(&mut reader)).await;
    reader.set_frame_bytes_max(limits::PEER_FRAME_BYTES_MAX);
    let refusal = match start {
        Ok(Ok(StreamStart::Channel(channel))) => match side_in(&shared, channel, link.peer) {
            Some(Side::B) => {
                stream::run(&shared.engine, &shared.metrics, &link, channel, writer, reader).await;
                return;
            }
            Some(Side::A) => Refusal::new(RefusalCode::Misbehaved, "party A opens a channel's stream"),
            None => Refusal::new(RefusalCode::UnknownChannel, "there is no such channel between us"),
        },
        Ok(Ok(StreamStart::Open(proposal))) => {
            let reply = match negotiations.try_acquire() {
                Ok(_permit) => shared.proposals.answer(link.peer, *proposal).await,
                Err(_) => OpenReply::Refuse(Refusal::new(RefusalCode::Busy, "too many proposals at once")),
            };
            if writer.send(&reply).await.is_ok() {
                let _ = writer.finish().await;
            }
            return;
        }
        Ok(Ok(StreamStart::Control(_))) => Refusal::new(RefusalCode::Misbehaved, "a second greeting"),
        Ok(Err(error)) => Refusal::new(RefusalCode::Misbehaved, error),
        Err(_) => Refusal::new(RefusalCode::Busy, "the stream's first frame did not come in time"),
    };
    tracing::warn!(peer = %link.peer, detail = refusal.detail, "refused a stream");
    if refusal.code == RefusalCode::Misbehaved {
        shared.metrics.peers_misbehaved.inc();
    }
    if writer.send(&flash_proto::message::ChannelMessage::Refuse(refusal)).await.is_ok() {
        let _ = writer.finish().await;
    }
    reader.stop(0);
}
