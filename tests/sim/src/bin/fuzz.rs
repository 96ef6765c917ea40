//! A fuzzer without instrumentation: see `flash_sim::driver`.

use std::process::ExitCode;

fn main() -> ExitCode {
    flash_sim::driver::main()
}
