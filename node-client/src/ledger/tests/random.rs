//! Random histories: whatever comes in, money is neither made nor lost, and the root depends on the content
//! alone.

use flash_proto::{
    Action, Amount, ChannelId, Hash, LaneState, OutputId, Side, StateKey, TickChain, Transaction,
    transaction::TopUp,
};
use proptest::prelude::*;

use super::support::*;
use crate::{
    ledger::{LedgerState, StateValue},
    tangle::white_flag,
};

/// One random step: what to do, and numbers that choose with what.
#[derive(Clone, Debug)]
struct Step {
    what: u8,
    which: usize,
    amount: u64,
    side: bool,
    milestone: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0_u8..12, 0_usize..1_000, 0_u64..12_000, any::<bool>(), proptest::bool::weighted(0.4));
    let step =
        step.prop_map(|(what, which, amount, side, milestone)| Step { what, which, amount, side, milestone });
    proptest::collection::vec(step, 1..60)
}

/// What a random history knows of: coins and channels, some of them spent or closed long ago.
struct World {
    coins: Vec<Coin>,
    channels: Vec<ChannelId>,
}

impl World {
    fn transaction(&mut self, ledger: &Ledger, step: &Step) -> Option<Transaction> {
        let params = &ledger.params;
        let coin = self.coins[step.which % self.coins.len()];
        let held = coin.1.amount.units();
        let channel = self.channels.get(step.which % self.channels.len().max(1)).copied();
        let side = if step.side { Side::A } else { Side::B };
        match step.what {
            0 | 1 => {
                let part = step.amount.max(1_000);
                let rest = held.checked_sub(part).filter(|rest| *rest >= 1_000)?;
                let pay = transfer(params, &[coin], vec![output(4, part), output(coin.2, rest)]);
                self.coins.extend([coin_of(&pay, 0, 4), coin_of(&pay, 1, coin.2)]);
                Some(pay)
            }
            2 | 3 => {
                let deposits = step.amount.max(2_000);
                let rest = held.checked_sub(deposits).filter(|rest| *rest >= 1_000)?;
                let to_a = deposits / 3;
                let open = Action::Open(opening(to_a, deposits - to_a, ledger.index + 2));
                let open = spend(params, &[coin], vec![output(coin.2, rest)], open);
                // The same numbers may make the very same transaction again.
                let channel = ChannelId::opened_by(open.id());
                if !self.channels.contains(&channel) {
                    self.channels.push(channel);
                }
                self.coins.push(coin_of(&open, 0, coin.2));
                Some(open)
            }
            4 => {
                let total = ledger.state.channel(&channel?)?.total()?.units();
                let to_a = step.amount.min(total);
                let close = cooperative(params, channel?, (to_a, total - to_a), ledger.index + 2);
                for (side, amount, owner) in [(Side::A, to_a, 21), (Side::B, total - to_a, 22)] {
                    self.coins.push((channel?.payout(side), output(owner, amount), owner));
                }
                Some(close)
            }
            5 => Some(unilateral(params, channel?, side, None)),
            6 => {
                Some(unilateral(params, channel?, side, Some(balance(params, channel?, !side, step.amount))))
            }
            7 => Some(claim(params, &balance(params, channel?, side, step.amount))),
            8 => {
                let part = step.amount.max(1);
                let rest = held.checked_sub(part).filter(|rest| *rest >= 1_000)?;
                let expiry_milestone = ledger.index + 2;
                let more = TopUp { channel: channel?, side, amount: Amount::new(part), expiry_milestone };
                let more = top_up(params, &[coin], vec![output(coin.2, rest)], more);
                self.coins.push(coin_of(&more, 0, coin.2));
                Some(more)
            }
            9 => {
                let before = ledger.state.channel(&channel?)?.totals(side).withdrawn.units();
                let amount = step.amount.max(1_000);
                let less = withdraw(params, channel?, side, (amount, before + amount), ledger.index + 2);
                let owner = side.pick(21, 22);
                let id = OutputId { transaction: less.id(), index: 0 };
                self.coins.push((id, output(owner, amount), owner));
                Some(less)
            }
            _ => {
                let mut chain = TickChain::new(Hash::new([7; 32]), Amount::new(100), 50).unwrap();
                let state = balance(params, channel?, side, step.amount).state;
                let ticking =
                    LaneState { ticks: chain.terms(), ..state }.sign(params.id(), &key(side.pick(11, 12)));
                let ticks = chain.reveal(u32::try_from(step.which % 51).unwrap());
                Some(match step.what {
                    10 => claim_with_ticks(params, &ticking, ticks),
                    _ => unilateral_with_ticks(params, channel?, !side, Some(ticking), ticks),
                })
            }
        }
    }
}

