//! What came out of a run.

use std::time::Duration;

use serde::Serialize;

use super::{super::machine::Machine, usage::Usage};

const SECONDS_PER_DAY: f64 = 86_400.0;

/// All numbers of a run.
#[derive(Clone, Debug, Serialize)]
pub struct FootprintReport {
    /// The machine.
    pub machine: Machine,
    /// Milliseconds between milestones.
    pub milestone_ms: u64,
    /// Outputs in the node's ledger.
    pub outputs: u64,
    /// Each process in each measurement.
    pub lines: Vec<Line>,
}

/// One process in one measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// What was done meanwhile.
    pub phase: String,
    /// `node`, `payer` or `payee`.
    pub process: &'static str,
    /// Memory that was resident at the end, in KiB.
    pub resident_kib: u64,
    /// The most that ever was resident, in KiB.
    pub peak_kib: u64,
    /// How long was measured.
    pub seconds: f64,
    /// Payments meanwhile, each on the payee's disk.
    pub payments: u64,
    /// Commits of a daemon to its store; the node counts none.
    pub commits: u64,
    /// Bytes that it handed to files and pipes.
    pub given_bytes: u64,
    /// Bytes that went on their way to the disk, in whole pages.
    pub written_bytes: u64,
    /// The same in a day of this.
    pub written_bytes_per_day: f64,
}

impl Line {
    pub(super) fn new(
        phase: &str,
        process: &'static str,
        before: &Usage,
        after: &Usage,
        payments: u64,
        took: Duration,
    ) -> Self {
        let seconds = took.as_secs_f64();
        let written_bytes = after.written_bytes.saturating_sub(before.written_bytes);
        Self {
            phase: phase.to_owned(),
            process,
            resident_kib: after.resident_kib,
            peak_kib: after.peak_kib,
            seconds,
            payments,
            commits: after.commits.saturating_sub(before.commits),
            given_bytes: after.given_bytes.saturating_sub(before.given_bytes),
            written_bytes,
            written_bytes_per_day: float(written_bytes) / seconds.max(f64::MIN_POSITIVE) * SECONDS_PER_DAY,
        }
    }

    /// As a row of a table.
    pub fn row(&self) -> [String; 8] {
        let mib = |kib: u64| format!("{:.1} MiB", float(kib) / 1024.0);
        [
            self.phase.clone(),
            self.process.to_owned(),
            mib(self.resident_kib),
            mib(self.peak_kib),
            self.payments.to_string(),
            self.commits.to_string(),
            format!("{:.1} KiB", float(self.written_bytes) / 1024.0 / self.seconds.max(f64::MIN_POSITIVE)),
            format!("{:.0} MB", self.written_bytes_per_day / 1e6),
        ]
    }
}

#[allow(clippy::cast_precision_loss, reason = "a number to be looked at; no money")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_as_many_of_what_was_measured() {
        let before = Usage { written_bytes: 4_096, commits: 2, ..Usage::default() };
        let after = Usage {
            resident_kib: 2_048,
            peak_kib: 3_072,
            written_bytes: 12_096,
            given_bytes: 9,
            commits: 5,
            ..Usage::default()
        };
        let line = Line::new("1 channel", "payer", &before, &after, 10, Duration::from_secs(10));
        assert_eq!((line.written_bytes, line.given_bytes, line.commits), (8_000, 9, 3));
        assert!((line.written_bytes_per_day - 69_120_000.0).abs() < 1.0, "{line:?}");
        let row = line.row();
        assert_eq!(row[2..], ["2.0 MiB", "3.0 MiB", "10", "3", "0.8 KiB", "69 MB"]);
    }
}
