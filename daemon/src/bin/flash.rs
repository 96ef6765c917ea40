//! The command line of Flash.

use std::process::ExitCode;

use clap::Parser;
use flashd::{
    cli::{self, Cli},
    core_files,
    exit::Exit,
    flashd_cli,
};
use mimalloc::MiMalloc;

/// As in `flashd`, which this is, too.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // `flash flashd …` is `flashd …`: with the one file that `cargo run` builds, the demo can start its
    // daemons too.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "flashd") {
        return flashd_cli::main(std::env::args_os().skip(1));
    }
    // `flash init` makes and shows a seed.
    core_files::forbid();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return Exit::Failed.into();
        }
    };
    let exit = runtime.block_on(cli::run(cli));
    // A thread that still reads standard input must not keep the process.
    runtime.shutdown_background();
    exit.into()
}
