//! The link to one node: a request and its answer, and what becomes of a node that answers wrongly.

use std::time::{Duration, Instant};

use flash_proto::limits::NODE_FRAME_BYTES_MAX;
use quinn::{Connection, VarInt, WriteError};
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::{ClientError, Shared, lock};
use crate::{
    light::{Fault, LightError},
    protocol::{NodeRequest, NodeResponse, REASON_BYTES_MAX, Refused, RefusedCode},
    quic::{
        PeerAddress,
        frames::{FrameError, FrameReader, FrameWriter},
    },
};

/// How long a call waits for a link to any node.
const LINK_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a node may take to answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a call waits until the milestone of an answer has been followed.
const MILESTONE_WAIT_MAX: Duration = Duration::from_secs(10);
/// For how long a node that lied is avoided, as long as there are others.
const SHUN_FOR: Duration = Duration::from_secs(600);
/// Why a connection is closed: the node is of no use.
const CLOSE_FAULTY: u32 = 1;

/// A connection to a node.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) node: PeerAddress,
}

impl Link {
    /// One request and its answer.
    async fn ask(&self, request: &NodeRequest) -> Result<NodeResponse, ClientError> {
        let answer = async {
            let mut reader = self.request(request).await?;
            self.answer(&mut reader).await
        };
        let late = |_| ClientError::Timeout { node: self.node.clone(), waited: ANSWER_WAIT_MAX };
        timeout(ANSWER_WAIT_MAX, answer).await.map_err(late)?
    }

    /// Sends a request on a stream of its own; the answers can be read from what is returned.
    pub(super) async fn request(&self, request: &NodeRequest) -> Result<FrameReader, ClientError> {
        let lost = |error| ClientError::Lost { node: self.node.clone(), error: Box::new(error) };
        let (send, receive) = self.connection.open_bi().await.map_err(lost)?;
        let mut writer = FrameWriter::new(send, NODE_FRAME_BYTES_MAX);
        writer.push(request).map_err(|error| self.frame_error(error))?;
        match writer.finish().await {
            // A node may refuse before it has read everything.
            Ok(()) | Err(FrameError::Write(WriteError::Stopped(_))) => {}
            Err(error) => return Err(self.frame_error(error)),
        }
        Ok(FrameReader::new(receive, NODE_FRAME_BYTES_MAX))
    }

    /// The next answer on a request's stream.
    pub(super) async fn answer(&self, reader: &mut FrameReader) -> Result<NodeResponse, ClientError> {
        let node = self.node.clone();
        match reader.message::<NodeResponse, NODE_FRAME_BYTES_MAX>().await {
            Ok(Some(NodeResponse::Refused(Refused { code, reason }))) => {
                let reason = reason.chars().take(REASON_BYTES_MAX).collect();
                Err(ClientError::Refused { node, code, reason })
            }
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(ClientError::Malformed { node, what: "nothing".to_owned() }),
            Err(error) => Err(self.frame_error(error)),
        }
    }

    fn frame_error(&self, error: FrameError) -> ClientError {
        let node = self.node.clone();
        match error {
            FrameError::Read(_) | FrameError::Write(_) | FrameError::Finished => {
                ClientError::Link { node, error: Box::new(error) }
            }
            malformed => ClientError::Malformed { node, what: malformed.to_string() },
        }
    }
}

impl Shared {
    /// The link to the node that is followed; waits briefly for one.
    pub(super) async fn link(&self) -> Result<Link, ClientError> {
        self.check_halted()?;
        let usable =
            |link: &Option<Link>| link.as_ref().is_some_and(|link| link.connection.close_reason().is_none());
        let mut receiver = self.link.subscribe();
        let found = timeout(LINK_WAIT_MAX, receiver.wait_for(usable)).await;
        let link = found.ok().and_then(Result::ok).and_then(|link| link.clone());
        self.check_halted()?;
        link.ok_or(ClientError::Unreachable)
    }

