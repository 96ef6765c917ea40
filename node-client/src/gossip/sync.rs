//! Catching up: with the milestones, and with what was missed.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use flash_proto::{BlockId, PublicKey};
use quinn::Connection;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::{debug, info};

use super::{
    ask::{Answer, AskError, want},
    message::{Request, WANT_IDS_MAX},
    neighbours::Deed,
    state::Shared,
};
use crate::{
    node::{NodeError, PreparedBlocks, Received, Source},
    protocol::RefusedCode,
};

/// How long the next milestone may be on its way before it is asked for.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
/// How long blocks may be on their way before they count as missed.
const DOUBT: Duration = Duration::from_secs(1);
/// How long after a link broke it is looked whom to catch up with.
const LINK_WAIT: Duration = Duration::from_millis(100);
/// Blocks that may wait for a milestone at a neighbour: more than any node takes.
const WAITING_IDS_MAX: usize = 300_000;

/// Bytes of blocks that are taken in together, beside the last frame's.
const PAGE_BYTES: usize = 512 * 1024;

/// Why catching up with a neighbour ended early.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("a block that is not what comes next: {0:?}")]
    Wrong(Received),
    #[error("this node takes no more blocks now")]
    Busy,
}

impl SyncError {
    const fn deed(&self) -> Option<Deed> {
        match self {
            Self::Ask(error) => error.deed(),
            Self::Wrong(Received::Refused(_)) => Some(Deed::InvalidBlock),
            Self::Wrong(_) => Some(Deed::Unanswered),
            Self::Node(_) | Self::Busy => None,
        }
    }
}

/// Catches up whenever a neighbour is ahead, until the node stops.
pub(super) async fn run(shared: Arc<Shared>) -> NodeError {
    let mut newest = shared.node.newest();
    loop {
        let ours = *newest.borrow_and_update();
        if let Some(why) = shared.node.halted() {
            return NodeError::Halted(why.to_owned());
        }
        let Some((key, connection, theirs)) = shared.furthest(ours) else {
            // Also from time to time, for those that had nothing a while ago.
            let _ = timeout(ON_ITS_WAY, shared.ahead.notified()).await;
            continue;
        };
        if theirs == ours.saturating_add(1) && timeout(ON_ITS_WAY, newest.changed()).await.is_ok() {
            continue;
        }
        shared.syncing.store(true, Ordering::Relaxed);
        let ended = follow(&shared, key, &connection, ours).await;
        shared.syncing.store(false, Ordering::Relaxed);
        let reached = shared.newest();
        let had_its_turn = match &ended {
            Ok(count) => {
                info!(%key, after = ours, reached, blocks = count, "caught up");
                true
            }
            Err(error) => {
                info!(%key, after = ours, reached, %error, "catching up with a neighbour ended early");
                if let Some(deed) = error.deed() {
                    shared.count(&key, deed);
                }
                error.deed().is_some()
            }
        };
        if reached > ours {
            shared.doubt(&key, Vec::new());
        } else if had_its_turn {
            shared.no_sync(&key);
        } else {
            // The link broke, perhaps for another one to the same node.
            sleep(LINK_WAIT).await;
        }
    }
}

/// Takes in all that the milestones after `after` confirmed. Three pages are worked on at a time: while one is
/// taken in, the next is checked, and those after it come.
async fn follow(
    shared: &Arc<Shared>,
    key: PublicKey,
    connection: &Connection,
    after: u64,
) -> Result<usize, SyncError> {
    let mut answer = Answer::to(connection, &Request::Sync { after }).await?;
    let mut next = next_page(shared, &mut answer).await?;
    let mut count = 0_usize;
    while let Some(page) = next {
        let ids = page.ids();
        count = count.saturating_add(ids.len());
        let taking = Arc::clone(shared);
        let taken = shared.node.blocking(move |_| take(&taking, &key, &ids, page));
        let (taken, page) = tokio::join!(taken, next_page(shared, &mut answer));
        taken?;
        next = page?;
    }
    Ok(count)
}

/// The next frames of an answer, as many as are worth a commit, checked; `None` if it is over.
async fn next_page(shared: &Shared, answer: &mut Answer) -> Result<Option<PreparedBlocks>, SyncError> {
    let (mut blocks, mut bytes) = (Vec::new(), 0_usize);
    while bytes < PAGE_BYTES
        && let Some(frame) = answer.blocks().await?
    {
        bytes = frame.iter().map(Vec::len).fold(bytes, usize::saturating_add);
        blocks.extend(frame);
    }
    if blocks.is_empty() {
        return Ok(None);
    }
    shared.node.blocking(move |node| Ok(Some(node.prepare(&blocks, Source::Asked)))).await
}

