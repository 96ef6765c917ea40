//! What the figures are compared with, measured in the same run: each once, when the first row asks for it.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `link.rs` | one frame there and back over QUIC, with the settings of the peer link, to another process |
//! | `disk.rs` | a small record appended to a file, and synced |
//! | `crypto.rs` | signatures and hashes on one core |
//! | `unbatched.rs` | the channel machine in memory with one signature for each payment |

mod crypto;
mod disk;
mod link;
mod unbatched;

use std::time::{Duration, Instant};

pub(crate) use crypto::Crypto;
pub(crate) use disk::Appender;
pub(crate) use link::PingPong;
use tokio::sync::OnceCell;
pub(crate) use unbatched::unbatched;

use super::{Bench, Done};

/// How long a baseline that has no end of its own is measured.
pub(crate) const MEASURED: Duration = Duration::from_secs(1);

/// What was measured so far.
#[derive(Debug, Default)]
pub(crate) struct Baselines {
    crypto: OnceCell<Crypto>,
    unbatched: OnceCell<f64>,
}

impl Bench {
    /// Signatures and hashes.
    pub(crate) async fn crypto(&self) -> Done<Crypto> {
        let crypto = self.baselines.crypto.get_or_init(|| async {
            self.progress.say("baseline: signatures and hashes");
            Crypto::measure()
        });
        Ok(*crypto.await)
    }

    /// Payments a second with one signature for each, in memory, on one core.
    pub(crate) async fn unbatched(&self) -> Done<f64> {
        let rate = self.baselines.unbatched.get_or_init(|| async {
            self.progress.say("baseline: one signature for each payment");
            unbatched()
        });
        Ok(*rate.await)
    }
}

/// The median time of `step`, in microseconds.
fn median_us(mut step: impl FnMut()) -> f64 {
    let began = Instant::now();
    let mut times = Vec::new();
    while times.is_empty() || began.elapsed() < MEASURED {
        let started = Instant::now();
        step();
        times.push(started.elapsed());
    }
    median(&mut times).as_secs_f64() * 1e6
}

/// The median of some times; nothing of none.
pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
