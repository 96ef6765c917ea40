//! How many blocks clients may submit: each by its key, and all of one host together.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use flash_proto::{NetworkParams, PublicKey};
use quinn::Connection;

use super::{Budgets, RateRule, weight, work_bits};
use crate::{
    protocol::{Refused, RefusedCode},
    quic::peer_key,
};

/// Blocks that milestones confirm in one interval, of which the rules give shares.
const BLOCKS: usize = 7_000;
/// A client's part of them, and what it may send at once.
const CLIENT: (u64, u64) = (16, 512);
/// The same of a client on this host: the operator's own, as a daemon that opens thousands of channels. No rule bounds this
/// host as a whole, so that a smaller part would keep out nobody who makes more keys.
const OWN_CLIENT: (u64, u64) = (2, 2_048);
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
        Self { key: peer_key(connection), ..Self::at(connection.remote_address().ip()) }
    }

    /// Somebody without a key.
    pub(in crate::node) fn at(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        let network = match ip {
            // One host has a whole network of these.
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
            IpAddr::V4(_) => ip,
        };
        let host = (!ip.is_loopback()).then_some(network);
        Self { key: None, host }
    }
}

/// What clients have used.
#[derive(Debug)]
pub(in crate::node) struct ClientRates {
    pow_bits: u8,
    started: Instant,
    used: Mutex<Used>,
}

#[derive(Debug)]
struct Used {
    own_clients: Budgets<PublicKey>,
    clients: Budgets<PublicKey>,
    hosts: Budgets<IpAddr>,
}

impl Used {
    fn by_key(&mut self, who: Who) -> &mut Budgets<PublicKey> {
        if who.host.is_none() { &mut self.own_clients } else { &mut self.clients }
    }
}

impl ClientRates {
    pub(in crate::node) fn new(params: &NetworkParams) -> Self {
        let interval = Duration::from_millis(params.milestone_interval_ms);
        let budgets = |(share, burst)| RateRule::share(BLOCKS, share, burst, interval);
        let used = Used {
            own_clients: Budgets::new(budgets(OWN_CLIENT), SENDERS_MAX),
            clients: Budgets::new(budgets(CLIENT), SENDERS_MAX),
            hosts: Budgets::new(budgets(HOST), SENDERS_MAX),
        };
        Self { pow_bits: params.pow_bits, started: Instant::now(), used: Mutex::new(used) }
    }

    /// Counts a block.
    ///
    /// # Errors
    /// [`RefusedCode::MoreWork`] if it needs more work.
    pub(in crate::node) fn admit(&self, who: Who, block: &[u8]) -> Result<(), Refused> {
        let now = self.started.elapsed();
        let lock = || self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = {
            let mut used = lock();
            let by_key = who.key.map_or(0, |key| used.by_key(who).extra_bits(key, now));
            by_key.max(who.host.map_or(0, |host| used.hosts.extra_bits(host, now)))
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
        let blocks = weight(block);
        let mut used = lock();
        if let Some(key) = who.key {
            used.by_key(who).spend(key, now, extra, blocks);
        }
        if let Some(host) = who.host {
            used.hosts.spend(host, now, extra, blocks);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::support::params;

    #[test]
    fn one_host_that_floods_keeps_no_other_out() {
        // So that nothing drains in the time of this test.
        let params = NetworkParams { milestone_interval_ms: 24 * 3_600_000, ..params() };
        let rates = ClientRates::new(&params);
        let at = |host: &str| Who::at(host.parse().unwrap());
        let block = [0; 64]; // with next to no work
        for _ in 0..HOST.1 {
            rates.admit(at("192.0.2.7"), &block).unwrap();
        }
        let more = rates.admit(at("192.0.2.7"), &block).unwrap_err();
        assert_eq!(more.code, RefusedCode::MoreWork { bits: params.pow_bits + 1 });
        for other in ["192.0.2.8", "127.0.0.1", "::1", "::ffff:127.0.0.1", "2001:db8::7"] {
            rates.admit(at(other), &block).unwrap();
        }
    }

    #[test]
    fn a_client_of_this_host_may_send_more_but_not_everything() {
        let params = NetworkParams { milestone_interval_ms: 24 * 3_600_000, ..params() };
        let rates = ClientRates::new(&params);
        let key = flash_proto::SecretKey::from_bytes([7; 32]).public();
        let at = |host: &str| Who { key: Some(key), ..Who::at(host.parse().unwrap()) };
        for (host, burst) in [("192.0.2.7", CLIENT.1), ("127.0.0.1", OWN_CLIENT.1)] {
            for _ in 0..burst {
                rates.admit(at(host), &[0; 64]).unwrap();
            }
            let more = rates.admit(at(host), &[0; 64]).unwrap_err();
            assert_eq!(more.code, RefusedCode::MoreWork { bits: params.pow_bits + 1 }, "{host}");
        }
    }

    #[test]
    fn a_network_of_one_host_is_one_sender() {
        let host = |text: &str| Who::at(text.parse().unwrap()).host;
        assert_eq!(host("2001:db8:0:1::7"), host("2001:db8:0:1:ffff::9"));
        assert_ne!(host("2001:db8:0:1::7"), host("2001:db8:0:2::7"));
        assert_eq!(host("::ffff:192.0.2.7"), host("192.0.2.7"));
    }
}