    /// Asks the node and drops the link if the node is of no use.
    pub(super) async fn ask(&self, link: &Link, request: &NodeRequest) -> Result<NodeResponse, ClientError> {
        let answer = link.ask(request).await;
        answer.inspect_err(|error| self.blame(link, error))
    }

    /// Turns what the light core says about a node's answer into the caller's error, with consequences
    /// for the node.
    pub(super) fn judge<T>(&self, link: &Link, checked: Result<T, LightError>) -> Result<T, ClientError> {
        checked.map_err(|error| {
            if error.fault() == Fault::Fork {
                self.halt(&error);
            }
            let ahead = error.fault() == Fault::Ahead;
            let error = ClientError::of_node(&link.node, &error);
            // While this client catches up, the node is ahead without any fault of its own.
            if !ahead {
                self.blame(link, &error);
            }
            error
        })
    }

    /// The answer is one to another question.
    pub(super) fn unexpected(&self, link: &Link) -> ClientError {
        let what = "the answer to another question".to_owned();
        let error = ClientError::Malformed { node: link.node.clone(), what };
        self.blame(link, &error);
        error
    }

    /// The answer contradicts what was asked.
    pub(super) fn lied(&self, link: &Link, what: &str) -> ClientError {
        let error = ClientError::Lied { node: link.node.clone(), what: what.to_owned() };
        self.blame(link, &error);
        error
    }

    /// Leaves a node that is of no use; one that lied is also avoided for a while.
    pub(super) fn blame(&self, link: &Link, error: &ClientError) {
        let node = &link.node;
        match error {
            ClientError::Lied { what, .. } => {
                warn!(%node, what, "the node lies and is avoided from now on; nothing of it was believed");
                lock(&self.shunned).insert(node.key, Instant::now() + SHUN_FOR);
            }
            ClientError::Malformed { .. }
            | ClientError::Stale { .. }
            | ClientError::Refused { code: RefusedCode::Halted | RefusedCode::Pruned, .. } => {
                info!(%node, %error, "the node is of no use now; another one is tried");
            }
            _ => return,
        }
        link.connection.close(VarInt::from_u32(CLOSE_FAULTY), b"");
    }

    /// Until when a node is avoided.
    pub(super) fn shunned_until(&self, node: &PeerAddress) -> Option<Instant> {
        lock(&self.shunned).get(&node.key).copied().filter(|until| *until > Instant::now())
    }

    /// Waits until the milestone of an answer has been followed. If it takes too long, the check that
    /// comes next says that the answer is ahead. One that is older than `newest`, the newest that was
    /// known when the call began, is not taken: no node can hide what it changed behind an older proof.
    pub(super) async fn reach(
        &self,
        link: &Link,
        newest: u64,
        milestone_index: u64,
    ) -> Result<(), ClientError> {
        if milestone_index < newest {
            return self.judge(link, Err(LightError::Stale { milestone_index, newest }));
        }
        let mut view = self.view.subscribe();
        let reached =
            view.wait_for(|view| view.halted.is_some() || self.core().newest().index >= milestone_index);
        // Either way the check that follows tells.
        let _ = timeout(MILESTONE_WAIT_MAX, reached).await;
        Ok(())
    }

    /// Closes the link, if there is one.
    pub(super) fn disconnect(&self, code: u32) {
        if let Some(link) = self.link.send_replace(None) {
            link.connection.close(VarInt::from_u32(code), b"");
        }
        self.view.send_modify(|view| view.node = None);
    }

    pub(super) fn check_halted(&self) -> Result<(), ClientError> {
        self.view.borrow().halted.clone().map_or(Ok(()), |why| Err(ClientError::Halted(why)))
    }

    fn halt(&self, error: &LightError) {
        error!(%error, "nothing is believed any more");
        self.view.send_modify(|view| view.halted = Some(error.to_string()));
        self.disconnect(CLOSE_FAULTY);
    }
}
