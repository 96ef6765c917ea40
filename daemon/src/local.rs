//! A whole network on this machine: a Tangle node and daemons, each a process of its own with its own data
//! directory, over real QUIC on loopback.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use flash_node_client::{client::NodeClient, quic::PeerAddress};
use flash_proto::{Amount, ChannelId, Output};
use tokio::process::{Child, Command};

use crate::{
    api::{ApiError, ChannelInfo, ErrorCode},
    client::{Client, Ready},
    datadir,
    failure::Failure,
    memory_limit::MemoryLimit,
    node_service::NodeReady,
    rpc::Scope,
    setup,
    stop::STOP_WITH_STDIN_ENV,
    treasury,
};

/// How long a process may take until it answers.
const START_MAX: Duration = Duration::from_secs(300);
/// How long a process may take to end in order.
const END_MAX: Duration = Duration::from_secs(20);
/// How long a channel or the money of one may take to get where it goes.
const SETTLE_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// What a process of the network is an instance of.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// What comes before the arguments of `flashd`.
    before: Vec<OsString>,
}

impl Program {
    /// A program that takes the arguments of `flashd` behind these.
    pub fn new(path: PathBuf, before: Vec<OsString>) -> Self {
        Self { path, before }
    }

    /// This very program, whichever of the two it is.
    fn this() -> Result<Self, Failure> {
        let path = std::env::current_exe().map_err(Failure::new)?;
        let is_daemon = path.file_stem().is_some_and(|name| name == "flashd");
        let before = if is_daemon { Vec::new() } else { vec!["flashd".into()] };
        Ok(Self { path, before })
    }
}

/// A Tangle node with its coordinator, and the daemons that were started beside it. Every process ends
/// with this one, however it ends.
#[derive(Debug)]
pub struct LocalNetwork {
    dir: PathBuf,
    program: Program,
    node: LocalProcess,
    /// Bytes of memory that each process may take.
    memory_max: Option<u64>,
    address: PeerAddress,
}

/// A daemon.
#[derive(Debug)]
pub struct LocalDaemon {
    /// Its name: that of its data directory.
    pub name: String,
    /// Its data directory.
    pub data: PathBuf,
    /// What peers need to open a channel with it.
    pub ticket: String,
    /// Calls its RPC with the admin token.
    pub client: Client,
    process: LocalProcess,
}

/// A child process whose log goes to a file.
#[derive(Debug)]
struct LocalProcess {
    child: Child,
    log: PathBuf,
    _limit: Option<MemoryLimit>,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let exit = error.code.exit();
        let message =
            if error.hint.is_empty() { error.message } else { format!("{} ({})", error.message, error.hint) };
        Self { message, exit }
    }
}

