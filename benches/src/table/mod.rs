//! The table: its rows, run one after the other.

mod baselines;
mod curves;
mod line;
mod machine;
mod meter;
mod options;
mod pair;
mod programs;
mod progress;
mod report;
mod rows;
pub(crate) mod worker;

use std::{ffi::OsString, process::ExitCode, time::Duration};

use clap::Parser;
use flashd::failure::Failure;

use self::{
    baselines::Baselines, line::Line, machine::Surroundings, options::Options, programs::Programs,
    progress::Progress, report::Report, rows::Row,
};

/// What the rows come to, or what went wrong: something crashed, does not answer, or a sum is wrong.
type Done<T = ()> = Result<T, Failure>;

/// A row that takes longer hangs.
const ROW_MAX: Duration = Duration::from_secs(3 * 3_600);

/// What every row has.
struct Bench {
    options: Options,
    progress: Progress,
    baselines: Baselines,
    programs: Programs,
}

/// Runs the rows that are asked for.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    let options = Options::parse_from(arguments);
    if options.list {
        for row in rows::ALL {
            println!("{:<12} {}", row.name, row.what);
        }
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all rows worked, however fast they were.
async fn run(options: Options) -> Done<bool> {
    let rows = rows::chosen(&options)?;
    let programs = Programs::find(&options)?;
    let surroundings = Surroundings::look(&options, &programs)?;
    eprintln!("{surroundings}");
    let bench = Bench { options, progress: Progress::default(), baselines: Baselines::default(), programs };
    if let Some(dir) = bench.options.curves.clone() {
        bench.progress.begin("curves");
        tokio::select! {
            drawn = curves::draw(&bench, &dir) => drawn?,
            never = bench.progress.show() => match never {},
        }
        return Ok(true);
    }
    let mut lines = Vec::new();
    for row in rows {
        lines.extend(bench.row(row).await);
    }
    Progress::end();
    let report = Report::new(surroundings, &bench.options, lines);
    println!("{report}");
    report.write(&bench.options.json_path()?)?;
    Ok(report.worked())
}

impl Bench {
    /// Runs one row. Its failure is a line of the table: the others may still work.
    async fn row(&self, row: &Row) -> Vec<Line> {
        self.progress.begin(row.name);
        let measured = tokio::select! {
            measured = tokio::time::timeout(ROW_MAX, (row.run)(self)) => {
                measured.unwrap_or_else(|_| Err(Failure::new("it hangs")))
            }
            never = self.progress.show() => match never {},
            Ok(()) = tokio::signal::ctrl_c() => Err(Failure::new("interrupted")),
        };
        match measured {
            Ok(lines) => lines,
            Err(error) => {
                self.progress.failed();
                vec![Line::failed(row.name, row.what, &error)]
            }
        }
    }
}
