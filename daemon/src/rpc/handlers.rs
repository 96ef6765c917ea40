//! Daemon, wallet and channels.
#![allow(unused_qualifications, reason = "what utoipa generates for query parameters")]

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use flash_proto::ChannelId;
use serde::Deserialize;
use tokio::task::JoinError;
use utoipa::IntoParams;

use super::{
    Rpc,
    request::{Body, Id, OptionalBody, Params},
};
use crate::api::{
    ApiError, ChannelInfo, CloseRequest, ErrorCode, HistoryEntry, Info, ListRequest, NewAddress, OpenRequest,
    PayRequest, PayResult, PaymentReceipt, PeerRequest, ReceiptRequest, RecoverRequest, RecoverResult,
    SendRequest, SendResult, StakeRequest, Stopping, TickRequest, TowerHeld, TowerInfo, WalletBalance,
};

type Answer<T> = Result<Json<T>, ApiError>;

/// Does what was asked for to its end, also if the caller hangs up.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(work).await.unwrap_or_else(|error| failed(&error))
}

fn failed<T>(error: &JoinError) -> Result<T, ApiError> {
    let message = format!("the call failed: {error}");
    Err(ApiError::new(ErrorCode::Internal, message, "this is a defect; the daemon's log says more"))
}

const fn yes() -> bool {
    true
}

/// The daemon at a glance.
#[utoipa::path(get, path = "/v1/info", tag = "daemon", security(("token" = ["read"])),
    responses((status = 200, body = Info), (status = "default", body = ApiError)))]
pub(super) async fn info(State(rpc): State<Rpc>) -> Answer<Info> {
    rpc.daemon.info().map(Json)
}

/// Counters and gauges as OpenMetrics text.
#[utoipa::path(get, path = "/metrics", tag = "daemon", security(("token" = ["read"])),
    responses((status = 200, body = String, content_type = "application/openmetrics-text"),
        (status = "default", body = ApiError)))]
pub(super) async fn metrics(State(rpc): State<Rpc>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], rpc.daemon.metrics())
}

/// Stops the daemon in order. The answer comes before it has stopped.
#[utoipa::path(post, path = "/v1/shutdown", tag = "daemon", security(("token" = ["admin"])),
    responses((status = 202, body = Stopping), (status = "default", body = ApiError)))]
pub(super) async fn shutdown(State(rpc): State<Rpc>) -> (StatusCode, Json<Stopping>) {
    rpc.daemon.shutdown();
    (StatusCode::ACCEPTED, Json(Stopping { pid: std::process::id() }))
}

/// A new address to receive money at, never given out before.
#[utoipa::path(post, path = "/v1/wallet/addresses", tag = "wallet", security(("token" = ["admin"])),
    responses((status = 201, body = NewAddress), (status = "default", body = ApiError)))]
pub(super) async fn new_address(State(rpc): State<Rpc>) -> Result<(StatusCode, Json<NewAddress>), ApiError> {
    let address = to_its_end(async move { rpc.daemon.new_address().await }).await?;
    Ok((StatusCode::CREATED, Json(address)))
}

/// The wallet's money, outside of channels.
#[utoipa::path(get, path = "/v1/wallet/balance", tag = "wallet", security(("token" = ["read"])),
    responses((status = 200, body = WalletBalance), (status = "default", body = ApiError)))]
pub(super) async fn balance(State(rpc): State<Rpc>) -> Answer<WalletBalance> {
    rpc.daemon.wallet_balance().await.map(Json)
}

/// How much of the history.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryParams {
    /// At most this many entries, 1 to 10000; 100 if left out.
    #[serde(default = "history_limit")]
    limit: usize,
}

const fn history_limit() -> usize {
    100
}

/// What came and went, newest first.
#[utoipa::path(get, path = "/v1/wallet/history", tag = "wallet", params(HistoryParams),
    security(("token" = ["read"])),
    responses((status = 200, body = Vec<HistoryEntry>), (status = "default", body = ApiError)))]
pub(super) async fn history(
    State(rpc): State<Rpc>,
    Params(params): Params<HistoryParams>,
) -> Answer<Vec<HistoryEntry>> {
    if !(1..=10_000).contains(&params.limit) {
        return Err(super::request::invalid(format!("limit is {}; it must be 1 to 10000", params.limit)));
    }
    rpc.daemon.wallet_history(params.limit).map(Json)
}

/// Looks for money at the first addresses of the seed, and for its channels: for a wallet made from old words.
#[utoipa::path(post, path = "/v1/wallet/recover", tag = "wallet", request_body = RecoverRequest,
    security(("token" = ["admin"])),
    responses((status = 200, body = RecoverResult), (status = "default", body = ApiError)))]
pub(super) async fn recover(
    State(rpc): State<Rpc>,
    Body(request): Body<RecoverRequest>,
) -> Answer<RecoverResult> {
    to_its_end(async move { rpc.daemon.recover(request).await }).await.map(Json)
}

