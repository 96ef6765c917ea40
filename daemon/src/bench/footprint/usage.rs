//! What Linux counts for a process.

use std::{fs, path::PathBuf};

use crate::{bench::report::Counted, client::Client, failure::Failure};

/// Memory now and at most, and what was written since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory that is resident, in KiB.
    pub resident_kib: u64,
    /// The most that was.
    pub peak_kib: u64,
    /// Bytes handed to files and pipes.
    pub given_bytes: u64,
    /// Bytes on their way to the disk: whole pages of the page cache, each time that one was changed since it was
    /// last written.
    pub written_bytes: u64,
    /// Commits of a daemon to its store.
    pub commits: u64,
    /// Bytes of the datagrams that a daemon sent to its peers, without the headers of UDP and IP.
    pub udp_bytes: u64,
    /// Those datagrams.
    pub udp_datagrams: u64,
    /// Processor time on all cores, in milliseconds; Linux counts it in steps of ten.
    pub cpu_ms: u64,
}

impl Usage {
    /// Reads `/proc`, and the metrics of a daemon.
    ///
    /// # Errors
    /// [`Failure`]: the process is gone, or this is not Linux.
    pub async fn read(pid: u32, daemon: Option<&Client>) -> Result<Self, Failure> {
        let read = |file: &str| {
            let path = PathBuf::from(format!("/proc/{pid}/{file}"));
            fs::read_to_string(&path)
                .map_err(|error| Failure::new(format!("{}: {error}; this needs Linux", path.display())))
        };
        let counted = match daemon {
            Some(client) => Counted::read(&client.metrics().await?),
            None => Counted::default(),
        };
        let Counted { commits, udp_bytes, udp_datagrams, .. } = counted;
        Ok(Self {
            commits,
            udp_bytes,
            udp_datagrams,
            ..Self::parse(&read("status")?, &read("io")?, &read("stat")?)
        })
    }

    fn parse(status: &str, io: &str, stat: &str) -> Self {
        Self {
            resident_kib: value(status, "VmRSS:"),
            peak_kib: value(status, "VmHWM:"),
            given_bytes: value(io, "wchar:"),
            written_bytes: value(io, "write_bytes:"),
            cpu_ms: cpu_ms(stat),
            ..Self::default()
        }
    }
}

/// The number in the line that begins with `name`; 0 if there is none.
fn value(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The 14th and 15th fields, in hundredths of a second; the second field is the program's name, in parentheses, and may
/// hold anything.
fn cpu_ms(stat: &str) -> u64 {
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
    ticks.fold(0_u64, u64::saturating_add).saturating_mul(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_whole_names() {
        let status = "Name:\tflashd\nVmPeak:\t  999 kB\nVmHWM:\t   300 kB\nVmRSS:\t   200 kB\n";
        let io = "rchar: 1\nwchar: 20\nsyscw: 3\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n";
        let stat = "77 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20";
        let wanted = Usage {
            resident_kib: 200,
            peak_kib: 300,
            given_bytes: 20,
            written_bytes: 4_096,
            cpu_ms: 1_750,
            ..Usage::default()
        };
        assert_eq!(Usage::parse(status, io, stat), wanted);
        assert_eq!(Usage::parse("", "", ""), Usage::default());
    }
}
