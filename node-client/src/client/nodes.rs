//! The nodes: what is known of each, which one to ask, and what they were caught at.

use std::{
    cmp::Reverse,
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

use flash_proto::PublicKey;
use quinn::Connection;

use super::link::Link;
use crate::{light::PROOF_AGE_MAX, quic::PeerAddress};

/// Faults that are remembered; the oldest go first.
pub const FAULTS_MAX: usize = 64;
/// A node that is so many milestones behind the others withholds or delays them: its proofs no longer count.
pub const BEHIND_MAX: u64 = PROOF_AGE_MAX;
/// For how long a node that lied is avoided, as long as there are others.
const LIAR_AVOIDED_FOR: Duration = Duration::from_secs(600);
/// The same of a node that was only late or silent.
const LATE_AVOIDED_FOR: Duration = Duration::from_secs(60);

/// What kind of fault a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// It said what is not so, or answered what was not asked.
    Lies,
    /// It holds milestones back.
    Withholds,
    /// It does not answer.
    Stalls,
}

/// What a node was caught at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFault {
    /// The node.
    pub node: PeerAddress,
    /// What kind of fault.
    pub kind: FaultKind,
    /// What it was, in words.
    pub what: String,
    /// When it was first caught at it.
    pub since: SystemTime,
}

/// How a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// There is no connection to it.
    Away,
    /// It is followed and has the newest milestone or the one before.
    Following,
    /// It is followed and has not sent the newest milestones yet.
    Behind,
    /// It was caught at something and is avoided for a while.
    Avoided(FaultKind),
}

/// A node and how it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node.
    pub node: PeerAddress,
    /// How it does.
    pub state: NodeState,
    /// What it was caught at last.
    pub fault: Option<NodeFault>,
}

/// Everything about one configured node.
#[derive(Debug)]
struct Entry {
    address: PeerAddress,
    /// A follower has it.
    claimed: bool,
    /// When a follower took it last.
    tried: Option<Instant>,
    connection: Option<Connection>,
    /// The newest milestone that it has: what it was asked to go on from until it has sent one.
    tip: u64,
    /// Whether it has sent a milestone on this connection.
    heard: bool,
    avoided: Option<(Instant, FaultKind)>,
}

/// All configured nodes, the preferred one first, and what they were caught at.
#[derive(Debug)]
pub(super) struct Nodes {
    entries: Vec<Entry>,
    faults: VecDeque<NodeFault>,
    /// All that were ever found.
    faults_count: u64,
}

impl Entry {
    fn avoided(&self) -> Option<(Instant, FaultKind)> {
        self.avoided.filter(|(until, _)| *until > Instant::now())
    }

    fn usable(&self) -> Option<&Connection> {
        self.connection.as_ref().filter(|connection| connection.close_reason().is_none())
    }

    fn link(&self) -> Option<Link> {
        let Self { address, tip, heard, .. } = self;
        let connection = self.usable()?.clone();
        Some(Link { connection, node: address.clone(), tip: *tip, heard: *heard })
    }
}

impl Nodes {
    pub(super) fn new(addresses: Vec<PeerAddress>) -> Self {
        let entry = |address| Entry {
            address,
            claimed: false,
            tried: None,
            connection: None,
            tip: 0,
            heard: false,
            avoided: None,
        };
        let entries = addresses.into_iter().map(entry).collect();
        Self { entries, faults: VecDeque::new(), faults_count: 0 }
    }

