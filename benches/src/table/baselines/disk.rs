//! A small record appended to a file, and synced: what no durable commit can be faster than.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    time::{Duration, Instant},
};

use flashd::failure::Failure;

use crate::table::Done;

/// Bytes of a record.
const RECORD: [u8; 256] = [0x5a; 256];

/// A file that grows.
pub(crate) struct Appender {
    file: File,
    /// Removed last.
    _dir: tempfile::TempDir,
}

impl Appender {
    /// In the temporary directory, where the stores are.
    pub(crate) fn new() -> Done<Self> {
        let dir = tempfile::tempdir().map_err(Failure::new)?;
        let file = OpenOptions::new().create(true).append(true).open(dir.path().join("log"));
        Ok(Self { file: file.map_err(Failure::new)?, _dir: dir })
    }

    /// How long each of so many records took; and the file, for more.
    pub(crate) async fn append(mut self, count: usize) -> Done<(Vec<Duration>, Self)> {
        let appending = move || {
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let started = Instant::now();
                self.file.write_all(&RECORD).and_then(|()| self.file.sync_data()).map_err(Failure::new)?;
                times.push(started.elapsed());
            }
            Ok((times, self))
        };
        tokio::task::spawn_blocking(appending).await.map_err(Failure::new)?
    }
}
