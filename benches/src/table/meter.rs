//! What processes take while something is done.

use flashd::{bench::footprint::usage::Usage, client::Client, failure::Failure, local::LocalDaemon};

use super::{Done, line::Cpu};

/// Bytes that IPv4 and UDP put before each datagram.
const HEADERS_BYTES: u64 = 28;

/// A process that is watched.
struct Watched {
    name: &'static str,
    pid: u32,
    client: Option<Client>,
    before: Usage,
}

/// Watches processes from its start to its end.
pub(crate) struct Meter {
    watched: Vec<Watched>,
}

/// What was taken meanwhile.
pub(crate) struct Spent {
    processes: Vec<Taken>,
}

/// What one process took.
struct Taken {
    name: &'static str,
    before: Usage,
    after: Usage,
}

impl Meter {
    /// Watches these daemons, their node, and this process if it makes the load.
    pub(crate) async fn start(
        daemons: &[(&'static str, &LocalDaemon)],
        node: Option<u32>,
        load: bool,
    ) -> Done<Self> {
        let mut watched = Vec::new();
        for (name, daemon) in daemons {
            let pid = daemon.pid().ok_or_else(|| Failure::new(format!("the {name} has ended")))?;
            let client = Some(daemon.client.clone());
            watched.push(Watched { name, pid, client, before: Usage::default() });
        }
        let load = load.then(std::process::id);
        for (name, pid) in [("node", node), ("load", load)] {
            let Some(pid) = pid else { continue };
            watched.push(Watched { name, pid, client: None, before: Usage::default() });
        }
        for it in &mut watched {
            it.before = Usage::read(it.pid, it.client.as_ref()).await?;
        }
        Ok(Self { watched })
    }

    /// What was taken since the start.
    pub(crate) async fn stop(self) -> Done<Spent> {
        let mut processes = Vec::new();
        for Watched { name, pid, client, before } in self.watched {
            let after = Usage::read(pid, client.as_ref()).await?;
            processes.push(Taken { name, before, after });
        }
        Ok(Spent { processes })
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers to be looked at; no money")]
impl Spent {
    fn sum(&self, of: impl Fn(&Usage) -> u64) -> u64 {
        let taken = self.processes.iter().map(|it| of(&it.after).saturating_sub(of(&it.before)));
        taken.fold(0, u64::saturating_add)
    }

    /// Processor time for each of `count` things.
    pub(crate) fn cpu(&self, count: u64) -> Vec<Cpu> {
        let each = |it: &Taken| {
            let ms = it.after.cpu_ms.saturating_sub(it.before.cpu_ms);
            let us_each = ms as f64 * 1_000.0 / count.max(1) as f64;
            Cpu { process: it.name, seconds: ms as f64 / 1_000.0, us_each }
        };
        self.processes.iter().map(each).collect()
    }

    /// Bytes on the wire, both ways, for each of `count` things, with the headers of IP and UDP.
    pub(crate) fn wire_bytes(&self, count: u64) -> f64 {
        let headers = self.sum(|it| it.udp_datagrams).saturating_mul(HEADERS_BYTES);
        self.sum(|it| it.udp_bytes).saturating_add(headers) as f64 / count.max(1) as f64
    }

    /// Bytes on their way to the disk, of all processes, for each of `count` things.
    pub(crate) fn disk_bytes(&self, count: u64) -> f64 {
        self.sum(|it| it.written_bytes) as f64 / count.max(1) as f64
    }
}
