//! How the demo's report is shown.

use super::{Context, output::Failure, view};
use crate::{
    api::{ApiError, ErrorCode},
    demo::{Demo, Report},
    failure,
};

pub(super) async fn run(demo: Demo, context: &Context) -> Result<(), Failure> {
    let show = |report: &Report| {
        // A reader who has gone away is no failure of the demo.
        let _ = context.output.value(report, table);
        Ok(())
    };
    demo.run(show).await.map_err(failure)
}

/// What failed in the machines below is shown as any other error.
pub(super) fn failure(failure::Failure { message, exit }: failure::Failure) -> Failure {
    Failure::Error { error: ApiError::new(ErrorCode::Internal, message, ""), exit }
}

fn table(report: &Report) -> String {
    let rows = report.sessions.iter().zip(1..).map(|(line, number)| {
        [
            format!("{number}"),
            line.station.clone(),
            format!("{}.{:03}", line.energy_wh / 1_000, line.energy_wh % 1_000),
            line.payments.to_string(),
            line.paid.to_string(),
            line.car_balance.to_string(),
            line.operator_balance.to_string(),
            line.open_transaction.map_or_else(String::new, |id| view::short(&id)),
            line.close_transaction.map_or_else(String::new, |id| view::short(&id)),
        ]
    });
    let header = ["#", "STATION", "KWH", "PAYMENTS", "PAID", "CAR", "OPERATOR", "OPENED BY", "CLOSED BY"];
    let list = view::list(header, &[0, 2, 3, 4, 5, 6], rows.collect(), "no sessions");
    let totals = view::details([
        (
            "payments",
            Some(format!("{}, {} per second while they flowed", report.payments, report.payments_per_second)),
        ),
        ("paid", Some(view::amount(report.paid))),
        (
            "ledger transactions",
            Some(format!(
                "{}: exactly two for each of {} channels",
                report.ledger_transactions,
                report.sessions.len()
            )),
        ),
        ("sums", Some("every session, every wallet and the supply add up to the unit".to_owned())),
        ("time", Some(format!("{} s", report.seconds))),
    ]);
    format!("{list}\n\n{totals}")
}
