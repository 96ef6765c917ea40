//! `flashd node`: a Tangle node of its own, and the treasury of a development network.
//!
//! | file | what it is |
//! | --- | --- |
//! | `network.json` | the network's parameters: give it to everyone |
//! | `keys.json` | the node's, coordinator's and treasury's keys: 0600 |
//! | `store/` | the ledger |
//! | `snapshots/` | the newest two snapshots, with `--snapshot-every` |
//! | `ready.json` | where the running node answers: `{"node": "KEY@HOST:PORT", "http": "IP:PORT", "pid": …}` |

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use flash_node_client::{
    coordinator::{Heard, Timing},
    gossip::{Gossip, GossipConfig, message::Reached},
    node::{
        CoordinatorConfig, Floodgate, Handover, Keep, Node, NodeConfig, Upkeep,
        dev::{DevKeys, DevNetwork},
        run_coordinator, run_upkeep, service,
    },
    quic::{Endpoint, GOSSIP_ALPN, NODE_ALPN, PeerAddress, PeerAddressError, StreamLimits},
    tangle::TipSelection,
};
use flash_proto::NetworkParams;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::mpsc};

use crate::{
    datadir::{self, DataDir, read_network, write_atomically},
    events::now_ms,
    exit::Exit,
    failure::Failure,
    node_http::{self, HttpOptions, neighbours::Neighbours},
    node_keys::{Keys, hidden, keys_path, new_key, random_bytes, read_keys, shown, write_keys},
    stop::{Stop, stop_on_signal},
};

/// Streams that a client may have open at once.
const STREAMS_PER_CLIENT_MAX: u32 = 256;

/// What a running node says about itself in `ready.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReady {
    /// Where clients connect: `KEY@HOST:PORT`.
    pub node: PeerAddress,
    /// Where the HTTP API answers, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
    /// The process.
    pub pid: u32,
}

/// Where the HTTP API listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpListen {
    /// At [`node_http::DEFAULT_LISTEN`]; if that is taken, as by another node of this machine, nowhere.
    Default,
    /// Here.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Where clients and other nodes connect.
    pub listen: SocketAddr,
    /// What to make of a directory that is no node's yet.
    pub make: Option<MakeNode>,
    /// Nodes to be neighbours with; these name others.
    pub neighbours: Vec<PeerAddress>,
    /// To whom this node's coordinator agrees to hand over.
    pub handover: Option<Handover>,
    /// Where other nodes are told to connect: `HOST:PORT`. Without it they try the address that they see
    /// and the port of `listen`.
    pub public_address: Option<String>,
    /// Where the HTTP API listens.
    pub http: HttpListen,
    /// What it allows.
    pub http_options: HttpOptions,
    /// How tips are picked for those who ask what to approve.
    pub tips: TipSelection,
    /// Start from this snapshot; only where there is no ledger yet.
    pub from_snapshot: Option<PathBuf>,
    /// How much of the past to keep; all of it if `None`.
    pub keep: Option<Keep>,
    /// After how many milestones each to write a snapshot into `snapshots/`; never if `None`.
    pub snapshot_every: Option<u64>,
}

/// How a new node begins.
#[derive(Clone, Debug)]
pub enum MakeNode {
    /// With a development network of its own.
    Dev(DevNetwork),
    /// With the network of this file.
    Join(PathBuf),
}

