//! The link to one node: a request and its answer, and what becomes of a node that answers wrongly.

use std::time::{Duration, SystemTime};

use flash_proto::{PublicKey, limits::NODE_FRAME_BYTES_MAX};
use futures_util::future::join_all;
use quinn::{Connection, VarInt, WriteError};
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::{
    ClientError, Shared,
    nodes::{FaultKind, NodeFault, Nodes},
};
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
/// Why a connection is closed: the node is of no use.
const CLOSE_FAULTY: u32 = 1;

/// A connection to a node, as it was when it was chosen.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) node: PeerAddress,
    /// The newest milestone that the node has, as far as is known.
    pub(super) tip: u64,
    /// Whether it has sent that itself.
    pub(super) heard: bool,
}

impl Link {
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
            // A node that stops ends its streams like this.
            Ok(None) => Err(self.frame_error(FrameError::Truncated(0))),
            Err(error) => Err(self.frame_error(error)),
        }
    }

    fn frame_error(&self, error: FrameError) -> ClientError {
        let node = self.node.clone();
        match error {
            FrameError::Read(_) | FrameError::Write(_) | FrameError::Finished | FrameError::Truncated(_) => {
                ClientError::Link { node, error: Box::new(error) }
            }
            malformed => ClientError::Malformed { node, what: malformed.to_string() },
        }
    }
}

impl Shared {
    /// Changes what is known of the nodes, and tells which is the best now.
    pub(super) fn change(&self, change: impl FnOnce(&mut Nodes)) {
        self.nodes.send_modify(change);
        self.view.send_if_modified(|view| {
            let best = self.nodes.borrow().links(0, &[]).into_iter().next().map(|link| link.node);
            let changed = view.node != best;
            view.node = best;
            changed
        });
    }

    /// The links that may be asked what needs milestone `least`, but not those in `tried`, the best first;
    /// waits briefly for one.
    pub(super) async fn links(&self, least: u64, tried: &[PublicKey]) -> Result<Vec<Link>, ClientError> {
        self.check_halted()?;
        let mut changes = self.nodes.subscribe();
        let ready = |nodes: &Nodes| nodes.exhausted(tried) || !nodes.links(least, tried).is_empty();
        // Either way what is there now tells.
        let _ = timeout(LINK_WAIT_MAX, changes.wait_for(ready)).await;
        self.check_halted()?;
        let links = self.nodes.borrow().links(least, tried);
        if links.is_empty() { Err(ClientError::Unreachable) } else { Ok(links) }
    }

    /// Asks the best node, and if its answer is of no use the next one.
    pub(super) async fn first<T, F>(&self, least: u64, ask: impl Fn(Link) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let found = self.find(least, |link| {
            let answer = ask(link);
            async { answer.await.map(Some) }
        });
        found.await?.ok_or(ClientError::Unreachable)
    }

    /// Asks one node after the other until one has what is asked for.
    pub(super) async fn find<T, F>(
        &self,
        least: u64,
        ask: impl Fn(Link) -> F,
    ) -> Result<Option<T>, ClientError>
    where
        F: Future<Output = Result<Option<T>, ClientError>>,
    {
        let (mut tried, mut failed, mut nothing) = (Vec::new(), None, false);
        loop {
            let links = if nothing {
                Ok(self.nodes.borrow().links(least, &tried))
            } else {
                self.links(least, &tried).await
            };
            let link = match links.map(|links| links.into_iter().next()) {
                Ok(Some(link)) => link,
                Ok(None) => return Ok(None),
                Err(error) => return Err(failed.unwrap_or(error)),
            };
            tried.push(link.node.key);
            match ask(link).await {
                Ok(None) => nothing = true,
                Err(error) if error.is_of_node() => {
                    debug!(%error, "another node is asked");
                    failed = Some(error);
                }
                done => return done,
            }
        }
    }

