//! Capabilities, parameters, mount options, sources and places that can not be.

use orlop::csi::proto::volume_capability::access_mode::Mode;
use orlop::csi::proto::volume_capability::{AccessType, BlockVolume, MountVolume};
use orlop::csi::proto::{
    ControllerModifyVolumeRequest, CreateSnapshotRequest, CreateVolumeRequest, GetCapacityRequest,
    NodePublishVolumeRequest, NodeStageVolumeRequest, Topology, TopologyRequirement,
    ValidateVolumeCapabilitiesRequest, VolumeCapability, VolumeContentSource,
};
use tonic::Code::{InvalidArgument, NotFound, Ok, ResourceExhausted};

use crate::calls::{self, MIB, text};
use crate::{Case, House, call};

/// Capabilities that no volume can be used by, and a word of why not.
fn impossible() -> Vec<(VolumeCapability, &'static str)> {
    let mount = |fs_type: &str, flags: &[&str]| MountVolume {
        fs_type: fs_type.to_owned(),
        mount_flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
        ..Default::default()
    };
    let mounted = |mount| calls::capability(AccessType::Mount(mount), Mode::SingleNodeWriter);
    let of_mode = |mode| {
        [
            AccessType::Mount(MountVolume::default()),
            AccessType::Block(BlockVolume {}),
        ]
        .map(|access| calls::capability(access, mode))
    };
    let mut all = Vec::new();
    for mode in [
        Mode::MultiNodeReaderOnly,
        Mode::MultiNodeSingleWriter,
        Mode::MultiNodeMultiWriter,
    ] {
        all.extend(of_mode(mode).map(|one| (one, "use ReadWriteOnce or ReadWriteOncePod")));
    }
    all.extend(of_mode(Mode::Unknown).map(|one| (one, "access_mode is missing")));
    let mut unheard = calls::mounted();
    unheard.access_mode.as_mut().expect("it has one").mode = 4711;
    let group = MountVolume {
        volume_mount_group: "1000".into(),
        ..Default::default()
    };
    all.extend([
        (unheard, "access_mode is missing"),
        (
            VolumeCapability {
                access_mode: None,
                ..calls::mounted()
            },
            "access_mode is missing",
        ),
        (
            VolumeCapability {
                access_type: None,
                ..calls::mounted()
            },
            "say mount or block",
        ),
        (mounted(group), "volume_mount_group is not offered"),
    ]);
    for fs_type in [
        "ntfs",
        "EXT4",
        "ext4 ",
        "../ext4",
        "-t",
        "ext4\0",
        "тфс",
        &"x".repeat(1 << 20),
    ] {
        all.push((mounted(mount(fs_type, &[])), "use ext4, xfs or btrfs"));
    }
    for flag in [
        "bind",
        "rbind",
        "move",
        "remount",
        "remount,bind,ro",
        "shared",
        "rshared",
        "loop",
        "loop=/dev/sda",
        "subvol=/",
        "subvolid=5",
        "source=/dev/vda",
        "logdev=/dev/vda",
        "journal_path=/dev/vda",
        "errors=panic",
        "x-systemd.automount",
        "X-mount.mkdir",
        "offset=0",
        "helper=x",
        "",
        "ro,,rw",
        "=",
        "a\nb",
        "a\0b",
        "nosuid=1",
        &"x".repeat(1 << 20),
    ] {
        all.push((mounted(mount("", &[flag])), "mount option"));
    }
    all
}

