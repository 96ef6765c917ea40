//! The command line `flashd`: the Flash daemon, and the Tangle node that it can follow.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use flash_node_client::{
    node::{KEEP_MILESTONES_MIN, Keep, dev::DevNetwork},
    quic::PeerAddress,
    tangle::TipSelection,
};
use flash_proto::{Address, Amount, Output, PublicKey};

use crate::{
    config::Config,
    core_files,
    daemon::Daemon,
    datadir::{self, DataDir},
    exit::Exit,
    failure::Failure,
    node_http::HttpOptions,
    node_service::{self, HttpListen, MakeNode, NodeOptions},
    node_setup::{self, NetworkPlan},
    node_snapshot, run,
    size::size,
    treasury,
    watchtower::{self, alone::TowerReady},
};

const EXIT_CODES: &str = "Exit codes: 0 done or stopped in order, 1 failed, 2 wrong use or configuration, \
3 data directory in use, 4 data directory not usable, 5 the store failed.";

/// The Flash daemon: payment channels for machines.
///
/// Without a subcommand it runs on its data directory until it is stopped with Ctrl-C or SIGTERM. A data
/// directory is set up with `flash init`.
#[derive(Debug, Parser)]
#[command(name = "flashd", version, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon (what happens without a subcommand)
    Run(RunArgs),
    /// Print the effective configuration as flash.toml, each value with where it came from
    Config(RunArgs),
    /// Run a Tangle node
    Node(NodeArgs),
    /// Run a watchtower, which claims for others while they are away
    ///
    /// It runs on a data directory of its own, set up with `flash init`, and needs no money. It cannot take
    /// anything from its clients.
    Tower(TowerArgs),
    /// Print a script that completes this command line in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Where the daemon's files are, and what to change in its configuration.
