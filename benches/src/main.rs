//! `just bench`: every figure of `docs/performance.md` on this machine, with what it is to be compared with.
//!
//! What is measured runs as a user runs it: a node and two daemons, each a process of its own, over QUIC on
//! loopback, with every sync of the disk. All sums are checked to the unit; a figure of a run that lost a payment is
//! worth nothing.
//!
//! | part | what it holds |
//! | --- | --- |
//! | `table/` | the rows, what they share, and how they are printed |
//! | `table/rows/` | one file for each family of rows |
//! | `table/baselines/` | what the rows are compared with, measured in the same run |
//! | `table/worker/` | this program as a daemon that pays by the library's calls, and as the end of a plain QUIC link |

mod table;

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// What `flashd` has, since this is a daemon, too.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    let role = arguments.get(1).and_then(|argument| argument.to_str()).unwrap_or_default();
    match role {
        table::worker::EMBEDDED => return table::worker::embedded(arguments.split_off(2)),
        table::worker::ECHO => return table::worker::echo(),
        // `just bench -- --row single` hands it on.
        "--" => drop(arguments.remove(1)),
        _ => {}
    }
    table::main(arguments)
}
