//! The simulator with signatures that cost next to nothing: see `flash_sim::command`.

use std::process::ExitCode;

fn main() -> ExitCode {
    flash_sim::command::main()
}