    /// Asks all nodes that have milestone `least` and are not avoided at once: the answers of those that gave
    /// one, the best node's first.
    pub(super) async fn all<T, F>(
        &self,
        least: u64,
        ask: impl Fn(Link) -> F,
    ) -> Result<Vec<(Link, T)>, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let (mut tried, mut failed) = (Vec::new(), None);
        loop {
            let links = match self.links(least, &tried).await {
                Ok(links) => links,
                Err(error) => return Err(failed.unwrap_or(error)),
            };
            tried.extend(links.iter().map(|link| link.node.key));
            let answers = join_all(links.iter().cloned().map(&ask)).await;
            let mut good = Vec::with_capacity(links.len());
            for (link, answer) in links.into_iter().zip(answers) {
                match answer {
                    Ok(answer) => good.push((link, answer)),
                    Err(error) if error.is_of_node() => failed = Some(error),
                    Err(error) => return Err(error),
                }
            }
            if !good.is_empty() {
                return Ok(good);
            }
        }
    }

    /// One request and its answer, with consequences for a node that is of no use.
    pub(super) async fn ask(&self, link: &Link, request: &NodeRequest) -> Result<NodeResponse, ClientError> {
        let waited = self.patience.answer;
        let late = |_| ClientError::Timeout { node: link.node.clone(), waited };
        let asked = async {
            let mut reader = link.request(request).await?;
            link.answer(&mut reader).await
        };
        let answer = timeout(waited, asked).await.map_err(late).flatten();
        answer.inspect_err(|error| self.blame(link, error))
    }

    /// Turns what the light core says about a node's answer into the caller's error, with consequences
    /// for the node.
    pub(super) fn judge<T>(&self, link: &Link, checked: Result<T, LightError>) -> Result<T, ClientError> {
        checked.map_err(|error| {
            if error.fault() == Fault::Fork {
                self.halt(&error);
            }
            // While this client catches up, the node is ahead without any fault of its own. Nor is it the node's that
            // an answer which was new enough when it was asked for has become old before this client came to it.
            let is_of_time = matches!(error.fault(), Fault::Ahead | Fault::Stale);
            let error = ClientError::of_node(&link.node, &error);
            if !is_of_time {
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

    /// The answer contradicts what was asked, or what is proven.
    pub(super) fn lied(&self, link: &Link, what: impl Into<String>) -> ClientError {
        let error = ClientError::Lied { node: link.node.clone(), what: what.into() };
        self.blame(link, &error);
        error
    }

    /// Names a node that is of no use, and leaves it; one that only did not answer stays connected, as it
    /// may be the only one.
    pub(super) fn blame(&self, link: &Link, error: &ClientError) {
        let node = &link.node;
        let kind = match error {
            ClientError::Lied { .. } | ClientError::Malformed { .. } => FaultKind::Lies,
            // It said itself that it is further.
            ClientError::Stale { .. } if link.heard => FaultKind::Lies,
            ClientError::Withheld { .. } => FaultKind::Withholds,
            ClientError::Timeout { .. } => FaultKind::Stalls,
            ClientError::Refused { code: RefusedCode::Halted | RefusedCode::Pruned, .. } => {
                info!(%node, %error, "the node is of no use now");
                return link.connection.close(VarInt::from_u32(CLOSE_FAULTY), b"");
            }
            _ => return,
        };
        warn!(%node, %error, "a node is avoided from now on; nothing wrong was believed");
        let fault =
            NodeFault { node: node.clone(), kind, what: error.fault_text(), since: SystemTime::now() };
        if kind != FaultKind::Stalls {
            link.connection.close(VarInt::from_u32(CLOSE_FAULTY), b"");
        }
        self.change(|nodes| nodes.caught(fault));
    }

    /// Waits until the milestone of an answer has been followed. One that is older than `least`, the newest
    /// that was known when the call began, is not taken: no node can hide what it changed behind an older proof.
    pub(super) async fn reach(
        &self,
        link: &Link,
        least: u64,
        milestone_index: u64,
    ) -> Result<(), ClientError> {
        if milestone_index < least {
            self.change(|nodes| nodes.lower(&link.node.key, milestone_index));
            let stale = LightError::Stale { milestone_index, newest: least };
            let error = ClientError::of_node(&link.node, &stale);
            self.blame(link, &error);
            return Err(error);
        }
        let newest = self.core().newest().index;
        if newest >= milestone_index {
            return Ok(());
        }
        let mut view = self.view.subscribe();
        let reached = view.wait_for(|view| {
            let tip = view.tip.as_ref().map_or(0, |tip| tip.essence.index);
            view.halted.is_some() || tip >= milestone_index
        });
        if timeout(self.patience.answer, reached).await.is_err() && self.core().newest().index == newest {
            // Nothing came at all: this client is not just catching up.
            let behind = milestone_index.saturating_sub(newest);
            let error = ClientError::Withheld { node: link.node.clone(), behind };
            self.blame(link, &error);
            return Err(error);
        }
        Ok(())
    }

    /// Closes all links.
    pub(super) fn disconnect(&self, code: u32) {
        for link in self.nodes.borrow().links(0, &[]) {
            link.connection.close(VarInt::from_u32(code), b"");
        }
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
