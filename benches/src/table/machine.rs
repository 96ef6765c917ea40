//! Where it is measured: the machine, its kernel, its disk, and what else it has to do.

use std::{fmt, fs, path::Path};

use flashd::{
    bench::{
        latency::Latency,
        machine::{self, Machine},
    },
    failure::Failure,
};
use serde::Serialize;

use super::{Done, options::Options, programs::Programs};

/// All that a figure depends on besides the software.
#[derive(Debug, Serialize)]
pub(crate) struct Surroundings {
    machine: Machine,
    memory_mb: u64,
    kernel: String,
    /// The file system of the temporary directory, which holds all data.
    file_system: String,
    /// A write of 4 KiB in place, with its sync.
    disk_sync: Latency,
    /// Processes that wanted a core during the last minute, this one's own work not yet counted.
    load: String,
    daemon: String,
    quick: bool,
}

impl Surroundings {
    pub(crate) fn look(options: &Options, programs: &Programs) -> Done<Self> {
        let dir = tempfile::tempdir().map_err(Failure::new)?;
        let load = read("/proc/loadavg");
        Ok(Self {
            machine: machine::describe(),
            memory_mb: memory_mb(&read("/proc/meminfo")),
            kernel: read("/proc/sys/kernel/osrelease"),
            file_system: file_system(&read("/proc/mounts"), dir.path()),
            disk_sync: machine::disk_sync(dir.path())?,
            load: load.split(' ').next().unwrap_or_default().to_owned(),
            daemon: programs.flashd_path().display().to_string(),
            quick: options.quick,
        })
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn memory_mb(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = total.and_then(|it| it.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    kib / 1_000
}

/// The kind of the file system that holds `path`, and what it is on.
fn file_system(mounts: &str, path: &Path) -> String {
    let mount = |line: &str| -> Option<(usize, String)> {
        let mut words = line.split(' ');
        let (device, place, kind) = (words.next()?, words.next()?, words.next()?);
        path.starts_with(place).then(|| (place.len(), format!("{kind} on {device}")))
    };
    mounts.lines().filter_map(mount).max().map_or_else(|| "unknown".to_owned(), |(_, found)| found)
}

impl fmt::Display for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, memory_mb, kernel, file_system, disk_sync, load, .. } = self;
        let Latency { p50_us, p99_us, .. } = disk_sync;
        writeln!(f, "machine: {}, {memory_mb} MB, Linux {kernel}", machine.line())?;
        writeln!(
            f,
            "disk: {file_system}; 4 KiB written in place and synced: p50 {p50_us} µs, p99 {p99_us} µs"
        )?;
        write!(f, "load before: {load}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmpx xfs rw 0 0";
        assert_eq!(file_system(mounts, Path::new("/tmp/x")), "tmpfs on tmpfs");
        assert_eq!(file_system(mounts, Path::new("/var")), "ext4 on /dev/a");
        assert_eq!(memory_mb("MemTotal:       16000000 kB\n"), 16_000);
    }
}
