//! `flash demo`: real charging sessions, paid per Wh over real channels, on this machine alone.
//!
//! | file | what it does |
//! | --- | --- |
//! | `mod.rs` | brings the machines up, runs all sessions, checks every sum |
//! | `sessions.rs` | reads the records |
//! | `replay.rs` | one session: open, pay per Wh as the energy flows, close |
//! | `report.rs` | what came out, as a table and as JSON |

mod replay;
mod report;
mod sessions;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use flash_proto::{Address, Amount, Output};
use indicatif::{ProgressBar, ProgressStyle};

pub use self::report::Report;
use self::{
    replay::{Replayed, Settings},
    sessions::Session,
};
use crate::{
    failure::Failure,
    local::{LocalDaemon, LocalNetwork},
};

/// What one Wh costs.
const PRICE_PER_WH: Amount = Amount::new(300);
/// How often a log that is no terminal hears how far it is.
const SAY: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// Replay real charging sessions on this machine: a Tangle node, a charging operator, cars
#[derive(Debug, Args)]
pub struct Demo {
    /// Sessions to replay, of the 467 on record
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=467))]
    sessions: u16,
    /// How much faster than in reality the energy flows
    #[arg(long, value_name = "FACTOR", default_value_t = 1_200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    speed: u32,
    /// Cars that share the sessions; each is a daemon of its own
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    cars: u16,
    /// Milliseconds between milestones of the ledger
    #[arg(long, value_name = "MS", default_value_t = 250, value_parser = clap::value_parser!(u64).range(50..=10_000))]
    milestone_ms: u64,
    /// Leave everything running at the end and say how to look around
    #[arg(long)]
    keep: bool,
}

/// How far all sessions are.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    charging: AtomicU64,
    done: AtomicU64,
    payments: AtomicU64,
}

/// Everything that runs.
struct Machines {
    network: LocalNetwork,
    operator: LocalDaemon,
    cars: Vec<LocalDaemon>,
}

impl Demo {
    /// Runs the demo. `show` prints the report, before `--keep` waits.
    ///
    /// # Errors
    /// [`Failure`]: something did not work, or a sum is off.
    pub async fn run(self, show: impl FnOnce(&Report) -> Result<(), Failure>) -> Result<(), Failure> {
        let dir = tempfile::Builder::new().prefix("flash-demo-").tempdir().map_err(Failure::new)?;
        let result = tokio::select! {
            result = self.run_in(dir.path(), show) => result,
            _ = tokio::signal::ctrl_c() => {
                eprintln!("interrupted; everything is stopped and removed");
                return Ok(());
            }
        };
        if result.is_err() {
            eprintln!("the logs of all machines are in {}", dir.keep().display());
        }
        result
    }

    async fn run_in(
        &self,
        dir: &std::path::Path,
        show: impl FnOnce(&Report) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let sessions = sessions::read(usize::from(self.sessions))?;
        eprintln!("starting a Tangle node, a charging operator and {} cars", self.cars);
        let machines = self.bring_up(dir).await?;
        let funded = self.fund(&machines, &sessions).await?;
        let replayed = self.replay(&machines, &sessions).await?;
        let report = check(&machines, &replayed, &funded, started).await?;
        show(&report)?;
        if self.keep {
            keep(&machines);
            let _ = tokio::signal::ctrl_c().await;
        }
        machines.stop().await
    }

    async fn bring_up(&self, dir: &std::path::Path) -> Result<Machines, Failure> {
        let network = LocalNetwork::start(dir, self.milestone_ms).await?;
        let operator = network.daemon("operator", Amount::ZERO).await?;
        let mut cars = Vec::new();
        for number in 1..=self.cars {
            cars.push(network.daemon(&format!("car-{number}"), Amount::ZERO).await?);
        }
        Ok(Machines { network, operator, cars })
    }

    /// Gives each car an output for each of its sessions, and returns what each car was given.
    async fn fund(&self, machines: &Machines, sessions: &[Session]) -> Result<Vec<Amount>, Failure> {
        let mut largest = Amount::ZERO;
        for session in sessions {
            largest = largest.max(replay::deposit(session)?);
        }
        let count = machines.cars.len();
        let mut funded = vec![Amount::ZERO; count];
        let mut outputs = Vec::new();
        for (number, _) in sessions.iter().enumerate() {
            let Some((car, sum)) = machines.cars.iter().zip(&mut funded).nth(number % count) else {
                continue;
            };
            let address: Address = car.client.new_address().await?.address;
            outputs.push(Output { address, amount: largest });
            *sum = sum.checked_add(largest).ok_or_else(|| Failure::new("the deposits do not fit 64 bits"))?;
        }
        machines.network.fund(&outputs).await?;
        Ok(funded)
    }

