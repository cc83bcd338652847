//! The gRPC code of each error: the only place that names one.

use tonic::{Code, Status};

use crate::telemetry::trace;
use crate::volume::Error;

/// The code by which the caller knows what to do next (DESIGN.md §9).
///
/// The provisioner reads CANCELLED, `DEADLINE_EXCEEDED`, UNAVAILABLE and ABORTED as "may still be running" and all others
/// as "it is over": only `Busy` and `Unreachable` may be of these. (CSI asks for ABORTED on a bad page token too; no sidecar that
/// lists takes it for running work.)
#[deny(clippy::wildcard_enum_match_arm)]
pub(crate) fn code(error: &Error) -> Code {
    match error {
        Error::Invalid(_) => Code::InvalidArgument,
        Error::NotFound(_) => Code::NotFound,
        Error::Conflict(_) => Code::AlreadyExists,
        Error::Busy(_) | Error::BadToken(_) => Code::Aborted,
        Error::InUse(_) | Error::NotStaged(_) => Code::FailedPrecondition,
        Error::Full(_) => Code::ResourceExhausted,
        Error::OutOfRange(_) => Code::OutOfRange,
        Error::Unsupported(_) => Code::Unimplemented,
        Error::Unreachable(_) => Code::Unavailable,
        Error::Host(_) => Code::Internal,
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = match trace::id() {
            Some(id) => format!("{error} (trace {id})"),
            None => error.to_string(),
        };
        Self::new(code(&error), message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_really_still_running_looks_so_to_the_provisioner() {
        let text = || String::from("x");
        let over = [
            Error::Invalid(text()),
            Error::NotFound(text()),
            Error::Conflict(text()),
            Error::InUse(text()),
            Error::NotStaged(text()),
            Error::Full(text()),
            Error::OutOfRange(text()),
            Error::Unsupported(text()),
            Error::Host(anyhow::anyhow!("x")),
        ];
        let running = [
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Unavailable,
            Code::Aborted,
        ];

        assert!(over.iter().all(|error| !running.contains(&code(error))));
        assert_eq!(code(&Error::Busy(text())), Code::Aborted);
        assert_eq!(code(&Error::Unreachable(text())), Code::Unavailable);
    }
}
