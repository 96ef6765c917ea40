//! One coordinator and what it is told, step by step.

use super::*;

fn start(at: usize, count: u8, threshold: u8, record: Option<VoteRecord>) -> Coordinator {
    let (keys, set) = coordinators(count, threshold);
    Coordinator::new(keys[at].clone(), TIMING, record, genesis(), set, 1_000).unwrap()
}

fn say(from: usize, ballot: u64, body: Body) -> Input {
    let (keys, _) = coordinators(3, 2);
    Input::Message(Heard(CoordinatorMessage {
        network: genesis().network,
        index: 1,
        ballot,
        sent_ms: 1,
        sender: keys[from].public(),
        body,
    }))
}

fn said(outputs: &[Output]) -> Vec<(u64, &Body)> {
    let bodies = outputs.iter().filter_map(|output| match output {
        Output::Send(message) => Some((message.ballot, &message.body)),
        _ => None,
    });
    bodies.collect()
}

#[test]
fn one_of_one_issues_at_once_and_says_nothing() {
    let mut alone = start(0, 1, 1, None);
    assert_eq!(alone.handle(Input::Tick { now_ms: 1_000 }), [Output::NeedDraft]);
    let essence = after(&genesis(), 1_000, 1);
    let outputs = alone.handle(Input::Draft(Box::new(essence.clone())));
    let [Output::Persist(record), Output::Assemble(milestone)] = outputs.as_slice() else {
        panic!("{outputs:?}")
    };
    assert_eq!(record.signed, Some(essence.id()));
    assert_eq!(milestone.essence, essence);
    assert_eq!(milestone.signatures.len(), 1);
    let (_, set) = coordinators(1, 1);
    assert_eq!(alone.handle(Input::Newest { essence: Box::new(essence), set }), []);
    assert_eq!(alone.handle(Input::Tick { now_ms: 1_099 }), []);
    assert_eq!(alone.handle(Input::Tick { now_ms: 1_100 }), [Output::NeedDraft]);
}

#[test]
fn accepting_is_not_signing() {
    let essence = after(&genesis(), 1_000, 1);
    let mut second = start(1, 3, 3, None);
    let outputs = second.handle(say(0, 0, Body::Propose(Box::new(essence.clone()))));
    assert_eq!(outputs, [Output::Validate(Box::new(essence.clone()))]);
    let outputs = second.handle(Input::Validated { id: essence.id(), right: true });
    assert!(matches!(outputs.first(), Some(Output::Persist(record)) if record.signed.is_none()));
    assert_eq!(said(&outputs), [(0, &Body::Accept(essence.id()))]);
    // The third accept makes it chosen.
    let outputs = second.handle(say(2, 0, Body::Accept(essence.id())));
    assert!(matches!(outputs.first(), Some(Output::Persist(record)) if record.signed == Some(essence.id())));
    assert!(matches!(said(&outputs)[..], [(0, Body::Sign(..))]));
}

#[test]
fn accepts_of_different_ballots_do_not_add_up() {
    let essence = after(&genesis(), 1_000, 1);
    let mut second = start(1, 3, 3, None);
    second.handle(say(0, 0, Body::Propose(Box::new(essence.clone()))));
    second.handle(Input::Validated { id: essence.id(), right: true });
    let outputs = second.handle(say(2, 3, Body::Accept(essence.id())));
    assert_eq!(said(&outputs), []);
}

#[test]
fn a_wrong_essence_is_never_accepted() {
    let essence = Box::new(after(&genesis(), 1_000, 1));
    let mut second = start(1, 3, 2, None);
    second.handle(say(0, 0, Body::Propose(essence.clone())));
    assert_eq!(second.handle(Input::Validated { id: essence.id(), right: false }), []);
    assert_eq!(second.handle(say(0, 0, Body::Propose(essence.clone()))), []);
    assert_eq!(second.handle(say(2, 0, Body::Accept(essence.id()))), []);
    let unrelated = Box::new(MilestoneEssence { previous: MilestoneId::new([3; 32]), ..*essence });
    assert_eq!(second.handle(say(0, 0, Body::Propose(unrelated))), []);
}

#[test]
fn what_was_not_answered_is_asked_again() {
    let essence = Box::new(after(&genesis(), 1_000, 1));
    let mut second = start(1, 3, 2, None);
    second.handle(say(0, 0, Body::Propose(essence.clone())));
    let again = second.handle(Input::Tick { now_ms: 1_050 });
    assert_eq!(again, [Output::Validate(essence)]);
}

#[test]
fn a_new_leader_proposes_what_may_have_been_chosen() {
    let essence = Box::new(after(&genesis(), 1_000, 1));
    let mut second = start(1, 3, 2, None);
    let outputs = second.handle(Input::Tick { now_ms: 1_200 });
    assert_eq!(said(&outputs), [(1, &Body::Prepare)]);
    let accepted = Accepted { ballot: 0, essence: essence.clone() };
    let outputs = second.handle(say(2, 1, Body::Promise(Some(accepted))));
    assert_eq!(outputs.get(1), Some(&Output::Validate(essence.clone())));
    let outputs = second.handle(Input::Validated { id: essence.id(), right: true });
    assert_eq!(said(&outputs), [(1, &Body::Propose(essence))]);
}

