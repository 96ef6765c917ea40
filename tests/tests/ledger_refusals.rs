//! What the ledger must not take: refused at the door, or confirmed without any effect.

use flash_node_client::{
    ledger::Conflict,
    protocol::{NodeRequest, NodeResponse, RefusedCode, TransactionAnswer},
};
use flash_proto::{
    Action, Address, Amount, Block, BlockId, ChannelId, Essence, Hash, Milestone, NetworkId, Output,
    OutputId, Payload, SecretKey, Side, Transaction, TransactionId,
    block::Work,
    limits,
    transaction::{CooperativeClose, UnilateralClose, commit_inputs},
};
use flash_tests::{Net, RawNode, poll};

const MONEY: u64 = 1_000_000;

/// A network, somebody with money, and a connection without manners.
struct Scene {
    net: Net,
    node: RawNode,
    owner: SecretKey,
    /// What the owner has: one output.
    input: (OutputId, Output),
    state_root: Hash,
}

impl Scene {
    async fn set() -> Self {
        let net = Net::start().await;
        let owner = SecretKey::from_bytes(rand::random());
        let address = Address::of(&owner.public());
        net.fund(address, Amount::new(MONEY)).await;
        let outputs = net.client.outputs_of(&[address]).await.unwrap().value;
        let node = RawNode::connect(&net.node.address).await;
        let state_root = net.info().await.state_root;
        Self { net, node, owner, input: outputs[0], state_root }
    }

    /// A transfer of all the owner has, in these parts, to others.
    fn transfer(&self, parts: &[u64]) -> Essence {
        let to = Address::of(&SecretKey::from_bytes(rand::random()).public());
        let outputs = parts.iter().map(|part| Output { address: to, amount: Amount::new(*part) });
        Essence {
            network: self.net.params().id(),
            inputs: vec![self.input.0],
            inputs_commitment: commit_inputs(&[self.input.1]),
            outputs: outputs.collect(),
            action: Action::Transfer,
        }
    }

    fn signed(&self, essence: Essence) -> Transaction {
        let unlocks = essence.inputs.iter().map(|_| essence.unlock(&self.owner)).collect();
        Transaction { essence, unlocks }
    }

    async fn block(&self, payload: Payload) -> Block {
        let mut block = Block::new(self.node.tips().await, payload);
        self.work(&mut block);
        block
    }

    fn work(&self, block: &mut Block) {
        let work = Work::of(&block.to_bytes());
        block.nonce = work.search(self.net.params().pow_bits, 0, u64::MAX).expect("a nonce");
    }

    async fn submit(&self, bytes: Vec<u8>) -> Result<BlockId, (RefusedCode, String)> {
        match self.node.ask(&NodeRequest::Submit(bytes)).await {
            NodeResponse::Submitted(id) => Ok(id),
            NodeResponse::Refused(refused) => Err((refused.code, refused.reason)),
            other => panic!("{other:?}"),
        }
    }

    async fn submit_transaction(&self, transaction: Transaction) -> Result<BlockId, (RefusedCode, String)> {
        let block = self.block(Payload::Transaction(Box::new(transaction))).await;
        self.submit(block.to_bytes()).await
    }

    /// What a milestone made of a transaction.
    async fn decided(&self, id: TransactionId) -> Result<u64, Conflict> {
        poll("a milestone to decide", || async {
            match self.node.ask(&NodeRequest::Transaction(id)).await {
                NodeResponse::Transaction(answer) => match *answer {
                    TransactionAnswer::Applied { milestone, .. } => Some(Ok(milestone.essence.index)),
                    TransactionAnswer::Rejected { conflict, .. } => Some(Err(conflict)),
                    _ => None,
                },
                other => panic!("{other:?}"),
            }
        })
        .await
    }

    /// Two more milestones leave the ledger as it was.
    async fn assert_unchanged(&self) {
        let info = self.net.milestones(2).await;
        assert_eq!(info.state_root, self.state_root);
        self.net.assert_supply().await;
    }
}

