//! A peer that breaks the protocol is told why, changes nothing, and harms nobody else's channel.

mod network;

use std::{process::Command, time::Duration};

use flash_proto::{
    Action, Address, Amount, ChannelId, Essence, Hash, NetworkId, Output, OutputId, PaymentList, PublicKey,
    SecretKey, Side, Signature, SignedBalance, TickProof, Transaction, codec, limits,
    message::{
        ChannelMessage, Funding, Hello, OpenParty, OpenProposal, OpenReply, PauseReason, Reestablish,
        Refusal, RefusalCode, Stake, Stakes, StreamStart, Update,
    },
    transaction::{CooperativeClose, Withdraw},
};
use flash_tests::{Daemon, Ending, Net, STAKES, ScriptedPeer, Stream, binary, rounds, run, until};
use flashd::api::{CloseRequest, ErrorCode, OpenRequest};
use serde_json::Value;

const DEPOSIT: u64 = 1_000_000;

/// A daemon with a channel to an honest peer and one to a scripted peer, who has paid 100 in one update.
struct Scene {
    net: Net,
    charger: Daemon,
    car: Daemon,
    honest: ChannelId,
    peer: ScriptedPeer,
    channel: ChannelId,
    newest: SignedBalance,
}

impl Scene {
    async fn set() -> Self {
        let net = Net::start().await;
        let charger = net.daemon("charger", Amount::ZERO).await;
        let car = net.daemon("car", Amount::new(DEPOSIT)).await;
        let honest = car.open(&charger, DEPOSIT / 2, 0, 60).await;
        let peer = ScriptedPeer::new(&net, &charger.ticket().await);
        let channel = peer.open(&net, Amount::new(DEPOSIT)).await;
        charger.wait(channel, "open", |info| info.state == "open").await;
        let mut stream = peer.greet().await.channel(channel, None).await;
        let (first, newest) = peer.update(peer.lane(channel), &[60, 40]);
        stream.say(&ChannelMessage::Update(first)).await;
        stream.acknowledged(1).await;
        Self { net, charger, car, honest, peer, channel, newest }
    }

    /// A stream on which both sides have said where they stand.
    async fn stream(&self) -> Stream {
        let mut stream = self.peer.greet().await.channel(self.channel, Some(self.newest)).await;
        // Nobody closes together while the two do not agree on what is locked.
        let stake = |deposit| Stake { deposit: Amount::new(deposit), withdrawn: Amount::ZERO };
        stream.say(&ChannelMessage::Stakes(Stakes { a: stake(DEPOSIT), b: stake(0) })).await;
        stream
    }

    /// What the peer did changed nothing, and the honest channel pays on.
    async fn assert_unharmed(&self, case: &str) {
        let info = self.charger.channel(self.channel).await;
        let numbers = (info.balance, info.received.payments, info.received.updates, info.state.as_str());
        assert_eq!(numbers, (Some(Amount::new(100)), 2, 1, "open"), "{case}");
        assert_eq!(info.sent.cumulative, Amount::ZERO, "{case}");
        self.car.pay(self.honest, 7).await.unwrap_or_else(|error| panic!("{case}: {error:?}"));
    }

    /// Says one message and gives back how the daemon ends the stream.
    async fn after(&self, message: ChannelMessage) -> Ending {
        let mut stream = self.stream().await;
        stream.say(&message).await;
        stream.ending().await
    }

    async fn after_bytes(&self, bytes: &[u8], finish: bool) -> Ending {
        let mut stream = self.stream().await;
        stream.bytes(bytes).await;
        if finish {
            stream.finish();
        }
        stream.ending().await
    }
}

