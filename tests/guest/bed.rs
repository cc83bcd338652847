//! A node that serves a pool in a volume group of its own.

use std::fs;
use std::path::PathBuf;

use crate::client::{Client, From};
use crate::node::Node;
use crate::support::home::VolumeGroup;
use crate::support::{run, until};

pub(crate) const MIB: u64 = 1 << 20;

/// A node with one pool in a volume group.
pub(crate) struct Bed {
    pub(crate) client: Client,
    pub(crate) node: Node,
    pub(crate) group: VolumeGroup,
}

impl Bed {
    /// In a thin pool of 256 MiB, with more in the pools file.
    pub(crate) fn thin(more: &str) -> Option<Self> {
        let group = VolumeGroup::new(false)?;
        let pool = [
            "--type=thin-pool",
            "--size=256m",
            "--name=small",
            &group.name,
        ];
        run("lvcreate", ["--quiet", "--yes"].iter().chain(&pool)).expect("there is room");
        let lvm = format!(
            "{{ volumeGroup: {}, thinPool: small, overcommitPercent: 1000{more} }}",
            group.name
        );
        Some(Self::on(group, &lvm))
    }

    pub(crate) fn on(group: VolumeGroup, lvm: &str) -> Self {
        let pools = tempfile::NamedTempFile::new().expect("a file can be made");
        fs::write(&pools, format!("pools: [{{ name: pool, lvm: {lvm} }}]\n"))
            .expect("it can be written");
        let node = Node::start(&["--pools", &pools.path().display().to_string()]);
        Self {
            client: Client::of(&node),
            node,
            group,
        }
    }

    pub(crate) fn create(&self, name: &str, mib: u64) -> String {
        let created = self.client.create(name, mib * MIB, &[], &From::Nothing);
        created.expect("there is room")
    }

    pub(crate) fn publish(&self, id: &str) -> PathBuf {
        let [staging, target] = self.places(id);
        let published = self.client.publish(id, &staging, &target);
        published.expect("it is there");
        target
    }

    pub(crate) fn unpublish(&self, id: &str) {
        let [staging, target] = self.places(id);
        let unpublished = self.client.unpublish(id, &staging, &target);
        unpublished.expect("nobody uses it");
    }

    fn places(&self, id: &str) -> [PathBuf; 2] {
        let name = id.replace('/', "-");
        let dir = self.node.dir.path();
        [dir.join(format!("{name}.staging")), dir.join(name)]
    }

    pub(crate) fn is_told(&self, reason: &str) -> bool {
        let told = || self.client.storage_health().expect("the node answers");
        until(|| told() == [reason])
    }

    pub(crate) fn is_well(&self) -> bool {
        until(|| {
            self.client
                .storage_health()
                .expect("the node answers")
                .is_empty()
        })
    }

    pub(crate) fn lv(&self, name: &str) -> String {
        format!("{}/{name}", self.group.name)
    }
}
