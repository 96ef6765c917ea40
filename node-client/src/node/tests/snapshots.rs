//! Writing snapshots, finding what is wrong with them, and starting from them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use flash_channel::store::{Batch, Durable, Entries, Entry, Fault, MemoryStore, Store, StoreError, Table};
use flash_proto::{
    Action, Amount, Block, BlockId, ChannelRecord, CoordinatorHistory, CoordinatorSet, Hash, Milestone,
    MilestoneId, NetworkId, NetworkParams, OutputId, Payload, SecretKey, StateKey, TransactionId,
    block::Data, codec, hash::Tag,
};
use sha3::{Digest, Sha3_256};
use tempfile::TempDir;

use super::support::*;
use crate::{
    ledger::{LedgerState, StateValue, genesis::genesis_essence, merkle, tests::support::*},
    light::LightCore,
    node::{
        Node, NodeConfig, NodeError, Received, SnapshotError, Source, Upkeep,
        load::put_ledger,
        outputs::PAGES,
        pages::Pages,
        records::{self, MILESTONES, MilestoneRecord},
        verify_snapshot,
    },
};

fn node() -> Node {
    node_on(&MemoryStore::new())
}

fn start(path: &Path) -> Result<Node, NodeError> {
    Node::start_from_snapshot(params(), Box::new(MemoryStore::new()), path)
}

fn data_block(node: &Node, parents: Vec<BlockId>, byte: u8) -> Vec<u8> {
    let data = Data { tag: b"test".to_vec(), data: vec![byte] };
    worked(node.params(), Block::new(parents, Payload::Data(data)))
}

fn cone(node: &Node, index: u64) -> Vec<Vec<u8>> {
    node.cone(index, 0, 10_000).unwrap().unwrap().blocks
}

fn root(node: &Node) -> Hash {
    node.read().ledger.root()
}

/// A directory with the snapshot of a node with transfers, an open channel and `milestones` milestones.
fn written(milestones: u64) -> (TempDir, PathBuf, Node) {
    let node = node();
    let params = params();
    let open = Action::Open(opening(6_000, 4_000, 100));
    submit(&node, &spend(&params, &[genesis_coin(&params, 1)], vec![output(1, 990_000)], open));
    for now in 1..=milestones {
        node.issue_milestone(now, &signers()).unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.snapshot");
    let info = node.write_snapshot(&path).unwrap();
    assert_eq!(info, verify_snapshot(&params, &path).unwrap());
    assert_eq!((info.outputs, info.channels), (3, 1));
    (directory, path, node)
}

/// With a digest that fits.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - 32);
    let digest = Sha3_256::new().chain_update(Tag::SNAPSHOT.bytes()).chain_update(&bytes).finalize();
    bytes.extend(digest);
    bytes
}

#[test]
fn every_flipped_byte_is_found() {
    let (_directory, path, node) = written(2);
    let (params, good) = (params(), fs::read(&path).unwrap());
    assert_eq!(sealed(good.clone()), good);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, &bad).unwrap();
        assert!(verify_snapshot(&params, &path).is_err(), "byte {at} of {}", good.len());
    }
    for cut in 0..good.len() {
        fs::write(&path, &good[..cut]).unwrap();
        assert!(verify_snapshot(&params, &path).is_err(), "cut at {cut}");
    }
    fs::write(&path, [&good[..], &[0]].concat()).unwrap();
    assert!(matches!(verify_snapshot(&params, &path), Err(SnapshotError::Trailing)));
    // By who makes the digest fit, too, but for which block carried an earlier milestone: any may.
    let carrier = records::milestone(node.store(), 1).unwrap().unwrap().block;
    let free = good.windows(32).position(|bytes| bytes == carrier.as_bytes()).unwrap();
    for at in 0..good.len() - 32 {
        let mut bad = good.clone();
        bad[at] ^= 0x80;
        fs::write(&path, sealed(bad)).unwrap();
        assert_eq!(verify_snapshot(&params, &path).is_ok(), (free..free + 32).contains(&at), "byte {at}");
    }
}

