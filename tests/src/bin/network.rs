//! A network of eight nodes, three coordinators, four wallets and two light daemons that everything happens to
//! ([`flash_tests::network`]). Prints what happens, and at the end a table and a line of JSON. Fails with the
//! reason if anything was not as it must be.

use std::{process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use flash_tests::{
    Random, kill_all_on_panic,
    network::{Load, Plan, Where, run, throughput},
};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Netns {
    /// If that is possible
    Auto,
    /// Or fail
    Yes,
    /// On loopback
    No,
}

/// A network that everything happens to.
#[derive(Debug, Parser)]
struct Cli {
    /// How long things happen
    #[arg(long, value_name = "N", default_value_t = 10)]
    minutes: u64,
    /// Repeats the choices of an earlier run
    #[arg(long)]
    seed: Option<u64>,
    /// Give each node a network namespace: Linux, as root
    #[arg(long, value_enum, default_value = "auto")]
    netns: Netns,
    /// Milliseconds between milestones
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    milestone_ms: u64,
    /// Instead: many transfers on four nodes that nothing happens to
    #[arg(long)]
    throughput: bool,
    /// How many transfers
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    transfers: usize,
    /// So many transfers a second; 0 for as fast as they are taken
    #[arg(long, value_name = "N", default_value_t = 0)]
    rate: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    kill_all_on_panic();
    let cli = Cli::parse();
    let random = cli.seed.map_or_else(Random::new, Random::seeded);
    let interval = Duration::from_millis(cli.milestone_ms);
    let report = if cli.throughput {
        throughput(Load { transfers: cli.transfers, rate: cli.rate, interval }, random).await
    } else {
        let place = match cli.netns {
            Netns::Auto => Where::Best,
            Netns::Yes => Where::Namespaces,
            Netns::No => Where::Loopback,
        };
        let time = Duration::from_secs(60 * cli.minutes);
        run(Plan { time, interval, stage_milestones: 10, place }, random).await
    };
    print!("{report}");
    println!("{}", report.json());
    if report.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
