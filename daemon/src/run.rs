//! Putting the daemon together, running it, and taking it apart in order.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use flash_channel::{
    machine::HistoryRule,
    store::{Batch, Store, StoreKind},
};
use flash_node_client::{
    client::{ClientConfig, NodeClient},
    node::Keep,
    quic::{Endpoint, PEER_ALPN, PeerAddress, StreamLimits},
    tangle::TipSelection,
    wallet::{Account, Seed},
};
use flash_proto::{NetworkId, NetworkParams, SecretKey};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    api::BackupInfo,
    backup::{
        Keeper, Status,
        restore::{self, Checked},
    },
    client::Ready,
    config::Config,
    daemon::{BackupStatus, Daemon, Parts},
    datadir::{self, DataDir, write_atomically},
    engine::{self, ChannelKeys, EngineConfig, Started, Writer},
    events::{EventLog, NewEvent},
    exit::Exit,
    failure::Failure,
    metrics::Metrics,
    node_http::HttpOptions,
    node_service::from_this_machine,
    node_service::{self, HttpListen, MakeNode, NodeOptions, RunningNode},
    opening::Opening,
    peers::{Peers, STREAMS_BESIDE_CHANNELS},
    recovery::Recovery,
    rpc::{self, Tokens},
    seedfile,
    stop::{Stop, stop_on_signal},
    submitter, tables,
    towers::{self, Towers},
    wallet::WalletService,
    watched_store::WatchedStore,
    watcher::{Channels, Watcher},
    watchtower,
};

/// How long the parts may take to end.
const ENDING_MAX: Duration = Duration::from_secs(10);

/// Reads the seed of a data directory; asks for its passphrase if it is encrypted.
///
/// # Errors
/// [`Failure`].
pub fn read_seed(dir: &DataDir) -> Result<Seed, Failure> {
    let words = seedfile::read(&datadir::seed_path(dir.path()), || seedfile::passphrase(true))?;
    Seed::from_words(&words, "").map_err(Failure::new)
}

/// A running daemon without its RPC, for programs that have one inside. It stops by [`Running::end`].
pub struct Running {
    pub(crate) daemon: Daemon,
    peers: Peers,
    /// The node of its own.
    node: Option<RunningNode>,
    tasks: JoinSet<()>,
    threads: Vec<std::thread::JoinHandle<()>>,
    stop: Stop,
}

/// Runs the daemon until it is told to stop or something fails that must not be worked around.
///
/// # Errors
/// [`Failure`].
pub async fn run(dir: DataDir, config: Config) -> Result<(), Failure> {
    run_with(dir, config, |_daemon| std::future::pending()).await
}

/// The same in a program that has the daemon inside: `embedder` makes of the running daemon what runs beside it and is
/// dropped when it stops. Its end does not stop the daemon.
///
/// # Errors
/// [`Failure`].
pub async fn run_with<F>(
    dir: DataDir,
    config: Config,
    embedder: impl FnOnce(Daemon) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut running = start(&dir, &config).await?;
    let stop = running.stop.clone();
    running.tasks.spawn(stop_on_signal(stop.clone()));
    let (beside, stopping) = (embedder(running.daemon.clone()), stop.clone());
    running.tasks.spawn(async move {
        tokio::select! {
            () = beside => {}
            () = stopping.stopped() => {}
        }
    });
    let served = serve(&dir, &config, running.daemon.clone(), &stop).await;
    let ended = running.end().await;
    served.and(ended)
}

