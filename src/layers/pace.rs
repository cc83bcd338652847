//! How much may pass in a second.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
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
        let mut passed = self.passed.lock();
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

/// More peers than this are not remembered.
const MOST_PEERS: usize = 10_000;

/// Chunks that are sent at the same time.
const SLOTS: usize = 4;
/// A chunk that takes longer than this, because its receiver is slow, does not keep others waiting.
const LONGEST: Duration = Duration::from_millis(500);

/// The turn of one chunk.
pub type Turn = OwnedSemaphorePermit;

/// How fast bytes go to other nodes: to all of them together, and to each.
#[derive(Debug)]
pub struct Egress {
    slots: Arc<Semaphore>,
    all: Pace,
    each: Option<u64>,
    peers: Mutex<HashMap<SocketAddr, Arc<Pace>>>,
}

impl Egress {
    /// So many bytes a second; as many as there are, if nothing.
    pub fn of(all: Option<u64>, each: Option<u64>) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(SLOTS)),
            all: Pace::of(all),
            each,
            peers: Mutex::default(),
        }
    }

    /// A turn to send a chunk, if there is one just now.
    pub fn free_turn(&self) -> Option<Turn> {
        self.slots.clone().try_acquire_owned().ok()
    }

    /// Waits for a turn to send a chunk, each in the order of asking.
    pub async fn turn(&self) -> Turn {
        match self.slots.clone().acquire_owned().await {
            Ok(turn) => turn,
            // Nobody closes it.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until so many bytes may go to a peer, unless that is not in this time: then none may, at once.
    pub async fn take_soon(&self, to: SocketAddr, bytes: u64, limit: Duration) -> bool {
        let asked = Instant::now();
        self.peer(to).take_soon(bytes, limit).await
            && self
                .all
                .take_soon(bytes, limit.saturating_sub(asked.elapsed()))
                .await
    }

    fn peer(&self, peer: SocketAddr) -> Arc<Pace> {
        if self.each.is_none() {
            return Arc::default();
        }
        let mut peers = self.peers.lock();
        if peers.len() >= MOST_PEERS && !peers.contains_key(&peer) {
            peers.clear();
        }
        let new = || Arc::new(Pace::of(self.each));
        peers.entry(peer).or_insert_with(new).clone()
    }
}

/// A chunk that is being sent; its turn ends when this is dropped, or when it takes too long.
#[derive(Debug)]
pub struct Sending {
    _until: oneshot::Sender<()>,
}

impl Sending {
    /// Begins now.
    pub fn of(turn: Turn) -> Self {
        let (until, ended) = oneshot::channel();
        tokio::spawn(async move {
            // Either is its end.
            let _ = tokio::time::timeout(LONGEST, ended).await;
            drop(turn);
        });
        Self { _until: until }
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

    #[tokio::test]
    async fn a_greedy_peer_takes_nothing_from_another() {
        let egress = Egress::of(None, Some(1000));
        let [greedy, modest] = [1, 2].map(|port| ([127, 0, 0, 1], port).into());
        let now = Duration::ZERO;

        assert!(egress.take_soon(greedy, 60_000, now).await);

        assert!(!egress.take_soon(greedy, 1, now).await);
        assert!(egress.take_soon(modest, 1000, now).await);
    }

    #[tokio::test]
    async fn all_peers_together_keep_to_their_rate() {
        let egress = Egress::of(Some(1000), None);
        let [one, other] = [1, 2].map(|port| ([127, 0, 0, 1], port).into());

        assert!(egress.take_soon(one, 60_000, Duration::ZERO).await);

        assert!(!egress.take_soon(other, 1, Duration::ZERO).await);
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
