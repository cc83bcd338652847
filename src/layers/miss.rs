//! Why something can not be had, by what the client should do next.

use std::time::Duration;

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};

/// Why a blob, a manifest or a list can not be had; known before any header is sent, so that the client can still go
/// upstream by itself.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Miss {
    /// Upstream says that there is none.
    #[error("upstream has no such thing")]
    NotFound,
    /// Upstream wants to know who asks: the client should answer this challenge.
    #[error("upstream asks for credentials")]
    Challenge(HeaderValue),
    /// Upstream knows who asks and refuses.
    #[error("upstream refuses these credentials")]
    Denied,
    /// Upstream has had enough of us for this long.
    #[error("upstream asks to come back in {0:?}")]
    Later(Duration),
    /// There is no room to keep it: it can be passed through, but not shared.
    #[error("there is no room to keep it")]
    NoRoom,
    /// Nobody who could have it answers.
    #[error("{0}")]
    Unavailable(String),
}

impl Miss {
    /// What an answer with this status and these headers means; nothing if it is a success.
    pub fn of(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        let seconds = || headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok();
        Some(match (status, headers.get(WWW_AUTHENTICATE)) {
            (status, _) if status.is_success() => return None,
            (StatusCode::UNAUTHORIZED, Some(challenge)) => Self::Challenge(challenge.clone()),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Self::Denied,
            (StatusCode::NOT_FOUND | StatusCode::GONE, _) => Self::NotFound,
            (StatusCode::INSUFFICIENT_STORAGE, _) => Self::NoRoom,
            (StatusCode::TOO_MANY_REQUESTS, _) => {
                Self::Later(Duration::from_secs(seconds().unwrap_or(1)))
            }
            (status, _) => match seconds() {
                Some(seconds) => Self::Later(Duration::from_secs(seconds)),
                None => Self::Unavailable(format!("upstream answered {status}")),
            },
        })
    }

    /// The status with which a client, or a peer, is told.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Challenge(_) => StatusCode::UNAUTHORIZED,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
            // Not 429: containerd would ask six times before it goes upstream.
            Self::Later(_) | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The headers that go with the status.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match self {
            Self::Challenge(challenge) => {
                headers.insert(WWW_AUTHENTICATE, challenge.clone());
            }
            Self::Later(after) => {
                headers.insert(RETRY_AFTER, after.as_secs().max(1).into());
            }
            Self::NotFound | Self::Denied | Self::NoRoom | Self::Unavailable(_) => {}
        }
        headers
    }
}
