//! Waiting for the daemon, visibly and interruptibly.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use super::output::Failure;
use crate::api::{ApiError, ErrorCode};

/// Waits that are shorter are not worth a word.
const SILENT: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(100);

/// Waits for `work`. After two seconds a terminal shows what is waited for. Ctrl-C ends the wait, not
/// the work, which `goes_on` says how to look at.
pub(super) async fn wait<T>(
    what: &str,
    goes_on: &str,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(work);
    let finished = async {
        if let Ok(done) = tokio::time::timeout(SILENT, &mut work).await {
            return done;
        }
        let _spinner = spinner(what);
        work.await
    };
    interruptible(goes_on, async { Ok(finished.await?) }).await
}

/// Runs `work` until it ends or Ctrl-C is pressed.
pub(super) async fn interruptible<T>(
    goes_on: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        Ok(()) = tokio::signal::ctrl_c() => {
            let message = "interrupted; what was asked for goes on in the daemon";
            Err(ApiError::new(ErrorCode::Timeout, message, goes_on).into())
        }
    }
}

fn spinner(what: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner()
        .with_message(what.to_owned())
        .with_elapsed(SILENT)
        // Also when the wait is interrupted.
        .with_finish(ProgressFinish::AndClear);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(TICK);
    spinner
}
