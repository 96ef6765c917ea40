//! What a node does in a second: transactions applied, blocks synced, leaves of the state tree updated, and
//! the memory that outputs take. Each beside what bounds it: signatures checked one by one on one core in the
//! same run; and with the processor time that one takes on all cores together, which says more than the rate
//! where the machine has other work. `-- --test` takes a small part of it.

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use flash_benches::ledger::{entries, hash};
use flash_node_client::{
    gossip::{Gossip, GossipConfig, Verdict, message::Reached},
    ledger::state_tree::StateTree,
    node::{Node, NodeConfig, Received, Source, service},
    quic::{Endpoint, GOSSIP_ALPN, NODE_ALPN, PeerAddress},
};
use flash_proto::{
    Action, Address, Amount, Block, BlockId, Essence, NetworkParams, Output, OutputId, Payload, SecretKey,
    Transaction, TransactionId,
    block::{Data, Work},
    transaction::commit_inputs,
};
use mimalloc::MiMalloc;

/// What `flashd` has, which runs nodes.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Outputs of one transaction that splits money.
const SPLIT: u64 = 100;
/// What each output holds in the end.
const PART: Amount = Amount::new(1_000_000);
/// Blocks handed to the node at a time.
const BATCH: usize = 512;
/// Blocks between two milestones.
const PER_MILESTONE: usize = 5_000;

fn main() {
    let given = |name: &str| std::env::args().any(|argument| argument == name);
    let short = given("--test") || !given("--bench");
    let (transactions, leaves) = if short { (500, 10_000) } else { (20_000, 1_000_000) };
    let signatures = signatures(if short { 50 } else { 5_000 });
    println!("{:<54} {:>12} {:>9} {:>12}", "", "a second", "ratio", "CPU us each");
    let print = |what: &str, meter: &Meter| {
        let (rate, each) = (meter.rate(), meter.cpu_us_each());
        println!("{what:<54} {rate:>12.0} {:>9.3} {each:>12.1}", rate / signatures.rate());
    };
    print("signatures checked one by one, one core", &signatures);
    let directory = tempfile::tempdir().expect("a directory for the stores");
    let mut bench = Bench::new(directory.path(), transactions);
    let (follower, neighbour) = (bench.node("follower"), bench.node("neighbour"));
    // They, too, begin where the money is split.
    for node in [&follower, &neighbour] {
        bench.sync(node);
    }
    print("transactions applied: signed, worked, synced to disk", &bench.apply());
    let synced = bench.sync(&follower);
    print("the same blocks synced by another node", &synced);
    print("the same over gossip, both nodes' work counted", &bench.gossip(&neighbour, synced.count));
    bench.fill(transactions);
    let synced = bench.sync(&follower);
    print("blocks of data synced", &synced);
    print("the same over gossip, both nodes' work counted", &bench.gossip(&neighbour, synced.count));
    let before = resident_bytes();
    print(&format!("leaves updated in a state tree of {leaves}"), &tree(leaves));
    println!("resident memory before the tree: {} KiB", before / 1024);
}

/// Counts what was done, and the time that it took.
#[derive(Default)]
struct Meter {
    count: usize,
    wall: Duration,
    /// Of all cores.
    cpu: Duration,
}

impl Meter {
    /// Does `count` things.
    fn run<T>(&mut self, count: usize, work: impl FnOnce() -> T) -> T {
        let (cpu, started) = (cpu_time(), Instant::now());
        let done = work();
        self.wall += started.elapsed();
        self.cpu += cpu_time().saturating_sub(cpu);
        self.count += count;
        done
    }

    #[expect(clippy::cast_precision_loss, reason = "counts here are small")]
    fn rate(&self) -> f64 {
        self.count as f64 / self.wall.as_secs_f64()
    }

    #[expect(clippy::cast_precision_loss, reason = "counts here are small")]
    fn cpu_us_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.count as f64
    }
}

/// What this process has taken of all cores, to a hundredth of a second, as Linux counts it; 0 elsewhere.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn signatures(count: usize) -> Meter {
    let (key, hash) = (SecretKey::from_bytes([9; 32]), hash(1));
    let (public, signature) = (key.public(), key.sign(&hash));
    let mut meter = Meter::default();
    meter.run(count, || (0..count).for_each(|_| assert!(public.verify(&hash, &signature))));
    meter
}

