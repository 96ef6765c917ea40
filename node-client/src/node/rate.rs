//! How many blocks one sender may put into the Tangle: the same rule for clients and for neighbours.
//!
//! A [`Budget`] fills with every block, by what checking it costs, and drains at the sender's rate. Up to its burst a block needs the
//! network's own work only. Above it every block needs more bits, and one with a bit more fills half as
//! much: who sends at twice the rate for long needs one bit more, at four times two, and so on. So nobody is
//! shut out, but a flood costs its sender as much work as all that it wants to send.

pub(super) mod clients;

use std::{collections::HashMap, hash::Hash, time::Duration};

use flash_proto::{Block, Payload, block::Work, codec, limits};

use crate::ledger::check::tick_hashes;

/// What a block with no work beyond the network's fills.
const BLOCK_COST: u64 = 1 << 16;
/// Steps above the burst, each of which asks for a bit more.
const STEPS_PER_BURST: u64 = 4;
/// Bits beyond the network's that are asked for at most; past them a block has to wait.
const EXTRA_BITS_MAX: u64 = 16;
/// Hashes of ticks that take as long to check as all else about a block: about 0.1 ms.
const TICK_HASHES_PER_BLOCK: u32 = 256;

/// What one sender may do with no more work than the network asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateRule {
    /// Blocks per 1,000 seconds for ever, so that slow networks have a rate, too.
    pub per_kilosecond: u64,
    /// Blocks at once, after a time of silence.
    pub burst: u64,
}

impl RateRule {
    /// A rule that gives its sender `1 / share` of `blocks` in every milestone's interval, and `burst` at once.
    pub fn share(blocks: usize, share: u64, burst: u64, interval: Duration) -> Self {
        let blocks = u64::try_from(blocks).unwrap_or(u64::MAX);
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        let all = blocks.saturating_mul(1_000_000).checked_div(interval_ms).unwrap_or(u64::MAX);
        Self { per_kilosecond: all.checked_div(share).unwrap_or(all).max(1), burst: burst.max(1) }
    }

    /// What drains in this time.
    fn drained(self, time: Duration) -> u64 {
        let wide = u128::from(self.per_kilosecond)
            .saturating_mul(u128::from(BLOCK_COST))
            .saturating_mul(time.as_micros())
            .checked_div(1_000_000_000);
        wide.and_then(|drained| u64::try_from(drained).ok()).unwrap_or(u64::MAX)
    }

    fn burst_cost(self) -> u64 {
        self.burst.saturating_mul(BLOCK_COST)
    }

    fn step_cost(self) -> u64 {
        (self.burst_cost() / STEPS_PER_BURST).max(BLOCK_COST)
    }
}

/// What one sender has used. Times are of any clock that does not go back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    filled: u64,
    at: Duration,
}

impl Budget {
    /// Bits beyond the network's that a block needs now.
    pub fn extra_bits(&mut self, rule: RateRule, now: Duration) -> u8 {
        self.drain(rule, now);
        let above = self.filled.saturating_add(BLOCK_COST).saturating_sub(rule.burst_cost());
        let steps = above.div_ceil(rule.step_cost()).min(EXTRA_BITS_MAX);
        u8::try_from(steps).unwrap_or(u8::MAX)
    }

    /// Counts so many blocks, with so many bits beyond the network's, that were let in.
    pub fn spend(&mut self, extra_bits: u8, blocks: u64) {
        let cost = BLOCK_COST.checked_shr(u32::from(extra_bits)).unwrap_or(0).max(1);
        self.filled = self.filled.saturating_add(cost.saturating_mul(blocks));
    }

    /// How long to wait until `blocks` more are within the burst.
    pub fn wait(&mut self, rule: RateRule, now: Duration, blocks: usize) -> Duration {
        self.drain(rule, now);
        let cost = u64::try_from(blocks).unwrap_or(u64::MAX).saturating_mul(BLOCK_COST);
        let above = self.filled.saturating_add(cost).saturating_sub(rule.burst_cost());
        let per_second = rule.per_kilosecond.saturating_mul(BLOCK_COST) / 1_000;
        let micros = u128::from(above).saturating_mul(1_000_000).checked_div(u128::from(per_second.max(1)));
        Duration::from_micros(micros.and_then(|micros| u64::try_from(micros).ok()).unwrap_or(u64::MAX))
    }

    fn drain(&mut self, rule: RateRule, now: Duration) {
        self.filled = self.filled.saturating_sub(rule.drained(now.saturating_sub(self.at)));
        self.at = self.at.max(now);
    }
}

/// The bits of work that a block with these bytes has.
pub fn work_bits(block: &[u8]) -> u8 {
    let nonce = block.last_chunk::<8>().map_or(0, |nonce| u64::from_le_bytes(*nonce));
    u8::try_from(Work::of(block).bits(nonce)).unwrap_or(u8::MAX)
}

/// As how many blocks one with these bytes counts: one that shows ticks makes every node check its hashes.
pub fn weight(block: &[u8]) -> u64 {
    let hashes = match codec::decode::<Block, { limits::BLOCK_BYTES_MAX }>(block).map(|block| block.payload) {
        Ok(Payload::Transaction(transaction)) => tick_hashes(&transaction),
        _ => 0,
    };
    u64::from(hashes / TICK_HASHES_PER_BLOCK).saturating_add(1)
}

/// Budgets by sender, no more than a given number of them.
#[derive(Debug)]
pub struct Budgets<K> {
    rule: RateRule,
    senders_max: usize,
    used: HashMap<K, Budget>,
}

