//! What is thought of a neighbour: its score, what gets it dropped, and who makes room for another.

use std::{collections::HashMap, time::Duration};

use flash_proto::PublicKey;

/// The highest score: this much of past use makes up for later faults.
const SCORE_MAX: i32 = 100;
/// At this score a neighbour is dropped.
const SCORE_MIN: i32 = -100;
/// A point below 0 is forgiven after this time.
const FORGIVEN_EVERY: Duration = Duration::from_secs(10);
/// For how long a key that was dropped is neither dialled nor accepted.
pub(super) const BAN: Duration = Duration::from_secs(600);
/// Keys that are banned at once; the ban that ends first makes room.
const BANS_MAX: usize = 1_024;
/// Milestones that a neighbour may be behind …
const BEHIND_MAX: u64 = 10;
/// … and the time for which it may bring nothing new while others do, before another one is tried.
const USELESS_MAX: Duration = Duration::from_secs(120);

/// What a neighbour did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// A block that was new and good.
    NewBlock,
    /// A block that breaks the rules.
    InvalidBlock,
    /// A message that is none, or holds more than it may.
    Malformed,
    /// No answer, or not what was asked for.
    Unanswered,
    /// Something that it had sent before.
    Repeated,
    /// A coordinator's message that is worth nothing.
    Worthless,
    /// A thousand blocks beyond its budget.
    Flood,
}

impl Deed {
    const fn worth(self) -> i32 {
        match self {
            Self::NewBlock => 1,
            Self::InvalidBlock => -50,
            Self::Malformed => -200,
            Self::Unanswered => -20,
            Self::Repeated | Self::Worthless => -1,
            Self::Flood => -10,
        }
    }
}

/// A neighbour's score and what it is made of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// Between −100 and 100.
    pub(super) score: i32,
    /// Blocks that it sent.
    pub(super) received: u64,
    /// Those that were new and good.
    pub(super) new: u64,
    /// Those that break the rules.
    pub(super) invalid: u64,
    /// Those that were dropped because it sent too many.
    pub(super) over_budget: u64,
    /// When it brought something new last, or came.
    pub(super) useful_at: Duration,
    /// When a fault was last forgiven.
    forgiven_at: Duration,
}

impl Standing {
    pub(super) fn new(now: Duration) -> Self {
        Self { useful_at: now, forgiven_at: now, ..Self::default() }
    }

    /// Counts a deed; whether the neighbour must be dropped.
    pub(super) fn count(&mut self, deed: Deed, now: Duration) -> bool {
        self.forgive(now);
        match deed {
            Deed::NewBlock => {
                self.new = self.new.saturating_add(1);
                self.useful_at = now;
            }
            Deed::InvalidBlock => self.invalid = self.invalid.saturating_add(1),
            _ => {}
        }
        self.score = self.score.saturating_add(deed.worth()).clamp(SCORE_MIN, SCORE_MAX);
        self.score <= SCORE_MIN
    }

    /// What a neighbour does once in a while without meaning harm does not add up for ever.
    fn forgive(&mut self, now: Duration) {
        let points = now.saturating_sub(self.forgiven_at).as_secs() / FORGIVEN_EVERY.as_secs();
        if points > 0 {
            self.forgiven_at = now;
            let points = i32::try_from(points).unwrap_or(i32::MAX);
            self.score = self.score.max(self.score.saturating_add(points).min(0));
        }
    }

    /// Counts a block that was dropped because of the budget; whether the neighbour must be dropped.
    pub(super) fn count_over_budget(&mut self, now: Duration) -> bool {
        self.over_budget = self.over_budget.saturating_add(1);
        self.over_budget.is_multiple_of(1_000) && self.count(Deed::Flood, now)
    }
}

/// What decides whether a neighbour makes room for another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    pub(super) key: PublicKey,
    pub(super) standing: Standing,
    pub(super) newest: u64,
    pub(super) since: Duration,
}

/// The neighbour that is of the least use, if one is of none: far behind, or without anything new for long
/// while others brought something.
pub(super) fn useless(neighbours: &[Use], newest: u64, now: Duration) -> Option<PublicKey> {
    let since = |at: Duration| now.saturating_sub(at);
    let others_useful = neighbours.iter().any(|other| since(other.standing.useful_at) < USELESS_MAX / 2);
    let of_no_use = |neighbour: &&Use| {
        let behind = newest.saturating_sub(neighbour.newest) > BEHIND_MAX;
        let quiet = since(neighbour.standing.useful_at) > USELESS_MAX && others_useful;
        since(neighbour.since) > USELESS_MAX && (behind || quiet)
    };
    let worst = neighbours.iter().filter(of_no_use);
    worst.min_by_key(|neighbour| (neighbour.standing.score, neighbour.newest)).map(|worst| worst.key)
}