/// A node that runs in this process.
pub(crate) struct RunningNode {
    /// Where it is reached from this machine.
    pub(crate) address: PeerAddress,
    ready: PathBuf,
    tasks: tokio::task::JoinSet<()>,
    /// Locked for as long as it runs.
    _dir: DataDir,
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// [`Failure`].
pub async fn run(data: &Path, options: NodeOptions) -> Result<(), Failure> {
    let stop = Stop::default();
    let mut node = start(data, options, &stop).await?;
    node.tasks.spawn(stop_on_signal(stop.clone()));
    node.ended().await;
    stop.outcome()
}

/// Starts a node that runs until `stop`.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn start(data: &Path, options: NodeOptions, stop: &Stop) -> Result<RunningNode, Failure> {
    let dir = DataDir::create(data)?;
    make(&dir, options.make.as_ref())?;
    let (params, keys) = (dir.network()?, read_keys(data)?);
    let index = options.http != HttpListen::Off;
    let config =
        NodeConfig { index, tips: options.tips, ..NodeConfig::new(dir.store_path(), params.clone()) };
    let coordinator = keys.coordinator.as_ref().map(|key| shown(key)).transpose()?;
    let opened = tokio::task::spawn_blocking(move || match options.from_snapshot {
        Some(snapshot) => Node::open_from_snapshot(config, &snapshot),
        None => Node::open(config),
    });
    let node = opened.await.map_err(Failure::new)?.map_err(Failure::new)?;
    let limits = StreamLimits { bidirectional: STREAMS_PER_CLIENT_MAX };
    let kinds = [GOSSIP_ALPN, NODE_ALPN];
    let endpoint = Endpoint::listen_for_all(&shown(&keys.node)?, GOSSIP_ALPN, &kinds, options.listen, limits)
        .map_err(Failure::new)?;
    let listening = from_this_machine(endpoint.local_address().map_err(Failure::new)?);
    let address = PeerAddress::new(endpoint.public_key(), listening.ip().to_string(), listening.port())
        .map_err(Failure::new)?;
    let reached = reached(&address, options.public_address.as_deref())?;
    let (gate, hearing) = Floodgate::new(node.clone());
    let config = GossipConfig { neighbours: options.neighbours, reached, relay: gate.clone() };
    let gossip = Gossip::start(node.clone(), endpoint.clone(), config).map_err(Failure::new)?;
    let http = listen_http(options.http).await?;
    let ready = datadir::ready_path(data);
    write_ready(&ready, &address, http.as_ref())?;
    tracing::info!(node = %address, network = params.name, data = %data.display(), "ready");

    let mut tasks = tokio::task::JoinSet::new();
    if let Some(key) = coordinator {
        let config = CoordinatorConfig { key, timing: Timing::of(&params), handover: options.handover };
        tasks.spawn(coordinate(node.clone(), config, (gate, hearing), gossip.clone(), stop.clone()));
    }
    if let Some(listener) = http {
        tasks.spawn(answer_http(listener, node.clone(), gossip.clone(), options.http_options, stop.clone()));
    }
    let snapshots = options.snapshot_every.map(|every| (data.join("snapshots"), every));
    tasks.spawn(keep_up(node.clone(), Upkeep { keep: options.keep, snapshots }, stop.clone()));
    let until = stop.clone();
    tasks.spawn(service::serve_all(node, endpoint, Some(gossip), async move { until.stopped().await }));
    Ok(RunningNode { address, ready, tasks, _dir: dir })
}

impl RunningNode {
    /// Waits until it has ended, after it was told to.
    pub(crate) async fn ended(mut self) {
        while self.tasks.join_next().await.is_some() {}
        let _ = std::fs::remove_file(self.ready);
    }
}

/// Where what listens there is reached from this machine: at loopback if it listens everywhere.
pub(crate) fn from_this_machine(listening: SocketAddr) -> SocketAddr {
    let ip = match listening {
        SocketAddr::V4(address) if address.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(address) if address.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other.ip(),
    };
    SocketAddr::new(ip, listening.port())
}

fn write_ready(path: &Path, node: &PeerAddress, http: Option<&TcpListener>) -> Result<(), Failure> {
    let http = http.and_then(|listener| listener.local_addr().ok());
    let ready = NodeReady { node: node.clone(), http, pid: std::process::id() };
    let text = serde_json::to_string(&ready).map_err(Failure::new)?;
    Ok(write_atomically(path, format!("{text}\n").as_bytes())?)
}

/// Makes milestones together with the other coordinators, until the node is told to stop.
async fn coordinate(
    node: Node,
    config: CoordinatorConfig,
    (gate, hearing): (Arc<Floodgate>, mpsc::Receiver<Heard>),
    gossip: Gossip,
    stop: Stop,
) {
    let until = stop.clone();
    let stopped = async move { until.stopped().await };
    let send = move |message| {
        if let Err(error) = gossip.flood(message) {
            tracing::error!(%error, "a coordinator's message was not sent");
        }
    };
    if let Err(error) = run_coordinator(node, config, gate, hearing, send, stopped).await {
        stop.fail(format!("the coordinator has stopped: {error}"), true);
    }
}

/// Answers over HTTP until the node is told to stop; the ledger goes on without it.
async fn answer_http(listener: TcpListener, node: Node, gossip: Gossip, options: HttpOptions, stop: Stop) {
    let neighbours: Arc<dyn Neighbours> = Arc::new(gossip);
    let until = async move { stop.stopped().await };
    if let Err(error) = node_http::serve(listener, node, Some(neighbours), options, until).await {
        tracing::error!(%error, "the HTTP API has stopped");
    }
}