impl<K: Copy + Eq + Hash> Budgets<K> {
    /// Budgets by this rule for at most so many senders at once; when there are more, the one that has
    /// used the least is forgotten.
    pub fn new(rule: RateRule, senders_max: usize) -> Self {
        Self { rule, senders_max, used: HashMap::new() }
    }

    /// Bits beyond the network's that a block of this sender needs now.
    pub fn extra_bits(&mut self, sender: K, now: Duration) -> u8 {
        let rule = self.rule;
        self.used.get_mut(&sender).map_or(0, |budget| budget.extra_bits(rule, now))
    }

    /// Counts so many blocks of this sender.
    pub fn spend(&mut self, sender: K, now: Duration, extra_bits: u8, blocks: u64) {
        if self.used.len() >= self.senders_max && !self.used.contains_key(&sender) {
            self.make_room(now);
        }
        let budget = self.used.entry(sender).or_default();
        budget.drain(self.rule, now);
        budget.spend(extra_bits, blocks);
    }

    fn make_room(&mut self, now: Duration) {
        for budget in self.used.values_mut() {
            budget.drain(self.rule, now);
        }
        self.used.retain(|_, budget| budget.filled > 0);
        if self.used.len() >= self.senders_max
            && let Some(least) = self.used.iter().min_by_key(|(_, budget)| budget.filled).map(|(key, _)| *key)
        {
            self.used.remove(&least);
        }
    }
}

#[cfg(test)]
mod tests {
    use flash_proto::{Action, BlockId, ChannelId, Claim, LaneState, Side, TickProof};

    use super::*;
    use crate::ledger::tests::support::{acting, params};

    const RULE: RateRule = RateRule { per_kilosecond: 10_000, burst: 20 };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_work_rises_by_a_bit_per_doubling_of_the_rate_and_falls_again() {
        // For ten minutes as many blocks as the rule allows, or two, four and eight times as many.
        for (times, bits) in [(1, 0..=0), (2, 1..=2), (4, 2..=3), (8, 3..=4)] {
            let mut budget = Budget::default();
            let mut asked = 0;
            for sent in 0..600 * 10 * times {
                asked = budget.extra_bits(RULE, ms(sent * 100 / times));
                budget.spend(asked, 1);
            }
            assert!(bits.contains(&asked), "{times} times the rate: {asked} bits");
            assert_eq!(budget.extra_bits(RULE, ms(3_600_000)), 0, "after a pause");
        }
    }

    #[test]
    fn a_burst_is_free_and_what_is_beyond_it_costs() {
        let mut budget = Budget::default();
        for _ in 0..20 {
            assert_eq!(budget.extra_bits(RULE, ms(0)), 0);
            budget.spend(0, 1);
        }
        assert_eq!(budget.extra_bits(RULE, ms(0)), 1);
        assert_eq!(budget.wait(RULE, ms(0), 1), ms(100));
        assert_eq!(budget.extra_bits(RULE, ms(100)), 0);
        assert_eq!(budget.wait(RULE, ms(100), 1), Duration::ZERO);
        // Whatever was spent: the bits stay bounded.
        for _ in 0..100_000 {
            budget.spend(0, 1);
        }
        assert_eq!(u64::from(budget.extra_bits(RULE, ms(100))), EXTRA_BITS_MAX);
    }

    #[test]
    fn one_sender_does_not_use_up_anothers_budget() {
        let mut budgets = Budgets::new(RULE, 3);
        for _ in 0..1_000 {
            budgets.spend(1, ms(0), 0, 1);
        }
        assert!(budgets.extra_bits(1, ms(0)) > 0);
        assert_eq!(budgets.extra_bits(2, ms(0)), 0);
        // More senders than there is room for: the one that floods is not forgotten.
        for sender in 2..50 {
            budgets.spend(sender, ms(0), 0, 1);
        }
        assert!(budgets.used.len() <= 3 && budgets.extra_bits(1, ms(0)) > 0);
    }

    #[test]
    fn a_block_with_ticks_counts_as_what_checking_it_costs() {
        let params = params();
        let channel = ChannelId::new([1; 32]);
        let carrying = |index| {
            let claim = Action::Claim(Claim {
                state: LaneState::new(channel, Side::A),
                ticks: Some(TickProof { index, preimage: flash_proto::Hash::ZERO }),
            });
            let transaction = acting(&params, claim, &[11]);
            Block::new(vec![BlockId::new([1; 32])], Payload::Transaction(Box::new(transaction))).to_bytes()
        };
        for (index, blocks) in [(0, 1), (255, 1), (256, 2), (4_096, 17), (u32::MAX, 17)] {
            assert_eq!(weight(&carrying(index)), blocks, "{index} hashes");
        }
        assert_eq!((weight(&[]), weight(&[0; 100])), (1, 1), "what is no block is refused at no such cost");
        let mut budget = Budget::default();
        budget.spend(0, 17);
        assert_eq!(budget.wait(RULE, ms(0), 4), ms(100), "as long as for one more than 20");
        budget.spend(1, 6);
        assert_eq!(budget.wait(RULE, ms(0), 1), ms(100), "six with a bit more are three");
    }

    #[test]
    fn a_rule_for_a_share_of_the_milestones() {
        let rule = RateRule::share(7_000, 2, 7_000, Duration::from_secs(10));
        assert_eq!(rule, RateRule { per_kilosecond: 350_000, burst: 7_000 });
        assert_eq!(RateRule::share(0, 0, 0, Duration::ZERO), RateRule { per_kilosecond: 1, burst: 1 });
    }
}
