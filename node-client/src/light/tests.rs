//! A network of three coordinators of which two must sign, and everything that a node could try.

use flash_proto::{
    Action, Address, Amount, Essence, Open, Output, PublicKey, SecretKey, StateKey, Unlock, block::Work,
    record::Party, transaction::commit_inputs,
};

use super::*;
use crate::ledger::{Checked, Confirmation, LedgerState, StateValue, genesis::genesis_entries};

pub(crate) fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

pub(crate) fn coordinators() -> Vec<SecretKey> {
    let mut keys: Vec<SecretKey> = (1..=3).map(key).collect();
    keys.sort_by_key(SecretKey::public);
    keys
}

pub(crate) fn params() -> Arc<NetworkParams> {
    Arc::new(NetworkParams {
        name: "test".to_owned(),
        coordinators: coordinators().iter().map(SecretKey::public).collect(),
        threshold: 2,
        pow_bits: 4,
        output_min: Amount::new(100),
        milestone_interval_ms: 1_000,
        genesis_ms: 1_000,
        genesis: vec![
            Output { address: Address::of(&owner().public()), amount: Amount::new(1_000_000) },
            Output {
                address: Address::of(&key(11).public()),
                amount: Amount::new(Amount::SUPPLY.units() - 1_000_000),
            },
        ],
    })
}

/// Owns the first genesis output.
pub(crate) fn owner() -> SecretKey {
    key(10)
}

/// Moves the first genesis output.
pub(crate) fn transfer(params: &NetworkParams, to: Address) -> Transaction {
    let output = params.genesis[0];
    let input = OutputId { transaction: TransactionId::new(*params.id().as_bytes()), index: 0 };
    let essence = Essence {
        network: params.id(),
        inputs: vec![input],
        inputs_commitment: commit_inputs(&[output]),
        outputs: vec![Output { address: to, amount: output.amount }],
        action: Action::Transfer,
    };
    let unlocks = vec![essence.unlock(&owner())];
    Transaction { essence, unlocks }
}

/// Opens a channel with the first genesis output.
pub(crate) fn open(params: &NetworkParams) -> Transaction {
    let mut essence = transfer(params, Address::of(&owner().public())).essence;
    essence.outputs[0].amount = Amount::new(1_000);
    essence.action = Action::Open(Open {
        party_a: party(key(20).public(), 999_000),
        party_b: party(key(21).public(), 0),
        contest_window_milestones: 10,
        expiry_milestone: 100,
    });
    let unlocks = vec![essence.unlock(&owner())];
    Transaction { essence, unlocks }
}

pub(crate) fn in_block(params: &NetworkParams, transaction: Transaction) -> Vec<u8> {
    in_block_with(params, Payload::Transaction(Box::new(transaction)))
}

pub(crate) fn in_block_with(params: &NetworkParams, payload: Payload) -> Vec<u8> {
    let mut block = Block::new(vec![params.genesis_block()], payload);
    let work = Work::of(&block.to_bytes());
    block.nonce = work.search(params.pow_bits, 0, 1_000_000).unwrap();
    block.to_bytes()
}

fn party(key: PublicKey, deposit: u64) -> Party {
    Party { key, payout: Address::of(&key), deposit: Amount::new(deposit) }
}

pub(crate) fn record() -> ChannelRecord {
    ChannelRecord::opened(&Open {
        party_a: party(key(20).public(), 500),
        party_b: party(key(21).public(), 0),
        contest_window_milestones: 10,
        expiry_milestone: 0,
    })
}

pub(crate) fn sign(essence: MilestoneEssence) -> Milestone {
    let signatures = coordinators().iter().take(2).map(|key| essence.sign(key)).collect();
    Milestone { essence, signatures }
}

/// What would follow `previous` with this much confirmed.
pub(crate) fn essence_after(previous: &MilestoneEssence, confirmed: &Confirmation) -> MilestoneEssence {
    MilestoneEssence {
        network: previous.network,
        index: previous.index + 1,
        timestamp_ms: previous.timestamp_ms + 1_000,
        previous: previous.id(),
        parents: previous.parents.clone(),
        included_root: confirmed.included_root,
        applied_root: confirmed.applied_root,
        channels_root: confirmed.channels_root,
        state_root: confirmed.state_root,
        next: None,
    }
}

