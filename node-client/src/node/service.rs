//! Serving clients over QUIC: one request for each stream, everything bounded.

use std::{future::Future, sync::Arc, time::Duration};

use flash_proto::limits::{BLOCK_BYTES_MAX, NODE_FRAME_BYTES_MAX};
use quinn::{Connection, Incoming, RecvStream, SendStream, VarInt};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use tracing::debug;

use super::{Node, NodeError, rate::clients::Who};
use crate::{
    gossip::Gossip,
    protocol::{BLOCKS_MAX, NodeRequest, NodeResponse, Refused, RefusedCode},
    quic::{
        Endpoint, GOSSIP_ALPN, StreamLimits,
        frames::{FrameError, FrameReader, FrameWriter},
        kind,
    },
};

/// What a node's endpoint allows each client.
pub const STREAM_LIMITS: StreamLimits = StreamLimits { bidirectional: 64 };
/// Clients at once.
const CONNECTIONS_MAX: usize = 256;
/// Requests in work at once, over all clients; the others wait for their turn.
const REQUESTS_MAX: usize = 64;
/// Requests of one client in work at once.
const CLIENT_REQUESTS_MAX: usize = 32;
/// Streams of one client that follow the milestones.
const FOLLOWS_MAX: usize = 4;
/// Milestones read at a time for one that follows: all that is held in memory for it.
const FOLLOWED_PAGE: usize = 16;
/// Bytes of a request: a block and what is around it.
const REQUEST_BYTES_MAX: usize = BLOCK_BYTES_MAX + 1024;
/// How long a handshake, a request's bytes or an answer's may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What all connections share.
#[derive(Clone)]
struct Service {
    node: Node,
    gossip: Option<Gossip>,
    requests: Arc<Semaphore>,
}

/// What the streams of one client share.
#[derive(Clone)]
struct Client {
    service: Service,
    who: Who,
    requests: Arc<Semaphore>,
    follows: Arc<Semaphore>,
}

/// Serves clients at `endpoint`, which listens with [`STREAM_LIMITS`], until `stop` is ready; then closes
/// all connections.
pub async fn serve(node: Node, endpoint: Endpoint, stop: impl Future<Output = ()>) {
    serve_all(node, endpoint, None, stop).await;
}

/// The same, and hands the connections of other nodes to the gossip; `endpoint` accepts both kinds.
pub async fn serve_all(
    node: Node,
    endpoint: Endpoint,
    gossip: Option<Gossip>,
    stop: impl Future<Output = ()>,
) {
    let service = Service { node, gossip, requests: Arc::new(Semaphore::new(REQUESTS_MAX)) };
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            incoming = endpoint.accept() => match incoming {
                Some(incoming) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(service.clone().connection(incoming));
                }
                Some(incoming) => incoming.refuse(),
                None => break,
            },
        }
    }
    connections.shutdown().await;
    endpoint.close().await;
}

impl Service {
    async fn connection(self, incoming: Incoming) {
        let from = incoming.remote_address();
        let Ok(Ok(connection)) = timeout(PATIENCE, incoming).await else {
            debug!(%from, "the handshake failed");
            return;
        };
        if kind(&connection).as_deref() == Some(GOSSIP_ALPN) {
            match self.gossip {
                Some(gossip) => gossip.accept(connection),
                None => connection.close(VarInt::from_u32(0), b"no gossip"),
            }
            return;
        }
        debug!(%from, "a client connected");
        let ended = self.streams(&connection).await;
        debug!(%from, %ended, "a client left");
        connection.close(VarInt::from_u32(0), b"");
    }

    /// Answers streams until the connection ends. QUIC itself bounds how many there are at once.
    async fn streams(&self, connection: &Connection) -> quinn::ConnectionError {
        let client = Client {
            service: self.clone(),
            who: Who::of(connection),
            requests: Arc::new(Semaphore::new(CLIENT_REQUESTS_MAX)),
            follows: Arc::new(Semaphore::new(FOLLOWS_MAX)),
        };
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = streams.join_next() => {}
                accepted = connection.accept_bi() => match accepted {
                    Ok((send, receive)) => {
                        streams.spawn(client.clone().stream(send, receive));
                    }
                    Err(ended) => return ended,
                },
            }
        }
    }
}

impl Client {
    async fn stream(self, send: SendStream, receive: RecvStream) {
        let mut reader = FrameReader::new(receive, REQUEST_BYTES_MAX);
        let mut writer = FrameWriter::new(send, NODE_FRAME_BYTES_MAX);
        let request = timeout(PATIENCE, reader.message::<NodeRequest, REQUEST_BYTES_MAX>()).await;
        let result = match request {
            Ok(Ok(Some(NodeRequest::Follow { after }))) => {
                if let Ok(_permit) = self.follows.try_acquire() {
                    self.follow(&mut writer, after).await
                } else {
                    let reason = format!("at most {FOLLOWS_MAX} streams of one client may follow");
                    respond(&mut writer, refused(RefusedCode::Busy, &reason)).await
                }
            }
            Ok(Ok(Some(request))) => self.request(&mut writer, request).await,
            Ok(Err(error @ (FrameError::Oversized { .. } | FrameError::Empty | FrameError::Codec(_)))) => {
                reader.stop(1);
                respond(&mut writer, refused(RefusedCode::Malformed, &error)).await
            }
            Ok(Ok(None) | Err(_)) | Err(_) => return,
        };
        // What fails here is the client's connection, which the client sees itself.
        if let Err(error) = result.and(finish(writer).await) {
            debug!(%error, "a client was not answered");
        }
    }

