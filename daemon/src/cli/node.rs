//! The daemon itself.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
    time::Duration,
};

use super::{Context, output::Failure, view, wait::wait};
use crate::{
    api::{ApiError, BackupInfo, ErrorCode, Info, LedgerStatus},
    rpc::Scope,
};

const STOP_WAIT: Duration = Duration::from_secs(30);
const STOP_POLL: Duration = Duration::from_millis(50);

pub(super) async fn info(context: &Context) -> Result<(), Failure> {
    let info = context.client(Scope::Read)?.info().await?;
    context.output.value(&info, view)
}

/// As plain text everywhere, so that it can stand in the next command.
pub(super) async fn ticket(context: &Context) -> Result<(), Failure> {
    let info = context.client(Scope::Read)?.info().await?;
    context.output.bytes(format!("{}\n", info.ticket).as_bytes())
}

fn view(info: &Info) -> String {
    view::details([
        ("version", Some(info.version.clone())),
        ("ticket for peers", Some(info.ticket.clone())),
        ("ticket as a watchtower", info.tower.clone()),
        ("network", Some(format!("{} ({})", info.network_name, info.network))),
        ("node", Some(info.ledger.node.clone().unwrap_or_else(|| "none is connected".to_owned()))),
        ("ledger", Some(ledger(&info.ledger))),
        ("peers", Some(info.peers_connected.to_string())),
        ("channels", Some(info.channels.to_string())),
        ("backup", info.backup.as_ref().map(backup)),
    ])
}

fn backup(backup: &BackupInfo) -> String {
    let state = match (&backup.error, backup.current) {
        (Some(error), _) => format!("NOT CURRENT: {error}"),
        (None, true) => "current".to_owned(),
        (None, false) => "being written".to_owned(),
    };
    format!("{}, of {} ({state})", backup.file, view::time(backup.written_ms))
}

/// How far the ledger is verified, in one line.
pub(super) fn ledger(ledger: &LedgerStatus) -> String {
    let state = if ledger.fresh { "fresh" } else { "too old: payments are not accepted" };
    format!("milestone {}, {} old ({state})", ledger.milestone_index, view::seconds(ledger.milestone_age_ms))
}

pub(super) async fn stop(context: &Context) -> Result<(), Failure> {
    let stopping = context.client(Scope::Admin)?.shutdown().await?;
    if context.rpc.is_none() {
        let what = "stopping the daemon";
        wait(what, "the daemon still stops", stopped(&context.data)).await?;
    }
    context.output.value(&stopping, |stopping| {
        let done = if context.rpc.is_none() { "has stopped" } else { "is stopping" };
        format!("the daemon (process {}) {done}", stopping.pid)
    })
}

/// Returns when nobody holds the data directory's lock.
async fn stopped(data: &Path) -> Result<(), ApiError> {
    let failed = |error: &io::Error| {
        let message = format!("cannot see whether the daemon has stopped: {}: {error}", data.display());
        ApiError::new(ErrorCode::DataDirUnusable, message, "see whether its process is still there")
    };
    let free = async {
        loop {
            match File::open(data.join("lock")).map(|lock| lock.try_lock()) {
                Ok(Err(TryLockError::WouldBlock)) => tokio::time::sleep(STOP_POLL).await,
                Ok(Ok(())) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Ok(Err(TryLockError::Error(error))) | Err(error) => return Err(failed(&error)),
            }
        }
    };
    tokio::time::timeout(STOP_WAIT, free).await.unwrap_or_else(|_elapsed| {
        let message = format!("the daemon has not stopped after {} s", STOP_WAIT.as_secs());
        Err(ApiError::new(ErrorCode::Timeout, message, "its log says what it waits for"))
    })
}
