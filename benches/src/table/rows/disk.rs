//! What a long run on one channel leaves on the disk.

use std::{fs, path::Path};

use flashd::{bench::load::Limit, failure::Failure};

use super::saturated;
use crate::table::{
    Bench, Done,
    line::Line,
    pair::{Pair, Wish},
    worker::Load,
};

pub(super) const NAME: &str = "growth";

/// The run is looked at after each of so many equal parts.
const PARTS: u64 = 4;

pub(super) async fn run(bench: &Bench) -> Done<Vec<Line>> {
    let sides = Pair::open(bench, Wish::default()).await?;
    let part = bench.options.long() / PARTS;
    let load = Load::Saturate {
        channel: sides.channel(0)?,
        list: bench.options.per_call,
        in_flight: bench.options.in_flight,
        reference_bytes: saturated::REFERENCE_BYTES,
        limit: Limit::Payments(part),
    };
    let before = on_disk(&sides)?;
    let (mut taken, mut count) = (Vec::new(), 0_u64);
    let meter = sides.meter(false).await?;
    for at in 1..=PARTS {
        bench.progress.say(format!("part {at} of {PARTS}: {part} payments"));
        count = count.saturating_add(sides.pay(&load).await?.count());
        taken.push(on_disk(&sides)?);
    }
    let spent = meter.stop().await?;
    sides.finish(bench, &[[count, 0]]).await?;
    let (first, last) = (taken[0], taken[taken.len() - 1]);
    let how = format!("all files of both daemons' stores; {count} payments of one channel");
    #[expect(clippy::cast_precision_loss, reason = "numbers to be looked at; no money")]
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let mut lines = vec![Line::measured(NAME, "stores before", mb(before), "MB").how(&*how)];
    for (size, at) in taken.iter().zip(1..) {
        let what = format!("stores after {} payments", part.saturating_mul(at));
        lines.push(Line::measured(NAME, what, mb(*size), "MB").how(&*how));
    }
    let later = mb(last) - mb(first);
    #[expect(clippy::cast_precision_loss, reason = "a number to be looked at; no money")]
    let each = later * 1e6 / (count - part).max(1) as f64;
    lines.push(
        Line::measured(NAME, "growth for each payment after the first part", each, "B")
            .how("0 or less: bounded; the size moves with what the store has not cleaned up yet"),
    );
    lines.push(
        Line::measured(NAME, "written, for each payment of the run", spent.disk_bytes(count), "B")
            .at_most(30.0)
            .cpu(spent.cpu(count))
            .how("write_bytes of /proc/PID/io, both daemons"),
    );
    Ok(lines)
}

/// Bytes that the stores of both daemons take.
fn on_disk(sides: &Pair) -> Done<u64> {
    sides.data().iter().try_fold(0, |sum: u64, data| Ok(sum.saturating_add(size(data)?)))
}

/// What all files below take: a file's blocks, not its length, since a file may have holes.
fn size(path: &Path) -> Done<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0_u64;
    for entry in fs::read_dir(path).map_err(Failure::new)? {
        let entry = entry.map_err(Failure::new)?;
        // A file that a store has just removed takes nothing.
        let Ok(about) = entry.metadata() else { continue };
        let bytes = if about.is_dir() { size(&entry.path())? } else { about.blocks().saturating_mul(512) };
        sum = sum.saturating_add(bytes);
    }
    Ok(sum)
}
