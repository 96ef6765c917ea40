//! Opening channels, with a node at milestones of one second.

use std::time::Instant;

use flashd::bench::channels;

use crate::table::{
    Bench, Done,
    line::Line,
    pair::{Pair, Wish},
};

pub(super) const NAME: &str = "opening";

const MILESTONE_MS: u64 = 1_000;

pub(super) async fn run(bench: &Bench) -> Done<Vec<Line>> {
    let channels = bench.options.opened();
    let wish = Wish { embedded: [false; 2], channels, both_pay: false, milestone_ms: MILESTONE_MS };
    let mut sides = Pair::start(bench, wish).await?;
    bench.progress.say(format!("funding {channels} channels"));
    sides.fund().await?;
    bench.progress.say(format!("opening {channels} channels"));
    let meter = sides.meter(true).await?;
    let started = Instant::now();
    let opened = channels::open(&sides.daemons[0].client, &sides.daemons[1].ticket, sides.plan()).await?;
    let took = started.elapsed();
    let spent = meter.stop().await?;
    sides.opened = opened;
    sides.finish(bench, &vec![[0; 2]; usize::from(channels)]).await?;
    let line = Line::rate(NAME, format!("channels opened, {channels} of them"), channels.into(), took)
        .at_least(2_000.0)
        .cpu(spent.cpu(channels.into()))
        .how("from the first call until all are open on the ledger, 512 calls at a time; milestones every second");
    Ok(vec![line])
}