    async fn request(&self, writer: &mut FrameWriter, mut request: NodeRequest) -> Result<(), FrameError> {
        let Ok(own) = Arc::clone(&self.requests).acquire_owned().await else { return Ok(()) };
        let Ok(shared) = Arc::clone(&self.service.requests).acquire_owned().await else { return Ok(()) };
        if let NodeRequest::Submit(block) = &request
            && let Err(more) = self.service.node.shared.rates.admit(self.who, block)
        {
            return respond(writer, NodeResponse::Refused(more)).await;
        }
        let refusals = self.admit_all(&mut request);
        // The work goes on when the client has left, and holds its places until it is done; and they are held
        // until the answer is written, so that answers that nobody reads are bounded too.
        let work = move |node: &Node| Ok::<_, NodeError>((node.answer(request), own, shared));
        match self.service.node.blocking(work).await {
            Ok((response, _own, _shared)) => respond(writer, with_refusals(response, refusals)).await,
            Err(error) => respond(writer, refused(RefusedCode::Halted, &error)).await,
        }
    }

    /// Leaves of blocks that are submitted together those that need no more work; of each of them why it does not stay.
    fn admit_all(&self, request: &mut NodeRequest) -> Vec<Option<Refused>> {
        let NodeRequest::SubmitAll(blocks) = request else { return Vec::new() };
        // More are refused altogether.
        if blocks.len() > BLOCKS_MAX {
            return Vec::new();
        }
        let rates = &self.service.node.shared.rates;
        let refusals: Vec<_> = blocks.iter().map(|block| rates.admit(self.who, block).err()).collect();
        let mut stays = refusals.iter().map(Option::is_none);
        blocks.retain(|_| stays.next() == Some(true));
        refusals
    }

    /// Sends every milestone after `after`, and waits for more. A slow client holds up only itself.
    async fn follow(&self, writer: &mut FrameWriter, mut after: u64) -> Result<(), FrameError> {
        let node = &self.service.node;
        let mut newest = node.newest();
        loop {
            newest.mark_unchanged();
            let page = node.blocking(move |node| node.followed_after(after, FOLLOWED_PAGE)).await;
            let page = match page {
                Ok(page) => page,
                Err(error @ NodeError::Pruned { .. }) => {
                    return respond(writer, refused(RefusedCode::Pruned, &error)).await;
                }
                Err(error) => return respond(writer, refused(RefusedCode::Halted, &error)).await,
            };
            if page.is_empty() && newest.changed().await.is_err() {
                return Ok(());
            }
            for followed in page {
                after = followed.milestone.essence.index;
                let response = NodeResponse::Followed(Box::new(followed.as_ref().clone()));
                if let Err(error) = writer.push(&response) {
                    // The ledger's limits keep every milestone within a frame. None may be skipped.
                    return respond(writer, refused(RefusedCode::Busy, &error)).await;
                }
                flush(writer).await?;
            }
        }
    }
}

fn refused(code: RefusedCode, reason: &impl ToString) -> NodeResponse {
    NodeResponse::Refused(Refused::new(code, reason))
}

/// The answer to all that was submitted together: the node's to each block that came to it.
fn with_refusals(response: NodeResponse, refusals: Vec<Option<Refused>>) -> NodeResponse {
    let NodeResponse::SubmittedAll(answers) = response else { return response };
    let mut answers = answers.into_iter();
    let answer = |refused: Option<Refused>| refused.or_else(|| answers.next().flatten());
    NodeResponse::SubmittedAll(refusals.into_iter().map(answer).collect())
}

/// Writes an answer; a client that does not read it in time is given up.
async fn respond(writer: &mut FrameWriter, response: NodeResponse) -> Result<(), FrameError> {
    if let Err(error) = writer.push(&response) {
        writer.push(&refused(RefusedCode::Busy, &format!("the answer is too long: {error}")))?;
    }
    flush(writer).await
}

async fn flush(writer: &mut FrameWriter) -> Result<(), FrameError> {
    timeout(PATIENCE, writer.flush()).await.unwrap_or(Err(FrameError::Finished))
}

async fn finish(writer: FrameWriter) -> Result<(), FrameError> {
    timeout(PATIENCE, writer.finish()).await.unwrap_or(Err(FrameError::Finished))
}
