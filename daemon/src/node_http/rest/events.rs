//! Blocks and milestones as they come (server-sent events), for those who draw the Tangle.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use axum::{
    extract::State,
    response::{
        IntoResponse, Response, Sse,
        sse::{self, KeepAlive},
    },
};
use flash_node_client::node::{Arrival, BlockState, Confirmed, Node, NodeError};
use flash_proto::{Amount, Block, BlockId, Payload, codec, limits::BLOCK_BYTES_MAX};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{
    OwnedSemaphorePermit,
    broadcast::{
        self,
        error::{RecvError, TryRecvError},
    },
    watch,
};
use utoipa::ToSchema;

use super::{Api, describe, views::BlockMetadata};
use crate::api::{ApiError, ErrorCode};

/// Blocks of one milestone that are told; of more, the rest is to be asked for.
const INCLUDED_MAX: usize = 8_000;

/// The data of the events of kind `block`: a block that was just taken in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewBlock {
    /// Its id.
    #[schema(value_type = String)]
    id: BlockId,
    /// The blocks that it approves.
    #[schema(value_type = Vec<String>)]
    parents: Vec<BlockId>,
    /// `empty`, `transaction`, `milestone` or `data`.
    payload: &'static str,
    /// What its transaction's outputs hold together.
    #[schema(value_type = String)]
    value: Amount,
    /// Its size.
    bytes: usize,
}

/// The data of the events of kind `milestone`: what it made of the blocks that it confirmed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewMilestone {
    /// Its index.
    index: u64,
    /// The block that carries it.
    #[schema(value_type = String)]
    block: BlockId,
    /// The blocks that it confirmed, in the order in which it applied them, at most 8000.
    confirmed: Vec<BlockMetadata>,
}

/// Follows what happens from now on: `event:` is `block` (the data is a `NewBlock`) or `milestone` (a
/// `NewMilestone`). A caller that reads too slowly gets an event `missed` with the number of blocks that were
/// left out; milestones are never left out.
#[utoipa::path(get, path = "/api/v1/events", tag = "node",
    responses((status = 200, body = NewBlock, content_type = "text/event-stream"),
        (status = "default", body = ApiError)))]
pub(super) async fn events(State(api): State<Api>) -> Result<Response, ApiError> {
    let Ok(place) = Arc::clone(&api.followers).try_acquire_owned() else {
        let message = "too many callers follow what happens";
        return Err(ApiError::new(ErrorCode::Busy, message, "try again when one of them has left"));
    };
    let follower = Follower::new(api, place);
    let stream = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

/// One caller's way through what happens.
struct Follower {
    api: Api,
    arrivals: broadcast::Receiver<Arc<Arrival>>,
    newest: watch::Receiver<u64>,
    /// The last milestone that was told.
    told: u64,
    ready: VecDeque<sse::Event>,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    fn new(api: Api, place: OwnedSemaphorePermit) -> Self {
        let arrivals = api.node.arrivals();
        let newest = api.node.newest();
        let told = *newest.borrow();
        Self { api, arrivals, newest, told, ready: VecDeque::new(), _place: place }
    }

    /// The next event; `None` when there will be none.
    async fn next(&mut self) -> Option<sse::Event> {
        while self.ready.is_empty() {
            let told = self.told;
            let arrival = tokio::select! {
                () = self.api.stop.cancelled() => return None,
                arrival = self.arrivals.recv() => Some(arrival),
                risen = self.newest.wait_for(|newest| *newest > told) => {
                    risen.map(drop).ok()?;
                    None
                }
            };
            match arrival {
                Some(Ok(arrival)) => self.ready.extend(block(&arrival)),
                Some(Err(RecvError::Lagged(count))) => self.ready.push_back(missed(count)),
                Some(Err(RecvError::Closed)) => return None,
                None => self.milestone().await?,
            }
        }
        self.ready.pop_front()
    }

    /// Makes the next milestone ready, after the blocks that came before it.
    async fn milestone(&mut self) -> Option<()> {
        for _ in 0..self.arrivals.len() {
            match self.arrivals.try_recv() {
                Ok(arrival) => self.ready.extend(block(&arrival)),
                Err(TryRecvError::Lagged(count)) => self.ready.push_back(missed(count)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let index = self.told.saturating_add(1);
        let milestone = self.api.ask(move |node| told(node, index)).await.ok()?;
        self.told = index;
        self.ready.push_back(event("milestone", &milestone));
        Some(())
    }
}

fn told(node: &Node, index: u64) -> Result<NewMilestone, NodeError> {
    let missing = || NodeError::Damaged("milestone");
    let milestone = node.milestone(Some(index))?.ok_or_else(missing)?;
    let included = node.included(index, 0, INCLUDED_MAX)?.ok_or_else(missing)?;
    let confirmed = included.into_iter().map(|(id, outcome)| {
        BlockMetadata::new(id, BlockState::Confirmed(Confirmed { milestone_index: index, outcome }))
    });
    Ok(NewMilestone { index, block: milestone.block, confirmed: confirmed.collect() })
}

fn missed(count: u64) -> sse::Event {
    event("missed", &count)
}

fn block(arrival: &Arrival) -> Option<sse::Event> {
    let block = codec::decode::<Block, BLOCK_BYTES_MAX>(&arrival.bytes).ok()?;
    let (payload, value) = match &block.payload {
        Payload::Empty => ("empty", Amount::ZERO),
        Payload::Transaction(transaction) => ("transaction", describe::value(transaction)),
        Payload::Milestone(_) => ("milestone", Amount::ZERO),
        Payload::Data(_) => ("data", Amount::ZERO),
    };
    let (id, bytes) = (arrival.id, arrival.bytes.len());
    Some(event("block", &NewBlock { id, parents: block.parents, payload, value, bytes }))
}

fn event(kind: &str, data: &impl Serialize) -> sse::Event {
    // JSON has no line ends outside of its strings, and escapes those inside.
    sse::Event::default().event(kind).data(serde_json::to_string(data).unwrap_or_default())
}
