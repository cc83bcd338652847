//! What a bind and an unmount cost; for information, and so ignored.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use orlop::host::gate::Gate;
use orlop::host::mount::Mounts;
use rustix::mount::{MountPropagationFlags, UnmountFlags};

use crate::sandbox::{READ_ONLY, plain, sandbox};

#[test]
#[ignore = "a measurement: run it with --ignored --nocapture"]
fn bind_and_unmount_take() {
    sandbox(|dir| {
        rustix::mount::mount_bind(dir, dir).expect("root may bind");
        for shared in [false, true] {
            let kind = if shared {
                MountPropagationFlags::SHARED
            } else {
                MountPropagationFlags::PRIVATE
            };
            rustix::mount::mount_change(dir, kind).expect("root may change it");
            let new = Mounts::new(Gate::open());
            let old = Mounts::with_old_calls(Gate::open(), dir.join("scratch"));
            let source = dir.join("source");
            fs::create_dir_all(&source).expect("it can be made");
            for others in [0, 2000] {
                for other in 0..others {
                    let target = dir.join(format!("other-{other}"));
                    new.bind(&source, &target, plain()).expect("it binds");
                }
                measure("bare", shared, others, dir, &bare_bind, &bare_unmount);
                for (name, mounts) in [("new", &new), ("old", &old)] {
                    let bind =
                        |from: &Path, to: &Path| mounts.bind(from, to, READ_ONLY).expect("binds");
                    let unmount = |target: &Path| mounts.unmount(target).expect("is mounted");
                    measure(name, shared, others, dir, &bind, &unmount);
                }
                for other in 0..others {
                    new.unmount(&dir.join(format!("other-{other}")))
                        .expect("it is mounted");
                }
            }
        }
    });
}

fn bare_bind(from: &Path, to: &Path) {
    rustix::mount::mount_bind(from, to).expect("it binds");
}

fn bare_unmount(target: &Path) {
    rustix::mount::unmount(target, UnmountFlags::empty()).expect("it is mounted");
}

fn measure(
    name: &str,
    shared: bool,
    others: usize,
    dir: &Path,
    bind: &dyn Fn(&Path, &Path),
    unmount: &dyn Fn(&Path),
) {
    let (source, target) = (dir.join("source"), dir.join("target"));
    fs::create_dir_all(&target).expect("it can be made");
    let (mut binds, mut unmounts) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        let started = Instant::now();
        bind(&source, &target);
        binds.push(started.elapsed());
        let started = Instant::now();
        unmount(&target);
        unmounts.push(started.elapsed());
    }
    binds.sort();
    unmounts.sort();
    writeln!(
        std::io::stderr(),
        "{name:4} shared={shared} with {others} other mounts: bind p50 {:?}, unmount p50 {:?}",
        binds[150],
        unmounts[150]
    )
    .expect("stderr is open");
}
