//! Opening channels, with a node at milestones of one second.

use flashd::{
    bench::{channels::Opened, latency::Latency},
    failure::Failure,
};

use crate::table::{
    Bench, Done,
    line::Line,
    pair::{Pair, SECOND_MS, Wish},
    worker::Load,
};

pub(super) const NAME: &str = "opening";

/// Channels that are opened at once: each waits for a milestone, so that it takes more than are opened in a second.
const AT_ONCE: usize = 4_000;

pub(super) async fn run(bench: &Bench) -> Done<Vec<Line>> {
    let channels = bench.options.opened();
    let wish = Wish { channels, milestone_ms: SECOND_MS, ..Wish::default() };
    let mut sides = Pair::start(bench, wish).await?;
    bench.progress.say(format!("funding {channels} channels"));
    sides.fund().await?;
    bench.progress.say(format!("opening {channels} channels"));
    let request = sides.plan().request(&sides.daemons[1].ticket);
    let load = Load::Open { request, channels, at_once: AT_ONCE };
    let meter = sides.meter(false).await?;
    let opened = sides.pay(&load).await?;
    let spent = meter.stop().await?;
    let listed = sides.daemons[0].client.channels(true).await?;
    sides.opened = listed.into_iter().map(|it| Opened { id: it.id }).collect();
    sides.finish(bench, &vec![[0; 2]; usize::try_from(channels).map_err(Failure::new)?]).await?;
    let latency = Latency::of(opened.latencies_us);
    let how = format!("by the library's calls, {AT_ONCE} at a time; milestones every second");
    let rate = format!("channels opened, {channels} of them");
    Ok(vec![
        Line::rate(NAME, rate, channels.into(), opened.time)
            .at_least(2_000.0)
            .cpu(spent.cpu(channels.into()))
            .how(format!("from the first call until all are open on the ledger, {how}")),
        Line::measured(NAME, "one of them, p50", f64::from(latency.p50_us) / 1_000.0, "ms").how(how),
    ])
}