/// The parts of a snapshot at the first milestone, put together by hand.
struct Parts {
    header: (NetworkId, u64, MilestoneId),
    hand_overs: Vec<Vec<u8>>,
    milestones: Vec<Vec<u8>>,
    blocks: Vec<Vec<u8>>,
    state: Vec<(StateKey, StateValue)>,
}

impl Parts {
    /// All as it must be, and signed by the coordinators, whatever the state is.
    fn of(state: Vec<(StateKey, StateValue)>) -> Self {
        let params = params();
        let (milestone, block) = first_milestone(&params, LedgerState::from_entries(state.clone()).root());
        let none = Vec::<[u8; 32]>::new();
        let header = (params.id(), 1, milestone.id());
        let milestones = vec![codec::encode(&((milestone, Block::id_of(&block)), none.clone(), none))];
        Self { header, hand_overs: Vec::new(), milestones, blocks: vec![codec::encode(&block)], state }
    }

    /// What is wrong with the file.
    fn verify(self) -> Result<(), SnapshotError> {
        let framed =
            |frame: &Vec<u8>| [&u32::try_from(frame.len()).unwrap().to_le_bytes(), &frame[..]].concat();
        let mut bytes = [b"flashsnp\x01".as_slice(), &framed(&codec::encode(&self.header))].concat();
        for section in [self.hand_overs, self.milestones, self.blocks, vec![codec::encode(&self.state)]] {
            bytes.extend(section.iter().flat_map(framed));
            bytes.extend([0; 4]);
        }
        bytes.extend([0; 32]);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("by hand");
        fs::write(&path, sealed(bytes)).unwrap();
        verify_snapshot(&params(), &path).map(drop)
    }
}

fn coin(number: u8, amount: u64) -> (StateKey, StateValue) {
    let id = OutputId { transaction: TransactionId::new([number; 32]), index: 0 };
    (StateKey::Output(id), StateValue::Output(output(1, amount)))
}

#[test]
fn no_signature_makes_money() {
    let supply = Amount::SUPPLY.units();
    Parts::of(vec![coin(1, supply - 5), coin(2, 5)]).verify().unwrap();
    for wrong in [5, 7] {
        let verified = Parts::of(vec![coin(1, supply - 6), coin(2, wrong)]).verify();
        assert!(matches!(verified, Err(SnapshotError::Supply)), "{verified:?}");
    }
    let state = vec![coin(1, supply - 1)];
    let started = Node::with_store(params(), Box::new(stored(&params(), state)));
    assert!(matches!(started, Err(NodeError::Supply { .. })), "nor does a disk: {started:?}");
    let state = vec![coin(1, supply), coin(2, u64::MAX)];
    let verified = Parts { state, ..Parts::of(vec![coin(1, supply)]) }.verify();
    assert!(matches!(verified, Err(SnapshotError::Supply)), "more than there can be: {verified:?}");
    let state = vec![coin(1, supply), coin(1, supply)];
    let verified = Parts { state, ..Parts::of(vec![coin(1, supply)]) }.verify();
    assert!(matches!(verified, Err(SnapshotError::Order)), "twice: {verified:?}");
}

#[test]
fn every_part_of_a_snapshot_is_where_it_belongs() {
    let good = || Parts::of(vec![coin(1, Amount::SUPPLY.units())]);
    let (network, _, milestone) = good().header;
    let verified = Parts { header: (network, 0, milestone), ..good() }.verify();
    assert!(matches!(verified, Err(SnapshotError::Genesis)), "{verified:?}");
    // The same milestone hands over nothing.
    let (milestone, block) = first_milestone(&params(), Hash::new([0; 32]));
    let hand_overs = vec![codec::encode(&(milestone, Block::id_of(&block)))];
    let verified = Parts { hand_overs, ..good() }.verify();
    assert!(matches!(verified, Err(SnapshotError::Part("list of hand-overs"))), "{verified:?}");
    let blocks = [good().blocks, good().blocks].concat();
    let verified = Parts { blocks, ..good() }.verify();
    assert!(matches!(verified, Err(SnapshotError::Part("last milestone's block"))), "{verified:?}");
    // A channel in the place of an output.
    let record = ChannelRecord::opened(&opening(6_000, 4_000, 100));
    let (key, _) = coin(2, 1);
    let state = [good().state, vec![(key, StateValue::Channel(record))]].concat();
    let verified = Parts { state, ..good() }.verify();
    assert!(matches!(verified, Err(SnapshotError::Part("state"))), "{verified:?}");
}

