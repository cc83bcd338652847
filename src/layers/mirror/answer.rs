//! Answers as the distribution specification has them: ranges, conditions and errors.

use std::ops::Range;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::json;

use crate::layers::image::digest::Digest;
use crate::layers::miss::Miss;

/// What of a blob a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Whole,
    /// These bytes of it, at least one.
    Part(Range<u64>),
    /// Bytes that it does not have.
    Nothing,
    /// To hear that what the client has is still right.
    Unchanged,
}

/// Reads what of a blob of `size` bytes is wanted: one range (RFC 9110 §14.2), of which several at once are answered
/// with the whole, and the conditions, which for content that is named by its digest are always about that name.
pub fn wanted(headers: &HeaderMap, digest: &Digest, size: u64) -> Wanted {
    let etag = format!("\"{digest}\"");
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(known) = text(IF_NONE_MATCH)
        && known
            .split(',')
            .any(|one| [etag.as_str(), "*"].contains(&one.trim()))
    {
        return Wanted::Unchanged;
    }
    let range = text(RANGE).filter(|_| text(IF_RANGE).is_none_or(|known| known == etag));
    match range.and_then(|range| range.strip_prefix("bytes=")) {
        Some(range) if !range.contains(',') => part(range, size),
        _ => Wanted::Whole,
    }
}

fn part(range: &str, size: u64) -> Wanted {
    let Some((first, last)) = range.split_once('-') else {
        return Wanted::Whole;
    };
    let bounds = match (first.trim().parse::<u64>(), last.trim()) {
        (Ok(first), "") => first..size,
        (Ok(first), last) => match last.parse::<u64>() {
            Ok(last) => first..last.saturating_add(1).min(size),
            Err(_) => return Wanted::Whole,
        },
        (Err(_), last) if first.trim().is_empty() => match last.parse::<u64>() {
            Ok(suffix) => size.saturating_sub(suffix)..size,
            Err(_) => return Wanted::Whole,
        },
        (Err(_), _) => return Wanted::Whole,
    };
    if bounds.is_empty() {
        Wanted::Nothing
    } else {
        Wanted::Part(bounds)
    }
}

/// The head of an answer about a blob, and the bytes that its body should have.
pub fn head(
    wanted: Wanted,
    digest: &Digest,
    size: u64,
    media_type: &str,
) -> (Response, Range<u64>) {
    let (status, bytes) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0..size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0),
        Wanted::Unchanged => (StatusCode::NOT_MODIFIED, 0..0),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(ETAG, text(&format!("\"{digest}\"")));
    headers.insert("docker-content-digest", text(&digest.to_string()));
    match status {
        StatusCode::PARTIAL_CONTENT => {
            let range = format!("bytes {}-{}/{size}", bytes.start, bytes.end - 1);
            headers.insert(CONTENT_RANGE, text(&range));
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            headers.insert(CONTENT_RANGE, text(&format!("bytes */{size}")));
        }
        _ => {}
    }
    if status.is_success() {
        headers.insert(CONTENT_TYPE, text(media_type));
        headers.insert(CONTENT_LENGTH, (bytes.end - bytes.start).into());
    }
    (response, bytes)
}

/// A miss as the client is told: `NAME`, `MANIFEST` or `BLOB` says what was asked for.
pub fn miss(miss: &Miss, what: &str) -> Response {
    let code = match miss {
        Miss::NotFound => format!("{what}_UNKNOWN"),
        Miss::Challenge(_) => "UNAUTHORIZED".to_owned(),
        Miss::Denied => "DENIED".to_owned(),
        Miss::Later(_) | Miss::NoRoom | Miss::Unavailable(_) => "UNAVAILABLE".to_owned(),
    };
    let mut response = error(miss.status(), &code, &miss.to_string());
    response.headers_mut().extend(miss.headers());
    response
}

/// The answer to a method that would change something: the mirror is read-only.
pub fn read_only() -> Response {
    let mut response = error(
        StatusCode::METHOD_NOT_ALLOWED,
        "UNSUPPORTED",
        "this mirror is read-only",
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// An error in the form that all clients read (distribution specification, "Error Codes").
pub fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "errors": [{ "code": code, "message": message }] });
    let mut response = json_body(body.to_string().into_bytes(), "application/json");
    *response.status_mut() = status;
    response
}

/// A small answer that is there whole.
pub fn json_body(bytes: Vec<u8>, media_type: &str) -> Response {
    let mut response = Response::new(Body::from(bytes));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, text(media_type));
    response
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::try_from(value)
        .unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(range: &str) -> Wanted {
        let headers = HeaderMap::from_iter([(RANGE, text(range))]);
        wanted(&headers, &Digest::of(b""), 3000)
    }

    #[test]
    fn single_ranges_are_as_http_has_them() {
        assert_eq!(asked("bytes=500-1499"), Wanted::Part(500..1500));
        assert_eq!(asked("bytes=500-"), Wanted::Part(500..3000));
        assert_eq!(asked("bytes=-500"), Wanted::Part(2500..3000));
        assert_eq!(asked("bytes=-5000"), Wanted::Part(0..3000));
        assert_eq!(asked("bytes=2000-5000"), Wanted::Part(2000..3000));
        assert_eq!(asked("bytes=500-0"), Wanted::Nothing);
        assert_eq!(asked("bytes=3000-"), Wanted::Nothing);
        assert_eq!(asked("bytes=-0"), Wanted::Nothing);
    }

    #[test]
    fn what_is_no_single_range_is_answered_whole() {
        for range in [
            "bytes=0-1,5-6",
            "lines=1-2",
            "bytes=x-",
            "bytes=1-x",
            "bytes=",
        ] {
            assert_eq!(asked(range), Wanted::Whole, "{range}");
        }
    }

    #[test]
    fn a_client_that_has_the_digest_needs_no_body() {
        let digest = Digest::of(b"layer");
        let known = HeaderMap::from_iter([(IF_NONE_MATCH, text(&format!("\"x\", \"{digest}\"")))]);

        assert_eq!(wanted(&known, &digest, 5), Wanted::Unchanged);
    }

    #[test]
    fn a_range_of_something_else_is_answered_whole() {
        let headers = HeaderMap::from_iter([
            (RANGE, text("bytes=1-2")),
            (IF_RANGE, text("\"another digest\"")),
        ]);

        assert_eq!(wanted(&headers, &Digest::of(b"layer"), 5), Wanted::Whole);
    }
}