/// The same signature with the group's order added to its second half.
fn malleated(signature: Signature) -> Signature {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut bytes = *signature.as_bytes();
    let mut carry = 0;
    for (byte, order) in bytes[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    Signature::new(bytes)
}

fn assert_misbehaved(case: &str, ending: &Ending, why: &str) {
    let Ending::Refused(Refusal { code, detail }) = ending else { panic!("{case}: {ending}") };
    assert_eq!(*code, RefusalCode::Misbehaved, "{case}: {detail}");
    assert!(detail.contains(why), "{case}: `{detail}` should say `{why}`");
}

/// An update with these packed payments, well signed if that is possible at all.
fn packed(scene: &Scene, payments: &[(u64, &[u8])]) -> ChannelMessage {
    let mut bytes = Vec::new();
    for (amount, reference) in payments {
        bytes.extend_from_slice(&amount.to_le_bytes());
        bytes.push(u8::try_from(reference.len()).unwrap());
        bytes.extend_from_slice(reference);
    }
    let payments = PaymentList::from_packed(bytes);
    let state = scene.newest.state;
    let next = state.advance(&payments).unwrap_or(flash_proto::LaneState { seq: state.seq + 1, ..state });
    let SignedBalance { state, signature } = next.sign(scene.net.params().id(), &scene.peer.key);
    ChannelMessage::Update(Update {
        seq: state.seq,
        cumulative: state.cumulative,
        payments,
        ticks: None,
        signature,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_that_break_a_rule_are_refused_with_the_rule_and_change_nothing() {
    let scene = Scene::set().await;
    let next = |amounts: &[u64]| scene.peer.update(scene.newest.state, amounts);

    let foreign = SecretKey::from_bytes([9; 32]);
    let mut update = next(&[5]).0;
    let state = next(&[5]).1.state;
    update.signature = state.sign(scene.net.params().id(), &foreign).signature;
    let other_network = {
        let mut update = next(&[5]).0;
        update.signature = state.sign(NetworkId::new([7; 32]), &scene.peer.key).signature;
        update
    };
    // The right balance, signed for another channel, for the other lane, and with its signature written in
    // another way that means the same to a careless verifier.
    let forms = [
        flash_proto::LaneState { channel: ChannelId::new([3; 32]), ..state },
        flash_proto::LaneState { payer: Side::B, ..state },
    ];
    let [other_channel, other_side] = forms.map(|form| {
        let signature = form.sign(scene.net.params().id(), &scene.peer.key).signature;
        ChannelMessage::Update(Update { signature, ..next(&[5]).0 })
    });
    let malleated = Update { signature: malleated(next(&[5]).0.signature), ..next(&[5]).0 };
    let replayed = scene.peer.update(scene.peer.lane(scene.channel), &[61, 40]).0;
    let gap = scene.peer.update(next(&[1]).1.state, &[1]).0;
    let left = DEPOSIT - 100;
    let mut understated = next(&[5]).0;
    understated.cumulative = Amount::new(104);
    let cases = [
        ("a foreign signature", ChannelMessage::Update(update), "a signature is not the peer's"),
        (
            "another network's signature",
            ChannelMessage::Update(other_network),
            "a signature is not the peer's",
        ),
        ("another channel's signature", other_channel, "a signature is not the peer's"),
        ("the other side's signature", other_side, "a signature is not the peer's"),
        ("a malleated signature", ChannelMessage::Update(malleated), "a signature is not the peer's"),
        ("another body under a used number", ChannelMessage::Update(replayed), "two different updates"),
        ("a gap", ChannelMessage::Update(gap), "a gap"),
        ("one too much", ChannelMessage::Update(next(&[left + 1]).0), "cannot have paid"),
        ("a wrong total", ChannelMessage::Update(understated), "the lane's total is said to be"),
        ("overflow", packed(&scene, &[(u64::MAX, b""), (2, b"")]), "does not fit 64 bits"),
        ("overflow of the total", packed(&scene, &[(u64::MAX - 50, b"")]), "does not fit 64 bits"),
        ("zero", packed(&scene, &[(0, b"")]), "malformed payments"),
        ("no payments", packed(&scene, &[]), "malformed payments"),
        ("a long reference", packed(&scene, &[(1, &[b'x'; 33])]), "malformed payments"),
        ("an acknowledgement of nothing", ChannelMessage::Ack { seq: 1 }, "only 0 were sent"),
    ];
    for (case, message, why) in cases {
        assert_misbehaved(case, &scene.after(message).await, why);
        scene.assert_unharmed(case).await;
    }
    // All of the deposit, to the unit, is no overspending: the limit is where it should be.
    let (update, _) = next(&[left]);
    let mut stream = scene.stream().await;
    stream.say(&ChannelMessage::Update(update)).await;
    stream.acknowledged(2).await;
    assert_eq!(scene.charger.channel(scene.channel).await.balance, Some(Amount::new(DEPOSIT)));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_no_messages_are_refused_with_the_reason_and_change_nothing() {
    let scene = Scene::set().await;
    let oversized = u32::try_from(limits::PEER_FRAME_BYTES_MAX + 1).unwrap().to_le_bytes();
    let truncated = [&100_u32.to_le_bytes()[..], &[1; 10]].concat();
    let ack = codec::encode(&ChannelMessage::Ack { seq: 0 });
    let trailing = [&u32::try_from(ack.len() + 1).unwrap().to_le_bytes()[..], &ack, &[0]].concat();
    let cases = [
        ("an oversized frame", oversized.to_vec(), false, "at most"),
        ("a truncated frame", truncated, true, "inside a frame"),
        ("an empty frame", vec![0; 4], false, "an empty frame"),
        ("an unknown tag", vec![1, 0, 0, 0, 200], false, ""),
        ("trailing bytes", trailing, false, ""),
    ];
    for (case, bytes, finish, why) in cases {
        assert_misbehaved(case, &scene.after_bytes(&bytes, finish).await, why);
        scene.assert_unharmed(case).await;
    }

    let mut early = scene.peer.greet().await.stream(&StreamStart::Channel(scene.channel)).await;
    early.say(&ChannelMessage::Update(scene.peer.update(scene.newest.state, &[1]).0)).await;
    assert_misbehaved("too early", &early.ending().await, "before the re-establishment");
    scene.assert_unharmed("too early").await;

    // A balance that the daemon never signed, shown as what is held of its lane.
    let state = flash_proto::LaneState::new(scene.channel, Side::B);
    let (_, forged) = scene.peer.update(state, &[1]);
    let mut lying = scene.peer.greet().await.stream(&StreamStart::Channel(scene.channel)).await;
    let standing = Reestablish {
        signed: Some(scene.newest),
        signed_ticks: None,
        held: Some(forged),
        held_ticks: None,
        stakes: STAKES,
    };
    lying.say(&ChannelMessage::Reestablish(Box::new(standing))).await;
    assert_misbehaved("a forged balance", &lying.ending().await, "a signature");
    scene.assert_unharmed("a forged balance").await;
}

/// Every message, cut off after each of its bytes: as a whole frame, and as one that the stream's end cuts off.
#[tokio::test(flavor = "multi_thread")]
async fn messages_cut_off_at_any_byte_are_refused_and_change_nothing() {
    let scene = Scene::set().await;
    let close = CooperativeClose {
        channel: scene.channel,
        final_seq_a: 1,
        final_seq_b: 0,
        payout_a: Amount::new(DEPOSIT - 100),
        payout_b: Amount::new(100),
        expiry_milestone: 1_000,
    };
    let signature = scene.newest.signature;
    let standing = Reestablish {
        signed: Some(scene.newest),
        signed_ticks: None,
        held: None,
        held_ticks: None,
        stakes: STAKES,
    };
    let withdraw = Withdraw {
        channel: scene.channel,
        side: Side::A,
        amount: Amount::new(1),
        total: Amount::new(1),
        expiry_milestone: 1_000,
    };
    let proof = TickProof { index: 1, preimage: Hash::new([1; 32]) };
    let messages = [
        ChannelMessage::Reestablish(Box::new(standing)),
        ChannelMessage::Update(scene.peer.update(scene.newest.state, &[5]).0),
        ChannelMessage::Ack { seq: 0 },
        ChannelMessage::Balance(Box::new(scene.newest)),
        ChannelMessage::Paused { held_seq: 0, reason: PauseReason::Closing },
        ChannelMessage::CloseRequest,
        ChannelMessage::CloseSigned { close, signature },
        ChannelMessage::CloseComplete { signature },
        ChannelMessage::Refuse(Refusal::new(RefusalCode::Busy, "busy")),
        ChannelMessage::Tick { seq: 1, proof },
        ChannelMessage::TickAck { seq: 0, index: 0 },
        ChannelMessage::Stakes(STAKES),
        ChannelMessage::WithdrawSigned { withdraw, signature },
        ChannelMessage::WithdrawComplete { withdraw, signature },
        ChannelMessage::ReceiptRequest { seq: 1 },
        ChannelMessage::Receipt { seq: 0, signature: Some(signature) },
    ];
    let greeted = scene.peer.greet().await;
    let mut cut = 0;
    for message in messages {
        let whole = codec::encode(&message);
        for length in (0..whole.len()).step_by(rounds(23, 1)) {
            let body = &whole[..length];
            let claimed = u32::try_from(length).unwrap().to_le_bytes();
            let short = u32::try_from(whole.len()).unwrap().to_le_bytes();
            for (header, finish) in [(claimed, false), (short, true)] {
                let case = format!("{length} of {} bytes of {message:?}", whole.len());
                let mut stream = greeted.channel(scene.channel, Some(scene.newest)).await;
                stream.bytes(&[&header[..], body].concat()).await;
                if finish {
                    stream.finish();
                }
                assert_misbehaved(&case, &stream.ending().await, "");
                cut += 1;
            }
        }
    }
    println!("{cut} messages were cut off");
    scene.assert_unharmed("cut off").await;
}

/// What was already taken may be sent again, as a link that broke makes an honest peer do; it counts once.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_update_again_is_acknowledged_and_counts_once() {
    let scene = Scene::set().await;
    let (first, newest) = scene.peer.update(scene.peer.lane(scene.channel), &[60, 40]);
    assert_eq!(newest, scene.newest);
    let mut stream = scene.stream().await;
    for _ in 0..3 {
        stream.say(&ChannelMessage::Update(first.clone())).await;
        stream.acknowledged(1).await;
        stream.say(&ChannelMessage::Balance(Box::new(scene.newest))).await;
    }
    scene.assert_unharmed("again").await;
}

/// What `flash channel show --json` says.
async fn shown(daemon: &Daemon, channel: ChannelId) -> Value {
    let mut command = Command::new(binary("flash"));
    command.args(["channel", "show", "--json", "--data"]).arg(daemon.data()).arg(channel.to_string());
    let ended = run(command).await;
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    serde_json::from_str(&ended.output).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bodies_under_one_number_are_kept_as_evidence() {
    let mut scene = Scene::set().await;
    assert_eq!(scene.charger.channel(scene.channel).await.signed_twice, None);
    let other = |amount| scene.peer.update(scene.peer.lane(scene.channel), &[amount]);
    for amount in [99, 98] {
        let ending = scene.after(ChannelMessage::Update(other(amount).0)).await;
        assert_misbehaved("another body", &ending, "two different updates under number 1");
        scene.assert_unharmed("another body").await;
    }
    scene.charger.crash().await;
    // Whoever has the network's id can check both, and they contradict each other.
    let proof = scene.charger.channel(scene.channel).await.signed_twice.expect("it survives a crash");
    assert_eq!((proof.update, proof.cumulative), (1, [Amount::new(100), Amount::new(99)]));
    let bodies = proof.balances.each_ref().map(|hex| {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        codec::decode::<SignedBalance, { limits::PEER_FRAME_BYTES_MAX }>(&bytes).unwrap()
    });
    assert_eq!(bodies, [scene.newest, other(99).1]);
    for body in bodies {
        assert!(body.verify(scene.net.params().id(), &proof.key));
    }
    assert_eq!(shown(&scene.charger, scene.channel).await["signed_twice"]["balances"][1], proof.balances[1]);
    let kinds = scene.charger.event_kinds().await;
    let told = kinds.iter().filter(|kind| *kind == "peer_signed_twice").count();
    assert_eq!(told, 1, "however often it is done: {kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_that_is_not_what_the_records_say_is_refused() {
    let scene = Scene::set().await;
    let close = |gift: u64, expiry_milestone: u64| CooperativeClose {
        channel: scene.channel,
        final_seq_a: 1,
        final_seq_b: 0,
        payout_a: Amount::new(DEPOSIT - 100 + gift),
        payout_b: Amount::new(100 - gift),
        expiry_milestone,
    };
    let signed = |close: CooperativeClose, key: &SecretKey| {
        let essence = Essence::acting(scene.net.params().id(), Action::CooperativeClose(close));
        ChannelMessage::CloseSigned { close, signature: essence.unlock(key).signature }
    };
    let expiry = scene.net.info().await.milestone_index + 100;
    // What nobody asked for is passed over.
    let mut stream = scene.stream().await;
    stream.say(&signed(close(0, expiry), &scene.peer.key)).await;
    let (newest, _) = scene.peer.update(scene.peer.lane(scene.channel), &[60, 40]);
    stream.say(&ChannelMessage::Update(newest)).await;
    stream.acknowledged(1).await;
    assert_eq!(scene.charger.channel(scene.channel).await.state, "open");
    drop(stream);
    scene.assert_unharmed("unasked").await;

    scene.charger.client().close(scene.channel, CloseRequest { force: false }, false).await.unwrap();
    let foreign = SecretKey::from_bytes([9; 32]);
    let cases = [
        ("one more for itself", signed(close(1, expiry), &scene.peer.key), "not what the records say"),
        ("all for itself", signed(close(100, expiry), &scene.peer.key), "not what the records say"),
        ("a foreign signature", signed(close(0, expiry), &foreign), "a signature is not the peer's"),
    ];
    for (case, message, why) in cases {
        assert_misbehaved(case, &scene.after(message).await, why);
        assert_eq!(scene.charger.channel(scene.channel).await.state, "closing", "{case}");
    }
    let mut stream = scene.stream().await;
    stream.say(&signed(close(0, expiry), &scene.peer.key)).await;
    let closed = scene.charger.wait(scene.channel, "closed", |info| info.state == "closed").await;
    assert_eq!(closed.payout, Some(Amount::new(100)));
    assert_eq!(closed.peer_payout, Some(Amount::new(DEPOSIT - 100)));
    scene.net.assert_supply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_greetings_that_lead_nowhere_are_refused() {
    let scene = Scene::set().await;
    let greeted = scene.peer.greet().await;
    for channel in [scene.honest, ChannelId::new([3; 32])] {
        let ending = greeted.stream(&StreamStart::Channel(channel)).await.ending().await;
        let Ending::Refused(refusal) = ending else { panic!("{ending}") };
        assert_eq!(refusal.code, RefusalCode::UnknownChannel);
        assert!(refusal.detail.contains("no such channel between us"), "{}", refusal.detail);
    }
    let again = greeted.stream(&StreamStart::Control(scene.peer.hello())).await.ending().await;
    assert_misbehaved("a second greeting", &again, "a second greeting");
    let mut nonsense = greeted.silent().await;
    nonsense.frame(&[250, 1, 2, 3]).await;
    assert_misbehaved("nonsense", &nonsense.ending().await, "");

    let hellos = [
        (Hello { network: NetworkId::new([7; 32]), ..scene.peer.hello() }, "network"),
        (Hello { version: 99, ..scene.peer.hello() }, "protocol version 99"),
    ];
    for (hello, why) in hellos {
        let connection = scene.peer.connect().await;
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        let body = codec::encode(&StreamStart::Control(hello));
        send.write_all(&u32::try_from(body.len()).unwrap().to_le_bytes()).await.unwrap();
        send.write_all(&body).await.unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(10), connection.closed()).await.unwrap();
        assert!(closed.to_string().contains(why), "`{closed}` should say `{why}`");
    }
    scene.assert_unharmed("greetings").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_proposals_are_bounded() {
    let scene = Scene::set().await;
    let greeted = std::sync::Arc::new(scene.peer.greet().await);
    let expiry = scene.net.info().await.milestone_index + 500;
    // Nothing is behind them: a daemon that locks nothing itself cannot know that yet.
    let output = Output { address: Address::of(&scene.peer.key.public()), amount: Amount::new(DEPOSIT) };
    let proposal = |index: u16| {
        let id = OutputId { transaction: flash_proto::TransactionId::new([5; 32]), index };
        scene.peer.proposal(vec![Funding { id, output }], expiry)
    };
    let asked: Vec<_> = (0..200)
        .map(|index| {
            let (greeted, proposal) = (std::sync::Arc::clone(&greeted), proposal(index));
            tokio::spawn(async move { greeted.propose(proposal).await })
        })
        .collect();
    let (mut accepted, mut busy) = (0_usize, 0_usize);
    for reply in asked {
        match reply.await.unwrap() {
            OpenReply::Accept(_) => accepted += 1,
            OpenReply::Refuse(Refusal { code: RefusalCode::Busy, .. }) => busy += 1,
            OpenReply::Refuse(refusal) => assert_eq!(refusal.code, RefusalCode::Policy, "{refusal:?}"),
        }
    }
    assert!(busy > 0, "200 at once are more than are answered at once");
    // One after the other they are answered, up to the limit for one peer.
    let refusal = loop {
        match greeted.propose(proposal(1_000 + u16::try_from(accepted).unwrap())).await {
            OpenReply::Accept(_) => accepted += 1,
            OpenReply::Refuse(refusal) => break refusal,
        }
    };
    assert_eq!(refusal.code, RefusalCode::Policy, "{refusal:?}");
    assert!(refusal.detail.contains("channels with one peer"), "{refusal:?}");
    let live = scene.charger.client().channels(false).await.unwrap().len();
    assert_eq!((accepted, live), (63, 65), "63 and the open one, and the honest peer's");
    scene.assert_unharmed("proposals").await;
}

/// What an operator does not take is refused with what would be taken; what is no channel at all, with why. None of it
/// reserves money.
#[tokio::test(flavor = "multi_thread")]
async fn proposals_that_are_not_taken_are_refused_with_the_reason_and_reserve_nothing() {
    const MONEY: Amount = Amount::new(5_000);
    let net = Net::start().await;
    let charger = Daemon::init(&net, "charger").await;
    charger.configure("[accept]\ncontest_window_min = 50\n");
    let charger = net.run_with_money(charger, MONEY).await;
    let peer = ScriptedPeer::new(&net, &charger.ticket().await);
    let greeted = peer.greet().await;
    let newest = net.info().await.milestone_index;
    let id = OutputId { transaction: flash_proto::TransactionId::new([5; 32]), index: 0 };
    let output = Output { address: Address::of(&peer.key.public()), amount: Amount::new(DEPOSIT) };
    let funding = Funding { id, output };
    let good = OpenProposal { deposit_b: MONEY, ..peer.proposal(vec![funding], newest + 500) };
    let of_a = |party_a: OpenParty| OpenProposal { party_a, ..good.clone() };
    let nothing = OpenParty { deposit: Amount::ZERO, funding: vec![], ..good.party_a.clone() };
    let no_point =
        (0..=u8::MAX).map(|byte| PublicKey::new([byte; 32])).find(|key| key.verifier().is_none()).unwrap();
    let (policy, misbehaved) = (RefusalCode::Policy, RefusalCode::Misbehaved);
    let cases = [
        (
            OpenProposal { deposit_b: Amount::new((1 << 30) + 1), ..good.clone() },
            policy,
            "at most 1Gi is locked here, not 1.073741825Gi",
        ),
        (
            OpenProposal { contest_window_milestones: 49, ..good.clone() },
            policy,
            "the contest window must be 50 to 1000000 milestones",
        ),
        (OpenProposal { contest_window_milestones: u32::MAX, ..good.clone() }, policy, "50 to 1000000"),
        (OpenProposal { expiry_milestone: newest, ..good.clone() }, policy, "the expiry must be milestone"),
        (OpenProposal { expiry_milestone: u64::MAX, ..good.clone() }, policy, "the expiry must be milestone"),
        (
            OpenProposal { deposit_b: Amount::ZERO, ..of_a(nothing.clone()) },
            policy,
            "the deposits: together they must be",
        ),
        (of_a(OpenParty { deposit: Amount::SUPPLY, ..good.party_a.clone() }), policy, "the deposits"),
        (of_a(OpenParty { deposit: Amount::MAX, ..good.party_a.clone() }), policy, "the deposits"),
        (
            of_a(OpenParty { deposit: Amount::new(DEPOSIT - 1), ..good.party_a.clone() }),
            misbehaved,
            "is not its deposit and change",
        ),
        (
            of_a(OpenParty {
                deposit: Amount::new(2 * DEPOSIT),
                funding: vec![funding, funding],
                ..good.party_a.clone()
            }),
            misbehaved,
            "an output funds the channel twice",
        ),
        (of_a(OpenParty { key: no_point, ..good.party_a.clone() }), misbehaved, "channel key cannot be used"),
    ];
    for (proposal, wanted, why) in cases {
        let OpenReply::Refuse(Refusal { code, detail }) = greeted.propose(proposal).await else {
            panic!("taken, but {why}")
        };
        assert_eq!(code, wanted, "{detail}");
        assert!(detail.contains(why), "`{detail}` should say `{why}`");
        let balance = charger.client().balance().await.unwrap();
        assert_eq!((balance.available, balance.reserved), (MONEY, Amount::ZERO), "{why}");
    }
    assert_eq!(charger.client().channels(false).await.unwrap().len(), 0, "of none anything is left");
    let OpenReply::Accept(_) = greeted.propose(good.clone()).await else { panic!("what all were made from") };
    // Now there is nothing left for another one.
    let OpenReply::Refuse(Refusal { code, detail }) = greeted.propose(good).await else { panic!("taken") };
    assert_eq!(code, RefusalCode::Busy, "{detail}");
}

/// What a peer locks must be there, be its own and be what it says; else the channel never opens, no payment is
/// taken, and after the expiry nothing is left of it.
#[tokio::test(flavor = "multi_thread")]
async fn deposits_that_are_not_there_open_nothing_and_expire() {
    let scene = Scene::set().await;
    let owner = Address::of(&scene.peer.key.public());
    let stranger = SecretKey::from_bytes([9; 32]);
    for address in [owner, Address::of(&stranger.public())] {
        scene.net.fund(address, Amount::new(DEPOSIT)).await;
    }
    let funding = async |address| {
        let outputs = scene.net.client.outputs_of(&[address]).await.unwrap().value;
        let (id, output) = outputs[0];
        Funding { id, output }
    };
    let own = funding(owner).await;
    let foreign = funding(Address::of(&stranger.public())).await;
    let more = Output { amount: Amount::new(DEPOSIT + 1), ..own.output };
    let spent = Funding { id: OutputId { index: 77, ..own.id }, ..own };
    let cases = [
        ("more than there is", Funding { output: more, ..own }),
        ("somebody else's", foreign),
        ("somebody else's, said to be its own", Funding { id: foreign.id, ..own }),
        ("what was never there", spent),
        ("the right one", own),
        ("the right one again", own),
    ];
    let expiry = scene.net.info().await.milestone_index + 40;
    let greeted = scene.peer.greet().await;
    let mut opened = Vec::new();
    for (case, funding) in cases {
        let mut proposal = scene.peer.proposal(vec![funding], expiry);
        proposal.party_a.payout = Address::of(&SecretKey::from_bytes(rand::random()).public());
        let OpenReply::Accept(accept) = greeted.propose(proposal.clone()).await else {
            panic!("{case}: what is on the ledger nobody can know when a channel is proposed")
        };
        let essence = proposal.essence(scene.net.params().id(), &accept.party_b);
        let unlocks = vec![essence.unlock(&scene.peer.key)];
        let transaction = Transaction { essence, unlocks };
        let channel = ChannelId::opened_by(transaction.id());
        let submitted = scene.net.client.submit_and_wait(transaction, Some(expiry)).await;
        assert_eq!(submitted.is_ok(), case == "the right one", "{case}: {submitted:?}");
        opened.push((case, channel));
    }
    for (case, channel) in opened {
        let wanted = if case == "the right one" { "open" } else { "lapsed" };
        scene.charger.wait(channel, wanted, |info| info.state == wanted).await;
        if wanted == "lapsed" {
            let ending = greeted.stream(&StreamStart::Channel(channel)).await.ending().await;
            println!("{case}: {ending}");
        }
    }
    // The deposit of a channel can never be spent elsewhere.
    let essence = Essence {
        network: scene.net.params().id(),
        inputs: vec![own.id],
        inputs_commitment: flash_proto::transaction::commit_inputs(&[own.output]),
        outputs: vec![own.output],
        action: Action::Transfer,
    };
    let unlocks = vec![essence.unlock(&scene.peer.key)];
    let later = scene.net.client.submit_and_wait(Transaction { essence, unlocks }, Some(expiry + 60)).await;
    assert!(later.is_err(), "{later:?}");
    scene.assert_unharmed("deposits").await;
    scene.net.assert_supply().await;
}

/// From as many machines as anybody can make up: what waits for its deposit is bounded over all of them.
#[tokio::test(flavor = "multi_thread")]
async fn proposals_of_many_machines_are_bounded() {
    let scene = Scene::set().await;
    let ticket = scene.charger.ticket().await;
    let mut accepted = 0_usize;
    let mut refused = None;
    for machine in 0..rounds(90_u16, 10_000) {
        let peer = ScriptedPeer::new(&scene.net, &ticket);
        let greeted = peer.greet().await;
        let expiry = scene.net.info().await.milestone_index + 900;
        let address = Address::of(&peer.key.public());
        for index in 0..rounds(50, 1) {
            let transaction = flash_proto::TransactionId::new([5; 32]);
            let id = OutputId { transaction, index: machine.wrapping_mul(64).wrapping_add(index) };
            let output = Output { address, amount: Amount::new(DEPOSIT) };
            match greeted.propose(peer.proposal(vec![Funding { id, output }], expiry)).await {
                OpenReply::Accept(_) => accepted += 1,
                OpenReply::Refuse(refusal) => refused = Some(refusal),
            }
        }
        if refused.is_some() {
            break;
        }
    }
    let refusal = refused.expect("not everybody is answered");
    assert_eq!(refusal.code, RefusalCode::Busy, "{refusal:?}");
    println!("{accepted} were accepted, then: {}", refusal.detail);
    assert!(accepted <= 4_096, "{accepted}");
    scene.assert_unharmed("proposals of many").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_with_another_machines_key_is_refused_before_anything_is_said() {
    let net = Net::start().await;
    let car = net.daemon("car", Amount::new(DEPOSIT)).await;
    let charger = net.daemon("charger", Amount::ZERO).await;
    let ticket = charger.ticket().await;
    let (_, address) = ticket.split_once('@').unwrap();
    let other = SecretKey::from_bytes([9; 32]).public();
    let request = OpenRequest {
        peer: format!("{other}@{address}"),
        deposit: Amount::new(10_000),
        peer_deposit: Amount::ZERO,
        contest_window_milestones: None,
    };
    let error = car.client().open(&request).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PeerUnreachable, "{error:?}");
    assert!(error.message.contains("does not have the expected key"), "{error:?}");
    // What was set aside for the channel is free again.
    until("the money to be free", || async {
        car.client().balance().await.is_ok_and(|balance| balance.available == Amount::new(DEPOSIT))
    })
    .await;
    assert!(charger.client().channels(true).await.unwrap().is_empty());
}
