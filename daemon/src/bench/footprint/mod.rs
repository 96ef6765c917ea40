//! `flash footprint`: the memory and the disk that a node and two daemons take, for those who run them on a
//! small machine.
//!
//! The node starts on a ledger that is already large. Everything runs as processes of its own, as a user runs
//! them; what they take is what Linux counts for each of them in `/proc`.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `mod.rs` | the options, and one run |
//! | `fill.rs` | a ledger with many outputs |
//! | `usage.rs` | what Linux counts for a process |
//! | `report.rs` | what came out, as a table and as JSON |

mod fill;
mod report;
pub mod usage;

use std::{path::Path, time::Duration};

use clap::Args;
use flash_node_client::node::dev::DevNetwork;
use flash_proto::Amount;
pub use report::{FootprintReport, Line};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

use self::usage::Usage;
use super::{
    channels::{self, Opened, Plan, RESERVE},
    machine,
};
use crate::{
    api::PayRequest,
    client::Client,
    datadir::DataDir,
    failure::Failure,
    local::{LocalDaemon, LocalNetwork},
    node_service,
    size::size,
};

/// Bits of proof of work, as a development network has them.
const POW_BITS: u8 = 8;
/// How long a process may come to rest before it is measured.
const SETTLE: Duration = Duration::from_secs(5);
/// Of each payment.
const AMOUNT: Amount = Amount::new(25);
/// Channels that are opened at once.
const OPENED_AT_ONCE: usize = 16;

/// Measure memory and disk on this machine: a node with a large ledger, and two daemons that pay once a second
#[derive(Clone, Debug, Args)]
#[command(after_help = "The network is a new one in a temporary directory: no data directory is touched. \
    Three times so many seconds are measured: the node alone, one channel that pays once a second, and all \
    channels, each paying once a second. What is written is what Linux counts for each process: whole pages \
    of the page cache on their way to the disk, without the file system's own journal. It is counted only \
    if the temporary directory (TMPDIR) is on a disk.")]
pub struct Footprint {
    /// Outputs in the node's ledger
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(..=10_000_000))]
    outputs: u64,
    /// Channels at the end
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    channels: u32,
    /// Seconds of each measurement
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Milliseconds between milestones
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    milestone_ms: u64,
    /// Let each process take only so much memory, such as 64MB, with the files that it has open: Linux, as root
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory_max: Option<u64>,
}

/// A process that is measured.
struct Watched<'a> {
    name: &'static str,
    pid: u32,
    /// Of a daemon; the node has no metrics.
    client: Option<&'a Client>,
}

impl Footprint {
    /// Measures; `say` is told what is being done.
    ///
    /// # Errors
    /// [`Failure`]: something did not work, or this is not Linux.
    pub async fn run(self, say: impl Fn(&str)) -> Result<FootprintReport, Failure> {
        let dir = tempfile::Builder::new().prefix("flash-footprint-").tempdir().map_err(Failure::new)?;
        tokio::select! {
            result = self.measure(dir.path(), &say) => result,
            Ok(()) = tokio::signal::ctrl_c() => {
                Err(Failure::new("interrupted; everything is stopped and removed"))
            }
        }
    }

    async fn measure(&self, dir: &Path, say: &impl Fn(&str)) -> Result<FootprintReport, Failure> {
        say("making a ledger");
        let outputs = self.fill(dir).await?;
        let network = LocalNetwork::start_within(dir, self.milestone_ms, self.memory_max).await?;
        let node = Watched { name: "node", pid: known(network.pid())?, client: None };
        say("the node alone");
        tokio::time::sleep(SETTLE).await;
        let mut lines = self.watch("node alone", &[&node], None).await?;

        say("starting two daemons");
        let paying = network.daemon("payer", Amount::ZERO).await?;
        let paid = network.daemon("payee", Amount::ZERO).await?;
        let watched = [
            &node,
            &Watched { name: "payer", pid: known(paying.pid())?, client: Some(&paying.client) },
            &Watched { name: "payee", pid: known(paid.pid())?, client: Some(&paid.client) },
        ];
        let mut opened = Vec::new();
        for channels in [1, self.channels] {
            let missing = channels.saturating_sub(u32::try_from(opened.len()).unwrap_or(u32::MAX));
            say(&format!("opening {missing} channel(s), and paying"));
            opened.extend(self.open(&network, [&paying, &paid], missing).await?);
            tokio::time::sleep(SETTLE).await;
            let what = format!("{channels} channel(s)");
            lines.extend(self.watch(&what, &watched, Some((&paying.client, &opened))).await?);
            if self.channels == 1 {
                break;
            }
        }
        for daemon in [paying, paid] {
            daemon.stop().await?;
        }
        network.stop().await?;
        Ok(FootprintReport { machine: machine::describe(), milestone_ms: self.milestone_ms, outputs, lines })
    }

