//! Docker's volumes as a person uses them, with a real engine.

use crate::engine::with_engine;
use crate::images;

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
