//! The ledger with its proofs.
#![allow(unused_qualifications, reason = "what utoipa generates for query parameters")]

use axum::{Json, extract::State};
use flash_node_client::{
    node::{BlockState, Confirmed, NodeError},
    protocol::{NodeRequest, NodeResponse, OUTPUTS_MAX, TransactionAnswer},
};
use flash_proto::{Address, Block, ChannelId, OutputId, TransactionId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Answer, Api,
    describe::raw,
    limit, not_found, unexpected,
    views::{
        BlockMetadata, ChannelAnswer, ChannelView, Included, InclusionProof, MilestoneView, OutputAnswer,
        OutputProof, OutputView, OutputsAnswer, TransactionStatus,
    },
};
use crate::{
    api::ApiError,
    rpc::{
        Index,
        request::{Id, Params},
    },
};

async fn asked(api: &Api, request: NodeRequest) -> Result<NodeResponse, ApiError> {
    api.ask(move |node| match node.answer(request) {
        NodeResponse::Refused(refused) => Err(refused.into()),
        answer => Ok(answer),
    })
    .await
}

/// Which outputs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OutputsParams {
    /// Only those with an id above this one.
    #[param(value_type = Option<String>)]
    after: Option<String>,
}

/// The unspent outputs at an address, each with its proof.
#[utoipa::path(get, path = "/api/v1/addresses/{address}/outputs", tag = "ledger",
    params(("address" = String, Path, description = "The address, `flash1…`"), OutputsParams),
    responses((status = 200, body = OutputsAnswer), (status = "default", body = ApiError)))]
pub(super) async fn outputs(
    State(api): State<Api>,
    Id(address): Id<Address>,
    Params(params): Params<OutputsParams>,
) -> Answer<OutputsAnswer> {
    let after = params.after.map(|after| after.parse::<OutputId>()).transpose();
    let after = after.map_err(|error| crate::rpc::request::invalid(error.to_string()))?;
    let request = NodeRequest::OutputsOf { addresses: vec![address], after };
    let NodeResponse::Outputs { milestone_index, outputs } = asked(&api, request).await? else {
        return Err(unexpected());
    };
    let more = outputs.len() == OUTPUTS_MAX;
    let proven = outputs.into_iter().map(|(id, output, proof)| OutputProof {
        output: OutputView { id, address: output.address, amount: output.amount },
        proof: raw(&proof),
    });
    Ok(Json(OutputsAnswer { milestone_index, outputs: proven.collect(), more }))
}

/// An unspent output, or that there is none, with the proof of either.
#[utoipa::path(get, path = "/api/v1/outputs/{id}", tag = "ledger",
    params(("id" = String, Path, description = "The output's id, `TRANSACTION:INDEX`")),
    responses((status = 200, body = OutputAnswer), (status = "default", body = ApiError)))]
pub(super) async fn output(State(api): State<Api>, Id(id): Id<OutputId>) -> Answer<OutputAnswer> {
    let proven = api.ask(move |node| Ok::<_, ApiError>(node.output(id))).await?;
    Ok(Json(OutputAnswer {
        milestone_index: proven.milestone_index,
        output: proven.output.map(|output| OutputView { id, address: output.address, amount: output.amount }),
        proof: raw(&proven.proof),
    }))
}

/// A channel's record, or that there is none, with the proof of either.
#[utoipa::path(get, path = "/api/v1/channels/{id}", tag = "ledger",
    params(("id" = String, Path, description = "The channel's id, 64 hexadecimal digits")),
    responses((status = 200, body = ChannelAnswer), (status = "default", body = ApiError)))]
pub(super) async fn channel(State(api): State<Api>, Id(id): Id<ChannelId>) -> Answer<ChannelAnswer> {
    let answer = asked(&api, NodeRequest::Channel(id)).await?;
    let NodeResponse::Channel { milestone_index, record, proof } = answer else {
        return Err(unexpected());
    };
    let channel = record.map(|record| ChannelView::new(id, &record));
    Ok(Json(ChannelAnswer { milestone_index, channel, proof: raw(&proof) }))
}

/// What is known of a transaction, with what proves that it was applied.
#[utoipa::path(get, path = "/api/v1/transactions/{id}", tag = "ledger",
    params(("id" = String, Path, description = "The transaction's id, 64 hexadecimal digits")),
    responses((status = 200, body = TransactionStatus), (status = "default", body = ApiError)))]
pub(super) async fn transaction(
    State(api): State<Api>,
    Id(id): Id<TransactionId>,
) -> Answer<TransactionStatus> {
    let NodeResponse::Transaction(answer) = asked(&api, NodeRequest::Transaction(id)).await? else {
        return Err(unexpected());
    };
    let status = |status, block, milestone_index| TransactionStatus {
        id,
        status,
        block,
        milestone_index,
        conflict: None,
        reason: None,
        proof: None,
    };
    Ok(Json(match *answer {
        TransactionAnswer::Unknown => return Err(not_found(format!("transaction {id}"))),
        TransactionAnswer::Pruned { upto } => return Err(NodeError::Pruned { upto }.into()),
        TransactionAnswer::Pending { block } => status("pending", block, None),
        TransactionAnswer::Applied { block, milestone, path } => TransactionStatus {
            proof: Some(InclusionProof {
                block: hex::encode(&block),
                milestone: raw(&milestone),
                path: raw(&path),
            }),
            ..status("applied", Block::id_of(&block), Some(milestone.essence.index))
        },
        TransactionAnswer::Rejected { block, milestone_index, conflict } => TransactionStatus {
            conflict: Some(conflict.code()),
            reason: Some(conflict.to_string()),
            ..status("rejected", block, Some(milestone_index))
        },
    }))
}

/// A milestone.
#[utoipa::path(get, path = "/api/v1/milestones/{index}", tag = "ledger",
    params(("index" = String, Path, description = "The milestone's index, or `latest`")),
    responses((status = 200, body = MilestoneView), (status = "default", body = ApiError)))]
pub(super) async fn milestone(State(api): State<Api>, Id(Index(index)): Id<Index>) -> Answer<MilestoneView> {
    let found = api.ask(move |node| node.milestone(index)).await?;
    found.map(|found| Json(found.into())).ok_or_else(|| not_found("this milestone"))
}

/// Which of a milestone's blocks.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct IncludedParams {
    /// So many are left out; 0 if nothing is given.
    #[serde(default)]
    skip: usize,
    /// At most this many, 1 to 1000; 100 if left out.
    limit: Option<usize>,
}

/// The blocks that a milestone confirmed, in the order in which it applied them.
#[utoipa::path(get, path = "/api/v1/milestones/{index}/blocks", tag = "ledger",
    params(("index" = String, Path, description = "The milestone's index, or `latest`"), IncludedParams),
    responses((status = 200, body = Included), (status = "default", body = ApiError)))]
pub(super) async fn included(
    State(api): State<Api>,
    Id(Index(index)): Id<Index>,
    Params(params): Params<IncludedParams>,
) -> Answer<Included> {
    let limit = limit(params.limit)?;
    let index = index.unwrap_or_else(|| *api.node.newest().borrow());
    let found = api.ask(move |node| node.included(index, params.skip, limit)).await?;
    let found = found.ok_or_else(|| not_found(format!("milestone {index}")))?;
    let more = found.len() == limit;
    let blocks = found.into_iter().map(|(id, outcome)| {
        BlockMetadata::new(id, BlockState::Confirmed(Confirmed { milestone_index: index, outcome }))
    });
    Ok(Json(Included { milestone_index: index, blocks: blocks.collect(), more }))
}
