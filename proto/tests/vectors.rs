//! Proves that the signed layouts, hashes and wire bytes are what `vectors/*.json` says, so that a
//! change of any of them is seen. `vectors/check.py` rebuilds the same from the fields alone, in
//! another language.
//!
//! After a deliberate change of a format, write the files anew with
//! `FLASH_WRITE_VECTORS=1 cargo test -p flash-proto --test vectors`.

use std::{fs, path::Path};

use flash_proto::{
    Action, Address, Amount, Block, BlockId, ChannelId, ChannelPhase, ChannelRecord, Claim,
    CoordinatorHistory, CoordinatorSet, Essence, Hash, LaneClaim, LaneState, Milestone, MilestoneEssence,
    MilestoneId, NetworkId, NetworkParams, Open, Output, OutputId, Payload, Payment, PaymentList, SecretKey,
    Side, StateKey, TickChain, TickProof, TickStep, TickTerms, Transaction, TransactionId,
    block::{Data, Work},
    codec,
    message::{
        ChannelMessage, Hello, PROTOCOL_VERSION, PauseReason, Reestablish, Refusal, RefusalCode, Stake,
        Stakes, StreamStart, Update,
    },
    record::Party,
    tower::{
        Claimable, TowerRefusal, TowerRefusalCode, TowerRequest, TowerResponse, client_hash, receipt_hash,
    },
    transaction::{CooperativeClose, TopUp, UnilateralClose, Withdraw, commit_inputs},
};
use serde_json::{Value, json};

const NETWORK: NetworkId = NetworkId::new([0x11; 32]);
const CHANNEL: ChannelId = ChannelId::new([0x22; 32]);

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn secret(n: u8) -> String {
    hex::encode([n; 32])
}

