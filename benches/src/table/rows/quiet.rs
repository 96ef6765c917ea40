//! One payment at a time on a quiet channel, alone and while another channel of the same daemons is saturated; and the
//! steps that it cannot do without, beside the same load.

use std::time::{Duration, Instant};

use flashd::bench::{latency::Latency, load::Limit};

use super::saturated;
use crate::table::{
    Bench, Done,
    baselines::{Appender, PingPong},
    line::Line,
    pair::{Pair, Wish},
    worker::{Load, microseconds},
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
    let (meanwhile, beside) = tokio::try_join!(first.take(&full), second.take(&beside))?;

    bench.progress.say("the steps alone beside the saturated one");
    let steps = steps(PingPong::start(bench).await?, Appender::new()?, Duration::from_secs(seconds));
    let (again, steps) = tokio::try_join!(first.take(&full), steps)?;
    let paid = meanwhile.count().saturating_add(again.count());
    let quiet = alone.count().saturating_add(beside.count());
    sides.finish(bench, &[[paid, 0], [quiet, 0]]).await?;
    let (alone, beside) = (Latency::of(alone.latencies_us), Latency::of(beside.latencies_us));
    let ms = |us: u32| f64::from(us) / 1_000.0;
    let every = format!("every {} ms", PAUSE_US / 1_000);
    let how = format!("a payment {every}");
    let steps_how =
        format!("a frame there and back over QUIC to an idle process, and two synced appends, {every}");
    Ok(vec![
        Line::measured(NAME, "a payment beside a saturated channel, p99", ms(beside.p99_us), "ms")
            .at_most(5.0)
            .against("its steps alone beside it", ms(steps.p99_us))
            .how(&*how),
        Line::measured(NAME, "a payment beside a saturated channel, p50", ms(beside.p50_us), "ms")
            .against("its steps alone beside it", ms(steps.p50_us))
            .how(&*how),
        Line::measured(NAME, "its steps alone beside a saturated channel, p99", ms(steps.p99_us), "ms")
            .how(steps_how),
        Line::measured(NAME, "a payment with nothing beside it, p99", ms(alone.p99_us), "ms").how(&*how),
        Line::rate(NAME, "payments on the saturated channel meanwhile", meanwhile.count(), meanwhile.time)
            .how(how),
    ])
}

/// How long the steps took that no payment can do without, each time: there and back, synced here and there.
async fn steps(mut link: PingPong, mut disk: Appender, time: Duration) -> Done<Latency> {
    let (mut times, started) = (Vec::new(), Instant::now());
    while started.elapsed() < time {
        let begun = Instant::now();
        link.exchange(1).await?;
        (_, disk) = disk.append(2).await?;
        times.push(microseconds(begun));
        tokio::time::sleep(Duration::from_micros(PAUSE_US)).await;
    }
    Ok(Latency::of(times))
}
