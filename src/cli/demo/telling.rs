//! One line a step: what happened, and how long it took.

use std::io::{self, IsTerminal, Stdout, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Where the times begin.
const COLUMN: usize = 64;

/// Tells the steps on the standard output.
pub(super) struct Telling {
    output: Stdout,
    live: bool,
}

impl Telling {
    pub(super) fn new() -> Self {
        let output = io::stdout();
        let live = output.is_terminal();
        Self { output, live }
    }

    /// Says one line as it is.
    pub(super) fn say(&self, line: &str) -> Result<()> {
        writeln!(self.output.lock(), "{line}").context("the standard output is closed")
    }

    /// Leaves the line of a step that was broken off.
    pub(super) fn broken_off(&self) -> Result<()> {
        if self.live {
            self.say("")?;
        }
        Ok(())
    }

    /// Does one step: told as `doing` while it runs (on a terminal) and if it fails, else as `done` says.
    pub(super) async fn step<T>(
        &self,
        doing: &str,
        work: impl Future<Output = Result<T>>,
        done: impl FnOnce(&T) -> String,
    ) -> Result<T> {
        if self.live {
            let mut output = self.output.lock();
            write!(output, "  … {doing}").and_then(|()| output.flush())?;
        }
        let started = Instant::now();
        let outcome = work.await;
        let (mark, text) = match &outcome {
            Ok(value) => ('✓', done(value)),
            Err(_) => ('✗', doing.to_owned()),
        };
        let over = if self.live { "\r\x1b[K" } else { "" };
        let took = shown(started.elapsed());
        self.say(&format!("{over}  {mark} {text:<COLUMN$} {took:>8}"))?;
        outcome.with_context(|| doing.to_owned())
    }
}

fn shown(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