/// A coordinator's whole ledger in memory.
pub(crate) struct Ledger {
    pub(crate) params: Arc<NetworkParams>,
    pub(crate) state: LedgerState,
    pub(crate) newest: MilestoneEssence,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let params = params();
        let state = LedgerState::from_entries(genesis_entries(&params));
        Self { newest: genesis_essence(&params), state, params }
    }

    /// The next milestone, confirming these blocks.
    pub(crate) fn confirm(&mut self, blocks: &[Vec<u8>]) -> (Followed, Confirmation) {
        let checked: Vec<(BlockId, Option<Checked>)> = blocks
            .iter()
            .map(|bytes| match Block::from_bytes(bytes, self.params.pow_bits).unwrap().payload {
                Payload::Transaction(transaction) => {
                    (Block::id_of(bytes), Some(Checked::new(*transaction, &self.params).unwrap()))
                }
                _ => (Block::id_of(bytes), None),
            })
            .collect();
        let by_reference: Vec<(BlockId, Option<&Checked>)> =
            checked.iter().map(|(id, checked)| (*id, checked.as_ref())).collect();
        let confirmation = self.state.confirm(self.newest.index + 1, &by_reference);
        self.state.accept(&confirmation);
        self.newest = essence_after(&self.newest, &confirmation);
        let followed =
            Followed { milestone: sign(self.newest.clone()), channels: confirmation.channels.clone() };
        (followed, confirmation)
    }

    pub(crate) fn next(&mut self) -> Followed {
        self.confirm(&[]).0
    }
}

fn core() -> LightCore {
    LightCore::new(params(), None).unwrap()
}

/// A core and the ledger it follows, both at milestone `index`.
fn followed_to(index: u64) -> (LightCore, Ledger) {
    let (mut core, mut ledger) = (core(), Ledger::new());
    for _ in 0..index {
        core.advance(&ledger.next()).unwrap();
    }
    (core, ledger)
}

#[test]
fn it_starts_from_the_genesis_or_a_checkpoint() {
    let (core, ledger) = followed_to(3);
    assert_eq!(core.newest(), &ledger.newest);
    let again = LightCore::new(params(), Some(core.checkpoint())).unwrap();
    assert_eq!(again.newest().index, 3);
    assert_eq!(again.essence(2), None);

    let mut foreign = core.checkpoint();
    foreign.essence.network = flash_proto::NetworkId::new([9; 32]);
    let error = LightCore::new(params(), Some(foreign)).unwrap_err();
    assert_eq!(error, LightError::Checkpoint { index: 3 });
    assert_eq!(error.fault(), Fault::Setup);
    let bad = NetworkParams { threshold: 0, ..(*params()).clone() };
    assert_eq!(LightCore::new(Arc::new(bad), None).unwrap_err().fault(), Fault::Setup);
}

#[test]
fn it_remembers_so_many_milestones() {
    let count = u64::try_from(REMEMBERED).unwrap() + 5;
    let (core, _) = followed_to(count);
    assert_eq!(core.newest().index, count);
    assert!(core.essence(6).is_some_and(|essence| essence.index == 6));
    assert_eq!(core.essence(5), None);
    assert_eq!(core.essence(count + 1), None);
    assert_eq!(core.before.len() + 1, REMEMBERED);
}

#[test]
fn too_few_or_foreign_signatures_are_a_lie() {
    let (mut core, mut ledger) = followed_to(1);
    let good = ledger.next();
    let mut few = good.clone();
    few.milestone.signatures.pop();
    let mut twice = good.clone();
    twice.milestone.signatures[1] = twice.milestone.signatures[0];
    let mut foreign = good.clone();
    foreign.milestone.signatures[1] = good.milestone.essence.sign(&key(99));
    foreign.milestone.signatures.sort_by_key(|signature| signature.coordinator);
    let mut swapped = good.clone();
    swapped.milestone.signatures[1].signature = swapped.milestone.signatures[0].signature;
    let mut changed = good.clone();
    changed.milestone.essence.state_root = Hash::ZERO;
    let mut network = good.clone();
    network.milestone.essence.network = flash_proto::NetworkId::new([9; 32]);

    let wrong = [few, twice, foreign, swapped, changed, network];
    let errors = wrong.map(|wrong| core.advance(&wrong).unwrap_err());
    assert!(matches!(errors[0], LightError::Milestone(MilestoneError::TooFewSignatures { .. })));
    assert!(matches!(errors[1], LightError::Milestone(MilestoneError::SignatureOrder)));
    assert!(matches!(errors[2], LightError::Milestone(MilestoneError::UnknownCoordinator(_))));
    assert!(matches!(errors[3], LightError::Milestone(MilestoneError::BadSignature(_))));
    assert!(matches!(errors[4], LightError::Milestone(MilestoneError::BadSignature(_))));
    assert!(matches!(errors[5], LightError::Milestone(MilestoneError::Network(_))));
    assert!(errors.iter().all(|error| error.fault() == Fault::Lied));
    core.advance(&good).unwrap();
}

