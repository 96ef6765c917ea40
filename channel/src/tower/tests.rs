//! What a watchtower takes, keeps, shows and claims.

use flash_proto::{
    Address, Amount, Claim, LaneState, Open, Payment, PaymentList, TickChain, TickTerms, record::Party,
};
use proptest::prelude::*;

use super::*;
use crate::store::MemoryStore;

const NETWORK: NetworkId = NetworkId::new([9; 32]);
const CHANNEL: ChannelId = ChannelId::new([1; 32]);

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

/// The payers' keys in the channel are 1 and 2; their machines have 11 and 12, the tower has 20.
fn record(phase: ChannelPhase) -> ChannelRecord {
    let party = |n: u8| Party {
        key: key(n).public(),
        payout: Address::of(&key(n).public()),
        deposit: Amount::new(1_000),
    };
    let open =
        Open { party_a: party(1), party_b: party(2), contest_window_milestones: 10, expiry_milestone: 5 };
    ChannelRecord { phase, ..ChannelRecord::opened(&open) }
}

fn view(index: u64, record: Option<ChannelRecord>) -> LedgerView {
    LedgerView { index, record, payouts: None }
}

fn state(channel: ChannelId, payer: Side, seq: u64, cumulative: u64) -> LaneState {
    LaneState { seq, cumulative: Amount::new(cumulative), ..LaneState::new(channel, payer) }
}

fn balance(payer: Side, seq: u64, cumulative: u64) -> Claimable {
    signed(state(CHANNEL, payer, seq, cumulative), &key(payer.pick(1, 2)))
}

fn signed(state: LaneState, key: &SecretKey) -> Claimable {
    Claimable { balance: state.sign(NETWORK, key), ticks: None }
}

/// The payee of the lane names the machine `client`.
fn permit(channel: ChannelId, payer: Side, client: &SecretKey) -> Signature {
    key(payer.pick(2, 1)).sign(&client_hash(NETWORK, channel, payer, &client.public()))
}

/// A tower with its store.
struct Scene {
    tower: Tower,
    store: MemoryStore,
}

impl Scene {
    fn new(limits: Limits) -> Self {
        let store = MemoryStore::new();
        let tower = Tower::load(&store, NETWORK, key(20), limits).unwrap();
        Self { tower, store }
    }

    /// Party B's machine, which is paid on A's lane, hands over.
    fn keep(&mut self, newest: &Claimable) -> Result<Answer, TowerError> {
        let (channel, payer) = lane_of(newest);
        self.keep_as(&key(12), newest, permit(channel, payer, &key(12)))
    }

    fn keep_as(
        &mut self,
        client: &SecretKey,
        balance: &Claimable,
        permit: Signature,
    ) -> Result<Answer, TowerError> {
        let proven = view(7, Some(record(ChannelPhase::Open)));
        let mut batch = Batch::new();
        let kept = self.tower.keep(client.public(), balance, &permit, Some(&proven), &mut batch);
        assert!(kept.is_ok() || batch.is_empty(), "a refusal changes nothing");
        let _ = self.store.commit(&batch).unwrap();
        kept
    }

    fn ledger(&mut self, view: &LedgerView) {
        let mut batch = Batch::new();
        self.tower.ledger(CHANNEL, view, &mut batch);
        let _ = self.store.commit(&batch).unwrap();
    }

    fn reload(&mut self) {
        self.store = self.store.reopen();
        self.tower = Tower::load(&self.store, NETWORK, key(20), self.tower.limits).unwrap();
    }

    fn stored(&self) -> usize {
        self.store.scan(LANES, &[], None, 100).unwrap().len()
    }
}

fn closing(lane_a: u64) -> ChannelRecord {
    let mut record = record(ChannelPhase::Closing { closer: Side::A, deadline: 20 });
    record.lane_a.cumulative = Amount::new(lane_a);
    record
}

