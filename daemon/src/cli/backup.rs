//! The encrypted backup file: checking it, and putting it back.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use flash_channel::{Channel, machine::tables as channel_tables, store::MemoryStore};
use flash_node_client::{
    quic::PeerAddress,
    wallet::{Account, Seed},
};
use flash_proto::{Amount, ChannelId, NetworkParams};
use serde::Serialize;

use super::{Context, init::given_passphrase, output::Failure, view};
use crate::{
    api::{ApiError, ErrorCode},
    backup::{
        self,
        file::{self, Content},
        restore,
    },
    datadir::{DataDir, DataDirError, seed_path},
    events::now_ms,
    exit::Exit,
    failure, seedfile,
    setup::{self, Setup, SetupError},
};

/// The encrypted backup file that a daemon keeps with `backup` in its configuration.
#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Open a backup, check every record, and say how old it is and whether the data directory is ahead of it
    Verify(Opening),
    /// Set up an empty data directory (--data) from a backup and the words
    ///
    /// The daemon then connects to the peer of each channel, which shows its newest balances. Before that it signs
    /// nothing.
    Restore {
        /// What to open.
        #[command(flatten)]
        opening: Opening,
        /// Ask for a passphrase that encrypts the seed
        #[arg(long)]
        passphrase: bool,
        /// The node to follow, written to flash.toml
        #[arg(long, value_name = "KEY@HOST:PORT")]
        node: Option<PeerAddress>,
    },
}

/// A backup and what opens it.
#[derive(Debug, Args)]
pub struct Opening {
    /// The backup
    file: PathBuf,
    /// A file with the words of the seed [default for `verify`: the data directory's seed]
    #[arg(long, value_name = "FILE")]
    words: Option<PathBuf>,
}

/// What is in a backup.
#[derive(Serialize)]
struct Report {
    file: PathBuf,
    generation: u64,
    written_ms: u64,
    age_ms: u64,
    network: String,
    network_name: String,
    channels: Vec<Line>,
    /// How far the data directory is, unless it is missing or in use.
    data_generation: Option<u64>,
    /// Whether the data directory knows more; unknown without it.
    behind: Option<bool>,
}

impl Report {
    fn of(
        opening: &Opening,
        backup: &Content,
        network: &NetworkParams,
        channels: Vec<Line>,
        data_generation: Option<u64>,
    ) -> Self {
        Self {
            file: opening.file.clone(),
            generation: backup.generation,
            written_ms: backup.written_ms,
            age_ms: now_ms().saturating_sub(backup.written_ms),
            network: network.id().to_string(),
            network_name: network.name.clone(),
            channels,
            data_generation,
            behind: data_generation.map(|data| data > backup.generation),
        }
    }
}

/// A channel in a backup.
#[derive(Serialize)]
struct Line {
    id: ChannelId,
    deposit: Amount,
    peer_deposit: Amount,
    sent: Amount,
    received: Amount,
}

impl Backup {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Verify(opening) => verify(&opening, context),
            Self::Restore { opening, passphrase, node } => {
                put_back(&opening, passphrase, node.as_ref(), context)
            }
        }
    }
}

/// The seed whose words are named, or that of the data directory.
fn seed(opening: &Opening, context: &Context) -> Result<Seed, Failure> {
    let words = if let Some(words) = &opening.words {
        setup::read_words(words)?
    } else {
        let path = seed_path(&context.data);
        if !path.exists() {
            let missing = DataDirError::NotSetUp { path: context.data.clone(), missing: "seed" };
            let hint = "name the words' file with --words";
            return Err(failed(ErrorCode::DataDirUnusable, &missing, hint, missing.exit()));
        }
        seedfile::read(&path, || seedfile::passphrase(true)).map_err(SetupError::from)?
    };
    Ok(Seed::from_words(&words, "").map_err(SetupError::from)?)
}

fn verify(opening: &Opening, context: &Context) -> Result<(), Failure> {
    let seed = seed(opening, context)?;
    let backup = read(opening, &seed)?;
    let network = network(&backup)?;
    let data_generation = data_generation(context, &network, &seed);
    let report = Report::of(opening, &backup, &network, lines(&backup, &seed)?, data_generation);
    context.output.value(&report, text)?;
    if report.behind == Some(true) {
        context.output.note("the backup is behind the data directory: it is older than what was signed");
        return Err(Failure::Told(Exit::Refused));
    }
    Ok(())
}

