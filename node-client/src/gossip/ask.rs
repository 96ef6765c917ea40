//! Asking a neighbour, on a stream of its own.

use std::{collections::HashSet, time::Duration};

use flash_proto::{Block, BlockId, PublicKey, codec::CodecError};
use quinn::{Connection, ConnectionError};
use thiserror::Error;
use tokio::time::timeout;

use super::{
    message::{REPLY_FRAME_BYTES_MAX, REQUEST_BYTES_MAX, Reply, Request, TooMuch},
    neighbours::Deed,
    state::{Parcel, Shared},
};
use crate::{
    node::Source,
    quic::frames::{FrameError, FrameReader, FrameWriter},
};

/// How long a neighbour may take for each frame of an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum AskError {
    #[error("the link is lost: {0}")]
    Lost(#[from] ConnectionError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the answer is not allowed: {0}")]
    TooMuch(#[from] TooMuch),
    #[error("the answer is to something else")]
    Unexpected,
    #[error("no answer within {ANSWER_WAIT:?}")]
    Late,
}

impl AskError {
    /// What the neighbour is to blame for.
    pub(super) const fn deed(&self) -> Option<Deed> {
        match self {
            Self::Lost(_) => None,
            Self::Frame(error) => deed_of(error),
            Self::TooMuch(_) | Self::Unexpected => Some(Deed::Malformed),
            Self::Late => Some(Deed::Unanswered),
        }
    }
}

/// What a neighbour is to blame for if its frames cannot be read.
pub(super) const fn deed_of(error: &FrameError) -> Option<Deed> {
    match error {
        FrameError::Oversized { .. }
        | FrameError::Empty
        | FrameError::Truncated(_)
        | FrameError::Codec(
            CodecError::TooLong { .. } | CodecError::Malformed(_) | CodecError::Trailing(_),
        ) => Some(Deed::Malformed),
        _ => None,
    }
}

/// An answer as it comes.
#[derive(Debug)]
pub(super) struct Answer(FrameReader);

impl Answer {
    /// Asks.
    pub(super) async fn to(connection: &Connection, request: &Request) -> Result<Self, AskError> {
        let sending = async {
            let (send, receive) = connection.open_bi().await?;
            let mut writer = FrameWriter::new(send, REQUEST_BYTES_MAX);
            writer.push(request)?;
            writer.finish().await?;
            Ok(Self(FrameReader::new(receive, REPLY_FRAME_BYTES_MAX)))
        };
        timeout(ANSWER_WAIT, sending).await.unwrap_or(Err(AskError::Late))
    }

    /// The answer's next frame of blocks; `None` if it is over.
    pub(super) async fn blocks(&mut self) -> Result<Option<Vec<Vec<u8>>>, AskError> {
        match self.frame().await? {
            None => Ok(None),
            Some(Reply::Blocks(blocks)) => Ok(Some(blocks)),
            Some(Reply::Ids(_)) => Err(AskError::Unexpected),
        }
    }

    /// The answer's next frame of ids; `None` if it is over.
    pub(super) async fn ids(&mut self) -> Result<Option<Vec<BlockId>>, AskError> {
        match self.frame().await? {
            None => Ok(None),
            Some(Reply::Ids(ids)) => Ok(Some(ids)),
            Some(Reply::Blocks(_)) => Err(AskError::Unexpected),
        }
    }

    async fn frame(&mut self) -> Result<Option<Reply>, AskError> {
        let frame = self.0.message::<Reply, REPLY_FRAME_BYTES_MAX>();
        let reply = timeout(ANSWER_WAIT, frame).await.map_err(|_| AskError::Late)??;
        if let Some(reply) = &reply {
            reply.check()?;
        }
        Ok(reply)
    }
}

/// Asks for blocks and hands them to the intake; returns those that were not sent.
pub(super) async fn want(
    shared: &Shared,
    key: PublicKey,
    connection: &Connection,
    ids: Vec<BlockId>,
    source: Source,
) -> Result<HashSet<BlockId>, AskError> {
    let mut open: HashSet<BlockId> = ids.iter().copied().collect();
    let mut answer = Answer::to(connection, &Request::Want(ids)).await?;
    while let Some(blocks) = answer.blocks().await? {
        let blocks: Vec<_> = blocks.into_iter().map(|bytes| (Block::id_of(&bytes), bytes)).collect();
        if blocks.iter().any(|(id, _)| !open.remove(id)) {
            return Err(AskError::Unexpected);
        }
        shared.received(&key, &blocks, source);
        // The intake ends only with the whole gossip.
        let _ = shared.channels.intake.send(Parcel { from: key, blocks, source }).await;
    }
    Ok(open)
}
