//! `flashd node`: a Tangle node of its own, and the treasury of a development network.
//!
//! | file | what it is |
//! | --- | --- |
//! | `network.json` | the network's parameters: give it to everyone |
//! | `keys.json` | the node's, coordinator's and treasury's keys: 0600 |
//! | `store/` | the ledger |
//! | `ready.json` | where the running node answers: `{"node": "KEY@HOST:PORT", "pid": …}` |

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use flash_node_client::{
    client::{Applied, ClientConfig, NodeClient},
    node::{
        Node, NodeConfig,
        dev::{DevKeys, DevNetwork},
        run_coordinator, service,
    },
    quic::{Endpoint, NODE_ALPN, PeerAddress, StreamLimits},
};
use flash_proto::{
    Action, Address, Amount, Essence, NetworkParams, Output, OutputId, SecretKey, Transaction,
    transaction::commit_inputs,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    datadir::{self, DataDir, DataDirError, check_private, read_network, write_atomically},
    events::now_ms,
    exit::Exit,
    run::{Failure, stop_on_signal},
    stop::Stop,
};

/// Streams that a client may have open at once.
const STREAMS_PER_CLIENT_MAX: u32 = 256;
/// How long a call waits for the running node.
const NODE_WAIT: Duration = Duration::from_secs(60);

/// What a running node says about itself in `ready.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReady {
    /// Where clients connect: `KEY@HOST:PORT`.
    pub node: PeerAddress,
    /// The process.
    pub pid: u32,
}

/// The secret keys of a node, as 32 bytes in hexadecimal.
#[derive(Serialize, Deserialize)]
struct Keys {
    node: Zeroizing<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    coordinator: Option<Zeroizing<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    treasury: Option<Zeroizing<String>>,
}

fn keys_path(dir: &Path) -> std::path::PathBuf {
    dir.join("keys.json")
}

fn hidden(key: &SecretKey) -> Zeroizing<String> {
    Zeroizing::new(hex::encode(key.expose_bytes().as_ref()))
}

fn shown(text: &str) -> Result<SecretKey, Failure> {
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text, bytes.as_mut()).map_err(|_| {
        unusable("keys.json holds a key that is not 64 hexadecimal digits; restore it from a backup")
    })?;
    Ok(SecretKey::from_bytes(*bytes))
}

fn unusable(message: impl Into<String>) -> Failure {
    Failure { message: message.into(), exit: Exit::DataDirUnusable }
}

fn read_keys(dir: &Path) -> Result<Keys, Failure> {
    let path = keys_path(dir);
    check_private(&path, "600")?;
    let text = Zeroizing::new(std::fs::read_to_string(&path).map_err(DataDirError::io(&path))?);
    serde_json::from_str(&text).map_err(|error| unusable(format!("{}: {error}", path.display())))
}

/// What to run.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Make a development network if the directory has none.
    pub dev: Option<DevNetwork>,
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// [`Failure`].
pub async fn run(data: &Path, options: NodeOptions) -> Result<(), Failure> {
    let dir = DataDir::create(data)?;
    if !datadir::network_path(data).exists() || !keys_path(data).exists() {
        let Some(dev) = options.dev else {
            return Err(unusable(format!(
                "{} is not a node's data directory. Make a development network with `flashd node --init-dev`",
                data.display()
            )));
        };
        make_dev(&dir, dev)?;
    }
    let (params, keys) = (dir.network()?, read_keys(data)?);
    let (directory, params_) = (dir.store_path(), params.clone());
    let coordinators = keys.coordinator.iter().map(|key| shown(key)).collect::<Result<Vec<_>, _>>()?;
    let coordinates = !coordinators.is_empty();
    let opened = tokio::task::spawn_blocking(move || Node::open(NodeConfig { directory, params: params_ }));
    let node = opened.await.map_err(Failure::new)?.map_err(Failure::new)?;
    let limits = StreamLimits { bidirectional: STREAMS_PER_CLIENT_MAX };
    let endpoint =
        Endpoint::listen(&shown(&keys.node)?, NODE_ALPN, options.listen, limits).map_err(Failure::new)?;
    let listening = endpoint.local_address().map_err(Failure::new)?;
    let address = PeerAddress::new(endpoint.public_key(), listening.ip().to_string(), listening.port())
        .map_err(Failure::new)?;
    let ready = NodeReady { node: address.clone(), pid: std::process::id() };
    let text = serde_json::to_string(&ready).map_err(Failure::new)?;
    let ready_path = datadir::ready_path(data);
    write_atomically(&ready_path, format!("{text}\n").as_bytes())?;
    tracing::info!(node = %address, network = params.name, data = %data.display(), "ready");

    let stop = Stop::default();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(stop_on_signal(stop.clone()));
    if coordinates {
        let (node, stop) = (node.clone(), stop.clone());
        let interval = Duration::from_millis(params.milestone_interval_ms);
        tasks.spawn(async move {
            let until = stop.clone();
            if let Err(error) =
                run_coordinator(node, coordinators, interval, async move { until.stopped().await }).await
            {
                stop.fail(format!("the coordinator has stopped: {error}"), true);
            }
        });
    }
    let until = stop.clone();
    service::serve(node, endpoint, async move { until.stopped().await }).await;
    while tasks.join_next().await.is_some() {}
    let _ = std::fs::remove_file(ready_path);
    match stop.running() {
        crate::stop::Running::Failed { reason, .. } => {
            Err(Failure { message: reason, exit: Exit::StoreFailed })
        }
        _ => Ok(()),
    }
}

