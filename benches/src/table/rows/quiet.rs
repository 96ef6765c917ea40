//! One payment at a time on a quiet channel, alone and while another channel of the same daemons is saturated.

use std::time::Duration;

use flashd::bench::{latency::Latency, load::Limit};

use super::saturated;
use crate::table::{
    Bench, Done,
    line::Line,
    pair::{Pair, Wish},
    worker::Load,
};

pub(super) const NAME: &str = "quiet";

/// Between two payments of the quiet channel.
const PAUSE_US: u64 = 5_000;

pub(super) async fn run(bench: &Bench) -> Done<Vec<Line>> {
    let sides = Pair::open(bench, Wish { channels: 2, ..Wish::default() }).await?;
    let (saturated, quiet) = (sides.channel(0)?, sides.channel(1)?);
    let seconds = bench.options.seconds();
    let single = |seconds: u64| Load::Single {
        channel: quiet,
        pause_us: PAUSE_US,
        limit: Limit::Time(Duration::from_secs(seconds)),
    };
    bench.progress.say("the quiet channel alone");
    let alone = sides.pay(&single(seconds.div_ceil(2))).await?;

    bench.progress.say("the quiet channel beside the saturated one");
    let full = Load::Saturate {
        channel: saturated,
        list: bench.options.per_call,
        in_flight: bench.options.in_flight,
        reference_bytes: saturated::REFERENCE_BYTES,
        limit: bench.limit(),
    };
    let beside = single(seconds);
    let (mut first, mut second) = (sides.loader(0).await?, sides.loader(0).await?);
    let (full, beside) = tokio::try_join!(first.take(&full), second.take(&beside))?;
    let quiet = alone.count().saturating_add(beside.count());
    sides.finish(bench, &[[full.count(), 0], [quiet, 0]]).await?;
    let (alone, beside) = (Latency::of(alone.latencies_us), Latency::of(beside.latencies_us));
    let ms = |us: u32| f64::from(us) / 1_000.0;
    let how = format!("a payment every {} ms", PAUSE_US / 1_000);
    Ok(vec![
        Line::measured(NAME, "a payment beside a saturated channel, p99", ms(beside.p99_us), "ms")
            .at_most(5.0)
            .against("alone, p99", ms(alone.p99_us))
            .how(&*how),
        Line::measured(NAME, "a payment beside a saturated channel, p50", ms(beside.p50_us), "ms")
            .against("alone, p50", ms(alone.p50_us))
            .how(&*how),
        Line::rate(NAME, "payments on the saturated channel meanwhile", full.count(), full.time).how(how),
    ])
}
