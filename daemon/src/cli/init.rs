//! Setting up a data directory.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use clap::Args;
use flash_node_client::quic::PeerAddress;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Context, output::Failure, view};
use crate::{
    datadir::read_network,
    seedfile::{self, PASSPHRASE_ENV, PASSPHRASE_FILE_ENV, SeedFileError},
    setup::{self, Made, Setup, SetupError},
};

/// Set up a data directory: the seed, the network, the configuration.
#[derive(Debug, Args)]
#[command(after_help = "A passphrase in FLASH_PASSPHRASE, or in the first line of the file that \
    FLASH_PASSPHRASE_FILE names, encrypts the seed; the daemon then needs it at every start.")]
pub struct Init {
    /// The network's file, from its operator
    #[arg(long, value_name = "FILE")]
    network: PathBuf,
    /// A file with the words of a seed, instead of new ones
    #[arg(long, value_name = "FILE")]
    words: Option<PathBuf>,
    /// Ask for a passphrase that encrypts the seed
    #[arg(long)]
    passphrase: bool,
    /// The node to follow, written to flash.toml
    #[arg(long, value_name = "KEY@HOST:PORT")]
    node: Option<PeerAddress>,
    /// Print new words although the output is no terminal
    #[arg(long)]
    show_words: bool,
}

/// What was set up.
#[derive(Serialize)]
struct Report<'a> {
    data: &'a Path,
    network: String,
    network_name: &'a str,
    encrypted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<&'a str>,
}

impl Init {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
        let words = self.words.as_deref().map(setup::read_words).transpose()?;
        let network = read_network(&self.network).map_err(SetupError::from)?;
        let passphrase = given_passphrase(self.passphrase).map_err(SetupError::from)?;
        let encrypted = passphrase.is_some();
        let node = self.node.as_ref();
        let made =
            setup::init(Setup { data: &context.data, network: &network, words, passphrase, node }, None)?;
        let report = Report {
            data: &context.data,
            network: network.id().to_string(),
            network_name: &network.name,
            encrypted,
            words: made
                .new_words
                .as_ref()
                .map(|words| words.as_str())
                .filter(|_| terminal || self.show_words),
        };
        if made.new_words.is_some() && report.words.is_none() {
            context.output.note(
                "note: the new words are in the seed file only: they are not printed, because the output is \
                 no terminal (--show-words prints them all the same).",
            );
        }
        context.output.value(&report, |report| text(report, &made))
    }
}

/// The passphrase from the environment, or typed twice.
pub(super) fn given_passphrase(ask: bool) -> Result<Option<Zeroizing<String>>, SeedFileError> {
    let given = [PASSPHRASE_ENV, PASSPHRASE_FILE_ENV].iter().any(|name| std::env::var_os(name).is_some());
    let passphrase = seedfile::passphrase(ask)?.filter(|passphrase| !passphrase.is_empty());
    if !ask || given {
        return Ok(passphrase);
    }
    let refused = |reason: &str| SeedFileError::Passphrase(reason.to_owned());
    let passphrase = passphrase
        .ok_or_else(|| refused("none was given; type one at a terminal, or leave out --passphrase"))?;
    let again = rpassword::prompt_password("The same again: ")
        .map(Zeroizing::new)
        .map_err(|error| refused(&format!("the terminal: {error}")))?;
    if *again != *passphrase {
        return Err(refused("the two are not the same; nothing was set up"));
    }
    Ok(Some(passphrase))
}

fn text(report: &Report<'_>, made: &Made) -> String {
    let data = report.data.display();
    let mut parts = Vec::new();
    if let Some(words) = report.words {
        parts.push(format!(
            "Write down these 24 words, in this order, and keep them where nobody else finds them. They \
             are not shown again. If this disk is lost, they bring back the keys, the money and the channels \
             (`flash init --words`), and open the backup, if you keep one (`flash backup restore`):\n\n{}",
            numbered(words)
        ));
    }
    let seed = if report.encrypted { "encrypted with the passphrase" } else { "not encrypted" };
    parts.push(view::details([
        ("data directory", Some(data.to_string())),
        ("network", Some(format!("{} ({})", report.network_name, report.network))),
        ("seed", Some(seed.to_owned())),
    ]));
    let node = if made.configured { "" } else { " --node KEY@HOST:PORT" };
    parts.push(format!(
        "Next: start the daemon with `flashd --data {data}{node}`, then `flash --data {data} wallet address` \
         gives an address to receive money at."
    ));
    parts.join("\n\n")
}

/// Words in rows of four, each with its number.
fn numbered(words: &str) -> String {
    let numbered: Vec<String> =
        (1..).zip(words.split(' ')).map(|(number, word)| format!("{number:>4}. {word:<10}")).collect();
    numbered.chunks(4).map(|row| row.concat().trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
