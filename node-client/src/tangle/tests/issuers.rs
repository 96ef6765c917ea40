//! Issuers that harm: lazy ones, and parasite chains. None keeps honest blocks out.

use super::*;

const BLOCKS_MAX: usize = 100;
const HEADS_MAX: usize = 20;
/// The first number of blocks that do not come from honest issuers.
const BAD: u32 = 1_000_000;

/// Honest issuers, who attach where the node says, and a coordinator.
struct Network {
    tangle: Tangle,
    next: u32,
    next_bad: u32,
    milestone: u64,
    /// The honest blocks that wait, and the milestone after which each came.
    honest: HashMap<BlockId, u64>,
    slowest: u64,
    bad_offered: bool,
    selection: TipSelection,
}

impl Network {
    /// A network that has seen this many milestones.
    fn new(milestones: u64) -> Self {
        let mut network = Self {
            tangle: tangle(),
            next: 1,
            next_bad: BAD,
            milestone: 0,
            honest: HashMap::new(),
            slowest: 0,
            bad_offered: false,
            selection: TipSelection::Uniform,
        };
        for _ in 0..milestones {
            network.honest(3);
            network.confirm();
        }
        network
    }

    fn insert(&mut self, block: u32, parents: Vec<BlockId>) -> BlockId {
        // Bad blocks have high ids and still come in turn.
        let number = u64::from(self.next - 1) + u64::from(self.next_bad - BAD) + 1;
        self.tangle.insert(id(block), number, parents).unwrap();
        id(block)
    }

    /// Blocks of honest issuers, of whom five at a time do not see each other's.
    fn honest(&mut self, count: u32) {
        let numbers: Vec<u32> = (self.next..self.next + count).collect();
        for at_once in numbers.chunks(5) {
            let select = |block: &u32| self.tangle.select_tips_by(self.selection, u64::from(*block));
            let chosen: Vec<_> = at_once.iter().map(select).collect();
            for parents in chosen {
                self.bad_offered |= parents.iter().any(|tip| self.is_bad(tip));
                let block = self.insert(self.next, parents);
                self.next += 1;
                self.honest.insert(block, self.milestone);
            }
        }
    }

    fn bad(&mut self, parents: Vec<BlockId>) -> BlockId {
        let block = self.insert(self.next_bad, parents);
        self.next_bad += 1;
        block
    }

    fn is_bad(&self, block: &BlockId) -> bool {
        (BAD..self.next_bad).any(|bad| id(bad) == *block)
    }

    fn confirm(&mut self) {
        let heads = self.tangle.heads(BLOCKS_MAX, HEADS_MAX);
        let cone = self.tangle.cone(&heads);
        assert!(cone.len() <= BLOCKS_MAX + 1 && heads.len() <= HEADS_MAX);
        self.milestone += 1;
        for block in &cone {
            if let Some(came) = self.honest.remove(block) {
                self.slowest = self.slowest.max(self.milestone - came);
            }
        }
        let block = self.insert(self.next, heads);
        self.next += 1;
        self.tangle.confirm(self.milestone, block, cone);
    }
}

#[test]
fn a_flood_of_lazy_blocks_delays_nobody_and_ends() {
    let mut network = Network::new(20);
    for _ in 0..10 {
        // Ten times what a milestone can name, all on the genesis, and before the honest ones.
        for _ in 0..10 * HEADS_MAX {
            network.bad(vec![id(0)]);
        }
        network.honest(10);
        network.confirm();
    }
    network.confirm();
    assert_eq!((network.honest.len(), network.slowest, network.bad_offered), (0, 1, false));
    let waited = network.tangle.waiting_count();
    network.confirm();
    assert!(network.tangle.waiting_count() + HEADS_MAX / 2 - 1 <= waited, "lazy blocks have their turn too");
}

#[test]
fn lazy_blocks_on_top_of_all_tips_hide_none() {
    let mut network = Network::new(20);
    for _ in 0..10 {
        // More than a milestone can name, so that it does not come to the block on top of the tips.
        for _ in 0..3 * HEADS_MAX {
            network.bad(vec![id(0)]);
        }
        network.honest(20);
        let tips = network.tangle.select_tips(1);
        assert!(tips.iter().all(|tip| network.honest.contains_key(tip)));
        network.bad(tips.iter().take(limits::PARENTS_MAX - 1).copied().chain([id(0)]).collect());
        assert_eq!(network.tangle.select_tips(1), tips);
        network.confirm();
    }
    assert_eq!((network.honest.len(), network.slowest, network.bad_offered), (0, 1, false));
}

