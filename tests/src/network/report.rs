//! What a run says at its end: a table for people, a line of JSON for programs.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::{Map, Value, json};

/// Times from when a transfer was made until it was applied, in milestone intervals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Latency {
    count: usize,
    p50: f64,
    p99: f64,
    max: f64,
}

impl Latency {
    /// Of these times.
    pub(super) fn of(times: impl IntoIterator<Item = Duration>, interval: Duration) -> Self {
        let mut times: Vec<Duration> = times.into_iter().collect();
        times.sort_unstable();
        let at = |part: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a place in a list"
            )]
            let place = (part * times.len().saturating_sub(1) as f64).ceil() as usize;
            let time = times.get(place).copied().unwrap_or_default();
            (time.as_secs_f64() / interval.as_secs_f64() * 100.0).round() / 100.0
        };
        Self { count: times.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }

    /// The time that 99 of 100 take at most, in intervals.
    pub(super) const fn p99(&self) -> f64 {
        self.p99
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, p50, p99, max } = self;
        write!(f, "p50 {p50}, p99 {p99}, max {max} intervals ({count})")
    }
}

impl From<Latency> for Value {
    fn from(latency: Latency) -> Self {
        let Latency { count, p50, p99, max } = latency;
        json!({ "count": count, "p50": p50, "p99": p99, "max": max })
    }
}

/// A run's result.
#[derive(Clone, Debug, Default)]
pub struct Report {
    lines: Vec<(&'static str, String)>,
    json: Map<String, Value>,
    /// What was not as it must be; nothing if all is well.
    pub wrong: Vec<String>,
}

impl Report {
    /// Adds a figure.
    pub(super) fn add(&mut self, name: &'static str, value: impl fmt::Display, json: impl Into<Value>) {
        self.lines.push((name, value.to_string()));
        self.json.insert(name.replace(' ', "_"), json.into());
    }

    /// Adds the same for people and programs.
    pub(super) fn add_number(&mut self, name: &'static str, value: impl Into<Value>) {
        let value = value.into();
        self.add(name, value.clone(), value);
    }

    /// Adds the times of each stage.
    pub(super) fn add_stages(&mut self, stages: BTreeMap<&'static str, Latency>) {
        for (stage, latency) in &stages {
            self.lines.push(("to applied", format!("{stage}: {latency}")));
        }
        let json = stages.into_iter().map(|(stage, latency)| (stage.to_owned(), latency.into())).collect();
        self.json.insert("to_applied".to_owned(), Value::Object(json));
    }

    /// As one line.
    pub fn json(&self) -> String {
        let mut json = self.json.clone();
        json.insert("wrong".to_owned(), self.wrong.clone().into());
        Value::Object(json).to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.lines {
            writeln!(f, "  {name:<22} {value}")?;
        }
        for wrong in &self.wrong {
            writeln!(f, "  WRONG                  {wrong}")?;
        }
        Ok(())
    }
}

/// The machine's load: how many processes wanted to run in the last minute.
pub(super) fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}
