//! A watchtower, and clients of one in the hands of a test.

use std::{path::PathBuf, process::Command};

use flash_channel::{
    store::StoreKind,
    tower::{Limits, Tower as Lanes},
};
use flash_node_client::{
    quic::{
        Endpoint, PeerAddress, StreamLimits, TOWER_ALPN,
        frames::{FrameReader, FrameWriter},
    },
    wallet::Account,
};
use flash_proto::{
    NetworkId, SecretKey,
    limits::TOWER_FRAME_BYTES_MAX,
    tower::{TowerRequest, TowerResponse},
};
use flashd::watchtower::alone::TowerReady;

use crate::{Daemon, Net, Process, binary, ports::own_address, wait_unlocked};

/// `flashd tower`, running or not.
#[derive(Debug)]
pub struct Tower {
    /// Its data directory is that of a daemon which never runs.
    home: Daemon,
    data: PathBuf,
    network: NetworkId,
    process: Process,
    arguments: Vec<String>,
    ready: TowerReady,
}

impl Tower {
    /// Sets a tower up and starts it, with these arguments.
    pub async fn start(net: &Net, name: &str, arguments: &[&str]) -> Self {
        let home = Daemon::init(net, name).await;
        let data = home.data().to_owned();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (process, ready) = run(&data, &own_address(), &arguments).await;
        Self { home, data, network: net.params().id(), process, arguments, ready }
    }

    /// What its clients connect to; the same after a restart.
    pub fn address(&self) -> PeerAddress {
        self.ready.tower.clone()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again.
    pub async fn restart(&mut self) {
        let listen = format!("127.0.0.1:{}", self.ready.tower.port());
        (self.process, self.ready) = run(&self.data, &listen, &self.arguments).await;
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        self.process.terminate();
        assert_eq!(self.process.wait().await.code, Some(0));
    }

    /// How many lanes are in its store, of each of which there is one balance. It must not run.
    pub fn stored_lanes(&self) -> usize {
        let key = self.home.key(Account::Node, 0);
        let identity = [self.network.as_bytes().as_slice(), key.public().as_bytes()].concat();
        let path = self.data.join("store");
        let store = StoreKind::open(None, &path, &identity).expect("its store");
        let lanes = Lanes::load(&store, self.network, key, Limits::default()).expect("its lanes").lanes();
        drop(store);
        wait_unlocked(&path);
        lanes
    }

    /// One of its metrics.
    pub async fn metric(&self, name: &str) -> u64 {
        let url = format!("http://{}/metrics", self.ready.metrics.expect("started with --metrics"));
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let text = http.get(url).send().await.expect("it answers").text().await.expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.expect("the metric").parse().expect("a number")
    }
}

async fn run(data: &std::path::Path, listen: &str, arguments: &[String]) -> (Process, TowerReady) {
    let mut command = Command::new(binary("flashd"));
    command.arg("tower").arg("--data").arg(data).args(["--listen", listen]).args(arguments);
    let mut process = Process::start(command, &data.with_extension("log"));
    let ready = process.ready(|pid| TowerReady::read(data).ok().filter(|ready| ready.pid == pid)).await;
    (process, ready)
}

/// A connection to a tower.
#[derive(Debug)]
pub struct TowerClient {
    connection: quinn::Connection,
    /// Kept open.
    _endpoint: Endpoint,
}

impl TowerClient {
    /// Connects by this key.
    pub async fn connect(tower: &PeerAddress, key: &SecretKey) -> Self {
        let any = "127.0.0.1:0".parse().expect("an address");
        let endpoint = Endpoint::dialler(key, TOWER_ALPN, any, StreamLimits { bidirectional: 0 });
        let endpoint = endpoint.expect("a socket");
        let connection = endpoint.dial(tower).await.expect("the tower answers");
        Self { connection, _endpoint: endpoint }
    }

    /// Asks one thing.
    pub async fn ask(&self, request: &TowerRequest) -> TowerResponse {
        let (send, reader) = self.stream().await;
        let mut writer = FrameWriter::new(send, TOWER_FRAME_BYTES_MAX);
        writer.send(request).await.expect("the request goes out");
        answer(reader).await
    }

    /// Says these bytes on a stream, and reads the answer.
    pub async fn say(&self, bytes: &[u8]) -> TowerResponse {
        let (mut send, reader) = self.stream().await;
        send.write_all(bytes).await.expect("they go out");
        answer(reader).await
    }

    async fn stream(&self) -> (quinn::SendStream, FrameReader) {
        let (send, receive) = self.connection.open_bi().await.expect("a stream");
        (send, FrameReader::new(receive, TOWER_FRAME_BYTES_MAX))
    }
}

async fn answer(mut reader: FrameReader) -> TowerResponse {
    let answer = reader.message::<TowerResponse, TOWER_FRAME_BYTES_MAX>().await;
    answer.expect("an answer").expect("an answer")
}