/// Sends money on the ledger. The answer comes when the transfer is applied.
#[utoipa::path(post, path = "/v1/wallet/transfers", tag = "wallet", request_body = SendRequest,
    security(("token" = ["admin"])),
    responses((status = 200, body = SendResult), (status = "default", body = ApiError)))]
pub(super) async fn send(State(rpc): State<Rpc>, Body(request): Body<SendRequest>) -> Answer<SendResult> {
    to_its_end(async move { rpc.daemon.send(request).await }).await.map(Json)
}

/// The channels: newest first, or with a limit in the order of their ids.
#[utoipa::path(get, path = "/v1/channels", tag = "channels", params(ListRequest),
    security(("token" = ["read"])),
    responses((status = 200, body = Vec<ChannelInfo>), (status = "default", body = ApiError)))]
pub(super) async fn channels(
    State(rpc): State<Rpc>,
    Params(request): Params<ListRequest>,
) -> Answer<Vec<ChannelInfo>> {
    // Those at rest are read from the disk.
    let listed = tokio::task::spawn_blocking(move || rpc.daemon.channels(&request)).await;
    listed.unwrap_or_else(|error| failed(&error)).map(Json)
}

/// Opens a channel. The answer comes when it is open on the ledger.
#[utoipa::path(post, path = "/v1/channels", tag = "channels", request_body = OpenRequest,
    security(("token" = ["admin"])),
    responses((status = 201, body = ChannelInfo), (status = "default", body = ApiError)))]
pub(super) async fn open(
    State(rpc): State<Rpc>,
    Body(request): Body<OpenRequest>,
) -> Result<(StatusCode, Json<ChannelInfo>), ApiError> {
    let channel = to_its_end(async move { rpc.daemon.open(request).await }).await?;
    Ok((StatusCode::CREATED, Json(channel)))
}

/// One channel.
#[utoipa::path(get, path = "/v1/channels/{id}", tag = "channels", security(("token" = ["read"])),
    params(("id" = String, Path, description = "The channel's id, 64 hexadecimal digits")),
    responses((status = 200, body = ChannelInfo), (status = "default", body = ApiError)))]
pub(super) async fn channel(State(rpc): State<Rpc>, Id(id): Id<ChannelId>) -> Answer<ChannelInfo> {
    rpc.daemon.channel(id).map(Json)
}

/// When a close answers.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CloseParams {
    /// Whether to wait until the money is out; `true` if left out. Otherwise the answer comes once the
    /// close is durable and submitted.
    #[serde(default = "yes")]
    wait: bool,
}

/// Closes a channel, with the peer or (`force`) without.
#[utoipa::path(post, path = "/v1/channels/{id}/close", tag = "channels", request_body = CloseRequest,
    security(("token" = ["admin"])),
    params(("id" = String, Path, description = "The channel's id, 64 hexadecimal digits"), CloseParams),
    responses((status = 200, body = ChannelInfo), (status = "default", body = ApiError)))]
pub(super) async fn close(
    State(rpc): State<Rpc>,
    Id(id): Id<ChannelId>,
    Params(params): Params<CloseParams>,
    OptionalBody(request): OptionalBody<CloseRequest>,
) -> Answer<ChannelInfo> {
    to_its_end(async move { rpc.daemon.close(id, request, params.wait).await }).await.map(Json)
}

/// When a change of what is locked answers.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StakeParams {
    /// Whether to wait until the ledger has applied it; `true` if left out. Otherwise the answer comes once
    /// it is durable.
    #[serde(default = "yes")]
    wait: bool,
}

/// Locks more in a channel, while it stays in use.
#[utoipa::path(post, path = "/v1/channels/{id}/topup", tag = "channels", request_body = StakeRequest,
    security(("token" = ["admin"])),
    params(("id" = String, Path, description = "The channel's id, 64 hexadecimal digits"), StakeParams),
    responses((status = 200, body = ChannelInfo), (status = "default", body = ApiError)))]
pub(super) async fn top_up(
    State(rpc): State<Rpc>,
    Id(id): Id<ChannelId>,
    Params(params): Params<StakeParams>,
    Body(request): Body<StakeRequest>,
) -> Answer<ChannelInfo> {
    to_its_end(async move { rpc.daemon.top_up(id, request, params.wait).await }).await.map(Json)
}

/// Takes money out of a channel, while it stays in use. The peer must agree; what it has not signed in time
/// lapses.
#[utoipa::path(post, path = "/v1/channels/{id}/withdraw", tag = "channels", request_body = StakeRequest,
    security(("token" = ["admin"])),
    params(("id" = String, Path, description = "The channel's id, 64 hexadecimal digits"), StakeParams),
    responses((status = 200, body = ChannelInfo), (status = "default", body = ApiError)))]
