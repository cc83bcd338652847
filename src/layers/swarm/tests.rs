//! What a swarm promises.

use super::giving::LONGEST_LOG;
use super::*;
use crate::layers::blob::Blob;
use crate::layers::image::digest::Digest;

const SIZE: usize = 1 << 20;

/// Two blobs of the same bytes: one to fill, and one that tells its sums.
fn swarm() -> (Arc<Swarm>, Vec<u8>) {
    let bytes: Vec<u8> = (0..=250).cycle().take(SIZE).collect();
    let file = tempfile::tempfile().expect("there is room");
    let blob = Blob::new(Digest::of(&bytes), SIZE as u64, file);
    (Swarm::new(blob), bytes)
}

fn put(swarm: &Swarm, bytes: &[u8], at: usize) {
    let span = swarm.blob.span(at);
    let index = |at: u64| usize::try_from(at).expect("it is small");
    let bytes = &bytes[index(span.start)..index(span.end)];
    swarm.blob.put(at, bytes).expect("it is right");
}

fn filled() -> Arc<Swarm> {
    let (swarm, bytes) = swarm();
    (0..swarm.blob.chunks()).for_each(|at| put(&swarm, &bytes, at));
    swarm
}

/// One that knows all sums, and has nothing.
fn told() -> Arc<Swarm> {
    let (swarm, _) = swarm();
    let offer = filled().offer(peer(0));
    for (at, sum) in offer.sums {
        swarm.blob.learn(at, sum);
    }
    swarm
}

fn peer(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

fn nothing(swarm: &Swarm) -> Bitmap {
    Bitmap::none(swarm.blob.chunks())
}

#[test]
fn everyone_who_has_something_is_asked_for_something() {
    let swarm = told();
    let placed = [(1, 1), (2, 1), (3, 1), (4, 2), (5, 3)];
    swarm.placed(&placed.map(|(chunk, port)| (chunk, peer(port))));

    let picks: Vec<_> = (0..5).filter_map(|_| swarm.pick(true, |_| true)).collect();

    let chunks: Vec<_> = picks.iter().map(|pick| pick.chunk).collect();
    assert_eq!(chunks, [1, 4, 5, 2, 3]);
    assert_eq!(swarm.pick(true, |_| true), None);
}

#[test]
fn of_those_who_have_a_chunk_the_least_asked_is_asked() {
    let swarm = told();
    let both = [1, 2, 3].map(|chunk| [(chunk, peer(1)), (chunk, peer(2))]);
    swarm.placed(&both.concat());

    let picks = [(); 3].map(|()| swarm.pick(true, |_| true).and_then(|pick| pick.holder));

    assert_eq!(picks, [2, 1, 2].map(|port| Some(peer(port))));
    swarm.settled(1, Some(peer(2)));
    swarm.settled(3, Some(peer(2)));
    let next = swarm.pick(true, |_| true).expect("it did not come");
    assert_eq!(next.holder, Some(peer(2)));
}

#[test]
fn who_is_named_instead_is_asked_and_when_all_fail_the_home() {
    let swarm = told();
    swarm.placed(&[(1, peer(1))]);
    let failing = |port, others: &[SocketAddr]| {
        let pick = swarm.pick(true, |_| true).expect("it is missing");
        swarm.settled(pick.chunk, pick.holder);
        swarm.failed(pick.chunk, peer(port), others);
        pick.holder
    };

    assert_eq!(failing(1, &[peer(2)]), Some(peer(1)));
    assert_eq!(failing(2, &[]), Some(peer(2)));

    let last = swarm.pick(true, |_| true).expect("it is missing");
    assert_eq!(last.holder, None);
}

#[test]
fn a_chunk_is_given_once_while_others_come_and_the_first_to_everyone() {
    let (swarm, bytes) = swarm();
    (0..3).for_each(|at| put(&swarm, &bytes, at));
    let none = nothing(&swarm);

    let given = [1, 1, 2, 2, 3].map(|port| swarm.give(peer(port), &none));

    assert_eq!(given, [Some(0), Some(1), Some(0), Some(2), Some(0)]);
    assert_eq!(swarm.give(peer(3), &none), None);
    assert!(!swarm.has_for(peer(3), &none));
    assert!(
        !swarm.has_given_all(peer(3), &none),
        "there is more to come"
    );
}

#[test]
fn what_is_whole_is_given_again_from_the_end() {
    let swarm = filled();
    let count = swarm.blob.chunks();
    let none = nothing(&swarm);
    let all: Vec<_> = (0..count).map(|_| swarm.give(peer(1), &none)).collect();
    assert_eq!(all, (0..count).map(Some).collect::<Vec<_>>());
    assert_eq!(swarm.give(peer(1), &none), None);

    let again = [(); 3].map(|()| swarm.give(peer(2), &none));

    assert_eq!(again, [0, count - 1, count - 2].map(Some));
}

#[test]
fn who_joins_anew_may_have_everything_again() {
    let swarm = filled();
    let none = nothing(&swarm);
    while swarm.give(peer(1), &none).is_some() {}
    assert!(swarm.has_given_all(peer(1), &none));

    swarm.joins(peer(1));

    assert_eq!(swarm.give(peer(1), &none), Some(0));
}

#[test]
fn who_missed_what_was_given_hears_who_has_it() {
    let swarm = filled();
    let none = nothing(&swarm);
    let (early, seen) = swarm.given_since(0);
    assert_eq!((early.len(), seen), (0, 0));
    while swarm.give(peer(1), &none).is_some() {}
    let (first, seen) = swarm.given_since(seen);
    assert_eq!(first.len(), swarm.blob.chunks());

    swarm.give(peer(2), &none);
    let (news, seen) = swarm.given_since(seen);
    assert_eq!(news, [(0, peer(2))]);
    assert_eq!(swarm.given_since(seen), (Vec::new(), seen));

    for _ in 0..LONGEST_LOG + 2 {
        swarm.joins(peer(3));
        swarm.give(peer(3), &none);
    }
    let (all, _) = swarm.given_since(seen);
    assert_eq!(all.len(), swarm.blob.chunks());
    assert!(all.contains(&(0, peer(3))));
}
