//! Messages as bytes, and which of them are passed on.

use flash_proto::{Signature, limits};

use super::*;

fn message(sender: &SecretKey, sent_ms: u64, body: Body) -> CoordinatorMessage {
    CoordinatorMessage {
        network: genesis().network,
        index: 1,
        ballot: 0,
        sent_ms,
        sender: sender.public(),
        body,
    }
}

#[test]
fn the_signed_layout_is_fixed() {
    let (keys, _) = coordinators(3, 2);
    let essence = after(&genesis(), 1_000, 1);
    let id = essence.id();
    let accepted = Accepted { ballot: 5, essence: Box::new(essence.clone()) };
    let signature = Signature::new([7; 64]);
    let bodies = [
        (Body::Prepare, vec![0]),
        (Body::Promise(None), vec![1, 0]),
        (Body::Promise(Some(accepted)), [&[1, 1, 5, 0, 0, 0, 0, 0, 0, 0], id.as_bytes().as_slice()].concat()),
        (Body::Propose(Box::new(essence)), [&[2], id.as_bytes().as_slice()].concat()),
        (Body::Accept(id), [&[3], id.as_bytes().as_slice()].concat()),
        (Body::Sign(id, signature), [&[4], id.as_bytes().as_slice(), &[7; 64]].concat()),
    ];
    for (body, tail) in bodies {
        let mut bytes = b"flash/coord\0\0\0\0\0".to_vec();
        bytes.extend([9; 32]);
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        bytes.extend(tail);
        let hash = Hash::new(<sha3::Sha3_256 as sha3::Digest>::digest(bytes).into());
        let signed = message(&keys[0], 0x102, body);
        assert_eq!(signed.hash(), hash, "{signed:?}");
        let signed = signed.sign(&keys[0]);
        assert_eq!(SignedMessage::from_bytes(&signed.to_bytes()).unwrap(), signed);
    }
}

#[test]
fn the_largest_message_fits() {
    let (keys, _) = coordinators(1, 1);
    let parents = (0..limits::PARENTS_MAX).map(|_| BlockId::new([1; 32])).collect();
    let next = CoordinatorSet { keys: vec![keys[0].public(); limits::COORDINATORS_MAX], threshold: 32 };
    let essence = Box::new(MilestoneEssence { parents, next: Some(next), ..genesis() });
    let largest = message(&keys[0], 1, Body::Promise(Some(Accepted { ballot: 1, essence })));
    let bytes = largest.sign(&keys[0]).to_bytes();
    assert!(bytes.len() <= MESSAGE_BYTES_MAX && SignedMessage::from_bytes(&bytes).is_ok(), "{}", bytes.len());
}

#[test]
fn only_news_of_coordinators_about_the_next_milestone_is_passed_on() {
    let (keys, set) = coordinators(3, 2);
    let mut flood = Flood::new(genesis().network, 0, set.clone());
    let prepare = message(&keys[0], 5, Body::Prepare);
    let signed = prepare.clone().sign(&keys[0]);
    assert_eq!(flood.take(signed.clone()), Some(Heard(prepare.clone())));
    assert_eq!(flood.take(signed.clone()), None, "an echo");
    assert_eq!(flood.take(message(&keys[0], 4, Body::Prepare).sign(&keys[0])), None, "older");
    assert!(flood.take(message(&keys[0], 6, Body::Prepare).sign(&keys[0])).is_some(), "said again");
    assert!(flood.take(message(&keys[0], 4, Body::Promise(None)).sign(&keys[0])).is_some(), "another kind");
    assert_eq!(flood.held().count(), 2);

    let refused: [(&str, CoordinatorMessage, &SecretKey); 6] = [
        (
            "another network",
            CoordinatorMessage { network: NetworkId::new([1; 32]), sent_ms: 9, ..prepare.clone() },
            &keys[0],
        ),
        ("an old index", CoordinatorMessage { index: 0, sent_ms: 9, ..prepare.clone() }, &keys[0]),
        ("an index too far", CoordinatorMessage { index: 2, sent_ms: 9, ..prepare.clone() }, &keys[0]),
        ("another's ballot", CoordinatorMessage { ballot: 1, sent_ms: 9, ..prepare.clone() }, &keys[0]),
        ("another's signature", CoordinatorMessage { sent_ms: 9, ..prepare.clone() }, &keys[1]),
        (
            "a stranger",
            message(&SecretKey::from_bytes([99; 32]), 9, Body::Promise(None)),
            &SecretKey::from_bytes([99; 32]),
        ),
    ];
    for (why, message, key) in refused {
        assert_eq!(flood.take(message.sign(key)), None, "{why}");
    }
    let forged = Body::Sign(MilestoneId::new([1; 32]), Signature::new([0; 64]));
    assert_eq!(flood.take(message(&keys[0], 9, forged).sign(&keys[0])), None, "no milestone's signature");

    flood.advance(1, set);
    assert_eq!(flood.held().count(), 0);
    assert_eq!(flood.take(signed), None, "about a milestone that is there");
}
