//! Many transfers on a network that nothing happens to: how long each takes.

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use flash_node_client::client::{NodeClient, TransactionStatus};
use flash_proto::{
    Action, Address, Amount, Essence, NetworkParams, Output, OutputId, Payload, SecretKey, Transaction,
    TransactionId, limits::OUTPUTS_MAX, transaction::commit_inputs,
};
use flashd::treasury;
use tokio::task::JoinSet;

use super::{
    check,
    clock::Clock,
    machines::{Machines, Shape},
    report::{Latency, Report, load},
    weather::Weather,
};
use crate::{Random, poll};

const NODES: usize = 4;
const COORDINATORS: usize = 3;
/// Clients of each node, so that none of them sends more than its share.
const CLIENTS_EACH: usize = 8;
/// Of so many transfers one is put into a second block, at another node.
const AGAIN: usize = 10;
const AMOUNT: Amount = Amount::new(1_000);
/// Transfers one after the other on the idle network.
const SINGLE: usize = 40;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Transfers, each of another output.
    pub transfers: usize,
    /// So many a second; as fast as they are taken if 0.
    pub rate: u64,
    /// Between milestones.
    pub interval: Duration,
}

/// A transfer of one output, made beforehand.
struct Prepared {
    transaction: Transaction,
    id: TransactionId,
}

/// Runs the network and says how it went.
pub async fn throughput(plan: Load, mut random: Random) -> Report {
    let dir = tempfile::Builder::new().prefix("flash-network-").tempdir().expect("a temporary directory");
    let weather = Weather::new(Ipv4Addr::LOCALHOST.into(), random.split());
    weather.set(super::weather::Storm::NONE);
    let shape = Shape { nodes: NODES, coordinators: COORDINATORS, interval: plan.interval, pow_bits: 8 };
    let machines = Machines::start(dir.path(), shape, &weather, None).await;
    machines.meshed(NODES - 1, Instant::now()).await;
    let nodes: Vec<_> = (0..NODES).map(|node| machines.client(&[node])).collect();
    let clock = Clock::new(&nodes, plan.interval);
    let clients: Vec<_> =
        (0..NODES * CLIENTS_EACH).map(|client| machines.client(&[client % NODES])).collect();
    println!("paying {} wallets", plan.transfers + SINGLE);
    let mut all = prepare(&machines, plan.transfers + SINGLE).await;
    let many = all.split_off(SINGLE);

    let mut report = Report::default();
    let singles = one_by_one(&nodes, &clock, all, &mut random).await;
    report.add("one by one", singles, singles);
    println!("{} transfers", many.len());
    let (began, load_before) = (Instant::now(), load());
    let issued = submit_all(&clients, &many, plan.rate).await;
    let submitted = began.elapsed();
    let ids: Vec<TransactionId> = many.iter().map(|prepared| prepared.id).collect();
    let mut times = Vec::new();
    for ((id, issued), place) in ids.iter().zip(&issued).zip(0..) {
        // A node other than the one that it was handed to.
        let client = &nodes[(place + 1) % NODES];
        match applied(client, *id).await {
            Some(index) => times.extend(issued.and_then(|issued| clock.until(index, issued))),
            None => report.wrong.push(format!("transfer {id} was not applied")),
        }
    }
    let latency = Latency::of(times.iter().copied(), plan.interval);
    report.add("transfers", ids.len(), ids.len());
    report.add("unconfirmed", ids.len() - times.len(), ids.len() - times.len());
    report.add("submitted in", format!("{:.1} s", submitted.as_secs_f32()), submitted.as_secs_f32());
    report.add("to applied", latency, latency);
    report.add("interval", format!("{:?}", plan.interval), plan.interval.as_secs_f32());
    report.add("load average", format!("{load_before} before, {} after", load()), load());
    if times.len() != ids.len() {
        report.wrong.push(format!("{} of {} transfers were applied", times.len(), ids.len()));
    }
    if latency.p99() > 2.0 {
        report.wrong.push(format!("99 of 100 transfers take up to {} milestone intervals", latency.p99()));
    }
    if let Some(ledger) = check::one_ledger(&nodes, &mut report.wrong).await {
        report.add_number("milestones", ledger.milestone_index);
        report.add_number("blocks held", ledger.blocks);
    }
    report
}

