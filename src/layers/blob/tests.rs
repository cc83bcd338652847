//! What a blob promises.

use super::*;

/// What makes four chunks.
fn bytes() -> Vec<u8> {
    (0..=250).cycle().take(390_005).collect()
}

fn blob(digest: Digest, size: usize) -> Arc<Blob> {
    Blob::new(
        digest,
        size as u64,
        tempfile::tempfile().expect("a temporary file"),
    )
}

fn piece(bytes: &[u8], at: usize) -> &[u8] {
    let Range { start, end } = Layout::of(bytes.len() as u64).span(at);
    &bytes[whole_number(start)..whole_number(end)]
}

#[tokio::test]
async fn chunks_in_any_order_make_the_blob() {
    let bytes = bytes();
    let blob = blob(Digest::of(&bytes), bytes.len());

    for at in [3, 1, 0, 2] {
        blob.put(at, piece(&bytes, at)).expect("it is right");
    }

    blob.whole().await.expect("all chunks are here");
    assert_eq!(
        blob.read(0..bytes.len() as u64).expect("it is stored"),
        bytes
    );
}

#[tokio::test]
async fn the_last_chunk_stays_back_until_the_whole_is_right() {
    let bytes = bytes();
    let blob = blob(Digest::of(b"another blob"), bytes.len());

    for at in [3, 0, 1] {
        blob.put(at, piece(&bytes, at))
            .expect("nothing is known of it");
    }
    blob.ready(0).await.expect("a chunk before the last");
    let refused = blob.put(2, piece(&bytes, 2));
    blob.break_off("it is wrong");

    assert!(matches!(refused, Err(Refused::NotTheBlob(_))));
    assert!(blob.ready(3).await.is_err());
}

#[test]
fn a_flipped_bit_is_refused_and_the_right_chunk_taken_after_it() {
    let bytes = bytes();
    let blob = blob(Digest::of(&bytes), bytes.len());
    blob.learn(1, ChunkSum::of(piece(&bytes, 1)));
    let mut flipped = piece(&bytes, 1).to_vec();
    flipped[77] ^= 1;

    let refused = blob.put(1, &flipped);

    assert!(matches!(refused, Err(Refused::Wrong(1))));
    assert!(!blob.progress().borrow().have.has(1));
    blob.put(1, piece(&bytes, 1)).expect("it is right");
}

#[test]
fn a_write_behind_our_back_is_seen() {
    let bytes = bytes();
    let blob = blob(Digest::of(&bytes), bytes.len());
    (0..4).for_each(|at| blob.put(at, piece(&bytes, at)).expect("it is right"));
    blob.seal().expect("it is a file");
    assert!(blob.untouched());

    blob.file().write_all_at(b"!", 7).expect("it is a file");
    blob.file().set_len(1 << 20).expect("it is a file");

    assert!(!blob.untouched());
}

#[tokio::test]
async fn an_empty_blob_is_whole_at_once() {
    assert_eq!(blob(Digest::of(b""), 0).standing(), Standing::Whole);
}