fn tree(leaves: u64) -> Meter {
    let mut tree = StateTree::new();
    tree.apply(entries(leaves));
    let changed = leaves / 100;
    let rewritten: Vec<_> = (0..changed).map(|n| (hash(n * 97 % leaves), Some(hash(n + 7)))).collect();
    let mut meter = Meter::default();
    meter.run(rewritten.len(), || rewritten.chunks(5_000).for_each(|some| tree.apply(some.to_vec())));
    meter
}

/// Bytes of memory that this process holds, as Linux counts them; 0 elsewhere.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

struct Bench<'a> {
    directory: &'a std::path::Path,
    params: NetworkParams,
    coordinator: SecretKey,
    leader: Node,
    transfers: Vec<Vec<u8>>,
    newest: [BlockId; 2],
}

impl<'a> Bench<'a> {
    /// A node whose genesis is split into as many outputs as there are to be transactions.
    fn new(directory: &'a std::path::Path, transactions: u64) -> Self {
        let [coordinator, owner] = [[1; 32], [2; 32]].map(SecretKey::from_bytes);
        let params = network(&coordinator, &owner, transactions.div_ceil(SPLIT));
        let leader = open(directory, "leader", &params);
        let genesis = params.genesis_block();
        let mut bench = Self {
            coordinator: coordinator.clone(),
            directory,
            params,
            leader,
            transfers: Vec::new(),
            newest: [genesis; 2],
        };
        let first = TransactionId::new(*bench.params.id().as_bytes());
        let parts: Vec<Output> = (0..SPLIT).map(|_| output(&owner)).collect();
        let mut coins = Vec::new();
        let genesis: Vec<_> = (0_u16..).zip(bench.params.genesis.clone()).collect();
        for (index, spent) in genesis.into_iter().take(usize::try_from(transactions / SPLIT).unwrap_or(0)) {
            let id = OutputId { transaction: first, index };
            let split = transfer(&bench.params, &owner, id, spent, parts.clone());
            coins.extend(
                (0..)
                    .zip(&split.essence.outputs)
                    .map(|(index, output)| (OutputId { transaction: split.id(), index }, *output)),
            );
            let block = bench.block(Payload::Transaction(Box::new(split)));
            take(&bench.leader, &[block]);
        }
        bench.milestone();
        for (id, spent) in coins {
            let moved = transfer(&bench.params, &owner, id, spent, vec![output(&coordinator)]);
            let block = bench.block(Payload::Transaction(Box::new(moved)));
            bench.transfers.push(block);
        }
        bench
    }

    /// The next block of one chain of blocks that approve the two before them.
    fn block(&mut self, payload: Payload) -> Vec<u8> {
        let mut block = Block::new(self.newest.to_vec(), payload);
        let found = Work::of(&block.to_bytes()).search(self.params.pow_bits, 0, u64::MAX);
        block.nonce = found.expect("a few bits of work");
        self.newest = [self.newest[1], block.id()];
        block.to_bytes()
    }

    fn milestone(&self) {
        let key = std::slice::from_ref(&self.coordinator);
        self.leader.issue_milestone(1, key).expect("a milestone");
    }

    /// A fresh node of the network.
    fn node(&self, name: &str) -> Node {
        open(self.directory, name, &self.params)
    }

    /// Applies the blocks that were made, from bytes to milestones on the disk.
    fn apply(&mut self) -> Meter {
        let blocks = std::mem::take(&mut self.transfers);
        let mut meter = Meter::default();
        meter.run(blocks.len(), || {
            for part in blocks.chunks(PER_MILESTONE) {
                part.chunks(BATCH).for_each(|batch| take(&self.leader, batch));
                self.milestone();
            }
        });
        meter
    }

    /// More blocks, of data.
    fn fill(&mut self, blocks: u64) {
        for n in 0..blocks {
            let data = Data { tag: b"meter".to_vec(), data: n.to_le_bytes().to_vec() };
            let block = self.block(Payload::Data(data));
            self.transfers.push(block);
        }
        self.apply();
    }

