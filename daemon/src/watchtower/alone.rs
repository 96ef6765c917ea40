//! `flashd tower`: a watchtower and nothing else. It has a data directory as a daemon has, for its key; no channels,
//! no peers and no money.

use std::{net::SocketAddr, path::Path, sync::Arc};

use axum::{Router, http::header, middleware, routing::get};
use flash_node_client::{quic::PeerAddress, wallet::Account};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};

use crate::{
    backup::restore::identity,
    config::Config,
    datadir::{self, DataDir, write_atomically},
    engine::{Writer, writer::Outlets},
    events::EventLog,
    exit::Exit,
    failure::Failure,
    metrics::Metrics,
    rpc,
    run::{Base, open_store, read_seed, start_client},
    stop::{Stop, stop_on_signal},
};

/// Where a tower listens unless somebody says otherwise.
pub const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 15_602);

/// What a running tower says about itself in `ready.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TowerReady {
    /// Where clients connect: `KEY@HOST:PORT`.
    pub tower: PeerAddress,
    /// Where `/metrics` answers, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// The process.
    pub pid: u32,
}

impl TowerReady {
    /// Reads it in the data directory `data`.
    ///
    /// # Errors
    /// [`Failure`] if no tower runs there.
    pub fn read(data: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(datadir::ready_path(data)).map_err(|_| {
            Failure::new(format!("no tower runs on {}: start it with `flashd tower`", data.display()))
        })?;
        serde_json::from_str(&text).map_err(Failure::new)
    }
}

/// Runs a tower until it is told to stop or something fails that must not be worked around. `metrics` is where
/// `/metrics` is to answer.
///
/// # Errors
/// [`Failure`].
pub async fn run(dir: DataDir, config: Config, metrics: Option<SocketAddr>) -> Result<(), Failure> {
    let seed = read_seed(&dir)?;
    let params = Arc::new(dir.network()?);
    let key = seed.key(Account::Node, 0);
    let (stop, counters) = (Stop::default(), Metrics::default());
    let store = open_store(&dir, config.store, &identity(&params, &seed), &stop).await?;
    drop(seed);
    let (log, _) = EventLog::open(&store)?;
    // There is no engine, so that nothing comes out of these.
    let outlets = Outlets { submissions: mpsc::unbounded_channel().0, durable: mpsc::unbounded_channel().0 };
    let (writer, thread) =
        Writer::start(Arc::clone(&store), log, None, outlets, counters.clone(), stop.clone())
            .map_err(Failure::new)?;
    let client = start_client(&config, None, &params, &key, store.as_ref())?;
    let mut tasks = JoinSet::new();
    let tower = super::Config {
        listen: config.tower_listen.unwrap_or(DEFAULT_LISTEN),
        public_address: config.public_address,
        clients: config.tower_clients.iter().copied().collect(),
        client,
        keeps_checkpoint: true,
        base: Base { key, store, writer, metrics: counters.clone(), stop: stop.clone() },
    };
    let tower = super::start(tower, &mut tasks)?;
    let listener = match metrics {
        Some(listen) => Some(listen_for_metrics(listen).await?),
        None => None,
    };
    let ready = TowerReady {
        tower,
        metrics: listener.as_ref().map(TcpListener::local_addr).transpose().map_err(Failure::new)?,
        pid: std::process::id(),
    };
    if let Some(listener) = listener {
        tasks.spawn(serve_metrics(listener, counters, stop.clone()));
    }
    let path = datadir::ready_path(dir.path());
    let text = serde_json::to_string(&ready).map_err(Failure::new)?;
    write_atomically(&path, format!("{text}\n").as_bytes())?;
    tracing::info!(tower = %ready.tower, network = params.name, data = %dir.path().display(), "ready");
    tasks.spawn(stop_on_signal(stop.clone()));
    while tasks.join_next().await.is_some() {}
    // Its absence only makes the error of the next call clearer.
    let _ = std::fs::remove_file(path);
    // The writer ends with the last of those who bring it jobs.
    let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    stop.outcome()
}

async fn listen_for_metrics(listen: SocketAddr) -> Result<TcpListener, Failure> {
    if !listen.ip().is_loopback() {
        let message = format!("--metrics is {listen}; it listens on loopback only (127.0.0.1 or [::1])");
        return Err(Failure { message, exit: Exit::Usage });
    }
    let listener = TcpListener::bind(listen).await;
    listener.map_err(|error| Failure::new(format!("cannot listen on {listen}: {error}")))
}

async fn serve_metrics(listener: TcpListener, metrics: Metrics, stop: Stop) {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = move || async move { ([(header::CONTENT_TYPE, content_type)], metrics.text()) };
    let router = Router::new().route("/metrics", get(text)).layer(middleware::from_fn(rpc::local));
    let until = stop.clone();
    let served = axum::serve(listener, router).with_graceful_shutdown(async move { until.stopped().await });
    if let Err(error) = served.await {
        tracing::error!(%error, "the metrics cannot be served any more");
    }
}
