//! The REST API: the ledger as JSON, with proofs as the bytes that verify (hexadecimal), described by
//! `/openapi.json`.

mod blocks;
mod describe;
mod events;
mod ledger;
mod node;
mod openapi;
mod views;

use axum::{
    Json, Router,
    routing::{get, post},
};
use flash_node_client::{
    node::NodeError,
    protocol::{Refused, RefusedCode},
};
pub use openapi::document;

use super::{Api, work::WorkError};
use crate::api::{ApiError, ErrorCode};

type Answer<T> = Result<Json<T>, ApiError>;

/// Items in one answer at most, and if nothing else is asked for.
const PAGE_MAX: usize = 1_000;
const PAGE: usize = 100;

/// Every route whose calls take a bounded time.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/info", get(node::info))
        .route("/api/v1/peers", get(node::peers))
        .route("/api/v1/tips", get(node::tips))
        .route("/api/v1/blocks", get(blocks::find))
        .route("/api/v1/blocks", post(blocks::submit))
        .route("/api/v1/blocks/{id}", get(blocks::block))
        .route("/api/v1/blocks/{id}/raw", get(blocks::raw))
        .route("/api/v1/blocks/{id}/metadata", get(blocks::metadata))
        .route("/api/v1/addresses/{address}/outputs", get(ledger::outputs))
        .route("/api/v1/outputs/{id}", get(ledger::output))
        .route("/api/v1/channels/{id}", get(ledger::channel))
        .route("/api/v1/transactions/{id}", get(ledger::transaction))
        .route("/api/v1/milestones/{index}", get(ledger::milestone))
        .route("/api/v1/milestones/{index}/blocks", get(ledger::included))
        .route("/openapi.json", get(openapi::openapi))
}

/// The routes whose calls take as long as they take, each bounded in its own way.
pub(super) fn long_routes() -> Router<Api> {
    Router::new().route("/api/v1/payloads", post(blocks::attach)).route("/api/v1/events", get(events::events))
}

const PRUNED_HINT: &str = "ask a permanode: it keeps everything";

impl From<NodeError> for ApiError {
    fn from(error: NodeError) -> Self {
        let (code, hint) = match error {
            NodeError::Pruned { .. } => (ErrorCode::NotFound, PRUNED_HINT),
            _ => (ErrorCode::LedgerUnavailable, "see the node's log; it has to be restarted"),
        };
        Self::new(code, error.to_string(), hint)
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let (code, hint) = match refused.code {
            RefusedCode::Pruned => (ErrorCode::NotFound, PRUNED_HINT),
            RefusedCode::MoreWork { .. } => {
                (ErrorCode::Busy, "do more work for the block, or try again later")
            }
            RefusedCode::Busy => (ErrorCode::Busy, "try again after the next milestone"),
            RefusedCode::Halted => (ErrorCode::LedgerUnavailable, "see the node's log"),
            RefusedCode::Malformed => {
                (ErrorCode::InvalidRequest, "GET /openapi.json describes every request")
            }
            _ => (ErrorCode::LedgerRefused, "make another block; the message says what was wrong"),
        };
        Self::new(code, refused.reason, hint)
    }
}

impl From<WorkError> for ApiError {
    fn from(error: WorkError) -> Self {
        let code = if error == WorkError::Busy { ErrorCode::Busy } else { ErrorCode::LedgerUnavailable };
        Self::new(code, error.to_string(), "try again later")
    }
}

/// The node answered something else than it was asked: a defect.
fn unexpected() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the node answered something else than it was asked", "report this")
}

fn not_found(what: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("{what} is not known here"), "see that the id is right")
}

/// Checks how many items are asked for.
fn limit(limit: Option<usize>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        let message = format!("limit is {limit}; it must be 1 to {PAGE_MAX}");
        return Err(crate::rpc::request::invalid(message));
    }
    Ok(limit)
}
