//! The Flash daemon.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Messages, records and views are made by one thread and freed by another, which glibc's allocator does at a seventh of
/// a daemon's time (`docs/performance.md`).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    flashd::flashd_cli::main(std::env::args_os())
}