/// Keys that are neither dialled nor accepted.
#[derive(Debug, Default)]
pub(super) struct Bans(HashMap<PublicKey, Duration>);

impl Bans {
    pub(super) fn ban(&mut self, key: PublicKey, now: Duration) {
        self.0.retain(|_, until| *until > now);
        if self.0.len() >= BANS_MAX
            && let Some(first) = self.0.iter().min_by_key(|(_, until)| **until).map(|(key, _)| *key)
        {
            self.0.remove(&first);
        }
        self.0.insert(key, now.saturating_add(BAN));
    }

    pub(super) fn lift(&mut self, key: &PublicKey) {
        self.0.remove(key);
    }

    pub(super) fn banned(&self, key: &PublicKey, now: Duration) -> bool {
        self.0.get(key).is_some_and(|until| *until > now)
    }
}

/// Of two links between the same machines both keep the same one: that which the machine with the lower
/// key dialled; the newer one if the same machine dialled both.
pub(super) fn replaces(old_dialler: PublicKey, new_dialler: PublicKey) -> bool {
    new_dialler <= old_dialler
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn key(n: usize) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        PublicKey::new(bytes)
    }

    #[test]
    fn faults_drop_a_neighbour_and_good_blocks_make_up_for_some() {
        let mut fresh = Standing::new(at(0));
        assert!(!fresh.count(Deed::InvalidBlock, at(0)));
        assert!(fresh.count(Deed::InvalidBlock, at(0)));
        assert!(Standing::new(at(0)).count(Deed::Malformed, at(0)));
        let mut good = Standing::new(at(0));
        for _ in 0..1_000 {
            assert!(!good.count(Deed::NewBlock, at(1)));
        }
        assert_eq!((good.score, good.new), (SCORE_MAX, 1_000));
        assert!((0..3).all(|_| !good.count(Deed::InvalidBlock, at(1))));
        assert!(good.count(Deed::InvalidBlock, at(1)));
        let mut unanswering = Standing::new(at(0));
        assert!((0..4).all(|_| !unanswering.count(Deed::Unanswered, at(0))));
        assert!(unanswering.count(Deed::Unanswered, at(0)));
        let mut clumsy = Standing::new(at(0));
        assert!((0..10_000).all(|n| !clumsy.count(Deed::Repeated, at(10 * n))));
        assert!((0..1_000).any(|n| clumsy.count(Deed::Repeated, at(100_000 + n))));
    }

    #[test]
    fn only_a_gross_flood_is_punished() {
        let mut standing = Standing::new(at(0));
        assert!((0..9_999).all(|_| !standing.count_over_budget(at(0))));
        assert!(standing.count_over_budget(at(0)));
    }

    #[test]
    fn the_useless_make_room() {
        let neighbour = |n, useful: u64, newest| Use {
            key: key(n),
            standing: Standing { useful_at: at(useful), ..Standing::default() },
            newest,
            since: at(0),
        };
        let all = [neighbour(1, 200, 50), neighbour(2, 10, 50), neighbour(3, 200, 30)];
        assert_eq!(useless(&all, 50, at(100)), None, "too early to say");
        assert_eq!(useless(&all[..2], 50, at(201)), Some(key(2)), "nothing new");
        assert_eq!(useless(&all, 50, at(201)), Some(key(3)), "behind");
        assert_eq!(useless(&all[..2], 50, at(1_000)), None, "nobody has anything new");
        let young = Use { since: at(150), ..all[2] };
        assert_eq!(useless(&[all[0], young], 50, at(201)), None);
    }

    #[test]
    fn bans_end_and_are_bounded() {
        let mut bans = Bans::default();
        for n in 0..BANS_MAX + 5 {
            bans.ban(key(n), Duration::from_millis(u64::try_from(n).unwrap()));
        }
        assert_eq!(bans.0.len(), BANS_MAX);
        let last = key(BANS_MAX);
        assert!(bans.banned(&last, at(10)) && !bans.banned(&key(0), at(10)));
        assert!(!bans.banned(&last, at(10) + BAN));
        bans.lift(&last);
        assert!(!bans.banned(&last, at(10)));
    }

    #[test]
    fn both_ends_keep_the_same_of_two_links() {
        let (low, high) = (key(1), key(2));
        assert!(replaces(high, low) && !replaces(low, high) && replaces(low, low));
    }
}