#[test]
fn a_gap_is_no_step_and_a_repetition_neither() {
    let (mut core, mut ledger) = followed_to(1);
    let (second, third) = (ledger.next(), ledger.next());
    let error = core.advance(&third).unwrap_err();
    assert_eq!(error, LightError::OutOfOrder { got: 3, after: 1 });
    assert_eq!(error.fault(), Fault::Malformed);
    core.advance(&second).unwrap();
    assert_eq!(core.advance(&second).unwrap_err(), LightError::OutOfOrder { got: 2, after: 2 });
    core.advance(&third).unwrap();
}

#[test]
fn a_milestone_must_be_later() {
    let (mut core, mut ledger) = followed_to(1);
    let mut followed = ledger.next();
    followed.milestone.essence.timestamp_ms = core.newest().timestamp_ms;
    followed.milestone = sign(followed.milestone.essence);
    assert_eq!(core.advance(&followed).unwrap_err(), LightError::Milestone(MilestoneError::Time(2)));
}

#[test]
fn a_fork_stops_it_for_ever_and_is_kept() {
    for at in [1, 2, 4] {
        let (mut core, mut ledger) = followed_to(4);
        let known = core.essence(at).unwrap().clone();
        let other = sign(MilestoneEssence { timestamp_ms: known.timestamp_ms + 1, ..known.clone() });
        let error = core.advance(&Followed { milestone: other.clone(), channels: vec![] }).unwrap_err();
        assert_eq!(error.fault(), Fault::Fork);
        let fork = core.fork().unwrap().clone();
        assert_eq!((&fork.known.essence, &fork.other), (&known, &other));
        CoordinatorHistory::new(&params()).verify(&fork.known).unwrap();

        assert_eq!(core.advance(&ledger.next()).unwrap_err(), error);
        assert_eq!(core.witness(&fork.known).unwrap_err(), error);
        let proof = ledger.state.tree().prove(&StateKey::Channel(ChannelId::new([1; 32])).tree_key());
        assert_eq!(core.channel(ChannelId::new([1; 32]), 4, None, &proof).unwrap_err(), error);
    }
}

#[test]
fn a_successor_of_another_milestone_is_a_fork() {
    let (mut core, mut ledger) = followed_to(2);
    let mut followed = ledger.next();
    followed.milestone.essence.previous = flash_proto::MilestoneId::new([7; 32]);
    followed.milestone = sign(followed.milestone.essence);
    assert_eq!(core.advance(&followed).unwrap_err().fault(), Fault::Fork);
    assert!(core.fork().is_some());
}

#[test]
fn an_unsigned_fork_is_only_a_lie() {
    let (mut core, mut ledger) = followed_to(2);
    let mut other = sign(MilestoneEssence { timestamp_ms: 1, ..core.newest().clone() });
    other.signatures.pop();
    assert_eq!(core.witness(&other).unwrap_err().fault(), Fault::Lied);
    core.advance(&ledger.next()).unwrap();
}

#[test]
fn the_changed_channels_are_those_the_milestone_commits_to() {
    let (mut core, _) = followed_to(1);
    let channels: Vec<ChannelId> = (1..=3).map(|n| ChannelId::new([n; 32])).collect();
    let channels_root = merkle::root(channels.iter().map(|channel| *channel.as_bytes()));
    let essence = MilestoneEssence {
        index: 2,
        timestamp_ms: core.newest().timestamp_ms + 1,
        previous: core.newest().id(),
        channels_root,
        ..core.newest().clone()
    };
    let milestone = sign(essence);
    let reversed = channels.iter().rev().copied().collect();
    for wrong in [vec![], channels[1..].to_vec(), reversed, [&channels[..], &channels[2..]].concat()] {
        let error = core.advance(&Followed { milestone: milestone.clone(), channels: wrong }).unwrap_err();
        assert_eq!(error, LightError::Channels { index: 2 });
        assert_eq!(error.fault(), Fault::Lied);
    }
    // A signed list that is not sorted is no list either.
    let unsorted: Vec<ChannelId> = channels.iter().rev().copied().collect();
    let channels_root = merkle::root(unsorted.iter().map(|channel| *channel.as_bytes()));
    let signed = sign(MilestoneEssence { channels_root, ..milestone.essence.clone() });
    assert!(core.clone().advance(&Followed { milestone: signed, channels: unsorted }).is_err());
    core.advance(&Followed { milestone, channels }).unwrap();
}

