//! `flash bench`: what payments cost on this machine, measured the way a user pays.
//!
//! A node and two daemons run as processes of their own. Payments go over the RPC's streams, a stream
//! for each lane; a payment counts once the payee has it on its disk. At the end the channels are closed,
//! and every sum is checked: numbers of a run that lost a payment are worth nothing.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `mod.rs` | the options, and one run from the start of the network to the last check |
//! | `channels.rs` | opening, closing and checking the channels |
//! | `idle.rs` | many channels that nobody uses, for those who measure them |
//! | `latency.rs` | how long things took |
//! | `load.rs` | paying on one lane, and how long each payment took |
//! | `machine.rs` | the machine: its processor, and what one sync of its disk takes |
//! | `report.rs` | what came out, as a table and as JSON |
//! | `footprint/` | memory and disk instead of time: `flash footprint` |

pub mod channels;
pub mod footprint;
pub mod idle;
pub mod latency;
pub mod load;
pub mod machine;
mod report;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use clap::Args;
use flash_proto::Amount;
use futures_util::future::try_join_all;
pub use report::Report;

use self::{
    channels::{Opened, Plan},
    load::{Lane, Limit, Paid},
    report::{ChannelsReport, Counted, DaemonReport, PaymentsReport},
};
use crate::{
    client::Client,
    exit::Exit,
    failure::Failure,
    local::{LocalDaemon, LocalNetwork},
};

/// Payments of a run that is not given a number or a time.
const PAYMENTS_DEFAULT: u64 = 200_000;
/// Payments that a lane can make in a second, whatever the machine: what the deposits of a run that is
/// given a time are for.
const PAYMENTS_PER_SECOND_MAX: u64 = 1_000_000;

/// Measure payments on this machine: a network of its own, two daemons, the RPC's streams
#[derive(Clone, Debug, Args)]
#[command(after_help = "The network is a new one in a temporary directory: no data directory is touched. \
    A payment's latency runs from the line that asks for it to the line that says that the payee has it on \
    its disk; it grows with --in-flight, as the throughput does.")]
pub struct Bench {
    /// Channels
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    channels: u32,
    /// Payments in all, in equal parts on every lane [default: 200000]
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..))]
    payments: Option<u64>,
    /// Pay for so many seconds instead
    #[arg(long, value_name = "S", conflicts_with = "payments", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Pay from the first daemon to the second only, not in both directions
    #[arg(long)]
    one_way: bool,
    /// Payments of one lane that wait for their answer at once
    #[arg(long, value_name = "K", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight: u32,
    /// Amount of each payment
    #[arg(long, default_value = "1i")]
    amount: Amount,
    /// Only open and close the channels
    #[arg(long, conflicts_with_all = ["payments", "seconds", "one_way", "amount"])]
    open_close: bool,
    /// Milliseconds between milestones
    #[arg(long, value_name = "MS", default_value_t = 250, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    milestone_ms: u64,
    /// Leave the temporary directory, with its logs
    #[arg(long)]
    keep: bool,
}

impl Bench {
    /// Measures; `say` is told what is being done.
    ///
    /// # Errors
    /// [`Failure`]: something did not work, or a sum is wrong.
    pub async fn run(self, say: impl Fn(&str)) -> Result<Report, Failure> {
        let plan = self.plan()?;
        let dir = tempfile::Builder::new().prefix("flash-bench-").tempdir().map_err(Failure::new)?;
        let result = tokio::select! {
            result = self.measure(dir.path(), plan, &say) => result,
            Ok(()) = tokio::signal::ctrl_c() => {
                return Err(Failure::new("interrupted; everything is stopped and removed"));
            }
        };
        if self.keep || result.is_err() {
            say(&format!("the logs and data of all processes are in {}", dir.keep().display()));
        }
        result
    }

    async fn measure(&self, dir: &Path, plan: Plan, say: &impl Fn(&str)) -> Result<Report, Failure> {
        let disk = machine::disk_sync(dir)?;
        say("starting a node and two daemons");
        let network = LocalNetwork::start(dir, self.milestone_ms).await?;
        let payer = network.daemon("payer", Amount::ZERO).await?;
        let receiver = network.daemon("payee", plan.deposits[1]).await?;
        channels::fund(&network, [&payer, &receiver], &plan).await?;

        say(&format!("opening {} channel(s)", plan.channels));
        let started = Instant::now();
        let opened = channels::open(&payer.client, &receiver.ticket, &plan).await?;
        let open_time = started.elapsed();
        let (payments, daemons) = if self.open_close {
            (None, Vec::new())
        } else {
            say("paying");
            let (payments, daemons) = self.pay([&payer, &receiver], &opened).await?;
            (Some(payments), daemons)
        };
        say("closing, and checking every sum");
        let started = Instant::now();
        channels::close(&payer.client, &opened).await?;
        let close_time = started.elapsed();
        let paid = payments.as_ref().map(|(_, sums)| sums.clone());
        let checked = channels::check([&payer, &receiver], &opened, &plan, paid.as_deref()).await?;
        for daemon in [payer, receiver] {
            daemon.stop().await?;
        }
        network.stop().await?;
        Ok(Report {
            machine: machine::describe(),
            milestone_ms: self.milestone_ms,
            disk,
            channels: ChannelsReport::new(plan.channels, open_time, close_time),
            payments: payments.map(|(report, _)| report),
            daemons,
            checked,
        })
    }