/// Puts the daemon together, from the disk outwards, and starts it in this process.
///
/// # Errors
/// [`Failure`].
pub async fn start(dir: &DataDir, config: &Config) -> Result<Running, Failure> {
    let seed = read_seed(dir)?;
    let params = Arc::new(dir.network()?);
    let node_key = seed.key(Account::Node, 0);
    let (stop, metrics) = (Stop::default(), Metrics::default());
    let store = open_store(dir, config.store, &restore::identity(&params, &seed), &stop).await?;
    let Checked { keeper, old } =
        restore::check(dir, store.as_ref(), &seed, &params, config.backup_settings().as_ref())?;
    let backup = backup_status(config.backup.as_ref(), keeper.as_ref());
    let (log, events) = EventLog::open(&store)?;
    let keys = channel_keys(&seed);
    let Started { engine, writer, views, submissions, threads } = engine::start(EngineConfig {
        store: Arc::clone(&store),
        log,
        backup: keeper,
        keys: Arc::clone(&keys),
        milestone_interval_ms: params.milestone_interval_ms,
        freshness_max: config.freshness_ms_max.map(Duration::from_millis),
        history: HistoryRule { keep: config.history_keep.0, receipt_every: config.receipt_every },
        rests: config.towers.is_empty(),
        metrics: metrics.clone(),
        stop: stop.clone(),
    })?;
    tell_if_old(old, &writer).await?;
    let node = start_node(dir, config, &stop).await?;
    let client = start_client(config, node.as_ref(), &params, &node_key, store.as_ref())?;
    let wallet =
        WalletService::open(seed, client.clone(), writer.clone(), Arc::clone(&store), views.clone())?;
    let opening =
        Opening::new(engine.clone(), views.clone(), wallet.clone(), client.clone(), config.accept.clone());
    let mut tasks = JoinSet::new();
    let base = Base {
        key: node_key.clone(),
        store: Arc::clone(&store),
        writer,
        metrics: metrics.clone(),
        stop: stop.clone(),
    };
    let (peers, ticket) = start_peers(config, params.id(), &opening, &base)?;
    tasks.spawn(submitter::run(client.clone(), engine.clone(), views.clone(), submissions, stop.clone()));
    follow(&opening, &base, &mut tasks);
    let recovery = Recovery::start(&opening, &mut tasks, &stop);
    let tower = start_watchtower(config, &base, &client, &mut tasks)?;
    let towers = start_towers(config, params.id(), keys, &views, base, &recovery, &mut tasks)?;
    let daemon = Daemon::new(Parts {
        engine,
        store,
        views,
        events,
        wallet,
        client,
        peers: peers.clone(),
        opening,
        recovery,
        towers,
        params,
        node_key: node_key.public(),
        ticket,
        tower,
        contest_window_milestones: config.contest_window_milestones,
        metrics,
        backup,
        stop: stop.clone(),
    });
    Ok(Running { daemon, peers, node, tasks, threads, stop })
}

fn channel_keys(seed: &Seed) -> ChannelKeys {
    let seed = seed.clone();
    Arc::new(move |index| seed.key(Account::Channels, index))
}

/// What watchtowers need of the process that they are in.
#[derive(Clone)]
pub(crate) struct Base {
    /// The key of this machine.
    pub(crate) key: SecretKey,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) writer: Writer,
    pub(crate) metrics: Metrics,
    pub(crate) stop: Stop,
}

/// Is a watchtower for others, if it is told to be one; gives back what they are to be told.
fn start_watchtower(
    config: &Config,
    base: &Base,
    client: &NodeClient,
    tasks: &mut JoinSet<()>,
) -> Result<Option<PeerAddress>, Failure> {
    let Some(listen) = config.tower_listen else { return Ok(None) };
    let config = watchtower::Config {
        listen,
        public_address: config.public_address.clone(),
        clients: config.tower_clients.iter().copied().collect(),
        client: client.clone(),
        keeps_checkpoint: false,
        base: base.clone(),
    };
    watchtower::start(config, tasks).map(Some)
}