#[test]
fn channels_and_outputs_are_proven() {
    let (id, absent) = (ChannelId::new([5; 32]), ChannelId::new([6; 32]));
    let params = params();
    let entries = genesis_entries(&params).chain([(StateKey::Channel(id), StateValue::Channel(record()))]);
    let state = LedgerState::from_entries(entries);
    let (mut core, _) = followed_to(1);
    let essence = MilestoneEssence {
        index: 2,
        timestamp_ms: core.newest().timestamp_ms + 1,
        previous: core.newest().id(),
        state_root: state.root(),
        ..core.newest().clone()
    };
    core.advance(&Followed { milestone: sign(essence), channels: vec![] }).unwrap();
    let prove = |key: StateKey| state.tree().prove(&key.tree_key());

    let proof = prove(StateKey::Channel(id));
    core.channel(id, 2, Some(&record()), &proof).unwrap();
    let other = ChannelRecord { contest_window_milestones: 11, ..record() };
    for lie in [
        core.channel(id, 2, Some(&other), &proof),
        core.channel(id, 2, None, &proof),
        core.channel(absent, 2, Some(&record()), &proof),
        core.channel(id, 1, Some(&record()), &proof),
        core.channel(id, 2, Some(&record()), &prove(StateKey::Channel(absent))),
        core.channel(id, 2, None, &prove(StateKey::Channel(absent))),
    ] {
        assert_eq!(lie.unwrap_err().fault(), Fault::Lied);
    }
    core.channel(absent, 2, None, &prove(StateKey::Channel(absent))).unwrap();

    let (key, StateValue::Output(output)) = genesis_entries(&params).next().unwrap() else { panic!() };
    let StateKey::Output(output_id) = key else { panic!() };
    core.output(output_id, 2, Some(&output), &prove(key)).unwrap();
    let more = Output { amount: Amount::new(1_000_001), ..output };
    assert_eq!(core.output(output_id, 2, Some(&more), &prove(key)).unwrap_err().fault(), Fault::Lied);
}

#[test]
fn a_milestone_counts_unchecked_only_as_it_was_checked() {
    let (mut core, ledger) = followed_to(3);
    let checked = core.newest.as_ref().clone();
    core.witness(&checked).unwrap();
    let none = Milestone { signatures: Vec::new(), ..checked.clone() };
    assert_eq!(core.witness(&none).unwrap_err().fault(), Fault::Lied);
    let mut other = checked.clone();
    other.signatures[0].signature = core.before[2].signatures[0].signature;
    assert_eq!(core.witness(&other).unwrap_err().fault(), Fault::Lied);
    // What it starts from was signed at some time, but is not shown to be.
    let mut restarted = LightCore::new(params(), Some(core.checkpoint())).unwrap();
    assert_eq!(restarted.witness(&none).unwrap_err().fault(), Fault::Lied);
    assert_eq!(none.essence, ledger.newest);
    restarted.witness(&checked).unwrap();
}

#[test]
fn old_and_early_proofs_do_not_count() {
    let (mut core, ledger) = followed_to(20);
    let id = ChannelId::new([5; 32]);
    let proof = ledger.state.tree().prove(&StateKey::Channel(id).tree_key());
    core.channel(id, 20, None, &proof).unwrap();
    core.channel(id, 20 - PROOF_AGE_MAX, None, &proof).unwrap();
    let old = core.channel(id, 20 - PROOF_AGE_MAX - 1, None, &proof).unwrap_err();
    assert_eq!((old.fault(), old), (Fault::Stale, LightError::Stale { milestone_index: 11, newest: 20 }));
    let early = core.channel(id, 21, None, &proof).unwrap_err();
    assert_eq!((early.fault(), early), (Fault::Ahead, LightError::Ahead { milestone_index: 21, newest: 20 }));
    let mut restarted = LightCore::new(params(), Some(core.checkpoint())).unwrap();
    assert_eq!(restarted.channel(id, 19, None, &proof).unwrap_err().fault(), Fault::Stale);
}

