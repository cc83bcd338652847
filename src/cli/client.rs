//! Talking to a node for a person: with what to wait by, and with what to do about an answer that is an error.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tonic::{Code, Response, Status};

use crate::client::Connection;
use crate::csi::endpoint::Endpoint;
use crate::csi::proto::inspection::ListWorkRequest;

/// How often a progress bar moves.
const TICK: Duration = Duration::from_millis(200);
/// What is shown of a copy.
const COPYING: &str =
    "{msg}  {bar:30}  {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  ETA {eta}";
/// What is shown when all is copied, and only the disk has to finish.
const COPIED: &str = "{msg}  {binary_bytes} copied, waiting for the disk to have them";

/// Where the node is.
#[derive(Args, Debug)]
pub(super) struct Remote {
    /// The socket of the node: `unix:///run/orlop/csi.sock`, or a path.
    #[arg(
        long,
        env = "CSI_ENDPOINT",
        default_value = "unix:///run/orlop/csi.sock",
        value_name = "URL",
        global = true
    )]
    pub(super) endpoint: Endpoint,
}

/// That a command failed for a reason that it said itself.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Failed {
    pub(super) message: String,
    pub(super) exit: u8,
}

impl Remote {
    /// Runs `work` on a connection to the node.
    ///
    /// # Errors
    /// Nobody serves there, with what to do; and what `work` says.
    pub(super) fn with<T>(&self, work: impl AsyncFnOnce(Connection) -> Result<T>) -> Result<T> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the runtime")?
            .block_on(async { work(Connection::to(&self.endpoint).await?).await })
    }
}

/// Waits for a call that may copy much to make `id`, and shows how far it is while a person looks.
pub(super) async fn watched<T>(
    node: &Connection,
    id: &str,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    if !std::io::stderr().is_terminal() {
        return call.await;
    }
    // What takes no time needs no bar: it is shown when the node first tells of the work.
    let bar = ProgressBar::hidden().with_message(id.to_owned());
    let answer = tokio::select! {
        answer = call => answer,
        () = show_work(node, id, &bar) => unreachable!("it shows until the call has ended"),
    };
    bar.finish_and_clear();
    answer
}

async fn show_work(node: &Connection, id: &str, bar: &ProgressBar) {
    loop {
        tokio::time::sleep(TICK).await;
        // A node that does not tell still does the work: then there is nothing to show.
        let Ok(answer) = node.inspection().list_work(ListWorkRequest {}).await else {
            continue;
        };
        let works = answer.into_inner().work;
        if let Some(work) = works
            .iter()
            .find(|work| work.id == id && work.total_bytes > 0)
        {
            let copied = work.done_bytes >= work.total_bytes;
            bar.set_style(style(if copied { COPIED } else { COPYING }));
            bar.set_length(work.total_bytes.max(work.done_bytes));
            bar.set_position(work.done_bytes);
            if bar.is_hidden() {
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the templates are constants")
        .progress_chars("=> ")
}

/// Tells why a command failed, in one line, and gives its exit code.
pub(super) fn fail(error: &anyhow::Error) -> ExitCode {
    let (message, exit) = told(error);
    // A message of a tool can have several lines, a script reads one.
    let line: Vec<_> = message.split_whitespace().collect();
    eprintln!("orlop: {}", line.join(" "));
    ExitCode::from(exit)
}

fn told(error: &anyhow::Error) -> (String, u8) {
    if let Some(status) = error.downcast_ref::<Status>() {
        return (explained(status), exit_code(status.code()));
    }
    let exit = error
        .downcast_ref()
        .map_or(1, |failed: &Failed| failed.exit);
    (format!("{error:#}"), exit)
}

/// What the node said, and what to do where it could not know that.
fn explained(status: &Status) -> String {
    let message = status.message();
    match status.code() {
        Code::NotFound if message.starts_with("snapshot") => {
            format!("{message}: `orlop snapshot ls` shows those that do")
        }
        Code::NotFound => format!("{message}: `orlop volume ls` shows those that do"),
        Code::Unavailable | Code::Cancelled => {
            format!("the node went away in the middle ({message}): look, then ask again")
        }
        Code::Unimplemented if message.is_empty() => {
            "what serves on this socket does not know that call: is it an `orlop node` of this release?".into()
        }
        Code::FailedPrecondition if message.contains("unpublish") => {
            format!("{message} (`orlop volume unmount` does both)")
        }
        _ if message.is_empty() => status.to_string(),
        _ => message.to_owned(),
    }
}

fn exit_code(code: Code) -> u8 {
    match code {
        Code::InvalidArgument | Code::OutOfRange => 2,
        Code::NotFound => 3,
        Code::Aborted | Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => 4,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_error_is_told_with_what_to_do_and_its_exit_code() {
        let told_of = |code, message: &str| told(&Status::new(code, message).into());

        let (missing, exit) = told_of(Code::NotFound, "snapshot a/b@c does not exist");
        assert!(missing.ends_with("`orlop snapshot ls` shows those that do") && exit == 3);
        assert_eq!(told_of(Code::Aborted, "volume a is busy").1, 4);
        assert_eq!(told_of(Code::InvalidArgument, "no").1, 2);
        assert_eq!(told_of(Code::Internal, "a disk").1, 1);
        assert_eq!(told(&anyhow!("else")), ("else".to_owned(), 1));
    }
}