impl LocalProcess {
    /// Starts `flashd` with these arguments.
    fn start(
        program: &Program,
        log: PathBuf,
        args: &[&OsStr],
        memory_max: Option<u64>,
    ) -> Result<Self, Failure> {
        let limit = memory_max.map(|bytes| {
            let name = log.file_stem().unwrap_or_default().to_string_lossy();
            MemoryLimit::new(&name, bytes).map_err(|error| {
                Failure::new(format!(
                    "memory cannot be limited, which needs Linux, its memory cgroups, and root: {error}"
                ))
            })
        });
        let limit = limit.transpose()?;
        let output = File::create(&log).map_err(datadir::DataDirError::io(&log))?;
        let mut command = match &limit {
            Some(limit) => limit.command(program.path.as_os_str()),
            None => Command::new(&program.path),
        };
        command.args(&program.before);
        // What configures the daemon of whoever runs this is not for these.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FLASH_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args(args)
            .env(STOP_WITH_STDIN_ENV, "1")
            .env("FLASH_ACCEPT_CHANNELS_PER_PEER_MAX", "1000000") // they are all ours
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::new(format!("cannot start {}: {error}", program.path.display())))?;
        Ok(Self { child, log, _limit: limit })
    }

    /// Waits until the process has written the file that says it is ready.
    async fn ready<T: serde::de::DeserializeOwned>(&mut self, path: &Path) -> Result<T, Failure> {
        let appears = async {
            loop {
                if let Some(ready) =
                    std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok())
                {
                    return Ok(ready);
                }
                if let Some(status) = self.child.try_wait().map_err(Failure::new)? {
                    return Err(Failure::new(format!("it ended at once, with {status}")));
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let waited = tokio::time::timeout(START_MAX, appears).await;
        let ready = waited.unwrap_or_else(|_| Err(Failure::new("it does not answer")));
        ready.map_err(|error| Failure::new(format!("{error}; its log is {}", self.log.display())))
    }

    /// Ends the process in order.
    async fn stop(mut self) -> Result<(), Failure> {
        drop(self.child.stdin.take());
        match tokio::time::timeout(END_MAX, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => {
                Err(Failure::new(format!("a process ended with {status}; its log is {}", self.log.display())))
            }
            Ok(Err(error)) => Err(Failure::new(error)),
            Err(_) => Err(Failure::new(format!("a process does not end; its log is {}", self.log.display()))),
        }
    }
}

impl LocalNetwork {
    /// Starts a node with a development network of its own in `dir`, which exists; with the one that is in
    /// `dir/node`, if there is one.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn start(dir: &Path, milestone_ms: u64) -> Result<Self, Failure> {
        Self::start_within(dir, milestone_ms, None).await
    }

    /// The same with this program as the node, and as every daemon that is not told otherwise.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn start_as(program: Program, dir: &Path, milestone_ms: u64) -> Result<Self, Failure> {
        Self::begin(program, dir, milestone_ms, None).await
    }

    /// The same; each process, also those of its daemons, may take so many bytes of memory.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn start_within(
        dir: &Path,
        milestone_ms: u64,
        memory_max: Option<u64>,
    ) -> Result<Self, Failure> {
        Self::begin(Program::this()?, dir, milestone_ms, memory_max).await
    }

    async fn begin(
        program: Program,
        dir: &Path,
        milestone_ms: u64,
        memory_max: Option<u64>,
    ) -> Result<Self, Failure> {
        let data = dir.join("node");
        let milestone_ms = milestone_ms.to_string();
        let args =
            ["node", "--init-dev", "--listen", "127.0.0.1:0", "--milestone-ms", &milestone_ms, "--data"]
                .map(OsStr::new);
        let args = [args.as_slice(), &[data.as_os_str()]].concat();
        let mut node = LocalProcess::start(&program, dir.join("node.log"), &args, memory_max)?;
        let ready: NodeReady = node.ready(&datadir::ready_path(&data)).await?;
        Ok(Self { dir: dir.to_path_buf(), program, node, memory_max, address: ready.node })
    }

    /// The node's process.
    pub fn pid(&self) -> Option<u32> {
        self.node.child.id()
    }

    /// The node's data directory.
    pub fn node_data(&self) -> PathBuf {
        self.dir.join("node")
    }

    /// Where the node is.
    pub const fn address(&self) -> &PeerAddress {
        &self.address
    }

    /// Starts a daemon with a seed of its own that accepts channels in which it locks up to
    /// `accept_deposit_max`.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn daemon(&self, name: &str, accept_deposit_max: Amount) -> Result<LocalDaemon, Failure> {
        self.daemon_as(&self.program, name, accept_deposit_max).await
    }

    /// The same with this program as the daemon.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn daemon_as(
        &self,
        program: &Program,
        name: &str,
        accept_deposit_max: Amount,
    ) -> Result<LocalDaemon, Failure> {
        self.set_up(name)?;
        self.run(program, name, accept_deposit_max).await
    }

    /// Makes the data directory of a daemon, with a seed of its own.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn set_up(&self, name: &str) -> Result<PathBuf, Failure> {
        let data = self.dir.join(name);
        let network = datadir::read_network(&datadir::network_path(&self.node_data()))?;
        let setup = setup::Setup {
            data: &data,
            network: &network,
            words: None,
            passphrase: None,
            node: Some(&self.address),
        };
        setup::init(setup, None)
            .map_err(|error| Failure { message: error.to_string(), exit: error.exit() })?;
        Ok(data)
    }

    /// Starts a daemon whose data directory is made.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(
        &self,
        program: &Program,
        name: &str,
        accept_deposit_max: Amount,
    ) -> Result<LocalDaemon, Failure> {
        let data = self.dir.join(name);
        let deposit = accept_deposit_max.to_string();
        let args =
            ["--listen", "127.0.0.1:0", "--rpc", "127.0.0.1:0", "--accept-deposit-max", &deposit, "--data"]
                .map(OsStr::new);
        let args = [args.as_slice(), &[data.as_os_str()]].concat();
        let log = self.dir.join(format!("{name}.log"));
        let mut process = LocalProcess::start(program, log, &args, self.memory_max)?;
        let ready: Ready = process.ready(&datadir::ready_path(&data)).await?;
        let client = Client::of_data_dir(&data, Scope::Admin, Some(&ready.rpc), None)?;
        let ticket = client.info().await?.ticket;
        Ok(LocalDaemon { name: name.to_owned(), data, ticket, client, process })
    }

    /// Sends money from the treasury, in as many transfers as it takes; returns when all are applied.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn fund(&self, to: &[Output]) -> Result<(), Failure> {
        treasury::fund_all(&self.node_data(), to).await
    }

    /// A client of the node.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn connect(&self) -> Result<NodeClient, Failure> {
        treasury::connect(&self.node_data()).map(|(client, _)| client)
    }

    /// Ends the node in order.
    ///
    /// # Errors
    /// [`Failure`] if it does not.
    pub async fn stop(self) -> Result<(), Failure> {
        self.node.stop().await
    }
}

impl LocalDaemon {
    /// The process.
    pub fn pid(&self) -> Option<u32> {
        self.process.child.id()
    }

    /// Waits until the wallet holds exactly this, with nothing on its way.
    ///
    /// # Errors
    /// [`Failure`] if it does not come to that.
    pub async fn settled(&self, wanted: Amount) -> Result<(), Failure> {
        let deadline = Instant::now() + SETTLE_MAX;
        loop {
            let late = Instant::now() > deadline;
            match self.client.balance().await {
                Ok(balance) if (balance.available, balance.reserved) == (wanted, Amount::ZERO) => {
                    return Ok(());
                }
                Ok(balance) if late => {
                    return Err(Failure::new(format!(
                        "{} holds {} and {} more reserved, but it should hold {wanted}",
                        self.name, balance.available, balance.reserved
                    )));
                }
                // A daemon that has just started has no view of the ledger yet.
                Err(error) if late || error.code != ErrorCode::LedgerUnavailable => return Err(error.into()),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Ends the daemon in order.
    ///
    /// # Errors
    /// [`Failure`] if it does not.
    pub async fn stop(self) -> Result<(), Failure> {
        self.process.stop().await
    }
}

/// A channel, once a daemon sees it in this state.
///
/// # Errors
/// [`Failure`] if it does not come to that.
pub async fn reached(daemon: &Client, channel: ChannelId, state: &str) -> Result<ChannelInfo, Failure> {
    let deadline = Instant::now() + SETTLE_MAX;
    loop {
        let info = daemon.channel(channel).await?;
        if info.state == state {
            return Ok(info);
        }
        if Instant::now() > deadline {
            return Err(Failure::new(format!("channel {channel} is {}, not {state}", info.state)));
        }
        tokio::time::sleep(POLL).await;
    }
}
