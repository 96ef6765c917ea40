//! A line of the table.

use std::{borrow::Cow, time::Duration};

use flashd::failure::Failure;
use serde::Serialize;

/// One figure, with what it is to be compared with.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    /// The row that it belongs to.
    pub(crate) row: &'static str,
    /// What it is.
    pub(crate) what: String,
    /// How it was measured.
    pub(crate) how: String,
    /// What came out.
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// A figure.
    Measured(Measured),
    /// There is no way to measure it yet, for this reason.
    NotMeasured(String),
    /// It crashed, does not answer, or a sum is wrong.
    Failed(String),
}

/// A figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) value: f64,
    pub(crate) unit: Cow<'static, str>,
    /// What it should be, if something was promised.
    pub(crate) bar: Option<Bar>,
    /// What it is compared with.
    pub(crate) against: Option<Against>,
    /// Processor time, of all cores, for each thing that was done.
    pub(crate) cpu: Vec<Cpu>,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

/// Something that was measured in the same run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Against {
    pub(crate) what: String,
    /// In the unit of the figure.
    pub(crate) value: f64,
    /// The figure for each of it.
    pub(crate) ratio: f64,
}

/// Processor time of one process.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cpu {
    pub(crate) process: &'static str,
    /// All of it.
    pub(crate) seconds: f64,
    /// For each thing that was done.
    pub(crate) us_each: f64,
}

impl Line {
    fn new(row: &'static str, what: impl Into<String>, outcome: Outcome) -> Self {
        Self { row, what: what.into(), how: String::new(), outcome }
    }

    /// A figure.
    pub(crate) fn measured(
        row: &'static str,
        what: impl Into<String>,
        value: f64,
        unit: impl Into<Cow<'static, str>>,
    ) -> Self {
        let measured = Measured { value, unit: unit.into(), bar: None, against: None, cpu: Vec::new() };
        Self::new(row, what, Outcome::Measured(measured))
    }

    /// So many things in this time.
    pub(crate) fn rate(row: &'static str, what: impl Into<String>, count: u64, time: Duration) -> Self {
        Self::measured(row, what, per_second(count, time), "/s")
    }

    /// What cannot be measured yet.
    pub(crate) fn not_measured(
        row: &'static str,
        what: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::new(row, what, Outcome::NotMeasured(reason.into()))
    }

    /// What went wrong.
    pub(crate) fn failed(row: &'static str, what: impl Into<String>, error: &Failure) -> Self {
        Self::new(row, what, Outcome::Failed(error.to_string()))
    }

    fn figure(mut self, change: impl FnOnce(&mut Measured)) -> Self {
        if let Outcome::Measured(measured) = &mut self.outcome {
            change(measured);
        }
        self
    }

    /// It should be at least this.
    pub(crate) fn at_least(self, bar: f64) -> Self {
        self.figure(|it| it.bar = Some(Bar::AtLeast(bar)))
    }

    /// It should be at most this.
    pub(crate) fn at_most(self, bar: f64) -> Self {
        self.figure(|it| it.bar = Some(Bar::AtMost(bar)))
    }

    /// It is compared with this, in the same unit.
    pub(crate) fn against(self, what: impl Into<String>, value: f64) -> Self {
        let what = what.into();
        self.figure(|it| {
            it.against = Some(Against { what, value, ratio: it.value / value.max(f64::MIN_POSITIVE) });
        })
    }

    /// It took this processor time.
    pub(crate) fn cpu(self, cpu: Vec<Cpu>) -> Self {
        self.figure(|it| it.cpu = cpu)
    }

    /// How it was measured.
    pub(crate) fn how(self, how: impl Into<String>) -> Self {
        Self { how: how.into(), ..self }
    }
}

impl Bar {
    /// Whether it is so.
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bar) => value >= bar,
            Self::AtMost(bar) => value <= bar,
        }
    }
}

/// So many in this time.
#[expect(clippy::cast_precision_loss, reason = "a number to be looked at; no money")]
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}