/// Compares with the committed file, or writes it when asked to.
fn check(name: &str, made: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
    let text = format!("{}\n", serde_json::to_string_pretty(made).unwrap());
    if std::env::var_os("FLASH_WRITE_VECTORS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "{name} differs from what the code makes");
}

fn payments(items: &[(u64, &str)]) -> PaymentList {
    let mut list = PaymentList::new();
    for (amount, reference) in items {
        list.push(&Payment::new(Amount::new(*amount), reference.as_bytes()).unwrap()).unwrap();
    }
    list
}

fn lane_json(state: &LaneState) -> Value {
    json!({
        "channel": state.channel, "payer": state.payer, "seq": state.seq.to_string(),
        "cumulative": state.cumulative, "history": state.history,
        "tick_anchor": state.ticks.anchor, "tick_unit": state.ticks.unit, "tick_max": state.ticks.max,
        "locks_root": state.locks_root,
    })
}

#[test]
fn amounts() {
    let case = |text: &str| {
        let amount: Amount = text.parse().unwrap();
        json!({ "text": text, "units": amount, "printed": amount.to_string() })
    };
    let good =
        ["0", "1i", "999i", "1Ki", "1.5Ki", "1500i", "2Mi", "2.000001Mi", "1Gi", "2.779530283277761Pi"];
    let bad = ["", "Mi", "-1i", "0.5i", "1.i", "1mi", "1e3", "18446744073709551616i"];
    assert!(bad.iter().all(|text| text.parse::<Amount>().is_err()));
    check("amounts.json", &json!({ "good": good.map(case), "bad": bad }));
}

#[test]
fn keys_and_addresses() {
    let case = |n: u8| {
        let public = key(n).public();
        json!({ "secret": secret(n), "public": public, "address_bytes": hex::encode(Address::of(&public).as_bytes()), "address": Address::of(&public) })
    };
    check("addresses.json", &json!([1, 2, 3].map(case)));
}

#[test]
fn lanes() {
    let batches: [&[(u64, &str)]; 3] = [
        &[(1, "")],
        &[(1_500, "Wh 1"), (2_000_000, "Wh 2")],
        &[(u64::from(u32::MAX), "0123456789abcdef0123456789abcdef")],
    ];
    let mut state = LaneState::new(CHANNEL, Side::B);
    let mut steps = Vec::new();
    for batch in batches {
        let list = payments(batch);
        state = state.advance(&list).unwrap();
        let balance = state.sign(NETWORK, &key(4));
        steps.push(json!({
            "payments": batch.iter().map(|(amount, reference)| json!({ "amount": amount.to_string(), "reference": reference })).collect::<Vec<_>>(),
            "packed": hex::encode(list.as_bytes()),
            "state": lane_json(&state),
            "signing_hash": state.signing_hash(NETWORK),
            "signature": balance.signature,
        }));
    }
    state.ticks = TickTerms { anchor: Hash::new([0x33; 32]), unit: Amount::new(5), max: 4_096 };
    state.locks_root = Hash::new([0x44; 32]);
    let all_fields = json!({
        "state": lane_json(&state), "signing_hash": state.signing_hash(NETWORK),
        "signature": state.sign(NETWORK, &key(4)).signature,
    });
    check(
        "lanes.json",
        &json!({ "network": NETWORK, "secret": secret(4), "public": key(4).public(), "steps": steps, "all_fields": all_fields }),
    );
}

fn chain() -> TickChain {
    TickChain::new(Hash::new([0x33; 32]), Amount::new(5), 100).unwrap()
}

/// A lane with a chain in use.
fn ticking() -> LaneState {
    let terms = TickStep { folded: None, terms: chain().terms() };
    LaneState::new(CHANNEL, Side::A).step(&payments(&[(7, "r")]), &terms).unwrap()
}

fn proof_json(proof: &TickProof) -> Value {
    json!({ "index": proof.index, "preimage": proof.preimage })
}

fn claim_json(claim: &Claim) -> Value {
    let mut value = lane_json(&claim.state);
    value["ticks"] = claim.ticks.as_ref().map(proof_json).into();
    value
}

fn outputs() -> [Output; 2] {
    [
        Output { address: Address::of(&key(1).public()), amount: Amount::new(1_000_000) },
        Output { address: Address::of(&key(2).public()), amount: Amount::new(1) },
    ]
}

fn party(n: u8, deposit: u64) -> Party {
    Party { key: key(n).public(), payout: Address::new([n; 32]), deposit: Amount::new(deposit) }
}

fn essences() -> Vec<Essence> {
    let inputs = vec![
        OutputId { transaction: TransactionId::new([0x55; 32]), index: 0 },
        OutputId { transaction: TransactionId::new([0x66; 32]), index: 258 },
    ];
    let lane = LaneState::new(CHANNEL, Side::A).advance(&payments(&[(7, "r")])).unwrap();
    let spending = |action, outputs: Vec<Output>| Essence {
        network: NETWORK,
        inputs: inputs.clone(),
        inputs_commitment: commit_inputs(&self::outputs()),
        outputs,
        action,
    };
    let acting = |action| Essence::acting(NETWORK, action);
    let close =
        |balance| Action::UnilateralClose(UnilateralClose { channel: CHANNEL, closer: Side::B, balance });
    vec![
        spending(
            Action::Transfer,
            vec![Output { address: Address::new([9; 32]), amount: Amount::new(1_000_001) }],
        ),
        spending(
            Action::Open(Open {
                party_a: party(1, 700_000),
                party_b: party(2, 300_000),
                contest_window_milestones: 60,
                expiry_milestone: 1_000,
            }),
            vec![Output { address: Address::new([9; 32]), amount: Amount::new(1) }],
        ),
        acting(Action::CooperativeClose(CooperativeClose {
            channel: CHANNEL,
            final_seq_a: 3,
            final_seq_b: 0,
            payout_a: Amount::new(699_999),
            payout_b: Amount::new(300_001),
            expiry_milestone: 77,
        })),
        acting(close(None)),
        acting(close(Some(Claim::of(lane)))),
        acting(Action::Claim(Claim { state: ticking(), ticks: chain().reveal(7) })),
        spending(
            Action::TopUp(TopUp {
                channel: CHANNEL,
                side: Side::B,
                amount: Amount::new(1_000_000),
                expiry_milestone: 88,
            }),
            vec![Output { address: Address::new([9; 32]), amount: Amount::new(1) }],
        ),
        acting(Action::Withdraw(Withdraw {
            channel: CHANNEL,
            side: Side::A,
            amount: Amount::new(5_000),
            total: Amount::new(12_000),
            expiry_milestone: 99,
        })),
    ]
}

fn action_json(action: &Action) -> Value {
    let party = |party: &Party| json!({ "key": party.key, "payout": hex::encode(party.payout.as_bytes()), "deposit": party.deposit });
    let mut value = match action {
        Action::Transfer => json!({}),
        Action::Open(open) => json!({
            "party_a": party(&open.party_a), "party_b": party(&open.party_b),
            "contest_window_milestones": open.contest_window_milestones, "expiry_milestone": open.expiry_milestone.to_string(),
        }),
        Action::CooperativeClose(close) => json!({
            "channel": close.channel, "final_seq_a": close.final_seq_a.to_string(), "final_seq_b": close.final_seq_b.to_string(),
            "payout_a": close.payout_a, "payout_b": close.payout_b, "expiry_milestone": close.expiry_milestone.to_string(),
        }),
        Action::UnilateralClose(close) => json!({
            "channel": close.channel, "closer": close.closer, "balance": close.balance.as_ref().map(claim_json),
        }),
        Action::Claim(claim) => json!({ "balance": claim_json(claim) }),
        Action::TopUp(top_up) => json!({
            "channel": top_up.channel, "side": top_up.side, "amount": top_up.amount, "expiry_milestone": top_up.expiry_milestone.to_string(),
        }),
        Action::Withdraw(withdraw) => json!({
            "channel": withdraw.channel, "side": withdraw.side, "amount": withdraw.amount, "total": withdraw.total,
            "expiry_milestone": withdraw.expiry_milestone.to_string(),
        }),
    };
    value["kind"] = action.name().into();
    value
}

fn output_json(output: &Output) -> Value {
    json!({ "address": hex::encode(output.address.as_bytes()), "amount": output.amount })
}

#[test]
fn transactions() {
    let cases: Vec<Value> = essences()
        .iter()
        .map(|essence| {
            let transaction = Transaction { essence: essence.clone(), unlocks: vec![essence.unlock(&key(1))] };
            json!({
                "network": essence.network,
                "inputs": essence.inputs,
                "spent": if essence.inputs.is_empty() { vec![] } else { outputs().iter().map(output_json).collect() },
                "inputs_commitment": essence.inputs_commitment,
                "outputs": essence.outputs.iter().map(output_json).collect::<Vec<_>>(),
                "action": action_json(&essence.action),
                "id": essence.id(),
                "channel": transaction.channel(),
                "secret": secret(1),
                "signature": essence.unlock(&key(1)).signature,
                "bytes": hex::encode(codec::encode(&transaction)),
            })
        })
        .collect();
    check("transactions.json", &json!(cases));
}

#[test]
fn state() {
    let record = ChannelRecord {
        party_a: party(1, 700_000),
        party_b: party(2, 300_000),
        withdrawn_a: Amount::new(1),
        withdrawn_b: Amount::new(2),
        contest_window_milestones: 60,
        lane_a: LaneClaim { seq: 3, cumulative: Amount::new(4) },
        lane_b: LaneClaim { seq: 5, cumulative: Amount::new(6) },
        phase: ChannelPhase::Open,
    };
    let closing = ChannelRecord { phase: ChannelPhase::Closing { closer: Side::B, deadline: 99 }, ..record };
    let output_id = OutputId { transaction: TransactionId::new([0x55; 32]), index: 1 };
    check(
        "state.json",
        &json!({
            "output": { "id": output_id, "key": StateKey::Output(output_id).tree_key(), "output": output_json(&outputs()[0]), "value_hash": outputs()[0].value_hash() },
            "channel": {
                "id": CHANNEL, "key": StateKey::Channel(CHANNEL).tree_key(), "payout_a": CHANNEL.payout(Side::A), "payout_b": CHANNEL.payout(Side::B),
                "party_a": { "key": record.party_a.key, "payout": hex::encode(record.party_a.payout.as_bytes()), "deposit": record.party_a.deposit, "withdrawn": record.withdrawn_a, "seq": "3", "cumulative": "4" },
                "party_b": { "key": record.party_b.key, "payout": hex::encode(record.party_b.payout.as_bytes()), "deposit": record.party_b.deposit, "withdrawn": record.withdrawn_b, "seq": "5", "cumulative": "6" },
                "contest_window_milestones": 60,
                "open_value_hash": record.value_hash(),
                "closing": { "closer": "B", "deadline": "99" },
                "closing_value_hash": closing.value_hash(),
            },
        }),
    );
}

#[test]
fn blocks() {
    let parents = vec![BlockId::new([1; 32]), BlockId::new([2; 32])];
    let payloads = [
        Payload::Empty,
        Payload::Transaction(Box::new(Transaction {
            essence: essences().remove(5),
            unlocks: vec![essences()[5].unlock(&key(1))],
        })),
        Payload::Data(Data { tag: b"meter".to_vec(), data: vec![1, 2, 3] }),
    ];
    let cases: Vec<Value> = payloads
        .into_iter()
        .map(|payload| {
            let mut block = Block::new(parents.clone(), payload);
            block.nonce = Work::of(&block.to_bytes()).search(8, 0, 1_000_000).unwrap();
            let bytes = block.to_bytes();
            assert_eq!(Block::from_bytes(&bytes, 8).unwrap(), block);
            json!({ "bytes": hex::encode(&bytes), "id": block.id(), "nonce": block.nonce.to_string(), "work_bits": Work::of(&bytes).bits(block.nonce) })
        })
        .collect();
    check("blocks.json", &json!(cases));
}

#[test]
fn networks_and_milestones() {
    let mut coordinators = vec![key(5).public(), key(6).public()];
    coordinators.sort_unstable();
    let params = NetworkParams {
        name: "vectors".to_owned(),
        coordinators,
        threshold: 2,
        pow_bits: 8,
        output_min: Amount::new(1_000),
        milestone_interval_ms: 1_000,
        genesis_ms: 1_700_000_000_000,
        genesis: vec![Output { address: Address::new([9; 32]), amount: Amount::SUPPLY }],
    };
    params.check().unwrap();
    let essence = MilestoneEssence {
        network: params.id(),
        index: 1,
        timestamp_ms: 1_700_000_001_000,
        previous: MilestoneId::new([7; 32]),
        parents: vec![BlockId::new([1; 32]), BlockId::new([2; 32])],
        included_root: Hash::new([3; 32]),
        applied_root: Hash::new([4; 32]),
        channels_root: Hash::new([5; 32]),
        state_root: Hash::new([6; 32]),
        next: Some(CoordinatorSet { keys: vec![key(7).public()], threshold: 1 }),
    };
    let mut signatures = vec![essence.sign(&key(5)), essence.sign(&key(6))];
    signatures.sort_unstable_by_key(|signature| signature.coordinator);
    let milestone = Milestone { essence: essence.clone(), signatures: signatures.clone() };
    CoordinatorHistory::new(&params).verify(&milestone).unwrap();
    check(
        "milestones.json",
        &json!({
            "network": params, "genesis_bytes": params.genesis.iter().map(output_json).collect::<Vec<_>>(), "network_id": params.id(),
            "milestone": {
                "index": essence.index.to_string(), "timestamp_ms": essence.timestamp_ms.to_string(), "previous": essence.previous,
                "parents": essence.parents, "included_root": essence.included_root, "applied_root": essence.applied_root,
                "channels_root": essence.channels_root, "state_root": essence.state_root, "next": essence.next,
                "id": essence.id(),
                "signatures": signatures.iter().map(|s| json!({ "coordinator": s.coordinator, "signature": s.signature })).collect::<Vec<_>>(),
                "bytes": hex::encode(codec::encode(&milestone)),
            },
        }),
    );
}

#[test]
fn messages() {
    let state = LaneState::new(CHANNEL, Side::A).advance(&payments(&[(7, "r")])).unwrap();
    let balance = state.sign(NETWORK, &key(1));
    let Action::CooperativeClose(close) = essences()[2].action else { unreachable!("the third is a close") };
    let signature = essences()[2].unlock(&key(1)).signature;
    let stakes = Stakes {
        a: Stake { deposit: Amount::new(10), withdrawn: Amount::new(3) },
        b: Stake { deposit: Amount::new(20), withdrawn: Amount::ZERO },
    };
    let hello = Hello { version: PROTOCOL_VERSION, features: 0, network: NETWORK };
    let (mut chain, ticking) = (chain(), ticking());
    let third = chain.reveal(3);
    let folding = TickStep { folded: third, terms: TickTerms::NONE };
    let folded = ticking.step(&payments(&[(9, "")]), &folding).unwrap();
    let folding = Update {
        seq: folded.seq,
        cumulative: folded.cumulative,
        payments: payments(&[(9, "")]),
        ticks: Some(folding),
        signature: folded.sign(NETWORK, &key(1)).signature,
    };
    let Action::Withdraw(withdraw) = essences()[7].action else { unreachable!("the eighth is a withdraw") };
    let receipt = key(2).sign(&state.receipt_hash(NETWORK));
    let update = Update {
        seq: state.seq,
        cumulative: state.cumulative,
        payments: payments(&[(7, "r")]),
        ticks: None,
        signature: balance.signature,
    };
    let channel = |message: ChannelMessage| hex::encode(codec::encode(&message));
    check(
        "messages.json",
        &json!({
            "network": NETWORK, "channel": CHANNEL, "state": lane_json(&state), "balance_signature": balance.signature,
            "close": action_json(&essences()[2].action), "close_signature": signature,
            "start_control": hex::encode(codec::encode(&StreamStart::Control(hello))),
            "start_channel": hex::encode(codec::encode(&StreamStart::Channel(CHANNEL))),
            "reestablish": channel(ChannelMessage::Reestablish(Box::new(Reestablish {
                signed: Some(balance),
                signed_ticks: None,
                held: None,
                held_ticks: third,
                stakes,
            }))),
            "update": channel(ChannelMessage::Update(update)),
            "ack": channel(ChannelMessage::Ack { seq: 1 }),
            "balance": channel(ChannelMessage::Balance(Box::new(balance))),
            "paused": channel(ChannelMessage::Paused { held_seq: 1, reason: PauseReason::NotOpenYet }),
            "close_request": channel(ChannelMessage::CloseRequest),
            "close_signed": channel(ChannelMessage::CloseSigned { close, signature }),
            "close_complete": channel(ChannelMessage::CloseComplete { signature }),
            "tick": channel(ChannelMessage::Tick { seq: 1, proof: third.unwrap() }),
            "tick_ack": channel(ChannelMessage::TickAck { seq: 1, index: 3 }),
            "stakes": channel(ChannelMessage::Stakes(stakes)),
            "withdraw": action_json(&essences()[7].action),
            "withdraw_signed": channel(ChannelMessage::WithdrawSigned { withdraw, signature }),
            "withdraw_complete": channel(ChannelMessage::WithdrawComplete { withdraw, signature }),
            "receipt_request": channel(ChannelMessage::ReceiptRequest { seq: 1 }),
            "receipt_hash": state.receipt_hash(NETWORK),
            "receipt_signature": receipt,
            "receipt": channel(ChannelMessage::Receipt { seq: 1, signature: receipt }),
            "ticks": { "proof": proof_json(&third.unwrap()), "terms": lane_json(&ticking), "folded": lane_json(&folded) },
            "update_folding": channel(ChannelMessage::Update(folding)),
            "refuse": channel(ChannelMessage::Refuse(Refusal::new(RefusalCode::Policy, "no"))),
        }),
    );
}

#[test]
fn towers() {
    let mut chain = TickChain::new(Hash::new([7; 32]), Amount::new(5), 100).unwrap();
    let mut state = LaneState::new(CHANNEL, Side::A).advance(&payments(&[(7, "r")])).unwrap();
    state.ticks = chain.terms();
    let newest = Claimable { balance: state.sign(NETWORK, &key(1)), ticks: chain.reveal(3) };
    let ticks = newest.ticks.unwrap();
    let named = client_hash(NETWORK, CHANNEL, Side::A, &key(3).public());
    let (permit, receipt) = (key(2).sign(&named), receipt_hash(NETWORK, &newest));
    let request = |request: TowerRequest| hex::encode(codec::encode(&request));
    let response = |response: TowerResponse| hex::encode(codec::encode(&response));
    let refusal = TowerRefusal::new(TowerRefusalCode::NotThePayee, "no");
    check(
        "towers.json",
        &json!({
            "network": NETWORK, "state": lane_json(&state), "balance_signature": newest.balance.signature,
            "ticks": { "index": ticks.index, "preimage": ticks.preimage },
            "client": key(3).public(), "client_hash": named, "payee_secret": secret(2), "permit": permit,
            "receipt_hash": receipt, "tower_secret": secret(20), "receipt": key(20).sign(&receipt),
            "keep": request(TowerRequest::Keep { newest: Box::new(newest), permit }),
            "show": request(TowerRequest::Show { channel: CHANNEL, payer: Side::A, permit }),
            "holds": response(TowerResponse::Holds(key(20).sign(&receipt))),
            "newer": response(TowerResponse::Newer(Box::new(newest))),
            "shown": response(TowerResponse::Shown(Some(Box::new(Claimable { ticks: None, ..newest })))),
            "shown_nothing": response(TowerResponse::Shown(None)),
            "refused": response(TowerResponse::Refused(refusal)),
        }),
    );
}
