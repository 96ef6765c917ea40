//! Payments over a channel of LDK between two nodes in one process, for comparison.
//!
//! ```text
//! cargo run --release --locked --manifest-path benches/ldk/Cargo.toml
//! ```
//!
//! Both nodes share one thread; messages are handed over without a link. Payments are of 10 satoshis, below the size from
//! which each would need a signature of its own, which is what LDK is fastest with. Two things that a real node has are
//! left out, both in its favour: the record of the channel manager is not written, and no route is searched.
//!
//! `--json` prints the figures for the table of `just bench`; `--quick` takes a small part.

mod node;
mod pair;

use std::time::{Duration, Instant};

use node::Kept;
use pair::Pair;
use serde_json::{Value, json};

/// Payments that wait for their end at once.
const IN_FLIGHT: [usize; 2] = [1, 50];

fn main() {
    let given = |name: &str| std::env::args().any(|argument| argument == name);
    let time = Duration::from_secs(if given("--quick") { 1 } else { 10 });
    let mut figures = Vec::new();
    for kept in [Kept::InMemory, Kept::InFiles] {
        for in_flight in IN_FLIGHT {
            figures.extend(measure(kept, in_flight, time));
        }
    }
    if given("--json") {
        println!("{}", Value::Array(figures));
        return;
    }
    for figure in figures {
        let text = |name: &str| figure[name].as_str().unwrap_or_default().to_owned();
        println!(
            "{:<58} {:>10.1} {}",
            text("what"),
            figure["value"].as_f64().unwrap_or_default(),
            text("unit")
        );
    }
}

/// What this process has taken of all cores, to a hundredth of a second, as Linux counts it; 0 elsewhere.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn measure(kept: Kept, in_flight: usize, time: Duration) -> Vec<Value> {
    let mut pair = Pair::open(kept);
    let cpu = cpu_time();
    let (started, mut made, mut latencies) = (Instant::now(), 0_u32, Vec::new());
    while started.elapsed() < time {
        let asked = Instant::now();
        pair.pay(in_flight);
        latencies.push(asked.elapsed());
        made += u32::try_from(in_flight).expect("a small number");
    }
    let took = started.elapsed();
    let cpu_us_each = cpu_time().saturating_sub(cpu).as_secs_f64() * 1e6 / f64::from(made);
    pair.check(made);
    latencies.sort_unstable();
    let p50 = latencies[latencies.len() / 2].as_secs_f64() * 1e6;
    let (kept, how) = match kept {
        Kept::InMemory => ("in memory", "one process, one thread, no link, nothing kept"),
        Kept::InFiles => ("synced to files", "one process, one thread, no link; LDK's store of files"),
    };
    let what = format!("LDK, {kept}, {in_flight} at a time");
    let figure = |what: String, value: f64, unit: &str| json!({ "what": what, "value": value, "unit": unit, "how": how });
    vec![
        figure(format!("{what}: payments"), f64::from(made) / took.as_secs_f64(), "/s"),
        figure(format!("{what}: processor time of a payment"), cpu_us_each, "µs"),
        figure(format!("{what}: p50 until all are paid"), p50, "µs"),
        figure(format!("{what}: messages of a payment"), pair.bytes_each(made), "B"),
    ]
}
