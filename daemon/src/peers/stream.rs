//! One channel's stream: what the peer says goes to the engine, what the engine says goes to the peer.

use std::{sync::Arc, time::Duration};

use flash_node_client::quic::frames::{FrameReader, FrameWriter};
use flash_proto::{
    ChannelId, codec, limits,
    message::{ChannelMessage, Refusal, RefusalCode},
};
use tokio::sync::oneshot;

use super::connection::Link;
use crate::{
    engine::{Engine, Outbox, Waiting},
    metrics::Metrics,
};

/// Bytes that are collected before they are handed to the connection at once.
const WRITE_BYTES: usize = 256 * 1024;

/// What was said before a stream ends may take so long to go out.
const LAST_WORDS_MAX: Duration = Duration::from_secs(5);

/// Runs until either end closes the stream or the engine ends it.
pub(super) async fn run(
    engine: &Engine,
    metrics: &Metrics,
    link: &Link,
    channel: ChannelId,
    writer: FrameWriter,
    mut reader: FrameReader,
) {
    let (outbox, waiting, closed) = Outbox::new();
    let Ok(number) = engine.linked(channel, outbox).await else { return };
    let (refuse, refused) = oneshot::channel();
    let mut output = std::pin::pin!(write(writer, waiting, refused, metrics));
    tokio::select! {
        refusal = read(engine, link, channel, number, &mut reader) => {
            if let Some(refusal) = refusal {
                tracing::warn!(%channel, peer = %link.peer, detail = refusal.detail, "the stream ends");
                let _ = refuse.send(refusal);
            }
            // The engine lets go of the stream, so that what was said before still goes out, and it ends.
            engine.unlinked(channel, number).await;
            let _ = tokio::time::timeout(LAST_WORDS_MAX, output).await;
        }
        () = &mut output => engine.unlinked(channel, number).await,
        // Another stream took its place, or the peer read too slowly.
        () = closed.cancelled() => engine.unlinked(channel, number).await,
    }
    reader.stop(0);
}

/// Reads until the stream ends. What it gives back the peer is to be told.
async fn read(
    engine: &Engine,
    link: &Link,
    channel: ChannelId,
    number: u64,
    reader: &mut FrameReader,
) -> Option<Refusal> {
    let misbehaved = |error: String| Some(Refusal::new(RefusalCode::Misbehaved, error));
    loop {
        let frame = match reader.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return None,
            Err(error) => return misbehaved(error.to_string()),
        };
        let bytes = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        // Never closed.
        let room = Arc::clone(&link.waiting).acquire_many_owned(bytes).await.ok()?;
        let Ok(place) = engine.place().await else { return None };
        let message = match codec::decode::<ChannelMessage, { limits::PEER_FRAME_BYTES_MAX }>(&frame) {
            Ok(message) => message,
            Err(error) => return misbehaved(error.to_string()),
        };
        place.message(channel, number, message, room);
    }
}

/// Writes what waits, many messages at a time, until the engine lets go of the stream; then the refusal,
/// if there is one.
async fn write(
    mut writer: FrameWriter,
    mut waiting: Waiting,
    mut refused: oneshot::Receiver<Refusal>,
    metrics: &Metrics,
) {
    while let Some(message) = waiting.recv().await {
        if writer.push(message.as_ref()).is_err() {
            return;
        }
        while writer.waiting() < WRITE_BYTES {
            let Ok(message) = waiting.try_recv() else { break };
            if writer.push(message.as_ref()).is_err() {
                return;
            }
        }
        metrics.channel_bytes_sent.inc_by(u64::try_from(writer.waiting()).unwrap_or(u64::MAX));
        if writer.flush().await.is_err() {
            return;
        }
    }
    if let Ok(refusal) = refused.try_recv() {
        let _ = writer.push(&ChannelMessage::Refuse(refusal));
    }
    let _ = writer.finish().await;
}
