//! Where the messages to a peer wait until its stream takes them.

use flash_proto::message::ChannelMessage;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Messages of one channel that may wait for its stream. A peer that reads so slowly that more wait
/// loses the stream, and is sent what it lacks when it comes back.
const MESSAGES_WAITING_MAX: usize = 512;

/// What the stream of a channel takes from its outbox. In boxes, because room for some dozens is made before there is any.
pub type Waiting = mpsc::Receiver<Box<ChannelMessage>>;

/// The sending end; cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbox {
    messages: mpsc::Sender<Box<ChannelMessage>>,
    closed: CancellationToken,
}

impl Outbox {
    /// An outbox, and what its stream reads. When the token is cancelled, the stream ends.
    pub fn new() -> (Self, Waiting, CancellationToken) {
        let (messages, waiting) = mpsc::channel(MESSAGES_WAITING_MAX);
        let closed = CancellationToken::new();
        (Self { messages, closed: closed.clone() }, waiting, closed)
    }

    /// Ends the stream.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Leaves a message for the stream. If the stream cannot keep up, it ends.
    pub fn send(&self, message: ChannelMessage) {
        if self.messages.try_send(Box::new(message)).is_err() {
            self.closed.cancel();
        }
    }
}
