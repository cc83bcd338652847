//! What the process tells of itself: the log here, the figures, the probes and the traces beside it.

pub mod http;
pub mod metrics;
pub mod trace;

use std::io::{self, IsTerminal};

use anyhow::{Context, Result, anyhow};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Sends the log to the standard error, filtered by `filter` (such as `info` or `info,orlop=debug`).
///
/// # Errors
/// A filter that can not be read; a second call.
pub fn start(filter: &str, format: LogFormat) -> Result<()> {
    let filter = parse(filter)?;
    let mut log = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    if !io::stderr().is_terminal() {
        // Docker's log would keep colours as noise.
        log.set_ansi(false);
    }
    let log = match format {
        LogFormat::Text => log.boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(log.with_filter(filter))
        .with(trace::layer()?)
        .try_init()
        .map_err(|error| anyhow!(error))
        .context("the log could not be started")
}

/// Sends what is not sent yet; for the end of the process.
pub fn stop() {
    trace::stop();
}

fn parse(filter: &str) -> Result<EnvFilter> {
    EnvFilter::builder().parse(filter).with_context(|| {
        format!("{filter:?} is not a log filter: write it like `info` or `info,orlop=debug`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_filter_is_shown_with_a_right_one() {
        let error = parse("orlop=loudly").expect_err("there is no such level");

        let message = format!("{error:#}");
        assert!(
            message.contains("\"orlop=loudly\" is not a log filter"),
            "{message}"
        );
        assert!(message.contains("info,orlop=debug"), "{message}");
    }
}
