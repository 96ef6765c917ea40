//! The command line `flash`: a thin client of the daemon's RPC.

mod backup;
mod bench;
mod channel;
mod demo;
mod events;
mod footprint;
mod init;
mod ledger;
mod node;
mod notary;
mod output;
mod pay;
mod tower;
mod view;
mod wait;
mod wallet;

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use zeroize::Zeroizing;

use crate::{
    api::ApiError,
    client::Client,
    datadir::{DATA_ENV, default_path},
    exit::Exit,
    rpc::Scope,
};

use output::{Failure, Output};

/// The environment variable that holds the RPC's URL.
pub const RPC_ENV: &str = "FLASH_RPC";
/// The environment variable that holds a token for the RPC.
pub const TOKEN_ENV: &str = "FLASH_TOKEN";

const AFTER_HELP: &str = "\
The output is a table on a terminal, and JSON with --json or when it goes elsewhere.
FLASH_TOKEN holds a token for the RPC; without it the data directory's is used.

Exit codes:
   0  done
   1  failed; standard error says why
   2  the command line or a value is wrong
   3  the data directory is in use
   4  the data directory is missing, unsafe or of another network
   5  the daemon's store failed
   6  the daemon cannot be reached
   7  the token is missing, unknown or of too small a scope
   8  refused: no such thing, too little money, or not in this state
   9  a peer, the ledger or a queue is not available now; try again
  10  the wait ended early; what was asked for goes on
  11  the file is not the one that its proof is of
  12  the proof proves nothing
  13  the proof's signatures are not those of the network's coordinators
  14  the proof is of another network";

/// Payment channels for machines.
#[derive(Debug, Parser)]
#[command(name = "flash", version, after_help = AFTER_HELP, propagate_version = true)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The daemon's data directory [default: ~/.flash]
    #[arg(long, global = true, env = DATA_ENV, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The daemon's RPC [default: as the running daemon says in its data directory]
    #[arg(long, global = true, env = RPC_ENV, value_name = "URL")]
    pub rpc: Option<String>,
    /// Print JSON, errors included
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Replay real charging sessions on this machine alone, in about a minute
    Demo(crate::demo::Demo),
    /// Set up a data directory: the seed, the network, the configuration
    Init(init::Init),
    /// Show the daemon at a glance
    Info,
    /// Print what peers need to open a channel with this daemon: KEY@HOST:PORT
    Ticket,
    /// The money outside of channels
    #[command(subcommand)]
    Wallet(wallet::Wallet),
    /// Open, look at and close channels
    #[command(subcommand)]
    Channel(channel::Channel),
    /// Pay in a channel; returns when the payee has the payment on its disk
    Pay(pay::Pay),
    /// Pay by ticks, which cost one hash each; returns when the payee has the last of them on its disk
    Tick(pay::Tick),
    /// Pay a stream of payments, one per line of standard input
    Stream(pay::Stream),
    /// Show what happened, and with --follow what happens
    Events(events::Events),
    /// The ledger as the daemon verified it
    #[command(subcommand)]
    Ledger(ledger::Ledger),
    /// The watchtowers that claim for the daemon while it is away
    #[command(subcommand)]
    Tower(tower::Tower),
    /// Check a backup file, and set up a data directory from it
    #[command(subcommand)]
    Backup(backup::Backup),
    /// Stop the daemon and wait until it has stopped
    Stop,
    /// Measure payments on this machine: a network of its own, two daemons, the streams of the RPC
    Bench(crate::bench::Bench),
    /// Measure memory and disk on this machine: a node with a large ledger, and two daemons that pay once a second
    Footprint(crate::bench::footprint::Footprint),
    /// Print a script that completes this command line in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Runs a command and tells how it ended, after any error was printed.
pub async fn run(cli: Cli) -> Exit {
    let context = Context::new(cli.global);
    let done = match cli.command {
        Command::Demo(command) => demo::run(command, &context).await,
        Command::Init(command) => command.run(&context),
        Command::Info => node::info(&context).await,
        Command::Ticket => node::ticket(&context).await,
        Command::Wallet(command) => command.run(&context).await,
        Command::Channel(command) => command.run(&context).await,
        Command::Pay(command) => command.run(&context).await,
        Command::Tick(command) => command.run(&context).await,
        Command::Stream(command) => command.run(&context).await,
        Command::Events(command) => command.run(&context).await,
        Command::Ledger(command) => command.run(&context).await,
        Command::Tower(command) => command.run(&context).await,
        Command::Backup(command) => command.run(&context),
        Command::Stop => node::stop(&context).await,
        Command::Bench(command) => bench::run(command, &context).await,
        Command::Footprint(command) => footprint::run(command, &context).await,
        Command::Completions { shell } => completions(&context, shell),
    };
    match done {
        Ok(()) => Exit::Ok,
        Err(failure) => context.output.failure(&failure),
    }
}

fn completions(context: &Context, shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "flash", &mut script);
    context.output.bytes(&script)
}

/// What every command has.
struct Context {
    data: PathBuf,
    rpc: Option<String>,
    token: Option<Zeroizing<String>>,
    output: Output,
}

impl Context {
    fn new(global: Global) -> Self {
        Self {
            data: global.data.unwrap_or_else(default_path),
            rpc: global.rpc,
            token: std::env::var(TOKEN_ENV).ok().filter(|token| !token.is_empty()).map(Zeroizing::new),
            output: Output::new(global.json),
        }
    }

    /// A client of the daemon, with a token of this scope unless the environment holds one.
    fn client(&self, scope: Scope) -> Result<Client, ApiError> {
        match (&self.rpc, &self.token) {
            (Some(rpc), Some(token)) => Client::new(rpc, token.clone()),
            (rpc, token) => Client::of_data_dir(&self.data, scope, rpc.as_deref(), token.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn values_are_checked_before_the_daemon_is_asked() {
        const PEER: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a@localhost:1";
        for right in [
            format!("flash channel open {PEER} 2Mi --peer-deposit 1.5Ki --contest-window 9"),
            "flash --data /x pay abcd 1i --reference r --key k --json".to_owned(),
            "flash tick abcd 5 --count 4096 --key k".to_owned(),
            "flash channel close abcd --force --no-wait".to_owned(),
            "flash ledger milestone".to_owned(),
            "flash tower show abcd --json".to_owned(),
            "flash backup verify /b --words w".to_owned(),
            "flash backup restore /b --words w --data /x --node ".to_owned() + PEER,
            "flash ledger notarize a b --tag meter".to_owned(),
            "flash ledger verify a --proof b --network c".to_owned(),
            "flash events --after 3 --follow --rpc http://localhost:1".to_owned(),
        ] {
            parse(&right).unwrap();
        }
        for (wrong, what) in [
            (format!("flash channel open {PEER} 2mi"), "upper and lower case as written"),
            ("flash channel open localhost:1 2Mi".to_owned(), "with an @ after the key"),
            ("flash pay xyz 1".to_owned(), "64 hexadecimal digits"),
            ("flash tick abcd 1 --count 4097".to_owned(), "1..=4096"),
            ("flash wallet send nonsense 1".to_owned(), "invalid value"),
            ("flash ledger tx 12".to_owned(), "64 hexadecimal digits"),
            (format!("flash ledger notarize a --tag {}", "x".repeat(65)), "at most 64"),
            (format!("flash ledger verify a --proof b --block {}", "0".repeat(64)), "cannot be used with"),
            ("flash stream abcd".to_owned(), "--from-stdin"),
        ] {
            let error = parse(&wrong).unwrap_err();
            assert_eq!(error.exit_code(), i32::from(Exit::Usage.code()));
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}
