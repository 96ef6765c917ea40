//! The nodes of a network: processes that are killed, stopped and started again.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use flash_node_client::{
    client::{ClientConfig, NodeClient},
    quic::PeerAddress,
};
use flash_proto::{NetworkParams, PublicKey, SecretKey};
use serde_json::Value;

use super::{namespaces::Namespaces, weather::Weather};
use crate::{Process, binary, net::node_ready, ports::own_port, run};

/// What a network is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Nodes.
    pub(super) nodes: usize,
    /// The first so many are coordinators' nodes; more than half must sign.
    pub(super) coordinators: usize,
    /// Between milestones.
    pub(super) interval: Duration,
    /// Bits of proof of work.
    pub(super) pow_bits: u8,
}

/// One node.
#[derive(Debug)]
pub(super) struct Machine {
    data: PathBuf,
    network: PathBuf,
    key: PublicKey,
    /// Where it listens.
    pub(super) own: SocketAddr,
    /// Where others are told to connect.
    door: SocketAddr,
    /// The only address that it is told at first.
    first: Option<PeerAddress>,
    namespace: Option<String>,
    process: Option<Process>,
}

/// All nodes of a network.
#[derive(Debug)]
pub(super) struct Machines {
    /// By number.
    pub(super) all: Vec<Machine>,
    /// Of the network.
    pub(super) params: Arc<NetworkParams>,
    /// The network's file.
    pub(super) network: PathBuf,
}

async fn output(command: Command) -> String {
    let ended = run(command).await;
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    ended.output
}

fn text<'a>(keys: &'a Value, name: &str) -> &'a str {
    keys.get(name).and_then(Value::as_str).unwrap_or_else(|| panic!("no {name} in {keys}"))
}

impl Machines {
    /// Makes all keys and the network, and starts all nodes, each with the first node's address only.
    pub(super) async fn start(
        dir: &Path,
        shape: Shape,
        weather: &Weather,
        namespaces: Option<&Namespaces>,
    ) -> Self {
        let network = dir.join("network.json");
        let (mut all, mut coordinators, mut treasury) = (Vec::new(), Vec::new(), String::new());
        for node in 0..shape.nodes {
            let data = dir.join(format!("node{node}"));
            let mut command = Command::new(binary("flashd"));
            command.args(["node", "keys", "--data"]).arg(&data);
            command.args((node < shape.coordinators).then_some("--coordinator"));
            command.args((node == 0).then_some("--treasury"));
            let keys: Value = serde_json::from_str(&output(command).await).expect("JSON");
            if node < shape.coordinators {
                coordinators.push(text(&keys, "coordinator").to_owned());
            }
            if node == 0 {
                text(&keys, "treasury").clone_into(&mut treasury);
            }
            let host = namespaces.map_or(Ipv4Addr::LOCALHOST.into(), |it| it.address(node));
            let port = namespaces.map_or_else(|| own_port(host), |_| 14_265);
            let own = SocketAddr::new(host, port);
            all.push(Machine {
                data,
                network: network.clone(),
                key: text(&keys, "node").parse().expect("a key"),
                own,
                door: weather.door(node, own).await,
                first: None,
                namespace: namespaces.map(|it| it.name(node)),
                process: None,
            });
        }
        let mut command = Command::new(binary("flashd"));
        command.args(["node", "network", "--name", "network-test", "--treasury", &treasury]);
        command.args(["--milestone-ms", &shape.interval.as_millis().to_string()]);
        command.args(["--pow-bits", &shape.pow_bits.to_string()]);
        command.args(["--threshold", &(shape.coordinators / 2 + 1).to_string()]);
        for key in &coordinators {
            command.args(["--coordinator", key]);
        }
        let text = output(command).await;
        fs::write(&network, &text).expect("the network's file");
        let params = Arc::new(serde_json::from_str(&text).expect("a network"));
        let first = all.first().map(Machine::public);
        for machine in all.iter_mut().skip(1) {
            machine.first.clone_from(&first);
        }
        for machine in &mut all {
            machine.spawn();
        }
        for machine in &mut all {
            machine.ready().await;
        }
        Self { all, params, network }
    }

