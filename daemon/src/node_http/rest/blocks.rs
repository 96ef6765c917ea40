//! Blocks: found, shown and taken in.
#![allow(unused_qualifications, reason = "what utoipa generates for query parameters")]

use std::net::SocketAddr;

use axum::{
    Json,
    body::Bytes,
    extract::{ConnectInfo, State},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
};
use flash_node_client::{
    node::{Find, NodeError},
    protocol::{NodeRequest, NodeResponse},
};
use flash_proto::{Address, Block, BlockId, Payload, TransactionId, codec, limits::BLOCK_BYTES_MAX};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Answer, Api, limit, not_found, unexpected,
    views::{BlockList, BlockMetadata, BlockView, MeasuredBlock, MeasuresView, Submitted},
};
use crate::{
    api::{ApiError, ErrorCode},
    rpc::request::{Id, Params, invalid},
};

/// Which blocks; exactly one of the first four.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FindParams {
    /// Those with data under this tag, in hexadecimal. Zero bytes at its end do not count.
    tag: Option<String>,
    /// Those with a transaction that spends from this address or pays to it.
    #[param(value_type = Option<String>)]
    address: Option<Address>,
    /// Those that approve this block.
    #[param(value_type = Option<String>)]
    parent: Option<BlockId>,
    /// Those that carry this transaction.
    #[param(value_type = Option<String>)]
    transaction: Option<TransactionId>,
    /// Only those with an id above this one.
    #[param(value_type = Option<String>)]
    after: Option<BlockId>,
    /// At most this many, 1 to 1000; 100 if left out.
    limit: Option<usize>,
}

impl FindParams {
    fn what(&self) -> Result<Find, ApiError> {
        let tag = self
            .tag
            .as_ref()
            .map(|tag| hex::decode(tag).map(Find::Tag).map_err(|_| invalid("the tag is not hexadecimal")));
        let given = [
            tag.transpose()?,
            self.address.map(Find::Address),
            self.parent.map(Find::Parent),
            self.transaction.map(Find::Transaction),
        ];
        let mut given = given.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(what), None) => Ok(what),
            _ => Err(invalid("give exactly one of tag, address, parent and transaction")),
        }
    }
}

/// Finds blocks by what is in them.
#[utoipa::path(get, path = "/api/v1/blocks", tag = "blocks", params(FindParams),
    responses((status = 200, body = BlockList), (status = "default", body = ApiError)))]
pub(super) async fn find(State(api): State<Api>, Params(params): Params<FindParams>) -> Answer<BlockList> {
    let (what, limit) = (params.what()?, limit(params.limit)?);
    let blocks = api.ask(move |node| node.find(&what, params.after, limit)).await?;
    let blocks = blocks.ok_or_else(|| {
        let hint = "look through the blocks of the milestones after it";
        ApiError::new(ErrorCode::TooLarge, "too many blocks came after this parent to look through", hint)
    })?;
    Ok(Json(BlockList { more: blocks.len() == limit, blocks }))
}

