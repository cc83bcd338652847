//! Of whom the status page tells: one node, or all of a cluster.

use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::layers::Caches;
use super::{Orphan, Shown, shown};
use crate::cli::leftovers;
use crate::client::Connection;
use crate::cluster::Router;
use crate::cluster::reconcile::Findings;
use crate::csi::proto::inspection::ListOrphansRequest;

/// How long a node of a cluster may take to tell all that it has.
const LIMIT: Duration = Duration::from_secs(10);

/// Who is asked, again and again.
pub(in crate::cli) struct Watched {
    pub(in crate::cli) of: Of,
    pub(in crate::cli) caches: Caches,
}

/// Who tells of volumes.
pub(in crate::cli) enum Of {
    /// A node by its socket, or a controller as its other clients see it.
    Node(Connection),
    /// Each node by the router's own connection to it: one that does not answer hides no other.
    Cluster(Box<Router>, Findings),
}

impl Watched {
    /// How long nothing is asked in between: a cluster has more to tell.
    pub(super) fn pause(&self) -> Duration {
        match self.of {
            Of::Node(_) => Duration::from_secs(2),
            Of::Cluster(..) => Duration::from_secs(5),
        }
    }

    /// All that there is now.
    pub(super) async fn look(&self) -> Result<Shown> {
        let mut shown = match &self.of {
            Of::Node(node) => Shown {
                orphans: left_over(node).await?,
                ..shown(node).await?
            },
            Of::Cluster(router, findings) => {
                let orphans = findings.known_orphans();
                Shown {
                    orphans: orphans.map(|all| all.into_iter().map(Orphan::of).collect()),
                    ..all_nodes(router).await?
                }
            }
        };
        shown.layers = self.caches.look().await;
        Ok(shown)
    }
}

/// What each node tells of itself, and who does not.
async fn all_nodes(router: &Router) -> Result<Shown> {
    let (mut all, mut asking) = (Shown::default(), JoinSet::new());
    for (name, channel) in router.each_node().map_err(Status::from)? {
        match channel {
            Ok(channel) => {
                asking.spawn(async move {
                    let node = Connection::over(channel);
                    (name, tokio::time::timeout(LIMIT, shown(&node)).await)
                });
            }
            Err(why) => all.silent.push(format!("{name}: {why}")),
        }
    }
    for (name, told) in asking.join_all().await {
        match told {
            Ok(Ok(told)) => all.add(told),
            Ok(Err(error)) => all.silent.push(format!("{name}: {}", why(&error))),
            Err(_) => all
                .silent
                .push(format!("{name}: it takes too long to tell what it has")),
        }
    }
    all.sort();
    Ok(all)
}

fn why(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => format!("{error:#}"),
    }
}

/// What is left over on a node; of what serves as a controller, the orphans of its cluster, if it leads.
async fn left_over(node: &Connection) -> Result<Option<Vec<Orphan>>> {
    match leftovers::list(node).await {
        Ok(all) => Ok(Some(all.into_iter().map(Orphan::left).collect())),
        Err(error) => match error.downcast_ref::<Status>().map(Status::code) {
            Some(Code::Unimplemented) => {
                let told = node.oversight().list_orphans(ListOrphansRequest {}).await;
                let told = told.ok().map(|told| told.into_inner().orphans);
                Ok(told.map(|all| all.into_iter().map(Orphan::of).collect()))
            }
            _ => Err(error),
        },
    }
}