    /// Waits until every node has at least `wanted` neighbours; how long after `started` that was.
    pub(super) async fn meshed(&self, wanted: usize, started: Instant) -> Duration {
        let all = || std::future::ready(self.all.iter().all(|machine| machine.neighbours() >= wanted));
        crate::until("all nodes to be meshed", all).await;
        started.elapsed()
    }

    /// A client that knows these nodes only, and reaches them whatever the weather.
    pub(super) fn client(&self, nodes: &[usize]) -> NodeClient {
        let nodes = nodes.iter().filter_map(|node| self.all.get(*node)).map(Machine::address).collect();
        let key = SecretKey::from_bytes(rand::random());
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        NodeClient::start(ClientConfig::new(Arc::clone(&self.params), nodes, key, any)).expect("a client")
    }

    /// A node.
    pub(super) fn node(&mut self, node: usize) -> &mut Machine {
        self.all.get_mut(node).expect("there is such a node")
    }

    /// Nodes that were dropped by their neighbours, although none of them broke a rule.
    pub(super) fn dropped(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (number, machine) in self.all.iter().enumerate() {
            let log = fs::read_to_string(machine.log()).unwrap_or_default();
            let lines = log.lines().filter(|line| line.contains("a neighbour is dropped"));
            for line in lines {
                let key = |(_, other): &(usize, &Machine)| line.contains(&other.key.to_string());
                if let Some((other, _)) = self.all.iter().enumerate().find(key) {
                    wrong.push(format!("node {number} has dropped node {other}: {line}"));
                }
            }
        }
        wrong
    }

    /// Those whose process has ended by itself, and how.
    pub(super) fn dead(&mut self) -> Vec<String> {
        let ended = |(number, machine): (usize, &mut Machine)| {
            let status = machine.process.as_mut()?.ended()?;
            Some(format!("node {number} has ended: {status}"))
        };
        self.all.iter_mut().enumerate().filter_map(ended).collect()
    }
}

impl Machine {
    /// Its address beside it, which no weather reaches.
    pub(super) fn address(&self) -> PeerAddress {
        PeerAddress::new(self.key, self.own.ip().to_string(), self.own.port()).expect("an address")
    }

    /// Its address behind its door.
    pub(super) fn public(&self) -> PeerAddress {
        PeerAddress::new(self.key, self.door.ip().to_string(), self.door.port()).expect("an address")
    }

    /// Its address behind another door.
    pub(super) fn behind(&self, door: SocketAddr) -> PeerAddress {
        PeerAddress::new(self.key, door.ip().to_string(), door.port()).expect("an address")
    }

    /// Its data directory.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    fn command(&self) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(binary("flashd")),
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(binary("flashd"));
                command
            }
        };
        command.args(["node", "--data"]).arg(&self.data).arg("--network").arg(&self.network);
        command.args(["--listen", &self.own.to_string(), "--public-address", &self.door.to_string()]);
        if let Some(first) = &self.first {
            command.args(["--neighbour", &first.to_string()]);
        }
        command
    }

    /// Starts it, without waiting for it.
    pub(super) fn spawn(&mut self) {
        self.process = Some(Process::start(self.command(), &self.log()));
    }

    /// Waits until it answers.
    pub(super) async fn ready(&mut self) {
        let process = self.process.as_mut().expect("it was started");
        process.ready(|pid| node_ready(&self.data, pid)).await;
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Holds it up, or lets it go on.
    pub(super) fn freeze(&self, frozen: bool) {
        if let Some(process) = &self.process {
            process.signal(if frozen { "STOP" } else { "CONT" });
        }
    }

    /// Neighbours that its log tells of since it was started first.
    fn neighbours(&self) -> usize {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
        count("a new neighbour").saturating_sub(count("a neighbour has gone"))
    }
}
