//! The ledger as this daemon verified it.

use std::str::FromStr;

use axum::{Json, extract::State, http::StatusCode};
use flash_proto::{BlockId, TransactionId};

use super::{
    Rpc,
    request::{Body, Id},
};
use crate::api::{ApiError, ConfirmedBlock, LedgerStatus, MilestoneInfo, PublishRequest, TransactionInfo};

type Answer<T> = Result<Json<T>, ApiError>;

/// How far the ledger is verified.
#[utoipa::path(get, path = "/v1/ledger/status", tag = "ledger", security(("token" = ["read"])),
    responses((status = 200, body = LedgerStatus), (status = "default", body = ApiError)))]
pub(super) async fn status(State(rpc): State<Rpc>) -> Answer<LedgerStatus> {
    rpc.daemon.ledger_status().map(Json)
}

/// A transaction, proven against the milestone that applied it.
#[utoipa::path(get, path = "/v1/ledger/transactions/{id}", tag = "ledger", security(("token" = ["read"])),
    params(("id" = String, Path, description = "The transaction's id, 64 hexadecimal digits")),
    responses((status = 200, body = TransactionInfo), (status = "default", body = ApiError)))]
pub(super) async fn transaction(
    State(rpc): State<Rpc>,
    Id(id): Id<TransactionId>,
) -> Answer<TransactionInfo> {
    rpc.daemon.ledger_transaction(id).await.map(Json)
}

/// A milestone's index, or the newest.
pub(crate) struct Index(pub(crate) Option<u64>);

impl FromStr for Index {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "latest" {
            return Ok(Self(None));
        }
        text.parse().map(|index| Self(Some(index))).map_err(|_| {
            let shown: String = text.chars().take(80).collect();
            format!("`{shown}` is not a milestone: write its index (a number) or `latest`")
        })
    }
}

/// A milestone, verified.
#[utoipa::path(get, path = "/v1/ledger/milestones/{index}", tag = "ledger", security(("token" = ["read"])),
    params(("index" = String, Path, description = "The milestone's index, or `latest`")),
    responses((status = 200, body = MilestoneInfo), (status = "default", body = ApiError)))]
pub(super) async fn milestone(State(rpc): State<Rpc>, Id(Index(index)): Id<Index>) -> Answer<MilestoneInfo> {
    rpc.daemon.ledger_milestone(index).await.map(Json)
}

/// Puts data on the ledger, where everybody can read it. The answer comes when a milestone has confirmed it.
#[utoipa::path(post, path = "/v1/ledger/data", tag = "ledger", request_body = PublishRequest,
    security(("token" = ["pay"])),
    responses((status = 201, body = ConfirmedBlock), (status = "default", body = ApiError)))]
pub(super) async fn publish(
    State(rpc): State<Rpc>,
    Body(request): Body<PublishRequest>,
) -> Result<(StatusCode, Json<ConfirmedBlock>), ApiError> {
    Ok((StatusCode::CREATED, Json(rpc.daemon.publish(request).await?)))
}

/// A block with what proves that a milestone confirmed it.
#[utoipa::path(get, path = "/v1/ledger/blocks/{id}", tag = "ledger", security(("token" = ["read"])),
    params(("id" = String, Path, description = "The block's id, 64 hexadecimal digits")),
    responses((status = 200, body = ConfirmedBlock), (status = "default", body = ApiError)))]
pub(super) async fn block(State(rpc): State<Rpc>, Id(id): Id<BlockId>) -> Answer<ConfirmedBlock> {
    rpc.daemon.confirmed_block(id).await.map(Json)
}
