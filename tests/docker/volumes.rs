//! Docker's volumes as a person uses them, with a real engine.

use std::thread;

use crate::engine::with_engine;
use crate::images;

const CONTAINERS: usize = 100;
/// Who type at once.
const HANDS: usize = 10;

#[test]
fn a_volume_is_created_used_inspected_and_removed() {
    with_engine("Docker's volumes", |mut engine| {
        if !images::busybox(&engine) {
            return crate::support::skipped("Docker's volumes", "there is no /bin/busybox");
        }
        let run = "run --rm --network=none";

        // An empty volume is filled by the engine with what the image has there.
        engine.docker(
            "volume create --driver orlop --opt size=64MiB --opt layout=image --label is=kept data",
        );
        let seed = engine.docker(&format!("{run} --volume data:/seed busybox cat /seed/file"));
        engine.docker(&format!(
            "{run} --volume data:/seed busybox sh -c -- echo rows >/seed/rows"
        ));
        let rows = engine.docker(&format!(
            "{run} --volume data:/other:ro busybox cat /other/rows"
        ));
        let written = engine.tries(&format!(
            "{run} --volume data:/other:ro busybox sh -c -- echo no >/other/rows"
        ));
        assert_eq!((&*seed, &*rows), ("from the image", "rows"));
        let error = written.expect_err("it is mounted read-only").to_string();
        assert!(error.contains("Read-only file system"), "{error}");

        // Two have it at once; it is not removed, and who has it is said.
        let used = "run --detach --network=none --volume data:/seed";
        let first = engine.docker(&format!("{used} --name first busybox sleep 1000"));
        engine.docker(&format!("{used} --name second busybox sleep 1000"));
        engine.docker("exec first sh -c -- echo both >/seed/rows");
        assert_eq!(engine.docker("exec second cat /seed/rows"), "both");
        engine.docker("cp first:/seed/rows -");
        let refused = engine.tries("volume rm data").expect_err("it is in use");
        assert!(refused.to_string().contains(&first), "{refused}");

        // Docker prunes only volumes of its own driver; which of ours nobody has, it says.
        engine.docker("volume create --driver orlop unused");
        let ls = "volume ls --quiet --filter driver=orlop";
        assert_eq!(
            engine.docker(&format!("{ls} --filter dangling=true")),
            "unused"
        );
        engine.docker("volume prune --force");
        assert_eq!(engine.docker(ls), "data\nunused");
        engine.docker("volume rm unused");

        // Everybody stops in another way, and nothing stays mounted.
        let mounts = "volume inspect --format {{.Status.mounts}} data";
        assert_eq!(engine.docker(mounts).split(' ').count(), 2);
        engine.plugin.restart();
        engine.docker("rm --force second");
        assert_eq!(engine.docker(mounts).split(' ').count(), 1);
        assert_eq!(engine.docker("exec first cat /seed/rows"), "both");
        engine.restart();
        assert_eq!(engine.docker(mounts), "[]");
        engine.docker("start first");
        assert_eq!(engine.docker("exec first cat /seed/rows"), "both");
        engine.docker("rm --force first");
        assert_eq!(engine.docker(mounts), "[]");

        let status = "volume inspect --format";
        let told =
            format!("{status} {{{{.Status.size}}}}/{{{{.Status.pool}}}}/{{{{.Labels.is}}}} data");
        assert_eq!(engine.docker(&told), "64MiB/default/kept");
        engine.docker("volume rm data");
        assert_eq!(engine.docker(ls), "");
    });
}

#[test]
fn a_hundred_containers_at_once_have_a_volume_each_and_one_together() {
    with_engine("a hundred containers", |mut engine| {
        if !images::busybox(&engine) {
            return crate::support::skipped("a hundred containers", "there is no /bin/busybox");
        }
        engine.docker("volume create --driver orlop together");
        let mounts = "volume inspect --format {{.Status.mounts}} together";
        let run = "run --detach --network=none --volume-driver=orlop --volume=together:/together";

        by_all_hands(|number| {
            let write = format!("echo {number} >/own/number; echo {number} >>/together/all");
            engine.docker(&format!(
                "{run} --name=c{number} --volume=own{number}:/own busybox sh -c -- {write}; sleep 1000"
            ));
        });
        assert_eq!(engine.docker("ps --quiet").lines().count(), CONTAINERS);
        assert_eq!(engine.docker(mounts).split(' ').count(), CONTAINERS);
        by_all_hands(|number| {
            let own = engine.docker(&format!("exec c{number} cat /own/number"));
            assert_eq!(own, number.to_string());
        });
        let all = engine.docker("exec c0 cat /together/all");
        assert_eq!(all.lines().count(), CONTAINERS);

        // Who counts may forget in between.
        engine.plugin.restart();
        by_all_hands(|number| _ = engine.docker(&format!("rm --force c{number}")));
        assert_eq!(engine.docker(mounts), "[]");
        by_all_hands(|number| _ = engine.docker(&format!("volume rm own{number}")));
        engine.docker("volume rm together");
        assert_eq!(engine.docker("volume ls --quiet --filter driver=orlop"), "");
    });
}

/// Does this for each container, several at once.
fn by_all_hands(work: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for hand in 0..HANDS {
            let mine = (hand..CONTAINERS).step_by(HANDS);
            scope.spawn(|| mine.for_each(&work));
        }
    });
}