#[test]
fn a_long_private_chain_that_is_attached_later_delays_by_its_own_size_at_most_and_ends() {
    let mut network = Network::new(20);
    let mut top = id(0);
    for part in 1..=5 * BLOCKS_MAX {
        // It ends on honest tips, to look like one of them.
        let tips = network.tangle.select_tips(3).into_iter().take(7);
        top = network.bad(if part == 5 * BLOCKS_MAX { tips.chain([top]).collect() } else { vec![top] });
    }
    assert_eq!(network.tangle.score(&top), Some(Score::Lazy));
    network.honest(10);
    network.confirm();
    assert_eq!((network.honest.len(), network.slowest, network.bad_offered), (0, 1, false));
    // Now that its first part is confirmed, the rest stands on what is recent.
    assert_eq!(network.tangle.score(&top), Some(Score::NonLazy));
    for _ in 0..8 {
        network.honest(10);
        network.confirm();
    }
    network.confirm();
    assert!(network.honest.is_empty() && network.slowest <= 6, "{} milestones", network.slowest);
    assert_eq!(network.tangle.score(&top), None, "confirmed");
}

#[test]
fn a_flood_on_recent_blocks_delays_by_its_own_size_at_most() {
    let mut network = Network::new(20);
    let mut top = network.tangle.milestone_block;
    for _ in 0..5 * BLOCKS_MAX {
        top = network.bad(vec![top]);
    }
    network.honest(10);
    assert!(network.bad_offered, "its tip is as good as any");
    for _ in 0..8 {
        network.confirm();
    }
    assert!(network.honest.is_empty() && network.slowest <= 6, "{} milestones", network.slowest);
}

#[test]
fn new_blocks_over_an_old_one_do_not_push_it_back() {
    let mut network = Network::new(20);
    network.honest(1);
    let mut over = *network.honest.keys().next().unwrap();
    for _ in 0..10 {
        // A flood of heads that are recent too, and one more over the old block after each part of it.
        let recent = network.tangle.milestone_block;
        for _ in 0..2 * HEADS_MAX {
            network.bad(vec![recent]);
        }
        over = network.bad(vec![over]);
        network.confirm();
    }
    assert_eq!((network.honest.len(), network.slowest), (0, 1));
}

/// A branch that one issuer has grown alone on the block of a milestone that is not old yet: `chain` blocks,
/// and as many tips on the last of them as there is room for.
fn with_parasite(chain: u32, tips: u32) -> Network {
    let mut network = Network::new(20);
    let mut top = network.tangle.milestone_block;
    network.confirm();
    for _ in 0..2 {
        network.honest(45);
        network.confirm();
    }
    network.honest(20);
    for _ in 0..chain {
        top = network.bad(vec![top]);
    }
    for _ in 0..tips {
        network.bad(vec![top]);
    }
    assert_eq!(network.tangle.score(&top), Some(Score::NonLazy), "TIP-3 alone does not see it");
    network
}

#[test]
fn the_weighted_walk_prefers_what_all_have_built_to_a_parasite_chain() {
    let network = with_parasite(20, 40);
    let share_of_bad = |selection| {
        let picked = (0..50).flat_map(|seed| network.tangle.select_tips_by(selection, seed));
        let (bad, good): (Vec<_>, Vec<_>) = picked.partition(|tip| network.is_bad(tip));
        100 * bad.len() / (bad.len() + good.len())
    };
    let uniform = share_of_bad(TipSelection::Uniform);
    let weighted = share_of_bad(TipSelection::Weighted { alpha: 0.5 });
    assert!(uniform > 50, "{uniform} % of what is picked uniformly is the parasite's");
    assert_eq!(weighted, 0, "none of where the walks end");
}

#[test]
fn issuers_who_walk_grow_the_honest_branch_only() {
    let mut network = with_parasite(20, 40);
    network.selection = TipSelection::Weighted { alpha: 0.5 };
    for _ in 0..5 {
        network.honest(20);
        network.confirm();
    }
    network.confirm();
    assert!(!network.bad_offered);
    assert!(network.honest.is_empty() && network.slowest <= 3, "{} milestones", network.slowest);
}
