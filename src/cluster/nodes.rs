//! The nodes that there are, with one kept connection to each.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, RwLock};
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status, TimeoutExpired};
use tracing::info;

use super::inventory::Inventory;
use super::look::{self, Turns};
use crate::csi::proto::controller_client::ControllerClient;
use crate::telemetry::trace;
use crate::tls::{self, Credentials, Role};
use crate::volume::{Error, Result};

/// Which nodes there are; one without an address is there, but does not serve now.
pub type Members = BTreeMap<String, Option<SocketAddr>>;

/// How many calls a node is asked to do at once; the others wait.
const CALLS: usize = 64;
/// From a node with nothing to the limit of a look, in seconds.
const LOOK_BUCKETS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0];
/// How many nodes an error names: it goes in a header, whose length HTTP/2 limits.
const NAMED: usize = 5;
/// How often a silent connection is tried, and how long an answer may take: a machine that is off says nothing.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(5));

/// All nodes.
#[derive(Debug)]
pub struct Nodes {
    /// Nothing until it is known.
    all: RwLock<Option<BTreeMap<Arc<str>, Arc<Node>>>>,
    /// How long looks took that heard all, in seconds.
    pub(super) looks: Histogram,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    pub(super) name: Arc<str>,
    address: Option<SocketAddr>,
    channel: Channel,
    /// What the last look at it saw.
    pub(super) seen: watch::Sender<Seen>,
    /// Tells that it should be looked at now.
    pub(super) look: Arc<Notify>,
    /// Since when it is being looked at.
    pub(super) looking: Mutex<Option<Instant>>,
    /// The free bytes of its emptiest pool when it was last seen.
    pub(super) room: AtomicU64,
    reserved: AtomicU64,
    _looking: DropGuard,
}

/// What a look at a node saw.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it was begun.
    pub(super) at: Instant,
    pub(super) what: Outcome,
}

/// How a look at a node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not looked at yet.
    New,
    /// It said all that it has.
    Heard,
    /// It did not, for this reason.
    Silent(String),
}

/// Bytes that a node is about to give away; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    node: &'a Node,
    bytes: u64,
}

impl Nodes {
    /// Keeps to what `members` tells, until the token is set.
    pub fn follow(
        mut members: watch::Receiver<Option<Members>>,
        credentials: Credentials,
        inventory: Arc<Inventory>,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let looks = Histogram::new(LOOK_BUCKETS);
        let nodes = Arc::new(Self {
            all: RwLock::default(),
            looks: looks.clone(),
        });
        let (following, turns) = (Arc::clone(&nodes), Arc::new(Turns::new()));
        tokio::spawn(async move {
            loop {
                if let Some(members) = members.borrow_and_update().clone() {
                    following.become_these(members, |name, address| {
                        Node::new(name, address, &credentials, &inventory, &turns, &looks)
                    });
                    following.forget_others(&inventory);
                }
                tokio::select! {
                    changed = members.changed() => if changed.is_err() { break },
                    () = shutdown.cancelled() => break,
                }
            }
            // Who told of the nodes will say nothing new; they stay until the process ends.
            shutdown.cancelled().await;
            *following.all.write() = None;
        });
        nodes
    }

    fn become_these(
        &self,
        members: Members,
        mut new: impl FnMut(Arc<str>, Option<SocketAddr>) -> Arc<Node>,
    ) {
        let mut all = self.all.write();
        let before = all.take().unwrap_or_default();
        let node = |(name, address): (String, Option<SocketAddr>)| {
            let known = before.get(&*name);
            let same = known.filter(|node| node.address == address);
            let node = same.cloned().unwrap_or_else(|| new(name.into(), address));
            (Arc::clone(&node.name), node)
        };
        *all = Some(members.into_iter().map(node).collect());
    }

    fn forget_others(&self, inventory: &Inventory) {
        let all = self.all.read();
        inventory.keep_only(|node| all.as_ref().is_some_and(|all| all.contains_key(node)));
    }

    /// All nodes in the order of their names, if it is known which there are.
    pub fn all(&self) -> Option<Vec<Arc<Node>>> {
        let all = self.all.read();
        Some(all.as_ref()?.values().cloned().collect())
    }

    /// The same.
    ///
    /// # Errors
    /// `Unreachable` when it is not known.
    pub(super) fn known(&self) -> Result<Vec<Arc<Node>>> {
        self.all().ok_or_else(|| {
            Error::Unreachable("which nodes there are is not known yet: ask again".into())
        })
    }

    /// The node of this name.
    ///
    /// # Errors
    /// `Unreachable` when there is none now.
    pub(super) fn named(&self, name: &str) -> Result<Arc<Node>> {
        let all = self.all.read();
        let found = all.as_ref().and_then(|all| all.get(name)).cloned();
        found.ok_or_else(|| Error::Unreachable(format!("node {name} does not serve volumes now")))
    }

