//! Which chunk a node asks for next, and whom.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;

use super::Swarm;
use crate::layers::blob::bitmap::Bitmap;

/// Among how many chunks that can be had one is picked: how far ahead of its client a node may fetch from others.
const AHEAD: usize = 64;

/// What is known of the others, and what was asked of them.
#[derive(Debug)]
pub(super) struct Asking {
    /// Who can be asked for each chunk, which they have or are getting.
    holders: Vec<Vec<SocketAddr>>,
    /// The chunks that were asked for and have not come.
    asked: Bitmap,
    /// How many chunks each holder was asked for that have not come.
    load: HashMap<SocketAddr, usize>,
    /// The chunks whose holders all failed: only the home is left to ask.
    orphans: Bitmap,
}

/// A chunk to ask for, and whom to ask: a holder or, with none left, the home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Which chunk.
    pub chunk: usize,
    /// Who has it.
    pub holder: Option<SocketAddr>,
}

impl Asking {
    /// Of a blob of `count` chunks, with nobody known.
    pub(super) fn about(count: usize) -> Self {
        Self {
            holders: vec![Vec::new(); count],
            asked: Bitmap::none(count),
            load: HashMap::new(),
            orphans: Bitmap::none(count),
        }
    }
}

impl Swarm {
    /// Notes who was given, or has, which chunk.
    pub fn placed(&self, news: &[(usize, SocketAddr)]) {
        if news.is_empty() {
            return;
        }
        let mut state = self.asking.lock();
        for (chunk, holder) in news {
            if let Some(holders) = state.holders.get_mut(*chunk)
                && !holders.contains(holder)
            {
                holders.push(*holder);
            }
        }
        drop(state);
        self.wake();
    }

    /// The next chunk to ask for, which counts as asked for from now on: of the first that are missing and can be had,
    /// the one whose holder is asked for the fewest others, so that all of them have something to do.
    ///
    /// With `orphans`, also one that the home alone can give, because all its holders failed.
    pub fn pick(&self, orphans: bool, usable: impl Fn(SocketAddr) -> bool) -> Option<Pick> {
        let progress = self.blob.progress();
        let now = progress.borrow();
        let mut state = self.asking.lock();
        let mut best: Option<(usize, Pick)> = None;
        let open = now.have.missing();
        let open = open.filter(|at| now.sums[*at].is_some() && !state.asked.has(*at));
        let mut seen = 0;
        for chunk in open {
            let load = |holder: &SocketAddr| state.load.get(holder).copied().unwrap_or(0);
            let known = &state.holders[chunk];
            // Whoever was given it last has given it to the fewest others.
            let holders = known.iter().rev().filter(|at| usable(**at));
            let holder = holders.min_by_key(|at| load(at)).copied();
            // Holders that may not be asked are as good as none.
            let orphan = orphans && (state.orphans.has(chunk) || !known.is_empty());
            if holder.is_none() && !orphan {
                continue;
            }
            let load = holder.as_ref().map_or(0, load);
            if best.is_none_or(|(least, _)| load < least) {
                best = Some((load, Pick { chunk, holder }));
            }
            seen += 1;
            if load == 0 || seen >= AHEAD {
                break;
            }
        }
        let (_, pick) = best?;
        state.asked.insert(pick.chunk);
        if let Some(holder) = pick.holder {
            *state.load.entry(holder).or_default() += 1;
        }
        Some(pick)
    }

    /// The first run of chunks that are missing and that no peer is known to have, to be had from upstream.
    pub fn gap(&self, usable: impl Fn(SocketAddr) -> bool) -> Option<Range<usize>> {
        let progress = self.blob.progress();
        let now = progress.borrow();
        let state = self.asking.lock();
        let open = |at: &usize| {
            let mut holders = state.holders[*at].iter();
            !now.have.has(*at) && !state.asked.has(*at) && !holders.any(|at| usable(*at))
        };
        let count = now.sums.len();
        let first = (0..count).find(open)?;
        let end = (first..count).find(|at| !open(at)).unwrap_or(count);
        Some(first..end)
    }

    /// A chunk comes that nobody picked: it need not be asked for.
    pub fn comes(&self, chunk: usize) {
        self.asking.lock().asked.insert(chunk);
    }

    /// What was asked for, from a holder or not, has come or will not come.
    pub fn settled(&self, chunk: usize, holder: Option<SocketAddr>) {
        let mut state = self.asking.lock();
        state.asked.remove(chunk);
        if let Some(asked) = holder.and_then(|holder| state.load.get_mut(&holder)) {
            *asked = asked.saturating_sub(1);
        }
        drop(state);
        self.wake();
    }

    /// Whoever asked for chunks is gone, and nothing will come of it.
    pub fn start_over(&self) {
        let mut state = self.asking.lock();
        state.asked = Bitmap::none(state.holders.len());
        state.load.clear();
    }

    /// A holder failed to give a chunk, or names `others` to ask instead: it is not asked for this one again.
    pub fn failed(&self, chunk: usize, holder: SocketAddr, others: &[SocketAddr]) {
        let mut state = self.asking.lock();
        let holders = &mut state.holders[chunk];
        holders.retain(|one| *one != holder && !others.contains(one));
        holders.extend(others);
        if holders.is_empty() {
            state.orphans.insert(chunk);
        }
    }

    /// What this node has or has asked for.
    pub fn coming(&self) -> Bitmap {
        let asked = self.asking.lock().asked.clone();
        self.blob.progress().borrow().have.clone().or(&asked)
    }
}