#[derive(Debug, Args)]
struct RunArgs {
    /// Data directory [default: ~/.flash]
    #[arg(long, value_name = "DIR", env = datadir::DATA_ENV)]
    data: Option<PathBuf>,
    /// Configuration file [default: flash.toml in the data directory]
    #[arg(long, value_name = "FILE", env = "FLASH_CONFIG")]
    config: Option<PathBuf>,
    /// Where peers connect (UDP)
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// What peers are told to connect to
    #[arg(long, value_name = "HOST:PORT")]
    public_address: Option<String>,
    /// Where the admin RPC listens (TCP, loopback only)
    #[arg(long, value_name = "IP:PORT")]
    rpc: Option<String>,
    /// A Tangle node to follow; may be given several times
    #[arg(long = "node", value_name = "KEY@HOST:PORT")]
    nodes: Vec<PeerAddress>,
    /// A watchtower that is handed the newest balances; may be given several times
    #[arg(long = "tower", value_name = "KEY@HOST:PORT")]
    towers: Vec<PeerAddress>,
    /// Be a watchtower for others, who connect here (UDP)
    #[arg(long, value_name = "IP:PORT")]
    tower_listen: Option<SocketAddr>,
    /// Run a full node, too, in `node/` of the data directory, and follow it first; the nodes of --node become its
    /// first neighbours
    #[arg(long)]
    full_node: bool,
    /// Where clients and other nodes connect to it (UDP)
    #[arg(long, value_name = "IP:PORT")]
    node_listen: Option<String>,
    /// The most to lock when a peer asks to open a channel
    #[arg(long, value_name = "AMOUNT")]
    accept_deposit_max: Option<String>,
    /// How a new data directory is stored: journal or sled
    #[arg(long, value_name = "KIND")]
    store: Option<String>,
    /// Keep an encrypted backup in this file, on another disk; the words of the seed open it
    #[arg(long, value_name = "FILE")]
    backup: Option<String>,
    /// Acknowledge nothing before it is in the backup, too
    #[arg(long)]
    backup_sync: bool,
    /// What to log: a level, or a filter such as flashd=debug
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Write logs as JSON
    #[arg(long)]
    log_json: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
struct NodeArgs {
    #[command(subcommand)]
    command: Option<NodeCommand>,
    #[command(flatten)]
    run: NodeRunArgs,
}

#[derive(Debug, Args)]
struct NodeRunArgs {
    /// The node's data directory [default: ~/.flash-node]
    #[arg(long, value_name = "DIR", env = "FLASH_NODE_DATA")]
    data: Option<PathBuf>,
    /// Where clients and other nodes connect (UDP)
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:14265")]
    listen: SocketAddr,
    /// Join the network of this network.json: if the directory is empty, copy it there and make a key
    #[arg(long, value_name = "FILE", conflicts_with = "init_dev")]
    network: Option<PathBuf>,
    /// A node of the network to be neighbours with, which names others; may be given several times
    #[arg(long = "neighbour", value_name = "KEY@HOST:PORT")]
    neighbours: Vec<PeerAddress>,
    /// A handover.json: to whom this node's coordinator agrees to hand over, and from which milestone on
    #[arg(long, value_name = "FILE")]
    handover: Option<PathBuf>,
    /// What other nodes are told to connect to [default: the address they see, and the port of --listen]
    #[arg(long, value_name = "HOST:PORT")]
    public_address: Option<String>,
    /// Where the HTTP API listens (TCP): the 14 commands of the classic API at /, REST under /api/v1.
    ///
    /// It has no authentication. On another address than loopback everybody who reaches it may read the
    /// ledger and submit blocks; proof of work and the neighbours stay with callers on this machine.
    /// [default: 127.0.0.1:14266, and none if that is taken]
    #[arg(long, value_name = "IP:PORT", conflicts_with = "no_http")]
    http: Option<SocketAddr>,
    /// Run without the HTTP API
    #[arg(long)]
    no_http: bool,
    /// Let callers of the HTTP API on other machines have proof of work done, stop it, and add and remove
    /// neighbours
    #[arg(long)]
    http_remote_commands: bool,
    /// If the directory is empty, make a development network of its own in it: coordinator, treasury,
    /// network.json
    #[arg(long)]
    init_dev: bool,
    /// Milliseconds between milestones of a new development network
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..))]
    milestone_ms: u64,
    /// Bits of proof of work of a new development network
    #[arg(long, value_name = "BITS", default_value_t = 8, value_parser = clap::value_parser!(u8).range(0..=32))]
    pow_bits: u8,
    /// How tips are picked for those who ask what to approve
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Tips::Uniform)]
    tips: Tips,
    /// How strongly a weighted walk prefers heavy blocks
    #[arg(long, value_name = "A", default_value_t = 0.001)]
    alpha: f64,
    /// Start from a snapshot instead of from the genesis: everything in it is checked, and the directory
    /// must hold no ledger yet
    #[arg(long, value_name = "FILE")]
    from_snapshot: Option<PathBuf>,
    /// Write a snapshot into snapshots/ of the data directory every so many milestones; the newest two stay
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    snapshot_every: Option<u64>,
    /// Keep everything for ever
    #[arg(long, conflicts_with_all = ["keep_milestones", "keep_bytes"])]
    permanode: bool,
    /// Keep the blocks of so many newest milestones
    #[arg(long, value_name = "N", default_value_t = Keep::default().milestones,
        value_parser = clap::value_parser!(u64).range(KEEP_MILESTONES_MIN..))]
    keep_milestones: u64,
    /// Keep fewer where the blocks come to more than this, such as 500MB [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    keep_bytes: Option<u64>,
    /// What to log: a level, or a filter such as flash_node_client=debug
    #[arg(long, value_name = "FILTER", env = "FLASH_LOG", default_value = "info")]
    log: String,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
struct TowerArgs {
    #[command(subcommand)]
    command: Option<TowerCommand>,
    #[command(flatten)]
    run: TowerRunArgs,
}

