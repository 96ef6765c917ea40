//! The machine that is measured.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::latency::Latency;
use crate::{datadir::DataDirError, failure::Failure};

/// Bytes of a write that is synced.
const WRITE: [u8; 4096] = [0x5a; 4096];
/// Places in the file that are written in turn.
const PLACES: u64 = 256;
/// Writes, unless they take too long.
const WRITES_MAX: usize = 500;
const WRITING_MAX: Duration = Duration::from_secs(2);

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores that can be used.
    pub cores: usize,
    /// `release`, or `debug`, of which the numbers say little.
    pub build: &'static str,
    /// Version of the software.
    pub version: &'static str,
}

/// Describes this machine.
pub fn describe() -> Machine {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Machine {
        cpu: name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned()),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        build: if cfg!(debug_assertions) { "debug" } else { "release" },
        version: env!("CARGO_PKG_VERSION"),
    }
}

/// How long it takes until 4 KiB are on the disk that holds `dir`: what no durable payment can be faster
/// than.
///
/// # Errors
/// [`Failure`].
pub fn disk_sync(dir: &Path) -> Result<Latency, Failure> {
    let path = dir.join("sync-test");
    let error = DataDirError::io(&path);
    let measured = times(&path).map_err(error)?;
    // It is only in the way.
    let _ = fs::remove_file(&path);
    Ok(Latency::of(measured))
}

fn times(path: &Path) -> std::io::Result<Vec<u32>> {
    let mut file = File::create(path)?;
    for _ in 0..PLACES {
        file.write_all(&WRITE)?;
    }
    file.sync_all()?;
    let began = Instant::now();
    let mut times = Vec::with_capacity(WRITES_MAX);
    for place in (0..PLACES).cycle().take(WRITES_MAX) {
        let started = Instant::now();
        file.seek(SeekFrom::Start(place.saturating_mul(4096)))?;
        file.write_all(&WRITE)?;
        file.sync_data()?;
        times.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
        if began.elapsed() > WRITING_MAX {
            break;
        }
    }
    Ok(times)
}

impl Machine {
    /// The machine in one line.
    pub fn line(&self) -> String {
        format!("{}, {} cores, {} build of {}", self.cpu, self.cores, self.build, self.version)
    }
}
