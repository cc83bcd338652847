//! The body of an answer: bytes that are verified, as they become ready, from whatever source is left.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::layers::blob::Blob;
use crate::layers::disk::runtime::Runtime;
use crate::layers::fetch::Fetches;
use crate::layers::image::digest::{ChunkSum, Digest};
use crate::layers::metrics::Sink;
use crate::layers::miss::Miss;
use crate::layers::upstream::flow::{Ask, Flow};

/// Pieces that wait for a slow client, in each body.
const AHEAD: usize = 2;
/// How often a body looks for another source before it gives up.
const ATTEMPTS: usize = 6;
/// The bytes at the end of a blob that is passed through which stay back until the whole is right.
const HELD_BACK: usize = 64 << 10;

type Pieces = mpsc::Sender<Result<Bytes, String>>;

/// The bytes `range` of a blob. When the blob breaks off, the rest comes from a new one that agrees with what was sent.
pub fn body(fetches: Arc<Fetches>, ask: Ask, blob: Arc<Blob>, range: Range<u64>) -> Body {
    let (runtime, digest) = (fetches.runtime().clone(), ask.digest.clone());
    made_by(runtime, digest, |pieces| async move {
        send(&fetches, &ask, blob, range, &pieces).await
    })
}

/// The body that `sending` makes in the task of its connection, so that a piece is written by the processor that read it.
/// If it fails, the runtime is kept from using what it got.
fn made_by<F>(runtime: Runtime, digest: Digest, sending: impl FnOnce(Pieces) -> F) -> Body
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let (pieces, body) = mpsc::channel(AHEAD);
    let sending = sending(pieces.clone());
    let making = stream::once(async move {
        let Err(why) = sending.await else { return };
        tracing::warn!(%digest, why, "broke off an answer");
        // To the end, though the client hangs up.
        let aborting = tokio::spawn(async move { runtime.abort(&digest).await });
        _ = aborting.await;
        // A client that is gone does not mind.
        _ = pieces.send(Err(why)).await;
    });
    let making = making.filter_map(|()| future::ready(None));
    Body::from_stream(stream::select(ReceiverStream::new(body), making))
}

async fn send(
    fetches: &Arc<Fetches>,
    ask: &Ask,
    mut blob: Arc<Blob>,
    range: Range<u64>,
    pieces: &Pieces,
) -> Result<(), String> {
    // What of a chunk is ready and not sent yet.
    let mut rest = range.start..range.start;
    let mut attempts = 0;
    while rest.start < range.end {
        let read = async {
            if rest.is_empty() {
                let chunk = blob.chunk_of(rest.start);
                let asked = Instant::now();
                let ready = blob.ready(chunk).await;
                fetches.metrics().waited(asked.elapsed());
                ready.map_err(|why| io::Error::other(why.to_string()))?;
                rest.end = blob.span(chunk).end.min(range.end);
            }
            fetches.read_some(&blob, rest.clone()).await
        };
        let bytes = match read.await {
            Ok(bytes) => bytes,
            Err(why) if attempts == ATTEMPTS => return Err(why.to_string()),
            Err(_) => {
                attempts += 1;
                rest.end = rest.start;
                let sent = range.start..rest.start;
                match fetches.get(ask).await {
                    Ok(next) if agree(&blob, &next, sent).await? => blob = next,
                    Ok(_) => {}
                    // Our disk fails, or has no room any more.
                    Err(Miss::NoRoom) => {
                        return pass_on(fetches, ask, &blob, rest.start..range.end, pieces).await;
                    }
                    Err(miss) => return Err(miss.to_string()),
                }
                continue;
            }
        };
        let len = bytes.len() as u64;
        rest.start += len;
        if pieces.send(Ok(bytes)).await.is_err() {
            break;
        }
        fetches.metrics().sent(Sink::Client, len);
    }
    Ok(())
}

/// Makes sure that the bytes which were sent from `old` are those of `new`; not so if `new` breaks before it has them.
async fn agree(old: &Blob, new: &Blob, sent: Range<u64>) -> Result<bool, String> {
    if old.size() != new.size() {
        return Err("two sources differ in the length".to_owned());
    }
    if sent.is_empty() {
        return Ok(true);
    }
    for chunk in old.chunk_of(sent.start)..=old.chunk_of(sent.end - 1) {
        if new.ready(chunk).await.is_err() {
            return Ok(false);
        }
        let (was, is) = (
            old.progress().borrow().sums[chunk],
            new.progress().borrow().sums[chunk],
        );
        if was != is {
            return Err("bytes that were sent turn out to be wrong".to_owned());
        }
    }
    Ok(true)
}

/// The bytes `rest` straight from upstream, after all before them were sent from `old`. The whole is asked for, so that it,
/// and what was sent with it, can be verified.
async fn pass_on(
    fetches: &Fetches,
    ask: &Ask,
    old: &Blob,
    rest: Range<u64>,
    pieces: &Pieces,
) -> Result<(), String> {
    let passed = pass_through(fetches, ask).await;
    let (_, passed) = passed.map_err(|miss| miss.to_string())?;
    let mut known = Known::of(old);
    let look = |bytes: &[u8]| known.agrees(bytes);
    passed
        .send(&ask.digest, rest.start, Some(rest.end), pieces, look)
        .await
}

