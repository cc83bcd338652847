//! Whether the answers that many callers got can be explained by one order of their calls.

use std::collections::HashSet;
use std::fmt::Write;

use crate::model::{Answer, Op, State};

/// A call and its answer; `begun` and `ended` on one clock for all callers.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    pub(crate) op: Op,
    pub(crate) answer: Answer,
    /// What was said beside the code.
    pub(crate) told: String,
}

/// Finds an order of the calls, each somewhere between its begin and its end, in which every answer is the one that the
/// model gives, beginning with nothing and ending in `seen` (Wing and Gong, 1993).
///
/// # Errors
/// The longest explanation found, and the calls at which it ends.
pub(crate) fn explain(calls: &[&Call], seen: &State) -> Result<(), String> {
    let mut calls = calls.to_vec();
    calls.sort_by_key(|call| call.begun);
    let mut tried = HashSet::new();
    let mut best: (usize, State, Vec<usize>) = Default::default();
    // A point of the search: which calls are explained, and the state after them.
    let mut open = vec![(vec![false; calls.len()], State::default())];
    while let Some((done, state)) = open.pop() {
        let explained = done.iter().filter(|is| **is).count();
        if explained == calls.len() && state == *seen {
            return Ok(());
        }
        let left: Vec<usize> = (0..calls.len()).filter(|at| !done[*at]).collect();
        // Only what began before all others ended can have been the next.
        let first_end = left.iter().map(|at| calls[*at].ended).min().unwrap_or(0);
        let candidates: Vec<usize> = left
            .into_iter()
            .take_while(|at| calls[*at].begun < first_end)
            .collect();
        if explained >= best.0 {
            best = (explained, state.clone(), candidates.clone());
        }
        for at in candidates {
            let mut after = state.clone();
            if after.step(calls[at].op) == calls[at].answer {
                let mut done = done.clone();
                done[at] = true;
                if tried.insert((done.clone(), after.clone())) {
                    open.push((done, after));
                }
            }
        }
    }
    let (explained, state, candidates) = best;
    let mut stuck = format!(
        "{explained} of {} calls are explained, up to {state:?}; seen at the end {seen:?}",
        calls.len()
    );
    for at in candidates {
        let Call {
            begun,
            ended,
            op,
            answer,
            told,
        } = calls[at];
        let _ = write!(stuck, "\n  {begun}..{ended} {op:?}: {answer:?} {told}");
    }
    Err(stuck)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn call(begun: u64, ended: u64, op: Op, answer: Answer) -> Call {
        Call {
            begun,
            ended,
            op,
            answer,
            told: String::new(),
        }
    }

    fn explained(calls: &[Call], seen: &State) -> bool {
        explain(&calls.iter().collect::<Vec<_>>(), seen).is_ok()
    }

    fn after(ops: &[Op]) -> State {
        let mut state = State::default();
        for op in ops {
            let _ = state.step(*op);
        }
        state
    }

    #[test]
    fn calls_at_once_may_have_come_in_any_order() {
        let calls = [
            call(0, 10, Op::Get, Err(Code::NotFound)),
            call(1, 9, Op::Create(4), Ok(4)),
            call(2, 8, Op::Get, Ok(4)),
        ];

        assert!(explained(&calls, &after(&[Op::Create(4)])));
    }

    #[test]
    fn an_answer_that_forgets_an_earlier_one_is_found() {
        let calls = [
            call(0, 1, Op::Create(4), Ok(4)),
            call(2, 3, Op::Get, Err(Code::NotFound)),
        ];

        assert!(!explained(&calls, &after(&[Op::Create(4)])));
    }

    #[test]
    fn an_end_that_no_order_leads_to_is_found() {
        let calls = [
            call(0, 1, Op::Create(4), Ok(4)),
            call(2, 3, Op::Delete, Ok(0)),
        ];

        assert!(!explained(&calls, &after(&[Op::Create(4)])));
    }
}
