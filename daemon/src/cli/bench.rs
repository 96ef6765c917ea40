//! Measuring payments on this machine.

use super::{Context, demo, output::Failure, view};
use crate::bench::Bench;

pub(super) async fn run(bench: Bench, context: &Context) -> Result<(), Failure> {
    let output = context.output;
    let measured = bench.run(|what| output.note(what)).await;
    output.value(&measured.map_err(demo::failure)?, |report| view::rows(&report.rows()))
}
