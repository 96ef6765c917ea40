//! A whole network on this machine: a development node and daemons, each a process of its own.
//!
//! Each process writes what it says to a log file in the network's directory. They end when what stands
//! for them here is dropped, so whoever runs a network should do so within [`until_interrupted`]: a
//! process that dies of a signal drops nothing.

use std::{
    env, fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use flash_node_client::{
    client::{Applied, NodeClient},
    quic::PeerAddress,
};
use flash_proto::{Amount, NetworkParams, Output, Transaction};
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    api::ApiError,
    client::{Client, Ready},
    datadir::{self, DataDirError},
    exit::Exit,
    node_service::{self, NodeReady},
    rpc::Scope,
    run::Failure,
    setup::{self, Setup},
};

/// How long a process may take until it answers.
const READY_WAIT: Duration = Duration::from_secs(60);
/// How long a daemon may take to stop in order, and to follow the ledger after its start.
const DAEMON_WAIT: Duration = Duration::from_secs(30);
/// Pause between two looks at a process.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// The end of a log that an error quotes.
const LOG_LINES_SHOWN: usize = 5;

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let exit = error.code.exit();
        let ApiError { message, hint, .. } = error;
        Self { message: if hint.is_empty() { message } else { format!("{message} ({hint})") }, exit }
    }
}

/// How to start a network.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// Where everything is kept; a new directory under the system's temporary one if `None`. A directory
    /// of an earlier network is used again.
    pub dir: Option<PathBuf>,
    /// Milliseconds between two milestones of a new network.
    pub milestone_ms: u64,
    /// Whether a temporary directory stays when the network ends. A directory that was named always does.
    pub keep: bool,
}

/// A development node, and the directory that it and the daemons live in.
///
/// Drop it after its daemons: it takes the directory with it.
#[derive(Debug)]
pub struct LocalNetwork {
    flashd: PathBuf,
    node: Process,
    ready: NodeReady,
    // Dropped last: the node writes to it until it is gone.
    dir: Directory,
}

/// A daemon of a local network.
#[derive(Debug)]
pub struct LocalDaemon {
    /// Its name, and that of its data directory and log.
    pub name: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Its RPC, with the right to do everything.
    pub client: Client,
    /// What a peer connects to: `KEY@HOST:PORT`.
    pub ticket: String,
    process: Process,
}

impl LocalNetwork {
    /// Starts a node; returns once it answers.
    ///
    /// # Errors
    /// [`Failure`]: `flashd` is not next to the running program, or does not start.
    pub async fn start(options: LocalOptions) -> Result<Self, Failure> {
        let flashd = beside_this_program("flashd")?;
        let dir = Directory::create(options.dir, options.keep)?;
        let data = dir.path.join("node");
        let milestone_ms = options.milestone_ms.to_string();
        let mut command = Command::new(&flashd);
        command.args(["node", "--init-dev", "--listen", "127.0.0.1:0", "--milestone-ms", &milestone_ms]);
        let mut node = Process::start(command.arg("--data").arg(&data), &dir.path.join("node.log"))?;
        let ready = node.ready(&datadir::ready_path(&data), |ready: &NodeReady| ready.pid).await?;
        Ok(Self { flashd, node, ready, dir })
    }

    /// The directory of everything.
    pub fn dir(&self) -> &Path {
        &self.dir.path
    }

    /// The node's data directory.
    pub fn node_data(&self) -> PathBuf {
        self.dir.path.join("node")
    }

    /// The node's address.
    pub fn node(&self) -> &PeerAddress {
        &self.ready.node
    }

    /// The node's process.
    pub fn node_pid(&self) -> u32 {
        self.node.child.id()
    }

    /// Starts the daemon of this name, on a new data directory if it has none; returns once it answers
    /// and has a fresh view of the ledger. It locks at most `accept_deposit_max` when a peer asks.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn daemon(&self, name: &str, accept_deposit_max: Amount) -> Result<LocalDaemon, Failure> {
        let data = self.dir.path.join(name);
        if !datadir::seed_path(&data).exists() {
            let network = datadir::network_path(&self.node_data());
            let setup = Setup {
                data: &data,
                network: &network,
                words: None,
                passphrase: None,
                node: Some(self.node()),
            };
            setup::init(setup).map_err(|error| Failure { message: error.to_string(), exit: error.exit() })?;
        }
        let node = self.node().to_string();
        let accept = format!("{}i", accept_deposit_max.units());
        let mut command = Command::new(&self.flashd);
        command.args(["--listen", "127.0.0.1:0", "--rpc", "127.0.0.1:0", "--node", &node]);
        command.args(["--accept-deposit-max", &accept]).arg("--data").arg(&data);
        let log = self.dir.path.join(format!("{name}.log"));
        let mut process = Process::start(&mut command, &log)?;
        process.ready(&datadir::ready_path(&data), |ready: &Ready| ready.pid).await?;
        let client = Client::of_data_dir(&data, Scope::Admin, None, None)?;
        let asked = Instant::now();
        let info = loop {
            let info = client.info().await?;
            if info.ledger.fresh {
                break info;
            }
            process.pause(asked, DAEMON_WAIT, "has no view of the ledger").await?;
        };
        Ok(LocalDaemon { name: name.to_owned(), data, client, ticket: info.ticket, process })
    }

    /// Sends money of the network's treasury; returns when that is applied.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn fund(&self, outputs: &[Output]) -> Result<(Transaction, Applied), Failure> {
        node_service::fund(&self.node_data(), outputs).await
    }

    /// A client of the node.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn connect(&self) -> Result<(NodeClient, Arc<NetworkParams>), Failure> {
        node_service::connect(&self.node_data())
    }
}