    /// Whether some were not looked at yet.
    pub(super) fn some_are_new(&self) -> Result<bool> {
        let new = |node: &Arc<Node>| node.seen.borrow().what == Outcome::New;
        Ok(self.known()?.iter().any(new))
    }

    /// Those that did not say what they have, each with the reason.
    pub(super) fn silent(&self) -> Result<Vec<String>> {
        let why = |node: &Arc<Node>| match &node.seen.borrow().what {
            Outcome::Heard => None,
            Outcome::New => Some(format!("{} was not heard yet", node.name)),
            Outcome::Silent(why) => Some(format!("{}: {why}", node.name)),
        };
        Ok(self.known()?.iter().filter_map(why).collect())
    }
}

impl Node {
    fn new(
        name: Arc<str>,
        address: Option<SocketAddr>,
        credentials: &Credentials,
        inventory: &Arc<Inventory>,
        turns: &Arc<Turns>,
        looks: &Histogram,
    ) -> Arc<Self> {
        let (stop, told) = (CancellationToken::new(), Arc::new(Notify::new()));
        let node = Arc::new(Self {
            channel: channel(&name, address, credentials),
            name,
            address,
            seen: watch::Sender::new(Seen {
                at: Instant::now(),
                what: Outcome::New,
            }),
            look: Arc::clone(&told),
            looking: Mutex::default(),
            room: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            _looking: stop.clone().drop_guard(),
        });
        tokio::spawn(look::again_and_again(
            Arc::downgrade(&node),
            told,
            Arc::clone(inventory),
            Arc::clone(turns),
            looks.clone(),
            stop,
        ));
        info!(node = %node.name, address = address.map(tracing::field::display), "a node is there");
        node
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Passes a call on, with the deadline that its caller gave it. It ends when its caller hangs up.
    ///
    /// # Errors
    /// What the node answered; UNAVAILABLE, naming it, if it did not.
    pub(super) async fn call<Q, A, F>(
        &self,
        request: Request<Q>,
        call: impl FnOnce(ControllerClient<Channel>, Request<Q>) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let (metadata, _, message) = request.into_parts();
        let mut onward = Request::new(message);
        if let Some(limit) = metadata.get("grpc-timeout") {
            onward.metadata_mut().insert("grpc-timeout", limit.clone());
        }
        if let Some(parent) = trace::parent().and_then(|parent| parent.parse().ok()) {
            onward.metadata_mut().insert("traceparent", parent);
        }
        let client = ControllerClient::new(self.channel());
        call(client, onward)
            .await
            .map_err(|status| self.told(status))
    }

    /// What the caller hears of an error: what came over the wire is the node's own word, all else is that it is away.
    pub(super) fn told(&self, status: Status) -> Status {
        let Some(why) = trouble(&status) else {
            return status;
        };
        self.is_silent(why.clone());
        self.look.notify_one();
        Error::Unreachable(format!("node {} can not be reached: {why}", self.name)).into()
    }

    pub(super) fn is_silent(&self, why: String) {
        self.seen
            .send_modify(|seen| seen.what = Outcome::Silent(why));
    }

    /// The free bytes as they were last seen, without those that are being given away.
    pub(super) fn room(&self) -> u64 {
        let room = self.room.load(Ordering::Relaxed);
        room.saturating_sub(self.reserved())
    }

    pub(super) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    pub(super) fn reserve(&self, bytes: u64) -> Reservation<'_> {
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        Reservation { node: self, bytes }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.node.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Nodes and why they can not be asked, for the message of an error: a few, and how many more there are.
pub(super) fn listed(mut away: Vec<String>) -> String {
    let more = away.len().saturating_sub(NAMED);
    away.truncate(NAMED);
    let named = away.join("; ");
    match more {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

/// Why a node could not be asked, if that is what the error says: its deepest cause.
pub(super) fn trouble(status: &Status) -> Option<String> {
    let mut cause = status.source()?;
    loop {
        // The caller's deadline passed; that says nothing of the node.
        if cause.is::<TimeoutExpired>() {
            return None;
        }
        match cause.source() {
            Some(deeper) => cause = deeper,
            None => return Some(cause.to_string()),
        }
    }
}

/// Connects when it is first used, and again after it broke; whoever answers must prove to be that node.
fn channel(name: &Arc<str>, address: Option<SocketAddr>, credentials: &Credentials) -> Channel {
    let expected = Role::Node(name.to_string());
    let config = Arc::new(credentials.client(move |role| *role == expected));
    let connect = move |_: Uri| {
        let config = Arc::clone(&config);
        async move {
            let address = address.ok_or_else(|| io::Error::other("it has no address now"))?;
            tls::connect(address, config).await.map(TokioIo::new)
        }
    };
    Endpoint::from_static("http://node")
        .concurrency_limit(CALLS)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(tower::service_fn(connect))
}
