//! Channels at rest: which are, and what wakes them.

use super::*;
use crate::machine::tables::Listed;

fn listed(half: &Half) -> Option<Rest> {
    let listed = tables::listed(&half.store).unwrap();
    let [Listed { id, peer, side, rest }] = listed[..] else { panic!("{listed:?}") };
    let agreement = &half.channel.agreement;
    assert_eq!((id, peer, side), (half.channel.id, agreement.peer, agreement.side));
    rest
}

/// A channel that has paid and been paid, whose link is down.
fn used() -> Pair {
    let mut pair = Pair::open([1_000, 1_000]);
    for side in Side::BOTH {
        pair.of(side).pay(10);
    }
    pair.run();
    for half in &mut pair.halves {
        half.handle(vec![Input::Disconnected]).unwrap();
    }
    pair
}

/// The channel as the ledger has it since it was opened.
fn view(pair: &Pair) -> LedgerView {
    let record = ChannelRecord::opened(&pair.halves[0].channel.agreement.open);
    LedgerView { index: pair.index, record: Some(record), payouts: None }
}

#[test]
fn only_an_open_channel_without_anything_to_do_rests() {
    let mut opening = Half::new(Side::A, [1_000, 1_000]);
    assert!(opening.channel.at_rest(None).is_none() && listed(&opening).is_none());
    opening.handle(vec![Input::Connected]).unwrap();

    let mut pair = used();
    let seen = view(&pair);
    let half = pair.of(Side::A);
    assert!(half.channel.at_rest(Some(&seen)).is_some() && listed(half).is_some());
    let contested = ChannelPhase::Closing { closer: Side::B, deadline: 9 };
    let other = LedgerView { record: seen.record.map(|it| ChannelRecord { phase: contested, ..it }), ..seen };
    assert!(half.channel.at_rest(Some(&other)).is_none(), "it was seen otherwise");

    let before = half.channel.clone();
    let wakes = |inputs: Vec<Input>, stored: bool, half: &mut Half| {
        let [snapshot, store] = [half.store.snapshot(), half.store.snapshot()];
        half.store = store;
        half.handle(inputs.clone()).unwrap();
        assert!(half.channel.at_rest(Some(&seen)).is_none(), "{inputs:?}");
        assert_eq!(listed(half).is_none(), stored, "{inputs:?}");
        (half.channel, half.store) = (before.clone(), snapshot);
    };
    wakes(vec![Input::Close], true, half);
    wakes(vec![Input::CloseAlone], true, half);
    wakes(vec![Input::Doubt], true, half);
    wakes(vec![Input::Ledger(LedgerView { index: 9, ..other })], true, half);
    wakes(vec![Input::Ledger(LedgerView { index: 9, record: None, payouts: None })], true, half);
    wakes(vec![Input::Connected], false, half);
    assert!(half.channel.at_rest(Some(&seen)).is_some());
}

