//! Waiting for something to be so, without guessing how long it takes.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(45);

/// Asks until there is an answer, and fails the test if there is none for 45 seconds.
pub async fn poll<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks until it is so, and fails the test if it is not for 45 seconds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut so: impl FnMut() -> F) {
    poll(what, || {
        let so = so();
        async { so.await.then_some(()) }
    })
    .await;
}
