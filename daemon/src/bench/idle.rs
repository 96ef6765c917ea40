//! Many channels that nobody uses, in a node's ledger and in a daemon's store, made before either runs.

use std::path::Path;

use flash_channel::{
    Channel,
    machine::{Agreement, Effects, Input, LedgerView, Origin},
    store::{Batch, StoreKind},
};
use flash_node_client::{
    ledger::check::deposits_min,
    node::{
        Node, NodeConfig, Received, Source,
        dev::{DevKeys, DevNetwork},
    },
    wallet::{Seed, Wallet, new_words},
};
use flash_proto::{
    Action, Address, Amount, Block, BlockId, ChannelRecord, Essence, NetworkParams, Open, Output, OutputId,
    Payload, PublicKey, SecretKey, Side, Transaction, TransactionId, record::Party,
    transaction::commit_inputs,
};

use crate::{
    backup::restore, datadir::DataDir, events::now_ms, failure::Failure, node_service, setup, tables,
};

/// Channels of one milestone, and of one commit.
const AT_ONCE: u32 = 4_096;
/// Long, so that nothing expires meanwhile.
const WINDOW_MILESTONES: u32 = 1_000;
const EXPIRY_MILESTONE: u64 = 1_000_000;

/// Makes the directory `node` in `dir` with a development network, and the directory `name` with a daemon that has
/// so many open channels, all with one machine that is never there. `say` is told how many there are.
///
/// # Errors
/// [`Failure`].
pub fn fill(
    dir: &Path,
    name: &str,
    milestone_ms: u64,
    channels: u32,
    say: impl Fn(u32),
) -> Result<(), Failure> {
    let node_dir = DataDir::create(&dir.join("node"))?;
    let dev = DevNetwork { milestone_interval_ms: milestone_ms, pow_bits: 0 };
    let keys = node_service::make_dev(&node_dir, dev)?;
    let words = new_words().map_err(Failure::new)?;
    let data = dir.join(name);
    let setup = setup::Setup {
        data: &data,
        network: &keys.params,
        words: Some(words.clone()),
        passphrase: None,
        node: None,
    };
    setup::init(setup, None).map_err(|error| Failure { message: error.to_string(), exit: error.exit() })?;
    let seed = Seed::from_words(&words, "").map_err(Failure::new)?;
    let store =
        StoreKind::open(None, &DataDir::open(&data)?.store_path(), &restore::identity(&keys.params, &seed))?;
    let mut ledger = Ledger::open(node_dir.store_path(), keys)?;
    let peer = SecretKey::from_bytes([9; 32]).public();
    let mut wallet = Wallet::new(seed.clone());
    let mut made = 0_u32;
    while made < channels {
        let until = made.saturating_add(AT_ONCE).min(channels);
        let mut batch = Batch::new();
        for _ in made..until {
            let (index, secret) = wallet.fresh_channel_key().map_err(Failure::new)?;
            let key = secret.public();
            let payout = wallet.fresh_address().map_err(Failure::new)?;
            let transaction = ledger.add(open(&ledger.keys.params, (key, payout), peer))?;
            batch.append(&mut records(&ledger.keys.params, transaction, secret, index, peer)?);
        }
        tables::put_wallet(&mut batch, wallet.take_changes());
        tables::put_searched(&mut batch);
        ledger.milestone()?;
        let _durable = store.commit(&batch)?;
        made = until;
        say(made);
    }
    Ok(())
}

fn open(params: &NetworkParams, (key, payout): (PublicKey, Address), peer: PublicKey) -> Open {
    Open {
        party_a: Party { key, payout, deposit: deposits_min(params) },
        party_b: Party { key: peer, payout: Address::of(&peer), deposit: Amount::ZERO },
        contest_window_milestones: WINDOW_MILESTONES,
        expiry_milestone: EXPIRY_MILESTONE,
    }
}