#[derive(Debug, Args)]
struct TowerRunArgs {
    /// Data directory [default: ~/.flash-tower]
    #[arg(long, value_name = "DIR", env = "FLASH_TOWER_DATA")]
    data: Option<PathBuf>,
    /// Configuration file [default: flash.toml in the data directory]
    #[arg(long, value_name = "FILE", env = "FLASH_CONFIG")]
    config: Option<PathBuf>,
    /// Where clients connect (UDP) [default: 0.0.0.0:15602]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// What clients are told to connect to
    #[arg(long, value_name = "HOST:PORT")]
    public_address: Option<String>,
    /// A machine that may be a client, by its key; may be given several times [default: everybody]
    #[arg(long = "client", value_name = "KEY")]
    clients: Vec<PublicKey>,
    /// A Tangle node to follow; may be given several times
    #[arg(long = "node", value_name = "KEY@HOST:PORT")]
    nodes: Vec<PeerAddress>,
    /// Where /metrics is served (TCP, loopback only) [default: nowhere]
    #[arg(long, value_name = "IP:PORT")]
    metrics: Option<SocketAddr>,
    /// What to log: a level, or a filter such as flashd=debug
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Write logs as JSON
    #[arg(long)]
    log_json: bool,
}

#[derive(Debug, Subcommand)]
enum TowerCommand {
    /// Print where the running tower is: KEY@HOST:PORT, for the `towers` of its clients
    Address {
        /// Data directory [default: ~/.flash-tower]
        #[arg(long, value_name = "DIR", env = "FLASH_TOWER_DATA")]
        data: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Tips {
    /// At random among those that are not lazy (TIP-3)
    Uniform,
    /// By the white paper's weighted random walk
    Weighted,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Print where the running node is: KEY@HOST:PORT, for `flash init --node`
    Address {
        /// The node's data directory [default: ~/.flash-node]
        #[arg(long, value_name = "DIR", env = "FLASH_NODE_DATA")]
        data: Option<PathBuf>,
    },
    /// Send money from the network's treasury, whose key is in the directory, over the running node
    Fund(FundArgs),
    /// Make a node's keys, or show the public side of those that are there, as JSON
    Keys(KeysArgs),
    /// Print the network file of a new network with these coordinators
    Network(NetworkArgs),
    /// Write or check snapshots: files from which other nodes start
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    /// Write a snapshot of a node that is stopped; one that runs does it with `--snapshot-every`
    Write {
        /// Where to write it
        file: PathBuf,
        /// The node's data directory [default: ~/.flash-node]
        #[arg(long, value_name = "DIR", env = "FLASH_NODE_DATA")]
        data: Option<PathBuf>,
    },
    /// Check a snapshot completely against the network's coordinators; needs no node
    Verify {
        /// The snapshot
        file: PathBuf,
        /// The network's parameters
        #[arg(long, value_name = "FILE")]
        network: PathBuf,
    },
}

#[derive(Debug, Args)]
struct KeysArgs {
    /// The node's data directory [default: ~/.flash-node]
    #[arg(long, value_name = "DIR", env = "FLASH_NODE_DATA")]
    data: Option<PathBuf>,
    /// Also a coordinator's key
    #[arg(long)]
    coordinator: bool,
    /// Also a treasury's key
    #[arg(long)]
    treasury: bool,
}

#[derive(Debug, Args)]
struct NetworkArgs {
    /// The network's name
    #[arg(long)]
    name: String,
    /// A coordinator's public key, as `flashd node keys --coordinator` prints it; give all of them
    #[arg(long = "coordinator", value_name = "KEY", required = true)]
    coordinators: Vec<PublicKey>,
    /// How many of them must sign a milestone: more than half
    #[arg(long, value_name = "K")]
    threshold: u8,
    /// Who owns the whole supply at the beginning
    #[arg(long, value_name = "ADDRESS")]
    treasury: Address,
    /// Milliseconds between milestones
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..))]
    milestone_ms: u64,
    /// Bits of proof of work
    #[arg(long, value_name = "BITS", default_value_t = 8, value_parser = clap::value_parser!(u8).range(0..=32))]
    pow_bits: u8,
}

#[derive(Debug, Args)]
struct FundArgs {
    /// Who gets it
    address: Address,
    /// How much, such as 5Mi
    amount: Amount,
    /// The node's data directory [default: ~/.flash-node]
    #[arg(long, value_name = "DIR", env = "FLASH_NODE_DATA")]
    data: Option<PathBuf>,
}

