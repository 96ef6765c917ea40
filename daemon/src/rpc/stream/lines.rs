//! The lines of a request, each bounded.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Bytes of the longest line.
pub const LINE_BYTES_MAX: usize = 4 * 1024;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A line without its end.
    Whole(&'a [u8]),
    /// A line that was too long, and was read over.
    TooLong,
    /// There are no more.
    End,
}

/// Reads lines. What was read of one is kept if nobody waits for the rest of it any more.
pub(super) struct Lines<R> {
    reader: R,
    /// Never longer than [`LINE_BYTES_MAX`].
    text: Vec<u8>,
    too_long: bool,
    /// Something of this line was read.
    any: bool,
    /// The line was given out.
    done: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) const fn new(reader: R) -> Self {
        Self { reader, text: Vec::new(), too_long: false, any: false, done: false }
    }

    /// The next line.
    ///
    /// # Errors
    /// The reader's.
    pub(super) async fn next(&mut self) -> io::Result<Line<'_>> {
        if std::mem::take(&mut self.done) {
            self.text.clear();
            (self.too_long, self.any) = (false, false);
        }
        loop {
            let available = self.reader.fill_buf().await?;
            let ended = available.is_empty();
            let (part, used, found) = match available.iter().position(|byte| *byte == b'\n') {
                Some(at) => (available.get(..at).unwrap_or_default(), at.saturating_add(1), true),
                None => (available, available.len(), false),
            };
            self.too_long |= self.text.len().saturating_add(part.len()) > LINE_BYTES_MAX;
            if !self.too_long {
                self.text.extend_from_slice(part);
            }
            self.any |= !ended;
            self.reader.consume(used);
            if found || ended {
                self.done = true;
                return Ok(match (self.any, self.too_long) {
                    (false, _) => Line::End,
                    (true, true) => Line::TooLong,
                    (true, false) => Line::Whole(&self.text),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncWriteExt, BufReader};

    use super::*;

    #[tokio::test]
    async fn lines_are_bounded_and_found_however_they_arrive() {
        let long = "x".repeat(LINE_BYTES_MAX);
        let text = format!("1\n\n{long}\n{long}y\n2\r\nlast");
        for capacity in [1, 7, 100_000] {
            let mut lines = Lines::new(BufReader::with_capacity(capacity, text.as_bytes()));
            let mut seen = Vec::new();
            loop {
                match lines.next().await.unwrap() {
                    Line::End => break,
                    Line::TooLong => seen.push("too long".to_owned()),
                    Line::Whole(text) => seen.push(String::from_utf8(text.to_vec()).unwrap()),
                }
            }
            assert_eq!(seen, ["1", "", &long, "too long", "2\r", "last"], "capacity {capacity}");
        }
    }

    #[tokio::test]
    async fn a_line_that_nobody_waits_for_any_more_is_not_lost() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let mut lines = Lines::new(BufReader::new(reader));
        writer.write_all(b"on").await.unwrap();
        assert!(lines.next().now_or_never().is_none());
        writer.write_all(b"e\ntwo\n").await.unwrap();
        assert_eq!(lines.next().await.unwrap(), Line::Whole(b"one"));
        assert_eq!(lines.next().now_or_never().unwrap().unwrap(), Line::Whole(b"two"));
    }
}
