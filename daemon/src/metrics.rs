//! What the daemon counts, for Prometheus. Nothing is ever labelled by channel or peer: the number of
//! series stays the same however many there are.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// All counters; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Payments taken for sending.
    pub payments_queued: Counter,
    /// Payments that peers have acknowledged.
    pub payments_acknowledged: Counter,
    /// Payments that are received and durable.
    pub payments_received: Counter,
    /// Signed updates sent or received.
    pub updates: Counter,
    /// Bytes of frames sent to peers on channels' streams.
    pub channel_bytes_sent: Counter,
    /// Bytes of UDP datagrams sent to peers, encrypted, without the headers of UDP and IP.
    pub peer_bytes_sent: Counter,
    /// Those datagrams.
    pub peer_datagrams_sent: Counter,
    /// Commits to the store.
    pub commits: Counter,
    /// Seconds that a commit took, sync included.
    pub commit_seconds: Histogram,
    /// Jobs that shared a commit.
    pub commit_jobs: Histogram,
    /// Peers connected.
    pub peers: Gauge,
    /// Index of the newest verified milestone.
    pub milestone_index: Gauge,
    /// Milliseconds since it arrived.
    pub milestone_age_ms: Gauge,
    /// Times since the start that a node was caught lying, withholding or not answering.
    pub node_faults: Gauge,
    /// Inputs that wait for the engine.
    pub mailbox_depth: Gauge,
    /// Times that a peer broke the protocol.
    pub peers_misbehaved: Counter,
    /// Balances of others that were taken as a watchtower.
    pub tower_balances: Counter,
    /// Claims that were submitted as a watchtower.
    pub tower_claims: Counter,
    /// Lanes that are kept as a watchtower.
    pub tower_lanes: Gauge,
    /// Clients whose lanes these are.
    pub tower_clients: Gauge,
    /// Channels, each counted for every watchtower of ours that has not confirmed the newest balance for long.
    pub towers_behind: Gauge,
    channels: Family<StateLabel, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Arc::default(),
            payments_queued: Counter::default(),
            payments_acknowledged: Counter::default(),
            payments_received: Counter::default(),
            updates: Counter::default(),
            channel_bytes_sent: Counter::default(),
            peer_bytes_sent: Counter::default(),
            peer_datagrams_sent: Counter::default(),
            commits: Counter::default(),
            commit_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            commit_jobs: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            peers: Gauge::default(),
            milestone_index: Gauge::default(),
            milestone_age_ms: Gauge::default(),
            node_faults: Gauge::default(),
            mailbox_depth: Gauge::default(),
            peers_misbehaved: Counter::default(),
            tower_balances: Counter::default(),
            tower_claims: Counter::default(),
            tower_lanes: Gauge::default(),
            tower_clients: Gauge::default(),
            towers_behind: Gauge::default(),
            channels: Family::default(),
        };
        Self { registry: Arc::new(metrics.registered()), ..metrics }
    }
}

impl Metrics {
    fn registered(&self) -> Registry {
        let mut registry = Registry::with_prefix("flash");
        let counters = [
            ("payments_queued", "Payments taken for sending", &self.payments_queued),
            ("payments_acknowledged", "Payments that peers have acknowledged", &self.payments_acknowledged),
            ("payments_received", "Payments received and durable", &self.payments_received),
            ("updates", "Signed updates sent or received", &self.updates),
            (
                "channel_bytes_sent",
                "Bytes of frames sent on the streams of channels",
                &self.channel_bytes_sent,
            ),
            ("peer_bytes_sent", "Bytes of UDP datagrams sent to peers", &self.peer_bytes_sent),
            ("peer_datagrams_sent", "UDP datagrams sent to peers", &self.peer_datagrams_sent),
            ("commits", "Commits to the store", &self.commits),
            ("peers_misbehaved", "Times that a peer broke the protocol", &self.peers_misbehaved),
            ("tower_balances", "Balances of others taken as a watchtower", &self.tower_balances),
            ("tower_claims", "Claims submitted as a watchtower", &self.tower_claims),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let gauges = [
            ("peers_connected", "Peers connected", &self.peers),
            ("milestone_index", "Index of the newest verified milestone", &self.milestone_index),
            ("milestone_age_milliseconds", "Time since that milestone arrived", &self.milestone_age_ms),
            (
                "node_faults",
                "Times that a node was caught lying, withholding or not answering",
                &self.node_faults,
            ),
            ("mailbox_depth", "Inputs that wait for the engine", &self.mailbox_depth),
            ("tower_lanes", "Lanes kept as a watchtower", &self.tower_lanes),
            ("tower_clients", "Clients whose lanes these are", &self.tower_clients),
            (
                "towers_behind",
                "Channels whose newest balance a watchtower has not confirmed for a minute, over all of them",
                &self.towers_behind,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        registry.register_with_unit(
            "commit",
            "Time that a commit took, sync included",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
        registry.register("commit_jobs", "Jobs that shared a commit", self.commit_jobs.clone());
        registry.register("channels", "Channels by state", self.channels.clone());
        registry
    }

    /// Counts a commit that `jobs` shared.
    pub fn committed(&self, took: Duration, jobs: usize) {
        self.commits.inc();
        self.commit_seconds.observe(took.as_secs_f64());
        self.commit_jobs.observe(f64::from(u32::try_from(jobs).unwrap_or(u32::MAX)));
    }

    /// A channel went from one state to another (`None`: it did not exist).
    pub fn channel_moved(&self, from: Option<&'static str>, to: &'static str) {
        if from == Some(to) {
            return;
        }
        if let Some(state) = from {
            self.channels.get_or_create(&StateLabel { state }).dec();
        }
        self.channels.get_or_create(&StateLabel { state: to }).inc();
    }

    /// So many open channels are at rest since the start.
    pub fn channels_rest(&self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.channels.get_or_create(&StateLabel { state: "open" }).inc_by(count);
    }

    /// The text of `/metrics` (OpenMetrics).
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::default();
        metrics.payments_received.inc_by(3);
        metrics.committed(Duration::from_micros(70), 4);
        metrics.channel_moved(None, "opening");
        metrics.channel_moved(Some("opening"), "open");
        metrics.clone().peers.inc();
        let text = metrics.text();
        for line in [
            "flash_payments_received_total 3",
            "flash_commits_total 1",
            "flash_commit_seconds_count 1",
            "flash_commit_jobs_bucket{le=\"4.0\"} 1",
            "flash_channels{state=\"open\"} 1",
            "flash_channels{state=\"opening\"} 0",
            "flash_peers_connected 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