/// Hands balances to the watchtowers of this daemon.
fn start_towers(
    config: &Config,
    network: NetworkId,
    keys: ChannelKeys,
    views: &engine::Views,
    base: Base,
    recovery: &Recovery,
    tasks: &mut JoinSet<()>,
) -> Result<Towers, Failure> {
    let (towers, bind, views) = (config.towers.clone(), any_port(config), views.clone());
    let stop = base.stop.clone();
    let towers = Towers::start(towers::Config { towers, network, keys, bind, views, base }, tasks)?;
    if !config.towers.is_empty() {
        tasks.spawn(recovery.clone().ask_towers(towers.clone(), stop));
    }
    Ok(towers)
}

impl Running {
    /// The daemon, to be asked things.
    pub const fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Takes the daemon apart in order.
    ///
    /// # Errors
    /// [`Failure`]: why it had stopped by itself, if it had.
    pub async fn end(self) -> Result<(), Failure> {
        let Self { daemon, peers, node, mut tasks, threads, stop } = self;
        stop.stop();
        peers.close().await;
        drop((daemon, peers));
        let _ = tokio::time::timeout(ENDING_MAX, async { while tasks.join_next().await.is_some() {} }).await;
        tasks.shutdown().await;
        if let Some(node) = node {
            let _ = tokio::time::timeout(ENDING_MAX, node.ended()).await;
        }
        let ended = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|it| drop(it.join())));
        let _ = tokio::time::timeout(ENDING_MAX, ended).await;
        stop.outcome()
    }
}

/// Listens for peers, and connects to those of the channels that there are.
fn start_peers(
    config: &Config,
    network: NetworkId,
    opening: &Opening,
    base: &Base,
) -> Result<(Peers, String), Failure> {
    let (endpoint, ticket) = listen(config, &base.key)?;
    let (engine, views, proposals) =
        (opening.engine.clone(), opening.views.clone(), Arc::new(opening.clone()));
    let (metrics, stop) = (base.metrics.clone(), base.stop.clone());
    let peers = Peers::start(endpoint, network, engine, views, proposals, metrics, stop);
    reconnect(&peers, &opening.views, base.store.as_ref())?;
    Ok((peers, ticket))
}

/// Tells the engine and the wallet what happens on the ledger.
fn follow(opening: &Opening, base: &Base, tasks: &mut JoinSet<()>) {
    let watching = Channels::new(opening, base.writer.clone(), base.metrics.clone());
    let watcher = Watcher { client: opening.client.clone(), watching, stop: base.stop.clone() };
    tasks.spawn(watcher.run());
    tasks.spawn(opening.wallet.clone().follow(base.stop.clone()));
}

/// Says that the records may be old, and how that is known.
async fn tell_if_old(old: Option<&'static str>, writer: &Writer) -> Result<(), Failure> {
    let Some(reason) = old else { return Ok(()) };
    tracing::error!(
        reason,
        "the records may be old: nothing is signed in a channel until its peer has shown it"
    );
    let event = NewEvent::new("records_old", None, &json!({ "reason": reason }));
    writer.commit(Batch::new(), vec![event]).await.map_err(Failure::new)
}

fn backup_status(file: Option<&PathBuf>, keeper: Option<&Keeper>) -> Option<BackupStatus> {
    let (file, status) = (file?.display().to_string(), keeper?.status());
    Some(Box::new(move || {
        let Status { generation, written_ms, error, wanted } = status();
        BackupInfo { file: file.clone(), generation, current: generation >= wanted, written_ms, error }
    }))
}

pub(crate) async fn open_store(
    dir: &DataDir,
    wished: Option<StoreKind>,
    identity: &[u8],
    stop: &Stop,
) -> Result<Arc<dyn Store>, Failure> {
    let (path, identity) = (dir.store_path(), identity.to_vec());
    let opened = tokio::task::spawn_blocking(move || StoreKind::open(wished, &path, &identity)).await;
    Ok(Arc::new(WatchedStore::new(opened.map_err(Failure::new)??, stop.clone())))
}