#[test]
fn only_the_newest_is_kept_and_the_tower_signs_for_it() {
    let mut scene = Scene::new(Limits::default());
    let (old, new) = (balance(Side::A, 3, 30), balance(Side::A, 4, 31));
    for handed in [&old, &new, &new] {
        let Ok(Answer::Holds(signature)) = scene.keep(handed) else { panic!("it is taken") };
        assert!(key(20).public().verify(&receipt_hash(NETWORK, handed), &signature));
        assert!(!key(21).public().verify(&receipt_hash(NETWORK, handed), &signature));
        assert_eq!(scene.stored(), 1, "one balance for each lane");
    }
    assert_eq!(scene.keep(&old), Ok(Answer::Newer(Box::new(new))));
    scene.reload();
    assert_eq!(scene.keep(&old), Ok(Answer::Newer(Box::new(new))));
    assert_eq!((scene.tower.lanes(), scene.tower.clients(), scene.stored()), (1, 1, 1));
}

#[test]
fn what_is_not_the_payees_is_refused() {
    let mut scene = Scene::new(Limits::default());
    let good = balance(Side::A, 1, 10);
    let permitted = permit(CHANNEL, Side::A, &key(12));
    let mut forged = good;
    forged.balance.state.cumulative = Amount::new(11);
    assert_eq!(scene.keep(&forged), Err(TowerError::Signature));
    let foreign = good.balance.state.sign(NetworkId::new([8; 32]), &key(1));
    let foreign = Claimable { balance: foreign, ticks: None };
    assert_eq!(scene.keep(&foreign), Err(TowerError::Signature), "another network");
    let own = signed(good.balance.state, &key(2));
    assert_eq!(scene.keep(&own), Err(TowerError::Signature), "signed by the payee");
    let ticks = TickTerms { max: 1, ..TickTerms::NONE };
    let odd = [
        LaneState { ticks, ..good.balance.state },
        LaneState { locks_root: Hash::new([1; 32]), ..good.balance.state },
    ];
    for odd in odd {
        assert_eq!(scene.keep(&signed(odd, &key(1))), Err(TowerError::Terms));
    }

    let stranger = key(13);
    for permit in [permitted, permit(CHANNEL, Side::B, &stranger), Signature::new([0; 64])] {
        assert_eq!(scene.keep_as(&stranger, &good, permit), Err(TowerError::NotThePayee));
    }
    // The payer itself cannot take the payee's place.
    let payers = key(1).sign(&client_hash(NETWORK, CHANNEL, Side::A, &key(11).public()));
    assert_eq!(scene.keep_as(&key(11), &good, payers), Err(TowerError::NotThePayee));
    let mut batch = Batch::new();
    let gone = view(9, None);
    let unseen = scene.tower.keep(key(12).public(), &good, &permitted, None, &mut batch);
    assert_eq!(unseen, Err(TowerError::NotSeen));
    let gone = scene.tower.keep(key(12).public(), &good, &permitted, Some(&gone), &mut batch);
    assert_eq!(gone, Err(TowerError::UnknownChannel));
    assert_eq!((scene.tower.lanes(), scene.stored()), (0, 0));
}

#[test]
fn what_pays_more_counts_whatever_its_number() {
    let mut scene = Scene::new(Limits::default());
    // A payer that numbers oddly cannot keep the better balance out.
    scene.keep(&balance(Side::A, 1_000, 5)).unwrap();
    let better = balance(Side::A, 2, 500);
    assert!(matches!(scene.keep(&better), Ok(Answer::Holds(_))));
    assert_eq!(scene.keep(&balance(Side::A, 1_001, 6)), Ok(Answer::Newer(Box::new(better))));
}

#[test]
fn only_the_payees_machine_is_shown_what_is_held() {
    let mut scene = Scene::new(Limits::default());
    let newest = balance(Side::A, 3, 30);
    scene.keep(&newest).unwrap();
    let show = |scene: &Scene, client: &SecretKey, permit, proven: Option<&LedgerView>| {
        scene.tower.show(client.public(), CHANNEL, Side::A, &permit, proven)
    };
    let none = Signature::new([0; 64]);
    assert_eq!(show(&scene, &key(12), none, None), Ok(Some(newest)), "it brought it itself");
    assert_eq!(show(&scene, &key(11), none, None), Err(TowerError::NotThePayee));
    scene.reload();
    assert_eq!(show(&scene, &key(12), none, None), Err(TowerError::NotSeen));
    let proven = view(7, Some(record(ChannelPhase::Open)));
    // A new machine of the payee, which knows its key in the channel.
    let named = permit(CHANNEL, Side::A, &key(14));
    assert_eq!(show(&scene, &key(14), named, Some(&proven)), Ok(Some(newest)));
    let other = scene.tower.show(key(12).public(), CHANNEL, Side::B, &none, None);
    assert_eq!(other, Ok(None), "nothing is held of the other lane");
}

