//! Growth of a volume in use, asked of the router.

use std::path::Path;

use orlop::csi::proto::{CapacityRange, ControllerExpandVolumeRequest};

use crate::calls::{MIB, image, mounted, publication};
use crate::fleet::{Fleet, client_of, on};
use crate::support::skipped;

#[tokio::test]
async fn a_published_volume_grows_in_the_one_call() {
    if !rustix::process::geteuid().is_root() {
        skipped("growth through the router", "mounting needs root");
        return;
    }
    let fleet = Fleet::of(2);
    let router = fleet.router();
    let mut client = client_of(&router).await;
    let mut wanted = image("data", 300 * MIB, "xfs");
    wanted.accessibility_requirements = on("data", &["b"]).accessibility_requirements;
    let id = client
        .create(wanted)
        .await
        .expect("there is room")
        .volume_id;
    let mut node = fleet.client(1).await;
    let dir = fleet.nodes[1].dir.path();
    let (staging, target) = (dir.join("staging"), dir.join("target"));
    std::fs::create_dir(&staging).expect("it is new");
    node.stage(&id, &staging, mounted())
        .await
        .expect("it is there");
    node.publish(publication(&id, &staging, &target))
        .await
        .expect("it is staged");
    let room = |target: &Path| {
        let has = rustix::fs::statvfs(target).expect("it is mounted");
        has.f_blocks * has.f_frsize
    };
    let before = room(&target);

    let request = ControllerExpandVolumeRequest {
        volume_id: id,
        capacity_range: Some(CapacityRange {
            required_bytes: 400 * MIB,
            limit_bytes: 0,
        }),
        ..Default::default()
    };
    let grown = client.controller.controller_expand_volume(request).await;
    let grown = grown.expect("there is room").into_inner();

    assert_eq!(
        (grown.capacity_bytes, grown.node_expansion_required),
        (400 * MIB, false)
    );
    assert!(
        room(&target) >= before + (90 << 20),
        "the pod sees it at once"
    );
}
