//! What is being done, on standard error.

use std::{
    convert::Infallible,
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A step that takes no longer is over before anybody asks.
const QUIET: Duration = Duration::from_secs(2);
/// How often a step that goes on is shown where lines stay.
const AGAIN: u64 = 10;

/// The step that is under way.
#[derive(Debug)]
pub(crate) struct Progress(Mutex<Step>);

#[derive(Debug)]
struct Step {
    row: &'static str,
    what: String,
    since: Instant,
    /// Where its processes have their data and their logs.
    dir: Option<PathBuf>,
}

impl Default for Progress {
    fn default() -> Self {
        Self(Mutex::new(Step { row: "", what: String::new(), since: Instant::now(), dir: None }))
    }
}

impl Progress {
    fn step(&self) -> MutexGuard<'_, Step> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with a row.
    pub(crate) fn begin(&self, row: &'static str) {
        *self.step() = Step { row, what: "starting".to_owned(), since: Instant::now(), dir: None };
    }

    /// Where the processes of the row have their data and their logs.
    pub(crate) fn in_dir(&self, dir: &Path) {
        self.step().dir = Some(dir.to_owned());
    }

    /// Says where the logs of the row are, after it failed.
    pub(crate) fn failed(&self) {
        let step = self.step();
        if let Some(dir) = &step.dir {
            eprintln!("{} failed while {}; the logs and data are in {}", step.row, step.what, dir.display());
        }
    }

    /// The next step of the row.
    pub(crate) fn say(&self, what: impl Into<String>) {
        let mut step = self.step();
        step.what = what.into();
        step.since = Instant::now();
    }

    /// Shows each step that takes longer than two seconds.
    pub(crate) async fn show(&self) -> Infallible {
        let terminal = std::io::stderr().is_terminal();
        let mut ticks = tokio::time::interval(QUIET);
        loop {
            ticks.tick().await;
            let step = self.step();
            let seconds = step.since.elapsed().as_secs();
            if seconds < QUIET.as_secs() {
                continue;
            }
            if terminal {
                eprint!("\r\x1b[K{}: {} ({seconds} s)", step.row, step.what);
            } else if seconds < 2 * QUIET.as_secs() || seconds % AGAIN < QUIET.as_secs() {
                eprintln!("{}: {} ({seconds} s)", step.row, step.what);
            }
        }
    }

    /// Leaves an empty line where the steps were shown.
    pub(crate) fn end() {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}
