//! What the process tells of itself: the log here, the figures and the probes beside it.

pub mod http;
pub mod metrics;

use std::io;

use anyhow::{Context, Result, anyhow};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

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
    let log = tracing_subscriber::fmt()
        .with_env_filter(parse(filter)?)
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => log.finish().try_init(),
        LogFormat::Json => log.json().flatten_event(true).finish().try_init(),
    }
    .map_err(|error| anyhow!(error))
    .context("the log could not be started")
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