#[test]
fn an_applied_transaction_is_proven_at_any_age() {
    let (mut core, mut ledger) = (core(), Ledger::new());
    let transaction = transfer(&ledger.params, Address::new([8; 32]));
    let block = in_block(&ledger.params, transaction.clone());
    let (followed, confirmation) = ledger.confirm(std::slice::from_ref(&block));
    assert_eq!(confirmation.applied.len(), 1);
    let path = merkle::prove([*Block::id_of(&block).as_bytes()], 0).unwrap();
    let (id, milestone) = (transaction.id(), &followed.milestone);

    // Before the milestone is followed, and long after it is forgotten.
    let applied = core.applied(id, &block, milestone, &path).unwrap();
    assert_eq!(applied.transaction, transaction);
    assert_eq!((applied.milestone_index, applied.block), (1, Block::id_of(&block)));
    core.advance(&followed).unwrap();
    for _ in 0..150 {
        core.advance(&ledger.next()).unwrap();
    }
    core.applied(id, &block, milestone, &path).unwrap();

    let mut unsigned = milestone.clone();
    unsigned.signatures.clear();
    let mut broken = block.clone();
    *broken.last_mut().unwrap() ^= 1;
    let mut empty = Block::new(vec![ledger.params.genesis_block()], Payload::Empty);
    empty.nonce = Work::of(&empty.to_bytes()).search(ledger.params.pow_bits, 0, 1_000_000).unwrap();
    let resigned = Transaction {
        unlocks: vec![Unlock { key: key(1).public(), ..transaction.unlocks[0] }],
        ..transaction.clone()
    };
    let not_the_one = in_block(&ledger.params, resigned);
    let elsewhere = ledger.next();
    for lie in [
        core.applied(TransactionId::new([1; 32]), &block, milestone, &path),
        core.applied(id, &block, &unsigned, &path),
        core.applied(id, &block[1..], milestone, &path),
        core.applied(id, &broken, milestone, &path),
        core.applied(id, &empty.to_bytes(), milestone, &path),
        core.applied(id, &not_the_one, milestone, &path),
        core.applied(id, &block, &elsewhere.milestone, &path),
        core.applied(id, &block, milestone, &AuditPath { siblings: vec![Hash::ZERO], ..path.clone() }),
    ] {
        assert_eq!(lie.unwrap_err().fault(), Fault::Lied);
    }
}

#[test]
fn an_included_block_is_proven_at_any_age() {
    let (mut core, mut ledger) = (core(), Ledger::new());
    let first = in_block(&ledger.params, transfer(&ledger.params, Address::new([8; 32])));
    let second = in_block(&ledger.params, transfer(&ledger.params, Address::new([9; 32])));
    let blocks = [first, second];
    let (followed, confirmation) = ledger.confirm(&blocks);
    assert_eq!(confirmation.applied.len(), 1);
    let leaves = || blocks.iter().map(|block| *Block::id_of(block).as_bytes());
    let (id, milestone) = (Block::id_of(&blocks[1]), &followed.milestone);
    let path = merkle::prove(leaves(), 1).unwrap();

    core.advance(&followed).unwrap();
    for _ in 0..150 {
        core.advance(&ledger.next()).unwrap();
    }
    // The second is rejected, but confirmed all the same.
    let included = core.included(id, &blocks[1], milestone, &path).unwrap();
    assert_eq!(included.milestone_index, 1);
    assert_eq!(included.block.to_bytes(), blocks[1]);

    let mut unsigned = milestone.clone();
    unsigned.signatures.clear();
    for lie in [
        core.included(id, &blocks[0], milestone, &path),
        core.included(Block::id_of(&blocks[0]), &blocks[0], milestone, &path),
        core.included(id, &blocks[1], &unsigned, &path),
        core.included(id, &blocks[1], &ledger.next().milestone, &path),
        core.included(id, &blocks[1], milestone, &merkle::prove(leaves(), 0).unwrap()),
    ] {
        assert_eq!(lie.unwrap_err().fault(), Fault::Lied);
    }
}

#[test]
fn a_known_milestone_is_confirmed_by_others() {
    let (mut core, mut ledger) = followed_to(1);
    let block = in_block(&ledger.params, open(&ledger.params));
    let (followed, _) = ledger.confirm(&[block]);
    core.advance(&followed).unwrap();
    core.confirm(&followed).unwrap();
    let hidden = Followed { channels: vec![], ..followed.clone() };
    assert_eq!(core.confirm(&hidden).unwrap_err(), LightError::Channels { index: 2 });
    let mut few = followed.clone();
    few.milestone.signatures.pop();
    assert_eq!(core.confirm(&few).unwrap_err().fault(), Fault::Lied);
    let other = MilestoneEssence { timestamp_ms: 9_999_999, ..followed.milestone.essence };
    let error = core.confirm(&Followed { milestone: sign(other), ..followed }).unwrap_err();
    assert_eq!(error.fault(), Fault::Fork);
}