    async fn replay(&self, machines: &Machines, sessions: &[Session]) -> Result<Vec<Replayed>, Failure> {
        let progress = Arc::new(Progress::default());
        let settings = Settings {
            speed: self.speed,
            began: Instant::now(),
            first: sessions.first().map_or(Duration::ZERO, |session| session.plug_in),
            progress: Arc::clone(&progress),
        };
        let wh: u64 = sessions.iter().map(|session| session.energy_wh).sum();
        eprintln!(
            "replaying {} sessions of {}.{:03} kWh in all, {} times as fast as they were",
            sessions.len(),
            wh / 1_000,
            wh % 1_000,
            self.speed
        );
        let count = machines.cars.len();
        let mut tasks = tokio::task::JoinSet::new();
        for (number, session) in sessions.iter().enumerate() {
            let Some(car) = machines.cars.get(number % count) else { continue };
            let task = replay::run(
                number,
                session.clone(),
                car.client.clone(),
                machines.operator.client.clone(),
                machines.operator.ticket.clone(),
                settings.clone(),
            );
            tasks.spawn(task);
        }
        let shower = tokio::spawn(show_progress(progress, wh, sessions.len()));
        let mut replayed = Vec::new();
        while let Some(done) = tasks.join_next().await {
            replayed.push(done.map_err(Failure::new)??);
        }
        shower.abort();
        let _ = shower.await;
        replayed.sort_by_key(|replayed| replayed.number);
        Ok(replayed)
    }
}

impl Machines {
    async fn stop(self) -> Result<(), Failure> {
        for daemon in self.cars.into_iter().chain([self.operator]) {
            daemon.stop().await?;
        }
        self.network.stop().await
    }
}

async fn show_progress(progress: Arc<Progress>, wh: u64, sessions: usize) {
    let bar = ProgressBar::new(wh);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len} Wh paid, {msg} ({elapsed})") {
        bar.set_style(style);
    }
    let (began, mut said) = (Instant::now(), Instant::now());
    loop {
        tokio::time::sleep(POLL).await;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (charging, done, paid) =
            (read(&progress.charging), read(&progress.done), read(&progress.payments));
        let state = format!("{charging} charging, {done} of {sessions} done");
        bar.set_position(paid);
        bar.set_message(state.clone());
        if bar.is_hidden() && said.elapsed() >= SAY {
            said = Instant::now();
            eprintln!("{:>4} s: {paid} of {wh} Wh paid, {state}", began.elapsed().as_secs());
        }
    }
}

/// Checks every sum; what is off is a failure.
async fn check(
    machines: &Machines,
    replayed: &[Replayed],
    funded: &[Amount],
    started: Instant,
) -> Result<Report, Failure> {
    let mut transactions = BTreeSet::new();
    for session in replayed {
        session.check(&machines.operator.client).await?;
        transactions.extend([session.open_transaction()?, session.close_transaction()?]);
    }
    let wanted = replayed.len().saturating_mul(2);
    if transactions.len() != wanted {
        return Err(Failure::new(format!("{} ledger transactions instead of {wanted}", transactions.len())));
    }
    let paid = |car: usize| {
        let of_car = replayed.iter().filter(|session| session.number % machines.cars.len() == car);
        Amount::checked_sum(of_car.map(|session| session.paid))
    };
    let overflow = || Failure::new("the payments do not fit 64 bits");
    let mut total = Amount::ZERO;
    for ((number, car), funded) in machines.cars.iter().enumerate().zip(funded) {
        let paid = paid(number).ok_or_else(overflow)?;
        total = total.checked_add(paid).ok_or_else(overflow)?;
        car.settled(funded.saturating_sub(paid)).await?;
    }
    machines.operator.settled(total).await?;
    let info = machines.network.connect()?.info().await.map_err(Failure::new)?;
    let ((_, in_outputs), (channels, in_channels)) = (info.outputs, info.channels);
    if channels != 0 || in_outputs.checked_add(in_channels) != Some(Amount::SUPPLY) {
        return Err(Failure::new(format!(
            "the ledger holds {in_outputs} in outputs and {in_channels} in {channels} channels, not the supply of {} in outputs",
            Amount::SUPPLY
        )));
    }
    Ok(Report::new(replayed, transactions.len(), total, started.elapsed()))
}

fn keep(machines: &Machines) {
    let flash =
        std::env::current_exe().map_or_else(|_| "flash".to_owned(), |path| path.display().to_string());
    let operator = machines.operator.data.display();
    eprintln!("\neverything still runs, until Ctrl-C. In another terminal, look around:\n");
    for command in ["info", "channel list --all", "wallet balance", "events", "ledger status"] {
        eprintln!("  {flash} --data {operator} {command}");
    }
    eprintln!("\nthe cars' data directories are beside it:");
    for car in &machines.cars {
        eprintln!("  {}", car.data.display());
    }
}