/// Starts the daemon's own node, if it is to have one: in its data directory, with the nodes that it is told
/// to follow as the first neighbours.
async fn start_node(dir: &DataDir, config: &Config, stop: &Stop) -> Result<Option<RunningNode>, Failure> {
    if !config.full_node {
        return Ok(None);
    }
    let options = NodeOptions {
        listen: config.node_listen,
        make: Some(MakeNode::Join(datadir::network_path(dir.path()))),
        neighbours: config.nodes.clone(),
        handover: None,
        public_address: None,
        http: HttpListen::Off,
        http_options: HttpOptions::default(),
        tips: TipSelection::Uniform,
        from_snapshot: None,
        keep: Some(Keep::default()),
        snapshot_every: None,
    };
    node_service::start(&dir.path().join("node"), options, stop).await.map(Some)
}

pub(crate) fn start_client(
    config: &Config,
    own: Option<&RunningNode>,
    params: &Arc<NetworkParams>,
    node_key: &SecretKey,
    store: &dyn Store,
) -> Result<NodeClient, Failure> {
    let nodes: Vec<PeerAddress> =
        own.map(|node| &node.address).into_iter().chain(&config.nodes).cloned().collect();
    if nodes.is_empty() {
        let message = "no node is configured: name one with --node KEY@HOST:PORT, or as `nodes` in flash.toml, \
            or run one with --full-node";
        return Err(Failure { message: message.to_owned(), exit: Exit::Usage });
    }
    let nodes_at_once = usize::from(config.nodes_at_once);
    let bind = any_port(config);
    let config = ClientConfig::new(Arc::clone(params), nodes, node_key.clone(), bind);
    NodeClient::start(ClientConfig { nodes_at_once, checkpoint: tables::checkpoint(store)?, ..config })
        .map_err(Failure::new)
}

/// Any port, of the kind of addresses that peers use.
fn any_port(config: &Config) -> SocketAddr {
    let any: std::net::IpAddr =
        if config.listen.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(any, 0)
}

/// Goes on keeping connected to the peers that we opened channels with.
fn reconnect(peers: &Peers, views: &engine::Views, store: &dyn Store) -> Result<(), Failure> {
    tables::for_each_link(store, |id, link| {
        let address = link.address.and_then(|address| address.parse::<PeerAddress>().ok());
        if let Some(address) = address.filter(|_| views.is_live(id)) {
            peers.keep(address);
        }
    })?;
    Ok(())
}

/// Listens for peers; gives back also what they are told to connect to.
fn listen(config: &Config, key: &SecretKey) -> Result<(Endpoint, String), Failure> {
    let limits = StreamLimits { bidirectional: STREAMS_BESIDE_CHANNELS };
    let endpoint = Endpoint::listen(key, PEER_ALPN, config.listen, limits).map_err(Failure::new)?;
    let ticket = ticket(config, key, endpoint.local_address().map_err(Failure::new)?)?;
    Ok((endpoint, ticket))
}

fn ticket(config: &Config, key: &SecretKey, listening: SocketAddr) -> Result<String, Failure> {
    if let Some(public) = &config.public_address {
        return Ok(format!("{}@{public}", key.public()));
    }
    // Nobody said how others reach this machine.
    let address = from_this_machine(listening);
    let address = PeerAddress::new(key.public(), address.ip().to_string(), address.port());
    Ok(address.map_err(Failure::new)?.to_string())
}

async fn serve(dir: &DataDir, config: &Config, daemon: Daemon, stop: &Stop) -> Result<(), Failure> {
    let tokens = Tokens::open(dir.path())?;
    let listener = TcpListener::bind(config.rpc).await.map_err(|error| {
        Failure::new(format!("cannot listen on {}: {error}; choose another address with --rpc", config.rpc))
    })?;
    let rpc = listener.local_addr().map_err(Failure::new)?.to_string();
    let ready = Ready { rpc: rpc.clone(), pid: std::process::id() };
    let text = serde_json::to_string(&ready).map_err(Failure::new)?;
    let path = datadir::ready_path(dir.path());
    write_atomically(&path, format!("{text}\n").as_bytes())?;
    tracing::info!(%rpc, data = %dir.path().display(), "ready");
    let served = rpc::serve(listener, daemon, tokens, stop.stopped()).await;
    // Its absence only makes the error of the next call clearer.
    let _ = std::fs::remove_file(path);
    served.map_err(Failure::new)
}

