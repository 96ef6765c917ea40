//! The lies.

use flash_proto::{
    Block, CoordinatorSet, Hash, NetworkId, StateKey, block::Work, codec, limits::NODE_FRAME_BYTES_MAX,
};

use super::*;
use crate::{
    ledger::{merkle::AuditPath, state_tree::Proof},
    light::tests::{Ledger, record},
    protocol::{Followed, RefusedCode, TransactionAnswer},
};

type Refused = crate::protocol::Refused;

/// What is said of a proof that does not fit.
const PROOF: &str = "proof";

/// Every row: a name, what the client does, the lie, and what is found out.
pub(super) fn rows() -> Vec<Row> {
    let rows = [
        milestones(),
        frames(),
        states(),
        several_states(),
        outputs(),
        channels(),
        transactions(),
        blocks(),
        submissions(),
    ];
    rows.into_iter().flatten().collect()
}

fn row(name: &'static str, scene: Scene, what: &'static str, lie: Lie) -> Row {
    Row { name, scene, lie, kind: FaultKind::Lies, what }
}

/// A lie that changes answers.
fn changed(change: impl Fn(&NodeRequest, &mut NodeResponse, &Script) + Send + Sync + 'static) -> Lie {
    Arc::new(move |request, mut answer, script| {
        change(request, &mut answer, script);
        Reply::Answer(answer)
    })
}

/// A lie about the milestones that are followed.
fn milestone(name: &'static str, what: &'static str, change: fn(&mut Followed, &Script)) -> Row {
    let lie = changed(move |_, answer, script| {
        if let NodeResponse::Followed(followed) = answer {
            change(followed, script);
        }
    });
    row(name, Scene::Follow, what, lie)
}

fn milestones() -> Vec<Row> {
    const BAD: &str = "is not valid";
    const ORDER: &str = "came where the one after";
    const CHANNELS: &str = "channels given as changed";
    vec![
        milestone("a signature too few", "coordinator signatures, 2 are needed", |followed, _| {
            followed.milestone.signatures.pop();
        }),
        milestone("a signature twice", "strictly rising order of their keys", |followed, _| {
            followed.milestone.signatures[1] = followed.milestone.signatures[0];
        }),
        milestone("a signature of an unknown key", "no coordinator of this network", |followed, _| {
            let milestone = &mut followed.milestone;
            milestone.signatures[1] = milestone.essence.sign(&key(99));
            milestone.signatures.sort_by_key(|signature| signature.coordinator);
        }),
        milestone("a signature of something else", BAD, |followed, _| {
            followed.milestone.signatures[1].signature = followed.milestone.signatures[0].signature;
        }),
        milestone("another state root", BAD, |followed, _| {
            followed.milestone.essence.state_root = Hash::ZERO;
        }),
        milestone("another time", BAD, |followed, _| followed.milestone.essence.timestamp_ms += 1),
        milestone("another network's milestone", "is of network", |followed, _| {
            followed.milestone.essence.network = NetworkId::new([9; 32]);
        }),
        milestone("a hand-over that nobody signed", "no coordinator of this network", |followed, _| {
            let essence = &mut followed.milestone.essence;
            essence.next = Some(CoordinatorSet { keys: vec![key(99).public()], threshold: 1 });
            followed.milestone.signatures = [98, 99].map(|n| essence.sign(&key(n))).to_vec();
            followed.milestone.signatures.sort_by_key(|signature| signature.coordinator);
        }),
        milestone("a hand-over slipped into a signed milestone", BAD, |followed, _| {
            let next = CoordinatorSet { keys: vec![key(99).public()], threshold: 1 };
            followed.milestone.essence.next = Some(next);
        }),
        milestone("a milestone left out", ORDER, |followed, script| {
            if followed.milestone.essence.index == 2 {
                *followed = script.followed[2].clone();
            }
        }),
        milestone("an old milestone again, as from an old checkpoint", ORDER, |followed, script| {
            if followed.milestone.essence.index == 3 {
                *followed = script.followed[0].clone();
            }
        }),
        milestone("milestones in another order", ORDER, |followed, script| {
            let place = [1, 0, 2][usize::try_from(followed.milestone.essence.index).unwrap() - 1];
            *followed = script.followed[place].clone();
        }),
        milestone("a change of a channel hidden", CHANNELS, |followed, _| followed.channels.clear()),
        milestone("a channel too many", CHANNELS, |followed, _| {
            followed.channels.push(ChannelId::new([255; 32]));
        }),
        milestone("a channel twice", CHANNELS, |followed, _| followed.channels.extend_from_within(..)),
    ]
}

