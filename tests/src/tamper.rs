//! System calls of a running process that fail, take long or kill it, by `strace`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Process, poll};

/// System calls of a process that are tampered with, until this is dropped.
#[derive(Debug)]
pub struct Tampering {
    _strace: Process,
    trace: PathBuf,
}

/// Why nothing can be tampered with here, if so. With `FLASH_REQUIRE_STRACE` set that fails the test.
pub fn strace_missing() -> Option<String> {
    let ran = Command::new("strace").args(["-qq", "-e", "trace=none", "true"]).output();
    let why = match ran {
        Ok(output) if output.status.success() => return None,
        Ok(output) => format!("strace cannot trace: {}", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => format!("strace cannot be run ({error}); install it, e.g. apt-get install strace"),
    };
    assert!(std::env::var_os("FLASH_REQUIRE_STRACE").is_none(), "{why}");
    Some(why)
}

impl Tampering {
    /// Tampers with `calls` of all threads of a process, as `strace --inject` understands `how`:
    /// `error=EIO:when=1`, `delay_enter=100000`, `signal=KILL:when=2`. Returns once it is in force. Its notes
    /// go into a file beside `beside`.
    pub async fn with(process: &Process, calls: &str, how: &str, beside: &Path) -> Self {
        let trace = beside.with_extension("calls");
        let said = beside.with_extension("strace");
        for old in [&trace, &said] {
            // Mostly there is none.
            let _ = fs::remove_file(old);
        }
        let mut command = Command::new("strace");
        command.args(["-f", "-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{how}"), "-o"]);
        command.arg(&trace).args(["-p", &process.pid().to_string()]);
        let strace = Process::start(command, &said);
        poll("strace to be attached", || {
            std::future::ready(
                fs::read_to_string(&said).ok().filter(|said| said.contains("attached")).map(drop),
            )
        })
        .await;
        Self { _strace: strace, trace }
    }

    /// The calls so far, a line each.
    pub fn calls(&self) -> Vec<String> {
        let trace = fs::read_to_string(&self.trace).unwrap_or_default();
        trace.lines().map(str::to_owned).collect()
    }
}