/// Makes a development network, of which this directory has the keys.
///
/// # Errors
/// [`Failure`].
pub(crate) fn make_dev(dir: &DataDir, dev: DevNetwork) -> Result<DevKeys, Failure> {
    let mut entropy = [[0; 32]; 3];
    for bytes in &mut entropy {
        getrandom::fill(bytes).map_err(|error| Failure::new(format!("no randomness: {error}")))?;
    }
    let made = dev.make(now_ms(), entropy);
    let keys = Keys {
        node: hidden(&made.node),
        coordinator: Some(hidden(&made.coordinator)),
        treasury: Some(hidden(&made.treasury)),
    };
    let text = Zeroizing::new(serde_json::to_string_pretty(&keys).map_err(Failure::new)?);
    dir.write_network(&made.params)?;
    write_atomically(&keys_path(dir.path()), text.as_bytes())?;
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

/// A client of the node that runs on a data directory, with its network.
///
/// # Errors
/// [`Failure`] if no node runs there.
pub fn connect(data: &Path) -> Result<(NodeClient, Arc<NetworkParams>), Failure> {
    let address = address(data)?;
    let params = Arc::new(read_network(&datadir::network_path(data))?);
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut()).map_err(Failure::new)?;
    let client = NodeClient::start(ClientConfig {
        params: Arc::clone(&params),
        nodes: vec![address],
        key: SecretKey::from_bytes(*bytes),
        checkpoint: None,
        bind: SocketAddr::from(([0, 0, 0, 0], 0)),
    })
    .map_err(Failure::new)?;
    Ok((client, params))
}

/// Sends money from the treasury of a development network; returns when that is applied.
///
/// # Errors
/// [`Failure`].
pub async fn fund(data: &Path, to: &[Output]) -> Result<(Transaction, Applied), Failure> {
    let keys = read_keys(data)?;
    let treasury = keys.treasury.as_ref().ok_or_else(|| {
        unusable(format!("{} has no treasury: it is not the node of a development network", data.display()))
    })?;
    let key = shown(treasury)?;
    let (client, params) = connect(data)?;
    let funding = async {
        let outputs = client.outputs_of(&[Address::of(&key.public())]).await.map_err(Failure::new)?.value;
        let transaction = spend(&params, &key, &outputs, to)?;
        let applied = client.submit_and_wait(transaction.clone(), None).await.map_err(Failure::new)?;
        Ok((transaction, applied))
    };
    tokio::time::timeout(NODE_WAIT, funding)
        .await
        .map_err(|_| Failure::new("the node did not answer in time; see its log"))?
}

/// Spends the treasury's largest outputs; what is left over goes back to it.
fn spend(
    params: &NetworkParams,
    key: &SecretKey,
    outputs: &[(OutputId, Output)],
    to: &[Output],
) -> Result<Transaction, Failure> {
    let wanted = Amount::checked_sum(to.iter().map(|output| output.amount))
        .ok_or_else(|| Failure::new("the amounts add up to more than the supply"))?;
    let mut sorted = outputs.to_vec();
    sorted.sort_by_key(|(id, output)| (std::cmp::Reverse(output.amount), *id));
    let (mut inputs, mut spent, mut sum) = (Vec::new(), Vec::new(), Amount::ZERO);
    for (id, output) in sorted.iter().take(flash_proto::limits::INPUTS_MAX) {
        if sum >= wanted {
            break;
        }
        inputs.push(*id);
        spent.push(*output);
        sum = sum.checked_add(output.amount).unwrap_or(sum);
    }
    let change = sum
        .checked_sub(wanted)
        .ok_or_else(|| Failure::new(format!("the treasury has {sum}, that is less than {wanted}")))?;
    let mut made = to.to_vec();
    if change >= params.output_min {
        made.push(Output { address: Address::of(&key.public()), amount: change });
    } else if !change.is_zero() {
        return Err(Failure::new(format!("{change} would be left over, which is too little for an output")));
    }
    let essence = Essence {
        network: params.id(),
        inputs,
        inputs_commitment: commit_inputs(&spent),
        outputs: made,
        action: Action::Transfer,
    };
    let unlock = essence.unlock(key);
    let unlocks = vec![unlock; spent.len()];
    Ok(Transaction { essence, unlocks })
}
