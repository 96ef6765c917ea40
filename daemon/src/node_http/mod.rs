//! The node's HTTP API: the 14 commands of the classic API at `POST /`, a REST API under `/api/v1`, and its
//! description at `/openapi.json`. People find the explorer at `/explorer`.
//!
//! There is no authentication: whoever reaches the port may read the ledger and submit blocks. What changes
//! the node itself or makes it work is only done for callers on this machine, unless the operator says
//! otherwise ([`HttpOptions::remote_commands`]).
//!
//! | file | what it holds |
//! | --- | --- |
//! | `classic` | the 14 commands |
//! | `rest` | the REST API, and what happens as it happens |
//! | `explorer` | the pages that draw the Tangle and show what is in it |
//! | `guard`, `listener`, `work` | who may do what, how many at once, and proof of work done for others |
//! | [`neighbours`] | what the API needs of the part that talks to other nodes |

mod classic;
mod explorer;
mod guard;
mod listener;
pub mod neighbours;
mod rest;
#[cfg(test)]
mod tests;
mod work;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::Response,
    routing::post,
    serve::ListenerExt,
};
use flash_node_client::node::{Node, NodeError};
use listener::Bounded;
use neighbours::Neighbours;
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;
use work::Workshop;

use crate::{
    api::{ApiError, ErrorCode},
    rpc::request::{unknown_path, wrong_method},
    stop::serve_until,
};

pub use rest::document;

/// Where the API listens unless told otherwise.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 14_266);

/// Bytes of the largest request: several large blocks in trytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Connections at once; whoever comes then waits.
const CONNECTIONS_MAX: usize = 256;
/// Calls in work at once; the others wait for their turn.
const CALLS_MAX: usize = 64;
/// Calls for which the node works at once, those included whose caller has left: what has begun is not broken
/// off.
const ASKS_MAX: usize = 64;
/// Callers at once that follow what happens.
const FOLLOWERS_MAX: usize = 32;
/// How long a call may take, its request's bytes included, proof of work apart.
const CALL_WAIT: Duration = Duration::from_secs(30);

/// What the operator decides.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpOptions {
    /// Callers on other machines may have proof of work done and neighbours changed, too.
    pub remote_commands: bool,
}

/// What every handler has.
#[derive(Clone, Debug)]
struct Api {
    node: Node,
    neighbours: Option<Arc<dyn Neighbours>>,
    options: HttpOptions,
    workshop: Arc<Workshop>,
    calls: Arc<Semaphore>,
    /// Taken while the node works for a call.
    asks: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    /// Ends what would go on for ever.
    stop: CancellationToken,
}

/// Serves the API until `stop` resolves; calls that are under way then have a few seconds to end.
///
/// # Errors
/// What the listener's socket said.
pub async fn serve(
    listener: TcpListener,
    node: Node,
    neighbours: Option<Arc<dyn Neighbours>>,
    options: HttpOptions,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let stopping = CancellationToken::new();
    let api = Api::new(node, neighbours, options, stopping.clone());
    let listener = Bounded::new(listener, CONNECTIONS_MAX).tap_io(|connection| {
        if let Err(error) = connection.send_at_once() {
            tracing::debug!(%error, "an HTTP connection cannot be told to send at once");
        }
    });
    let service = router(api).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(stopping.clone().cancelled_owned());
    serve_until(server, stopping, stop).await
}

fn router(api: Api) -> Router {
    let rest = rest::routes().route_layer(middleware::from_fn_with_state(api.clone(), bounded));
    Router::new()
        .route("/", post(classic::command).get(explorer::lead))
        .merge(explorer::routes())
        .merge(rest)
        .merge(rest::long_routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(guard::same_site))
        .with_state(api)
}

/// Bounds how many calls are in work, and how long each may take.
async fn bounded(State(api): State<Api>, request: Request, next: Next) -> Result<Response, ApiError> {
    let call = async {
        let _turn = api.calls.acquire().await.ok();
        next.run(request).await
    };
    timeout(CALL_WAIT, call).await.map_err(|_elapsed| {
        let message = format!("the call took longer than {} s", CALL_WAIT.as_secs());
        ApiError::new(ErrorCode::Timeout, message, "try again when the node has less to do")
    })
}

impl Api {
    fn new(
        node: Node,
        neighbours: Option<Arc<dyn Neighbours>>,
        options: HttpOptions,
        stop: CancellationToken,
    ) -> Self {
        Self {
            node,
            neighbours,
            options,
            workshop: Arc::new(Workshop::new(stop.clone())),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            asks: Arc::new(Semaphore::new(ASKS_MAX)),
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
            stop,
        }
    }

    /// Asks the node where it may wait for the disk.
    async fn ask<T: Send + 'static, E: From<NodeError> + Send + 'static>(
        &self,
        work: impl FnOnce(&Node) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let turn = Arc::clone(&self.asks).acquire_owned().await;
        let work = move |node: &Node| {
            let _turn = turn;
            work(node)
        };
        self.node.blocking(work).await
    }

    /// Whether this caller may change the node and have it work.
    fn trusts(&self, peer: SocketAddr, headers: &axum::http::HeaderMap) -> bool {
        self.options.remote_commands || guard::is_this_machine(peer, headers)
    }
}
