//! Whatever is changed in a proof, it proves nothing, and it is said what is wrong.

use flash_proto::{Block, CoordinatorSet, Milestone, block::Data};

use super::*;
use crate::{
    light::tests::{Ledger, in_block_with, key, sign},
    protocol::Inclusion,
};

const FILES: [&[u8]; 3] = [b"firmware 1.4", b"", b"meter 7: 12.5 kWh"];

fn digests() -> Vec<FileDigest> {
    FILES.iter().map(|content| FileDigest::of(content)).collect()
}

/// Evidence of a block with this data, which the first milestone confirms among others.
fn evidence(ledger: &mut Ledger, data: Vec<u8>) -> Evidence {
    let data = Payload::Data(Data { tag: b"test".to_vec(), data });
    let blocks = [Payload::Empty, data].map(|payload| in_block_with(&ledger.params, payload));
    let (followed, _) = ledger.confirm(&blocks);
    let ids = blocks.each_ref().map(|block| *Block::id_of(block).as_bytes());
    let path = merkle::prove(ids, 1).unwrap();
    let [_, block] = blocks;
    Evidence::new(Inclusion { block, milestone: followed.milestone, path }, Vec::new())
}

/// A network and the proofs of all files.
fn proofs() -> (Ledger, Vec<FileProof>) {
    let mut ledger = Ledger::new();
    let (note, paths) = Note::over(&digests()).unwrap();
    let evidence = evidence(&mut ledger, note.to_data());
    let network = ledger.params.id();
    let proof = |(file, path)| FileProof::new(network, file, path, evidence.clone());
    let proofs = digests().into_iter().zip(paths).map(proof).collect();
    (ledger, proofs)
}

#[test]
fn every_file_of_a_batch_is_proven_by_itself_and_no_other() {
    let (ledger, proofs) = proofs();
    for (proof, file) in proofs.iter().zip(digests()) {
        let text = serde_json::to_string_pretty(proof).unwrap();
        let proof: FileProof = serde_json::from_str(&text).unwrap();
        let proven = proof.verify(&ledger.params, file).unwrap();
        assert_eq!((proven.milestone_index, proven.files, proven.tag.as_slice()), (1, 3, &b"test"[..]));
        assert_eq!(proven.timestamp_ms, ledger.newest.timestamp_ms);
        for other in digests().into_iter().filter(|other| *other != file) {
            let refused = proof.verify(&ledger.params, other).unwrap_err();
            assert_eq!(refused, NotaryError::File { found: other, proven: file });
        }
    }
}

#[test]
fn a_file_of_many_pieces_is_the_same_file() {
    let pieces = FileHasher::default().update(b"firm").update(b"").update(b"ware 1.4");
    assert_eq!(pieces.finish(), FileDigest::of(FILES[0]));
    // The length is hashed, too, so no content is mistaken for another with what follows it.
    let longer = [FILES[1], &0_u64.to_le_bytes()].concat();
    assert_ne!(FileDigest::of(&longer).hash, FileDigest::of(FILES[1]).hash);
    assert_eq!(
        FileDigest::of(b"abc").hash.to_string(),
        "58851580f093b67acbcaa60dcfd428d020c41372fab749a27f97b3cdd05e06a9"
    );
}

#[test]
fn every_part_of_a_proof_counts() {
    let (ledger, proofs) = proofs();
    let (proof, file) = (&proofs[0], digests()[0]);
    let refused = |change: &dyn Fn(&mut FileProof)| {
        let mut changed = proof.clone();
        change(&mut changed);
        assert_ne!(changed, *proof);
        changed.verify(&ledger.params, file).unwrap_err()
    };
    let block = Block::id_of(&proof.evidence.block);
    assert_eq!(refused(&|proof| proof.version = 2), NotaryError::Version(2));
    // The proof of another file, made to look like this one's.
    let path = proofs[1].path.clone();
    assert_eq!(refused(&|proof| proof.path = path.clone()), NotaryError::NotInNote(block));
    assert_eq!(refused(&|proof| proof.path.leaves = 1), NotaryError::NotInNote(block));
    let other = digests()[1];
    assert_eq!(refused(&|proof| proof.file = other), NotaryError::NotInNote(block));
    assert!(matches!(
        refused(&|proof| proof.file.bytes += 1),
        NotaryError::File { found, .. } if found == file
    ));
    let nonce = proof.evidence.block.len() - 1;
    assert!(matches!(refused(&|proof| proof.evidence.block[nonce] ^= 1), NotaryError::Evidence(_)));
    assert!(matches!(
        refused(&|proof| proof.evidence.path.index = 0),
        NotaryError::Evidence(EvidenceError::NotIncluded { milestone_index: 1, .. })
    ));
}

