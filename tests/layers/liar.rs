//! A node that lies: everything that it serves to its peers passes through a proxy which changes bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use orlop::layers::blob::layout::Layout;
use orlop::layers::image::digest::ChunkSum;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::cache::{Cache, Doors, client, eventually};
use crate::clients::{Containerd, image};
use crate::cluster::Cluster;
use crate::noise::noise;
use crate::upstream::Upstream;

const MIB: usize = 1 << 20;

/// What is changed on the way out.
#[derive(Clone)]
struct Lies {
    inner: SocketAddr,
    told: Arc<Mutex<Vec<Lie>>>,
    client: reqwest::Client,
}

/// One chunk with one wrong bit, and perhaps sums that vouch for it.
#[derive(Clone)]
struct Lie {
    chunk: usize,
    sums: Option<(String, String)>,
}

/// Four nodes of which the last one lies, and what it lies about.
async fn cluster_with_a_liar(upstream: &Upstream) -> (Cluster, Arc<Mutex<Vec<Lie>>>) {
    let cluster = Cluster::of(upstream, 3).await;
    add_a_liar(cluster, upstream).await
}

/// One node more, which lies.
async fn add_a_liar(mut cluster: Cluster, upstream: &Upstream) -> (Cluster, Arc<Mutex<Vec<Lie>>>) {
    let (front, inner) = (Doors::new(), Doors::new());
    let lies = Lies {
        inner: inner.address(),
        told: Arc::default(),
        client: client(),
    };
    let told = lies.told.clone();
    front.chunks.set_nonblocking(true).expect("it is a socket");
    let listener = tokio::net::TcpListener::from_std(front.chunks).expect("it is a socket");
    let router = Router::new().fallback(relay).with_state(lies);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let doors = Doors {
        chunks: inner.chunks,
        gossip: front.gossip,
    };
    cluster.add(upstream, "", doors).await;
    cluster.meet().await;
    (cluster, told)
}

async fn relay(State(lies): State<Lies>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let url = format!("http://{}{}", lies.inner, parts.uri);
    let body = to_bytes(body, usize::MAX).await.expect("it is small");
    let sent = lies.client.request(parts.method, url).body(body).send();
    let Ok(mut answer) = sent.await else {
        return Response::builder()
            .status(502)
            .body(Body::empty())
            .expect("well formed");
    };
    let told = lies.told.lock().clone();
    let mut response = Response::builder().status(answer.status());
    let chunk = answer.headers().get("orlop-chunk");
    let chunk: Option<usize> = chunk.and_then(|at| at.to_str().ok()?.parse().ok());
    if let Some(chunk) = chunk {
        let sum = answer
            .headers()
            .get("orlop-sum")
            .and_then(|sum| sum.to_str().ok());
        let mut sum = sum.unwrap_or_default().to_owned();
        let mut bytes = answer.bytes().await.expect("it is whole").to_vec();
        for lie in told.iter().filter(|lie| lie.chunk == chunk) {
            bytes[3] ^= 1;
            if let Some((_, wrong)) = &lie.sums {
                wrong.clone_into(&mut sum);
            }
        }
        response = response
            .header("orlop-chunk", chunk)
            .header("orlop-sum", sum);
        return response.body(Body::from(bytes)).expect("well formed");
    }
    let (pieces, body) = mpsc::channel::<Result<Bytes, String>>(4);
    tokio::spawn(async move {
        let mut rest = Vec::new();
        while let Ok(Some(bytes)) = answer.chunk().await {
            rest.extend_from_slice(&bytes);
            let end = rest
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            let tail = rest.split_off(end);
            let mut text =
                String::from_utf8(std::mem::replace(&mut rest, tail)).expect("it is text");
            for (right, wrong) in told.iter().filter_map(|lie| lie.sums.as_ref()) {
                text = text.replace(right, wrong);
            }
            if pieces.send(Ok(text.into())).await.is_err() {
                return;
            }
        }
        let _ = pieces.send(Ok(rest.into())).await;
    });
    response
        .body(Body::from_stream(ReceiverStream::new(body)))
        .expect("well formed")
}

