//! Ticks on one channel: each reveals one more hash of a chain.

use crate::table::{
    Bench, Done,
    line::Line,
    pair::{Pair, Wish},
    worker::Load,
};

pub(super) const NAME: &str = "ticks";

/// Ticks of one call.
const EACH: [(u32, &str); 2] = [(1, "ticks, a call for each"), (64, "ticks, a call for 64")];

pub(super) async fn run(bench: &Bench) -> Done<Vec<Line>> {
    let mut lines = Vec::new();
    for (each, what) in EACH {
        let sides = Pair::open(bench, Wish::default()).await?;
        bench.progress.say(what);
        let load = Load::Ticks {
            channel: sides.channel(0)?,
            each,
            in_flight: bench.options.in_flight,
            limit: bench.limit(),
        };
        let meter = sides.meter(false).await?;
        let paid = sides.pay(&load).await?;
        let spent = meter.stop().await?;
        let count = paid.count();
        sides.finish(bench, &[[count, 0]]).await?;
        let line = Line::rate(NAME, what, count, paid.time).at_least(2_000_000.0).cpu(spent.cpu(count));
        lines.push(line.how("as the saturated channel, by ticks of the unit"));
    }
    Ok(lines)
}