fn take(shared: &Shared, key: &PublicKey, ids: &[BlockId], blocks: PreparedBlocks) -> Result<(), SyncError> {
    {
        // Before they are here, so that they are not sent on to those who have them.
        let mut state = shared.state();
        for id in ids {
            state.old.insert(id.as_bytes());
        }
    }
    let received = shared.node.take(blocks)?;
    let mut state = shared.state();
    for (id, received) in ids.iter().zip(received) {
        match received {
            Received::Added | Received::Known => drop(state.seen.insert(id.as_bytes())),
            Received::Refused(refused) if refused.code == RefusedCode::Busy => return Err(SyncError::Busy),
            other => return Err(SyncError::Wrong(other)),
        }
    }
    if let Some(neighbour) = state.neighbours.get_mut(key) {
        let count = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        neighbour.standing.received = neighbour.standing.received.saturating_add(count);
        neighbour.standing.useful_at = shared.now();
    }
    Ok(())
}

/// Asks one neighbour for all that was missed, whenever there is doubt.
pub(super) async fn make_good(
    shared: &Arc<Shared>,
    key: PublicKey,
    connection: &Connection,
    doubted: &Notify,
) -> AskError {
    loop {
        doubted.notified().await;
        sleep(DOUBT).await;
        let ours = shared.newest();
        // First the milestones; what else is missed then shows again.
        if shared.is_syncing() || shared.furthest(ours.saturating_add(1)).is_some() {
            doubted.notify_one();
            continue;
        }
        let signs = shared.state().neighbours.get_mut(&key).and_then(|neighbour| neighbour.doubt.take());
        let Some(signs) = signs else { continue };
        match fetch_missed(shared, key, connection, signs).await {
            Ok(0) => {}
            Ok(count) => debug!(%key, count, "asked for blocks that were missed"),
            Err(error @ AskError::Lost(_)) => return error,
            Err(error) => {
                debug!(%key, %error, "what was missed did not come");
                if let Some(deed) = error.deed() {
                    shared.count(&key, deed);
                }
            }
        }
    }
}

/// How many blocks were asked for.
async fn fetch_missed(
    shared: &Arc<Shared>,
    key: PublicKey,
    connection: &Connection,
    signs: Vec<BlockId>,
) -> Result<usize, AskError> {
    if !signs.is_empty() && lacking(shared, signs).await.is_empty() {
        return Ok(0);
    }
    let mut answer = Answer::to(connection, &Request::Waiting).await?;
    let (mut listed, mut asked) = (0_usize, 0_usize);
    while let Some(ids) = answer.ids().await? {
        listed = listed.saturating_add(ids.len());
        if listed > WAITING_IDS_MAX {
            return Err(AskError::Unexpected);
        }
        for ids in lacking(shared, ids).await.chunks(WANT_IDS_MAX) {
            shared.wait_for_budget(&key, ids.len()).await;
            // In the meantime they may have come from elsewhere.
            let ids = lacking(shared, ids.to_vec()).await;
            asked = asked.saturating_add(ids.len());
            if !ids.is_empty() {
                want(shared, key, connection, ids, Source::Sent).await?;
            }
        }
    }
    Ok(asked)
}

/// Those that are not here; none if the node has stopped.
async fn lacking(shared: &Shared, ids: Vec<BlockId>) -> Vec<BlockId> {
    shared.node.blocking(move |node| node.lacks(&ids)).await.unwrap_or_default()
}

impl Shared {
    /// Blocks that were missed count like those that are sent, but are waited for: else a neighbour could
    /// flood by sending only a few and having the others asked for.
    async fn wait_for_budget(&self, key: &PublicKey, blocks: usize) {
        let wait = {
            let now = self.now();
            let mut state = self.state();
            let Some(neighbour) = state.neighbours.get_mut(key) else { return };
            let wait = neighbour.budget.wait(self.rule, now, blocks);
            neighbour.budget.spend(0, u64::try_from(blocks).unwrap_or(u64::MAX));
            wait
        };
        sleep(wait).await;
    }
}
