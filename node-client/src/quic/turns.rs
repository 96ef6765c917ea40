//! Tasks that let others go first.

use std::{
    io,
    net::UdpSocket,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

/// A task that, each time it is woken, lets all tasks go first that are ready with it: what they leave for it is
/// handled at once, and not one by one. Tokio would run it right after the first task that wakes it.
///
/// ```
/// # use flash_node_client::quic::Last;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let task = tokio::spawn(Last::new(Box::pin(async { 7 })));
/// assert_eq!(task.await.unwrap(), 7);
/// # }
/// ```
#[derive(Debug)]
pub struct Last<F> {
    inner: F,
    /// Others go first now.
    steps_back: bool,
}

impl<F> Last<F> {
    /// What is to run behind others.
    pub const fn new(inner: F) -> Self {
        Self { inner, steps_back: false }
    }
}

impl<F: Future + Unpin> Future for Last<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.steps_back = !self.steps_back;
        if self.steps_back {
            // A task that wakes itself goes to the end of the queue.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll(context)
    }
}

/// Tokio's runtime, in which the tasks of QUIC send and receive for all streams that are ready.
#[derive(Debug)]
pub(super) struct Together;

impl Runtime for Together {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(Last::new(future));
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::Last;

    /// Takes all that waits, turn by turn, until nothing more can come. Gives the turns.
    async fn take(mut receiver: mpsc::UnboundedReceiver<u8>) -> usize {
        let (mut taken, mut turns) = (Vec::new(), 0);
        while receiver.recv_many(&mut taken, 8).await > 0 {
            turns += 1;
        }
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2]);
        turns
    }

    // All tasks share the queue of one thread; the test's own is not one of them.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_others_leave_is_taken_in_one_turn() {
        let turns = tokio::spawn(async {
            let (sender, receiver) = mpsc::unbounded_channel();
            let taker = tokio::spawn(Last::new(Box::pin(take(receiver))));
            tokio::task::yield_now().await; // it waits by now
            for number in 0..3 {
                let sender = sender.clone();
                tokio::spawn(async move { sender.send(number) });
            }
            drop(sender);
            taker.await.unwrap()
        });
        assert_eq!(turns.await.unwrap(), 1);
    }
}
