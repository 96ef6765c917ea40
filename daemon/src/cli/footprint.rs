//! Measuring memory and disk on this machine.

use super::{Context, demo, output::Failure, view};
use crate::bench::footprint::{Footprint, FootprintReport, Line};

pub(super) async fn run(footprint: Footprint, context: &Context) -> Result<(), Failure> {
    let output = context.output;
    let measured = footprint.run(|what| output.note(what)).await;
    output.value(&measured.map_err(demo::failure)?, table)
}

fn table(report: &FootprintReport) -> String {
    let header = ["WHILE", "PROCESS", "MEMORY", "PEAK", "PAYMENTS", "COMMITS", "WRITTEN A SECOND", "A DAY"];
    let list =
        view::list(header, &[2, 3, 4, 5, 6, 7], report.lines.iter().map(Line::row).collect(), "nothing");
    let FootprintReport { machine, outputs, milestone_ms, .. } = report;
    format!("{list}\n\n{}; {outputs} outputs, milestones every {milestone_ms} ms", machine.line())
}
