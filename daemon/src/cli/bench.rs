//! Measuring payments on this machine.

use super::{Context, output::Failure, view};
use crate::{
    api::{ApiError, ErrorCode},
    bench::Bench,
    run,
};

impl From<run::Failure> for Failure {
    fn from(failure: run::Failure) -> Self {
        let run::Failure { message, exit } = failure;
        Self::Error { error: ApiError::new(ErrorCode::Internal, message, ""), exit }
    }
}

pub(super) async fn run(bench: Bench, context: &Context) -> Result<(), Failure> {
    let output = context.output;
    let report = bench.run(|what| output.note(&format!("{what} ..."))).await?;
    output.value(&report, |report| view::rows(&report.rows()))
}