#[test]
fn a_sample_of_flipped_bytes_of_a_large_one_is_found() {
    let (store, params) = large(10_000);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large");
    Node::with_store(params.clone(), Box::new(store)).unwrap().write_snapshot(&path).unwrap();
    let good = fs::read(&path).unwrap();
    for part in 0..16 {
        let at = good.len() * part / 16 + part;
        let mut bad = good.clone();
        bad[at] ^= 4;
        fs::write(&path, &bad).unwrap();
        assert!(verify_snapshot(&params, &path).is_err(), "byte {at}");
        if part % 8 == 0 {
            let store = MemoryStore::new();
            assert!(Node::start_from_snapshot(params.clone(), Box::new(store.clone()), &path).is_err());
            // Nothing of it is left: the right one can still come.
            assert!(
                store.last(PAGES, &[]).unwrap().is_none() && store.last(MILESTONES, &[]).unwrap().is_none()
            );
        }
    }
}

#[test]
fn a_start_that_is_cut_short_is_seen() {
    let (store, params) = large(40_000);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large");
    Node::with_store(params.clone(), Box::new(store)).unwrap().write_snapshot(&path).unwrap();
    let start = |store: Box<dyn Store>| Node::start_from_snapshot(params.clone(), store, &path);
    for commits in 0..2 {
        let store = MemoryStore::new();
        assert!(start(Box::new(Dying { store: store.clone(), commits: commits.into() })).is_err());
        let again = Node::with_store(params.clone(), Box::new(store.reopen()));
        if commits == 0 {
            assert_eq!(*again.unwrap().newest().borrow(), 0, "nothing had been stored");
        } else {
            assert!(matches!(again, Err(NodeError::Unfinished)), "{again:?}");
            let again = start(Box::new(store.reopen()));
            assert!(matches!(again, Err(NodeError::Snapshot(SnapshotError::NotEmpty))));
        }
    }
    assert_eq!(*start(Box::new(MemoryStore::new())).unwrap().newest().borrow(), 1);
}

/// A store that fails after so many commits.
struct Dying {
    store: MemoryStore,
    commits: AtomicU32,
}

