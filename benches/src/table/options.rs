//! The command line.

use std::path::PathBuf;

use clap::Parser;

use super::Done;
use flashd::failure::Failure;

/// Measure every figure of Flash on this machine, with what it is to be compared with
///
/// It ends with an error if something crashes, does not answer or a sum is wrong; never because of a time.
#[derive(Clone, Debug, Parser)]
#[command(name = "just bench", version)]
pub(crate) struct Options {
    /// Only these rows; --list shows their names
    #[arg(long = "row", value_name = "NAME")]
    pub(crate) rows: Vec<String>,
    /// Show the rows
    #[arg(long)]
    pub(crate) list: bool,
    /// A small part of everything, in at most two minutes: shows that it works, and not how fast it is
    #[arg(long)]
    pub(crate) quick: bool,
    /// Instead of the table: measure the cost curves and draw them into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "rows")]
    pub(crate) curves: Option<PathBuf>,
    /// Where to write the table as JSON [default: bench.json in the target directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The daemon that is measured [default: it is built]
    #[arg(long, value_name = "FILE")]
    pub(crate) flashd: Option<PathBuf>,
    /// Seconds of each load [default: 10; quick: 2]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Payments of one call that saturates a lane
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) per_call: u16,
    /// Payments of one lane that wait for their answer at once
    #[arg(long, value_name = "K", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) in_flight: u32,
    /// Channels that pay at random times [default: 10000; quick: 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    channels: Option<u32>,
    /// Channels that are opened against time [default: 20000; quick: 30]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    opened: Option<u32>,
    /// Handshakes [default: 10000; quick: 200]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    handshakes: Option<u32>,
    /// Idle channels of one daemon [default: 1000000; quick: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    idle: Option<u32>,
    /// Payments of the long run on one channel [default: 10000000; quick: 50000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(4..))]
    long: Option<u64>,
}

impl Options {
    const fn or(&self, default: u64, quick: u64) -> u64 {
        if self.quick { quick } else { default }
    }

    /// Seconds of each load.
    pub(crate) fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(self.or(10, 2))
    }

    /// Channels that pay at random times.
    pub(crate) fn channels(&self) -> u32 {
        self.channels.unwrap_or(if self.quick { 50 } else { 10_000 })
    }

    /// Channels that are opened against time.
    pub(crate) fn opened(&self) -> u32 {
        self.opened.unwrap_or(if self.quick { 30 } else { 20_000 })
    }

    /// Handshakes.
    pub(crate) fn handshakes(&self) -> u32 {
        self.handshakes.unwrap_or(if self.quick { 200 } else { 10_000 })
    }

    /// Idle channels of one daemon.
    pub(crate) fn idle(&self) -> u32 {
        self.idle.unwrap_or(if self.quick { 1_000 } else { 1_000_000 })
    }

    /// Payments of the long run.
    pub(crate) fn long(&self) -> u64 {
        self.long.unwrap_or(self.or(10_000_000, 50_000))
    }

    /// Where the JSON goes.
    pub(crate) fn json_path(&self) -> Done<PathBuf> {
        if let Some(path) = &self.json {
            return Ok(path.clone());
        }
        Ok(super::programs::target_dir()?.join("bench.json"))
    }
}

/// What the table says of how it was made.
impl std::fmt::Display for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { in_flight, per_call, .. } = self;
        let (seconds, quick) = (self.seconds(), if self.quick { "quick, " } else { "" });
        write!(
            f,
            "{quick}{seconds} s of each load, up to {in_flight} payments of a lane in flight, {per_call} by a call"
        )
    }
}

/// A wish that cannot be met.
pub(crate) fn wrong(message: impl std::fmt::Display) -> Failure {
    Failure { message: message.to_string(), exit: flashd::exit::Exit::Usage }
}
