//! Cost curves: payments a second and what one takes, against what they depend on, drawn as SVG.

mod path;
mod svg;

use std::{fs, path::Path as FilePath, time::Duration};

use flashd::{
    bench::{channels, latency::Latency, load::Limit},
    failure::Failure,
};
use path::{Path, Weather};
use serde::Serialize;

use super::{
    Bench, Done,
    line::per_second,
    pair::{Pair, SECOND_MS, Wish},
    worker::{Load, Paid},
};

/// Payments in flight on one lane.
const IN_FLIGHT: [u32; 9] = [1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536];
/// Payments of a list: so many fit with the longest references.
const LIST_MAX: u16 = 3_000;
/// Bytes of a payment's reference.
const REFERENCE_BYTES: [u8; 5] = [0, 4, 8, 16, 32];
/// Channels of which each pays one payment after the other.
const CHANNELS: [u32; 6] = [1, 10, 100, 1_000, 10_000, 100_000];
/// Milliseconds there and back, and datagrams of a hundred that are lost.
const PATHS: [(f64, u8); 7] = [(0.0, 0), (1.0, 0), (20.0, 0), (100.0, 0), (1.0, 1), (20.0, 1), (100.0, 1)];

/// A curve.
#[derive(Debug, Serialize)]
struct Curve {
    file: &'static str,
    title: &'static str,
    /// What is changed from point to point.
    over: &'static str,
    points: Vec<Point>,
}

/// What was measured at one place of a curve.
#[derive(Debug, Serialize)]
struct Point {
    at: String,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Point {
    fn new(at: String, paid: Paid) -> Self {
        let per_second = per_second(paid.count(), paid.time);
        let Latency { p50_us, p99_us, .. } = Latency::of(paid.latencies_us);
        Self { at, per_second, p50_ms: f64::from(p50_us) / 1e3, p99_ms: f64::from(p99_us) / 1e3 }
    }
}

/// Measures all curves and draws them into `dir`.
pub(crate) async fn draw(bench: &Bench, dir: &FilePath) -> Done {
    fs::create_dir_all(dir).map_err(Failure::new)?;
    let curves = [in_flight(bench).await?, sizes(bench).await?, many(bench).await?, paths(bench).await?];
    for curve in &curves {
        let text = svg::chart(curve.title, curve.over, &curve.points);
        let file = dir.join(curve.file);
        fs::write(&file, text).map_err(Failure::new)?;
        eprintln!("drawn: {}", file.display());
    }
    let text = serde_json::to_string_pretty(&curves).map_err(Failure::new)?;
    fs::write(dir.join("curves.json"), format!("{text}\n")).map_err(Failure::new)
}

async fn in_flight(bench: &Bench) -> Done<Curve> {
    let sides = Pair::open(bench, Wish::default()).await?;
    let (mut points, mut count) = (Vec::new(), 0);
    for in_flight in IN_FLIGHT {
        bench.progress.say(format!("{in_flight} payments in flight"));
        let load = saturate(bench, &sides, in_flight, 0)?;
        let paid = sides.pay(&load).await?;
        count += paid.count();
        points.push(Point::new(in_flight.to_string(), paid));
    }
    sides.finish(bench, &[[count, 0]]).await?;
    let title = "One channel, by payments that wait for their acknowledgement at once";
    Ok(Curve { file: "in-flight.svg", title, over: "payments in flight", points })
}

fn saturate(bench: &Bench, sides: &Pair, in_flight: u32, reference_bytes: u8) -> Done<Load> {
    // At least four lists, so that the next is on its way while one is acknowledged.
    let list = u16::try_from(in_flight / 4).unwrap_or(u16::MAX).clamp(1, LIST_MAX);
    Ok(Load::Saturate { channel: sides.channel(0)?, list, in_flight, reference_bytes, limit: bench.limit() })
}

async fn sizes(bench: &Bench) -> Done<Curve> {
    let sides = Pair::open(bench, Wish::default()).await?;
    let (mut points, mut count) = (Vec::new(), 0);
    for bytes in REFERENCE_BYTES {
        bench.progress.say(format!("references of {bytes} bytes"));
        let load = saturate(bench, &sides, bench.options.in_flight, bytes)?;
        let paid = sides.pay(&load).await?;
        count += paid.count();
        points.push(Point::new(bytes.to_string(), paid));
    }
    sides.finish(bench, &[[count, 0]]).await?;
    let title = "One channel saturated, by the size of a payment's reference";
    Ok(Curve { file: "reference.svg", title, over: "bytes of the reference", points })
}

async fn many(bench: &Bench) -> Done<Curve> {
    let mut points = Vec::new();
    let chosen = CHANNELS.into_iter().filter(|channels| *channels <= bench.options.channels());
    for channels in chosen {
        let sides = Pair::open(bench, Wish { channels, milestone_ms: SECOND_MS, ..Wish::default() }).await?;
        bench.progress.say(format!("{channels} channels"));
        let ids = sides.opened.iter().map(|it| it.id).collect();
        let load = Load::Spread { channels: ids, pause_us: 0, seed: 1, limit: bench.limit() };
        let paid = sides.pay(&load).await?;
        let payments: Vec<[u64; 2]> = paid.counts.iter().map(|count| [*count, 0]).collect();
        sides.finish(bench, &payments).await?;
        points.push(Point::new(channels.to_string(), paid));
    }
    let title = "Many channels, each paying one payment after the other";
    Ok(Curve { file: "channels.svg", title, over: "channels", points })
}

async fn paths(bench: &Bench) -> Done<Curve> {
    let mut points = Vec::new();
    for (there_and_back_ms, lost_percent) in PATHS {
        let mut sides = Pair::start(bench, Wish::default()).await?;
        sides.fund().await?;
        let delay = Duration::from_secs_f64(there_and_back_ms / 2_000.0);
        let path = Path::to(&sides.daemons[1].ticket, Weather { delay, lost_percent })?;
        sides.opened = channels::open(&sides.daemons[0].client, path.ticket(), sides.plan()).await?;
        let at = if lost_percent == 0 {
            format!("{there_and_back_ms} ms")
        } else {
            format!("{there_and_back_ms} ms, {lost_percent} % lost")
        };
        bench.progress.say(format!("a path of {at}"));
        let full = sides.pay(&saturate(bench, &sides, bench.options.in_flight, 0)?).await?;
        let limit = Limit::Time(Duration::from_secs(bench.options.seconds()));
        let alone = sides.pay(&Load::Single { channel: sides.channel(0)?, pause_us: 0, limit }).await?;
        let all = full.count().saturating_add(alone.count());
        sides.finish(bench, &[[all, 0]]).await?;
        let per_second = per_second(full.count(), full.time);
        points.push(Point { per_second, ..Point::new(at, alone) });
    }
    let title = "Over a path with a delay: a saturated channel's rate, and one payment at a time";
    Ok(Curve { file: "path.svg", title, over: "there and back", points })
}
