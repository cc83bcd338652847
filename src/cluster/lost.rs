//! What is left of a volume that no node is known to have: a node that must be waited for, or nothing.

use std::slice;
use std::sync::Arc;

use tracing::warn;

use super::Router;
use super::inventory::Key;
use super::kubernetes::Records;
use super::nodes::{Node, Nodes, Outcome};
use crate::volume::{Error, Result, VolumeId};

impl Router {
    /// The node that has to delete the volume; nothing if it is nowhere.
    ///
    /// Of a volume that was not found, its record says on which node it was, and that node alone is asked. Without a record
    /// all nodes must have said that they do not have it.
    ///
    /// # Errors
    /// `Unreachable` while a node that may have it was not heard, or is gone and not to be forgotten.
    pub(super) async fn deleter(&self, id: &VolumeId) -> Result<Option<Arc<Node>>> {
        let key = Key::Volume(id.clone());
        let Some(records) = &self.records else {
            return self.holder(&key).await;
        };
        if let Some(node) = self.known_holder(&key)? {
            return Ok(Some(node));
        }
        let Some(name) = records.node_of(id).await? else {
            return self.holder(&key).await;
        };
        let mut all = self.nodes.known()?.into_iter();
        let Some(node) = all.find(|node| *node.name == *name) else {
            return self.forget(records, id, &name).await.map(|()| None);
        };
        Nodes::look_at(slice::from_ref(&node)).await?;
        if let Some(node) = self.known_holder(&key)? {
            return Ok(Some(node));
        }
        let seen = node.seen.borrow().what.clone();
        match seen {
            Outcome::Heard => Ok(None),
            Outcome::New => Err(Error::Unreachable(format!(
                "{key} was on {name}, which was not heard yet"
            ))),
            Outcome::Silent(why) => Err(Error::Unreachable(format!(
                "{key} was on {name}, which can not be asked now: {why}"
            ))),
        }
    }

    /// Lets the volume go with its node, if that was allowed and the node is away for long enough.
    async fn forget(&self, records: &Records, id: &VolumeId, node: &str) -> Result<()> {
        if !records.is_forgotten(node).await? {
            return Err(Error::Unreachable(format!(
                "volume {id} was on node {node}, which is not there: if it will never come back, let the controller \
                 --forget-lost-nodes-after a time, or remove the finalizers of the PersistentVolume"
            )));
        }
        warn!(volume.id = %id, node, "a volume is gone with its node");
        records.tell_forgotten(id, node).await;
        Ok(())
    }
}
