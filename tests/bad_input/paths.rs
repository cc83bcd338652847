//! Paths that lead elsewhere than they say, or to where no consumer's path may be.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use orlop::csi::proto::{
    NodeExpandVolumeRequest, NodeGetVolumeHealthRequest, NodeGetVolumeStatsRequest,
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, VolumeCapability,
};
use tonic::Code::{FailedPrecondition, Internal, InvalidArgument, NotFound};

use crate::calls::{self, text};
use crate::{Case, House, call, huge};

/// All calls that mount or unmount something at this path.
fn mounting_at(house: &House, path: &str) -> Vec<Case> {
    let stage = |id: &String, capability: VolumeCapability| NodeStageVolumeRequest {
        volume_id: id.clone(),
        staging_target_path: path.to_owned(),
        volume_capability: Some(capability),
        ..Default::default()
    };
    let unstage = NodeUnstageVolumeRequest {
        volume_id: house.tree.clone(),
        staging_target_path: path.to_owned(),
    };
    let mut inline = calls::publication("inline", &house.staged, Path::new(path));
    inline.volume_context = [("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned())].into();
    let unpublish = |id: &str| NodeUnpublishVolumeRequest {
        volume_id: id.to_owned(),
        target_path: path.to_owned(),
    };
    vec![
        call!(
            house,
            node.node_stage_volume(stage(&house.tree, calls::mounted()))
        ),
        call!(
            house,
            node.node_stage_volume(stage(&house.image, calls::mounted()))
        ),
        call!(house, node.node_unstage_volume(unstage)),
        call!(
            house,
            node.node_publish_volume(calls::publication(
                &house.tree,
                &house.staged,
                Path::new(path)
            ))
        ),
        call!(house, node.node_publish_volume(inline)),
        call!(house, node.node_unpublish_volume(unpublish(&house.tree))),
        call!(house, node.node_unpublish_volume(unpublish("default/none"))),
        call!(
            house,
            node.node_unpublish_volume(unpublish("an inline one"))
        ),
    ]
}

/// All calls that ask about what is at this path.
fn asking_at(house: &House, path: &str) -> [Case; 2] {
    let (volume_id, volume_path) = (house.tree.clone(), path.to_owned());
    let stats = NodeGetVolumeStatsRequest {
        volume_id: volume_id.clone(),
        volume_path: volume_path.clone(),
        ..Default::default()
    };
    let expand = NodeExpandVolumeRequest {
        volume_id,
        volume_path,
        ..Default::default()
    };
    [
        call!(house, node.node_get_volume_stats(stats)),
        call!(house, node.node_expand_volume(expand)),
    ]
}

fn all(
    cases: impl IntoIterator<Item = Case>,
    code: tonic::Code,
    word: &'static str,
) -> impl Iterator<Item = Case> {
    cases.into_iter().map(move |case| case.is(code, word))
}

#[tokio::test]
async fn a_path_that_is_no_plain_absolute_one_is_refused() {
    let Some(house) = House::new().await else {
        return;
    };
    let at = text(&house.at);
    let odd = ["some/path", "/", ".", "..", "a/../b", "\n", "*"].map(str::to_owned);
    let within = [
        format!("{at}/../x"),
        format!("{at}/./x"),
        format!("{at}//x"),
        format!("{at}/x/"),
        format!("{at}/.."),
        format!("{at}/x/.."),
    ];
    let mut cases = Vec::new();

    for path in odd.iter().chain(&within) {
        cases.extend(all(
            mounting_at(&house, path),
            InvalidArgument,
            "is not a plain absolute path",
        ));
        cases.extend(all(asking_at(&house, path), NotFound, "does not exist"));
    }
    for path in [format!("{at}/x\0"), format!("/{}", huge()), huge()] {
        cases.extend(all(
            mounting_at(&house, &path),
            InvalidArgument,
            "too long or has a NUL",
        ));
        cases.extend(all(asking_at(&house, &path), NotFound, "does not exist"));
        let health = NodeGetVolumeHealthRequest {
            volume_id: house.tree.clone(),
            volume_publish_path: path,
            ..Default::default()
        };
        cases.push(
            call!(house, node.node_get_volume_health(health))
                .is(InvalidArgument, "too long or has a NUL"),
        );
    }
    cases.extend(all(mounting_at(&house, ""), InvalidArgument, "is missing"));
    cases.extend(all(
        asking_at(&house, ""),
        InvalidArgument,
        "volume_path is missing",
    ));

    house.answers(cases).await;
}

#[tokio::test]
async fn a_name_too_long_for_a_file_is_told() {
    let Some(house) = House::new().await else {
        return;
    };
    let path = text(&house.at.join("x".repeat(300)));

    let cases = mounting_at(&house, &path);

    house
        .answers(all(cases, Internal, "File name too long").collect())
        .await;
}

#[tokio::test]
async fn a_path_through_a_symlink_is_refused_and_the_link_named() {
    let Some(house) = House::new().await else {
        return;
    };
    let real = house.at.join("real");
    fs::create_dir(&real).expect("the directory is new");
    let link = house.at.join("link");
    symlink(&real, &link).expect("the name is free");
    symlink("/nowhere", house.at.join("dangling")).expect("the name is free");
    symlink(&house.pool, house.at.join("into")).expect("the name is free");
    let mut cases = Vec::new();

    for path in [
        "link",
        "link/x",
        "dangling",
        "dangling/x",
        "into/volumes/tree/data",
        "into",
    ] {
        let path = text(&house.at.join(path));
        cases.extend(all(
            mounting_at(&house, &path),
            InvalidArgument,
            "leads through a symlink",
        ));
        cases.extend(all(
            asking_at(&house, &path),
            InvalidArgument,
            "leads through a symlink",
        ));
    }

    house.answers(cases).await;
}

#[tokio::test]
async fn no_consumers_path_is_in_a_pool() {
    let Some(house) = House::new().await else {
        return;
    };
    // An empty directory and an empty file are what an unpublish removes elsewhere.
    fs::write(house.pool.join("volumes/tree/empty"), "").expect("we are root");
    let mut cases = Vec::new();

    for path in [
        "volumes/tree/data",
        "volumes/tree/data/x",
        "volumes/tree/empty",
        "volumes/new",
        "trash",
        "making",
        "lock",
        "x",
        "",
    ] {
        let path = if path.is_empty() {
            house.pool.clone()
        } else {
            house.pool.join(path)
        };
        cases.extend(all(
            mounting_at(&house, &text(&path)),
            InvalidArgument,
            "choose a path outside",
        ));
        cases.extend(all(
            asking_at(&house, &text(&path)),
            NotFound,
            "does not exist",
        ));
    }

    house.answers(cases).await;
}

#[tokio::test]
async fn a_pool_behind_a_symlink_is_known_by_its_real_path() {
    let Some(house) = House::behind_a_symlink().await else {
        return;
    };
    let real = text(&house.pool.join("volumes/tree/data/x"));

    let cases = mounting_at(&house, &real);

    house
        .answers(all(cases, InvalidArgument, "choose a path outside").collect())
        .await;
}

#[tokio::test]
async fn what_has_content_or_no_parent_is_left_alone() {
    let Some(house) = House::new().await else {
        return;
    };
    let at = |path: &str| {
        let path = house.at.join(path);
        fs::create_dir_all(path.parent().expect("it is in one")).expect("we are root");
        path
    };
    let (full, file, orphan) = (at("full/of/things"), at("file"), house.at.join("none/x"));
    fs::write(&full, "things").expect("we are root");
    fs::write(&file, "content").expect("we are root");
    let unpublish = |path: &Path| NodeUnpublishVolumeRequest {
        volume_id: house.tree.clone(),
        target_path: text(path),
    };
    let publish = |path: &Path| calls::publication(&house.tree, &house.staged, path);
    let device = NodePublishVolumeRequest {
        volume_id: house.device.clone(),
        volume_capability: Some(calls::block()),
        ..publish(&house.at.join("device"))
    };

    house
        .answers(vec![
            call!(house, node.node_unpublish_volume(unpublish(&file))).is(Internal, "has content"),
            call!(
                house,
                node.node_unpublish_volume(unpublish(&house.at.join("full")))
            )
            .is(Internal, "has content"),
            call!(house, node.node_publish_volume(publish(&file))).is(Internal, "not a directory"),
            call!(house, node.node_publish_volume(publish(&orphan))).is(Internal, "does not exist"),
            call!(house, node.node_publish_volume(device)).is(FailedPrecondition, "stage it first"),
        ])
        .await;
}