#[tokio::test]
async fn a_use_that_can_not_be_is_refused() {
    let Some(house) = House::new().await else {
        return;
    };
    let mut cases = Vec::new();

    for (capability, word) in impossible() {
        let create = CreateVolumeRequest {
            volume_capabilities: vec![capability.clone()],
            ..calls::volume("new", MIB)
        };
        let second = CreateVolumeRequest {
            volume_capabilities: vec![calls::mounted(), capability.clone()],
            ..calls::volume("new", MIB)
        };
        let room = GetCapacityRequest {
            volume_capabilities: vec![capability.clone()],
            ..Default::default()
        };
        let stage = NodeStageVolumeRequest {
            volume_id: house.image.clone(),
            staging_target_path: text(&house.at.join("elsewhere")),
            volume_capability: Some(capability.clone()),
            ..Default::default()
        };
        let publish = NodePublishVolumeRequest {
            volume_capability: Some(capability.clone()),
            ..calls::publication(&house.tree, &house.staged, &house.at.join("elsewhere"))
        };
        // To say that it can not be is the answer here, and no error.
        let validate = ValidateVolumeCapabilitiesRequest {
            volume_id: house.tree.clone(),
            volume_capabilities: vec![capability],
            ..Default::default()
        };
        cases.extend([
            call!(house, controller.create_volume(create)).is(InvalidArgument, word),
            call!(house, controller.create_volume(second)).is(InvalidArgument, word),
            call!(house, controller.get_capacity(room)).is(InvalidArgument, word),
            call!(house, node.node_stage_volume(stage)).is(InvalidArgument, word),
            call!(house, node.node_publish_volume(publish)).is(InvalidArgument, word),
            call!(house, controller.validate_volume_capabilities(validate)),
        ]);
    }

    house.answers(cases).await;
}

#[tokio::test]
async fn a_use_that_is_not_this_volumes_is_refused() {
    let Some(house) = House::new().await else {
        return;
    };
    let of = |fs_type: &str, flag: Option<&str>| {
        let mount = MountVolume {
            fs_type: fs_type.to_owned(),
            mount_flags: flag.map(str::to_owned).into_iter().collect(),
            ..Default::default()
        };
        calls::capability(AccessType::Mount(mount), Mode::SingleNodeWriter)
    };
    let elsewhere = house.at.join("elsewhere");
    let stage = |id: &String, capability| NodeStageVolumeRequest {
        volume_id: id.clone(),
        staging_target_path: text(&elsewhere),
        volume_capability: Some(capability),
        ..Default::default()
    };
    let create = |volume_capabilities| CreateVolumeRequest {
        volume_capabilities,
        ..calls::volume("new", MIB)
    };
    let without = NodePublishVolumeRequest {
        volume_capability: None,
        ..calls::publication(&house.tree, &house.staged, &elsewhere)
    };
    let validate = ValidateVolumeCapabilitiesRequest {
        volume_id: house.tree.clone(),
        ..Default::default()
    };

    house
        .answers(vec![
            call!(
                house,
                node.node_stage_volume(stage(&house.tree, calls::block()))
            )
            .is(InvalidArgument, "is a directory"),
            call!(
                house,
                node.node_stage_volume(stage(&house.device, calls::mounted()))
            )
            .is(InvalidArgument, "is a block device"),
            call!(
                house,
                node.node_stage_volume(stage(&house.image, of("xfs", None)))
            )
            .is(InvalidArgument, "holds ext4, not xfs"),
            call!(
                house,
                node.node_stage_volume(stage(&house.tree, of("", Some("data=journal"))))
            )
            .is(InvalidArgument, "use `layout: image`"),
            call!(
                house,
                node.node_stage_volume(NodeStageVolumeRequest {
                    volume_capability: None,
                    ..stage(&house.tree, calls::block())
                })
            )
            .is(InvalidArgument, "volume_capability is missing"),
            call!(house, node.node_publish_volume(without))
                .is(InvalidArgument, "volume_capability is missing"),
            call!(house, controller.create_volume(create(vec![])))
                .is(InvalidArgument, "volume_capabilities are missing"),
            call!(house, controller.validate_volume_capabilities(validate))
                .is(InvalidArgument, "volume_capabilities are missing"),
            call!(
                house,
                controller.create_volume(create(vec![calls::mounted(), calls::block()]))
            )
            .is(InvalidArgument, "contradict each other"),
            call!(
                house,
                controller.create_volume(create(vec![of("xfs", None), of("ext4", None)]))
            )
            .is(InvalidArgument, "contradict each other"),
        ])
        .await;
}

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