#[test]
fn a_new_machine_takes_the_place_but_not_the_balance_back() {
    let mut scene = Scene::new(Limits { client_lanes: 1, lanes: 8 });
    let newest = balance(Side::A, 3, 30);
    scene.keep(&newest).unwrap();
    let named = permit(CHANNEL, Side::A, &key(14));
    let older = balance(Side::A, 2, 20);
    assert_eq!(scene.keep_as(&key(14), &older, named), Ok(Answer::Newer(Box::new(newest))));
    assert_eq!((scene.tower.clients(), scene.stored()), (1, 1));
    assert_eq!(scene.tower.clients.get(&key(14).public()), Some(&1));
}

#[test]
fn a_client_and_all_together_have_so_many_lanes() {
    let mut scene = Scene::new(Limits { client_lanes: 2, lanes: 3 });
    let mut on = |n: u8, client: u8| {
        let channel = ChannelId::new([n; 32]);
        let balance = signed(state(channel, Side::A, 1, 10), &key(1));
        scene.keep_as(&key(client), &balance, permit(channel, Side::A, &key(client))).map(drop)
    };
    assert_eq!((on(1, 12), on(2, 12), on(3, 12)), (Ok(()), Ok(()), Err(TowerError::ClientFull(2))));
    assert_eq!(on(1, 12), Ok(()), "the same again needs no room");
    assert_eq!((on(3, 13), on(4, 13)), (Ok(()), Err(TowerError::Full(3))));
    assert_eq!(on(1, 13), Ok(()), "a lane that moves needs no more room");
    assert_eq!(on(4, 12), Err(TowerError::Full(3)));
    assert_eq!(scene.tower.channels().count(), 3);
    let first = ChannelId::new([1; 32]);
    let more = signed(state(first, Side::A, 2, 20), &key(1));
    let goes_on = scene.keep_as(&key(13), &more, permit(first, Side::A, &key(13)));
    assert!(matches!(goes_on, Ok(Answer::Holds(_))), "a lane that is kept goes on: {goes_on:?}");
}

#[test]
fn what_is_no_newer_is_answered_without_a_write() {
    let mut scene = Scene::new(Limits::default());
    let first = balance(Side::A, 3, 30);
    scene.keep(&first).unwrap();
    let other = signed(LaneState { history: Hash::new([1; 32]), ..first.balance.state }, &key(1));
    for handed in [first, other, balance(Side::A, 2, 20)] {
        let mut batch = Batch::new();
        let none = Signature::new([0; 64]); // the client is known
        scene.tower.keep(key(12).public(), &handed, &none, None, &mut batch).unwrap();
        assert!(batch.is_empty(), "{handed:?}");
    }
}

#[test]
fn of_two_bodies_that_are_worth_as_much_the_first_stays() {
    let mut scene = Scene::new(Limits::default());
    let first = balance(Side::A, 3, 30);
    scene.keep(&first).unwrap();
    let other = signed(LaneState { history: Hash::new([1; 32]), ..first.balance.state }, &key(1));
    assert_eq!(scene.keep(&other), Ok(Answer::Newer(Box::new(first))));
}

#[test]
fn a_close_with_less_is_claimed_until_the_ledger_knows_better() {
    let mut scene = Scene::new(Limits::default());
    scene.keep(&balance(Side::A, 3, 30)).unwrap();
    assert!(scene.tower.wanted(CHANNEL).is_empty(), "it is open");
    scene.ledger(&view(11, Some(closing(29))));
    let claims = scene.tower.wanted(CHANNEL);
    let [claim] = claims.as_slice() else { panic!("{claims:?}") };
    assert_eq!(claim.essence.action, Action::Claim(Claim::of(state(CHANNEL, Side::A, 3, 30))));
    assert_eq!(claim.unlocks[0].key, key(1).public());
    // Of a newer balance another claim.
    scene.keep(&balance(Side::A, 4, 40)).unwrap();
    assert_ne!(scene.tower.wanted(CHANNEL), claims);
    scene.reload();
    assert!(scene.tower.wanted(CHANNEL).is_empty(), "nothing was seen yet");
    scene.ledger(&view(12, Some(closing(29))));
    assert_eq!(scene.tower.wanted(CHANNEL).len(), 1);
    scene.ledger(&view(13, Some(closing(40))));
    assert!(scene.tower.wanted(CHANNEL).is_empty(), "the ledger knows as much");
    // An old view does not bring it back, and after the deadline no claim counts.
    scene.ledger(&view(12, Some(closing(29))));
    assert!(scene.tower.wanted(CHANNEL).is_empty());
    scene.ledger(&view(21, Some(closing(29))));
    assert!(scene.tower.wanted(CHANNEL).is_empty());
    scene.ledger(&view(22, None));
    assert_eq!((scene.tower.lanes(), scene.tower.clients(), scene.stored()), (0, 0, 0), "it is forgotten");
}

