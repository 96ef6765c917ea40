//! A household that pays for its electricity by the Wh, the moment it has used it.
//!
//! ```text
//! cargo run --release -p flash-examples --bin household-meter
//! ```
//!
//! The meter's readings are real: one household's power, minute by minute, on 1 February 2007
//! (`data/README.md` says whose). A whole network is started on this machine: a Tangle node, the supplier's
//! daemon and the household's daemon. The household opens a channel with the supplier, and from then on its
//! meter pays every minute for the whole Wh that have gone through it since the last payment. At the
//! end both close the channel, and every sum is checked to the unit.
//!
//! What to copy:
//!
//! - energy is counted in whole watt-minutes, so nothing is ever rounded: what is not yet a whole Wh stays
//!   on the meter and is paid with a later reading;
//! - payments go as one stream of lines over one request ([`Client::stream`]), without waiting for answers
//!   in between; the daemon puts all that come together under one signature;
//! - each reading has a key of its own. A meter that does not know whether its last line was paid sends it
//!   again: the daemon answers with the payment that was made, and pays nothing.

use std::{
    io,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use flash_proto::{Amount, Output};
use flashd::{
    api::{ChannelInfo, CloseRequest, OpenRequest, PayRequest, StreamOutcome},
    client::Client,
    failure::Failure,
    flashd_cli,
    local::{LocalDaemon, LocalNetwork},
};
use futures_util::{StreamExt, stream};

const READINGS: &str = include_str!("../../data/household_meter.csv");
/// What one Wh costs.
const PRICE_PER_WH: Amount = Amount::new(300);
/// What the house's main fuse lets through. The deposit covers it, so the house never has to know in
/// advance how much it will use.
const FUSE_W: u64 = 12_000;
/// Milliseconds between two milestones of the network.
const MILESTONE_MS: u64 = 250;
/// How long wallets and peers may take to see what is on the ledger.
const SETTLE_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Pay for a household's electricity by the Wh, on this machine, from one day's real readings.
#[derive(Debug, Parser)]
struct Arguments {
    /// Minutes of the day to replay
    #[arg(long, value_name = "N", default_value_t = 1_440, value_parser = clap::value_parser!(u16).range(1..=1_440))]
    minutes: u16,
    /// How much faster than in reality time passes
    #[arg(long, value_name = "FACTOR", default_value_t = 7_200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    speed: u32,
}

fn main() -> ExitCode {
    // The network on this machine starts its daemons as this very program with `flashd` before the
    // arguments, so that one file is all that is needed. A program that uses a daemon which runs already
    // needs nothing of this: `Client::of_data_dir` is all.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "flashd") {
        return flashd_cli::main(std::env::args_os().skip(1));
    }
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit.into()
        }
    }
}

/// A minute in which at least one Wh became whole.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Purchase {
    /// The minute, as the meter writes it.
    time: &'static str,
    wh: u64,
}

impl Purchase {
    fn price(&self) -> Result<Amount, Failure> {
        PRICE_PER_WH.checked_mul(self.wh).ok_or_else(too_much)
    }

    /// What is asked of the daemon. The reference goes to the supplier with the payment; the key stays
    /// here and makes the payment happen once, however often it is asked for.
    fn request(&self) -> Result<PayRequest, Failure> {
        let Self { time, wh } = self;
        let reference = Some(format!("{time} {wh} Wh"));
        Ok(PayRequest { amount: self.price()?, reference, key: Some(format!("reading {time}")) })
    }

    /// Day and hour.
    fn hour(&self) -> &'static str {
        self.time.get(..13).unwrap_or(self.time)
    }
}

/// A meter that counts energy exactly.
#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    /// Energy that is not a whole Wh yet, in watt-minutes: always less than 60.
    watt_minutes: u64,
}

impl Meter {
    /// One minute at this power; gives the Wh that became whole with it.
    fn minute(&mut self, watts: u64) -> u64 {
        let total = self.watt_minutes.saturating_add(watts);
        self.watt_minutes = total % 60;
        total / 60
    }
}

/// The readings of the first minutes: when, and how many watts on average.
fn readings(minutes: usize) -> Result<Vec<(&'static str, u64)>, Failure> {
    let reading = |line: &'static str| {
        let mut columns = line.split(',');
        Some((columns.next()?, watts(columns.next()?)?))
    };
    let lines = READINGS.lines().skip(1).take(minutes);
    lines.map(|line| reading(line).ok_or_else(|| Failure::new(format!("`{line}` is no reading")))).collect()
}