fn frames() -> Vec<Row> {
    let other = || changed(|_, answer, _| *answer = NodeResponse::Tips(vec![]));
    let trailing: Lie = Arc::new(|_, answer, _| Reply::Bytes([codec::encode(&answer), vec![0]].concat()));
    let oversized: Lie = Arc::new(|_, _, _| Reply::Bytes(vec![1; NODE_FRAME_BYTES_MAX + 1]));
    let silence: Lie = Arc::new(|_, _, _| Reply::Silence);
    let network = changed(|_, answer, _| {
        if let NodeResponse::Info(info) = answer {
            info.network = NetworkId::new([9; 32]);
        }
    });
    let question = "the answer to another question";
    let stalled = |scene| Row {
        kind: FaultKind::Stalls,
        ..row("no answer", scene, "did not answer within", Arc::clone(&silence))
    };
    vec![
        row("an answer to another question, to one who follows", Scene::Follow, question, other()),
        row("an answer to another question", Scene::Channel, question, other()),
        row("trailing bytes", Scene::Channel, "no message of this link", trailing),
        row("a frame above the limit", Scene::Outputs, "1048576 are allowed", oversized.clone()),
        row("a frame above the limit, to one who follows", Scene::Follow, "1048576 are allowed", oversized),
        row("another network", Scene::Info, "a node of network", network),
        stalled(Scene::Channel),
        stalled(Scene::Applied),
    ]
}

fn proof_of(ledger: &Ledger, id: ChannelId) -> Proof {
    ledger.state.tree().prove(&StateKey::Channel(id).tree_key())
}

/// A lie about a channel.
fn channel(
    name: &'static str,
    scene: Scene,
    what: &'static str,
    change: fn(&mut u64, &mut Option<Box<flash_proto::ChannelRecord>>, &mut Proof, &Script),
) -> Row {
    let lie = changed(move |_, answer, script| {
        if let NodeResponse::Channel { milestone_index, record, proof } = answer {
            change(milestone_index, record, proof, script);
        }
    });
    row(name, scene, what, lie)
}

/// A lie about several channels.
fn many(
    name: &'static str,
    what: &'static str,
    change: fn(&mut Vec<(Option<flash_proto::ChannelRecord>, Proof)>),
) -> Row {
    let lie = changed(move |_, answer, _| {
        if let NodeResponse::Records { records, .. } = answer {
            change(records);
        }
    });
    row(name, Scene::ManyChannels, what, lie)
}

fn several_states() -> Vec<Row> {
    vec![
        many("one of several records hidden", PROOF, |records| records[0].0 = None),
        many("one of several records left out", "the answer to another question", |records| {
            records.remove(1);
        }),
        many("a record too many", "the answer to another question", |records| {
            records.extend_from_within(..1);
        }),
        many("several records in another order", PROOF, |records| records.swap(0, 1)),
        many("another's record among several", PROOF, |records| records[1].0 = records[0].0),
    ]
}

fn states() -> Vec<Row> {
    let never = channel(
        "a state from ahead of all milestones",
        Scene::Channel,
        "milestones behind",
        |index, _, _, _| {
            *index += 5;
        },
    );
    vec![
        channel("another record", Scene::Channel, PROOF, |_, record, _, _| {
            record.as_mut().unwrap().lane_a.seq += 1;
        }),
        channel("no record where there is one", Scene::Channel, PROOF, |_, record, _, _| *record = None),
        channel("a record where there is none", Scene::NoChannel, PROOF, |_, shown, _, _| {
            *shown = Some(Box::new(record()));
        }),
        channel("another key's record with its proof", Scene::NoChannel, PROOF, |_, shown, proof, script| {
            let id = facts().opening.channel().unwrap();
            *shown = script.ledger.state.channel(&id).copied().map(Box::new);
            *proof = proof_of(&script.ledger, id);
        }),
        channel("the proof of another key", Scene::Channel, PROOF, |_, _, proof, script| {
            *proof = proof_of(&script.ledger, NO_CHANNEL);
        }),
        channel("an old proof as a new one", Scene::Channel, PROOF, |_, record, proof, _| {
            *record = None;
            *proof = proof_of(&Ledger::new(), facts().opening.channel().unwrap());
        }),
        channel("an old state", Scene::Channel, "says less than it has announced", |index, _, _, _| {
            *index -= 1;
        }),
        Row { kind: FaultKind::Withholds, ..never },
    ]
}

/// A lie about outputs.
fn output(
    name: &'static str,
    what: &'static str,
    change: fn(&mut Vec<(OutputId, Output, Proof)>, &Script),
) -> Row {
    let lie = changed(move |_, answer, script| {
        if let NodeResponse::Outputs { outputs, .. } = answer {
            change(outputs, script);
        }
    });
    row(name, Scene::Outputs, what, lie)
}

