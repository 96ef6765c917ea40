//! What the program takes before it does anything.

use std::{fs, time::Duration};

use flashd::{bench::footprint::usage::Usage, failure::Failure};

use crate::table::{
    Bench, Done,
    line::Line,
    pair::{Pair, Wish},
};

pub(super) const NAME: &str = "footprint";

/// So long a daemon may come to rest.
const SETTLE: Duration = Duration::from_secs(5);

#[expect(clippy::cast_precision_loss, reason = "numbers to be looked at; no money")]
pub(super) async fn run(bench: &Bench) -> Done<Vec<Line>> {
    let path = bench.programs.flashd_path();
    let bytes = fs::metadata(path).map_err(Failure::new)?.len();
    let sides = Pair::open(bench, Wish { embedded: [false; 2], ..Wish::default() }).await?;
    bench.progress.say("at rest");
    tokio::time::sleep(SETTLE).await;
    let pid = sides.daemons[0].pid().ok_or_else(|| Failure::new("the daemon has ended"))?;
    let usage = Usage::read(pid, None).await?;
    sides.finish(bench, &[[0; 2]]).await?;
    Ok(vec![
        Line::measured(NAME, "the program flashd", bytes as f64 / 1e6, "MB")
            .at_most(12.0)
            .how(path.display().to_string()),
        Line::measured(
            NAME,
            "memory of a daemon with one channel",
            usage.resident_kib as f64 * 1.024 / 1_000.0,
            "MB",
        )
        .at_most(20.0)
        .how("VmRSS, at rest"),
    ])
}
