//! The admin RPC: JSON over HTTP on loopback, described by `/openapi.json`.
//!
//! Every call but `/openapi.json` needs a token (see [`Tokens`]). Every error, of whatever origin, is an
//! [`ApiError`](crate::api::ApiError) with the status that follows from its code.

#[cfg(test)]
mod credential_tests;
mod events;
mod guard;
mod handlers;
mod ledger;
#[cfg(test)]
mod list_tests;
mod openapi;
pub(crate) mod request;
mod stream;
#[cfg(test)]
mod streaming_tests;
#[cfg(test)]
pub(crate) mod tests;
mod tokens;

use std::{io, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
    serve::ListenerExt,
};
use tokio::net::TcpListener;
use tower_http::trace::TraceLayer;

use self::request::{unknown_path, wrong_method};
use crate::{daemon::Daemon, stop::serve_until};

pub(crate) use guard::{is_local as is_local_host, local};
pub(crate) use ledger::Index;
pub use openapi::document;
pub use stream::LINE_BYTES_MAX;
pub use tokens::{Scope, Tokens, read_token, token_path};

/// What every handler has.
#[derive(Clone, Debug)]
struct Rpc {
    daemon: Daemon,
    tokens: Arc<Tokens>,
}

/// Serves the RPC until `stop` resolves; calls that are under way then have a few seconds to end.
///
/// # Errors
/// What the listener's socket said.
pub async fn serve(
    listener: TcpListener,
    daemon: Daemon,
    tokens: Tokens,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let tokens = Arc::new(tokens);
    let stopping = tokens.ended().clone();
    let rpc = Rpc { daemon, tokens: Arc::clone(&tokens) };
    let listener = listener.tap_io(|connection| {
        // Without it an answer may wait for the caller's acknowledgement of the one before.
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "an RPC connection cannot be told to send at once");
        }
    });
    let server =
        axum::serve(listener, router(rpc)).with_graceful_shutdown(stopping.clone().cancelled_owned());
    tokio::select! {
        ended = serve_until(server, stopping, stop) => ended,
        never = tokens.follow() => match never {},
    }
}

fn router(rpc: Rpc) -> Router {
    let group = |scope, routes: Router<Rpc>| {
        routes.route_layer(middleware::from_fn_with_state((rpc.clone(), scope), guard::scope))
    };
    Router::new()
        .merge(group(Scope::Read, read_routes()))
        .merge(group(Scope::Pay, pay_routes()))
        .merge(group(Scope::Admin, admin_routes()))
        .route("/openapi.json", get(openapi::openapi))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(request::BODY_BYTES_MAX))
        .layer(middleware::from_fn(local))
        .layer(TraceLayer::new_for_http())
        .with_state(rpc)
}

fn read_routes() -> Router<Rpc> {
    Router::new()
        .route("/v1/info", get(handlers::info))
        .route("/v1/wallet/balance", get(handlers::balance))
        .route("/v1/wallet/history", get(handlers::history))
        .route("/v1/channels", get(handlers::channels))
        .route("/v1/channels/{id}", get(handlers::channel))
        .route("/v1/channels/{id}/receipt", get(handlers::receipt))
        .route("/v1/channels/{id}/towers", get(handlers::tower_held))
        .route("/v1/towers", get(handlers::towers))
        .route("/v1/events", get(events::events))
        .route("/v1/ledger/status", get(ledger::status))
        .route("/v1/ledger/transactions/{id}", get(ledger::transaction))
        .route("/v1/ledger/milestones/{index}", get(ledger::milestone))
        .route("/v1/ledger/blocks/{id}", get(ledger::block))
        .route("/metrics", get(handlers::metrics))
}

fn pay_routes() -> Router<Rpc> {
    Router::new()
        .route("/v1/channels/{id}/payments", post(handlers::pay))
        .route("/v1/channels/{id}/ticks", post(handlers::tick))
        .route("/v1/channels/{id}/stream", post(stream::stream).layer(DefaultBodyLimit::disable()))
        .route("/v1/ledger/data", post(ledger::publish))
}

fn admin_routes() -> Router<Rpc> {
    Router::new()
        .route("/v1/wallet/addresses", post(handlers::new_address))
        .route("/v1/wallet/recover", post(handlers::recover))
        .route("/v1/wallet/transfers", post(handlers::send))
        .route("/v1/channels", post(handlers::open))
        .route("/v1/channels/{id}/topup", post(handlers::top_up))
        .route("/v1/channels/{id}/withdraw", post(handlers::withdraw))
        .route("/v1/channels/{id}/close", post(handlers::close))
        .route("/v1/channels/{id}/peer", post(handlers::meet))
        .route("/v1/channels/{id}/trust", post(handlers::trust))
        .route("/v1/shutdown", post(handlers::shutdown))
}
