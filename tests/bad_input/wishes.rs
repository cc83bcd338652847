//! What no class, claim or pod can have: parameters, sources, other nodes.

use orlop::csi::proto::{
    ControllerModifyVolumeRequest, CreateSnapshotRequest, CreateVolumeRequest, GetCapacityRequest,
    Topology, TopologyRequirement, VolumeContentSource,
};
use tonic::Code::{InvalidArgument, NotFound, Ok, ResourceExhausted};

use crate::calls::{self, MIB};
use crate::{Case, House, call};

#[tokio::test]
async fn a_parameter_that_is_none_is_named() {
    let Some(house) = House::new().await else {
        return;
    };
    let mut cases: Vec<Case> = Vec::new();

    for (key, value, word) in [
        ("laoyut", "tree", "laoyut"),
        ("", "x", "unknown field"),
        ("fsType", "ext4", "fsType"),
        ("layout", "wood", "wood"),
        ("layout", "", "one of `tree`, `image`, `device`"),
        ("layout", "device", "no devices of its own"),
        ("requireQuota", "yes", "yes"),
        ("requireQuota", "true", "`layout: image`"),
        ("pool", "../etc", "../etc"),
        ("pool", "default\0", "pool name"),
        ("pool", "none", "there is no pool none"),
        ("size", "-1", "is not a size"),
        (
            "csi.storage.k8s.io/fstype",
            "ntfs",
            "use ext4, xfs or btrfs",
        ),
    ] {
        let parameters = std::collections::BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let create = CreateVolumeRequest {
            parameters: parameters.clone(),
            ..calls::volume("new", MIB)
        };
        let mut inline = calls::publication("inline", &house.staged, &house.at.join("inline"));
        inline.volume_context = parameters.clone();
        inline
            .volume_context
            .insert("csi.storage.k8s.io/ephemeral".into(), "true".into());
        let room = GetCapacityRequest {
            parameters,
            ..Default::default()
        };
        cases.extend([
            call!(house, controller.create_volume(create)).is(InvalidArgument, word),
            call!(house, controller.get_capacity(room)).is(InvalidArgument, word),
            call!(house, node.node_publish_volume(inline)).is(InvalidArgument, word),
        ]);
    }
    let pair = |key: &str| [(key.to_owned(), "1".to_owned())].into();
    let mutable = CreateVolumeRequest {
        mutable_parameters: pair("iops"),
        ..calls::volume("new", MIB)
    };
    let sized = CreateVolumeRequest {
        parameters: pair("size"),
        ..calls::volume("new", MIB)
    };
    let snapshot = CreateSnapshotRequest {
        name: "new".into(),
        source_volume_id: house.tree.clone(),
        parameters: pair("speed"),
        ..Default::default()
    };
    let modified = |id: &str| ControllerModifyVolumeRequest {
        volume_id: id.into(),
        mutable_parameters: pair("iops"),
        ..Default::default()
    };
    cases.extend([
        call!(house, controller.create_volume(mutable)).is(InvalidArgument, "iops"),
        call!(
            house,
            controller.controller_modify_volume(modified(&house.tree))
        )
        .is(InvalidArgument, "can be changed: nothing"),
        call!(
            house,
            controller.controller_modify_volume(modified("default/none"))
        )
        .is(NotFound, "default/none"),
        call!(house, controller.create_volume(sized))
            .is(InvalidArgument, "a claim asks for its storage"),
        call!(house, controller.create_snapshot(snapshot)).is(InvalidArgument, "speed"),
    ]);

    house.answers(cases).await;
}

#[tokio::test]
async fn a_source_of_another_kind_is_refused() {
    let Some(house) = House::new().await else {
        return;
    };
    let from = |id: &String, request| CreateVolumeRequest {
        volume_content_source: Some(calls::of_volume(id)),
        ..request
    };
    let restored = |request| CreateVolumeRequest {
        volume_content_source: Some(calls::of_snapshot(&house.snapshot)),
        ..request
    };
    let empty = CreateVolumeRequest {
        volume_content_source: Some(VolumeContentSource { r#type: None }),
        ..calls::volume("new", MIB)
    };

    house
        .answers(vec![
            call!(house, controller.create_volume(empty))
                .is(InvalidArgument, "name a volume or a snapshot"),
            call!(
                house,
                controller.create_volume(from(&house.tree, calls::device("new", 16 * MIB)))
            )
            .is(InvalidArgument, "another access type"),
            call!(
                house,
                controller.create_volume(from(&house.device, calls::volume("new", 16 * MIB)))
            )
            .is(InvalidArgument, "another access type"),
            call!(
                house,
                controller.create_volume(from(&house.tree, calls::image("new", 16 * MIB, "ext4")))
            )
            .is(InvalidArgument, "another layout"),
            call!(
                house,
                controller.create_volume(from(&house.image, calls::image("new", 16 * MIB, "xfs")))
            )
            .is(InvalidArgument, "ask for ext4"),
            call!(
                house,
                controller.create_volume(restored(calls::device("new", 16 * MIB)))
            )
            .is(InvalidArgument, "another access type"),
            call!(
                house,
                controller.create_volume(restored(calls::image("new", 16 * MIB, "ext4")))
            )
            .is(InvalidArgument, "another layout"),
        ])
        .await;
}

#[tokio::test]
async fn what_must_be_on_another_node_is_sent_there() {
    let Some(house) = House::new().await else {
        return;
    };
    let place = |key: &str, value: &str| Topology {
        segments: [(key.to_owned(), value.to_owned())].into(),
    };
    let mut cases = Vec::new();

    for elsewhere in [
        place("topology.orlop.dev/node", "there"),
        place("topology.orlop.dev/node", ""),
        place("topology.kubernetes.io/zone", "here"),
        Topology {
            segments: ["topology.orlop.dev/node", "zone"]
                .map(|key| (key.to_owned(), "here".to_owned()))
                .into(),
        },
    ] {
        let only = TopologyRequirement {
            requisite: vec![elsewhere.clone()],
            preferred: vec![elsewhere.clone()],
        };
        let create = CreateVolumeRequest {
            accessibility_requirements: Some(only.clone()),
            ..calls::volume("new", MIB)
        };
        let snapshot = CreateSnapshotRequest {
            name: "new".into(),
            source_volume_id: house.tree.clone(),
            accessibility_requirements: Some(only),
            ..Default::default()
        };
        let room = GetCapacityRequest {
            accessible_topology: Some(elsewhere),
            ..Default::default()
        };
        cases.extend([
            call!(house, controller.create_volume(create)).is(ResourceExhausted, "on node here"),
            call!(house, controller.create_snapshot(snapshot))
                .is(ResourceExhausted, "on node here"),
            call!(house, controller.get_capacity(room)).is(Ok, ""),
        ]);
    }

    house.answers(cases).await;
}
