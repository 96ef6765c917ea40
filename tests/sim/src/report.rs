//! What a run leaves behind: counts, a hash of all that happened, and what went wrong.

use std::{collections::BTreeMap, fmt};

/// How often each thing happened, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats(BTreeMap<&'static str, u64>);

impl Stats {
    pub(super) fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    pub(super) fn add(&mut self, what: &'static str, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    /// How often `what` happened.
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Takes in the counts of another run.
    pub fn merge(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            self.add(what, *times);
        }
    }
}

/// As one JSON object on one line.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<String> = self.0.iter().map(|(what, times)| format!("\"{what}\":{times}")).collect();
        write!(f, "{{{}}}", fields.join(","))
    }
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The first invariant that was broken, if one was.
    pub violation: Option<String>,
    /// A hash over every event and message in order: equal for equal seeds.
    pub trace: u64,
    /// How often each thing happened.
    pub stats: Stats,
    /// Non-empty commits of party A and party B.
    pub commits: [u64; 2],
}

/// A running FNV-1a hash.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    hash: u64,
    /// Whether every step is printed, to follow one seed.
    print: bool,
}

impl Trace {
    pub(super) const fn new(print: bool) -> Self {
        Self { hash: 0xCBF2_9CE4_8422_2325, print }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }

    /// Adds a line; it is only made into text when someone reads it.
    pub(super) fn line(&mut self, now: u64, line: fmt::Arguments<'_>) {
        if self.print {
            println!("{now:>6} {line}");
        }
    }

    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }
}
