//! A contest step by step, on the real ledger rules and with the real machine: old balances, and restarts anywhere.

use flash_channel::{
    machine::{Input, LedgerView, Phase},
    store::MemoryStore,
};
use flash_node_client::ledger::{Checked, LedgerState, genesis::genesis_entries};
use flash_proto::{
    Action, Amount, Balances, BlockId, ChannelId, ChannelPhase, Claim, Essence, NetworkParams, Side,
    SignedBalance, Transaction, Unlock, transaction::UnilateralClose,
};

use super::parties::{DEPOSIT, Party, WINDOW, agreements, key, params, run};

/// Updates of each side, after which every one of these balances is an old one but the last.
const UPDATES: usize = 100;

/// The ledger and what waits for its next milestone.
#[derive(Clone)]
struct Ledger {
    params: NetworkParams,
    state: LedgerState,
    index: u64,
    channel: ChannelId,
    waiting: Vec<Checked>,
}

impl Ledger {
    fn submit(&mut self, transaction: Transaction) {
        let checked = Checked::new(transaction, &self.params).expect("well-formed");
        if self.waiting.iter().all(|waiting| waiting.id() != checked.id()) {
            self.waiting.push(checked);
        }
    }

    /// Confirms what waits; how many of it counted.
    fn milestone(&mut self) -> usize {
        self.index += 1;
        let waiting = std::mem::take(&mut self.waiting);
        let blocks: Vec<_> = waiting.iter().map(|it| (BlockId::new(*it.id().as_bytes()), Some(it))).collect();
        let confirmation = self.state.confirm(self.index, &blocks);
        self.state.accept(&confirmation);
        waiting.len() - confirmation.conflicts.len()
    }

    fn payouts(&self) -> Option<[u64; 2]> {
        let paid = Side::BOTH.map(|side| self.state.output(&self.channel.payout(side)));
        let units = paid.map(|output| output.map_or(0, |output| output.amount.units()));
        paid.iter().any(Option::is_some).then_some(units)
    }

    fn view(&self) -> LedgerView {
        let payouts = self.payouts().map(|[a, b]| Balances::of_payouts(Amount::new(a), Amount::new(b)));
        LedgerView { index: self.index, record: self.state.channel(&self.channel).copied(), payouts }
    }

    /// The last milestone that applies a claim.
    fn deadline(&self) -> Option<u64> {
        match self.view().record?.phase {
            ChannelPhase::Closing { deadline, .. } => Some(deadline),
            ChannelPhase::Open => None,
        }
    }
}

/// A, who is honest, B, and all that both ever signed.
#[derive(Clone)]
struct Contest {
    ledger: Ledger,
    parties: [Party<MemoryStore>; 2],
    /// A's and B's balances after each update; at first none.
    signed: [Vec<Option<SignedBalance>>; 2],
}

impl Contest {
    /// An open channel on which each side has made many updates.
    fn new() -> Self {
        let params = params();
        let parties = agreements(&params).map(|agreement| Party::new(&agreement, MemoryStore::new()));
        let channel = parties[0].channel.id();
        let state = LedgerState::from_entries(genesis_entries(&params));
        let ledger = Ledger { params, state, index: 0, channel, waiting: Vec::new() };
        let mut contest = Self { ledger, parties, signed: [vec![None], vec![None]] };
        contest.ledger.submit(contest.parties[0].channel.wanted().expect("it is to be opened"));
        contest.ledger.milestone();
        let view = contest.ledger.view();
        for party in &mut contest.parties {
            party.sees(view);
            party.take(vec![Input::Connected]);
        }
        run(&mut contest.parties);
        for number in 1..=UPDATES {
            for side in Side::BOTH {
                let at = usize::from(side.byte());
                // Both pay more and more, and now the one, now the other is ahead.
                let units = 10 + u64::try_from(number * 7919 % 101 * (at + 1)).expect("small");
                contest.parties[at].pays(units);
                run(&mut contest.parties);
                contest.signed[at].push(contest.parties[at].channel.outgoing().signed);
            }
        }
        let held = contest.parties[0].channel.incoming().held;
        assert_eq!((contest.signed[1].len(), held), (UPDATES + 1, contest.signed[1][UPDATES]));
        contest
    }

    fn total(&self, side: Side, update: usize) -> u64 {
        self.signed[usize::from(side.byte())][update].map_or(0, |balance| balance.state.cumulative.units())
    }

    /// B closes with A's balance of this update, and shows its own of this one as if there were no newer.
    fn b_closes_with(&mut self, of_a: usize, of_b: usize) {
        let (channel, network) = (self.ledger.channel, self.ledger.params.id());
        let [shown, own] = [self.signed[0][of_a], self.signed[1][of_b]];
        let unlock = |side: Side, balance: SignedBalance| Unlock {
            key: key(side).public(),
            signature: balance.signature,
        };
        let balance = shown.map(|balance| Claim::of(balance.state));
        let close = Action::UnilateralClose(UnilateralClose { channel, closer: Side::B, balance });
        let essence = Essence::acting(network, close);
        let closer = essence.unlock(&key(Side::B));
        let unlocks = std::iter::once(closer).chain(shown.map(|shown| unlock(Side::A, shown))).collect();
        self.ledger.submit(Transaction { essence, unlocks });
        assert_eq!(self.ledger.milestone(), 1, "the close is applied");
        if let Some(own) = own {
            let essence = Essence::acting(network, Action::Claim(Claim::of(own.state)));
            self.ledger.submit(Transaction { essence, unlocks: vec![unlock(Side::B, own)] });
            assert_eq!(self.ledger.milestone(), 1, "its claim, too");
        }
    }
}

