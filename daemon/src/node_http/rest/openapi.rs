//! The description of the REST API, from the code.

use axum::Json;
use utoipa::OpenApi;

use super::{blocks, events, ledger, node};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Flash node API",
        description = "No call needs authentication. Amounts are decimal strings of base units; ids, keys, \
            hashes and bytes are hexadecimal, bytes being the encoding that `docs/protocol.md` describes. Every \
            error is an `ApiError`. Nothing here has to be believed: verify the proofs. Beside these routes, \
            `POST /` takes the 14 commands of the classic API."
    ),
    paths(
        node::info,
        node::peers,
        node::tips,
        blocks::find,
        blocks::submit,
        blocks::attach,
        blocks::block,
        blocks::raw,
        blocks::metadata,
        ledger::outputs,
        ledger::output,
        ledger::channel,
        ledger::transaction,
        ledger::milestone,
        ledger::included,
        events::events,
        openapi
    ),
    components(schemas(events::NewMilestone))
)]
struct Document;

/// The OpenAPI document of the REST API.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "node", responses((status = 200, body = Object)))]
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