fn genesis_output(index: u16, ledger: &Ledger) -> (OutputId, Output, Proof) {
    let id = OutputId { transaction: TransactionId::new(*params().id().as_bytes()), index };
    let proof = ledger.state.tree().prove(&StateKey::Output(id).tree_key());
    (id, params().genesis[usize::from(index)], proof)
}

fn outputs() -> Vec<Row> {
    vec![
        output("another amount", "proof", |outputs, _| outputs[0].1.amount = Amount::SUPPLY),
        output("an output of somebody else", "was not asked for", |outputs, script| {
            outputs.push(genesis_output(1, &script.ledger));
            outputs.sort_by_key(|(id, ..)| *id);
        }),
        output("a spent output with its old proof", "proof", |outputs, _| {
            *outputs = vec![genesis_output(0, &Ledger::new())];
        }),
        output("a made-up output with the proof of another", "proof", |outputs, _| outputs[0].0.index += 1),
        output("an output twice", "out of order", |outputs, _| outputs.extend_from_within(..)),
        output("an output left out", "it leaves out output", |outputs, _| outputs.clear()),
    ]
}

/// A lie about the channels of a key.
fn listed(
    name: &'static str,
    what: &'static str,
    change: fn(&mut Vec<(ChannelId, flash_proto::ChannelRecord, Proof)>, &Script),
) -> Row {
    let lie = changed(move |_, answer, script| {
        if let NodeResponse::Channels { channels, .. } = answer {
            change(channels, script);
        }
    });
    row(name, Scene::Channels, what, lie)
}

fn channels() -> Vec<Row> {
    vec![
        listed("a listed channel with another record", "proof", |channels, _| channels[0].1.lane_a.seq += 1),
        listed("a channel of somebody else", "was not asked for", |channels, _| {
            (channels[0].1.party_a.key, channels[0].1.party_b.key) = (key(98).public(), key(99).public());
        }),
        listed("a made-up channel", "proof", |channels, script| {
            channels.push((ChannelId::new([255; 32]), record(), proof_of(&script.ledger, NO_CHANNEL)));
        }),
        listed("a listed channel twice", "out of order", |channels, _| channels.extend_from_within(..)),
        listed("a channel left out", "it leaves out channel", |channels, _| channels.clear()),
    ]
}

/// A lie about a transaction.
fn transaction(
    name: &'static str,
    scene: Scene,
    what: &'static str,
    change: fn(&mut TransactionAnswer, &Script),
) -> Row {
    let lie = changed(move |_, answer, script| {
        if let NodeResponse::Transaction(answer) = answer {
            change(answer, script);
        }
    });
    row(name, scene, what, lie)
}

fn rejected(carried: &Transaction, milestone_index: u64) -> TransactionAnswer {
    let block = id_of(carried);
    TransactionAnswer::Rejected { block, milestone_index, conflict: Conflict::InputMissing }
}

/// The opening's proof, with another block in it.
fn applied_with(script: &Script, other: Vec<u8>) -> TransactionAnswer {
    let mut answer = script.answers[&facts().opening.id()].clone();
    let TransactionAnswer::Applied { block, .. } = &mut answer else { unreachable!("it is applied") };
    *block = other;
    answer
}

const NOTHING_PROVES: &str = "nothing proves that milestone";

fn transactions() -> Vec<Row> {
    wrong_blocks().into_iter().chain(wrong_fates()).collect()
}

/// Blocks shown as the one that was applied.
fn wrong_blocks() -> Vec<Row> {
    vec![
        transaction("a rejected one as applied", Scene::Rejected, NOTHING_PROVES, |answer, script| {
            *answer = applied_with(script, block_of(&facts().double_spend));
        }),
        transaction("a waiting one as applied", Scene::Pending, NOTHING_PROVES, |answer, script| {
            *answer = applied_with(script, block_of(&facts().waiting));
        }),
        transaction("the path of another block", Scene::Applied, NOTHING_PROVES, |answer, _| {
            let TransactionAnswer::Applied { path, .. } = answer else { return };
            *path = AuditPath { siblings: vec![Hash::ZERO], leaves: 2, ..path.clone() };
        }),
        transaction(
            "a block with another transaction",
            Scene::Applied,
            "does not carry",
            |answer, script| {
                *answer = applied_with(script, block_of(&facts().waiting));
            },
        ),
        transaction(
            "another block with the transaction",
            Scene::Applied,
            NOTHING_PROVES,
            |answer, script| {
                // Other parents, and so another id.
                let mut forged = Block::from_bytes(&block_of(&facts().opening), 0).unwrap();
                forged.parents = vec![BlockId::new([5; 32])];
                forged.nonce = Work::of(&forged.to_bytes()).search(params().pow_bits, 0, 1_000_000).unwrap();
                *answer = applied_with(script, forged.to_bytes());
            },
        ),
    ]
}

