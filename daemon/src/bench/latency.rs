//! How long things took.

use serde::Serialize;

/// How long something took, each time that it was done.
#[allow(clippy::struct_field_names, reason = "the unit belongs to the name, in JSON too")]
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Half took no longer, in microseconds.
    pub p50_us: u32,
    /// Nine of ten took no longer.
    pub p90_us: u32,
    /// 99 of 100 took no longer.
    pub p99_us: u32,
    /// The longest.
    pub max_us: u32,
}

impl Latency {
    /// Of these times in microseconds.
    pub fn of(mut times: Vec<u32>) -> Self {
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        let at = |percent: usize| {
            let index = last.saturating_mul(percent).div_ceil(100);
            times.get(index).copied().unwrap_or(0)
        };
        Self { p50_us: at(50), p90_us: at(90), p99_us: at(99), max_us: at(100) }
    }
}

/// `part` for each of `whole`; zero if there is none.
#[allow(clippy::cast_precision_loss, reason = "a number to be looked at; no money")]
pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