#[test]
fn every_signature_counts() {
    let (ledger, proofs) = proofs();
    let (proof, file) = (&proofs[0], digests()[0]);
    let refused = |change: &dyn Fn(&mut Milestone)| {
        let mut changed = proof.clone();
        change(&mut changed.evidence.milestone);
        match changed.verify(&ledger.params, file).unwrap_err() {
            NotaryError::Signatures(error) => error,
            other => panic!("{other}"),
        }
    };
    assert!(matches!(refused(&|it| it.essence.timestamp_ms -= 1), MilestoneError::BadSignature(_)));
    assert!(matches!(refused(&|it| it.signatures.truncate(1)), MilestoneError::TooFewSignatures { .. }));
    let stranger = proof.evidence.milestone.essence.sign(&key(99));
    assert!(matches!(
        refused(&|it| {
            it.signatures[1] = stranger;
            it.signatures.sort_by_key(|signature| signature.coordinator);
        }),
        MilestoneError::UnknownCoordinator(_)
    ));
    assert!(matches!(
        refused(&|it| it.signatures[1].signature = it.signatures[0].signature),
        MilestoneError::BadSignature(_)
    ));
}

#[test]
fn another_network_is_named() {
    let (ledger, proofs) = proofs();
    let (proof, file) = (&proofs[0], digests()[0]);
    let mut other = (*ledger.params).clone();
    other.name = "other".to_owned();
    let refused = proof.verify(&other, file).unwrap_err();
    assert_eq!(refused, NotaryError::Network { proof: ledger.params.id(), ours: other.id() });
    let mut renamed = proof.clone();
    renamed.network = other.id();
    let refused = renamed.verify(&other, file).unwrap_err();
    assert!(matches!(refused, NotaryError::Signatures(MilestoneError::Network(_))), "{refused}");
}

#[test]
fn coordinators_that_took_over_later_are_found_through_the_hand_overs() {
    let mut ledger = Ledger::new();
    let hand_over = {
        let mut essence = ledger.next().milestone.essence;
        essence.next = Some(CoordinatorSet { keys: vec![key(60).public()], threshold: 1 });
        ledger.newest = essence.clone();
        sign(essence)
    };
    let (note, paths) = Note::over(&digests()[..1]).unwrap();
    let mut evidence = evidence(&mut ledger, note.to_data());
    let essence = evidence.milestone.essence.clone();
    evidence.milestone = Milestone { signatures: vec![essence.sign(&key(60))], essence };
    let verify = |hand_overs: Vec<Milestone>| {
        let evidence = Evidence { hand_overs, ..evidence.clone() };
        let proof = FileProof::new(ledger.params.id(), digests()[0], paths[0].clone(), evidence);
        proof.verify(&ledger.params, digests()[0])
    };
    assert_eq!(verify(vec![hand_over.clone()]).unwrap().milestone_index, 2);
    assert!(matches!(verify(Vec::new()), Err(NotaryError::Signatures(_))));
    let twice = verify(vec![hand_over.clone(), hand_over.clone()]);
    assert!(twice.is_err(), "{twice:?}");
    let mut forged = hand_over;
    forged.essence.next = Some(CoordinatorSet { keys: vec![key(61).public()], threshold: 1 });
    assert!(matches!(verify(vec![forged]), Err(NotaryError::Signatures(MilestoneError::BadSignature(_)))));
    let mut plain = Ledger::new();
    let no_hand_over = plain.next().milestone;
    assert_eq!(verify(vec![no_hand_over]), Err(NotaryError::Evidence(EvidenceError::HandOver { index: 1 })));
}

#[test]
fn other_data_is_no_note() {
    let mut ledger = Ledger::new();
    let (note, paths) = Note::over(&digests()).unwrap();
    let good = note.to_data();
    let longer = [&good[..], b"x"].concat();
    let of_nothing = [&good[..16], &[0; 4], &good[20..]].concat();
    for wrong in [&b""[..], &good[..51], &longer, &good[1..], &of_nothing] {
        assert_eq!(Note::from_data(wrong), None);
    }
    let evidence = evidence(&mut ledger, good[..51].to_vec());
    let block = Block::id_of(&evidence.block);
    let proof = FileProof::new(ledger.params.id(), digests()[0], paths[0].clone(), evidence);
    assert_eq!(proof.verify(&ledger.params, digests()[0]), Err(NotaryError::NoNote(block)));
    assert_eq!(Note::over(&[]), None);
    assert_eq!(Note::over(&vec![digests()[0]; FILES_MAX + 1]), None);
}
