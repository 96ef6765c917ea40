//! Small graphs drawn by hand, and random ones.

mod issuers;
mod linked;
mod selection;

use std::collections::HashSet;

use flash_proto::limits;
use proptest::prelude::*;

use super::*;

fn id(n: u32) -> BlockId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    BlockId::new(bytes)
}

fn tangle() -> Tangle {
    Tangle::new(id(0), 0)
}

fn insert(tangle: &mut Tangle, block: u32, parents: &[u32]) {
    tangle.insert(id(block), u64::from(block), parents.iter().copied().map(id).collect()).unwrap();
}

#[test]
fn only_solid_blocks_come_in_and_they_replace_what_they_approve() {
    let mut tangle = tangle();
    assert_eq!(tangle.insert(id(2), 2, vec![id(0), id(1)]), Err(InsertError::UnknownParent(id(1))));
    assert_eq!(tangle.select_tips(1), [id(0)], "nothing was taken in");
    insert(&mut tangle, 1, &[0]);
    insert(&mut tangle, 2, &[0, 1]);
    insert(&mut tangle, 3, &[1]);
    insert(&mut tangle, 3, &[1]);
    assert_eq!(tangle.select_tips(1), [id(2), id(3)], "both tips where two exist");
    assert_eq!((tangle.tips_count(), tangle.waiting_count()), (2, 3));
}

#[test]
fn a_milestone_confirms_its_past_once() {
    let mut tangle = tangle();
    insert(&mut tangle, 1, &[0]);
    insert(&mut tangle, 2, &[0]);
    insert(&mut tangle, 3, &[1, 2]);
    insert(&mut tangle, 4, &[2]);
    let cone = tangle.cone(&[id(3)]);
    assert_eq!(cone, [id(1), id(2), id(3)]);
    insert(&mut tangle, 5, &[3]);
    tangle.confirm(1, id(5), cone);
    assert_eq!(tangle.cone(&[id(4), id(5)]), [id(4), id(5)]);
    assert_eq!(tangle.heads(10, 10), [id(5), id(4)], "the milestone's own block is next");
    assert_eq!(tangle.heads(10, 1), [id(5)]);
}

#[test]
fn tips_that_approve_only_old_blocks_are_not_offered_but_confirmed() {
    let mut tangle = tangle();
    insert(&mut tangle, 1, &[0]);
    let mut newest = 0;
    for milestone in 1..=20_u32 {
        let block = 100 + milestone;
        insert(&mut tangle, block, &[newest]);
        let cone = tangle.cone(&[id(newest)]);
        tangle.confirm(u64::from(milestone), id(block), cone);
        newest = block;
    }
    assert_eq!(tangle.select_tips(3), [id(newest)], "block 1 saw milestone 0 and nothing since");
    assert!(tangle.heads(10, 10).contains(&id(1)));
}

#[test]
fn confirmed_blocks_leave_after_a_while() {
    let mut tangle = tangle();
    let mut newest = 0;
    for milestone in 1..=3 * u32::try_from(CONFIRMED_MILESTONES).unwrap() {
        insert(&mut tangle, milestone, &[newest]);
        let cone = tangle.cone(&[id(newest)]);
        tangle.confirm(u64::from(milestone), id(milestone), cone);
        newest = milestone;
    }
    assert!(tangle.blocks.len() <= usize::try_from(CONFIRMED_MILESTONES).unwrap() + 1);
    assert!(!tangle.contains(&id(1)) && tangle.contains(&id(newest - 1)));
    assert_eq!(
        tangle.cumulative_weights(usize::MAX).len(),
        tangle.blocks.len(),
        "all that is held is linked"
    );
}

#[test]
fn what_only_an_expired_block_approved_is_a_tip_again() {
    let mut tangle = tangle();
    let last = u32::try_from(CONFIRMED_MILESTONES).unwrap();
    for milestone in 1..=last {
        if milestone == last {
            insert(&mut tangle, 1_000, &[last - 1]);
            insert(&mut tangle, 1_001, &[0, 1_000]);
            assert_eq!(tangle.tips().collect::<Vec<_>>(), [id(1_001)]);
        }
        tangle.insert(id(milestone), u64::from(2_000 + milestone), vec![id(milestone - 1)]).unwrap();
        let cone = tangle.cone(&[id(milestone - 1)]);
        tangle.confirm(u64::from(milestone), id(milestone), cone);
    }
    assert!(!tangle.contains(&id(1_001)) && !tangle.contains(&id(0)));
    assert_eq!(tangle.tips().collect::<HashSet<_>>(), HashSet::from([id(1_000), id(last)]));
}

#[test]
fn of_many_tips_each_is_picked_about_equally_often() {
    let mut tangle = tangle();
    for block in 1..=200 {
        insert(&mut tangle, block, &[0]);
    }
    let mut picked = HashMap::new();
    for seed in 0..5_000 {
        let tips = tangle.select_tips(seed);
        assert_eq!(tips.len(), limits::PARENTS_MAX);
        assert!(tips.is_sorted_by(|left, right| left < right));
        for tip in tips {
            *picked.entry(tip).or_insert(0_u32) += 1;
        }
    }
    // 200 on average, with a standard deviation of 14.
    let (least, most) = (picked.values().min().unwrap(), picked.values().max().unwrap());
    assert!(picked.len() == 200 && *least > 130 && *most < 280, "{least} to {most}");
}

proptest! {
    #[test]
    fn every_block_is_confirmed_exactly_once_and_after_its_parents(
        rows in proptest::collection::vec((any::<u64>(), 0_usize..4, any::<bool>()), 1..120)
    ) {
        let mut tangle = tangle();
        let mut parents_of: HashMap<BlockId, Vec<BlockId>> = HashMap::new();
        let (mut order, mut milestone) = (vec![id(0)], 0_u64);
        let mut confirm = |tangle: &mut Tangle, number: u32, heads_max| {
            let parents = tangle.heads(16, heads_max);
            let cone = tangle.cone(&parents);
            prop_assert!(cone.len() <= 17);
            order.extend(&cone);
            milestone += 1;
            tangle.insert(id(number), u64::from(number), parents.clone()).unwrap();
            tangle.confirm(milestone, id(number), cone);
            Ok(parents)
        };
        for (number, (seed, few, is_milestone)) in (1_u32..).zip(rows) {
            let parents = if is_milestone {
                confirm(&mut tangle, number, few + 1)?
            } else {
                let mut parents = tangle.select_tips(seed);
                parents.truncate(few + 1);
                tangle.insert(id(number), u64::from(number), parents.clone()).unwrap();
                parents
            };
            prop_assert!(!parents.is_empty());
            parents_of.insert(id(number), parents);
        }
        for number in 1_000..1_200 {
            let parents = confirm(&mut tangle, number, 4)?;
            parents_of.insert(id(number), parents);
        }
        prop_assert_eq!(tangle.waiting_count(), 1, "only the last milestone waits");
        let place: HashMap<BlockId, usize> = order.iter().enumerate().map(|(at, block)| (*block, at)).collect();
        prop_assert_eq!(place.len(), order.len(), "nothing is confirmed twice");
        for (block, at) in &place {
            for parent in parents_of.get(block).into_iter().flatten() {
                prop_assert!(place[parent] < *at);
            }
        }
    }
}
