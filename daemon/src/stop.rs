//! How the daemon stops: in order, or because something failed that must not be worked around.

use std::{io, sync::Arc, time::Duration};

use flash_channel::store::StoreError;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{exit::Exit, failure::Failure};

/// Whether the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Running {
    /// It runs.
    Yes,
    /// It was asked to stop.
    Stopping,
    /// It must stop: what failed, and whether that was the store.
    Failed {
        /// What failed, for people.
        reason: String,
        /// Whether it was the store.
        store: bool,
    },
}

/// Stops the daemon and tells everyone who waits; cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop(Arc<watch::Sender<Running>>);

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Running::Yes)))
    }
}

impl Stop {
    /// Asks for an orderly stop.
    pub fn stop(&self) {
        self.0.send_if_modified(|running| {
            let runs = *running == Running::Yes;
            if runs {
                *running = Running::Stopping;
            }
            runs
        });
    }

    /// Stops because something failed. The first failure is kept: the later ones follow from it.
    pub fn fail(&self, reason: String, store: bool) {
        self.0.send_if_modified(|running| {
            let first = !matches!(running, Running::Failed { .. });
            if first {
                tracing::error!(%reason, "stopping");
                *running = Running::Failed { reason, store };
            }
            first
        });
    }

    /// Stops because what is stored cannot be read or written (I13).
    pub fn fail_store(&self, error: &StoreError) {
        self.fail(format!("the store failed: {error}"), true);
    }

    /// Whether the daemon runs.
    pub fn running(&self) -> Running {
        self.0.borrow().clone()
    }

    /// With what the process ends, now that it has stopped.
    ///
    /// # Errors
    /// [`Failure`]: what failed, if something did.
    pub(crate) fn outcome(&self) -> Result<(), Failure> {
        match self.running() {
            Running::Failed { reason, store } => {
                Err(Failure { message: reason, exit: if store { Exit::StoreFailed } else { Exit::Failed } })
            }
            Running::Yes | Running::Stopping => Ok(()),
        }
    }

    /// Waits until it no longer runs.
    pub async fn stopped(&self) {
        let mut receiver = self.0.subscribe();
        // The sender lives as long as `self`.
        let _ = receiver.wait_for(|running| *running != Running::Yes).await;
    }
}

/// How long HTTP calls that are under way may still take once the process stops.
const CALLS_WAIT: Duration = Duration::from_secs(5);

/// Runs an HTTP server, which ends in order on `stopping`, until `stop` resolves; calls that are under way then
/// have a few seconds to end.
pub(crate) async fn serve_until(
    server: impl IntoFuture<Output = io::Result<()>>,
    stopping: CancellationToken,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut server = std::pin::pin!(server.into_future());
    tokio::select! {
        ended = &mut server => return ended,
        () = stop => stopping.cancel(),
    }
    timeout(CALLS_WAIT, server).await.unwrap_or_else(|_elapsed| {
        tracing::info!("HTTP calls that were still under way are cut off");
        Ok(())
    })
}

/// If this variable is set, the end of standard input stops the process in order: so it ends with the
/// one that started it, however that ends.
pub const STOP_WITH_STDIN_ENV: &str = "FLASH_STOP_WITH_STDIN";

/// Returns at the end of standard input, if that is to stop the process.
async fn stdin_ended() {
    if std::env::var_os(STOP_WITH_STDIN_ENV).is_none() {
        return std::future::pending().await;
    }
    let (ended, end) = tokio::sync::oneshot::channel();
    // A thread of its own, because a read from standard input cannot be given up.
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}

/// Stops in order on Ctrl-C or SIGTERM.
pub(crate) async fn stop_on_signal(stop: Stop) {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => {
            tracing::warn!(%error, "cannot listen to SIGTERM");
            return;
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        () = stdin_ended() => {}
        () = stop.stopped() => return,
    }
    tracing::info!("stopping");
    stop.stop();
}
