//! Do the simulations bite? See `flash_sim::sabotage`.

use std::process::ExitCode;

fn main() -> ExitCode {
    flash_sim::sabotage::main()
}
