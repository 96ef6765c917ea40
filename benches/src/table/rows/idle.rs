//! One daemon with very many channels that nobody uses.

use std::{
    fs,
    time::{Duration, Instant},
};

use flash_proto::Amount;
use flashd::{
    bench::{footprint::usage::Usage, idle},
    datadir,
    failure::Failure,
    local::LocalNetwork,
};

use crate::table::{Bench, Done, line::Line, pair::SECOND_MS};

pub(super) const NAME: &str = "idle";

/// So long the cost of milestones is looked at.
const WATCHED: Duration = Duration::from_secs(10);
/// So long the daemon may take until it has seen its channels on the ledger.
const SEEN_MAX: Duration = Duration::from_secs(1_800);
const POLL: Duration = Duration::from_millis(100);

#[expect(clippy::cast_precision_loss, reason = "numbers to be looked at; no money")]
pub(super) async fn run(bench: &Bench) -> Done<Vec<Line>> {
    let channels = bench.options.idle();
    let dir = tempfile::Builder::new().prefix("flash-bench-").tempdir().map_err(Failure::new)?;
    let say = |made: u32| bench.progress.say(format!("{made} of {channels} channels are made"));
    tokio::task::block_in_place(|| idle::fill(dir.path(), NAME, SECOND_MS, channels, say))?;
    bench.progress.say("starting the node");
    let program = bench.programs.flashd();
    let network = LocalNetwork::start_as(program.clone(), dir.path(), SECOND_MS).await?;
    let config = datadir::config_path(&dir.path().join(NAME));
    fs::write(config, format!("nodes = [\"{}\"]\n", network.address())).map_err(Failure::new)?;

    bench.progress.say(format!("starting a daemon with {channels} channels"));
    let started = Instant::now();
    let daemon = network.run(&program, NAME, Amount::ZERO).await?;
    let answers = started.elapsed();
    let pid = daemon.pid().ok_or_else(|| Failure::new("the daemon has ended"))?;
    let info = daemon.client.info().await?;
    if info.channels != u64::from(channels) {
        return Err(Failure::new(format!("the daemon has {} channels, not {channels}", info.channels)));
    }
    bench.progress.say("until it has seen its channels on the ledger");
    while !sees_ledger(&daemon.client.metrics().await?) {
        if started.elapsed() > SEEN_MAX {
            return Err(Failure::new(format!("it has not seen its channels in {} s", SEEN_MAX.as_secs())));
        }
        tokio::time::sleep(POLL).await;
    }
    let seen = started.elapsed();
    bench.progress.say("until it has read all records");
    while is_reading(pid)? && started.elapsed() < SEEN_MAX {
        tokio::time::sleep(POLL).await;
    }
    bench.progress.say("at rest");
    let (before, index) = loop {
        let (before, index) = (Usage::read(pid, None).await?, milestone(&daemon.client.metrics().await?));
        tokio::time::sleep(WATCHED / 2).await;
        let heard = milestone(&daemon.client.metrics().await?).saturating_sub(index);
        // Those that it hears of only after the first round name all channels once more.
        let heard = Duration::from_millis(heard.saturating_add(1).saturating_mul(SECOND_MS));
        if heard >= WATCHED / 2 || started.elapsed() > SEEN_MAX {
            break (before, index);
        }
    };
    tokio::time::sleep(WATCHED / 2).await;
    let (after, newest) = (Usage::read(pid, None).await?, milestone(&daemon.client.metrics().await?));
    daemon.stop().await?;
    network.stop().await?;
    let milestones = newest.saturating_sub(index).max(1) as f64;
    let ms = after.cpu_ms.saturating_sub(before.cpu_ms) as f64 / milestones;
    let written = after.written_bytes.saturating_sub(before.written_bytes) as f64 / milestones / 1_000.0;
    let of = |what: &str| format!("{channels} idle channels: {what}");
    Ok(vec![
        Line::measured(NAME, of("memory"), after.resident_kib as f64 * 1.024 / 1_000.0, "MB")
            .at_most(1_000.0)
            .how("VmRSS, at rest"),
        Line::measured(NAME, of("most memory"), after.peak_kib as f64 * 1.024 / 1_000.0, "MB").how("VmHWM"),
        Line::measured(NAME, of("until it answers"), answers.as_secs_f64(), "s").at_most(10.0),
        Line::measured(NAME, of("until all are seen on the ledger"), seen.as_secs_f64(), "s").at_most(10.0),
        Line::measured(NAME, of("processor time of a milestone"), ms, "ms").how(format!(
            "{milestones} milestones that touch none of them, with all else that the daemon does"
        )),
        Line::measured(NAME, of("written for a milestone"), written, "kB").how("write_bytes of /proc/PID/io"),
    ])
}

/// Whether the thread still runs that reads all records once after the start.
fn is_reading(pid: u32) -> Done<bool> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_err(Failure::new)?;
    let name = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
    Ok(threads.filter_map(Result::ok).any(|thread| name(thread).trim_end() == "flash-check"))
}

fn milestone(metrics: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix("flash_milestone_index "));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// The engine hears of a milestone only once all channels are proven.
fn sees_ledger(metrics: &str) -> bool {
    milestone(metrics) > 0
}
