//! One channel saturated by the RPC's streaming call, as `flash stream` does.

use std::time::Instant;

use flashd::{bench::load::Lane, failure::Failure};

use crate::table::{
    Bench, Done,
    line::Line,
    pair::{AMOUNT, Pair, Wish},
};

pub(super) const NAME: &str = "stream";

pub(super) async fn run(bench: &Bench) -> Done<Vec<Line>> {
    let sides = Pair::open(bench, Wish { embedded: [false; 2], ..Wish::default() }).await?;
    bench.progress.say("paying by a stream of lines");
    let load = Lane {
        client: sides.daemons[0].client.clone(),
        channel: sides.channel(0)?,
        amount: AMOUNT,
        in_flight: usize::try_from(bench.options.in_flight).unwrap_or(usize::MAX),
    };
    let meter = sides.meter(true).await?;
    let started = Instant::now();
    let paid = load.pay(bench.limit(), started).await?;
    let took = started.elapsed();
    let spent = meter.stop().await?;
    let count = u64::try_from(paid.latencies_us.len()).map_err(Failure::new)?;
    sides.finish(bench, &[[count, 0]]).await?;
    let line = Line::rate(NAME, "payments by the RPC's streaming call", count, took)
        .at_least(500_000.0)
        .against("one signature each", bench.unbatched().await?)
        .cpu(spent.cpu(count))
        .how("lines of amounts over HTTP on loopback, each answered by a line; the load is a third process");
    Ok(vec![line])
}
