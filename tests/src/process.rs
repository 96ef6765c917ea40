//! Processes that do not outlive their test.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::poll;

/// So long a process that is being started may have the locks of this one.
const LOCKED_MAX: Duration = Duration::from_secs(10);

/// Processes that run, by their ids.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Lets no process outlive a panic that ends this program without dropping anything.
pub fn kill_all_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        for pid in running().iter() {
            // What cannot be killed is gone.
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    }));
}

fn running() -> MutexGuard<'static, BTreeSet<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running binary. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// All that it wrote.
    pub output: String,
}

impl Process {
    /// Starts a command whose output goes to the end of `log`.
    pub fn start(mut command: Command, log: &Path) -> Self {
        let out = open_log(log);
        let err = out.try_clone().expect("a log can be written twice");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        running().insert(child.id());
        Self { child, log: log.to_owned() }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`; returns when it is dead.
    pub fn kill(&mut self) {
        // An error says that it is dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        running().remove(&self.pid());
    }

    /// Bytes of memory that it has now.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes * 1024
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name} {}", self.pid());
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Waits until it is ready, which `ask` finds out by its id; fails the test at once if it ends before.
    pub async fn ready<T>(&mut self, ask: impl Fn(u32) -> Option<T>) -> T {
        let (pid, log) = (self.pid(), self.log.clone());
        let what = format!("{} to tell of a process that is ready", log.display());
        poll(&what, || {
            let answer = ask(pid);
            if answer.is_none()
                && let Some(status) = self.ended()
            {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                panic!("{} tells of a process that has ended: {status}\n{said}", log.display());
            }
            std::future::ready(answer)
        })
        .await
    }

    /// Waits until it ends by itself.
    pub async fn wait(&mut self) -> Ended {
        let log = self.log.clone();
        let status = poll("a process to end", || std::future::ready(self.ended())).await;
        Ended { code: status.code(), output: std::fs::read_to_string(log).unwrap_or_default() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn open_log(path: &Path) -> File {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Copies a file or a whole directory, with its modes, to a name that is not there yet.
pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp -a {} {}", from.display(), to.display());
}

/// Runs a command to its end, which must come within a minute.
pub async fn run(mut command: Command) -> Ended {
    let done = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
    let done = tokio::time::timeout(Duration::from_secs(60), done).await;
    let output = done.expect("a command ends").expect("it can be waited for").expect("it starts");
    let text = [output.stdout, output.stderr].concat();
    Ended { code: output.status.code(), output: String::from_utf8_lossy(&text).into_owned() }
}

/// Waits until nobody has the lock of a store that was open in this program: a process that another test starts at that
/// moment has it, too, until it is another program.
pub fn wait_unlocked(store: &Path) {
    let begun = Instant::now();
    for file in ["db", "lock"].into_iter().filter_map(|name| File::open(store.join(name)).ok()) {
        while file.try_lock().is_err() {
            assert!(begun.elapsed() < LOCKED_MAX, "{} stays locked", store.display());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