#[test]
fn a_view_from_before_the_opening_forgets_nothing_after_a_restart() {
    let mut scene = Scene::new(Limits::default());
    scene.keep(&balance(Side::A, 3, 30)).unwrap();
    scene.reload();
    // It was taken at milestone 7. A node that is behind proves what was before.
    scene.ledger(&view(6, None));
    assert_eq!((scene.tower.lanes(), scene.stored()), (1, 1));
    scene.ledger(&view(8, Some(closing(0))));
    assert_eq!(scene.tower.wanted(CHANNEL).len(), 1);
}

#[test]
fn the_newest_tick_counts_and_must_be_of_the_chain() {
    let mut scene = Scene::new(Limits::default());
    let mut chain = TickChain::new(Hash::new([7; 32]), Amount::new(5), 100).unwrap();
    let with = LaneState { ticks: chain.terms(), ..state(CHANNEL, Side::A, 3, 30) };
    let balance = signed(with, &key(1));
    let mut ticked = |index| Claimable { ticks: chain.reveal(index), ..balance };
    for newer in [balance, ticked(1), ticked(4)] {
        let Ok(Answer::Holds(signature)) = scene.keep(&newer) else { panic!("it is taken") };
        assert!(key(20).public().verify(&receipt_hash(NETWORK, &newer), &signature));
    }
    assert_eq!(scene.keep(&ticked(3)), Ok(Answer::Newer(Box::new(ticked(4)))));
    let mut forged = ticked(5);
    forged.ticks = forged.ticks.map(|tick| flash_proto::TickProof { index: 6, ..tick });
    assert_eq!(scene.keep(&forged), Err(TowerError::Terms));
    scene.ledger(&view(11, Some(closing(49))));
    let claims = scene.tower.wanted(CHANNEL);
    assert_eq!(claims[0].essence.action, Action::Claim(ticked(4).claim()));
    scene.ledger(&view(12, Some(closing(50))));
    assert!(scene.tower.wanted(CHANNEL).is_empty());
    // The next balance folds them: it pays the same, and is newer.
    let folded = signed(state(CHANNEL, Side::A, 4, 50), &key(1));
    assert!(matches!(scene.keep(&folded), Ok(Answer::Holds(_))));
    assert_eq!(scene.keep(&ticked(4)), Ok(Answer::Newer(Box::new(folded))));
}

#[test]
fn both_lanes_can_be_kept_and_claimed() {
    let mut scene = Scene::new(Limits::default());
    scene.keep(&balance(Side::A, 1, 10)).unwrap();
    scene.keep_as(&key(11), &balance(Side::B, 1, 20), permit(CHANNEL, Side::B, &key(11))).unwrap();
    scene.ledger(&view(11, Some(closing(0))));
    assert_eq!((scene.tower.wanted(CHANNEL).len(), scene.tower.channels().count()), (2, 1));
}

#[test]
fn a_client_that_is_left_with_a_lane_stays_and_foreign_channels_are_not_watched() {
    let mut scene = Scene::new(Limits { client_lanes: 2, lanes: 8 });
    let other = ChannelId::new([5; 32]);
    scene.keep(&balance(Side::A, 1, 10)).unwrap();
    scene.keep(&signed(state(other, Side::A, 1, 10), &key(1))).unwrap();
    scene.ledger(&view(22, None));
    assert_eq!((scene.tower.lanes(), scene.tower.clients.get(&key(12).public())), (1, Some(&1)));
    let mut batch = Batch::new();
    let nobodys = ChannelId::new([6; 32]);
    scene.tower.ledger(nobodys, &view(23, Some(closing(0))), &mut batch);
    assert!(batch.is_empty());
    assert_eq!(scene.tower.records.len(), 1, "nothing is remembered of what nobody handed over");
}

