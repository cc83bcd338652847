//! The one error of the core, whose variant says what the caller should do next.

use std::io;

use rustix::io::Errno;

/// The core's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed, by what its caller should do next (DESIGN.md §9); `csi/status.rs` gives each its gRPC code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Never ask this again: the request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// It is gone, or never was.
    #[error("{0} does not exist")]
    NotFound(String),
    /// That name is already another volume, snapshot or mount.
    #[error("{0}")]
    Conflict(String),
    /// An operation is really still running: ask again.
    #[error("{0} is busy: an operation on it is still running, ask again")]
    Busy(String),
    /// Undo its use first: unpublish, unmount.
    #[error("{0}")]
    InUse(String),
    /// Do the step before this one first: stage it.
    #[error("{0}")]
    NotStaged(String),
    /// No room here: another node may have it.
    #[error("{0}")]
    Full(String),
    /// Ask for another size.
    #[error("{0}")]
    OutOfRange(String),
    /// This pool kind never does this call.
    #[error("{0}")]
    Unsupported(String),
    /// A page token that we did not give, or no longer know: list again from the start.
    #[error("{0}")]
    BadToken(String),
    /// Who has it, or may have it, can not be asked now (router only): it may have been done, ask again.
    #[error("{0}")]
    Unreachable(String),
    /// The machine refused; the chain says how.
    #[error("{0:#}")]
    Host(anyhow::Error),
}

impl From<anyhow::Error> for Error {
    /// Some refusals of the machine are no fault of it: a full disk sends the caller to another node, what somebody still
    /// uses must be let go first, a symlink in a path it gave is the caller's own to mend.
    fn from(error: anyhow::Error) -> Self {
        match error.chain().find_map(errno) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full(format!("no space left: {error:#}")),
            Some(Errno::BUSY) => Self::InUse(format!("{error:#}")),
            Some(Errno::LOOP) => Self::Invalid(format!("{error:#}")),
            _ => Self::Host(error),
        }
    }
}

fn errno(cause: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let io = cause
        .downcast_ref::<io::Error>()
        .and_then(Errno::from_io_error);
    io.or_else(|| cause.downcast_ref::<Errno>().copied())
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_full_disk_sends_the_caller_to_another_node() {
        let chain = Err::<(), _>(Errno::NOSPC)
            .context("writing the record")
            .expect_err("it is an error");

        assert!(matches!(Error::from(chain), Error::Full(_)));
    }

    #[test]
    fn what_somebody_uses_is_in_use() {
        let chain = Err::<(), _>(Errno::BUSY)
            .context("unmounting")
            .expect_err("it is an error");

        assert!(matches!(Error::from(chain), Error::InUse(_)));
    }

    #[test]
    fn the_whole_chain_is_in_the_message() {
        let chain = Err::<(), _>(Errno::IO)
            .context("writing the record")
            .expect_err("it is an error");

        assert_eq!(
            Error::from(chain).to_string(),
            "writing the record: Input/output error (os error 5)"
        );
    }
}
