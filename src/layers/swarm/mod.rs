//! What a node knows of the others who are after the same blob: who has which chunk, and what was given to whom.

pub mod holders;
pub mod peers;
pub mod seed;
pub mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::layers::blob::bitmap::Bitmap;
use crate::layers::blob::{Blob, Standing};
use crate::layers::image::digest::ChunkSum;

/// What somebody who joins has already: a new home takes over from it instead of asking upstream again.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Who has it.
    pub from: SocketAddr,
    /// The length of the whole blob.
    pub size: u64,
    /// The chunks that they have.
    pub have: Bitmap,
    /// The sums that they know.
    pub sums: Vec<(usize, ChunkSum)>,
}

/// One blob, and everybody around it.
#[derive(Debug)]
pub struct Swarm {
    /// The blob.
    pub blob: Arc<Blob>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    /// Who can be asked for a chunk, which they have or are getting.
    holders: HashMap<usize, Vec<SocketAddr>>,
    /// The chunks that were asked for and have not come.
    asked: Bitmap,
    /// The chunks whose holders all failed: only the home is left to ask.
    orphans: Bitmap,
    /// How often each chunk was given away by us.
    given: Vec<u32>,
    /// What was given to whom, in order.
    log: Vec<(usize, SocketAddr)>,
}

/// A chunk to ask for, and whom to ask: a holder or, with none left, the home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Which chunk.
    pub chunk: usize,
    /// Who has it.
    pub holder: Option<SocketAddr>,
}

impl Swarm {
    /// A blob around which nobody is known.
    pub fn new(blob: Arc<Blob>) -> Arc<Self> {
        let count = blob.chunks();
        let state = State {
            holders: HashMap::new(),
            asked: Bitmap::none(count),
            orphans: Bitmap::none(count),
            given: vec![0; count],
            log: Vec::new(),
        };
        Arc::new(Self {
            blob,
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
        })
    }

    /// To be woken when a holder, or something given away, is new.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Notes who has what.
    pub fn accept(&self, offer: &Offer) {
        if offer.size != self.blob.size() {
            return;
        }
        for (chunk, sum) in &offer.sums {
            self.blob.learn(*chunk, *sum);
        }
        let offered = (0..self.blob.chunks()).filter(|at| offer.have.has(*at));
        self.placed(&offered.map(|at| (at, offer.from)).collect::<Vec<_>>());
    }

    /// What this node has to offer to a new home.
    pub fn offer(&self, from: SocketAddr) -> Offer {
        let progress = self.blob.progress();
        let now = progress.borrow();
        let sums = now.sums.iter().enumerate();
        Offer {
            from,
            size: self.blob.size(),
            have: now.have.clone(),
            sums: sums.filter_map(|(at, sum)| Some((at, (*sum)?))).collect(),
        }
    }

    /// Notes who was given, or has, which chunk.
    pub fn placed(&self, news: &[(usize, SocketAddr)]) {
        if news.is_empty() {
            return;
        }
        let mut state = self.state();
        for (chunk, holder) in news {
            let holders = state.holders.entry(*chunk).or_default();
            if !holders.contains(holder) {
                holders.push(*holder);
            }
        }
        drop(state);
        self.wake();
    }

    /// The next chunk to ask for, the first that is missing and can be had, which counts as asked for from now on.
    ///
    /// With `orphans`, also one that the home alone can give, because all its holders failed.
    pub fn pick(&self, orphans: bool, usable: impl Fn(SocketAddr) -> bool) -> Option<Pick> {
        let progress = self.blob.progress();
        let now = progress.borrow();
        let mut state = self.state();
        let mut found = None;
        for chunk in now.have.missing().filter(|at| now.sums[*at].is_some()) {
            if state.asked.has(chunk) {
                continue;
            }
            let known = state.holders.get(&chunk);
            let mut holders = known.into_iter().flatten().filter(|at| usable(**at));
            let holder = holders.next().copied();
            // Holders that may not be asked are as good as none.
            let orphan = orphans && (state.orphans.has(chunk) || known.is_some());
            if holder.is_some() || orphan {
                found = Some(Pick { chunk, holder });
                break;
            }
        }
        if let Some(pick) = found {
            state.asked.insert(pick.chunk);
        }
        found
    }

    /// The first run of chunks that are missing and that no peer is known to have, to be had from upstream.
    pub fn gap(&self, usable: impl Fn(SocketAddr) -> bool) -> Option<std::ops::Range<usize>> {
        let progress = self.blob.progress();
        let now = progress.borrow();
        let state = self.state();
        let open = |at: &usize| {
            let mut holders = state.holders.get(at).into_iter().flatten();
            !now.have.has(*at) && !state.asked.has(*at) && !holders.any(|at| usable(*at))
        };
        let count = now.sums.len();
        let first = (0..count).find(open)?;
        let end = (first..count).find(|at| !open(at)).unwrap_or(count);
        Some(first..end)
    }

    /// A chunk comes that nobody picked: it need not be asked for.
    pub fn comes(&self, chunk: usize) {
        self.state().asked.insert(chunk);
    }

    /// What was asked for has come, or will not come.
    pub fn settled(&self, chunk: usize) {
        self.state().asked.remove(chunk);
        self.wake();
    }

    /// Whoever asked for chunks is gone, and nothing will come of it.
    pub fn start_over(&self) {
        let mut state = self.state();
        state.asked = Bitmap::none(state.given.len());
    }

    /// A holder failed to give a chunk: it is not asked for this one again.
    pub fn failed(&self, chunk: usize, holder: SocketAddr) {
        let mut state = self.state();
        if let Some(holders) = state.holders.get_mut(&chunk) {
            holders.retain(|one| *one != holder);
            if holders.is_empty() {
                state.holders.remove(&chunk);
                state.orphans.insert(chunk);
            }
        }
    }

    /// What this node has or has asked for.
    pub fn coming(&self) -> Bitmap {
        let asked = self.state().asked.clone();
        self.blob.progress().borrow().have.clone().or(&asked)
    }

    /// A chunk for a peer that lacks all but `coming`: one that nobody was given yet or, once the blob is whole here,
    /// one that few were given. It counts as given.
    pub fn give(&self, to: SocketAddr, coming: &Bitmap) -> Option<usize> {
        let progress = self.blob.progress();
        let now = progress.borrow();
        let mut state = self.state();
        let lacking = now.order.iter().copied().filter(|at| !coming.has(*at));
        let chunk = lacking.min_by_key(|at| state.given[*at])?;
        if state.given[chunk] > 0 && now.standing == Standing::Arriving {
            return None;
        }
        state.given[chunk] += 1;
        state.log.push((chunk, to));
        drop(state);
        self.wake();
        Some(chunk)
    }

    /// What was given to whom, from entry `since` on.
    pub fn given_since(&self, since: usize) -> Vec<(usize, SocketAddr)> {
        self.state().log[since..].to_vec()
    }

    /// Wakes whoever waits for changes.
    pub fn wake(&self) {
        self.changed.send_modify(|turn| *turn += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