/// What other nodes are told of where this one is reached.
fn reached(own: &PeerAddress, public: Option<&str>) -> Result<Reached, Failure> {
    let Some(public) = public else { return Ok(Reached::Port(own.port())) };
    let public: PeerAddress =
        format!("{}@{public}", own.key).parse().map_err(|error: PeerAddressError| Failure {
            message: format!("--public-address must be HOST:PORT: {error}"),
            exit: Exit::Usage,
        })?;
    Ok(Reached::Host(public.host().to_owned(), public.port()))
}

/// Sees to it that the directory is a node's, of the network that was asked for.
fn make(dir: &DataDir, wanted: Option<&MakeNode>) -> Result<(), Failure> {
    let data = dir.path();
    let is_new = !datadir::network_path(data).exists() || !keys_path(data).exists();
    match wanted {
        Some(MakeNode::Join(file)) => {
            let params = read_network(file)?;
            if is_new {
                return make_joining(dir, &params);
            }
            let own = dir.network()?;
            if own.id() != params.id() {
                return Err(Failure::unusable_data(format!(
                    "{} belongs to network {}, but {} is of network {}; choose another directory",
                    data.display(),
                    own.name,
                    file.display(),
                    params.name
                )));
            }
            Ok(())
        }
        Some(MakeNode::Dev(dev)) if is_new => make_dev(dir, *dev).map(drop),
        None if is_new => Err(Failure::unusable_data(format!(
            "{} is not a node's data directory. Join a network with `flashd node --network FILE`, or make \
             one for development with `flashd node --init-dev`",
            data.display()
        ))),
        Some(MakeNode::Dev(_)) | None => Ok(()),
    }
}

fn make_joining(dir: &DataDir, params: &NetworkParams) -> Result<(), Failure> {
    if !keys_path(dir.path()).exists() {
        write_keys(dir, &Keys { node: new_key()?, coordinator: None, treasury: None })?;
    }
    dir.write_network(params)?;
    Ok(())
}

async fn listen_http(listen: HttpListen) -> Result<Option<TcpListener>, Failure> {
    let address = match listen {
        HttpListen::Off => return Ok(None),
        HttpListen::Default => node_http::DEFAULT_LISTEN,
        HttpListen::At(address) => address,
    };
    match TcpListener::bind(address).await {
        Ok(listener) => {
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "the HTTP API has no authentication and is open to other machines");
            }
            Ok(Some(listener))
        }
        Err(error) if listen == HttpListen::Default => {
            tracing::warn!(%address, %error, "there is no HTTP API; give it another address with --http");
            Ok(None)
        }
        Err(error) => Err(Failure::new(format!("the HTTP API cannot listen on {address}: {error}"))),
    }
}

/// Lets go of the past and writes snapshots, until the node is told to stop.
async fn keep_up(node: Node, upkeep: Upkeep, stop: Stop) {
    let until = stop.clone();
    tokio::select! {
        () = until.stopped() => {}
        // A node that has stopped its ledger goes on to say so to its clients.
        kept = run_upkeep(node, upkeep) => if let Err(error) = kept {
            tracing::warn!(%error, "nothing is pruned and no snapshot is written any more");
        },
    }
}

/// Makes a development network, of which this directory has the keys.
///
/// # Errors
/// [`Failure`].
pub(crate) fn make_dev(dir: &DataDir, dev: DevNetwork) -> Result<DevKeys, Failure> {
    let made = dev.make(now_ms(), [*random_bytes()?, *random_bytes()?, *random_bytes()?]);
    let keys = Keys {
        node: hidden(&made.node),
        coordinator: Some(hidden(&made.coordinator)),
        treasury: Some(hidden(&made.treasury)),
    };
    write_keys(dir, &keys)?;
    dir.write_network(&made.params)?;
    Ok(made)
}

/// Where the node is that runs on a data directory.
///
/// # Errors
/// [`Failure`] if no node runs there.
pub fn address(data: &Path) -> Result<PeerAddress, Failure> {
    let text = std::fs::read_to_string(datadir::ready_path(data)).map_err(|_| {
        Failure::new(format!("no node runs on {}: start it with `flashd node`", data.display()))
    })?;
    let ready: NodeReady = serde_json::from_str(&text).map_err(Failure::new)?;
    Ok(ready.node)
}
