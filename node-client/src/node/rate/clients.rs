//! How many blocks clients may submit: each by its key, and all of one host together.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use flash_proto::{NetworkParams, PublicKey};
use quinn::Connection;

use super::{Budgets, RateRule, work_bits};
use crate::{
    protocol::{Refused, RefusedCode},
    quic::peer_key,
};

/// Blocks that milestones confirm in one interval, of which the rules give shares.
const BLOCKS: usize = 7_000;
/// A client's part of them, and what it may send at once.
const CLIENT: (u64, u64) = (16, 512);
/// The part of all clients of one host, and what they may send at once.
const HOST: (u64, u64) = (4, 2_048);
/// Clients and hosts that are remembered.
const SENDERS_MAX: usize = 4_096;

/// Who submits.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct Who {
    key: Option<PublicKey>,
    /// The host; nothing for this one, where only the operator's own clients run.
    host: Option<IpAddr>,
}

impl Who {
    pub(in crate::node) fn of(connection: &Connection) -> Self {
        let ip = connection.remote_address().ip().to_canonical();
        let host = match ip {
            ip if ip.is_loopback() => None,
            // One host has a whole network of these.
            IpAddr::V6(ip) => Some(IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64))),
            IpAddr::V4(_) => Some(ip),
        };
        Self { key: peer_key(connection), host }
    }
}

/// What clients have used.
#[derive(Debug)]
pub(in crate::node) struct ClientRates {
    pow_bits: u8,
    started: Instant,
    used: Mutex<(Budgets<PublicKey>, Budgets<IpAddr>)>,
}

impl ClientRates {
    pub(in crate::node) fn new(params: &NetworkParams) -> Self {
        let interval = Duration::from_millis(params.milestone_interval_ms);
        let budgets = |(share, burst)| RateRule::share(BLOCKS, share, burst, interval);
        let clients = Budgets::new(budgets(CLIENT), SENDERS_MAX);
        let hosts = Budgets::new(budgets(HOST), SENDERS_MAX);
        Self { pow_bits: params.pow_bits, started: Instant::now(), used: Mutex::new((clients, hosts)) }
    }

    /// Counts a block.
    ///
    /// # Errors
    /// [`RefusedCode::MoreWork`] if it needs more work.
    pub(in crate::node) fn admit(&self, who: Who, block: &[u8]) -> Result<(), Refused> {
        let now = self.started.elapsed();
        let lock = || self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = {
            let (clients, hosts) = &mut *lock();
            let by_key = who.key.map_or(0, |key| clients.extra_bits(key, now));
            by_key.max(who.host.map_or(0, |host| hosts.extra_bits(host, now)))
        };
        // Counted only where it matters, and not under the lock.
        let extra = if wanted == 0 { 0 } else { work_bits(block).saturating_sub(self.pow_bits) };
        if extra < wanted {
            let bits = self.pow_bits.saturating_add(wanted);
            let reason = format!(
                "so many blocks came from there that each now needs {bits} bits of work; do more, or wait"
            );
            return Err(Refused::new(RefusedCode::MoreWork { bits }, &reason));
        }
        let (clients, hosts) = &mut *lock();
        if let Some(key) = who.key {
            clients.spend(key, now, extra);
        }
        if let Some(host) = who.host {
            hosts.spend(host, now, extra);
        }
        Ok(())
    }
}