/// What the two must be paid if the ledger knows these totals.
fn owed(sent: [u64; 2]) -> [u64; 2] {
    [DEPOSIT - sent[0] + sent[1], DEPOSIT + sent[0] - sent[1]]
}

/// A's daemon is back with the last milestone but one: the claim that it makes first is in time.
#[test]
fn whichever_old_balances_are_published_the_last_milestone_but_one_is_early_enough() {
    let paid = Contest::new();
    let newest = [Side::A, Side::B].map(|side| paid.total(side, UPDATES));
    for old in 0..UPDATES {
        let mut contest = paid.clone();
        // Either lane's balance as old as the other's, or one of them the newest.
        let (of_a, of_b) = [(old, old), (UPDATES, old), (UPDATES - old, old)][old % 3];
        contest.b_closes_with(of_a, of_b);
        let deadline = contest.ledger.deadline().expect("it is contested");
        while contest.ledger.index < deadline - 1 {
            contest.ledger.milestone();
        }
        let mut honest = contest.parties[0].restarted();
        honest.sees(contest.ledger.view());
        contest.ledger.submit(honest.channel.wanted().expect("a claim is due"));
        assert_eq!(contest.ledger.milestone(), 1, "old balance {old}: the claim counts");
        honest.sees(contest.ledger.view());
        assert_eq!(honest.channel.wanted(), None, "I15: one claim is enough");
        assert_eq!(contest.ledger.payouts(), None);
        contest.ledger.milestone();
        let shown = contest.total(Side::A, of_a);
        let wanted = owed([shown, newest[1]]);
        assert_eq!(contest.ledger.payouts(), Some(wanted), "I7: {of_a} of A's and {of_b} of B's");
        assert!(wanted[0] >= owed(newest)[0], "an old balance of A's pays A no less");
    }
    // One milestone later it is too late: the bound is where it should be.
    let mut contest = paid.clone();
    contest.b_closes_with(UPDATES, 0);
    let deadline = contest.ledger.deadline().expect("it is contested");
    while contest.ledger.index < deadline {
        contest.ledger.milestone();
    }
    let mut honest = contest.parties[0].restarted();
    honest.sees(contest.ledger.view());
    contest.ledger.submit(honest.channel.wanted().expect("it still tries"));
    assert_eq!(contest.ledger.milestone(), 0, "what comes after the window counts for nothing");
    assert_eq!(contest.ledger.payouts(), Some(owed([newest[0], 0])));
}

/// How a contest begins.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Path {
    /// A closes alone, with the newest that it holds.
    Ours,
    /// B closes with old balances, and A claims.
    Theirs,
    /// A closes alone, and B is faster with an old balance.
    Raced,
}

/// Where in a milestone's work a daemon dies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    BeforeTheView,
    BeforeTheCommit,
    BeforeTheSubmission,
    /// And the node has, or has not, what was submitted.
    AfterTheSubmission(bool),
}

const PLACES: [Place; 5] = [
    Place::BeforeTheView,
    Place::BeforeTheCommit,
    Place::BeforeTheSubmission,
    Place::AfterTheSubmission(true),
    Place::AfterTheSubmission(false),
];

/// Plays a contest to its end, with a restart of A's at this place of this step. False if it ends before that step.
fn play(mut contest: Contest, path: Path, (step, place): (u64, Place)) -> bool {
    let newest = [Side::A, Side::B].map(|side| contest.total(side, UPDATES));
    let mut shown = newest[0];
    let mut died = false;
    if path != Path::Ours {
        contest.b_closes_with(3, 5);
        shown = contest.total(Side::A, 3);
    }
    let [mut honest, _] = contest.parties.clone();
    if path != Path::Theirs {
        honest.take(vec![Input::CloseAlone]);
        contest.ledger.submit(honest.channel.wanted().expect("it closes alone"));
    }
    for now in 0_u64.. {
        let here = |at: Place| now == step && place == at;
        let view = contest.ledger.view();
        if here(Place::BeforeTheView) {
            (honest, died) = (honest.restarted(), true);
        }
        let effects = honest.decide(vec![Input::Ledger(view), Input::Fresh(true)]);
        if here(Place::BeforeTheCommit) {
            (honest, died) = (honest.restarted(), true);
        } else {
            honest.perform(effects);
            if here(Place::BeforeTheSubmission) {
                (honest, died) = (honest.restarted(), true);
            } else if let Some(wanted) = honest.channel.wanted() {
                contest.ledger.submit(wanted);
            }
        }
        if let Place::AfterTheSubmission(kept) = place
            && here(place)
        {
            (honest, died) = (honest.restarted(), true);
            if !kept {
                contest.ledger.waiting.clear();
            }
        }
        if matches!(honest.channel.phase(), Phase::Closed { .. }) {
            break;
        }
        assert!(now < 2 * u64::from(WINDOW), "I9: {path:?} {place:?} at {step}");
        contest.ledger.milestone();
    }
    // A's own newest balance is B's to show, and in its own close A shows only what it was paid.
    let known = if path == Path::Ours { 0 } else { shown };
    let wanted = owed([known, newest[1]]);
    assert_eq!(contest.ledger.payouts(), Some(wanted), "I7: {path:?} {place:?} at {step}");
    died
}

#[test]
fn a_restart_inside_any_step_of_a_contest_changes_nothing() {
    let paid = Contest::new();
    let mut restarts = 0;
    for path in [Path::Ours, Path::Theirs, Path::Raced] {
        for place in PLACES {
            let mut step = 0;
            while play(paid.clone(), path, (step, place)) {
                (step, restarts) = (step + 1, restarts + 1);
            }
            assert!(step > u64::from(WINDOW), "{path:?} {place:?}: the whole window");
        }
    }
    println!("{restarts} restarts");
}