/// The filter that is given. Of what the store's tree does with its files only warnings are news, unless it is asked for.
fn log_filter(given: &str) -> Result<Targets, Failure> {
    const TREE: &str = "lsm_tree";
    let filter = given.parse::<Targets>().map_err(|error| Failure {
        message: format!(
            "`{given}` is no log filter: {error}. Use a level, or such as flashd=debug,quinn=warn"
        ),
        exit: Exit::Usage,
    })?;
    let is_named = filter.iter().any(|(target, _)| target.starts_with(TREE));
    let is_info = filter.default_level() == Some(LevelFilter::INFO);
    Ok(if is_info && !is_named { filter.with_target(TREE, LevelFilter::WARN) } else { filter })
}

/// Writes logs to standard error.
pub fn log_to_stderr(filter: &str, json: bool) -> Result<(), Failure> {
    let filter = log_filter(filter)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let filtered = tracing_subscriber::registry().with(filter);
    let done = if json { filtered.with(lines.json()).try_init() } else { filtered.with(lines).try_init() };
    done.map_err(Failure::new)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{collections::BTreeMap, path::Path};

    use flash_node_client::node::dev::DevNetwork;

    use super::*;

    #[test]
    fn the_stores_housekeeping_is_logged_only_if_it_is_asked_for() {
        use tracing::Level;
        for (given, tree, warned) in [
            ("info", false, true),
            ("flashd=debug,info", false, true),
            ("lsm_tree=info,info", true, true),
            ("debug", true, true),
            ("error", false, false),
        ] {
            let filter = log_filter(given).unwrap();
            assert_eq!(filter.would_enable("lsm_tree::tree::ingest", &Level::INFO), tree, "{given}");
            assert_eq!(filter.would_enable("lsm_tree::tree::ingest", &Level::WARN), warned, "{given}");
            assert_eq!(filter.would_enable("flashd::run", &Level::INFO), given != "error", "{given}");
        }
        assert!(log_filter("flashd=loud").is_err());
    }

    /// A daemon on a new data directory in `dir`, which follows a node that is never there. It runs
    /// until the test's runtime ends.
    pub(crate) async fn started(dir: &Path) -> Running {
        let dev = DevNetwork { milestone_interval_ms: 1_000, pow_bits: 0 };
        let made = dev.make(0, [[1; 32], [2; 32], [3; 32]]);
        let data = dir.join("data");
        let node: PeerAddress = format!("{}@127.0.0.1:9", made.node.public()).parse().unwrap();
        let setup = crate::setup::Setup {
            data: &data,
            network: &made.params,
            words: None,
            passphrase: None,
            node: Some(&node),
        };
        crate::setup::init(setup, None).unwrap();
        started_in(&DataDir::open(&data).unwrap()).await
    }

    /// The same on a data directory that is there.
    pub(crate) async fn started_in(data: &DataDir) -> Running {
        let flags = BTreeMap::from([("listen", "127.0.0.1:0".to_owned())]);
        let config = Config::load(&datadir::config_path(data.path()), true, &flags, &|_| None).unwrap();
        start(data, &config).await.unwrap()
    }

    #[tokio::test]
    async fn a_daemon_without_its_node_answers_and_ends_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let running = started(dir.path()).await;
        let info = running.daemon.info().unwrap();
        assert!(!info.ledger.fresh && info.ledger.node.is_none());
        assert!(running.daemon.wallet_balance().await.is_err(), "there is no ledger to look at");
        running.end().await.unwrap();
        let data = DataDir::open(&dir.path().join("data")).unwrap();
        assert!(data.store_path().exists());
    }
}