/// The content of the state, found by asking for everything that could be in it.
fn content(ledger: &Ledger, world: &World) -> Vec<(StateKey, StateValue)> {
    let owners = [1, 2, 3, 4, 21, 22].map(address);
    let outputs = owners.iter().flat_map(|address| ledger.state.outputs_at(address));
    let outputs = outputs.map(|(id, output)| (StateKey::Output(id), StateValue::Output(output)));
    let channels = world.channels.iter().filter_map(|id| {
        let record = ledger.state.channel(id)?;
        Some((StateKey::Channel(*id), StateValue::Channel(*record)))
    });
    outputs.chain(channels).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_supply_and_the_root_is_that_of_the_content(steps in steps()) {
        let mut ledger = Ledger::new();
        let coins = (1..=3).map(|owner| genesis_coin(&ledger.params, owner)).collect();
        let mut world = World { coins, channels: Vec::new() };
        let mut waiting = Vec::new();
        for step in steps {
            waiting.extend(world.transaction(&ledger, &step));
            if !step.milestone {
                continue;
            }
            let (confirmation, results) = ledger.confirmation(&waiting);
            prop_assert_eq!(results.iter().filter(|result| result.is_ok()).count(), confirmation.applied.len());
            waiting.clear();
            let (outputs, channels) = (ledger.state.in_outputs(), ledger.state.in_channels());
            prop_assert_eq!(outputs.checked_add(channels), Some(Amount::SUPPLY));
            let content = content(&ledger, &world);
            let counted = Amount::checked_sum(content.iter().filter_map(|(_, value)| match value {
                StateValue::Output(output) => Some(output.amount),
                // I2: whatever it holds, it can be settled.
                StateValue::Channel(record) => record.settle().and_then(|balances| balances.total()),
            }));
            prop_assert_eq!(counted, Some(Amount::SUPPLY), "the content holds the supply");
            let fresh = LedgerState::from_entries(content);
            prop_assert_eq!(fresh.root(), ledger.state.root());
            prop_assert_eq!(fresh.root(), confirmation.state_root);
            prop_assert_eq!((fresh.in_outputs(), fresh.in_channels()), (outputs, channels));
        }
    }

    #[test]
    fn what_one_order_decides_every_node_decides(seed in 0_u32..1_000) {
        // Two nodes that walk the same graph from the same milestone apply the same double spends.
        let parents = |block: &u32| (*block > 0).then(|| vec![block / 2, (block * seed) % *block]);
        let order = white_flag::order(&[40, 41, 42], parents);
        prop_assert_eq!(&order, &white_flag::order(&[40, 41, 42], parents));
        let mut left = Ledger::new();
        let mut right = Ledger::new();
        let coin = genesis_coin(&left.params, 1);
        let spends: Vec<_> = order
            .iter()
            .map(|block| {
                let amount = 1_000_000 - 2_000 - u64::from(*block);
                transfer(&left.params, &[coin], vec![output(4, 1_000_000 - amount), output(5, amount)])
            })
            .collect();
        prop_assert_eq!(left.confirm(&spends), right.confirm(&spends));
        prop_assert_eq!(left.state.root(), right.state.root());
        prop_assert_eq!(left.at(4), 2_000 + u64::from(order[0]));
    }
}
