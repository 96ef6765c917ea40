//! The 14 commands of the classic API: `POST /` with `{"command": …}`, as the node software of 2018 took
//! them, done on this ledger.
//!
//! Ids are hashes of 81 trytes, blocks are transactions in trytes, the milestone's block stands for the
//! milestone, and the attachments of one transaction are what a bundle was.

mod attach;
mod commands;
pub(super) mod form;
mod neighbours;

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use axum::{
    Json,
    body::to_bytes,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use flash_node_client::{node::NodeError, protocol::Refused};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::time::timeout;

use super::{Api, BODY_BYTES_MAX, CALL_WAIT, work::WorkError};

/// The header that every call has, whatever it says.
const VERSION_HEADER: &str = "x-iota-api-version";
/// Items in one list of a call.
const LIST_MAX: usize = 1_000;
/// What only trusted callers may do.
const TRUSTED: [&str; 4] =
    ["addNeighbors", "removeNeighbors", "attachToTangle", "interruptAttachingToTangle"];

/// Why a command is not done. The text is what the caller reads.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Failed {
    /// The call is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The caller may not.
    #[error("COMMAND {0} is not available on this node")]
    NotAvailable(String),
    /// The node cannot.
    #[error("{0}")]
    Node(String),
}

impl Failed {
    fn invalid(what: &str) -> Self {
        Self::Invalid(what.to_owned())
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::NotAvailable(_) => StatusCode::UNAUTHORIZED,
            Self::Node(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<NodeError> for Failed {
    fn from(error: NodeError) -> Self {
        Self::Node(error.to_string())
    }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self::Invalid(refused.reason)
    }
}

impl From<WorkError> for Failed {
    fn from(error: WorkError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// The fields of an answer.
type Fields = Map<String, Value>;

/// One command of the classic API.
pub(super) async fn command(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let began = Instant::now();
    let (status, mut fields) = match api.classic(peer, request).await {
        Ok(fields) => (StatusCode::OK, fields),
        Err(failed) => {
            let error = Value::String(failed.to_string());
            (failed.status(), Fields::from_iter([("error".to_owned(), error)]))
        }
    };
    let duration = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    fields.insert("duration".to_owned(), duration.into());
    (status, Json(fields)).into_response()
}

impl Api {
    async fn classic(&self, peer: SocketAddr, request: Request) -> Result<Fields, Failed> {
        let (parts, body) = request.into_parts();
        if !parts.headers.contains_key(VERSION_HEADER) {
            return Err(Failed::invalid("Invalid API Version"));
        }
        let body = timeout(CALL_WAIT, to_bytes(body, BODY_BYTES_MAX)).await;
        let body = body.map_err(|_| Failed::invalid("the request took too long"))?;
        let body = body.map_err(|_| Failed::invalid("Request too long"))?;
        let request: Value = serde_json::from_slice(&body)
            .map_err(|error| Failed::Invalid(format!("Invalid JSON syntax: {error}")))?;
        let Some(command) = request.get("command").and_then(Value::as_str).map(str::to_owned) else {
            return Err(Failed::invalid("COMMAND parameter has not been specified in the request."));
        };
        self.may(&command, peer, &parts.headers)?;
        match command.as_str() {
            "attachToTangle" => fields(&self.attach_to_tangle(parameters(request)?).await?),
            "interruptAttachingToTangle" => {
                self.workshop.interrupt();
                Ok(Fields::new())
            }
            _ => self.in_turn(peer.ip(), command, request).await,
        }
    }

    fn may(&self, command: &str, peer: SocketAddr, headers: &HeaderMap) -> Result<(), Failed> {
        if TRUSTED.contains(&command) && !self.trusts(peer, headers) {
            return Err(Failed::NotAvailable(command.to_owned()));
        }
        Ok(())
    }

    /// Everything that takes a bounded time.
    async fn in_turn(&self, from: IpAddr, command: String, request: Value) -> Result<Fields, Failed> {
        let call = async {
            let _turn = self.calls.acquire().await.ok();
            self.quick(from, &command, request).await
        };
        let done = timeout(CALL_WAIT, call).await;
        done.unwrap_or_else(|_| Err(Failed::Node("the call took too long; try again later".to_owned())))
    }

    async fn quick(&self, from: IpAddr, command: &str, request: Value) -> Result<Fields, Failed> {
        match command {
            "getNodeInfo" => fields(&self.get_node_info().await?),
            "getNeighbors" => fields(&self.get_neighbors()),
            "addNeighbors" => fields(&self.add_neighbors(&parameters(request)?)?),
            "removeNeighbors" => fields(&self.remove_neighbors(&parameters(request)?)?),
            "getTips" => fields(&self.get_tips()),
            "findTransactions" => fields(&self.find_transactions(parameters(request)?).await?),
            "getTrytes" => fields(&self.get_trytes(parameters(request)?).await?),
            "getInclusionStates" => fields(&self.get_inclusion_states(parameters(request)?).await?),
            "getBalances" => fields(&self.get_balances(parameters(request)?).await?),
            "getTransactionsToApprove" => {
                fields(&self.get_transactions_to_approve(parameters(request)?).await?)
            }
            "broadcastTransactions" | "storeTransactions" => {
                self.take_in(from, parameters(request)?).await?;
                Ok(Fields::new())
            }
            unknown => {
                let shown: String = unknown.chars().take(80).collect();
                Err(Failed::Invalid(format!("Command [{shown}] is unknown")))
            }
        }
    }
}

/// The parameters of a command; those that it does not know are left alone.
fn parameters<T: DeserializeOwned>(request: Value) -> Result<T, Failed> {
    serde_json::from_value(request).map_err(|error| Failed::Invalid(format!("Invalid parameters: {error}")))
}

fn fields(answer: &impl Serialize) -> Result<Fields, Failed> {
    match serde_json::to_value(answer) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(Failed::Node("the answer cannot be written as JSON".to_owned())),
    }
}

/// Refuses a list that is too long.
fn bounded<T>(name: &str, list: &[T]) -> Result<(), Failed> {
    if list.len() > LIST_MAX {
        return Err(Failed::Invalid(format!(
            "Could not complete request: {name} has {} items, at most {LIST_MAX} are taken at once",
            list.len()
        )));
    }
    Ok(())
}
