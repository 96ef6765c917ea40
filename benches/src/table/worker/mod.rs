//! This program as a process that is measured: a daemon that pays by the library's calls, or the end of a plain link.
//!
//! The daemon takes its loads over a socket in its directory, a line of JSON each, and answers with a line.

mod echo;
mod load;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

pub(crate) use echo::{echo, key as echo_key};
use flashd::{daemon::Daemon, failure::Failure, flashd_cli};
pub(crate) use load::{Load, Paid, microseconds};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinSet,
};

use super::Done;

/// The role of a daemon: `embedded SOCKET`, and the arguments of `flashd`.
pub(crate) const EMBEDDED: &str = "embedded";
/// The role of the other end of a plain link.
pub(crate) const ECHO: &str = "echo";

/// Pause before a socket that is not there yet is looked for again.
const POLL: Duration = Duration::from_millis(20);
/// So long it may take to come.
const APPEAR_MAX: Duration = Duration::from_secs(60);

/// Runs a daemon that takes loads.
pub(crate) fn embedded(mut arguments: Vec<OsString>) -> ExitCode {
    if arguments.is_empty() {
        eprintln!("error: no socket");
        return ExitCode::FAILURE;
    }
    let socket = PathBuf::from(std::mem::replace(&mut arguments[0], "flashd".into()));
    flashd_cli::main_with(arguments, |daemon| async move {
        if let Err(error) = serve(&daemon, &socket).await {
            eprintln!("error: no load can be taken: {error}");
            daemon.shutdown();
        }
    })
}

async fn serve(daemon: &Daemon, socket: &Path) -> std::io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    // They end with the daemon, which waits until nobody has a handle to it.
    let mut answering = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let daemon = daemon.clone();
        answering.spawn(async move {
            if let Err(error) = answer(&daemon, stream).await {
                eprintln!("error: {error}");
            }
        });
    }
}

async fn answer(daemon: &Daemon, stream: UnixStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        let load: Load = serde_json::from_str(&line)?;
        let paid: Result<Paid, String> = load.make(daemon).await.map_err(|error| error.to_string());
        let mut text = serde_json::to_vec(&paid)?;
        text.push(b'\n');
        stream.write_all(&text).await?;
        line.clear();
    }
    Ok(())
}

/// Hands loads to an embedded daemon, one at a time.
pub(crate) struct Loader(BufReader<UnixStream>);

impl Loader {
    pub(crate) async fn connect(socket: &Path) -> Done<Self> {
        let connected = tokio::time::timeout(APPEAR_MAX, async {
            loop {
                match UnixStream::connect(socket).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(POLL).await,
                }
            }
        });
        let stream = connected.await.map_err(|_| Failure::new("the embedded daemon takes no load"))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Returns once all that was paid is acknowledged.
    pub(crate) async fn take(&mut self, load: &Load) -> Done<Paid> {
        let mut line = serde_json::to_string(load).map_err(Failure::new)?;
        line.push('\n');
        self.0.write_all(line.as_bytes()).await.map_err(Failure::new)?;
        line.clear();
        self.0.read_line(&mut line).await.map_err(Failure::new)?;
        let paid: Result<Paid, String> = serde_json::from_str(&line)
            .map_err(|error| Failure::new(format!("the embedded daemon has ended: {error}")))?;
        paid.map_err(Failure::new)
    }
}