/// Takes a block in: its bytes, with the proof of work done. The answer comes when it is on the disk.
#[utoipa::path(post, path = "/api/v1/blocks", tag = "blocks",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = Submitted), (status = "default", body = ApiError)))]
pub(super) async fn submit(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<(StatusCode, Json<Submitted>), ApiError> {
    let bytes = bytes(body)?;
    let id = api.ask(move |node| node.submit_from(peer.ip(), &bytes).map_err(ApiError::from)).await?;
    Ok((StatusCode::CREATED, Json(Submitted { id })))
}

/// Puts a payload into a block: its bytes as `docs/protocol.md` lays them out. The node picks what to
/// approve and does the proof of work, for callers on its own machine only unless told otherwise.
#[utoipa::path(post, path = "/api/v1/payloads", tag = "blocks",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = Submitted), (status = "default", body = ApiError)))]
pub(super) async fn attach(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<(StatusCode, Json<Submitted>), ApiError> {
    if !api.trusts(peer, &headers) {
        let message = "this node does proof of work for its own machine only";
        let hint = "do it yourself and POST /api/v1/blocks";
        return Err(ApiError::new(ErrorCode::Forbidden, message, hint));
    }
    let order = api.workshop.order();
    let bytes = bytes(body)?;
    let payload = codec::decode::<Payload, BLOCK_BYTES_MAX>(&bytes)
        .map_err(|error| invalid(format!("not a payload: {error}")))?;
    let tips = match api.ask(|node| Ok::<_, ApiError>(node.answer(NodeRequest::Tips))).await? {
        NodeResponse::Tips(tips) => tips,
        NodeResponse::Refused(refused) => return Err(refused.into()),
        _ => return Err(unexpected()),
    };
    let bits = api.node.params().pow_bits;
    let block = api.workshop.work(&order, Block::new(tips, payload), bits).await?;
    let id = api.ask(move |node| node.submit(&block.to_bytes()).map_err(ApiError::from)).await?;
    Ok((StatusCode::CREATED, Json(Submitted { id })))
}

/// One block.
#[utoipa::path(get, path = "/api/v1/blocks/{id}", tag = "blocks",
    params(("id" = String, Path, description = "The block's id, 64 hexadecimal digits")),
    responses((status = 200, body = BlockView), (status = "default", body = ApiError)))]
pub(super) async fn block(State(api): State<Api>, Id(id): Id<BlockId>) -> Answer<BlockView> {
    let bytes = stored(&api, id).await?;
    let block = codec::decode::<Block, BLOCK_BYTES_MAX>(&bytes);
    let block = block.map_err(|error| {
        let message = format!("the stored block is damaged: {error}");
        ApiError::new(ErrorCode::StoreFailed, message, "restore the node's directory from a backup")
    })?;
    Ok(Json(BlockView::new(id, block, bytes.len())))
}

/// One block's bytes.
#[utoipa::path(get, path = "/api/v1/blocks/{id}/raw", tag = "blocks",
    params(("id" = String, Path, description = "The block's id, 64 hexadecimal digits")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = ApiError)))]
pub(super) async fn raw(State(api): State<Api>, Id(id): Id<BlockId>) -> Result<impl IntoResponse, ApiError> {
    let bytes = stored(&api, id).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes))
}

/// What became of one block, and how it stands in the Tangle.
#[utoipa::path(get, path = "/api/v1/blocks/{id}/metadata", tag = "blocks",
    params(("id" = String, Path, description = "The block's id, 64 hexadecimal digits")),
    responses((status = 200, body = MeasuredBlock), (status = "default", body = ApiError)))]
pub(super) async fn metadata(State(api): State<Api>, Id(id): Id<BlockId>) -> Answer<MeasuredBlock> {
    let (state, measures, score) = api
        .ask(move |node| Ok::<_, NodeError>((node.block_state(id)?, node.measures(&id), node.score(&id))))
        .await?;
    let state = state.ok_or_else(|| not_found(format!("block {id}")))?;
    let measures = measures.map(MeasuresView::from);
    let tip_score = score.map(|score| score as u8);
    Ok(Json(MeasuredBlock { metadata: BlockMetadata::new(id, state), tip_score, measures }))
}

async fn stored(api: &Api, id: BlockId) -> Result<Vec<u8>, ApiError> {
    let bytes = api.ask(move |node| node.block(&id)).await?;
    bytes.ok_or_else(|| not_found(format!("block {id}")))
}

/// The bytes of a block or payload.
fn bytes(body: Result<Bytes, axum::extract::rejection::BytesRejection>) -> Result<Bytes, ApiError> {
    let too_large = || {
        let message = format!("a block has at most {BLOCK_BYTES_MAX} bytes");
        ApiError::new(ErrorCode::TooLarge, message, "put less into one block")
    };
    match body {
        Ok(bytes) if bytes.len() > BLOCK_BYTES_MAX => Err(too_large()),
        Ok(bytes) => Ok(bytes),
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(too_large()),
        Err(rejection) => Err(invalid(rejection.body_text())),
    }
}
