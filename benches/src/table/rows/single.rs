//! One payment at a time on one channel, beside the steps that it cannot do without.

use std::time::Duration;

use flashd::{
    bench::{latency::Latency, load::Limit},
    failure::Failure,
};

use crate::table::{
    Bench, Done,
    baselines::{Appender, PingPong, median},
    line::Line,
    pair::{Pair, Wish},
    worker::Load,
};

pub(super) const NAME: &str = "single";

/// Payments and their steps are measured in turn, so many times.
const ROUNDS: u64 = 5;

pub(super) async fn run(bench: &Bench) -> Done<Vec<Line>> {
    let crypto = bench.crypto().await?;
    let sides = Pair::open(bench, Wish::default()).await?;
    let (mut link, mut disk) = (PingPong::start(bench).await?, Appender::new()?);
    let load = Load::Single {
        channel: sides.channel(0)?,
        pause_us: 0,
        limit: Limit::Time(Duration::from_secs(bench.options.seconds()) / 5),
    };
    let steps = if bench.options.quick { 20 } else { 200 };
    let (mut times, mut exchanged, mut appended) = (Vec::new(), Vec::new(), Vec::new());
    let mut spent = Vec::new();
    for round in 1..=ROUNDS {
        bench.progress.say(format!("round {round} of {ROUNDS}: the steps"));
        exchanged.extend(link.exchange(steps).await?);
        let synced;
        (synced, disk) = disk.append(steps).await?;
        appended.extend(synced);
        bench.progress.say(format!("round {round} of {ROUNDS}: payments"));
        let meter = sides.meter(false).await?;
        let paid = sides.pay(&load).await?;
        spent.push((meter.stop().await?, paid.count()));
        times.extend(paid.latencies_us);
    }
    let count = u64::try_from(times.len()).map_err(Failure::new)?;
    sides.finish(bench, &[[count, 0]]).await?;
    let [link_us, disk_us] = [&mut exchanged, &mut appended].map(|times| median(times).as_secs_f64() * 1e6);
    let sum = link_us + 2.0 * disk_us + crypto.sign_us + crypto.verify_us;
    let latency = Latency::of(times);
    let steps = format!("{sum:.0} µs of steps");
    let how = format!(
        "from the call to its acknowledgement; steps: there and back {link_us:.0} µs, twice appended and synced \
         {disk_us:.0} µs, signed {:.0} µs, verified {:.0} µs",
        crypto.sign_us, crypto.verify_us
    );
    let (last, payments) = spent.last().ok_or_else(|| Failure::new("no round"))?;
    Ok(vec![
        Line::measured(NAME, "one payment at a time, p50", f64::from(latency.p50_us), "µs")
            .at_most(1.5 * sum)
            .against(&*steps, sum)
            .cpu(last.cpu(*payments))
            .how(&*how),
        Line::measured(NAME, "one payment at a time, p99", f64::from(latency.p99_us), "µs")
            .at_most(4.0 * sum)
            .against(steps, sum)
            .how(how),
        Line::measured(NAME, "wire, for each of these payments", last.wire_bytes(*payments), "B")
            .at_most(250.0)
            .how("both connections' own counters, with 28 bytes for the headers of each datagram"),
        Line::measured(NAME, "disk, for each of these payments", last.disk_bytes(*payments), "B")
            .how("write_bytes of /proc/PID/io, both daemons"),
    ])
}
