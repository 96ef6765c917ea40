//! Frames on a QUIC stream (P15): a length as `u32`, little-endian, then so many bytes.
//!
//! The length is checked against the limit before anything is allocated for it. Both ends can be used
//! inside `select!`: a call that is dropped halfway loses nothing.

use bincode::{Decode, Encode};
use bytes::{Buf, Bytes, BytesMut};
use flash_proto::codec::{self, CodecError};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use thiserror::Error;

/// Bytes of a frame's length.
const HEADER_BYTES: usize = 4;
/// Bytes taken from the stream at a time: what a reader holds beyond the frame it waits for.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// Why a frame cannot be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than this link allows; nothing was allocated for it.
    #[error("a frame of {got} bytes, but at most {max} are allowed on this link")]
    Oversized {
        /// Bytes it claims or has.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// No message is empty.
    #[error("an empty frame, which no message is")]
    Empty,
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame, after {0} bytes of it")]
    Truncated(usize),
    /// The frame is no message of this link.
    #[error("the frame is no message of this link: {0}")]
    Codec(#[from] CodecError),
    /// The stream or connection was lost while reading.
    #[error("cannot read from the stream: {0}")]
    Read(#[from] ReadError),
    /// The stream or connection was lost while writing.
    #[error("cannot write to the stream: {0}")]
    Write(#[from] WriteError),
    /// The stream was already finished here.
    #[error("the stream is already finished on this side")]
    Finished,
}

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    frame_bytes_max: usize,
    /// Received and not yet returned; less than one whole frame and one chunk.
    buffer: BytesMut,
}

impl FrameReader {
    /// Reads frames of at most so many bytes.
    pub fn new(stream: RecvStream, frame_bytes_max: usize) -> Self {
        Self { stream, frame_bytes_max, buffer: BytesMut::new() }
    }

    /// From now on frames may have so many bytes.
    pub fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// The next frame, or `None` if the peer finished the stream after a whole one.
    ///
    /// # Errors
    /// [`FrameError`]. What follows a bad frame has no meaning: do not read on.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(CHUNK_BYTES_MAX, true).await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(FrameError::Truncated(self.buffer.len())),
            }
        }
    }

    /// A whole frame that is already here, if there is one: lets a caller work through all that came
    /// with the last packets before it waits again.
    ///
    /// # Errors
    /// [`FrameError::Oversized`] or [`FrameError::Empty`].
    pub fn take_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*header)).unwrap_or(usize::MAX);
        check_length(length, self.frame_bytes_max)?;
        if self.buffer.len() < HEADER_BYTES + length {
            // At most what the limit allows, and only once the length was checked.
            self.buffer.reserve(HEADER_BYTES + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// The next frame as a message, or `None` if the peer finished the stream after a whole one.
    ///
    /// # Errors
    /// [`FrameError`]. Do not read on.
    pub async fn message<T: Decode<()>, const LIMIT: usize>(&mut self) -> Result<Option<T>, FrameError> {
        let frame = self.next().await?;
        Ok(frame.map(|frame| codec::decode::<T, LIMIT>(&frame)).transpose()?)
    }

    /// Tells the peer that nothing more is read from this stream.
    pub fn stop(&mut self, code: u32) {
        // An error says only that the stream is already closed.
        let _ = self.stream.stop(VarInt::from_u32(code));
    }
}

/// Writes frames. Frames are collected by `push` and leave together by `flush`: many small messages in
/// one write cost little more than one.
#[derive(Debug)]
pub struct FrameWriter {
    stream: SendStream,
    frame_bytes_max: usize,
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that the stream has taken.
    written: usize,
}

impl FrameWriter {
    /// Writes frames of at most so many bytes.
    pub fn new(stream: SendStream, frame_bytes_max: usize) -> Self {
        Self { stream, frame_bytes_max, buffer: Vec::new(), written: 0 }
    }

    /// Adds the encoding of a message as one frame.
    ///
    /// # Errors
    /// [`FrameError::Oversized`]; the message is then not added.
    pub fn push<T: Encode>(&mut self, message: &T) -> Result<(), FrameError> {
        self.push_with(|buffer| codec::encode_into(message, buffer))
    }

    /// Adds bytes that are already encoded as one frame.
    ///
    /// # Errors
    /// [`FrameError::Oversized`] or [`FrameError::Empty`]; nothing is then added.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        check_length(bytes.len(), self.frame_bytes_max)?;
        self.push_with(|buffer| buffer.extend_from_slice(bytes))
    }

    fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), FrameError> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; HEADER_BYTES]);
        write(&mut self.buffer);
        let length = self.buffer.len().saturating_sub(start + HEADER_BYTES);
        let checked = check_length(length, self.frame_bytes_max);
        let header = self.buffer.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<HEADER_BYTES>);
        match (checked, header, u32::try_from(length)) {
            (Ok(()), Some(header), Ok(length)) => {
                *header = length.to_le_bytes();
                Ok(())
            }
            (checked, ..) => {
                self.buffer.truncate(start);
                checked.and(Err(FrameError::Oversized { got: length, max: self.frame_bytes_max }))
            }
        }
    }

    /// Bytes that wait for [`FrameWriter::flush`]. Who pushes must flush before this grows without bound.
    pub fn waiting(&self) -> usize {
        self.buffer.len().saturating_sub(self.written)
    }

    /// Hands all that was pushed to the connection; waits while the peer's window is full.
    ///
    /// # Errors
    /// [`FrameError::Write`]: the stream is lost.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        while let Some(rest) = self.buffer.get(self.written..).filter(|rest| !rest.is_empty()) {
            self.written += self.stream.write(rest).await?;
        }
        self.buffer.clear();
        self.written = 0;
        Ok(())
    }

    /// Pushes one message and flushes.
    ///
    /// # Errors
    /// [`FrameError`].
    pub async fn send<T: Encode>(&mut self, message: &T) -> Result<(), FrameError> {
        self.push(message)?;
        self.flush().await
    }

    /// Flushes and says that nothing more follows.
    ///
    /// # Errors
    /// [`FrameError`].
    pub async fn finish(mut self) -> Result<(), FrameError> {
        self.flush().await?;
        self.stream.finish().map_err(|_| FrameError::Finished)
    }
}

fn check_length(length: usize, max: usize) -> Result<(), FrameError> {
    match length {
        0 => Err(FrameError::Empty),
        got if got > max => Err(FrameError::Oversized { got, max }),
        _ => Ok(()),
    }
}
