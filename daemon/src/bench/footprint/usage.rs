//! What Linux counts for a process.

use std::{fs, path::PathBuf};

use crate::{bench::report::Counted, client::Client, failure::Failure};

/// Memory now and at most, and what was written since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Memory that is resident, in KiB.
    pub(super) resident_kib: u64,
    /// The most that was.
    pub(super) peak_kib: u64,
    /// Bytes handed to files and pipes.
    pub(super) given_bytes: u64,
    /// Bytes on their way to the disk: whole pages of the page cache, each time that one was changed since it was
    /// last written.
    pub(super) written_bytes: u64,
    /// Commits of a daemon to its store.
    pub(super) commits: u64,
}

impl Usage {
    /// Reads `/proc`, and the metrics of a daemon.
    pub(super) async fn read(pid: u32, daemon: Option<&Client>) -> Result<Self, Failure> {
        let read = |file: &str| {
            let path = PathBuf::from(format!("/proc/{pid}/{file}"));
            fs::read_to_string(&path)
                .map_err(|error| Failure::new(format!("{}: {error}; this needs Linux", path.display())))
        };
        let commits = match daemon {
            Some(client) => Counted::read(&client.metrics().await?).commits,
            None => 0,
        };
        Ok(Self { commits, ..Self::parse(&read("status")?, &read("io")?) })
    }

    fn parse(status: &str, io: &str) -> Self {
        Self {
            resident_kib: value(status, "VmRSS:"),
            peak_kib: value(status, "VmHWM:"),
            given_bytes: value(io, "wchar:"),
            written_bytes: value(io, "write_bytes:"),
            commits: 0,
        }
    }
}

/// The number in the line that begins with `name`; 0 if there is none.
fn value(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_whole_names() {
        let status = "Name:\tflashd\nVmPeak:\t  999 kB\nVmHWM:\t   300 kB\nVmRSS:\t   200 kB\n";
        let io = "rchar: 1\nwchar: 20\nsyscw: 3\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n";
        let wanted =
            Usage { resident_kib: 200, peak_kib: 300, given_bytes: 20, written_bytes: 4_096, commits: 0 };
        assert_eq!(Usage::parse(status, io), wanted);
        assert_eq!(Usage::parse("", ""), Usage::default());
    }
}
