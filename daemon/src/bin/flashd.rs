//! The Flash daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    flashd::flashd_cli::main(std::env::args_os())
}
