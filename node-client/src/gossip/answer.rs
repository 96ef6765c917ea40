//! Answering neighbours.

use std::{sync::Arc, time::Duration};

use flash_proto::BlockId;
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use tracing::debug;

use super::{
    message::{IDS_MAX, REPLY_FRAME_BYTES_MAX, REQUEST_BYTES_MAX, Reply, Request},
    neighbours::Deed,
    state::Shared,
};
use crate::{
    node::{Node, NodeError},
    quic::frames::{FrameError, FrameReader, FrameWriter},
};

/// Requests of one neighbour that are worked on at once; the others wait for their turn.
const REQUESTS_MAX: usize = 2;
/// How long a request's bytes, or the neighbour's reading of one frame, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Blocks read from the disk at a time; their bytes are bounded, too.
const PAGE_BLOCKS: usize = 1_024;
/// Bytes of blocks in one frame, beside at most one more block.
const FRAME_BLOCK_BYTES: usize = 128 * 1024;

/// Answers a neighbour's requests until the connection ends. QUIC bounds how many there are at once.
pub(super) async fn all(
    shared: &Arc<Shared>,
    key: flash_proto::PublicKey,
    connection: &Connection,
) -> ConnectionError {
    let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = streams.join_next() => {}
            accepted = connection.accept_bi() => match accepted {
                Ok((send, receive)) => {
                    let (shared, permits) = (Arc::clone(shared), Arc::clone(&permits));
                    streams.spawn(async move {
                        let Ok(_permit) = permits.acquire().await else { return };
                        if let Err(error) = one(&shared.node, send, receive).await {
                            debug!(%key, %error, "a neighbour was not answered");
                            if let Some(deed) = error.1 {
                                shared.count(&key, deed);
                            }
                        }
                    });
                }
                Err(ended) => return ended,
            },
        }
    }
}

/// Why a request was not answered, and what the neighbour is to blame for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unanswered(String, Option<Deed>);

impl From<FrameError> for Unanswered {
    fn from(error: FrameError) -> Self {
        Self(error.to_string(), super::ask::deed_of(&error))
    }
}

impl From<NodeError> for Unanswered {
    fn from(error: NodeError) -> Self {
        Self(error.to_string(), None)
    }
}

async fn one(node: &Node, send: SendStream, receive: RecvStream) -> Result<(), Unanswered> {
    let mut reader = FrameReader::new(receive, REQUEST_BYTES_MAX);
    let request = timeout(PATIENCE, reader.message::<Request, REQUEST_BYTES_MAX>()).await;
    let request = request.map_err(|_| Unanswered("no request came".to_owned(), None))??;
    let Some(request) = request else { return Ok(()) };
    request.check().map_err(|error| Unanswered(error.to_string(), Some(Deed::Malformed)))?;
    let mut frames =
        Frames { writer: FrameWriter::new(send, REPLY_FRAME_BYTES_MAX), blocks: vec![], bytes: 0 };
    match request {
        Request::Want(ids) => wanted(node, ids, &mut frames).await?,
        Request::Sync { after } => confirmed(node, after, &mut frames).await?,
        Request::Waiting => waiting(node, &mut frames).await?,
    }
    frames.finish().await
}

async fn wanted(node: &Node, ids: Vec<BlockId>, frames: &mut Frames) -> Result<(), Unanswered> {
    // As many as a frame can hold whatever their length, so that little is in memory at a time.
    for ids in ids.chunks(8) {
        let ids = ids.to_vec();
        let found = node.blocking(move |node| {
            ids.iter().filter_map(|id| node.block(id).transpose()).collect::<Result<Vec<_>, _>>()
        });
        frames.push_all(found.await?).await?;
    }
    Ok(())
}

async fn confirmed(node: &Node, after: u64, frames: &mut Frames) -> Result<(), Unanswered> {
    let mut place = (after.saturating_add(1), 0_usize);
    loop {
        let (index, after) = place;
        let page = node.blocking(move |node| node.cone(index, after, PAGE_BLOCKS)).await?;
        let Some(page) = page else { return Ok(()) };
        place = if page.more {
            (index, after.saturating_add(page.blocks.len()))
        } else {
            (index.saturating_add(1), 0)
        };
        frames.push_all(page.blocks).await?;
    }
}

async fn waiting(node: &Node, frames: &mut Frames) -> Result<(), Unanswered> {
    let mut after = 0;
    loop {
        let page = node.waiting(after, IDS_MAX);
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = *last;
        frames.send(&Reply::Ids(page.into_iter().map(|(_, id)| id).collect())).await?;
    }
}

/// Collects blocks into frames.
struct Frames {
    writer: FrameWriter,
    blocks: Vec<Vec<u8>>,
    bytes: usize,
}

impl Frames {
    async fn push_all(&mut self, blocks: Vec<Vec<u8>>) -> Result<(), Unanswered> {
        for block in blocks {
            self.bytes = self.bytes.saturating_add(block.len()).saturating_add(8);
            self.blocks.push(block);
            if self.bytes >= FRAME_BLOCK_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Unanswered> {
        self.bytes = 0;
        let blocks = std::mem::take(&mut self.blocks);
        if blocks.is_empty() { Ok(()) } else { self.send(&Reply::Blocks(blocks)).await }
    }

    async fn send(&mut self, reply: &Reply) -> Result<(), Unanswered> {
        let slow = |_| Unanswered("it does not read the answer".to_owned(), None);
        Ok(timeout(PATIENCE, self.writer.send(reply)).await.map_err(slow)??)
    }

    async fn finish(mut self) -> Result<(), Unanswered> {
        self.flush().await?;
        Ok(self.writer.finish().await?)
    }
}