/// Kilowatts with at most three decimals as whole watts. Never through a float: `0.326` is exactly 326.
fn watts(kilowatts: &str) -> Option<u64> {
    let (whole, decimals) = kilowatts.split_once('.').unwrap_or((kilowatts, ""));
    if whole.is_empty() || decimals.len() > 3 {
        return None;
    }
    format!("{whole}{decimals:0<3}").parse().ok()
}

/// What is bought minute by minute; minutes without a new whole Wh buy nothing.
fn purchases(readings: &[(&'static str, u64)]) -> Vec<(usize, Purchase)> {
    let mut meter = Meter::default();
    let minutes = readings.iter().enumerate();
    minutes
        .map(|(minute, (time, watts))| (minute, Purchase { time, wh: meter.minute(*watts) }))
        .filter(|(_, purchase)| purchase.wh > 0)
        .collect()
}

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let readings = readings(usize::from(arguments.minutes))?;
    let dir = tempfile::Builder::new().prefix("flash-meter-").tempdir().map_err(Failure::new)?;
    eprintln!("starting a Tangle node, the supplier's daemon and the household's");
    let network = LocalNetwork::start(dir.path(), MILESTONE_MS).await?;
    let supplier = network.daemon("supplier", Amount::ZERO).await?;
    let household = network.daemon("household", Amount::ZERO).await?;

    let limit_wh = u64::from(arguments.minutes).saturating_mul(FUSE_W).div_ceil(60).max(1_000);
    let deposit = PRICE_PER_WH.checked_mul(limit_wh).ok_or_else(too_much)?;
    let address = household.client.new_address().await?.address;
    network.fund(&[Output { address, amount: deposit }]).await?;
    let channel = open(&household.client, &supplier, deposit).await?;
    println!("channel {}\ndeposit {deposit}, {PRICE_PER_WH} per Wh\n", channel.id);

    let paid = replay(&household.client, &channel, &readings, arguments.speed).await?;
    let closed = household.client.close(channel.id, CloseRequest { force: false }, true).await?;
    check(&closed, &supplier, &household, deposit, paid).await?;
    let rest = deposit.saturating_sub(paid);
    println!("\nclosed: the household got back {rest}, the supplier {paid}; every unit is accounted for");
    household.stop().await?;
    supplier.stop().await?;
    network.stop().await
}

/// Opens the channel and waits until the supplier sees it open, too.
async fn open(household: &Client, supplier: &LocalDaemon, deposit: Amount) -> Result<ChannelInfo, Failure> {
    let request = OpenRequest {
        peer: supplier.ticket.clone(),
        deposit,
        peer_deposit: Amount::ZERO,
        contest_window_milestones: None,
    };
    let channel = household.open(&request).await?;
    until("the supplier does not see the channel open", async || {
        Ok(supplier.client.channel(channel.id).await?.state == "open")
    })
    .await?;
    Ok(channel)
}

/// Replays the readings, pays what they cost, shows it hour by hour, and gives the sum.
async fn replay(
    household: &Client,
    channel: &ChannelInfo,
    readings: &[(&'static str, u64)],
    speed: u32,
) -> Result<Amount, Failure> {
    let purchases = purchases(readings);
    let mut lines = Vec::new();
    for (minute, purchase) in &purchases {
        let line = serde_json::to_string(&purchase.request()?).map_err(Failure::new)?;
        lines.push((*minute, line));
    }
    // A reading is there when its minute is over.
    let (began, minute) = (tokio::time::Instant::now(), Duration::from_secs(60));
    let metered = stream::iter(lines).then(move |(after, line)| async move {
        let passed = u32::try_from(after).unwrap_or(u32::MAX).saturating_add(1);
        tokio::time::sleep_until(began + minute.saturating_mul(passed) / speed).await;
        Ok::<_, io::Error>(line)
    });
    println!("{:<15} {:>7} {:>14} {:>14}", "hour", "kWh", "paid", "paid in all");
    let mut answers = household.stream(channel.id, metered).await?;
    let (mut paid, mut hour) = (Amount::ZERO, Hour::default());
    for (_, purchase) in &purchases {
        // One answer for each line, in the same order, once the supplier has the payment on its disk.
        let answer = answers.next().await.ok_or_else(|| Failure::new("the stream ended early"))??;
        match answer.outcome {
            StreamOutcome::Paid(payment) if payment.amount == purchase.price()? && !payment.repeated => {}
            StreamOutcome::Paid(_) => return Err(Failure::new("another amount was paid than asked for")),
            StreamOutcome::Refused { error } => return Err(error.into()),
        }
        hour = hour.with(purchase, paid);
        paid = paid.checked_add(purchase.price()?).ok_or_else(too_much)?;
    }
    hour.show(paid);
    if let Some((_, last)) = purchases.last() {
        // What a meter does after a power cut: it asks for its last payment again.
        let again = household.pay(channel.id, &last.request()?).await?;
        if !again.repeated {
            return Err(Failure::new("the last reading was paid twice"));
        }
    }
    let watt_minutes: u64 = readings.iter().map(|(_, watts)| watts).sum();
    if PRICE_PER_WH.checked_mul(watt_minutes / 60) != Some(paid) {
        return Err(Failure::new("not every whole Wh was paid exactly once"));
    }
    Ok(paid)
}

/// The hour that is being shown.
#[derive(Clone, Copy, Debug, Default)]
struct Hour {
    name: &'static str,
    wh: u64,
    paid_before: Amount,
}

impl Hour {
    /// Counts a purchase; the first one of a new hour shows the hour before.
    fn with(self, purchase: &Purchase, paid: Amount) -> Self {
        if self.name == purchase.hour() {
            return Self { wh: self.wh.saturating_add(purchase.wh), ..self };
        }
        self.show(paid);
        Self { name: purchase.hour(), wh: purchase.wh, paid_before: paid }
    }

    fn show(self, paid: Amount) {
        if self.wh > 0 {
            let kwh = format!("{}.{:03}", self.wh / 1_000, self.wh % 1_000);
            let in_hour = paid.saturating_sub(self.paid_before);
            println!("{:<15} {kwh:>7} {:>14} {:>14}", self.name, in_hour.to_string(), paid.to_string());
        }
    }
}

/// Checks that both sides and both wallets say the same, to the unit.
async fn check(
    closed: &ChannelInfo,
    supplier: &LocalDaemon,
    household: &LocalDaemon,
    deposit: Amount,
    paid: Amount,
) -> Result<(), Failure> {
    let rest = deposit.checked_sub(paid).ok_or_else(too_much)?;
    if closed.sent.cumulative != paid || closed.payout != Some(rest) || closed.peer_payout != Some(paid) {
        return Err(Failure::new("the channel was not closed with what was paid"));
    }
    until("the supplier does not see the same channel closed", async || {
        let theirs = supplier.client.channel(closed.id).await?;
        Ok(theirs.state == "closed" && theirs.received.cumulative == paid && theirs.payout == Some(paid))
    })
    .await?;
    for (daemon, wanted) in [(household, rest), (supplier, paid)] {
        until(&format!("the wallet of the {} is not at {wanted}", daemon.name), async || {
            let balance = daemon.client.balance().await?;
            Ok(balance.available == wanted && balance.reserved.is_zero())
        })
        .await?;
    }
    Ok(())
}

/// Asks again and again until it is so.
async fn until(otherwise: &str, is_so: impl AsyncFn() -> Result<bool, Failure>) -> Result<(), Failure> {
    let deadline = Instant::now() + SETTLE_MAX;
    while !is_so().await? {
        if Instant::now() > deadline {
            return Err(Failure::new(otherwise));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn too_much() -> Failure {
    Failure::new("the amounts do not fit 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energy_is_counted_exactly() {
        let kilowatts = ["0.326", "12.000", "0.001", "0.32", "1.5", "7"];
        assert_eq!(kilowatts.map(watts), [326, 12_000, 1, 320, 1_500, 7_000].map(Some));
        assert_eq!(["", ".5", "1.2345", "x.000", "1.-5"].map(watts), [None; 5]);
        let readings = readings(1_440).unwrap();
        assert_eq!(readings.len(), 1_440);
        let watt_minutes: u64 = readings.iter().map(|(_, watts)| watts).sum();
        let bought: u64 = purchases(&readings).iter().map(|(_, purchase)| purchase.wh).sum();
        assert_eq!(bought, watt_minutes / 60);
        let mut meter = Meter::default();
        assert_eq!([59, 1, 30, 30, 121].map(|watts| meter.minute(watts)), [0, 1, 0, 1, 2]);
        assert_eq!(meter.watt_minutes, 1);
    }
}
