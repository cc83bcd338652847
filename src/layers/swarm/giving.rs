//! Which chunk a node gives to whom.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::Swarm;
use crate::layers::blob::Standing;
use crate::layers::blob::bitmap::Bitmap;

/// How many of those who were sent a chunk are remembered.
const MOST_SENT: usize = 16;
/// How many of them are named to one who asks.
const MOST_NAMED: usize = 3;
/// How much of what was given is told one by one.
pub(super) const LONGEST_LOG: usize = 4096;

/// What was given and sent.
#[derive(Debug)]
pub(super) struct Giving {
    /// To whom each chunk was sent by us, the last ones.
    sent: Vec<Vec<SocketAddr>>,
    /// What was given to whom, in order, the last ones.
    log: VecDeque<(usize, SocketAddr)>,
    /// How many are not in the log any more.
    dropped: usize,
}

impl Giving {
    /// Nothing yet, of a blob of `count` chunks.
    pub(super) fn about(count: usize) -> Self {
        Self {
            sent: vec![Vec::new(); count],
            log: VecDeque::new(),
            dropped: 0,
        }
    }

    fn sent_to(&mut self, chunk: usize, to: SocketAddr) {
        let sent = &mut self.sent[chunk];
        if !sent.contains(&to) {
            sent.push(to);
        }
        if sent.len() > MOST_SENT {
            sent.remove(0);
        }
    }
}

impl Swarm {
    /// Whether [`give`](Self::give) would give a peer that lacks all but `coming` anything.
    pub fn has_for(&self, to: SocketAddr, coming: &Bitmap) -> bool {
        self.next_for(&self.giving.lock(), to, coming).is_some()
    }

    /// A chunk for a peer that lacks all but `coming`: one that nobody was given yet or, once the blob is whole here,
    /// one that few were given. It counts as given. The first chunk, which is small, goes to many, who all wait for it.
    pub fn give(&self, to: SocketAddr, coming: &Bitmap) -> Option<usize> {
        let mut state = self.giving.lock();
        let chunk = self.next_for(&state, to, coming)?;
        state.sent_to(chunk, to);
        state.log.push_back((chunk, to));
        if state.log.len() > LONGEST_LOG {
            state.log.pop_front();
            state.dropped += 1;
        }
        drop(state);
        self.wake();
        Some(chunk)
    }

    fn next_for(&self, state: &Giving, to: SocketAddr, coming: &Bitmap) -> Option<usize> {
        let progress = self.blob.progress();
        let now = progress.borrow();
        let lacks = |at: usize| !coming.has(at) && !state.sent[at].contains(&to);
        if now.have.has(0) && lacks(0) && state.sent[0].len() < MOST_SENT {
            return Some(0);
        }
        let lacking = now.order.iter().copied().filter(|at| lacks(*at));
        let whole = now.standing == Standing::Whole;
        lacking
            .filter(|at| whole || state.sent[*at].is_empty())
            // What others were given is asked from them from the front on.
            .min_by_key(|at| match state.sent[*at].len() {
                0 => (0, *at),
                times => (times, usize::MAX - at),
            })
    }

    /// Whether a peer that lacks all but `coming` will be given nothing more: all of it was given, to them or to others.
    pub fn has_given_all(&self, to: SocketAddr, coming: &Bitmap) -> bool {
        let whole = self.blob.standing() == Standing::Whole;
        let state = self.giving.lock();
        let mut lacking = coming.missing();
        lacking.all(|at| match &state.sent[at][..] {
            sent if whole => sent.contains(&to),
            sent => !sent.is_empty(),
        })
    }

    /// A chunk goes to a peer that asked for this one.
    pub fn goes(&self, chunk: usize, to: SocketAddr) {
        self.giving.lock().sent_to(chunk, to);
    }

    /// Who else was sent a chunk by us lately.
    pub fn receivers(&self, chunk: usize, but: SocketAddr) -> Vec<SocketAddr> {
        let state = self.giving.lock();
        let others = state.sent[chunk].iter().rev().filter(|to| **to != but);
        others.take(MOST_NAMED).copied().collect()
    }

    /// Somebody joins anew: what they were given is forgotten.
    pub fn joins(&self, from: SocketAddr) {
        for sent in &mut self.giving.lock().sent {
            sent.retain(|to| *to != from);
        }
    }

    /// What was given to whom, from entry `since` on, and the number of the next entry. To one who missed some entries:
    /// who was sent each chunk last.
    pub fn given_since(&self, since: usize) -> (Vec<(usize, SocketAddr)>, usize) {
        let state = self.giving.lock();
        let next = state.dropped + state.log.len();
        let given = if since == 0 || since < state.dropped {
            let last = state.sent.iter().enumerate();
            last.filter_map(|(at, sent)| Some((at, *sent.last()?)))
                .collect()
        } else {
            state.log.range(since - state.dropped..).copied().collect()
        };
        (given, next)
    }
}