#[test]
fn a_new_leader_that_finds_it_wrong_proposes_nothing_else() {
    let essence = Box::new(after(&genesis(), 1_000, 1));
    let mut second = start(1, 3, 2, None);
    second.handle(Input::Tick { now_ms: 1_200 });
    let accepted = Accepted { ballot: 0, essence: essence.clone() };
    second.handle(say(2, 1, Body::Promise(Some(accepted))));
    assert_eq!(second.handle(Input::Validated { id: essence.id(), right: false }), []);
    assert_eq!(second.handle(Input::Tick { now_ms: 1_300 }), []);
    assert_eq!(second.handle(Input::Draft(Box::new(after(&genesis(), 1_300, 2)))), []);
}

#[test]
fn nobody_gives_up_a_leader_that_is_in_time() {
    let mut third = start(2, 3, 2, None);
    assert_eq!(third.handle(say(1, 1, Body::Prepare)), []);
    third.handle(Input::Tick { now_ms: 1_200 });
    let outputs = third.handle(say(1, 1, Body::Prepare));
    assert_eq!(said(&outputs), [(1, &Body::Promise(None))]);
    // From now on ballot 0 is over, and who does not know it is told.
    let late = Box::new(after(&genesis(), 1_000, 1));
    assert_eq!(said(&third.handle(say(0, 0, Body::Propose(late)))), [(1, &Body::Promise(None))]);
}

#[test]
fn a_restart_brings_the_same_votes() {
    let essence = Box::new(after(&genesis(), 1_000, 1));
    let mut first = start(0, 3, 2, None);
    first.handle(Input::Tick { now_ms: 1_000 });
    let outputs = first.handle(Input::Draft(essence.clone()));
    let Some(Output::Persist(record)) = outputs.first() else { panic!("{outputs:?}") };
    let mut again = start(0, 3, 2, Some(*record.clone()));
    let outputs = again.handle(Input::Tick { now_ms: 2_000 });
    assert_eq!(said(&outputs), [(0, &Body::Propose(essence))]);
}

#[test]
fn a_record_ahead_of_the_node_waits_for_it() {
    let first = after(&genesis(), 1_000, 1);
    let (_, set) = coordinators(3, 2);
    let record = VoteRecord { set: set.clone(), index: 2, promised: 0, accepted: None, signed: None };
    let mut leader = start(0, 3, 2, Some(record));
    assert_eq!(leader.handle(Input::Tick { now_ms: 5_000 }), []);
    let outputs = leader.handle(Input::Newest { essence: Box::new(first), set });
    assert_eq!(outputs, [Output::NeedDraft]);
}

#[test]
fn other_coordinators_begin_with_their_own_ballots() {
    let (keys, mut set) = coordinators(3, 2);
    let record = VoteRecord { set: set.clone(), index: 0, promised: 8, accepted: None, signed: None };
    let mut first = start(0, 3, 2, Some(record));
    set.threshold = 3;
    let essence = Box::new(after(&genesis(), 1_000, 1));
    first.handle(Input::Newest { essence, set: set.clone() });
    assert_eq!(first.handle(Input::Tick { now_ms: 1_100 }), [Output::NeedDraft]);
    // And those that cannot agree are refused.
    set.threshold = 1;
    let essence = Box::new(after(&first.newest, 1_100, 1));
    let outputs = first.handle(Input::Newest { essence, set: set.clone() });
    assert_eq!(outputs, [Output::Unsound(QuorumError { keys: 3, threshold: 1 })]);
    let refused = Coordinator::new(keys[0].clone(), TIMING, None, genesis(), set, 0);
    assert!(matches!(refused, Err(CoordinatorError::Quorum(_))));
    let outsider = SecretKey::from_bytes([99; 32]);
    let (_, set) = coordinators(4, 2);
    assert!(Coordinator::new(outsider, TIMING, None, genesis(), set, 0).is_ok(), "it may become one later");
}

#[test]
fn a_record_that_contradicts_itself_is_refused() {
    let (keys, set) = coordinators(3, 2);
    let signed = Some(MilestoneId::new([1; 32]));
    let record = VoteRecord { set: set.clone(), index: 1, promised: 0, accepted: None, signed };
    let refused = Coordinator::new(keys[0].clone(), TIMING, Some(record), genesis(), set, 0);
    assert!(matches!(refused, Err(CoordinatorError::Record(1))));
}

#[test]
fn a_clock_set_back_stops_nothing() {
    let mut first = start(0, 1, 1, None);
    first.handle(Input::Tick { now_ms: 1_000_000 });
    let essence = Box::new(after(&genesis(), 1_000_000, 1));
    first.handle(Input::Draft(essence.clone()));
    let (_, set) = coordinators(1, 1);
    first.handle(Input::Newest { essence, set });
    assert_eq!(first.handle(Input::Tick { now_ms: 10 }), []);
    assert_eq!(first.handle(Input::Tick { now_ms: 110 }), [Output::NeedDraft]);
}