    fn entry(&mut self, key: &PublicKey) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.address.key == *key)
    }

    /// The newest milestone that any node has sent.
    fn newest(&self) -> u64 {
        self.entries.iter().map(|entry| entry.tip).max().unwrap_or(0)
    }

    /// A node for a follower without one: the one that was not tried for the longest time. One that is
    /// avoided is only taken while there is no link to any.
    pub(super) fn claim(&mut self) -> Option<PeerAddress> {
        let connected = self.entries.iter().any(|entry| entry.usable().is_some());
        let free = self.entries.iter_mut().filter(|entry| !entry.claimed);
        let entry = free
            .filter(|entry| !connected || entry.avoided().is_none())
            .min_by_key(|entry| (entry.avoided().map(|(until, _)| until), entry.tried))?;
        entry.claimed = true;
        entry.tried = Some(Instant::now());
        Some(entry.address.clone())
    }

    /// There is a link to a claimed node, which is asked for the milestones after `tip`.
    pub(super) fn connected(&mut self, key: &PublicKey, connection: Connection, tip: u64) {
        if let Some(entry) = self.entry(key) {
            (entry.connection, entry.tip, entry.heard) = (Some(connection), tip, false);
        }
    }

    /// The node has sent a milestone that was verified.
    pub(super) fn heard(&mut self, key: &PublicKey, index: u64) {
        if let Some(entry) = self.entry(key) {
            (entry.tip, entry.heard) = (index, true);
        }
    }

    /// The node says where it is, below what it was believed to be.
    pub(super) fn lower(&mut self, key: &PublicKey, index: u64) {
        if let Some(entry) = self.entry(key) {
            entry.tip = entry.tip.min(index);
        }
    }

    /// The follower has left the node; whether it was of use.
    pub(super) fn release(&mut self, key: &PublicKey) -> bool {
        let Some(entry) = self.entry(key) else { return false };
        let useful = entry.heard && entry.avoided().is_none();
        (entry.claimed, entry.connection, entry.tip, entry.heard) = (false, None, 0, false);
        useful
    }

    /// Writes down what a node was caught at, and avoids it for a while.
    pub(super) fn caught(&mut self, fault: NodeFault) {
        let time = if fault.kind == FaultKind::Lies { LIAR_AVOIDED_FOR } else { LATE_AVOIDED_FOR };
        if let Some(entry) = self.entry(&fault.node.key) {
            entry.avoided = Instant::now().checked_add(time).map(|until| (until, fault.kind));
        }
        self.faults_count = self.faults_count.saturating_add(1);
        if self.faults.iter().any(|known| known.node == fault.node && known.what == fault.what) {
            return;
        }
        if self.faults.len() >= FAULTS_MAX {
            self.faults.pop_front();
        }
        self.faults.push_back(fault);
    }

    /// The links that may be asked what needs milestone `least`, but not those in `tried`, the best first.
    pub(super) fn links(&self, least: u64, tried: &[PublicKey]) -> Vec<Link> {
        let newest = self.newest();
        let mut found: Vec<(_, Link)> = self
            .entries
            .iter()
            .filter(|entry| entry.tip >= least && !tried.contains(&entry.address.key))
            .filter_map(|entry| {
                let rank = (entry.avoided().is_some(), Reverse(entry.tip.min(newest)), !entry.heard);
                Some((rank, entry.link()?))
            })
            .collect();
        // Stable: of equals the preferred one stays first.
        found.sort_by_key(|(rank, _)| *rank);
        found.into_iter().map(|(_, link)| link).collect()
    }

    /// Whether all nodes that are not avoided are among these, so that there is none left to wait for.
    pub(super) fn exhausted(&self, tried: &[PublicKey]) -> bool {
        let left = |entry: &Entry| !tried.contains(&entry.address.key);
        !self.entries.iter().any(|entry| left(entry) && (tried.is_empty() || entry.avoided().is_none()))
    }

    /// Whether a node with a link is too far behind the others.
    pub(super) fn lags(&self, key: &PublicKey) -> Option<u64> {
        let entry = self.entries.iter().find(|entry| entry.address.key == *key)?;
        let behind = self.newest().saturating_sub(entry.tip);
        (behind > BEHIND_MAX).then_some(behind)
    }

    /// How each node does, when the newest milestone is `newest`.
    pub(super) fn status(&self, newest: u64) -> Vec<NodeStatus> {
        let state = |entry: &Entry| match (entry.avoided(), entry.usable()) {
            (Some((_, kind)), _) => NodeState::Avoided(kind),
            (None, None) => NodeState::Away,
            (None, Some(_)) if entry.tip.saturating_add(1) < newest => NodeState::Behind,
            (None, Some(_)) => NodeState::Following,
        };
        let fault = |entry: &Entry| self.faults.iter().rfind(|fault| fault.node == entry.address).cloned();
        self.entries
            .iter()
            .map(|entry| NodeStatus { node: entry.address.clone(), state: state(entry), fault: fault(entry) })
            .collect()
    }

    pub(super) fn faults(&self) -> Vec<NodeFault> {
        self.faults.iter().cloned().collect()
    }

    pub(super) const fn faults_count(&self) -> u64 {
        self.faults_count
    }
}