impl Store for Dying {
    fn commit(&self, batch: &Batch) -> Result<Durable, StoreError> {
        if self.commits.load(Ordering::SeqCst) == 0 {
            self.store.fail_next(Fault::CrashBefore);
        } else {
            self.commits.fetch_sub(1, Ordering::SeqCst);
        }
        self.store.commit(batch)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, StoreError> {
        self.store.scan(table, prefix, after, limit)
    }

    fn last(&self, table: Table, prefix: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.store.last(table, prefix)
    }
}

#[test]
fn a_node_that_starts_from_a_snapshot_follows_on() {
    let leader = node();
    let params = params();
    let pay = transfer(&params, &[genesis_coin(&params, 1)], vec![output(4, 300_000), output(1, 700_000)]);
    submit(&leader, &pay);
    let new = [key(60), key(61)];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("200.snapshot");
    let mut keys = signers();
    for index in 1..=250 {
        if index == 30 {
            let mut keys = new.each_ref().map(SecretKey::public).to_vec();
            keys.sort_unstable();
            let essence = leader.propose(index, Some(CoordinatorSet { keys, threshold: 2 })).unwrap();
            let signatures = signers().iter().map(|key| essence.sign(key)).collect();
            leader.publish(Milestone { essence, signatures }).unwrap();
        } else {
            let parents = tips(&leader);
            leader.submit(&data_block(&leader, parents, u8::try_from(index).unwrap())).unwrap();
            leader.issue_milestone(index, &keys).unwrap();
        }
        if index == 30 {
            keys = new.to_vec();
        }
        if index == 200 {
            leader.write_snapshot(&path).unwrap();
        }
        if index == 210 {
            // Approves what was confirmed long before the snapshot.
            let old = Block::id_of(&cone(&leader, 140)[0]);
            leader.submit(&data_block(&leader, vec![old], 255)).unwrap();
        }
    }
    let store = MemoryStore::new();
    let follower = Node::start_from_snapshot(params.clone(), Box::new(store.clone()), &path).unwrap();
    assert_eq!(*follower.newest().borrow(), 200);
    assert!(follower.cone(200, 0, 1).unwrap().is_none());
    assert_eq!(follower.followed_after(100, 200).unwrap(), leader.followed_after(100, 100).unwrap());
    assert!(matches!(follower.followed_after(99, 1), Err(NodeError::Pruned { upto: 100 })));
    for index in 201..=250 {
        let received = follower.receive(&cone(&leader, index), Source::Asked).unwrap();
        let fine = |received: &Received| matches!(received, Received::Added | Received::Known);
        assert!(received.iter().all(fine), "milestone {index}: {received:?}");
    }
    assert_eq!((*follower.newest().borrow(), root(&follower)), (250, root(&leader)));
    assert_eq!(cone(&follower, 230), cone(&leader, 230));
    // It is whole after a restart, gives snapshots of its own, and light cores start where they are.
    drop(follower);
    let follower = node_on(&store);
    let info = follower.write_snapshot(&directory.path().join("250")).unwrap();
    assert_eq!(info.checkpoint, leader.write_snapshot(&path).unwrap().checkpoint);
    let mut light = LightCore::new(params.into(), Some(info.checkpoint)).unwrap();
    light.advance(&follower.issue_milestone(300, &new).unwrap()).unwrap();
    assert_eq!(light.newest().index, 251);
}

#[test]
fn a_young_networks_snapshot_starts_at_the_genesis() {
    let (_directory, path, leader) = written(3);
    let follower = start(&path).unwrap();
    let old = data_block(&leader, vec![params().genesis_block()], 1);
    leader.submit(&old).unwrap();
    leader.issue_milestone(9, &signers()).unwrap();
    follower.receive(&cone(&leader, 4), Source::Asked).unwrap();
    assert_eq!((*follower.newest().borrow(), root(&follower)), (4, root(&leader)));
}

#[test]
fn a_snapshot_is_only_for_its_network_and_an_empty_store() {
    let (directory, path, _) = written(1);
    let other = NetworkParams { name: "other".to_owned(), ..params() };
    assert!(matches!(verify_snapshot(&other, &path), Err(SnapshotError::Network(_))));
    let store = MemoryStore::new();
    drop(node_on(&store));
    let started = Node::start_from_snapshot(params(), Box::new(store), &path);
    assert!(matches!(started, Err(NodeError::Snapshot(SnapshotError::NotEmpty))));
    let early = node().write_snapshot(&directory.path().join("early"));
    assert!(matches!(early, Err(NodeError::Snapshot(SnapshotError::Genesis))));
}

#[test]
fn a_snapshot_that_cannot_be_written_leaves_nothing_and_stops_nothing() {
    let (directory, path, node) = written(1);
    let nowhere = directory.path().join("missing").join("file");
    assert!(matches!(node.write_snapshot(&nowhere), Err(NodeError::Snapshot(SnapshotError::Io { .. }))));
    // What stands under the name is a directory, so that the last step fails.
    let taken = directory.path().join("taken");
    fs::create_dir(&taken).unwrap();
    assert!(matches!(node.write_snapshot(&taken), Err(NodeError::Snapshot(SnapshotError::Io { .. }))));
    assert!(!directory.path().join("taken.part").exists());
    assert_eq!(node.halted(), None);
    node.write_snapshot(&path).unwrap();
}

#[test]
fn the_newest_two_snapshots_stay() {
    let directory = tempfile::tempdir().unwrap();
    let upkeep = Upkeep { keep: None, snapshots: Some((directory.path().join("snapshots"), 3)) };
    let node = node();
    for now in 1..=11 {
        node.issue_milestone(now, &signers()).unwrap();
        node.keep_up(&upkeep).unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(directory.path().join("snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["6.snapshot", "9.snapshot"]);
}

/// The first milestone, as all coordinators sign it over such a state, and its block.
fn first_milestone(params: &NetworkParams, state_root: Hash) -> (Milestone, Vec<u8>) {
    let genesis = genesis_essence(params);
    let empty = merkle::root([]);
    let essence = flash_proto::MilestoneEssence {
        index: 1,
        timestamp_ms: genesis.timestamp_ms + 1,
        previous: genesis.id(),
        included_root: empty,
        applied_root: empty,
        channels_root: empty,
        state_root,
        ..genesis
    };
    let signatures = signers().iter().map(|key| essence.sign(key)).collect();
    let milestone = Milestone { essence, signatures };
    let payload = Payload::Milestone(Box::new(milestone.clone()));
    let bytes = worked(params, Block::new(vec![params.genesis_block()], payload));
    (milestone, bytes)
}

/// The store of a node with so many outputs, and its network.
fn large(outputs: u32) -> (MemoryStore, NetworkParams) {
    let params = params();
    let amount = params.output_min.units();
    let mut rest = Amount::SUPPLY.units();
    let mut entries = Vec::new();
    for number in 0..outputs {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let key = StateKey::Output(OutputId { transaction: TransactionId::new(id), index: 0 });
        let amount = if number + 1 == outputs { rest } else { amount };
        rest -= amount;
        let owner = flash_proto::Address::new(Sha3_256::digest(id).into());
        entries.push((
            key,
            StateValue::Output(flash_proto::Output { address: owner, amount: Amount::new(amount) }),
        ));
    }
    (stored(&params, entries), params)
}

/// The store of a node whose first milestone left this state.
fn stored(params: &NetworkParams, state: Vec<(StateKey, StateValue)>) -> MemoryStore {
    let mut ledger = LedgerState::from_entries(state);
    let (milestone, bytes) = first_milestone(params, ledger.root());
    let block = Block::id_of(&bytes);
    let store = MemoryStore::new();
    let mut batch = Batch::new();
    put_ledger(&mut ledger, &mut batch, |_| Ok::<_, NodeError>(())).unwrap();
    records::put_coordinators(&mut batch, &CoordinatorHistory::new(params));
    let record = MilestoneRecord { milestone, block, waiting_page: 0, confirmed: 0 };
    batch.put(MILESTONES, &1_u64.to_be_bytes(), codec::encode(&record));
    let mut pages = Pages::from(0);
    pages.push(&bytes).unwrap();
    pages.write(&mut batch).unwrap();
    let _durable = store.commit(&batch).unwrap();
    store
}

/// Measures; run it alone, optimized: `cargo test --release -p flash-node-client --lib measure -- --ignored
/// --nocapture`.
#[test]
#[ignore = "measures"]
fn measure_snapshots() {
    for outputs in [100_000, 1_000_000] {
        let (store, params) = large(outputs);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot");
        let node = Node::with_store(params.clone(), Box::new(store)).unwrap();
        node.write_snapshot(&path).unwrap();
        drop(node);
        // Hundredths of a second that this process computed: fields 14 and 15 of its status.
        let computed = || -> u64 {
            let status = fs::read_to_string("/proc/self/stat").unwrap_or_default();
            status.split(' ').skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
        };
        let timed = |what: &str, work: &mut dyn FnMut()| {
            let (began, before) = (Instant::now(), computed());
            work();
            let cpu = (computed() - before) * 10;
            println!("{outputs} outputs: {what} {:?}, of these {cpu} ms computing", began.elapsed());
        };
        let config =
            NodeConfig { index: false, ..NodeConfig::new(directory.path().join("store"), params.clone()) };
        let mut node = None;
        timed("verify", &mut || _ = verify_snapshot(&params, &path).unwrap());
        timed("start from it, on a disk", &mut || {
            node = Some(Node::open_from_snapshot(config.clone(), &path).unwrap());
        });
        timed("write, from a disk", &mut || _ = node.as_ref().unwrap().write_snapshot(&path).unwrap());
        node = None;
        timed("open again", &mut || node = Some(Node::open(config.clone()).unwrap()));
        println!("{outputs} outputs: {} bytes", fs::metadata(&path).unwrap().len());
    }
}
