//! One channel saturated by the library's calls, in one direction and in both, and the bytes that a payment takes.

use crate::table::{
    Bench, Done,
    line::{Line, per_second},
    pair::{Pair, Wish},
    worker::Load,
};

pub(super) const NAME: &str = "saturated";

/// With it a payment is packed into 13 bytes.
pub(super) const REFERENCE_BYTES: u8 = 4;

const HOW: &str =
    "each of 13 bytes; QUIC on loopback, both sides synced; the load is made inside the paying daemon";

pub(super) async fn run(bench: &Bench) -> Done<Vec<Line>> {
    let mut lines = one_way(bench).await?;
    lines.push(both_ways(bench).await?);
    Ok(lines)
}

fn load(bench: &Bench, sides: &Pair) -> Done<Load> {
    Ok(Load::Saturate {
        channel: sides.channel(0)?,
        list: bench.options.per_call,
        in_flight: bench.options.in_flight,
        reference_bytes: REFERENCE_BYTES,
        limit: bench.limit(),
    })
}

async fn one_way(bench: &Bench) -> Done<Vec<Line>> {
    let sides = Pair::open(bench, Wish::default()).await?;
    let load = load(bench, &sides)?;
    bench.progress.say("paying in one direction");
    let meter = sides.meter(false).await?;
    let paid = sides.pay(&load).await?;
    let spent = meter.stop().await?;
    let count = paid.count();
    sides.finish(bench, &[[count, 0]]).await?;
    Ok(vec![
        Line::rate(NAME, "payments, one channel, one direction", count, paid.time)
            .at_least(5_000_000.0)
            .against("one signature each", bench.unbatched().await?)
            .cpu(spent.cpu(count))
            .how(HOW),
        Line::measured(NAME, "wire, for each of these payments", spent.wire_bytes(count), "B")
            .at_most(20.0)
            .how("both connections' own counters, with 28 bytes for the headers of each datagram"),
        Line::measured(NAME, "disk, for each of these payments", spent.disk_bytes(count), "B")
            .at_most(30.0)
            .how("write_bytes of /proc/PID/io, both daemons"),
    ])
}

async fn both_ways(bench: &Bench) -> Done<Line> {
    let wish = Wish { embedded: [true; 2], both_pay: true, ..Wish::default() };
    let sides = Pair::open(bench, wish).await?;
    let load = load(bench, &sides)?;
    bench.progress.say("paying in both directions");
    let (mut there, mut back) = (sides.loader(0).await?, sides.loader(1).await?);
    let meter = sides.meter(false).await?;
    let (there, back) = tokio::try_join!(there.take(&load), back.take(&load))?;
    let spent = meter.stop().await?;
    let counts = [there.count(), back.count()];
    sides.finish(bench, &[counts]).await?;
    let count = counts[0].saturating_add(counts[1]);
    // Each rate by its own clock, both of which ran together but for the last acknowledgements.
    let rate = per_second(counts[0], there.time) + per_second(counts[1], back.time);
    Ok(Line::measured(NAME, "payments, one channel, both directions", rate, "/s")
        .at_least(5_000_000.0)
        .against("one signature each", bench.unbatched().await?)
        .cpu(spent.cpu(count))
        .how(HOW))
}
