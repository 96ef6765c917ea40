//! What stores cost under the work of a channel: each workload on each store in a process of its own, beside a plain
//! append with `fdatasync`, which nothing that keeps its word can beat.
//!
//! `cargo bench -p flash-benches --bench store`; names of stores or workloads after `--` pick those. The directory is
//! below `TMPDIR`. Without `--bench` everything is done on a small scale only, to see that it works.

mod candidates;
mod usage;
mod workloads;

use std::{env, path::Path, process::Command};

use candidates::NAMES;
use workloads::WORKLOADS;

/// In the environment of the process that does one workload on one store.
const ONE: &str = "FLASH_BENCH_STORE";
/// The directory of a store that is there already.
const PATH: &str = "FLASH_BENCH_STORE_PATH";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    let short = given("--test") || !given("--bench");
    if let Ok(one) = env::var(ONE) {
        let (workload, store) = one.split_once(' ').expect("a workload and a store");
        return match env::var_os(PATH) {
            Some(path) => workloads::reopen(store, Path::new(&path)),
            None => workloads::run(workload, store, short),
        };
    }
    let picked = |name: &str, of: &[&str]| given(name) || !of.iter().any(|name| given(name));
    for (workload, explained) in WORKLOADS {
        if !picked(workload, &WORKLOADS.map(|(name, _)| name)) {
            continue;
        }
        println!("{workload}: {explained}");
        for store in NAMES.into_iter().filter(|name| picked(name, &NAMES)) {
            if workload == "million" && store == "sled" && !given("sled") {
                println!(
                    "  sled       takes 11 GB of memory and ten minutes, and is left out unless it is named"
                );
                continue;
            }
            let mut one = one_of(&format!("{workload} {store}"));
            run(one.args(if short { ["--test"] } else { ["--bench"] }));
        }
    }
}

fn one_of(one: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.env(ONE, one);
    command
}

fn run(command: &mut Command) {
    assert!(command.status().expect("it runs").success(), "{command:?} failed");
}

/// Has another process open the store that is in `path`.
fn again(one: &str, path: &Path) {
    run(one_of(one).env(PATH, path));
}
