//! The router: one CSI controller for all nodes, which passes each call on to the node that has, or should have, the volume.
//!
//! It keeps nothing: who is there is told to it, by [`kubernetes`] or by a person, and kept in [`nodes`]; [`inventory`]
//! remembers which node has what, and `look` asks each node for it again and again. `controller` finds the node of a call,
//! `placement` one for a new volume, `listing` and `inspection` ask all.
//! In a Kubernetes, one of several routers also looks whether its records are true: [`reconcile`].
//! What a request means is the node's to say; the router reads only ids, names and topology.

mod capacity;
mod controller;
mod figures;
mod inspection;
pub mod inventory;
pub mod kubernetes;
mod listing;
mod look;
mod lost;
pub mod nodes;
mod placement;
pub mod reconcile;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use self::inventory::{Inventory, Key};
use self::kubernetes::Records;
use self::nodes::{Members, Node, Nodes, Outcome};
use crate::csi::Readiness;
use crate::tls::Credentials;
use crate::volume::{Error, Result};

/// For so long after its last creation, a router can be sure that it alone creates: the sidecars, which elect one leader,
/// can not change it sooner. One that was quiet for longer looks at all nodes before it takes a name for free.
const ALONE_FOR: Duration = Duration::from_secs(15);

/// The channel to a node, or why it does not answer.
pub type Reached = Result<Channel, String>;

/// Serves `csi.v1.Controller` for all nodes; clones share what they know.
#[derive(Clone, Debug)]
pub struct Router {
    nodes: Arc<Nodes>,
    inventory: Arc<Inventory>,
    last_creation: Arc<Mutex<Option<Instant>>>,
    /// Where volumes were, if a Kubernetes says so.
    records: Option<Records>,
}

impl Router {
    /// A router to those of whom `members` tells, until the token is set. Must be called inside a runtime.
    pub fn new(
        members: watch::Receiver<Option<Members>>,
        records: Option<Records>,
        credentials: Credentials,
        shutdown: CancellationToken,
    ) -> Self {
        let inventory = Arc::new(Inventory::default());
        let nodes = Nodes::follow(members, credentials, Arc::clone(&inventory), shutdown);
        Self {
            nodes,
            inventory,
            last_creation: Arc::default(),
            records,
        }
    }

    /// Whether it is known which nodes there are.
    pub fn knows_the_nodes(&self) -> bool {
        self.nodes.all().is_some()
    }

    /// Each node by its name, with the channel to it or why it does not answer: for who can do without some of them.
    ///
    /// # Errors
    /// `Unreachable` while it is not known which nodes there are.
    pub fn each_node(&self) -> Result<Vec<(Arc<str>, Reached)>> {
        let by_name = |node: Arc<Node>| {
            let channel = match &node.seen.borrow().what {
                Outcome::Silent(why) => Err(why.clone()),
                Outcome::New | Outcome::Heard => Ok(node.channel()),
            };
            (Arc::clone(&node.name), channel)
        };
        Ok(self.nodes.known()?.into_iter().map(by_name).collect())
    }

    /// The node that has this volume or snapshot, if one has.
    ///
    /// # Errors
    /// `Unreachable` while a node that may have it was not heard; `InUse` if several have one of this id.
    async fn holder(&self, key: &Key) -> Result<Option<Arc<Node>>> {
        if let Some(node) = self.known_holder(key)? {
            return Ok(Some(node));
        }
        // Another router, or a person on a node, may have made it since.
        self.nodes.look_again().await?;
        if let Some(node) = self.known_holder(key)? {
            return Ok(Some(node));
        }
        let silent = self.nodes.silent()?;
        if silent.is_empty() {
            return Ok(None);
        }
        Err(Error::Unreachable(format!(
            "{key} may be on a node that can not be asked now: {}",
            nodes::listed(silent)
        )))
    }

    /// The same, of what must exist.
    async fn owner(&self, key: &Key) -> Result<Arc<Node>> {
        let holder = self.holder(key).await?;
        holder.ok_or_else(|| Error::NotFound(key.to_string()))
    }

    /// Any node that answers, to say what every node says.
    fn any_node(&self) -> Result<Arc<Node>> {
        let all = self.nodes.known()?;
        let heard = all
            .into_iter()
            .find(|node| node.seen.borrow().what == Outcome::Heard);
        heard.ok_or_else(|| Error::Unreachable("no node can be asked now".into()))
    }

    fn known_holder(&self, key: &Key) -> Result<Option<Arc<Node>>> {
        let holders = self.inventory.holders(key);
        match &*holders {
            [] => Ok(None),
            [one] => self.nodes.named(one).map(Some),
            several => Err(Error::InUse(format!(
                "{key} is on several nodes, {}: remove it from all but one of them, by `orlop` there",
                several.join(", ")
            ))),
        }
    }

    /// Makes sure that no name is taken for free that another router has just given away.
    async fn mind_others(&self) -> Result<()> {
        let last = self.last_creation.lock().replace(Instant::now());
        if last.is_none_or(|last| last.elapsed() > ALONE_FOR) || self.nodes.some_are_new()? {
            self.nodes.look_again().await?;
        }
        Ok(())
    }
}

impl Readiness for Router {
    async fn is_ready(&self) -> bool {
        self.knows_the_nodes()
    }
}
