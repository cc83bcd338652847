//! Waiting for what passes by itself.

use std::thread;
use std::time::{Duration, Instant};

/// How long a mount, or a device, may be in use in passing: a tool that another thread starts has our descriptors until it
/// runs, also one by which a device was ours alone.
pub const BRIEF: Duration = Duration::from_millis(500);

/// Tries again while `passes` says of what came that it passes, but not after `limit`; gives what came last.
///
/// What came before is dropped before the next pause; these begin at 0.1 ms and grow to a hundredth of the limit.
pub fn wait<T>(limit: Duration, mut attempt: impl FnMut() -> T, passes: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(100);
    loop {
        let came = attempt();
        if !passes(&came) || Instant::now() >= deadline {
            return came;
        }
        drop(came);
        thread::sleep(pause);
        pause = (pause * 2).min(limit / 100);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of counting while `passes`, for at most `limit`.
    fn count(limit: Duration, passes: impl Fn(&u32) -> bool) -> u32 {
        let mut tried = 0;
        let attempt = || {
            tried += 1;
            tried
        };
        wait(limit, attempt, passes)
    }

    #[test]
    fn what_passes_is_waited_for_and_nothing_else() {
        assert_eq!(count(Duration::from_hours(1), |tried| *tried < 3), 3);
        assert_eq!(count(Duration::from_hours(1), |_| false), 1);
    }

    #[test]
    fn what_does_not_pass_comes_when_the_time_is_up() {
        assert_eq!(count(Duration::ZERO, |_| true), 1);
        assert!(count(Duration::from_millis(2), |_| true) > 1);
    }
}
