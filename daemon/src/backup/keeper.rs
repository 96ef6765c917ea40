//! The thread that writes the backup. Payments never wait for it, unless the operator wants them to.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use flash_channel::store::{Batch, Store};
use flash_proto::{NetworkParams, SecretKey};

use super::{
    BackupError, Settings,
    file::{self, Content},
    mirror::Mirror,
};
use crate::{
    datadir::{DataDirError, write_atomically},
    events::now_ms,
    failure::Failure,
    tables,
};

/// Between two writes lies at least this.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// And at least so many times what the last one took.
const PAUSE_TIMES: u32 = 10;

/// How the backup stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    /// What is in the file.
    pub(crate) generation: u64,
    /// When it was written, milliseconds since 1970.
    pub(crate) written_ms: u64,
    /// Why the last write failed, if it did.
    pub(crate) error: Option<String>,
    /// What would be in a file that is written now.
    pub(crate) wanted: u64,
}

/// Keeps the file current. The writer of the store has it.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    sync: bool,
}

struct Shared {
    settings: Settings,
    network: String,
    key: SecretKey,
    state: Mutex<State>,
    changed: Condvar,
    /// Held for its lock.
    _lock: File,
}

#[derive(Default)]
struct State {
    mirror: Mirror,
    status: Status,
    ended: bool,
}

/// Takes the file for this process.
pub(super) fn lock(path: &Path) -> Result<File, BackupError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = Path::new(&name);
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(name);
    let lock = opened.map_err(DataDirError::io(name))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(BackupError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(DataDirError::io(name)(error).into()),
    }
}

impl Keeper {
    /// Writes the file once, and keeps it current from then on.
    pub(super) fn start(
        settings: Settings,
        key: SecretKey,
        params: &NetworkParams,
        store: &dyn Store,
        lock: File,
    ) -> Result<Self, Failure> {
        let network = serde_json::to_string(params).map_err(Failure::new)?;
        let state = State { mirror: Mirror::load(store)?, ..State::default() };
        let sync = settings.sync;
        let shared = Arc::new(Shared {
            settings,
            network,
            key,
            state: Mutex::new(state),
            changed: Condvar::new(),
            _lock: lock,
        });
        shared.write()?;
        let run = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("flash-backup".to_owned())
            .spawn(move || run.keep())
            .map_err(Failure::new)?;
        Ok(Self { shared, thread: Some(thread), sync })
    }

    /// Says how the backup stands, for as long as anybody asks.
    pub(crate) fn status(&self) -> impl Fn() -> Status + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || {
            let state = shared.lock();
            Status { wanted: state.mirror.generation, ..state.status.clone() }
        }
    }

    /// Numbers a commit that a backup is about.
    pub(crate) fn number(&self, batch: &mut Batch) {
        if Mirror::concerns(batch) {
            let generation = self.shared.lock().mirror.generation.saturating_add(1);
            tables::put_generation(batch, generation);
        }
    }

    /// A commit is durable. Returns once it is in the file, too, if it is to be.
    ///
    /// # Errors
    /// Why the file could not be written, if it is waited for.
    pub(crate) fn committed(&self, batch: &Batch) -> Result<(), String> {
        let mut state = self.shared.lock();
        state.mirror.commit(batch);
        if !Mirror::concerns(batch) {
            return Ok(());
        }
        let generation = state.mirror.generation.saturating_add(1);
        state.mirror.generation = generation;
        self.shared.changed.notify_all();
        if !self.sync {
            return Ok(());
        }
        state.status.error = None;
        while state.status.generation < generation {
            if let Some(error) = &state.status.error {
                return Err(error.clone());
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }
}

impl Drop for Keeper {
    /// What was committed last goes into the file before the daemon ends.
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// A panic of another thread does not make the mirror wrong: it lags behind at most.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self) {
        loop {
            {
                let waits =
                    |state: &mut State| !state.ended && state.mirror.generation <= state.status.generation;
                let state =
                    self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
                if state.mirror.generation <= state.status.generation {
                    return;
                }
            }
            let started = Instant::now();
            if let Err(error) = self.write() {
                tracing::error!(%error, "the backup cannot be written; it is tried again");
                self.lock().status.error = Some(error.to_string());
            }
            self.changed.notify_all();
            let failed = self.lock().status.error.is_some();
            if failed || !self.settings.sync {
                let pause = started.elapsed().saturating_mul(PAUSE_TIMES).max(PAUSE_MIN);
                let running = |state: &mut State| !state.ended;
                let waited = self.changed.wait_timeout_while(self.lock(), pause, running);
                let ended = waited.unwrap_or_else(PoisonError::into_inner).0.ended;
                if ended && failed {
                    return;
                }
            }
        }
    }

    fn write(&self) -> Result<(), BackupError> {
        let content = {
            let state = self.lock();
            Content {
                generation: state.mirror.generation,
                written_ms: now_ms(),
                network: self.network.clone(),
                records: state.mirror.records(),
            }
        };
        let bytes = file::seal(&content, &self.key)?;
        write_atomically(&self.settings.path, &bytes)?;
        let mut state = self.lock();
        state.status.generation = content.generation;
        state.status.written_ms = content.written_ms;
        state.status.error = None;
        Ok(())
    }
}