/// What a daemon keeps of a channel that was opened.
fn records(
    params: &NetworkParams,
    transaction: Transaction,
    key: SecretKey,
    key_index: u32,
    peer: PublicKey,
) -> Result<Batch, Failure> {
    let Action::Open(open) = transaction.essence.action else {
        return Err(Failure::new("a transaction that opens nothing"));
    };
    let origin = Origin::Agreed(Box::new(transaction));
    let agreement = Agreement { network: params.id(), side: Side::A, peer, key_index, origin, open };
    let mut effects = Effects::default();
    let mut channel = Channel::new(agreement, key, &mut effects);
    let seen = LedgerView { index: 1, record: Some(ChannelRecord::opened(&open)), payouts: None };
    channel.handle(Input::Ledger(seen), &mut effects).map_err(Failure::new)?;
    channel.finish(&mut effects);
    Ok(effects.batch)
}

/// A node that does not run, and whose treasury pays for one channel after the other.
struct Ledger {
    node: Node,
    keys: DevKeys,
    change: (OutputId, Output),
    parents: [BlockId; 2],
    blocks: Vec<Vec<u8>>,
}

impl Ledger {
    fn open(directory: std::path::PathBuf, keys: DevKeys) -> Result<Self, Failure> {
        let config = NodeConfig { index: false, ..NodeConfig::new(directory, keys.params.clone()) };
        let node = Node::open(config).map_err(Failure::new)?;
        let genesis = TransactionId::new(*keys.params.id().as_bytes());
        let first = keys.params.genesis.first().copied();
        let first = first.ok_or_else(|| Failure::new("a network without money"))?;
        let change = (OutputId { transaction: genesis, index: 0 }, first);
        let parents = [keys.params.genesis_block(); 2];
        Ok(Self { node, keys, change, parents, blocks: Vec::new() })
    }

    /// Opens a channel with the next milestone.
    fn add(&mut self, open: Open) -> Result<Transaction, Failure> {
        let (id, spent) = self.change;
        let left = spent.amount.checked_sub(open.party_a.deposit);
        let left = left.filter(|left| *left >= self.keys.params.output_min);
        let amount =
            left.ok_or_else(|| Failure::new("so many channels are more than the treasury pays for"))?;
        let change = Output { address: spent.address, amount };
        let essence = Essence {
            network: self.keys.params.id(),
            inputs: vec![id],
            inputs_commitment: commit_inputs(&[spent]),
            outputs: vec![change],
            action: Action::Open(open),
        };
        let unlocks = vec![essence.unlock(&self.keys.treasury)];
        let transaction = Transaction { essence, unlocks };
        self.change = (OutputId { transaction: transaction.id(), index: 0 }, change);
        let block = Block::new(self.parents.to_vec(), Payload::Transaction(Box::new(transaction.clone())));
        self.parents = [self.parents[1], block.id()];
        self.blocks.push(block.to_bytes());
        Ok(transaction)
    }

    fn milestone(&mut self) -> Result<(), Failure> {
        let blocks = std::mem::take(&mut self.blocks);
        let received = self.node.receive(&blocks, Source::Sent).map_err(Failure::new)?;
        if let Some(other) = received.into_iter().find(|received| *received != Received::Added) {
            return Err(Failure::new(format!("the node does not take a block: {other:?}")));
        }
        let coordinator = std::slice::from_ref(&self.keys.coordinator);
        self.node.issue_milestone(now_ms(), coordinator).map_err(Failure::new)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flash_channel::machine::tables::channels;
    use flash_node_client::{
        protocol::{NodeRequest, NodeResponse},
        wallet::Account,
    };

    use super::*;

    #[test]
    fn a_daemon_finds_its_channels_open() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), "idle", 1_000, 5, |_| ()).unwrap();
        let data = DataDir::open(&dir.path().join("idle")).unwrap();
        let seed = crate::run::read_seed(&data).unwrap();
        let params = data.network().unwrap();
        let store = StoreKind::open(None, &data.store_path(), &restore::identity(&params, &seed)).unwrap();
        let ids = channels(&store).unwrap();
        assert_eq!(ids.len(), 5);
        let node_store = dir.path().join("node").join("store");
        let node = Node::open(NodeConfig { index: false, ..NodeConfig::new(node_store, params) }).unwrap();
        for id in ids {
            let channel = Channel::load(id, |index| seed.key(Account::Channels, index), &store).unwrap();
            assert_eq!(channel.state(), "open");
            let answer = node.answer(NodeRequest::Channel(id));
            let has = matches!(answer, NodeResponse::Channel { record: Some(_), .. });
            assert!(has, "the ledger has it, too: {answer:?}");
        }
    }
}
