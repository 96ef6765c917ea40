//! What is kept and told of a tower.

use flash_proto::{Hash, LaneState, SecretKey, Side, tower::receipt_hash};

use super::*;

const CHANNEL: ChannelId = ChannelId::new([1; 32]);
const NETWORK: NetworkId = NetworkId::new([9; 32]);

fn tower() -> (Tower, SecretKey) {
    let key = SecretKey::from_bytes([20; 32]);
    let address = PeerAddress::new(key.public(), "localhost", 1).unwrap();
    (Tower { address, known: Mutex::default() }, key)
}

fn claimable(seq: u64) -> Claimable {
    let state = LaneState { seq, ..LaneState::new(CHANNEL, Side::A) };
    Claimable { balance: state.sign(NETWORK, &SecretKey::from_bytes([1; 32])), ticks: None }
}

fn receipt(key: &SecretKey, seq: u64) -> TowerReceipt {
    let held = claimable(seq);
    TowerReceipt { held, signature: key.sign(&receipt_hash(NETWORK, &held)) }
}

/// Makes the last look of the tower so long ago.
fn age(tower: &Tower, by: Duration) {
    for standing in tower.known().channels.values_mut() {
        if let Some((since, _)) = &mut standing.behind {
            *since = since.checked_sub(by).unwrap();
        }
    }
}

#[test]
fn a_tower_is_late_only_if_it_does_not_get_on_for_long() {
    let (tower, key) = tower();
    let look = |seq| {
        let live = BTreeMap::from([(CHANNEL, Some(claimable(seq)))]);
        tower.look(&live, &mut Batch::new())
    };
    assert_eq!(look(5), 0, "it was just noticed");
    age(&tower, BEHIND_FOR_LONG);
    assert_eq!(look(6), 1);
    // It is behind, but it gets on.
    tower.confirmed(CHANNEL, &receipt(&key, 5));
    assert_eq!(look(7), 0);
    age(&tower, BEHIND_FOR_LONG);
    assert_eq!(look(7), 1);
    tower.confirmed(CHANNEL, &receipt(&key, 7));
    assert_eq!(look(7), 0);
}

#[test]
fn a_receipt_is_stored_once_and_forgotten_with_the_channel() {
    let (tower, key) = tower();
    let live = BTreeMap::from([(CHANNEL, Some(claimable(5)))]);
    tower.confirmed(CHANNEL, &receipt(&key, 5));
    let written = |live| {
        let mut batch = Batch::new();
        tower.look(live, &mut batch);
        batch.len()
    };
    assert_eq!((written(&live), written(&live)), (1, 0));
    tower.confirmed(CHANNEL, &receipt(&key, 5));
    assert_eq!(written(&live), 0, "the same again");
    tower.confirmed(CHANNEL, &receipt(&key, 6));
    assert_eq!(written(&live), 1);
    assert_eq!((written(&BTreeMap::new()), tower.known().channels.len()), (1, 0));
}

#[test]
fn only_what_the_tower_signed_is_loaded() {
    let (_, key) = tower();
    let right = receipt(&key, 5);
    assert!(right.verify(NETWORK, &key.public()));
    assert!(!right.verify(NetworkId::new([8; 32]), &key.public()));
    let mut other = right;
    other.held.balance.state.history = Hash::new([1; 32]);
    assert!(!other.verify(NETWORK, &key.public()));
    other = right;
    other.held.ticks = Some(flash_proto::TickProof { index: 1, preimage: Hash::ZERO });
    assert!(!other.verify(NETWORK, &key.public()));
}