/// The milestone at which a lane was taken may still be the newest after a restart.
#[test]
fn the_view_in_which_a_lane_was_taken_counts_again_after_a_restart_and_no_older_one() {
    let mut scene = Scene::new(Limits::default());
    scene.keep(&balance(Side::A, 3, 30)).unwrap();
    scene.reload();
    for (index, seen) in [(6, 0), (7, 1)] {
        scene.ledger(&view(index, Some(record(ChannelPhase::Open))));
        assert_eq!(scene.tower.records.len(), seen, "{index}");
    }
}

#[test]
fn every_refusal_has_its_code() {
    let codes = [
        (TowerError::UnknownChannel, TowerRefusalCode::UnknownChannel),
        (TowerError::NotSeen, TowerRefusalCode::Busy),
        (TowerError::Signature, TowerRefusalCode::Signature),
        (TowerError::NotThePayee, TowerRefusalCode::NotThePayee),
        (TowerError::Terms, TowerRefusalCode::Terms),
        (TowerError::ClientFull(1), TowerRefusalCode::Full),
        (TowerError::Full(1), TowerRefusalCode::Full),
    ];
    for (error, code) in codes {
        assert_eq!(error.code(), code, "{error}");
    }
}

#[test]
fn a_record_in_the_place_of_another_is_named() {
    let store = MemoryStore::new();
    let mut batch = Batch::new();
    let held = Held { client: key(12).public(), newest: balance(Side::A, 3, 30), seen: 7 };
    batch.put(LANES, &lane_key((CHANNEL, Side::B)), codec::encode(&held));
    let _ = store.commit(&batch).unwrap();
    let error = Tower::load(&store, NETWORK, key(20), Limits::default()).unwrap_err();
    assert!(error.to_string().contains("another lane's"), "{error}");
}

#[test]
fn a_damaged_record_is_named() {
    let mut scene = Scene::new(Limits::default());
    scene.keep(&balance(Side::A, 3, 30)).unwrap();
    assert!(scene.store.flip_bit(LANES, &lane_key((CHANNEL, Side::A)), 99));
    assert!(Tower::load(&scene.store, NETWORK, key(20), Limits::default()).is_err());
}

#[test]
fn a_balance_that_was_held_has_to_be_signed_by_the_payer_too() {
    let mut scene = Scene::new(Limits::default());
    scene.keep(&balance(Side::A, 3, 30)).unwrap();
    let list = {
        let mut list = PaymentList::new();
        list.push(&Payment::new(Amount::new(1), b"").unwrap()).unwrap();
        list
    };
    let next = state(CHANNEL, Side::A, 3, 30).advance(&list).unwrap();
    let forged = signed(next, &key(3));
    assert_eq!(scene.keep(&forged), Err(TowerError::Signature));
    assert!(matches!(scene.keep(&signed(next, &key(1))), Ok(Answer::Holds(_))));
}

proptest! {
    /// Whatever comes in whatever order, with restarts: what is held is the best that was taken (I3).
    #[test]
    fn what_is_held_never_goes_down(
        handed in proptest::collection::vec((1_u64..50, 1_u64..50, 0_u8..4), 1..40),
    ) {
        let mut scene = Scene::new(Limits::default());
        let mut best = (Amount::ZERO, 0, 0);
        for (seq, cumulative, chance) in handed {
            let balance = balance(Side::A, seq, cumulative);
            let valid = chance != 1;
            let mut given = balance;
            if !valid {
                given.balance.state.cumulative = Amount::new(cumulative + 50);
            }
            let answer = scene.keep(&given);
            if valid {
                best = best.max(rank(&balance));
            }
            let held = scene.tower.lanes.get(&(CHANNEL, Side::A)).map(|held| rank(&held.newest));
            prop_assert_eq!(held.unwrap_or_default(), best);
            prop_assert_eq!(answer.is_ok(), valid);
            if chance == 0 {
                scene.reload();
            }
        }
        prop_assert!(scene.stored() <= 1);
    }
}
