//! A whole network on this machine that everything happens to: nodes, coordinators, wallets and light daemons as
//! in real life, kills, partition, flood, liars and silent coordinators by a seed, and accounts at the end.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `weather` | what lies between the machines: loss, delay, partition |
//! | `namespaces` | a network namespace for each node, where that is possible |
//! | `machines` | the nodes' processes |
//! | `purses`, `meters` | wallets, and light daemons with a channel |
//! | `hostile` | those who flood and lie |
//! | `script` | what happens, and when |
//! | `book`, `clock` | every transfer; when each milestone came |
//! | `check`, `report` | what must hold at the end, and what is said |
//! | `throughput` | many transfers at once on a network that nothing happens to |

mod book;
mod check;
mod clock;
mod hostile;
mod machines;
mod meters;
mod namespaces;
mod purses;
mod report;
mod script;
mod throughput;
mod weather;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use flash_proto::{Amount, Output, OutputId};
use flashd::treasury;
pub use report::Report;
pub use throughput::{Load, throughput};

use self::{
    book::{Book, CALM, Entry, Outcome},
    check::Accounts,
    clock::Clock,
    hostile::{Flooded, Liar},
    machines::{Machines, Shape},
    meters::Meters,
    namespaces::Namespaces,
    purses::Purses,
    report::Latency,
    script::Scene,
    weather::Weather,
};
use crate::Random;

/// Of them three are coordinators', two of which must sign.
const NODES: usize = 8;
const COORDINATORS: usize = 3;
const WALLETS: usize = 4;
/// Outputs that each wallet has at first.
const OUTPUTS_EACH: usize = 6;
const OUTPUT: Amount = Amount::new(10_000_000);
/// Nodes that a wallet or daemon knows.
const NODES_EACH: usize = 3;
/// How long transfers that are under way at the end may take.
const DRAIN: Duration = Duration::from_secs(120);

/// Where the nodes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In a network namespace each if that is possible, or else on loopback.
    Best,
    /// In a network namespace each.
    Namespaces,
    /// On loopback.
    Loopback,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long things happen; then come the accounts.
    pub time: Duration,
    /// Between milestones.
    pub interval: Duration,
    /// How long what happens usually lasts, in milestones.
    pub stage_milestones: u32,
    /// Where the nodes run.
    pub place: Where,
}

/// A wallet's or daemon's nodes, beginning with this one.
fn some_nodes(first: usize) -> Vec<usize> {
    (0..NODES_EACH).map(|step| (first + 3 * step) % NODES).collect()
}

/// Runs the network and says how it went.
pub async fn run(plan: Plan, mut random: Random) -> Report {
    let dir = tempfile::Builder::new().prefix("flash-network-").tempdir().expect("a temporary directory");
    let namespaces = match plan.place {
        Where::Loopback => None,
        Where::Best => Namespaces::make(NODES),
        Where::Namespaces => Some(Namespaces::make(NODES).expect("namespaces: Linux, root, and iproute2")),
    };
    let host: IpAddr = namespaces.as_ref().map_or(Ipv4Addr::LOCALHOST.into(), Namespaces::host);
    let weather = Weather::new(host, random.split());
    let shape = Shape { nodes: NODES, coordinators: COORDINATORS, interval: plan.interval, pow_bits: 8 };
    let started = Instant::now();
    let machines = Machines::start(dir.path(), shape, &weather, namespaces.as_ref()).await;
    let ready = Instant::now();
    let mesh = machines.meshed(NODES - 1, ready).await;
    println!("meshed {:.1} s after the last node was ready", mesh.as_secs_f32());

    let clients: Vec<_> = (0..NODES).map(|node| machines.client(&[node])).collect();
    let clock = Clock::new(&clients, plan.interval);
    let book = Book::default();
    let wallets = (0..WALLETS).map(|wallet| machines.client(&some_nodes(2 * wallet))).collect();
    let purses = Purses::new(wallets, clients.clone(), &machines.params, &book);
    let (liar, meters) = daemons(dir.path(), &machines, &weather, host).await;
    let given = fund(&machines, &purses, &meters).await;

    let mut report = Report::default();
    report.add("nodes in namespaces", namespaces.is_some(), namespaces.is_some());
    report.add("meshed after", format!("{:.1} s", mesh.as_secs_f32()), mesh.as_secs_f32());
    let mut scene = Scene {
        machines,
        weather,
        clock: clock.clone(),
        book: book.clone(),
        meters,
        liar,
        coordinators: COORDINATORS,
        random: random.split(),
        clients: clients.clone(),
        stage_milestones: plan.stage_milestones,
        wrong: Vec::new(),
        flooded: Flooded::default(),
        played: Vec::new(),
        started,
    };
    let paying = purses.start(random.split());
    scene.meters.open_and_pay(random.split()).await;
    scene.play(plan.time).await;

    println!("{:>5.1} s  all is healed: the accounts", started.elapsed().as_secs_f32());
    purses.stop();
    for payer in paying {
        if let Err(error) = payer.await {
            scene.wrong.push(format!("a wallet has stopped: {error}"));
        }
    }
    close_accounts(&mut scene, &purses, &given, &mut report).await;
    report.add_number("seconds", started.elapsed().as_secs());
    report.add_number("load average", report::load());
    report.wrong = scene.wrong;
    if !report.wrong.is_empty() {
        println!("the directory stays: {}", dir.keep().display());
    }
    report
}