/// Fates that are not the transaction's.
fn wrong_fates() -> Vec<Row> {
    vec![
        transaction("an unsigned milestone", Scene::Applied, "signatures, 2 are needed", |answer, _| {
            let TransactionAnswer::Applied { milestone, .. } = answer else { return };
            milestone.signatures.clear();
        }),
        transaction(
            "an applied one as rejected",
            Scene::Applied,
            "calls a transaction rejected",
            |answer, _| {
                *answer = rejected(&facts().opening, 1);
            },
        ),
        transaction("a waiting one as rejected", Scene::Pending, "a rejection without proof", |answer, _| {
            *answer = rejected(&facts().waiting, 3);
        }),
        transaction("another one's rejection", Scene::Applied, "a rejection of another", |answer, _| {
            *answer = rejected(&facts().double_spend, 2);
        }),
        transaction(
            "a rejection by another milestone",
            Scene::Rejected,
            "by another milestone",
            |answer, _| {
                *answer = rejected(&facts().double_spend, 3);
            },
        ),
        transaction(
            "an applied one as unknown",
            Scene::Applied,
            "calls a transaction unknown",
            |answer, _| {
                *answer = TransactionAnswer::Unknown;
            },
        ),
        transaction(
            "a rejected one as unknown",
            Scene::Rejected,
            "calls a transaction unknown",
            |answer, _| {
                *answer = TransactionAnswer::Unknown;
            },
        ),
        transaction(
            "an applied one as waiting",
            Scene::Applied,
            "calls a transaction pending",
            |answer, _| {
                *answer = TransactionAnswer::Pending { block: id_of(&facts().opening) };
            },
        ),
    ]
}

fn blocks() -> Vec<Row> {
    let other = changed(|_, answer, _| {
        if let NodeResponse::Block(block) = answer {
            *block = Some(block_of(&facts().waiting));
        }
    });
    let path = changed(|_, answer, _| {
        if let NodeResponse::Inclusion(Some(inclusion)) = answer {
            inclusion.path.leaves = 2;
            inclusion.path.siblings = vec![Hash::ZERO];
        }
    });
    let included = changed(|_, answer, _| {
        if let NodeResponse::Inclusion(Some(inclusion)) = answer {
            inclusion.block = block_of(&facts().waiting);
        }
    });
    let forged = changed(|_, answer, _| {
        if let NodeResponse::Milestone(Some(milestone)) = answer {
            milestone.essence.state_root = Hash::ZERO;
        }
    });
    let wrong = changed(|_, answer, script| {
        if let NodeResponse::Milestone(milestone) = answer {
            *milestone = Some(Box::new(script.followed[0].milestone.clone()));
        }
    });
    vec![
        row("another block", Scene::Block, "a block with another id", other),
        row("confirmed, by the path of another block", Scene::Inclusion, "nothing proves that", path),
        row("another block as confirmed", Scene::Inclusion, "not those of block", included),
        row("a forged milestone", Scene::Milestone, "is not valid", forged),
        row("another milestone", Scene::Milestone, "another question", wrong),
    ]
}

/// A lie to one who submits.
fn submission(name: &'static str, what: &'static str, change: fn(&NodeRequest, &mut NodeResponse)) -> Row {
    row(name, Scene::Submit, what, changed(move |request, answer, _| change(request, answer)))
}

fn submissions() -> Vec<Row> {
    vec![
        submission("another block was taken", "took another block", |_, answer| {
            if let NodeResponse::Submitted(id) = answer {
                *id = BlockId::new([3; 32]);
            }
        }),
        submission("a valid block is not valid", "calls a valid block invalid", |request, answer| {
            if matches!(request, NodeRequest::Submit(_)) {
                let (code, reason) = (RefusedCode::InvalidBlock, "no".to_owned());
                *answer = NodeResponse::Refused(Refused { code, reason });
            }
        }),
        submission("a block is taken, and swallowed", "calls a transaction unknown", |request, answer| {
            if matches!(request, NodeRequest::Transaction(_)) {
                *answer = NodeResponse::Transaction(Box::new(TransactionAnswer::Unknown));
            }
        }),
        submission("tips that do not exist", "which it does not have", |request, answer| match request {
            NodeRequest::Tips => *answer = NodeResponse::Tips(vec![BlockId::new([4; 32])]),
            NodeRequest::Submit(bytes) => *answer = NodeResponse::Submitted(Block::id_of(bytes)),
            _ => {}
        }),
        submission("no tips", "another question", |_, answer| {
            if let NodeResponse::Tips(tips) = answer {
                tips.clear();
            }
        }),
        submission("too many tips", "another question", |_, answer| {
            if let NodeResponse::Tips(tips) = answer {
                *tips = (0..9).map(|n| BlockId::new([n; 32])).collect();
            }
        }),
    ]
}
