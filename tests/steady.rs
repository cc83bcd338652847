//! What must stay as it is, however often: mounts, open files, threads and memory.

#[path = "support/calls.rs"]
mod calls;
#[path = "support/node.rs"]
mod node;
mod support;

use std::fs;
use std::path::PathBuf;

use orlop::csi::proto::NodeGetVolumeStatsRequest;
use orlop::host::gate::Gate;
use orlop::host::mount::{Entry, Mounts};
use orlop::host::namespace::in_own_mounts;

use calls::{Client, MIB, text};
use node::Node;
use support::{skipped, tell};

/// A tree, an image and a device, staged and published.
struct Household {
    node: Node,
    volumes: Vec<Kept>,
}

struct Kept {
    id: String,
    staging: PathBuf,
    target: PathBuf,
    block: bool,
}

impl Household {
    async fn new() -> Self {
        let node = Node::start(&["--log", "warn"]);
        let mut client = Client::new(node.channel().await);
        let wanted = [
            calls::volume("tree", MIB),
            calls::image("image", 16 * MIB, "ext4"),
            calls::device("device", 16 * MIB),
        ];
        let mut volumes = Vec::new();
        for (number, request) in wanted.into_iter().enumerate() {
            let at = node.dir.path().join(number.to_string());
            fs::create_dir(&at).expect("the directory is new");
            let made = client.create(request).await.expect("there is room");
            let (staging, target) = (at.join("staging"), at.join("target"));
            volumes.push(Kept {
                id: made.volume_id,
                staging,
                target,
                block: number == 2,
            });
        }
        Self { node, volumes }
    }

    async fn client(&self) -> Client {
        Client::new(self.node.channel().await)
    }

    /// Stages and publishes all, once more where they are already.
    async fn put_up(&self, client: &mut Client) {
        for kept in &self.volumes {
            let capability = if kept.block {
                calls::block()
            } else {
                calls::mounted()
            };
            let stage = client
                .stage(&kept.id, &kept.staging, capability.clone())
                .await;
            stage.expect("it can be staged");
            let mut request = calls::publication(&kept.id, &kept.staging, &kept.target);
            request.volume_capability = Some(capability);
            client.publish(request).await.expect("it is staged");
        }
    }

    /// The mounts of this household.
    fn mounts(&self) -> Vec<Entry> {
        let all = Mounts::new(Gate::open())
            .all()
            .expect("the table can be read");
        all.into_iter()
            .filter(|mount| mount.target.starts_with(self.node.dir.path()))
            .collect()
    }

    /// Open files, threads, and resident kibibytes of the process.
    fn burden(&self) -> [usize; 3] {
        let proc = PathBuf::from(format!("/proc/{}", self.node.pid()));
        let status = fs::read_to_string(proc.join("status")).expect("it runs");
        let line = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.expect("the kernel tells it")
        };
        let files = fs::read_dir(proc.join("fd")).expect("it is ours").count();
        [files, line("Threads:"), line("VmRSS:")]
    }
}

fn with_own_mounts(what: &str, work: impl Future<Output = ()> + Send) {
    let done = in_own_mounts(|| {
        // While the test waits for the node's end, another thread closes its connections.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        runtime.expect("threads can be started").block_on(work);
    });
    if let Err(reason) = done {
        skipped(what, &format!("{reason:#}"));
    }
}

#[test]
fn mounts_stay_over_ten_restarts() {
    with_own_mounts("ten restarts", async {
        let mut house = Household::new().await;
        house.put_up(&mut house.client().await).await;
        fs::write(house.volumes[0].target.join("row"), "kept").expect("it is published");
        let (before, burden) = (house.mounts(), house.burden());
        assert_eq!(
            before.len(),
            5,
            "two stagings and three publications: {before:?}"
        );

        for round in 0..10 {
            if round % 2 == 0 {
                assert!(house.node.stop().success());
            } else {
                house.node.kill();
            }
            house.node.start_again();
            assert_eq!(house.mounts(), before, "after start {round}");
            house.put_up(&mut house.client().await).await;
            assert_eq!(house.mounts(), before, "after the same calls again {round}");
        }

        assert_eq!(
            fs::read(house.volumes[0].target.join("row")).expect("it is there"),
            b"kept"
        );
        let [files, threads, _] = house.burden();
        assert!(
            files <= burden[0] + 2 && threads <= burden[1] + 2,
            "{burden:?} became {:?}",
            house.burden()
        );
        let mut client = house.client().await;
        for kept in &house.volumes {
            client
                .unpublish(&kept.id, &kept.target)
                .await
                .expect("it is ours");
            client
                .unstage(&kept.id, &kept.staging)
                .await
                .expect("it is ours");
            client.delete(&kept.id).await.expect("nobody uses it");
        }
        assert_eq!(house.mounts(), []);
    });
}

#[test]
fn a_thousand_publications_leave_nothing_behind() {
    with_own_mounts("a thousand publications", async {
        let house = Household::new().await;
        let mut client = house.client().await;
        house.put_up(&mut client).await;
        let before = house.mounts();
        let mut early = [0; 3];

        for round in 0..1000 {
            // What is loaded once and kept is loaded by then.
            if round == 200 {
                early = house.burden();
            }
            let kept = &house.volumes[round % 3];
            client
                .unpublish(&kept.id, &kept.target)
                .await
                .expect("it is published");
            assert!(!kept.target.exists());
            let mut request = calls::publication(&kept.id, &kept.staging, &kept.target);
            request.volume_capability = Some(if kept.block {
                calls::block()
            } else {
                calls::mounted()
            });
            client.publish(request).await.expect("it is staged");
            let stats = NodeGetVolumeStatsRequest {
                volume_id: kept.id.clone(),
                volume_path: text(&kept.target),
                ..Default::default()
            };
            client
                .node
                .node_get_volume_stats(stats)
                .await
                .expect("it is there");
        }

        let late = house.burden();
        tell(&format!(
            "open files, threads, resident KiB: {early:?} after 200, {late:?} after 1000"
        ));
        let places = |mounts: &[Entry]| {
            let mut places: Vec<_> = mounts.iter().map(|mount| mount.target.clone()).collect();
            places.sort();
            places
        };
        assert_eq!(places(&house.mounts()), places(&before));
        assert_eq!(late[0], early[0], "open files");
        assert!(
            late[1] <= early[1] + 2,
            "threads: {early:?} became {late:?}"
        );
        assert!(
            late[2] <= early[2] + 1024,
            "memory: {early:?} became {late:?}"
        );
    });
}