pub(super) async fn withdraw(
    State(rpc): State<Rpc>,
    Id(id): Id<ChannelId>,
    Params(params): Params<StakeParams>,
    Body(request): Body<StakeRequest>,
) -> Answer<ChannelInfo> {
    to_its_end(async move { rpc.daemon.withdraw(id, request, params.wait).await }).await.map(Json)
}

/// Says which machine the peer of a recovered channel is, and connects to it.
#[utoipa::path(post, path = "/v1/channels/{id}/peer", tag = "channels", request_body = PeerRequest,
    security(("token" = ["admin"])),
    params(("id" = String, Path, description = "The channel's id, 64 hexadecimal digits")),
    responses((status = 200, body = ChannelInfo), (status = "default", body = ApiError)))]
pub(super) async fn meet(
    State(rpc): State<Rpc>,
    Id(id): Id<ChannelId>,
    Body(request): Body<PeerRequest>,
) -> Answer<ChannelInfo> {
    to_its_end(async move { rpc.daemon.meet(id, request).await }).await.map(Json)
}

/// Which payment.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReceiptParams {
    /// Its number on its lane, from 1.
    payment: u64,
    /// Whether it was received; sent if left out.
    #[serde(default)]
    received: bool,
}

/// Proof of one payment: of a sent one by the payee, who is asked to sign if need be; of a received one by the payer.
#[utoipa::path(get, path = "/v1/channels/{id}/receipt", tag = "channels", security(("token" = ["read"])),
    params(("id" = String, Path, description = "The channel's id, 64 hexadecimal digits"), ReceiptParams),
    responses((status = 200, body = PaymentReceipt), (status = "default", body = ApiError)))]
pub(super) async fn receipt(
    State(rpc): State<Rpc>,
    Id(id): Id<ChannelId>,
    Params(ReceiptParams { payment, received }): Params<ReceiptParams>,
) -> Answer<PaymentReceipt> {
    let proof = rpc.daemon.receipt(id, ReceiptRequest { payment, received }).await?;
    Ok(Json(PaymentReceipt { proof }))
}

/// Asks each watchtower what it holds of a channel.
#[utoipa::path(get, path = "/v1/channels/{id}/towers", tag = "towers", security(("token" = ["read"])),
    params(("id" = String, Path, description = "The channel's id, 64 hexadecimal digits")),
    responses((status = 200, body = Vec<TowerHeld>), (status = "default", body = ApiError)))]
pub(super) async fn tower_held(State(rpc): State<Rpc>, Id(id): Id<ChannelId>) -> Answer<Vec<TowerHeld>> {
    rpc.daemon.tower_held(id).await.map(Json)
}

/// The watchtowers of this daemon, and how far they are.
#[utoipa::path(get, path = "/v1/towers", tag = "towers", security(("token" = ["read"])),
    responses((status = 200, body = Vec<TowerInfo>), (status = "default", body = ApiError)))]
pub(super) async fn towers(State(rpc): State<Rpc>) -> Answer<Vec<TowerInfo>> {
    rpc.daemon.towers().map(Json)
}

/// Says that the records of a channel are the newest there are, although they were lost or came back.
#[utoipa::path(post, path = "/v1/channels/{id}/trust", tag = "channels",
    security(("token" = ["admin"])),
    params(("id" = String, Path, description = "The channel's id, 64 hexadecimal digits")),
    responses((status = 200, body = ChannelInfo), (status = "default", body = ApiError)))]
pub(super) async fn trust(State(rpc): State<Rpc>, Id(id): Id<ChannelId>) -> Answer<ChannelInfo> {
    to_its_end(async move { rpc.daemon.trust(id).await }).await.map(Json)
}

/// Pays the peer. The answer comes when the peer has the payment on its disk.
#[utoipa::path(post, path = "/v1/channels/{id}/payments", tag = "channels", request_body = PayRequest,
    security(("token" = ["pay"])),
    params(("id" = String, Path, description = "The channel's id, 64 hexadecimal digits")),
    responses((status = 200, body = PayResult), (status = "default", body = ApiError)))]
pub(super) async fn pay(
    State(rpc): State<Rpc>,
    Id(id): Id<ChannelId>,
    Body(request): Body<PayRequest>,
) -> Answer<PayResult> {
    to_its_end(async move { rpc.daemon.pay(id, request).await }).await.map(Json)
}

/// Pays the peer by ticks, which cost one hash each. The answer comes when the peer has the last of them on its disk.
#[utoipa::path(post, path = "/v1/channels/{id}/ticks", tag = "channels", request_body = TickRequest,
    security(("token" = ["pay"])),
    params(("id" = String, Path, description = "The channel's id, 64 hexadecimal digits")),
    responses((status = 200, body = PayResult), (status = "default", body = ApiError)))]
pub(super) async fn tick(
    State(rpc): State<Rpc>,
    Id(id): Id<ChannelId>,
    Body(request): Body<TickRequest>,
) -> Answer<PayResult> {
    to_its_end(async move { rpc.daemon.tick(id, request).await }).await.map(Json)
}
