//! The command line: many seeds on all cores, or one seed step by step.
//!
//! Progress goes to standard error; standard output is one JSON line with what was run, what happened how often,
//! and what was broken. The exit code is 1 if anything was.

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;

use super::{Finding, Plan, Stats, checked};

/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// Simulated lives of a channel: one seed, one life. Any broken rule is printed with the arguments that repeat it.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run this long instead of a number of seeds.
    #[arg(long, conflicts_with = "seeds")]
    minutes: Option<f64>,
    /// Threads; as many as there are cores unless told.
    #[arg(long)]
    threads: Option<usize>,
    /// End after so many findings.
    #[arg(long, default_value_t = 5)]
    findings: usize,
    /// Run this one seed and print every step.
    #[arg(long, conflicts_with_all = ["seeds", "first", "minutes", "threads"])]
    seed: Option<u64>,
    /// Leave these faults out of the one seed.
    #[arg(long, requires = "seed", value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(Plan::faults()))]
    without: Vec<String>,
    /// Milestones with faults and payments of the one seed.
    #[arg(long, requires = "seed")]
    milestones: Option<u64>,
}

/// What the threads share.
struct Shared {
    next: AtomicU64,
    done: AtomicU64,
    end: u64,
    until: Option<Instant>,
    stats: Mutex<Stats>,
    findings_max: usize,
    findings: Mutex<Vec<Finding>>,
}

/// Runs what the arguments of this process ask for.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    // What panics is caught, and told with its seed.
    std::panic::set_hook(Box::new(|_| ()));
    let broken = match args.seed {
        Some(seed) => one(seed, &args),
        None => many(&args),
    };
    if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn one(seed: u64, args: &Args) -> bool {
    let mut plan = Plan::of_seed(seed);
    plan = plan.clone().lasting(args.milestones.unwrap_or(plan.milestones()));
    for fault in &args.without {
        plan = plan.clone().without(fault).unwrap_or(plan);
    }
    println!("{plan:?}");
    match checked(plan.printed()) {
        Ok(outcome) => println!("{}", outcome.stats),
        Err(violation) => {
            println!("{violation}");
            return true;
        }
    }
    false
}

fn many(args: &Args) -> bool {
    let begun = Instant::now();
    let minutes = args.minutes.map(|minutes| Duration::from_secs_f64(minutes.max(0.0) * 60.0));
    let shared = Shared {
        next: AtomicU64::new(args.first),
        done: AtomicU64::new(0),
        end: minutes.map_or(args.first.saturating_add(args.seeds), |_| u64::MAX),
        until: minutes.map(|minutes| begun + minutes),
        stats: Mutex::default(),
        findings_max: args.findings,
        findings: Mutex::default(),
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or(cores).max(1);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| shared.work())).collect();
        let mut told = begun;
        while workers.iter().any(|worker| !worker.is_finished()) {
            thread::sleep(Duration::from_millis(20));
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                eprintln!(
                    "{} seeds in {:.0} s",
                    shared.done.load(Ordering::Relaxed),
                    begun.elapsed().as_secs_f64()
                );
            }
        }
    });
    let findings = lock(&shared.findings);
    for finding in findings.iter() {
        eprintln!("seed {}: {finding}", finding.seed);
    }
    let (seeds, seconds) = (shared.done.load(Ordering::Relaxed), begun.elapsed().as_secs_f64());
    // Where the system does not say, all threads are taken to have worked all the time.
    let cpu = cpu_seconds().unwrap_or(seconds * f64::from(u32::try_from(threads).unwrap_or(u32::MAX)));
    println!(
        "{{\"seeds\":{seeds},\"first\":{},\"seconds\":{seconds:.1},\"threads\":{threads},\"cpu_seconds\":{cpu:.1},\
         \"seeds_per_cpu_minute\":{:.0},\"violations\":{},\"failed_seeds\":{:?},\"counts\":{}}}",
        args.first,
        f64::from(u32::try_from(seeds).unwrap_or(u32::MAX)) * 60.0 / cpu,
        findings.len(),
        findings.iter().map(|finding| finding.seed).collect::<Vec<_>>(),
        lock(&shared.stats),
    );
    !findings.is_empty()
}

/// Processor time of this process so far (Linux): fields 14 and 15 of its `stat`, in hundredths of a second.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields = stat.rsplit(')').next()?.split_whitespace();
    let ticks: Vec<u32> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    (ticks.len() == 2).then(|| ticks.into_iter().map(f64::from).sum::<f64>() / 100.0)
}

/// A thread that panics with a lock held has counted nothing by halves.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
            || lock(&self.findings).len() >= self.findings_max
    }

    fn work(&self) {
        let mut stats = Stats::default();
        while !self.is_over() {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end {
                break;
            }
            match checked(Plan::of_seed(seed)) {
                Ok(outcome) => stats.merge(&outcome.stats),
                Err(violation) => {
                    let finding = Finding::shrunk(seed, violation);
                    lock(&self.findings).push(finding);
                }
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        lock(&self.stats).merge(&stats);
    }
}
