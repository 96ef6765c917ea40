//! What came out of a run.

use std::time::Duration;

use flash_proto::Amount;
use serde::Serialize;

use super::{
    latency::{Latency, ratio},
    load::Paid,
    machine::Machine,
};

/// All numbers of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// Milliseconds between milestones.
    pub milestone_ms: u64,
    /// A write of 4 KiB with its sync, on the disk of the run, while nothing else was asked of it.
    pub disk: Latency,
    /// Opening and closing.
    pub channels: ChannelsReport,
    /// The payments, if there were any.
    pub payments: Option<PaymentsReport>,
    /// What each daemon did while payments were made.
    pub daemons: Vec<DaemonReport>,
    /// All money of the run: every channel and both wallets hold exactly what they should.
    pub checked: Amount,
}

/// Opening and closing the channels.
#[derive(Clone, Debug, Serialize)]
pub struct ChannelsReport {
    /// How many.
    pub channels: u32,
    /// Seconds until all were open on the ledger.
    pub open_seconds: f64,
    /// Opened in a second.
    pub opened_per_second: f64,
    /// Seconds until all were paid out.
    pub close_seconds: f64,
    /// Closed in a second.
    pub closed_per_second: f64,
}

impl ChannelsReport {
    pub(super) fn new(channels: u32, open: Duration, close: Duration) -> Self {
        let rate = |time: Duration| f64::from(channels) / time.as_secs_f64().max(f64::MIN_POSITIVE);
        Self {
            channels,
            open_seconds: open.as_secs_f64(),
            opened_per_second: rate(open),
            close_seconds: close.as_secs_f64(),
            closed_per_second: rate(close),
        }
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) lanes: usize,
    pub(super) in_flight: u32,
    pub(super) amount: Amount,
}

/// The payments.
#[derive(Clone, Debug, Serialize)]
pub struct PaymentsReport {
    /// Directions of channels that paid at once.
    pub lanes: usize,
    /// Payments of a lane that could wait for their answer at once.
    pub in_flight: u32,
    /// Of each payment.
    pub amount: Amount,
    /// Payments, each acknowledged by the payee's disk.
    pub payments: u64,
    /// From the first line to the last answer.
    pub seconds: f64,
    /// Payments in a second.
    pub per_second: f64,
    /// From a payment's line to its answer, as the client of the RPC sees it.
    pub latency: Latency,
    /// Signed updates.
    pub updates: u64,
    /// Payments that shared one signature.
    pub per_update: f64,
    /// Bytes of the frames of both daemons on the channels' streams; what QUIC and UDP add is not in it.
    pub wire_bytes: u64,
    /// The same for each payment.
    pub wire_bytes_per_payment: f64,
}

impl PaymentsReport {
    pub(super) fn new(load: Load, paid: Vec<Paid>, took: Duration, updates: u64, wire_bytes: u64) -> Self {
        let latencies: Vec<u32> = paid.into_iter().flat_map(|lane| lane.latencies_us).collect();
        let payments = u64::try_from(latencies.len()).unwrap_or(u64::MAX);
        Self {
            lanes: load.lanes,
            in_flight: load.in_flight,
            amount: load.amount,
            payments,
            seconds: took.as_secs_f64(),
            per_second: per_second(payments, took),
            latency: Latency::of(latencies),
            updates,
            per_update: ratio(payments, updates),
            wire_bytes,
            wire_bytes_per_payment: ratio(wire_bytes, payments),
        }
    }
}

/// What a daemon counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) commits: u64,
    commit_us: u64,
    pub(super) bytes: u64,
    pub(super) udp_bytes: u64,
    pub(super) udp_datagrams: u64,
}

impl Counted {
    /// Reads `/metrics`.
    pub(super) fn read(metrics: &str) -> Self {
        let value = |name: &str| {
            metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or("0")
        };
        let seconds: f64 = value("flash_commit_seconds_sum").parse().unwrap_or(0.0);
        let commit_time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Self {
            commits: value("flash_commits_total").parse().unwrap_or(0),
            commit_us: u64::try_from(commit_time.as_micros()).unwrap_or(u64::MAX),
            bytes: value("flash_channel_bytes_sent_total").parse().unwrap_or(0),
            udp_bytes: value("flash_peer_bytes_sent_total").parse().unwrap_or(0),
            udp_datagrams: value("flash_peer_datagrams_sent_total").parse().unwrap_or(0),
        }
    }

    pub(super) const fn since(self, before: &Self) -> Self {
        Self {
            commits: self.commits.saturating_sub(before.commits),
            commit_us: self.commit_us.saturating_sub(before.commit_us),
            bytes: self.bytes.saturating_sub(before.bytes),
            udp_bytes: self.udp_bytes.saturating_sub(before.udp_bytes),
            udp_datagrams: self.udp_datagrams.saturating_sub(before.udp_datagrams),
        }
    }
}