fn put_back(
    opening: &Opening,
    ask: bool,
    node: Option<&PeerAddress>,
    context: &Context,
) -> Result<(), Failure> {
    let Some(words) = &opening.words else {
        let error = "the words of the seed are needed: name a file that holds them with --words";
        return Err(failed(
            ErrorCode::InvalidRequest,
            &error,
            "they stand on paper, not in the backup",
            Exit::Usage,
        ));
    };
    let words = setup::read_words(words)?;
    let seed = Seed::from_words(&words, "").map_err(SetupError::from)?;
    let backup = read(opening, &seed)?;
    let network = network(&backup)?;
    let channels = lines(&backup, &seed)?;
    let passphrase = given_passphrase(ask).map_err(SetupError::from)?;
    context.output.note(&format!("putting {} channels back into {}", channels.len(), context.data.display()));
    let setup = Setup { data: &context.data, network: &network, words: Some(words), passphrase, node };
    setup::init(setup, Some(&backup))?;
    let report = Report::of(opening, &backup, &network, channels, Some(backup.generation));
    context.output.value(&report, |report| {
        let data = context.data.display();
        format!(
            "{}\n\nNext: start the daemon with `flashd --data {data}`. It connects to the peers of these channels and \
             searches the ledger for later ones; `flash channel list` shows them. The old data directory must never \
             run again.",
            text(report)
        )
    })
}

fn failed(code: ErrorCode, error: &dyn std::fmt::Display, hint: &str, exit: Exit) -> Failure {
    Failure::Error { error: ApiError::new(code, error.to_string(), hint), exit }
}

fn read(opening: &Opening, seed: &Seed) -> Result<Content, Failure> {
    file::read(&opening.file, &backup::key(seed)).map_err(|error| {
        let code =
            if error.exit() == Exit::Usage { ErrorCode::InvalidRequest } else { ErrorCode::DataDirUnusable };
        failed(code, &error, "nothing was changed", error.exit())
    })
}

fn network(content: &Content) -> Result<NetworkParams, Failure> {
    let parsed = serde_json::from_str::<NetworkParams>(&content.network);
    let checked = parsed.map_err(|error| error.to_string()).and_then(|params| {
        params.check().map_err(|error| error.to_string())?;
        Ok(params)
    });
    checked.map_err(|error| {
        let message = format!("the backup's network parameters are not usable: {error}");
        failed(ErrorCode::DataDirUnusable, &message, "update this software", Exit::DataDirUnusable)
    })
}

/// How far the data directory is, if it is one of this seed and nobody uses it.
fn data_generation(context: &Context, network: &NetworkParams, seed: &Seed) -> Option<u64> {
    let dir = DataDir::open(&context.data).ok()?;
    let identity = restore::identity(network, seed);
    restore::generation_of(&dir, &identity).ok()
}

/// Loads every channel of a backup, as a daemon would.
fn lines(content: &Content, seed: &Seed) -> Result<Vec<Line>, Failure> {
    let store = MemoryStore::new();
    let load = || {
        restore::put_back(content, &store)?;
        let mut lines = Vec::new();
        for id in channel_tables::channels(&store)? {
            let channel = Channel::load(id, |index| seed.key(Account::Channels, index), &store)?;
            let (side, stakes) = (channel.agreement().side, channel.stakes());
            lines.push(Line {
                id,
                deposit: stakes.of(side).deposit,
                peer_deposit: stakes.of(!side).deposit,
                sent: channel.outgoing().total(),
                received: channel.incoming().total(),
            });
        }
        Ok(lines)
    };
    load().map_err(|error: failure::Failure| {
        failed(ErrorCode::DataDirUnusable, &error, "nothing was changed", error.exit)
    })
}

fn text(report: &Report) -> String {
    let rows = report.channels.iter().map(|line| {
        [
            view::short(&line.id),
            view::amount(line.deposit),
            view::amount(line.peer_deposit),
            view::amount(line.sent),
            view::amount(line.received),
        ]
    });
    let header = ["CHANNEL", "DEPOSIT", "PEER'S DEPOSIT", "SENT", "RECEIVED"];
    let channels = view::list(header, &[1, 2, 3, 4], rows.collect(), "no channels that are not closed");
    let behind = match report.behind {
        Some(true) => "older than the data directory",
        Some(false) => "as new as the data directory",
        None => "not compared: the data directory is missing, in use or of another seed",
    };
    let details = view::details([
        ("backup", Some(report.file.display().to_string())),
        (
            "written",
            Some(format!("{} ({} ago)", view::time(report.written_ms), view::seconds(report.age_ms))),
        ),
        ("generation", Some(report.generation.to_string())),
        ("it is", Some(behind.to_owned())),
        ("network", Some(format!("{} ({})", report.network_name, report.network))),
    ]);
    format!("{details}\n\n{channels}")
}
