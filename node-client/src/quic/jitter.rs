//! Pauses that are not the same for everybody.

use std::time::Duration;

/// Between half of a pause and all of it, drawn anew at every call, so that those who lost each other at
/// the same moment do not come back at the same moment for ever.
pub fn jittered(pause: Duration) -> Duration {
    let mut drawn = [u8::MAX];
    // Without randomness it is the whole pause, the same for everybody.
    let _ = getrandom::fill(&mut drawn);
    let [drawn] = drawn;
    let half = pause / 2;
    half.saturating_add(half.saturating_mul(drawn.into()) / u8::MAX.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_half_of_the_pause_to_all_of_it() {
        let pause = Duration::from_secs(2);
        let drawn: Vec<Duration> = (0..100).map(|_| jittered(pause)).collect();
        assert!(drawn.iter().all(|drawn| (pause / 2..=pause).contains(drawn)), "{drawn:?}");
        assert!(drawn.iter().any(|other| *other != drawn[0]), "they are all the same: {drawn:?}");
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
        assert!(jittered(Duration::MAX) >= Duration::MAX / 2);
    }
}
