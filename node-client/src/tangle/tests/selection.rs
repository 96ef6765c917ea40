//! What is offered, and how.

use super::*;

const WALK: TipSelection = TipSelection::Weighted { alpha: 0.1 };

/// A Tangle in which what stands on block 0 is lazy, and the newest milestone's block.
fn aged() -> (Tangle, u32) {
    let mut tangle = tangle();
    let mut newest = 0;
    for milestone in 1..=20_u32 {
        insert(&mut tangle, milestone, &[newest]);
        let cone = tangle.cone(&[id(newest)]);
        tangle.confirm(u64::from(milestone), id(milestone), cone);
        newest = milestone;
    }
    (tangle, newest)
}

#[test]
fn among_many_lazy_tips_the_few_others_are_found() {
    let (mut tangle, newest) = aged();
    (1_000..3_000).for_each(|block| insert(&mut tangle, block, &[0]));
    (100..103).for_each(|block| insert(&mut tangle, block, &[newest]));
    assert_eq!(tangle.score(&id(1_000)), Some(Score::Lazy));
    for selection in [TipSelection::Uniform, WALK] {
        assert_eq!(tangle.select_tips_by(selection, 5), [100, 101, 102].map(id), "{selection:?}");
    }
    assert_eq!(tangle.tips_count(), 2_003);
}

#[test]
fn lazy_blocks_make_no_way_heavy() {
    let (mut tangle, newest) = aged();
    insert(&mut tangle, 100, &[newest]);
    insert(&mut tangle, 101, &[newest]);
    (102..110).for_each(|block| insert(&mut tangle, block, &[block - 1]));
    (1_000..1_050).for_each(|block| insert(&mut tangle, block, &[0, 100]));
    assert_eq!(tangle.select_tips_by(TipSelection::Weighted { alpha: 10.0 }, 1), [id(109)]);
}

#[test]
fn a_walk_ends_at_tips_and_repeats_itself_by_seed() {
    let mut tangle = tangle();
    assert_eq!(tangle.select_tips_by(WALK, 1), [id(0)], "nowhere to walk yet");
    insert(&mut tangle, 1, &[0]);
    tangle.confirm(1, id(1), Vec::new());
    for block in 2..200_u32 {
        insert(&mut tangle, block, &[block / 2, block / 3 + 1].map(|parent| parent.min(block - 1)));
    }
    let mut seen = HashSet::new();
    for seed in 0..100 {
        let tips = tangle.select_tips_by(WALK, seed);
        assert_eq!(tips, tangle.select_tips_by(WALK, seed));
        assert!(tips.is_sorted_by(|left, right| left < right) && tips.len() <= limits::PARENTS_MAX);
        assert!(tips.iter().all(|tip| tangle.tips.all.contains(tip)));
        seen.extend(tips);
    }
    assert!(seen.len() > 10, "{} tips", seen.len());
}

#[test]
fn the_stronger_the_preference_the_heavier_the_way() {
    let mut tangle = tangle();
    insert(&mut tangle, 1, &[0]);
    tangle.confirm(1, id(1), Vec::new());
    // Two ways: over 2 to tip 4, which weighs twice, and over 3 to tip 100, which weighs ten times.
    insert(&mut tangle, 2, &[1]);
    insert(&mut tangle, 4, &[2]);
    insert(&mut tangle, 5, &[1]);
    (6..14).for_each(|block| insert(&mut tangle, block, &[block - 1]));
    insert(&mut tangle, 100, &[13]);
    let all_heavy = |alpha: f64| {
        let picked = |seed| tangle.select_tips_by(TipSelection::Weighted { alpha }, seed);
        (0..2_000).filter(|seed| picked(*seed) == [id(100)]).count()
    };
    // The ways weigh 2 and 10, so their odds are 1 to exp(8 α), and all of eight walks go the heavy way
    // in this many of 2,000 cases: 8 if nothing is preferred, 103 at 0.1, 1,730 at 0.5.
    for alpha in [0.0, -1.0, f64::NAN] {
        assert!(all_heavy(alpha).abs_diff(8) < 12, "{alpha}: {}", all_heavy(alpha));
    }
    assert!(all_heavy(0.1).abs_diff(103) < 40, "{}", all_heavy(0.1));
    assert!(all_heavy(0.5).abs_diff(1_730) < 60, "{}", all_heavy(0.5));
    assert_eq!([all_heavy(10.0), all_heavy(f64::INFINITY)], [2_000; 2]);
}

#[test]
fn where_a_walk_would_weigh_too_much_it_starts_later_or_tips_are_picked_uniformly() {
    let mut tangle = tangle();
    insert(&mut tangle, 1, &[0]);
    tangle.confirm(1, id(1), Vec::new());
    let many = u32::try_from(walk::WALK_BLOCKS_MAX).unwrap();
    (10..10 + many).for_each(|block| insert(&mut tangle, block, &[1]));
    assert_eq!(tangle.select_tips_by(WALK, 3), tangle.select_tips(3), "uniformly");
    insert(&mut tangle, 2, &[1]);
    tangle.confirm(2, id(2), vec![id(1)]);
    assert_eq!(tangle.select_tips_by(WALK, 3), [id(2)], "from the newer milestone");
}