/// Gives each of so many wallets an output, and has it sign what it will pay.
async fn prepare(machines: &Machines, count: usize) -> Vec<Prepared> {
    let keys: Vec<SecretKey> = (0..count).map(|_| SecretKey::from_bytes(rand::random())).collect();
    let mut all = Vec::new();
    for some in keys.chunks(OUTPUTS_MAX - 1) {
        let address = |key: &SecretKey| Output { address: Address::of(&key.public()), amount: AMOUNT };
        let outputs: Vec<Output> = some.iter().map(address).collect();
        let data = machines.all[0].data();
        let (funding, _) = treasury::fund(data, &outputs).await.expect("the treasury pays");
        let transaction = funding.id();
        for ((key, output), index) in some.iter().zip(outputs).zip(0..) {
            all.push(pay(&machines.params, key, OutputId { transaction, index }, output));
        }
    }
    all
}

fn pay(params: &Arc<NetworkParams>, key: &SecretKey, id: OutputId, output: Output) -> Prepared {
    let to = Address::of(&SecretKey::from_bytes(rand::random()).public());
    let essence = Essence {
        network: params.id(),
        inputs: vec![id],
        inputs_commitment: commit_inputs(&[output]),
        outputs: vec![Output { address: to, amount: output.amount }],
        action: Action::Transfer,
    };
    let unlocks = vec![essence.unlock(key)];
    let transaction = Transaction { essence, unlocks };
    Prepared { id: transaction.id(), transaction }
}

/// The milestone that applied it, once it is known.
async fn applied(client: &NodeClient, id: TransactionId) -> Option<u64> {
    let status = poll("a transfer to be confirmed", async || match client.transaction(id).await.ok()? {
        TransactionStatus::Unknown | TransactionStatus::Pending { .. } => None,
        known => Some(known),
    })
    .await;
    match status {
        TransactionStatus::Applied { milestone_index, .. } => Some(milestone_index),
        _ => None,
    }
}

/// Each transfer at any moment between two milestones, with nothing else to do.
async fn one_by_one(nodes: &[NodeClient], clock: &Clock, all: Vec<Prepared>, random: &mut Random) -> Latency {
    let mut times = Vec::new();
    for (place, prepared) in all.into_iter().enumerate() {
        let most = u64::try_from(clock.interval().as_micros()).unwrap_or(u64::MAX);
        tokio::time::sleep(Duration::from_micros(random.between(0, most))).await;
        let payload = Payload::Transaction(Box::new(prepared.transaction));
        nodes[place % NODES].submit(payload).await.expect("a node takes a transfer");
        // From when the block is in: what counts is how long the network takes.
        let issued = Instant::now();
        let index = applied(&nodes[(place + 1) % NODES], prepared.id).await;
        times.extend(index.and_then(|index| clock.until(index, issued)));
    }
    Latency::of(times, clock.interval())
}

/// Hands all to the nodes; when each was begun, or nothing if no node took it.
async fn submit_all(clients: &[NodeClient], all: &[Prepared], rate: u64) -> Vec<Option<Instant>> {
    let began = Instant::now();
    let mut work = JoinSet::new();
    for (worker, client) in clients.iter().enumerate() {
        let (client, other) = (client.clone(), clients[(worker + 1) % clients.len()].clone());
        let own = all.iter().enumerate().skip(worker).step_by(clients.len());
        let own: Vec<(usize, Transaction)> =
            own.map(|(place, prepared)| (place, prepared.transaction.clone())).collect();
        work.spawn(async move {
            let mut issued = Vec::new();
            for (place, transaction) in own {
                let micros = u64::try_from(place).unwrap_or(u64::MAX) * 1_000_000;
                if let Some(micros) = micros.checked_div(rate) {
                    tokio::time::sleep_until((began + Duration::from_micros(micros)).into()).await;
                }
                let (at, payload) = (Instant::now(), Payload::Transaction(Box::new(transaction)));
                let taken = client.submit(payload.clone()).await;
                if let Err(error) = &taken {
                    println!("transfer {place} was not taken: {error}");
                }
                issued.push((place, taken.is_ok().then_some(at)));
                if place % AGAIN == 0 {
                    // Whether this one is taken makes no difference.
                    let _ = other.submit(payload).await;
                }
            }
            issued
        });
    }
    let mut issued = vec![None; all.len()];
    while let Some(done) = work.join_next().await {
        for (place, at) in done.expect("a worker ends") {
            issued[place] = at;
        }
    }
    issued
}