fn assert_refused(
    case: &str,
    submitted: Result<BlockId, (RefusedCode, String)>,
    wanted: RefusedCode,
    why: &str,
) {
    let Err((code, reason)) = submitted else { panic!("{case}: taken") };
    assert_eq!(code, wanted, "{case}: {reason}");
    assert!(reason.contains(why), "{case}: `{reason}` should say `{why}`");
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_can_never_be_valid_are_refused_at_the_door() {
    let scene = Scene::set().await;
    let all = || scene.transfer(&[MONEY]);
    let mut twice = all();
    twice.inputs.push(scene.input.0);
    let mut forged = scene.signed(all());
    forged.unlocks[0].signature = forged.essence.unlock(&SecretKey::from_bytes([9; 32])).signature;
    let mut unsigned = scene.signed(all());
    unsigned.unlocks.clear();
    let cases = [
        (
            "another network's",
            scene.signed(Essence { network: NetworkId::new([7; 32]), ..all() }),
            "for another network",
        ),
        ("a forged signature", forged, "the signature of unlock 0 is not valid"),
        ("no signature", unsigned, "0 unlocks, but 1 are needed"),
        ("an input twice", scene.signed(twice), "an input is named twice"),
        ("nothing spent", scene.signed(Essence { inputs: Vec::new(), ..all() }), "inputs, not 0"),
        ("dust", scene.signed(scene.transfer(&[MONEY - 1, 1])), "smaller than the network's minimum"),
        (
            "more than the supply",
            scene.signed(scene.transfer(&[Amount::SUPPLY.units(), MONEY])),
            "more than the supply",
        ),
        ("overflow", scene.signed(scene.transfer(&[u64::MAX, u64::MAX])), "more than the supply"),
    ];
    for (case, transaction, why) in cases {
        let submitted = scene.submit_transaction(transaction).await;
        assert_refused(case, submitted, RefusedCode::InvalidBlock, why);
    }
    scene.assert_unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_are_none_are_refused_at_the_door() {
    let scene = Scene::set().await;
    let good = scene.block(Payload::Empty).await;

    let work = Work::of(&good.to_bytes());
    let wanted = u32::from(scene.net.params().pow_bits);
    let lazy = (0..u64::MAX).find(|nonce| work.bits(*nonce) < wanted).unwrap();
    let lazy = Block { nonce: lazy, ..good.clone() };
    assert_refused("work", scene.submit(lazy.to_bytes()).await, RefusedCode::InvalidBlock, "proof of work");

    let mut orphan = Block::new(vec![BlockId::new([1; 32])], Payload::Empty);
    scene.work(&mut orphan);
    assert_refused("orphan", scene.submit(orphan.to_bytes()).await, RefusedCode::UnknownParent, "");

    let mut rootless = Block { parents: Vec::new(), ..good.clone() };
    scene.work(&mut rootless);
    let refused = scene.submit(rootless.to_bytes()).await;
    assert_refused("no parents", refused, RefusedCode::InvalidBlock, "1 to 8 parents");

    let bytes = good.to_bytes();
    let malformed: [(&str, Vec<u8>); 4] = [
        ("nothing", Vec::new()),
        ("noise", (0..500).map(|_| rand::random()).collect()),
        ("cut off", bytes[..bytes.len() - 1].to_vec()),
        ("trailing", [&bytes[..], &[0]].concat()),
    ];
    for (case, bytes) in malformed {
        assert_refused(case, scene.submit(bytes).await, RefusedCode::InvalidBlock, "");
    }
    let long = vec![0; limits::BLOCK_BYTES_MAX + 1];
    assert_refused("too long", scene.submit(long).await, RefusedCode::InvalidBlock, "");
    assert!(scene.submit(good.to_bytes()).await.is_ok(), "what all of these were made from is a block");
    scene.assert_unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn milestones_come_from_the_coordinator_only() {
    let scene = Scene::set().await;
    let newest = scene.net.client.milestone(None).await.unwrap();
    let before = scene.net.client.newest().index;
    for key in [scene.owner.clone(), scene.net.key("treasury")] {
        let mut essence = newest.essence.clone();
        essence.index += 1;
        essence.previous = newest.id();
        essence.timestamp_ms += 1;
        essence.state_root = Hash::new([6; 32]);
        let signatures = vec![essence.sign(&key)];
        let parents = essence.parents.clone();
        let payload = Payload::Milestone(Box::new(Milestone { essence, signatures }));
        let mut block = Block::new(parents, payload);
        scene.work(&mut block);
        let refused = scene.submit(block.to_bytes()).await;
        assert_refused("a milestone", refused, RefusedCode::InvalidMilestone, "no coordinator");
    }
    scene.assert_unchanged().await;
    assert!(scene.net.client.newest().index > before, "the real ones go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_spend_the_same_one_counts() {
    let scene = Scene::set().await;
    let rivals = [scene.signed(scene.transfer(&[MONEY])), scene.signed(scene.transfer(&[MONEY]))];
    let ids = rivals.each_ref().map(Transaction::id);
    for rival in rivals {
        scene.submit_transaction(rival).await.expect("both are valid by themselves");
    }
    let decided = [scene.decided(ids[0]).await, scene.decided(ids[1]).await];
    let applied = decided.iter().filter(|it| it.is_ok()).count();
    assert_eq!(applied, 1, "{decided:?}");
    assert!(decided.contains(&Err(Conflict::InputMissing)), "{decided:?}");
    // Long afterwards it is no better.
    let late = scene.signed(scene.transfer(&[MONEY / 2, MONEY / 2]));
    let id = late.id();
    scene.submit_transaction(late).await.unwrap();
    assert_eq!(scene.decided(id).await, Err(Conflict::InputMissing));
    scene.net.assert_supply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_contradict_the_ledger_are_confirmed_without_effect() {
    let scene = Scene::set().await;
    let network = scene.net.params().id();
    let all = || scene.transfer(&[MONEY]);
    let thief = SecretKey::from_bytes([9; 32]);
    let stolen = {
        let essence = all();
        let unlocks = vec![essence.unlock(&thief)];
        Transaction { essence, unlocks }
    };
    let channel = ChannelId::new([4; 32]);
    let alone = {
        let close = UnilateralClose { channel, closer: Side::A, balance: None };
        let essence = Essence::acting(network, Action::UnilateralClose(close));
        let unlocks = vec![essence.unlock(&scene.owner)];
        Transaction { essence, unlocks }
    };
    let together = {
        let (payout_a, payout_b) = (Amount::new(MONEY), Amount::new(MONEY));
        let close = CooperativeClose {
            channel,
            final_seq_a: 0,
            final_seq_b: 0,
            payout_a,
            payout_b,
            expiry_milestone: 1_000_000,
        };
        let essence = Essence::acting(network, Action::CooperativeClose(close));
        let unlocks = vec![essence.unlock(&scene.owner), essence.unlock(&thief)];
        Transaction { essence, unlocks }
    };
    let missing = OutputId { transaction: TransactionId::new([8; 32]), index: 0 };
    let cases = [
        ("one more than there was", scene.signed(scene.transfer(&[MONEY + 1])), Conflict::Sum),
        ("one less than there was", scene.signed(scene.transfer(&[MONEY - 1])), Conflict::Sum),
        (
            "another view of what is spent",
            scene.signed(Essence { inputs_commitment: Hash::new([1; 32]), ..all() }),
            Conflict::InputsCommitment,
        ),
        ("somebody else's money", stolen, Conflict::WrongKey),
        (
            "money that never was",
            scene.signed(Essence { inputs: vec![missing], ..all() }),
            Conflict::InputMissing,
        ),
        ("a channel that never was, alone", alone, Conflict::ChannelUnknown),
        ("a channel that never was, together", together, Conflict::ChannelUnknown),
    ];
    for (case, transaction, wanted) in cases {
        let id = transaction.id();
        scene.submit_transaction(transaction).await.unwrap_or_else(|refused| panic!("{case}: {refused:?}"));
        assert_eq!(scene.decided(id).await, Err(wanted), "{case}");
    }
    scene.assert_unchanged().await;
}