/// Runs the command line; `args` begin with the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    main_with(args, |_daemon| std::future::pending())
}

/// The same for a program that embeds the daemon: `embedder` as in [`run::run_with`].
pub fn main_with<F>(args: impl IntoIterator<Item = OsString>, embedder: impl FnOnce(Daemon) -> F) -> ExitCode
where
    F: Future<Output = ()> + Send + 'static,
{
    core_files::forbid();
    let cli = Cli::parse_from(args);
    let done = match cli.command {
        None => daemon(&cli.run, embedder),
        Some(Command::Run(args)) => daemon(&args, embedder),
        Some(Command::Config(args)) => configuration(&args).map(|config| print!("{}", config.to_toml())),
        Some(Command::Node(NodeArgs { command: None, run })) => node(&run),
        Some(Command::Node(NodeArgs { command: Some(NodeCommand::Address { data }), .. })) => {
            node_service::address(&node_data(data.as_deref())).map(|address| println!("{address}"))
        }
        Some(Command::Node(NodeArgs { command: Some(NodeCommand::Fund(args)), .. })) => fund(&args),
        Some(Command::Node(NodeArgs { command: Some(NodeCommand::Keys(args)), .. })) => {
            let data = node_data(args.data.as_deref());
            node_setup::keys(&data, args.coordinator, args.treasury).and_then(|keys| print_json(&keys))
        }
        Some(Command::Node(NodeArgs { command: Some(NodeCommand::Network(args)), .. })) => network(args),
        Some(Command::Node(NodeArgs { command: Some(NodeCommand::Snapshot(command)), .. })) => {
            snapshot(&command)
        }
        Some(Command::Tower(TowerArgs { command: None, run })) => tower(&run),
        Some(Command::Tower(TowerArgs { command: Some(TowerCommand::Address { data }), .. })) => {
            TowerReady::read(&tower_data(data.as_deref())).map(|ready| println!("{}", ready.tower))
        }
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "flashd", &mut std::io::stdout());
            Ok(())
        }
    };
    match done {
        Ok(()) => Exit::Ok.into(),
        Err(Failure { message, exit }) => {
            eprintln!("error: {message}");
            exit.into()
        }
    }
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    println!("{}", serde_json::to_string_pretty(value).map_err(Failure::new)?);
    Ok(())
}

fn network(args: NetworkArgs) -> Result<(), Failure> {
    let NetworkArgs { name, coordinators, threshold, treasury, milestone_ms, pow_bits } = args;
    let milestone_interval_ms = milestone_ms;
    let plan = NetworkPlan { name, coordinators, threshold, treasury, milestone_interval_ms, pow_bits };
    print_json(&node_setup::network(plan)?)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::new)
}

fn data(args: &RunArgs) -> PathBuf {
    args.data.clone().unwrap_or_else(datadir::default_path)
}

fn configuration(args: &RunArgs) -> Result<Config, Failure> {
    let given = [
        ("listen", args.listen.clone()),
        ("public_address", args.public_address.clone()),
        ("rpc", args.rpc.clone()),
        ("accept.deposit_max", args.accept_deposit_max.clone()),
        ("full_node", args.full_node.then(|| "true".to_owned())),
        ("node_listen", args.node_listen.clone()),
        ("store", args.store.clone()),
        ("backup", args.backup.clone()),
        ("backup_sync", args.backup_sync.then(|| "true".to_owned())),
        ("log", args.log.clone()),
        ("log_json", args.log_json.then(|| "true".to_owned())),
        ("nodes", list(&args.nodes)),
        ("towers", list(&args.towers)),
        ("tower_listen", args.tower_listen.map(|address| address.to_string())),
    ];
    load_config(args.config.as_deref(), &data(args), given)
}

/// A list as the configuration takes it from the command line, unless it is empty.
fn list<T: ToString>(items: &[T]) -> Option<String> {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    (!items.is_empty()).then(|| items.join(","))
}

