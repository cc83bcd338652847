//! How much may pass in a second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A rate that all who share it keep together, each in the order of asking; one piece may pass at once.
#[derive(Debug, Default)]
pub struct Pace {
    per_second: Option<u64>,
    /// When all that was let pass has passed at this rate.
    passed: Mutex<Option<Instant>>,
}

impl Pace {
    /// So much a second; as much as there is, if nothing.
    pub fn of(per_second: Option<u64>) -> Self {
        Self {
            per_second,
            passed: Mutex::default(),
        }
    }

    /// Waits for its turn to pass so much.
    pub async fn take(&self, amount: u64) {
        self.take_soon(amount, Duration::MAX).await;
    }

    /// The same, unless its turn comes later than in this time: then nothing passes, at once.
    pub async fn take_soon(&self, amount: u64, limit: Duration) -> bool {
        let Some(turn) = self.turn(Instant::now(), amount, limit) else {
            return false;
        };
        tokio::time::sleep_until(turn).await;
        true
    }

    fn turn(&self, now: Instant, amount: u64, limit: Duration) -> Option<Instant> {
        let Some(per_second) = self.per_second else {
            return Some(now);
        };
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = passed.unwrap_or(now).max(now);
        if turn - now > limit {
            return None;
        }
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(per_second.max(1));
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        *passed = Some(turn + takes);
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_passes_than_the_rate_and_who_can_not_wait_passes_nothing() {
        let pace = Pace::of(Some(1000));
        let begun = Instant::now();
        let turn = |limit_ms| {
            let turn = pace.turn(begun, 500, Duration::from_millis(limit_ms));
            turn.map(|turn| (turn - begun).as_millis())
        };

        let turns = [turn(5000), turn(5000), turn(5000), turn(100), turn(5000)];

        assert_eq!(turns, [Some(0), Some(500), Some(1000), None, Some(1500)]);
    }

    #[test]
    fn without_a_rate_nobody_waits() {
        let now = Instant::now();

        assert_eq!(
            Pace::default().turn(now, u64::MAX, Duration::ZERO),
            Some(now)
        );
        assert_eq!(Pace::default().turn(now, 1, Duration::ZERO), Some(now));
    }
}
