//! What a node does in a second: transactions applied, blocks synced, leaves of the state tree updated, and
//! the memory that outputs take. Each beside what bounds it: signatures checked one by one on one core in the
//! same run. `-- --test` takes a small part of it.

use std::time::{Duration, Instant};

use flash_benches::ledger::{entries, hash};
use flash_node_client::{
    ledger::state_tree::StateTree,
    node::{Node, NodeConfig, Received, Source},
};
use flash_proto::{
    Action, Address, Amount, Block, BlockId, Essence, NetworkParams, Output, OutputId, Payload, SecretKey,
    Transaction, TransactionId,
    block::{Data, Work},
    transaction::commit_inputs,
};

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
    println!("{:<54} {:>12} {:>9}", "", "a second", "ratio");
    let print = |what: &str, rate: f64| println!("{what:<54} {rate:>12.0} {:>9.3}", rate / signatures);
    print("signatures checked one by one, one core", signatures);
    let directory = tempfile::tempdir().expect("a directory for the stores");
    let mut bench = Bench::new(directory.path(), transactions);
    print("transactions applied: signed, worked, synced to disk", bench.apply());
    print("the same blocks synced by a fresh node", bench.sync("transfers"));
    bench.fill(transactions);
    print("blocks of data synced by a fresh node", bench.sync("all"));
    let before = resident_bytes();
    print(&format!("leaves updated in a state tree of {leaves}"), tree(leaves));
    println!("resident memory before the tree: {} KiB", before / 1024);
}

fn signatures(count: u64) -> f64 {
    let (key, hash) = (SecretKey::from_bytes([9; 32]), hash(1));
    let (public, signature) = (key.public(), key.sign(&hash));
    let started = Instant::now();
    (0..count).for_each(|_| assert!(public.verify(&hash, &signature)));
    rate(count, started.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "counts here are small")]
fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn tree(leaves: u64) -> f64 {
    let mut tree = StateTree::new();
    tree.apply(entries(leaves));
    let changed = leaves / 100;
    let rewritten: Vec<_> = (0..changed).map(|n| (hash(n * 97 % leaves), Some(hash(n + 7)))).collect();
    let started = Instant::now();
    rewritten.chunks(5_000).for_each(|some| tree.apply(some.to_vec()));
    rate(changed, started.elapsed())
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
        let config = NodeConfig { index: false, ..NodeConfig::new(directory.join("leader"), params.clone()) };
        let leader = Node::open(config).expect("a fresh directory");
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

    /// Transactions applied in a second, from bytes to a milestone on the disk.
    fn apply(&mut self) -> f64 {
        let blocks = std::mem::take(&mut self.transfers);
        let started = Instant::now();
        for part in blocks.chunks(PER_MILESTONE) {
            part.chunks(BATCH).for_each(|batch| take(&self.leader, batch));
            self.milestone();
        }
        rate(u64::try_from(blocks.len()).unwrap_or(0), started.elapsed())
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

    /// Blocks that a fresh node takes over in a second.
    fn sync(&self, name: &str) -> f64 {
        let config =
            NodeConfig { index: false, ..NodeConfig::new(self.directory.join(name), self.params.clone()) };
        let node = Node::open(config).expect("a fresh directory");
        let (mut count, mut took) = (0, Duration::ZERO);
        for index in 1..=*self.leader.newest().borrow() {
            let mut after = 0;
            loop {
                let page = self.leader.cone(index, after, BATCH).expect("no failure").expect("it is there");
                after += page.blocks.len();
                count += page.blocks.len();
                let started = Instant::now();
                take(&node, &page.blocks);
                took += started.elapsed();
                if !page.more {
                    break;
                }
            }
        }
        assert_eq!(*node.newest().borrow(), *self.leader.newest().borrow(), "the node is in step");
        rate(u64::try_from(count).unwrap_or(0), took)
    }
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