#[test]
fn a_channel_of_which_a_part_is_missing_is_named_and_never_passed_over() {
    let store = MemoryStore::new();
    for deposit in 1_000..1_003 {
        let mut effects = Effects::default();
        Channel::new(agreement(Side::A, [deposit, 0]), key(Side::A), &mut effects);
        let _ = store.commit(&effects.batch).unwrap();
    }
    let ids = tables::channels(&store).unwrap();
    assert_eq!(tables::listed(&store).unwrap().iter().map(|it| it.id).collect::<Vec<_>>(), ids);
    for id in ids {
        for table in [tables::AGREEMENTS, tables::PHASES] {
            let store = store.snapshot();
            let mut batch = Batch::new();
            batch.delete(table, id.as_bytes());
            let _ = store.commit(&batch).unwrap();
            let error = tables::listed(&store).unwrap_err().to_string();
            for part in [&id.to_string(), table.name(), "missing"] {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }
}

#[test]
fn a_withdraw_under_way_keeps_a_channel_awake() {
    let mut pair = Pair::open([1_000, 1_000]);
    let seen = view(&pair);
    let withdraw = Input::Withdraw { amount: amount(100), left_min: amount(1) };
    pair.of(Side::A).handle(vec![withdraw]).unwrap();
    pair.run();
    for half in &mut pair.halves {
        half.handle(vec![Input::Disconnected]).unwrap();
        assert!(half.channel.at_rest(Some(&seen)).is_none() && listed(half).is_none());
    }
    // Until it is applied; what was taken out is then what is at rest.
    let record = seen.record.map(|record| ChannelRecord { withdrawn_a: amount(100), ..record });
    pair.see_record(record, None);
    let now = LedgerView { index: pair.index, record, payouts: None };
    for half in &mut pair.halves {
        let [mut kept, mut found] = [half.channel.at_rest(Some(&now)), listed(half)].map(Option::unwrap);
        assert!(kept.sees(&now) && found.sees(&now));
        assert!(!kept.sees(&seen) && !found.sees(&seen), "that is not what it knows");
    }
}

#[test]
fn a_channel_at_rest_sees_every_change_of_it() {
    let mut pair = used();
    let seen = view(&pair);
    let mut rest = pair.of(Side::B).channel.at_rest(Some(&seen)).unwrap();
    let record = seen.record.unwrap();
    let with_a = |deposit: u64| Party { deposit: amount(deposit), ..record.party_a };
    let with_b = |deposit: u64| Party { deposit: amount(deposit), ..record.party_b };
    let closing = ChannelPhase::Closing { closer: Side::A, deadline: 30 };
    let later = |record: Option<ChannelRecord>| LedgerView { index: 20, record, payouts: None };
    for changed in [
        None,
        Some(ChannelRecord { phase: closing, ..record }),
        Some(ChannelRecord { party_a: with_a(1_001), ..record }),
        Some(ChannelRecord { party_b: with_b(1_001), ..record }),
        Some(ChannelRecord { withdrawn_a: amount(1), ..record }),
        Some(ChannelRecord { withdrawn_b: amount(1), ..record }),
    ] {
        assert!(!rest.sees(&later(changed)), "{changed:?}");
        assert_eq!(rest.view(&open([1_000, 1_000]), 5), Some(LedgerView { index: 5, ..seen }));
    }
    assert!(rest.sees(&later(seen.record)));
    assert_eq!(
        rest.view(&open([1_000, 1_000]), 5),
        Some(LedgerView { index: 20, ..seen }),
        "not an older one"
    );
    assert_eq!(rest.view(&open([1_000, 1_000]), 25), Some(LedgerView { index: 25, ..seen }));
}

#[test]
fn what_is_known_of_a_channel_is_the_same_after_its_rest() {
    let mut pair = used();
    let seen = view(&pair);
    for half in &mut pair.halves {
        let side = half.channel.agreement.side;
        // What the peer has acknowledged is in no record yet.
        assert!(half.channel.write_acknowledged());
        half.handle(Vec::new()).unwrap();
        assert!(!half.channel.write_acknowledged());
        let rest = half.channel.at_rest(Some(&seen)).unwrap();
        let mut woken = Channel::load(half.channel.id, |_| key(side), &half.store).unwrap();
        woken.wake(&rest);
        let mut effects = Effects::default();
        woken.handle(Input::Ledger(rest.view(&woken.agreement.open, 0).unwrap()), &mut effects).unwrap();
        woken.handle(Input::Fresh(true), &mut effects).unwrap();
        woken.finish(&mut effects);
        assert!(effects.batch.is_empty() && effects.after.is_empty(), "{effects:?}");
        // The newest milestone that a phase was written at is another matter.
        woken.stored_seen = half.channel.stored_seen;
        // Made when it is needed.
        woken.peer_verifier = half.channel.peer_verifier.clone();
        let key = |channel: &Channel| format!("{channel:?}");
        assert_eq!(key(&woken), key(&half.channel));
    }
}