    /// Brings a node in step that is handed the blocks; the time is its own alone.
    fn sync(&self, node: &Node) -> Meter {
        let mut meter = Meter::default();
        let (ours, newest) = (*node.newest().borrow(), *self.leader.newest().borrow());
        for index in ours + 1..=newest {
            let mut after = 0;
            loop {
                let page = self.leader.cone(index, after, BATCH).expect("no failure").expect("it is there");
                after += page.blocks.len();
                meter.run(page.blocks.len(), || take(node, &page.blocks));
                if !page.more {
                    break;
                }
            }
        }
        assert_eq!(*node.newest().borrow(), newest, "the node is in step");
        meter
    }

    /// Brings a node in step that asks for these `count` blocks over QUIC, from its first packet on.
    fn gossip(&self, node: &Node, count: usize) -> Meter {
        let (mut newest, wanted) = (node.newest(), *self.leader.newest().borrow());
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
        runtime.block_on(async {
            let leader = Member::start(1, &self.leader, Vec::new());
            let (cpu, started) = (cpu_time(), Instant::now());
            let _member = Member::start(2, node, vec![leader.address.clone()]);
            newest.wait_for(|newest| *newest == wanted).await.expect("the node runs");
            Meter { count, wall: started.elapsed(), cpu: cpu_time().saturating_sub(cpu) }
        })
    }
}

/// A node that gossips, until it is dropped.
struct Member {
    address: PeerAddress,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Member {
    fn start(seed: u8, node: &Node, neighbours: Vec<PeerAddress>) -> Self {
        let key = SecretKey::from_bytes([seed; 32]);
        let (kinds, local) = ([GOSSIP_ALPN, NODE_ALPN], (Ipv4Addr::LOCALHOST, 0).into());
        let endpoint = Endpoint::listen_for_all(&key, GOSSIP_ALPN, &kinds, local, service::STREAM_LIMITS);
        let endpoint = endpoint.expect("a free port");
        let port = endpoint.local_address().expect("a bound port").port();
        let address = PeerAddress::new(key.public(), "127.0.0.1", port).expect("a good address");
        let relay = Arc::new(|_: &[u8]| Verdict::News);
        let config = GossipConfig { neighbours, reached: Reached::Port(port), relay };
        let gossip = Gossip::start(node.clone(), endpoint.clone(), config).expect("kept addresses");
        let serving = service::serve_all(node.clone(), endpoint, Some(gossip), std::future::pending());
        Self { address, serving: tokio::spawn(serving) }
    }
}

fn open(directory: &std::path::Path, name: &str, params: &NetworkParams) -> Node {
    let config = NodeConfig { index: false, ..NodeConfig::new(directory.join(name), params.clone()) };
    Node::open(config).expect("a fresh directory")
}

fn output(owner: &SecretKey) -> Output {
    Output { address: Address::of(&owner.public()), amount: PART }
}

/// A network that begins with outputs that can be split, and one with the rest.
fn network(coordinator: &SecretKey, owner: &SecretKey, splits: u64) -> NetworkParams {
    let address = Address::of(&owner.public());
    let whole = PART.checked_mul(SPLIT).expect("a small amount");
    let used = whole.checked_mul(splits).expect("a small amount");
    let rest = Amount::SUPPLY.checked_sub(used).expect("less than the supply");
    let mut genesis: Vec<_> = (0..splits).map(|_| Output { address, amount: whole }).collect();
    genesis.push(Output { address, amount: rest });
    NetworkParams {
        name: "bench".to_owned(),
        coordinators: vec![coordinator.public()],
        threshold: 1,
        pow_bits: 4,
        output_min: Amount::new(1_000),
        milestone_interval_ms: 1_000,
        genesis_ms: 1,
        genesis,
    }
}

fn transfer(
    params: &NetworkParams,
    owner: &SecretKey,
    input: OutputId,
    spent: Output,
    outputs: Vec<Output>,
) -> Transaction {
    let essence = Essence {
        network: params.id(),
        inputs: vec![input],
        inputs_commitment: commit_inputs(&[spent]),
        outputs,
        action: Action::Transfer,
    };
    let unlocks = vec![essence.unlock(owner)];
    Transaction { essence, unlocks }
}

/// Hands blocks to a node, which must take them.
fn take(node: &Node, blocks: &[Vec<u8>]) {
    for received in node.receive(blocks, Source::Asked).expect("the node runs") {
        assert!(matches!(received, Received::Added | Received::Known), "{received:?}");
    }
}
