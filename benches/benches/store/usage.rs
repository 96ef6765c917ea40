//! What the process has used of the machine, by the kernel's count.

use std::{fs, path::Path, time::Instant};

/// Clock ticks in a second, the same on every Linux that matters.
const TICKS: f64 = 100.0;

/// A moment, and what had been used by then.
pub(crate) struct Usage {
    at: Instant,
    cpu_seconds: f64,
    written: u64,
    handed_over: u64,
}

/// What was used between two moments.
pub(crate) struct Used {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    /// Bytes of the pages that were made dirty or written past the cache.
    pub(crate) written: u64,
    /// Bytes handed to the kernel by `write`.
    pub(crate) handed_over: u64,
}

impl Usage {
    pub(crate) fn now() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").expect("procfs");
        let after_name = stat.rsplit_once(')').expect("a name").1;
        let field = |n: usize| -> f64 {
            after_name.split_whitespace().nth(n).expect("a field").parse().expect("a number")
        };
        Self {
            at: Instant::now(),
            cpu_seconds: (field(11) + field(12)) / TICKS,
            written: line("/proc/self/io", "write_bytes:"),
            handed_over: line("/proc/self/io", "wchar:"),
        }
    }

    pub(crate) fn since(&self) -> Used {
        let now = Self::now();
        Used {
            seconds: now.at.duration_since(self.at).as_secs_f64(),
            cpu_seconds: now.cpu_seconds - self.cpu_seconds,
            written: now.written - self.written,
            handed_over: now.handed_over - self.handed_over,
        }
    }
}

/// Memory of this process that is its own, not that of mapped files.
pub(crate) fn resident_bytes() -> u64 {
    line("/proc/self/status", "RssAnon:") * 1_024
}

fn line(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).expect("procfs");
    let found = text.lines().find_map(|line| line.strip_prefix(name)).expect("the line");
    found.split_whitespace().next().expect("a number").parse().expect("a number")
}

/// Bytes that a directory takes on the disk.
pub(crate) fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        // Removed in between.
        Err(_) => 0,
    };
    fs::read_dir(directory).expect("a directory").filter_map(Result::ok).map(of).sum()
}
