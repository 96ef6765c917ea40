//! A network on this machine: a node, and daemons that follow it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use flash_node_client::{client::NodeClient, protocol::NodeInfo, quic::PeerAddress};
use flash_proto::{Address, Amount, NetworkParams, Output, SecretKey};
use flashd::{node_service::NodeReady, treasury};
use serde_json::Value;

use crate::{Daemon, Process, binary, poll, ports::own_address, run};

/// The parts of a log that are printed after a failed test.
const LOG_LINES: usize = 40;

/// A network on this machine.
#[derive(Debug)]
pub struct Net {
    /// Its directory; stays after a failed test.
    dir: Option<tempfile::TempDir>,
    /// Its node.
    pub node: Node,
    /// A client that follows the node and checks everything.
    pub client: NodeClient,
    /// The treasury spends the same output each time, so it pays one at a time.
    funding: tokio::sync::Mutex<()>,
}

/// What a network is like.
#[derive(Clone, Copy, Debug)]
pub struct NetOptions {
    /// Milliseconds between milestones.
    pub milestone_ms: u64,
    /// Bits of proof of work.
    pub pow_bits: u8,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self { milestone_ms: 150, pow_bits: 8 }
    }
}

/// The node of a network.
#[derive(Debug)]
pub struct Node {
    data: PathBuf,
    process: Process,
    /// Where clients connect; the same after a restart.
    pub address: PeerAddress,
    /// The HTTP API, `http://HOST:PORT`.
    pub http: String,
}

impl Net {
    /// A network of a node alone.
    pub async fn start() -> Self {
        Self::with(NetOptions::default()).await
    }

    /// A network of a node alone, with these options.
    pub async fn with(options: NetOptions) -> Self {
        let dir = tempfile::Builder::new().prefix("flash-test-").tempdir().expect("a temporary directory");
        let node = Node::start(dir.path(), options).await;
        let (client, _) = treasury::connect(&node.data).expect("the node is ready");
        Self { dir: Some(dir), node, client, funding: tokio::sync::Mutex::default() }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.as_ref().expect("kept until the drop").path()
    }

    /// The network's parameters.
    pub fn params(&self) -> &Arc<NetworkParams> {
        self.client.params()
    }

    /// A daemon that runs and has this much money.
    pub async fn daemon(&self, name: &str, money: Amount) -> Daemon {
        let daemon = Daemon::init(self, name).await;
        self.run_with_money(daemon, money).await
    }

    /// Starts a daemon that was set up, and gives it this much money.
    pub async fn run_with_money(&self, mut daemon: Daemon, money: Amount) -> Daemon {
        daemon.start().await;
        if !money.is_zero() {
            let address = daemon.client().new_address().await.expect("an address").address;
            self.fund(address, money).await;
            poll("the daemon to see its money", || async {
                let balance = daemon.client().balance().await.ok()?;
                (balance.available >= money).then_some(())
            })
            .await;
        }
        daemon
    }

    /// Sends money from the treasury.
    pub async fn fund(&self, address: Address, amount: Amount) {
        let _funding = self.funding.lock().await;
        let output = Output { address, amount };
        treasury::fund(&self.node.data, &[output]).await.expect("the treasury pays");
    }

    /// One of the keys in the node's `keys.json`: `coordinator`, `treasury` or `node`.
    pub fn key(&self, name: &str) -> SecretKey {
        let text = fs::read_to_string(self.node.data.join("keys.json")).expect("keys.json");
        let keys: Value = serde_json::from_str(&text).expect("JSON");
        let hex = keys.get(name).and_then(Value::as_str).expect("the key is there");
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal"))
            .collect();
        SecretKey::from_bytes(bytes.try_into().expect("32 bytes"))
    }

    /// What the node says of itself, whenever it can be reached.
    pub async fn info(&self) -> NodeInfo {
        poll("the node's info", || async { self.client.info().await.ok() }).await
    }

    /// The node's info once its newest milestone is at least `index`.
    pub async fn info_at(&self, index: u64) -> NodeInfo {
        poll("a milestone", || async {
            let info = self.client.info().await.ok()?;
            (info.milestone_index >= index).then_some(info)
        })
        .await
    }

    /// Waits until so many more milestones were issued.
    pub async fn milestones(&self, count: u64) -> NodeInfo {
        let now = self.info().await.milestone_index;
        self.info_at(now + count).await
    }

    /// Fails the test unless the money in outputs and in channels is the whole supply.
    pub async fn assert_supply(&self) {
        let info = self.info().await;
        let total = info.outputs.1.checked_add(info.channels.1);
        assert_eq!(total, Some(Amount::SUPPLY), "the supply: {info:?}");
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Some(dir) = self.dir.take() else { return };
        let path = dir.keep();
        println!("the directory stays: {}", path.display());
        let logs = fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
        for log in logs.filter(|path| path.extension().is_some_and(|it| it == "log")) {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            println!("--- {}", log.display());
            println!("{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"));
        }
    }
}

impl Node {
    async fn start(dir: &Path, options: NetOptions) -> Self {
        let data = dir.join("node");
        let NetOptions { milestone_ms, pow_bits } = options;
        let mut command = Self::command(&data);
        command.args(["--listen", &own_address(), "--init-dev"]).args([
            "--milestone-ms",
            &milestone_ms.to_string(),
            "--pow-bits",
            &pow_bits.to_string(),
        ]);
        let mut process = Process::start(command, &dir.join("node.log"));
        let ready = process.ready(|pid| node_ready(&data, pid)).await;
        Self { data, process, address: ready.node, http: url(ready.http) }
    }

    fn command(data: &Path) -> Command {
        let mut command = Command::new(binary("flashd"));
        command.arg("node").arg("--data").arg(data).args(["--http", "127.0.0.1:0"]);
        command
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// `network.json`.
    pub fn network(&self) -> PathBuf {
        self.data.join("network.json")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, after a kill, at the same address.
    pub async fn restart(&mut self) {
        let mut command = Self::command(&self.data);
        command.args(["--listen", &format!("{}:{}", self.address.host(), self.address.port())]);
        let log = self.data.with_extension("log");
        self.process = Process::start(command, &log);
        self.http = url(self.process.ready(|pid| node_ready(&self.data, pid)).await.http);
    }
}

/// What a node on this data directory says of itself, if this process is it.
pub(crate) fn node_ready(data: &Path, pid: u32) -> Option<NodeReady> {
    let text = fs::read_to_string(data.join("ready.json")).ok()?;
    let ready: NodeReady = serde_json::from_str(&text).ok()?;
    (ready.pid == pid).then_some(ready)
}

fn url(http: Option<SocketAddr>) -> String {
    format!("http://{}", http.expect("the node answers over HTTP"))
}

impl Daemon {
    /// Sets a daemon up in the network's directory, without starting it.
    pub async fn init(net: &Net, name: &str) -> Self {
        let node = net.node.address.to_string();
        Self::init_at(net.path().join(name), &net.node.network(), &["--node", &node]).await
    }

    /// Sets a daemon of the network of this file up, without starting it.
    pub async fn init_at(data: PathBuf, network: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary("flash"));
        command.arg("init").arg("--data").arg(&data).arg("--network").arg(network).args(arguments);
        let ended = run(command).await;
        assert_eq!(ended.code, Some(0), "{}", ended.output);
        Self::at(data)
    }
}
