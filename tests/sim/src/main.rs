//! Runs the simulator over many seeds: see `flash_sim::command`.

use std::process::ExitCode;

fn main() -> ExitCode {
    flash_sim::command::main()
}
