//! The node itself.

use axum::{Json, extract::State};
use flash_node_client::protocol::{NodeRequest, NodeResponse};
use flash_proto::BlockId;

use super::{Answer, Api, PAGE_MAX, unexpected, views::NodeView};
use crate::{api::ApiError, node_http::neighbours::Neighbour};

/// The node at a glance.
#[utoipa::path(get, path = "/api/v1/info", tag = "node",
    responses((status = 200, body = NodeView), (status = "default", body = ApiError)))]
pub(super) async fn info(State(api): State<Api>) -> Answer<NodeView> {
    let answer = api.ask(|node| Ok::<_, ApiError>(node.answer(NodeRequest::Info))).await?;
    let info = match answer {
        NodeResponse::Info(info) => info,
        NodeResponse::Refused(refused) => return Err(refused.into()),
        _ => return Err(unexpected()),
    };
    let peers = api.neighbours.as_ref().map(|neighbours| neighbours.list()).unwrap_or_default();
    let params = api.node.params();
    Ok(Json(NodeView {
        version: info.version,
        network: info.network,
        network_name: params.name.clone(),
        pow_bits: params.pow_bits,
        milestone_index: info.milestone_index,
        blocks: info.blocks,
        tips: info.tips,
        outputs: info.outputs.0,
        outputs_amount: info.outputs.1,
        channels: info.channels.0,
        channels_amount: info.channels.1,
        state_root: info.state_root.to_string(),
        peers_connected: peers.len(),
    }))
}

/// The nodes that this one exchanges blocks with.
#[utoipa::path(get, path = "/api/v1/peers", tag = "node",
    responses((status = 200, body = Vec<Neighbour>), (status = "default", body = ApiError)))]
pub(super) async fn peers(State(api): State<Api>) -> Json<Vec<Neighbour>> {
    Json(api.neighbours.as_ref().map(|neighbours| neighbours.list()).unwrap_or_default())
}

/// Blocks that nothing approves yet, at most 1000.
#[utoipa::path(get, path = "/api/v1/tips", tag = "node",
    responses((status = 200, body = Vec<String>), (status = "default", body = ApiError)))]
pub(super) async fn tips(State(api): State<Api>) -> Json<Vec<BlockId>> {
    Json(api.node.tips(PAGE_MAX))
}
