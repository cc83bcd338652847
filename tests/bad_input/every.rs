//! Every call about one volume or snapshot, by an id.

use orlop::csi::proto::{
    ControllerExpandVolumeRequest, ControllerGetVolumeHealthRequest, ControllerGetVolumeRequest,
    CreateSnapshotRequest, CreateVolumeRequest, DeleteSnapshotRequest, DeleteVolumeRequest,
    ListSnapshotsRequest, NodeExpandVolumeRequest, NodeGetVolumeHealthRequest,
    NodeGetVolumeStatsRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, ValidateVolumeCapabilitiesRequest,
};
use tonic::Code::{InvalidArgument, NotFound};

use crate::calls::{self, MIB, text};
use crate::{Case, House, call};

/// All calls about one existing volume, with this id.
pub(crate) fn about_a_volume(house: &House, id: &str) -> Vec<Case> {
    let volume_id = id.to_owned();
    let path = text(&house.at.join("elsewhere"));
    let range = calls::volume("", MIB).capacity_range;
    let clone = CreateVolumeRequest {
        volume_content_source: Some(calls::of_volume(id)),
        ..calls::volume("clone", MIB)
    };
    let snapshot = CreateSnapshotRequest {
        name: "of-none".into(),
        source_volume_id: volume_id.clone(),
        ..Default::default()
    };
    let stage = NodeStageVolumeRequest {
        volume_id: volume_id.clone(),
        staging_target_path: path.clone(),
        volume_capability: Some(calls::mounted()),
        ..Default::default()
    };
    let validate = ValidateVolumeCapabilitiesRequest {
        volume_id: volume_id.clone(),
        volume_capabilities: vec![calls::mounted()],
        ..Default::default()
    };
    let stats = NodeGetVolumeStatsRequest {
        volume_id: volume_id.clone(),
        volume_path: path.clone(),
        ..Default::default()
    };
    let health = NodeGetVolumeHealthRequest {
        volume_id: volume_id.clone(),
        ..Default::default()
    };
    let expand = ControllerExpandVolumeRequest {
        volume_id: volume_id.clone(),
        capacity_range: range,
        ..Default::default()
    };
    let node_expand = NodeExpandVolumeRequest {
        volume_id: volume_id.clone(),
        volume_path: path.clone(),
        ..Default::default()
    };
    let get_health = ControllerGetVolumeHealthRequest {
        volume_id: volume_id.clone(),
        ..Default::default()
    };
    vec![
        call!(house, controller.create_volume(clone)),
        call!(house, controller.create_snapshot(snapshot)),
        call!(house, controller.validate_volume_capabilities(validate)),
        call!(
            house,
            controller.controller_get_volume(ControllerGetVolumeRequest { volume_id })
        ),
        call!(house, controller.controller_get_volume_health(get_health)),
        call!(house, controller.controller_expand_volume(expand)),
        call!(house, node.node_stage_volume(stage)),
        call!(
            house,
            node.node_publish_volume(calls::publication(
                id,
                &house.staged,
                &house.at.join("elsewhere")
            ))
        ),
        call!(house, node.node_get_volume_stats(stats)),
        call!(house, node.node_expand_volume(node_expand)),
        call!(house, node.node_get_volume_health(health)),
    ]
}

/// All calls that end something about this id, which are answered as if it was ended before.
pub(crate) fn taking_back(house: &House, id: &str) -> Vec<Case> {
    let id = id.to_owned();
    let path = text(&house.at.join("elsewhere"));
    let delete = DeleteVolumeRequest {
        volume_id: id.clone(),
        ..Default::default()
    };
    let forget = DeleteSnapshotRequest {
        snapshot_id: id.clone(),
        ..Default::default()
    };
    let of_volume = ListSnapshotsRequest {
        source_volume_id: id.clone(),
        ..Default::default()
    };
    let only = ListSnapshotsRequest {
        snapshot_id: id.clone(),
        ..Default::default()
    };
    let unpublish = NodeUnpublishVolumeRequest {
        volume_id: id.clone(),
        target_path: path.clone(),
    };
    let unpublish = call!(house, node.node_unpublish_volume(unpublish));
    let unstage = NodeUnstageVolumeRequest {
        volume_id: id.clone(),
        staging_target_path: path,
    };
    let unstage = call!(house, node.node_unstage_volume(unstage));
    vec![
        call!(house, controller.delete_volume(delete)),
        call!(house, controller.delete_snapshot(forget)),
        call!(house, controller.list_snapshots(of_volume)),
        call!(house, controller.list_snapshots(only)),
        // An inline volume has whatever name the kubelet gave it, but none that CSI does not allow.
        match &*id {
            _ if id.len() > 128 => unpublish.is(InvalidArgument, "at most 128"),
            _ if id.contains(['\0', '\n']) => unpublish.is(InvalidArgument, "control characters"),
            _ => unpublish,
        },
        match &*id {
            "default/none" | "nowhere/none" => unstage,
            _ => unstage.is(NotFound, "does not exist"),
        },
    ]
}
