//! Measures and scores while milestones confirm, against their definitions.

use super::*;

/// A random Tangle, and all parents that it was ever told.
struct Grown {
    tangle: Tangle,
    parents: HashMap<BlockId, Vec<BlockId>>,
    /// Which milestone confirmed what.
    confirmed: HashMap<BlockId, u64>,
    milestone: u64,
}

impl Grown {
    fn insert(&mut self, block: u32, parents: Vec<BlockId>) {
        self.tangle.insert(id(block), u64::from(block), parents.clone()).unwrap();
        self.parents.insert(id(block), parents);
    }

    fn confirm(&mut self, block: u32, heads_max: usize) {
        let heads = self.tangle.heads(8, heads_max);
        let cone = self.tangle.cone(&heads);
        self.milestone += 1;
        self.confirmed.extend(cone.iter().map(|confirmed| (*confirmed, self.milestone)));
        self.insert(block, heads);
        self.tangle.confirm(self.milestone, id(block), cone);
    }

    fn past(&self, block: BlockId) -> HashSet<BlockId> {
        let mut past = HashSet::new();
        let mut open = vec![block];
        while let Some(next) = open.pop() {
            if next != id(0) && past.insert(next) {
                open.extend(&self.parents[&next]);
            }
        }
        past
    }

    /// TIP-3's definition: a walk down that ends at confirmed blocks.
    fn roots(&self, block: BlockId) -> Roots {
        let of = |parent: &BlockId| match self.confirmed.get(parent) {
            Some(milestone) => Roots::of(*milestone),
            None if *parent == id(0) => Roots::of(0),
            None => self.roots(*parent),
        };
        self.parents[&block].iter().map(of).reduce(Roots::and).unwrap()
    }

    fn steps(&self, block: BlockId, down_to: BlockId) -> Option<u64> {
        if block == down_to {
            return Some(0);
        }
        let parents = self.parents.get(&block)?;
        Some(1 + parents.iter().filter_map(|parent| self.steps(*parent, down_to)).max()?)
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let weights: HashMap<_, _> = self.tangle.cumulative_weights(1_000).into_iter().collect();
        let newest: Vec<_> = self.tangle.cumulative_weights(5);
        prop_assert_eq!(weights.len(), self.parents.len());
        prop_assert!(newest.iter().all(|(block, weight)| weights[block] == *weight));
        let pasts: Vec<_> = self.parents.keys().map(|block| (*block, self.past(*block))).collect();
        for (block, past) in &pasts {
            let approve = pasts.iter().filter(|(_, past)| past.contains(block));
            let wanted = Measures {
                own_weight: 1,
                cumulative_weight: u64::try_from(approve.clone().count()).unwrap(),
                score: u64::try_from(past.len()).unwrap(),
                height: self.steps(*block, id(0)).unwrap(),
                depth: approve.filter_map(|(above, _)| self.steps(*above, *block)).max().unwrap(),
            };
            prop_assert_eq!(self.tangle.measures(block), Some(wanted));
            prop_assert_eq!(weights[block], wanted.cumulative_weight);
            let waits = !self.confirmed.contains_key(block);
            let score = waits.then(|| self.roots(*block).score(self.milestone));
            prop_assert_eq!(self.tangle.score(block), score);
        }
        let not_lazy = |block: &BlockId| self.tangle.score(block) == Some(Score::NonLazy);
        let hidden: HashSet<_> = pasts
            .iter()
            .filter(|(block, _)| not_lazy(block))
            .flat_map(|(block, _)| &self.parents[block])
            .collect();
        for (block, _) in &pasts {
            prop_assert_eq!(self.tangle.tips.fit.contains(block), not_lazy(block) && !hidden.contains(block));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn measures_scores_and_fit_tips_stay_as_defined(
        rows in proptest::collection::vec((proptest::collection::vec(any::<prop::sample::Index>(), 1..4), 0_usize..3), 1..40)
    ) {
        let mut grown = Grown {
            tangle: tangle(), parents: HashMap::new(), confirmed: HashMap::new(), milestone: 0,
        };
        for (number, (parents, kind)) in (1_u32..).zip(rows) {
            if kind == 0 {
                let parents: HashSet<_> =
                    parents.iter().map(|parent| id(u32::try_from(parent.index(number as usize)).unwrap())).collect();
                grown.insert(number, parents.into_iter().collect());
            } else {
                grown.confirm(number, kind);
            }
        }
        grown.check()?;
    }
}

#[test]
fn only_so_many_confirmed_blocks_keep_their_parents() {
    let mut tangle = tangle();
    let width = u32::try_from(LINKED_MAX).unwrap() / 4 + 1;
    for milestone in 1..=6 {
        let first = milestone * 100_000;
        let blocks: Vec<_> = (first + 1..=first + width).collect();
        let parent = if milestone == 1 { 0 } else { first - 100_000 };
        for block in &blocks {
            insert(&mut tangle, *block, &[parent]);
        }
        insert(&mut tangle, first, &[first + width]);
        let cone = [parent].iter().filter(|parent| **parent > 0).chain(&blocks).copied().map(id).collect();
        tangle.confirm(u64::from(milestone), id(first), cone);
    }
    assert_eq!(tangle.cumulative_weights(usize::MAX).len(), 3 * usize::try_from(width + 1).unwrap() + 1);
    assert_eq!(tangle.measures(&id(300_001)), None, "its milestone's blocks have lost their parents");
    let kept = tangle.measures(&id(400_000 + width)).unwrap();
    assert_eq!((kept.score, kept.height, kept.depth), (2, 2, 5));
    assert_eq!(tangle.measures(&id(0)), None, "the beginning");
    assert_eq!(tangle.measures(&id(77)), None, "never seen");
}