/// A layer whose home is that node, or not, and its path.
fn layer(upstream: &Upstream, cluster: &Cluster, home: usize, at_home: bool) -> (Vec<u8>, String) {
    let layers = (0..100).map(|seed| noise(seed, 4 * MIB));
    let mut found = layers.map(|layer| (upstream.blob("a/b", &layer), layer));
    let found = found.find(|(digest, _)| (cluster.home(digest) == home) == at_home);
    let (digest, layer) = found.expect("one of a hundred");
    (layer, format!("/v2/a/b/blobs/{digest}?ns=registry.test"))
}

fn flipped(layer: &[u8], chunk: usize) -> Lie {
    let span = Layout::of(layer.len() as u64).span(chunk);
    let index = |at: u64| usize::try_from(at).expect("it lies in the layer");
    let right = &layer[index(span.start)..index(span.end)];
    let mut wrong = right.to_vec();
    wrong[3] ^= 1;
    let sums = (
        ChunkSum::of(right).to_string(),
        ChunkSum::of(&wrong).to_string(),
    );
    Lie {
        chunk,
        sums: Some(sums),
    }
}

fn chunks(layer: &[u8]) -> usize {
    Layout::of(layer.len() as u64).count()
}

fn bans(node: &Cache) -> f64 {
    node.metric("layers_bans_total").unwrap_or_default()
}

#[tokio::test]
async fn a_peer_that_sends_wrong_bytes_is_banned_and_nobody_gets_them() {
    let upstream = Upstream::start().await;
    let (cluster, told) = cluster_with_a_liar(&upstream).await;
    let (layer, path) = layer(&upstream, &cluster, 3, false);
    let every = (0..chunks(&layer)).map(|chunk| Lie { chunk, sums: None });
    told.lock().extend(every);

    let seen = cluster.all_get(&[0, 1, 2, 3], &path).await;

    assert!(seen.iter().all(|seen| seen.bytes() == layer));
    cluster.fetched_once(&upstream, &layer);
    assert!(cluster.nodes[..3].iter().any(|node| bans(node) > 0.0));
}

#[tokio::test]
async fn a_home_that_vouches_for_wrong_bytes_is_replaced_inside_the_answer() {
    let upstream = Upstream::start().await;
    let (cluster, told) = cluster_with_a_liar(&upstream).await;
    let (layer, path) = layer(&upstream, &cluster, 3, true);
    let last = chunks(&layer) - 1;
    told.lock().push(flipped(&layer, last));

    let seen = cluster.all_get(&[0, 1, 2], &path).await;

    assert!(seen.iter().all(|seen| seen.bytes() == layer));
    eventually(|| cluster.nodes[..3].iter().any(|node| bans(node) > 0.0)).await;
}

#[tokio::test]
async fn wrong_bytes_that_a_home_vouched_for_never_make_a_whole_answer() {
    let upstream = Upstream::start().await;
    let (cluster, told) = cluster_with_a_liar(&upstream).await;
    let (layer, path) = layer(&upstream, &cluster, 3, true);
    told.lock().push(flipped(&layer, 0));

    let first = cluster.all_get(&[0, 1, 2], &path).await;
    let second = cluster.all_get(&[0, 1, 2], &path).await;

    for seen in first {
        assert!(seen.body.is_err() || seen.status != 200 || seen.bytes() == layer);
    }
    assert!(second.iter().all(|seen| seen.bytes() == layer));
}

#[tokio::test]
async fn containerd_pulls_again_after_a_home_lied_to_it() {
    let Some(containerd) = Containerd::start() else {
        return;
    };
    let upstream = Upstream::start().await;
    let mut cluster = Cluster::of(&upstream, 0).await;
    cluster.containerd = Some(containerd.socket());
    for _ in 0..3 {
        cluster.add(&upstream, "", Doors::new()).await;
    }
    let (cluster, told) = add_a_liar(cluster, &upstream).await;
    let (layer, _) = layer(&upstream, &cluster, 3, true);
    let digest = image(&upstream, std::slice::from_ref(&layer)).remove(0);
    told.lock().push(flipped(&layer, 0));

    // It may have wrong bytes by now, and all that it pulls then goes on from them.
    let _ = containerd.pull(&cluster.nodes[0], &upstream).await;
    let second = containerd.pull(&cluster.nodes[0], &upstream).await;

    second.expect("it is not wedged");
    assert!(containerd.holds(&digest));
}
