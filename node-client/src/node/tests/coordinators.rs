//! Coordinators on nodes of their own, joined by channels that give all to all.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use flash_channel::store::MemoryStore;
use flash_proto::{
    CoordinatorHistory, CoordinatorSet, Hash, MilestoneEssence, MilestoneId, NetworkParams, SecretKey, codec,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::support::*;
use crate::{
    coordinator::{Body, CoordinatorMessage, MESSAGE_BYTES_MAX, SignedMessage, Timing},
    gossip::{Relay, Verdict},
    ledger::tests::support::*,
    node::{CoordinatorConfig, Floodgate, Handover, Node, NodeError, Source, run_coordinator},
    protocol::TransactionAnswer,
};

const TIMING: Timing = Timing { interval_ms: 20, timeout_ms: 200, repeat_ms: 40 };

/// A node with its coordinator.
struct Member {
    node: Node,
    store: MemoryStore,
    stop: watch::Sender<bool>,
    running: JoinHandle<Result<(), NodeError>>,
}

/// Gives every block and message of one to all others.
struct Group {
    members: Vec<Option<Member>>,
    /// From which place to which blocks are carried.
    carriers: Vec<(usize, usize, JoinHandle<()>)>,
    wires: watch::Sender<Vec<Option<Arc<Floodgate>>>>,
}

async fn until(node: &Node, index: u64) {
    let mut newest = node.newest();
    let reached = newest.wait_for(|newest| *newest >= index);
    tokio::time::timeout(Duration::from_secs(30), reached).await.expect("milestones go on").unwrap();
}

impl Group {
    fn start(keys: &[SecretKey], handover: Option<&Handover>) -> Self {
        let mut group = Self { members: Vec::new(), carriers: Vec::new(), wires: watch::Sender::new(vec![]) };
        for key in keys {
            group.join(group.members.len(), key, MemoryStore::new(), handover);
        }
        group
    }

    /// Starts a member at a place, old or new.
    fn join(&mut self, place: usize, key: &SecretKey, store: MemoryStore, handover: Option<&Handover>) {
        let node = node_on(&store);
        let (gate, hearing) = Floodgate::new(node.clone());
        let (stop, _) = watch::channel(false);
        let wires = self.wires.subscribe();
        let send = move |bytes: Vec<u8>| {
            let all = wires.borrow();
            for (_, gate) in all.iter().enumerate().filter(|(other, _)| *other != place) {
                gate.as_ref().map(|gate| gate.judge(&bytes));
            }
        };
        let config = CoordinatorConfig { key: key.clone(), timing: TIMING, handover: handover.cloned() };
        let mut stopped = stop.subscribe();
        let stopping = async move { drop(stopped.wait_for(|stop| *stop).await) };
        let running =
            tokio::spawn(run_coordinator(node.clone(), config, Arc::clone(&gate), hearing, send, stopping));
        self.wires.send_modify(|wires| {
            wires.resize(wires.len().max(place + 1), None);
            wires[place] = Some(Arc::clone(&gate));
        });
        self.carry_blocks(place, &node);
        let member = Member { node, store, stop, running };
        if place == self.members.len() {
            self.members.push(Some(member));
        } else {
            self.members[place] = Some(member);
        }
    }

    /// Takes what the new node has to those that are here, and theirs to it.
    fn carry_blocks(&mut self, place: usize, node: &Node) {
        for (other, member) in self.members.iter().enumerate() {
            let Some(member) = member else { continue };
            self.carriers.push((other, place, carry(&member.node, node)));
            self.carriers.push((place, other, carry(node, &member.node)));
        }
    }

    async fn stop(&mut self, place: usize) -> MemoryStore {
        let member = self.members[place].take().unwrap();
        member.stop.send_replace(true);
        self.wires.send_modify(|wires| wires[place] = None);
        member.running.await.unwrap().unwrap();
        let ours = |(from, to, _): &mut (usize, usize, JoinHandle<()>)| *from == place || *to == place;
        for (.., carrier) in self.carriers.extract_if(.., ours).collect::<Vec<_>>() {
            carrier.abort();
            // Aborted, or ended with the node.
            let _ = carrier.await;
        }
        member.store
    }

    fn node(&self, place: usize) -> &Node {
        &self.members[place].as_ref().unwrap().node
    }
}

/// Carries every block, also the old ones, until one of the nodes is gone.
fn carry(from: &Node, to: &Node) -> JoinHandle<()> {
    let (mut arrivals, from, to) = (from.arrivals(), from.clone(), to.clone());
    tokio::spawn(async move {
        let catch_up = |from: &Node, to: &Node| {
            let behind = *to.newest().borrow();
            for index in behind + 1..=*from.newest().borrow() {
                if let Ok(Some(page)) = from.cone(index, 0, 10_000) {
                    let _ = to.receive(&page.blocks, Source::Asked);
                }
            }
        };
        catch_up(&from, &to);
        while let Ok(arrival) = arrivals.recv().await {
            let _ = to.receive(std::slice::from_ref(&arrival.bytes), Source::Sent);
            catch_up(&from, &to);
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_go_on_and_the_third_comes_back() {
    let keys = coordinators();
    let mut group = Group::start(&keys, None);
    let params = params();
    let pay = transfer(&params, &[genesis_coin(&params, 1)], vec![output(4, 300_000), output(1, 700_000)]);
    submit(group.node(1), &pay);
    for place in 0..3 {
        until(group.node(place), 5).await;
        assert!(matches!(transaction(group.node(place), &pay), TransactionAnswer::Applied { .. }));
    }
    // Each of them in turn, so also whoever leads.
    for (place, key) in keys.iter().enumerate() {
        let store = group.stop(place).await;
        let other = group.node((place + 1) % 3).clone();
        let now = *other.newest().borrow();
        until(&other, now + 5).await;
        group.join(place, key, store, None);
        until(group.node(place), now + 10).await;
    }
    let index = *group.node(0).newest().borrow();
    for place in 1..3 {
        until(group.node(place), index).await;
    }
    let history = CoordinatorHistory::new(&params);
    let chain = |node: &Node| node.followed_after(0, usize::try_from(index).unwrap()).unwrap();
    let first = chain(group.node(0));
    for followed in &first {
        history.verify(&followed.milestone).unwrap();
    }
    for place in 1..3 {
        let same = chain(group.node(place))
            .iter()
            .zip(&first)
            .all(|(one, other)| one.milestone.essence == other.milestone.essence);
        assert!(same, "all nodes have the same milestones");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_hand_over_to_others_while_they_run() {
    let old = coordinators();
    let new = key(90);
    let to = CoordinatorSet { keys: vec![new.public()], threshold: 1 };
    let handover = Handover { from: 5, to };
    let mut keys = old.clone();
    keys.push(new);
    let group = Group::start(&keys, Some(&handover));
    for place in 0..4 {
        until(group.node(place), 12).await;
    }
    let chain = group.node(0).followed_after(0, 12).unwrap();
    let mut history = CoordinatorHistory::new(&params());
    for followed in &chain {
        history.verify(&followed.milestone).unwrap();
        history.follow(&followed.milestone.essence);
        assert_eq!(followed.milestone.essence.next.is_some(), followed.milestone.essence.index == 5);
    }
    assert_eq!(history.newest(), &handover.to);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_coordinator_needs_nobody() {
    let mut params = params();
    let key = key(77);
    (params.coordinators, params.threshold) = (vec![key.public()], 1);
    let node = Node::with_store(NetworkParams::clone(&params), Box::new(MemoryStore::new())).unwrap();
    let (gate, hearing) = Floodgate::new(node.clone());
    let config = CoordinatorConfig { key, timing: TIMING, handover: None };
    let mut newest = node.newest();
    let stop = async move { drop(newest.wait_for(|index| *index >= 3).await) };
    let send = |_| panic!("there is nobody to tell");
    run_coordinator(node.clone(), config, gate, hearing, send, stop).await.unwrap();
    assert!(node.followed_after(0, 100).unwrap().len() >= 3);
}

/// The leader alone cannot make money, take the network over or run away with its clock: what it proposes is worked out
/// again by each of the others.
#[tokio::test]
async fn a_leader_gets_no_vote_for_what_does_not_follow() {
    let keys = coordinators();
    let node = node_on(&MemoryStore::new());
    let (gate, hearing) = Floodgate::new(node.clone());
    let (say, mut said) = mpsc::unbounded_channel();
    let timing = Timing { timeout_ms: 600_000, ..TIMING };
    let config = CoordinatorConfig { key: keys[1].clone(), timing, handover: None };
    let send = move |bytes| drop(say.send(bytes));
    let (stop, stopped) = oneshot::channel::<()>();
    let stopping = async move { drop(stopped.await) };
    let running =
        tokio::spawn(run_coordinator(node.clone(), config, Arc::clone(&gate), hearing, send, stopping));
    let right = node.propose(1, None).unwrap();
    let hour_ms = 3_600_000;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let later = node.propose(u64::try_from(now_ms).unwrap() + hour_ms, None).unwrap();
    let takeover = CoordinatorSet { keys: vec![keys[0].public()], threshold: 1 };
    let wrong = [
        MilestoneEssence { state_root: Hash::new([7; 32]), ..right.clone() },
        MilestoneEssence { included_root: Hash::new([7; 32]), ..right.clone() },
        node.propose(1, Some(takeover)).unwrap(),
        later,
    ];
    // Every third ballot is its own.
    for (ballot, essence) in (0..).step_by(3).zip(wrong.into_iter().chain([right.clone()])) {
        let body = Body::Propose(Box::new(essence));
        let (network, sender, sent_ms) = (params().id(), keys[0].public(), ballot + 1);
        let message = CoordinatorMessage { network, index: 1, ballot, sent_ms, sender, body };
        assert_eq!(gate.judge(&message.sign(&keys[0]).to_bytes()), Verdict::News);
    }
    let vote = async {
        loop {
            let signed =
                codec::decode::<SignedMessage, MESSAGE_BYTES_MAX>(&said.recv().await.unwrap()).unwrap();
            if let Body::Accept(id) = signed.message.body {
                break id;
            }
        }
    };
    let first = tokio::time::timeout(Duration::from_secs(30), vote).await.expect("a vote for what is right");
    assert_eq!(first, right.id(), "the first vote");
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

#[test]
fn a_coordinator_that_talks_without_end_is_passed_on_at_a_bounded_rate() {
    let keys = coordinators();
    let gate = Floodgate::new(node_on(&MemoryStore::new())).0;
    let message = |key: &SecretKey, sent_ms| {
        let body = Body::Accept(MilestoneId::new([7; 32]));
        let (network, sender) = (params().id(), key.public());
        CoordinatorMessage { network, index: 1, ballot: 0, sent_ms, sender, body }.sign(key).to_bytes()
    };
    let mut sent_ms = 0;
    let mut passed_on = |count, now| {
        let mut news = 0;
        for _ in 0..count {
            sent_ms += 1;
            news += u64::from(gate.judge_at(&message(&keys[0], sent_ms), now) == Verdict::News);
        }
        news
    };
    assert_eq!(passed_on(700, Duration::ZERO), 500);
    // A second has four repetitions on this network.
    assert_eq!(passed_on(300, Duration::from_secs(1)), 100);
    let other = message(&keys[1], 1);
    assert_eq!(gate.judge_at(&other, Duration::from_secs(1)), Verdict::News);
    // What another one signs in its name costs it nothing.
    let later = Duration::from_secs(3_600);
    let body = Body::Accept(MilestoneId::new([7; 32]));
    let (network, sender) = (params().id(), keys[1].public());
    for sent_ms in 2..1_000 {
        let forged = CoordinatorMessage { network, index: 1, ballot: 0, sent_ms, sender, body: body.clone() };
        assert_eq!(gate.judge_at(&forged.sign(&keys[2]).to_bytes(), later), Verdict::Stale);
    }
    assert_eq!(gate.judge_at(&message(&keys[1], 2), later), Verdict::News);
}