/// The chunks of a blob as they were known, to be compared with those of another copy as it comes.
struct Known<'a> {
    blob: &'a Blob,
    next: usize,
    bytes: Vec<u8>,
}

impl<'a> Known<'a> {
    fn of(blob: &'a Blob) -> Self {
        let bytes = Vec::new();
        Self {
            blob,
            next: 0,
            bytes,
        }
    }

    /// Whether the bytes that follow are those that were known, as far as they were.
    fn agrees(&mut self, bytes: &[u8]) -> bool {
        self.bytes.extend_from_slice(bytes);
        while self.next < self.blob.chunks() {
            let span = self.blob.span(self.next);
            let len = usize::try_from(span.end - span.start).unwrap_or(usize::MAX);
            if self.bytes.len() < len {
                return true;
            }
            let rest = self.bytes.split_off(len);
            let chunk = std::mem::replace(&mut self.bytes, rest);
            let known = self.blob.progress().borrow().sums[self.next];
            if known.is_some_and(|known| known != ChunkSum::of(&chunk)) {
                return false;
            }
            self.next += 1;
        }
        self.bytes.is_empty()
    }
}

/// A blob that can not be kept, straight from upstream: its length, if that is known, and all of its bytes, of which
/// the last ones stay back until the whole is right.
pub async fn pass_through(
    fetches: &Fetches,
    ask: &Ask,
) -> Result<(Option<u64>, PassedThrough), Miss> {
    let flow = Flow::open(fetches.upstream().clone(), ask.clone(), 0, None).await?;
    Ok((flow.size(), PassedThrough(flow)))
}

/// A blob on its way from upstream to one client.
#[derive(Debug)]
pub struct PassedThrough(Flow);

impl PassedThrough {
    /// The bytes from `start` on and before `end`, or to the last.
    pub fn body(self, runtime: Runtime, digest: Digest, start: u64, end: Option<u64>) -> Body {
        let named = digest.clone();
        made_by(runtime, digest, |pieces| async move {
            self.send(&named, start, end, &pieces, |_| true).await
        })
    }

    /// The same into `pieces`, as long as what comes is `right`.
    async fn send(
        mut self,
        digest: &Digest,
        start: u64,
        end: Option<u64>,
        pieces: &Pieces,
        mut right: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), String> {
        let mut sum = digest.sum();
        let mut back = Vec::new();
        let mut at = 0;
        while let Some(bytes) = self.0.next().await.map_err(|miss| miss.to_string())? {
            if !right(&bytes) {
                return Err("bytes that were sent turn out to be wrong".to_owned());
            }
            sum.update(&bytes);
            back.extend_from_slice(clip(&bytes, at, start, end));
            at += bytes.len() as u64;
            let early = back.len().saturating_sub(HELD_BACK);
            let rest = back.split_off(early);
            let piece = Bytes::from(std::mem::replace(&mut back, rest));
            if !piece.is_empty() && pieces.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
        }
        if !sum.is(digest) {
            return Err("upstream sent wrong bytes".to_owned());
        }
        // A client that is gone does not mind.
        let _ = pieces.send(Ok(Bytes::from(back))).await;
        Ok(())
    }
}

/// The part of `bytes`, which begin at byte `at`, that lies between `start` and `end`.
fn clip(bytes: &[u8], at: u64, start: u64, end: Option<u64>) -> &[u8] {
    let len = bytes.len() as u64;
    let from = start.saturating_sub(at).min(len);
    let to = end
        .map_or(len, |end| end.saturating_sub(at).min(len))
        .max(from);
    let index = |at: u64| usize::try_from(at).expect("it lies in a slice");
    &bytes[index(from)..index(to)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob() -> Arc<Blob> {
        let file = tempfile::tempfile().expect("there is room");
        Blob::new(Digest::of(b"layer"), 5, file)
    }

    #[tokio::test]
    async fn a_source_that_breaks_before_it_agrees_is_only_passed_over() {
        let (old, new) = (blob(), blob());
        old.put(0, b"layer").expect("it is right");
        new.break_off("its home lied");

        assert_eq!(agree(&old, &new, 0..5).await, Ok(false));
    }

    #[test]
    fn a_copy_that_differs_in_what_is_known_of_it_does_not_agree() {
        let blob = blob();
        blob.learn(0, ChunkSum::of(b"layer"));

        for (copy, agrees) in [(b"layer", true), (b"lager", false)] {
            let mut known = Known::of(&blob);

            assert!(known.agrees(&copy[..3]));
            assert_eq!(known.agrees(&copy[3..]), agrees);
        }
    }

    #[test]
    fn a_piece_is_clipped_to_what_is_wanted() {
        assert_eq!(clip(b"abcd", 10, 0, None), b"abcd");
        assert_eq!(clip(b"abcd", 10, 11, Some(13)), b"bc");
        assert_eq!(clip(b"abcd", 10, 20, None), b"");
        assert_eq!(clip(b"abcd", 10, 0, Some(5)), b"");
    }
}