    /// Makes the node's directory; the number of its outputs.
    async fn fill(&self, dir: &Path) -> Result<u64, Failure> {
        let node = DataDir::create(&dir.join("node"))?;
        let dev = DevNetwork { milestone_interval_ms: self.milestone_ms, pow_bits: POW_BITS };
        let keys = node_service::make_dev(&node, dev)?;
        let outputs = self.outputs;
        let filling = tokio::task::spawn_blocking(move || fill::fill(node.store_path(), &keys, outputs));
        filling.await.map_err(Failure::new)?
    }

    async fn open(
        &self,
        network: &LocalNetwork,
        daemons: [&LocalDaemon; 2],
        channels: u32,
    ) -> Result<Vec<Opened>, Failure> {
        // Twice what is paid in both measurements.
        let paid = AMOUNT.checked_mul(u64::from(self.seconds).saturating_mul(4));
        let deposit = paid.and_then(|paid| paid.checked_add(RESERVE));
        let deposit = deposit.ok_or_else(|| Failure::new("a deposit does not fit 64 bits"))?;
        let plan = Plan { channels, deposits: [deposit, Amount::ZERO], at_once: OPENED_AT_ONCE };
        channels::fund(network, daemons, &plan).await?;
        channels::open(&daemons[0].client, &daemons[1].ticket, &plan).await
    }

    /// What each process takes in the time of one measurement, while a payment a second is made on each channel.
    async fn watch(
        &self,
        phase: &str,
        watched: &[&Watched<'_>],
        paying: Option<(&Client, &[Opened])>,
    ) -> Result<Vec<Line>, Failure> {
        let mut before = Vec::new();
        for process in watched {
            before.push(Usage::read(process.pid, process.client).await?);
        }
        let began = Instant::now();
        let time = Duration::from_secs(self.seconds.into());
        let payments = if let Some((payer, opened)) = paying {
            pay(payer, opened, time).await?
        } else {
            tokio::time::sleep(time).await;
            0
        };
        let took = began.elapsed();
        let mut lines = Vec::new();
        for (process, before) in watched.iter().zip(before) {
            let after = Usage::read(process.pid, process.client).await?;
            lines.push(Line::new(phase, process.name, &before, &after, payments, took));
        }
        Ok(lines)
    }
}

fn known(pid: Option<u32>) -> Result<u32, Failure> {
    pid.ok_or_else(|| Failure::new("a process has ended"))
}

/// Pays once a second on each channel, one after the other in equal steps; the number of payments, each on the
/// payee's disk.
async fn pay(payer: &Client, opened: &[Opened], time: Duration) -> Result<u64, Failure> {
    let channels = u32::try_from(opened.len()).unwrap_or(u32::MAX).max(1);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / channels);
    // A machine that is too slow shows it by paying less, not by paying in bursts.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let until = Instant::now() + time;
    let mut paying = JoinSet::new();
    let mut payments = 0_u64;
    for channel in opened.iter().cycle() {
        ticks.tick().await;
        if Instant::now() >= until {
            break;
        }
        let (client, id) = (payer.clone(), channel.id);
        let request = PayRequest { amount: AMOUNT, reference: None, key: None };
        paying.spawn(async move { client.pay(id, &request).await });
        while let Some(paid) = paying.try_join_next() {
            paid.map_err(Failure::new)??;
            payments = payments.saturating_add(1);
        }
    }
    while let Some(paid) = paying.join_next().await {
        paid.map_err(Failure::new)??;
        payments = payments.saturating_add(1);
    }
    Ok(payments)
}
