//! Many channels between two daemons, each paying at random times.

use flashd::bench::latency::Latency;

use crate::table::{
    Bench, Done,
    line::Line,
    pair::{Pair, SECOND_MS, Wish},
    worker::Load,
};

pub(super) const NAME: &str = "channels";

/// Between two payments of a channel, on average.
const PAUSE_US: u64 = 100_000;
const SEED: u64 = 5;

pub(super) async fn run(bench: &Bench) -> Done<Vec<Line>> {
    let channels = bench.options.channels();
    let sides = Pair::open(bench, Wish { channels, milestone_ms: SECOND_MS, ..Wish::default() }).await?;
    bench.progress.say(format!("paying on {channels} channels"));
    let ids = sides.opened.iter().map(|it| it.id).collect();
    let load = Load::Spread { channels: ids, pause_us: PAUSE_US, seed: SEED, limit: bench.limit() };
    let before = updates(&sides).await?;
    let meter = sides.meter(false).await?;
    let paid = sides.pay(&load).await?;
    let spent = meter.stop().await?;
    let signed = updates(&sides).await?.saturating_sub(before);
    let payments: Vec<[u64; 2]> = paid.counts.iter().map(|count| [*count, 0]).collect();
    sides.finish(bench, &payments).await?;
    let latency = Latency::of(paid.latencies_us);
    let how = format!(
        "a payment every {} ms on each channel on average, one at a time; seed {SEED}",
        PAUSE_US / 1_000
    );
    Ok(vec![
        Line::rate(NAME, format!("signed updates on {channels} channels"), signed, paid.time)
            .at_least(40_000.0)
            .against("one signature each, in memory", bench.unbatched().await?)
            .cpu(spent.cpu(signed))
            .how(&*how),
        Line::measured(NAME, "a payment on one of them, p50", f64::from(latency.p50_us), "µs").how(&*how),
        Line::measured(NAME, "a payment on one of them, p99", f64::from(latency.p99_us), "µs").how(how),
    ])
}

/// Signed so far by the paying side.
async fn updates(sides: &Pair) -> Done<u64> {
    let channels = sides.daemons[0].client.channels(false).await?;
    Ok(channels.iter().map(|it| it.sent.updates).fold(0, u64::saturating_add))
}