impl LocalDaemon {
    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Sends money of the network's treasury to the daemon's wallet; returns when the wallet can spend
    /// it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn fund(&mut self, network: &LocalNetwork, outputs: &[Amount]) -> Result<(), Failure> {
        let before = self.client.balance().await?.available;
        let mut wanted = before;
        let mut made = Vec::with_capacity(outputs.len());
        for amount in outputs {
            let address = self.client.new_address().await?.address;
            made.push(Output { address, amount: *amount });
            wanted = wanted.checked_add(*amount).ok_or_else(|| Failure::new("more than the supply"))?;
        }
        network.fund(&made).await?;
        let asked = Instant::now();
        while self.client.balance().await?.available < wanted {
            self.process.pause(asked, DAEMON_WAIT, "does not see the money that it was sent").await?;
        }
        Ok(())
    }

    /// Stops the daemon in order; returns when it has.
    ///
    /// # Errors
    /// [`Failure`] if it does not, or not well; it is killed then.
    pub async fn stop(mut self) -> Result<(), Failure> {
        self.client.shutdown().await?;
        let asked = Instant::now();
        while self.process.child.try_wait().map_err(Failure::new)?.is_none() {
            if asked.elapsed() > DAEMON_WAIT {
                return Err(self.process.failure("does not stop"));
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        let status = self.process.child.wait().map_err(Failure::new)?;
        if status.success() { Ok(()) } else { Err(self.process.failure(&format!("stopped with {status}"))) }
    }

    /// Ends the daemon at once, as a power cut would.
    pub fn kill(self) {}
}

/// Runs `work`; Ctrl-C or SIGTERM end it early, and everything that it holds is dropped.
///
/// # Errors
/// [`Failure`] of the work, or that it was interrupted.
pub async fn until_interrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::new)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::new)?;
    tokio::select! {
        done = work => done,
        _ = terminate.recv() => Err(Failure::new("terminated")),
        _ = interrupt.recv() => Err(Failure::new("interrupted")),
    }
}

/// A program that was installed or built together with the running one.
fn beside_this_program(name: &str) -> Result<PathBuf, Failure> {
    let this = env::current_exe().map_err(Failure::new)?;
    let path = this.with_file_name(name);
    if path.is_file() {
        return Ok(path);
    }
    let message = format!(
        "there is no {}: `{name}` must be in the same directory as this program; install or build both",
        path.display()
    );
    Err(Failure { message, exit: Exit::Failed })
}

/// A process, which ends when this is dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with what it says going to the end of a log file. No setting of this process's
    /// environment reaches it: the network is the same wherever it is started.
    fn start(command: &mut Command, log: &Path) -> Result<Self, Failure> {
        let opened = fs::OpenOptions::new().create(true).append(true).open(log);
        let file = opened.map_err(DataDirError::io(log))?;
        let copy = file.try_clone().map_err(DataDirError::io(log))?;
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("FLASH_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::from(file)).stderr(Stdio::from(copy));
        let child = command.spawn().map_err(|error| {
            Failure::new(format!("cannot start {}: {error}", Path::new(command.get_program()).display()))
        })?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits for the file in which this very process says where it answers.
    async fn ready<T: DeserializeOwned>(
        &mut self,
        path: &Path,
        pid: impl Fn(&T) -> u32,
    ) -> Result<T, Failure> {
        let started = Instant::now();
        loop {
            let text = fs::read_to_string(path).unwrap_or_default();
            let ready: Option<T> = serde_json::from_str(&text).ok();
            // A process that was killed leaves its file behind.
            if let Some(ready) = ready.filter(|ready| pid(ready) == self.child.id()) {
                return Ok(ready);
            }
            self.pause(started, READY_WAIT, "does not answer").await?;
        }
    }

    /// Waits a little, unless the process has ended or `limit` has passed.
    async fn pause(&mut self, since: Instant, limit: Duration, what: &str) -> Result<(), Failure> {
        if let Some(status) = self.child.try_wait().map_err(Failure::new)? {
            return Err(self.failure(&format!("ended with {status}")));
        }
        if since.elapsed() > limit {
            return Err(self.failure(&format!("{what} after {} s", limit.as_secs())));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
        Ok(())
    }

    fn failure(&self, what: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines.get(lines.len().saturating_sub(LOG_LINES_SHOWN)..).unwrap_or_default().join("\n");
        Failure::new(format!(
            "a process of the local network {what}; {} ends with:\n{end}",
            self.log.display()
        ))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory that only its owner can read.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    remove: bool,
}

impl Directory {
    fn create(named: Option<PathBuf>, keep: bool) -> Result<Self, Failure> {
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        let (path, remove) = if let Some(path) = named {
            builder.recursive(true);
            (path, false)
        } else {
            let mut random = [0; 8];
            getrandom::fill(&mut random).map_err(Failure::new)?;
            (env::temp_dir().join(format!("flash-{}", hex::encode(random))), !keep)
        };
        builder.create(&path).map_err(DataDirError::io(&path))?;
        let path = path.canonicalize().map_err(DataDirError::io(&path))?;
        Ok(Self { path, remove })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.remove {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
