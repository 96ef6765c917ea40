//! The description of the RPC, from the code.

use axum::Json;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{events, handlers, ledger, stream};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Flash admin RPC",
        description = "Calls need `Authorization: Bearer TOKEN`, the token being the content of \
            `tokens/read`, `tokens/pay` or `tokens/admin` in the daemon's data directory; each of them \
            allows what the ones before it allow. Amounts, ids and hashes are strings: amounts in base \
            units (requests may use units, such as `1.5Mi`), the rest in hexadecimal. Every error is an \
            `ApiError`."
    ),
    paths(
        handlers::info,
        handlers::metrics,
        handlers::shutdown,
        handlers::new_address,
        handlers::balance,
        handlers::history,
        handlers::recover,
        handlers::send,
        handlers::channels,
        handlers::open,
        handlers::channel,
        handlers::close,
        handlers::meet,
        handlers::trust,
        handlers::pay,
        handlers::tick,
        handlers::towers,
        handlers::tower_held,
        stream::stream,
        events::events,
        ledger::status,
        ledger::transaction,
        ledger::milestone,
        ledger::block,
        ledger::publish,
        openapi
    ),
    modifiers(&Token)
)]
struct Document;

/// How callers prove who they are.
struct Token;

impl Modify for Token {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The OpenAPI document of the RPC.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "daemon", responses((status = 200, body = Object)))]
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
