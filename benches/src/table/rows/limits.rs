//! What bounds everything else.

use crate::table::{
    Bench, Done,
    baselines::{Appender, PingPong, median},
    line::Line,
};

pub(super) const NAME: &str = "limits";

/// Frames and records of the medians.
const COUNT: usize = 1_000;

pub(super) async fn run(bench: &Bench) -> Done<Vec<Line>> {
    let crypto = bench.crypto().await?;
    let unbatched = bench.unbatched().await?;
    bench.progress.say("records on the disk, frames on a link");
    let count = if bench.options.quick { COUNT / 10 } else { COUNT };
    let (mut appended, _) = Appender::new()?.append(count).await?;
    let mut exchanged = PingPong::start(bench).await?.exchange(count).await?;
    let us = |what: &str, us: f64| Line::measured(NAME, what, us, "µs").how("median, one core");
    Ok(vec![
        us("Ed25519: sign", crypto.sign_us),
        us("Ed25519: verify by a prepared key", crypto.verify_us),
        us("Ed25519: verify, one of 64 together", crypto.verify_together_us),
        us("SHA3-256 of 128 KiB", crypto.hash_us),
        us("256 bytes appended to a file, and synced", median(&mut appended).as_secs_f64() * 1e6),
        us("256 bytes there and back over QUIC", median(&mut exchanged).as_secs_f64() * 1e6)
            .how("median; the other end is another process"),
        Line::measured(NAME, "one signature for each payment, in memory", unbatched, "/s")
            .how("both sides of the channel machine on one core, no link and no disk"),
    ])
}