/// What a daemon did while payments were made.
#[derive(Clone, Debug, Serialize)]
pub struct DaemonReport {
    /// `payer` or `payee`; with payments in both directions each is both.
    pub name: String,
    /// Commits to its store, each with one sync.
    pub commits: u64,
    /// The same in a second.
    pub commits_per_second: f64,
    /// Microseconds of a commit, on average.
    pub commit_us: f64,
    /// Payments that shared one commit, those of both directions counted.
    pub payments_per_commit: f64,
}

impl DaemonReport {
    pub(super) fn new(name: &str, counted: &Counted, payments: u64, took: Duration) -> Self {
        Self {
            name: name.to_owned(),
            commits: counted.commits,
            commits_per_second: per_second(counted.commits, took),
            commit_us: ratio(counted.commit_us, counted.commits),
            payments_per_commit: ratio(payments, counted.commits),
        }
    }
}

/// How many times as long as one sync of the disk.
fn in_syncs(us: u32, disk: &Latency) -> f64 {
    ratio(u64::from(us), u64::from(disk.p50_us))
}

fn per_second(count: u64, time: Duration) -> f64 {
    ratio(count.saturating_mul(1_000_000), u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

fn ms(us: u32) -> String {
    format!("{:.2} ms", f64::from(us) / 1_000.0)
}

impl Report {
    /// The numbers with their names, for people.
    pub fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
        row("machine", self.machine.line());
        let disk = &self.disk;
        row("disk: 4 KiB write and sync", format!("p50 {}, p99 {}", ms(disk.p50_us), ms(disk.p99_us)));
        let channels = &self.channels;
        let channel_rate = |count: u32, seconds: f64, rate: f64| {
            format!(
                "{count} in {seconds:.2} s, {rate:.2} a second, milestones every {} ms",
                self.milestone_ms
            )
        };
        row("opened", channel_rate(channels.channels, channels.open_seconds, channels.opened_per_second));
        row("closed", channel_rate(channels.channels, channels.close_seconds, channels.closed_per_second));
        if let Some(payments) = &self.payments {
            let PaymentsReport { lanes, in_flight, amount, .. } = payments;
            row("load", format!("{lanes} lane(s), {in_flight} in flight on each, {amount} a payment"));
            row("payments", format!("{} in {:.2} s", payments.payments, payments.seconds));
            row("payments a second", format!("{:.0}", payments.per_second));
            let Latency { p50_us, p90_us, p99_us, max_us } = payments.latency;
            let latency = [("p50", p50_us), ("p90", p90_us), ("p99", p99_us), ("max", max_us)];
            for (name, us) in latency {
                let syncs = in_syncs(us, disk);
                row(&format!("latency {name}"), format!("{}, {syncs:.1} disk syncs", ms(us)));
            }
            row("payments per update", format!("{:.1}", payments.per_update));
            row("bytes per payment", format!("{:.2} in frames, both ways", payments.wire_bytes_per_payment));
        }
        for daemon in &self.daemons {
            let DaemonReport { commits_per_second, commit_us, payments_per_commit, .. } = daemon;
            row(
                &format!("{}: commits a second", daemon.name),
                format!(
                    "{commits_per_second:.0}, each {:.2} ms and {payments_per_commit:.1} payments",
                    commit_us / 1_000.0
                ),
            );
        }
        row("checked", format!("{} in all, every channel and wallet right", self.checked));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let latency = Latency::of((1..=101).rev().collect());
        assert_eq!((latency.p50_us, latency.p90_us, latency.p99_us, latency.max_us), (51, 91, 100, 101));
        assert_eq!(Latency::of(vec![7]).p50_us, 7);
        assert_eq!(Latency::of(Vec::new()).max_us, 0);
    }

    #[test]
    fn what_the_daemon_counts_is_found_in_its_metrics() {
        let metrics = crate::metrics::Metrics::default();
        metrics.committed(Duration::from_millis(3), 4);
        let before = Counted::read(&metrics.text());
        assert_eq!((before.commits, before.commit_us, before.bytes), (1, 3_000, 0));
        metrics.committed(Duration::from_millis(2), 1);
        metrics.channel_bytes_sent.inc_by(70);
        let since = Counted::read(&metrics.text()).since(&before);
        assert_eq!((since.commits, since.commit_us, since.bytes), (1, 2_000, 70));
        let report = DaemonReport::new("payer", &since, 10, Duration::from_millis(500));
        assert!((report.commits_per_second - 2.0).abs() < 1e-9, "{report:?}");
        assert!((report.payments_per_commit - 10.0).abs() < 1e-9, "{report:?}");
    }
}