/// Waits for all that is under way, checks everything and reports it.
async fn close_accounts(
    scene: &mut Scene,
    purses: &Purses,
    given: &[(OutputId, Output)],
    report: &mut Report,
) {
    scene.book.drain(DRAIN).await;
    let (wrong, channel) = scene.meters.close().await;
    scene.wrong.extend(wrong);
    scene.wrong.extend(scene.machines.dropped());
    let entries = scene.book.entries();
    let accounts = Accounts { entries: &entries, given };
    check::transfers(&scene.clients, &accounts, &mut scene.wrong).await;
    check::money(purses, &scene.clients[0], &accounts, &mut scene.wrong).await;
    if let Some(ledger) = check::one_ledger(&scene.clients, &mut scene.wrong).await {
        report.add_number("milestones", ledger.milestone_index);
        report.add("state root", ledger.state_root, ledger.state_root.to_string());
        report.add_number("blocks held", ledger.blocks);
    }
    tell(report, &entries, &scene.clock);
    report.add_number("attached again", scene.book.attachments());
    report.add("paid in the channel", format!("{channel:?}"), channel.to_vec());
    report.add_number("flood taken", scene.flooded.taken);
    report.add_number("flood refused", scene.flooded.refused);
    report.add_number("lies told", scene.liar.told());
    let (passed, lost) = scene.weather.counts();
    report.add_number("datagrams passed", passed);
    report.add_number("datagrams lost", lost);
    report.add("stages", scene.played.join(", "), scene.played.clone());
}

/// The light daemons, and the node that will lie to them: the first one that they know.
async fn daemons(
    dir: &std::path::Path,
    machines: &Machines,
    weather: &Weather,
    host: IpAddr,
) -> (Liar, Meters) {
    let mut nodes = Vec::new();
    for node in some_nodes(3) {
        let machine = &machines.all[node];
        nodes.push(machine.behind(weather.door_for_meters(node, machine.own).await));
    }
    let liar = Liar::start(host, &nodes[0]);
    nodes.insert(0, liar.address().clone());
    let meters = Meters::start(dir, machines, &nodes).await;
    (liar, meters)
}

/// Gives all of them their first money, in one transfer.
async fn fund(machines: &Machines, purses: &Purses, meters: &Meters) -> Vec<(OutputId, Output)> {
    let wallets = purses.addresses(OUTPUTS_EACH);
    let mut outputs: Vec<Output> =
        wallets.into_iter().map(|address| Output { address, amount: OUTPUT }).collect();
    let count = outputs.len();
    let money = Amount::new(meters::MONEY);
    outputs.extend(meters.addresses().await.into_iter().map(|address| Output { address, amount: money }));
    let (transaction, _) = treasury::fund(machines.all[0].data(), &outputs).await.expect("the treasury pays");
    let transaction = transaction.id();
    let ids = (0..).map(|index| OutputId { transaction, index });
    ids.zip(outputs).take(count).collect()
}

/// Adds what became of the transfers, and how fast.
fn tell(report: &mut Report, entries: &BTreeMap<flash_proto::TransactionId, Entry>, clock: &Clock) {
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for entry in entries.values() {
        if let Some(Outcome::Refused(reason)) = &entry.outcome {
            *refused.entry(reason.clone()).or_default() += 1;
        }
    }
    let all_refused: usize = refused.values().sum();
    let open = entries.values().filter(|entry| entry.outcome.is_none()).count();
    report.add_number("transfers", entries.len());
    report.add_number("applied", entries.len() - all_refused - open);
    report.add("refused", format!("{refused:?}"), serde_json::to_value(&refused).unwrap_or_default());
    report.add_number("unresolved", open);
    report.add_number("paid twice", entries.values().filter(|entry| entry.rival.is_some()).count() / 2);
    let mut stages: BTreeMap<&'static str, Vec<Duration>> = BTreeMap::new();
    for entry in entries.values() {
        if let Some(latency) = entry.latency(clock) {
            stages.entry(entry.stage).or_default().push(latency);
            stages.entry("overall").or_default().push(latency);
        }
    }
    stages.entry(CALM).or_default();
    let interval = clock.interval();
    report
        .add_stages(stages.into_iter().map(|(stage, times)| (stage, Latency::of(times, interval))).collect());
}