fn load_config<const N: usize>(
    file: Option<&Path>,
    data: &Path,
    given: [(&'static str, Option<String>); N],
) -> Result<Config, Failure> {
    let flags: BTreeMap<&'static str, String> =
        given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    let path = file.map_or_else(|| datadir::config_path(data), Path::to_path_buf);
    Config::load(&path, file.is_some(), &flags, &|name| std::env::var(name).ok())
        .map_err(|error| Failure { message: error.to_string(), exit: Exit::Usage })
}

fn tower_data(data: Option<&Path>) -> PathBuf {
    data.map_or_else(|| datadir::in_home(".flash-tower"), Path::to_path_buf)
}

fn tower(args: &TowerRunArgs) -> Result<(), Failure> {
    let data = tower_data(args.data.as_deref());
    let given = [
        ("tower_listen", args.listen.map(|address| address.to_string())),
        ("public_address", args.public_address.clone()),
        ("tower_clients", list(&args.clients)),
        ("nodes", list(&args.nodes)),
        ("log", args.log.clone()),
        ("log_json", args.log_json.then(|| "true".to_owned())),
    ];
    let config = load_config(args.config.as_deref(), &data, given)?;
    let dir = DataDir::open(&data)?;
    run::log_to_stderr(&config.log, config.log_json)?;
    runtime()?.block_on(watchtower::alone::run(dir, config, args.metrics))
}

fn daemon<F>(args: &RunArgs, embedder: impl FnOnce(Daemon) -> F) -> Result<(), Failure>
where
    F: Future<Output = ()> + Send + 'static,
{
    let config = configuration(args)?;
    let dir = DataDir::open(&data(args))?;
    run::log_to_stderr(&config.log, config.log_json)?;
    runtime()?.block_on(run::run_with(dir, config, embedder))
}

fn node_data(data: Option<&Path>) -> PathBuf {
    data.map_or_else(|| datadir::in_home(".flash-node"), Path::to_path_buf)
}

fn node(args: &NodeRunArgs) -> Result<(), Failure> {
    run::log_to_stderr(&args.log, false)?;
    let dev = DevNetwork { milestone_interval_ms: args.milestone_ms, pow_bits: args.pow_bits };
    let dev = args.init_dev.then_some(MakeNode::Dev(dev));
    let http = match args.http {
        _ if args.no_http => HttpListen::Off,
        Some(address) => HttpListen::At(address),
        None => HttpListen::Default,
    };
    let bytes = args.keep_bytes.unwrap_or(u64::MAX);
    let keep = Keep { milestones: args.keep_milestones, bytes, ..Keep::default() };
    let options = NodeOptions {
        listen: args.listen,
        make: args.network.clone().map(MakeNode::Join).or(dev),
        neighbours: args.neighbours.clone(),
        public_address: args.public_address.clone(),
        handover: args.handover.as_deref().map(node_setup::read_handover).transpose()?,
        http,
        tips: match args.tips {
            Tips::Uniform => TipSelection::Uniform,
            Tips::Weighted => TipSelection::Weighted { alpha: args.alpha },
        },
        from_snapshot: args.from_snapshot.clone(),
        keep: (!args.permanode).then_some(keep),
        snapshot_every: args.snapshot_every,
        http_options: HttpOptions { remote_commands: args.http_remote_commands },
    };
    runtime()?.block_on(node_service::run(&node_data(args.data.as_deref()), options))
}

fn snapshot(command: &SnapshotCommand) -> Result<(), Failure> {
    let info = match command {
        SnapshotCommand::Write { file, data } => node_snapshot::write(&node_data(data.as_deref()), file)?,
        SnapshotCommand::Verify { file, network } => node_snapshot::verify(network, file)?,
    };
    println!("{}", node_snapshot::describe(&info));
    Ok(())
}

fn fund(args: &FundArgs) -> Result<(), Failure> {
    let output = Output { address: args.address, amount: args.amount };
    let data = node_data(args.data.as_deref());
    let (transaction, applied) = runtime()?.block_on(treasury::fund(&data, &[output]))?;
    println!(
        "sent {} to {}: transaction {}, applied by milestone {}",
        args.amount,
        args.address,
        transaction.id(),
        applied.milestone_index
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