    /// What is opened, so that every lane can pay all that it is to pay.
    fn plan(&self) -> Result<Plan, Failure> {
        let too_much = || Failure {
            message: "so many payments of this amount are more than the supply".to_owned(),
            exit: Exit::Usage,
        };
        if self.amount.is_zero() {
            let message = "an amount is at least 1i".to_owned();
            return Err(Failure { message, exit: Exit::Usage });
        }
        let count = match self.limit() {
            Limit::Payments(payments) => payments,
            Limit::Time(time) => time.as_secs().saturating_mul(PAYMENTS_PER_SECOND_MAX),
        };
        let paid = self.amount.checked_mul(count).ok_or_else(too_much)?;
        // Closing leaves no output below the smallest one that the ledger takes.
        let deposit = paid.checked_add(channels::RESERVE).ok_or_else(too_much)?;
        let back = if self.one_way { Amount::ZERO } else { deposit };
        let plan = Plan { channels: self.channels, deposits: [deposit, back], at_once: self.at_once() };
        if plan.total().is_none_or(|total| total > Amount::SUPPLY) {
            return Err(too_much());
        }
        Ok(plan)
    }

    /// Channels that are opened or closed at once.
    fn at_once(&self) -> usize {
        usize::try_from(self.in_flight).unwrap_or(usize::MAX)
    }

    fn lanes(&self) -> u64 {
        u64::from(self.channels).saturating_mul(if self.one_way { 1 } else { 2 })
    }

    /// When one lane ends.
    fn limit(&self) -> Limit {
        match (self.open_close, self.seconds) {
            (true, _) => Limit::Payments(0),
            (false, Some(seconds)) => Limit::Time(Duration::from_secs(seconds)),
            (false, None) => {
                Limit::Payments(self.payments.unwrap_or(PAYMENTS_DEFAULT).div_ceil(self.lanes()))
            }
        }
    }

    /// Pays on every lane at once. Gives back what was measured, and what was paid on each channel.
    async fn pay(
        &self,
        daemons: [&LocalDaemon; 2],
        opened: &[Opened],
    ) -> Result<((PaymentsReport, Vec<[Amount; 2]>), Vec<DaemonReport>), Failure> {
        let [payer, receiver] = daemons.map(|daemon| &daemon.client);
        let directions: &[&Client] = if self.one_way { &[payer] } else { &[payer, receiver] };
        let mut lanes = Vec::new();
        for channel in opened {
            for client in directions {
                let client = (*client).clone();
                let lane =
                    Lane { client, channel: channel.id, amount: self.amount, in_flight: self.at_once() };
                lanes.push(lane);
            }
        }
        let count = lanes.len();
        let before = [counted(payer).await?, counted(receiver).await?];
        let started = Instant::now();
        let limit = self.limit();
        let running = lanes
            .into_iter()
            .map(|lane| async move { tokio::spawn(lane.pay(limit, started)).await.map_err(Failure::new)? });
        let paid: Vec<Paid> = try_join_all(running).await?;
        let took = started.elapsed();
        let after = [counted(payer).await?, counted(receiver).await?];

        let sums = paid
            .chunks(directions.len())
            .map(|lanes| {
                let mut sums = lanes.iter().map(|lane| lane.sum);
                [sums.next().unwrap_or_default(), sums.next().unwrap_or_default()]
            })
            .collect();
        let mut updates = 0_u64;
        for channel in opened {
            let info = payer.channel(channel.id).await?;
            updates = updates.saturating_add(info.sent.updates).saturating_add(info.received.updates);
        }
        let spent: Vec<Counted> =
            before.iter().zip(&after).map(|(before, after)| after.since(before)).collect();
        let bytes = spent.iter().map(|counted| counted.bytes).fold(0, u64::saturating_add);
        let load = report::Load { lanes: count, in_flight: self.in_flight, amount: self.amount };
        let report = PaymentsReport::new(load, paid, took, updates, bytes);
        let reports = daemons
            .iter()
            .zip(&spent)
            .map(|(daemon, counted)| DaemonReport::new(&daemon.name, counted, report.payments, took))
            .collect();
        Ok(((report, sums), reports))
    }
}

async fn counted(client: &Client) -> Result<Counted, Failure> {
    Ok(Counted::read(&client.metrics().await?))
}
