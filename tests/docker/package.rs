//! The Debian package: what `make deb` builds.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use orlop::config::Pools;

use crate::support::{run, skipped};

#[test]
fn the_debian_package_has_both_roles_their_pools_file_pages_and_completions() {
    let what = "the Debian package";
    if run("dpkg-deb", ["--version"]).is_err() {
        return skipped(what, "there is no dpkg-deb");
    }
    let place = tempfile::tempdir().expect("there is room");
    let at = |name: &str| place.path().join(name);
    // The binary itself takes long to compress, and is tested elsewhere.
    let binary = at("orlop");
    let words = format!("#!/bin/sh\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_orlop"));
    fs::write(&binary, words).expect("there is room");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/deb.sh");
    fs::create_dir(at("out")).expect("it is new");
    run("sh", [&script, &binary, &at("out")]).expect("it needs nothing else");
    let package = fs::read_dir(at("out")).expect("it is there").next();
    let package = package
        .expect("there is one")
        .expect("it can be listed")
        .path();

    let control = run("dpkg-deb", ["--field".as_ref(), package.as_os_str()]).expect("it is one");
    let root = at("root");
    run(
        "dpkg-deb",
        ["--extract".as_ref(), package.as_os_str(), root.as_os_str()],
    )
    .expect("it is");
    let units = [
        "orlop-node.service",
        "orlop-docker.service",
        "orlop-docker.socket",
    ];
    let units = units.map(|unit| root.join("lib/systemd/system").join(unit));

    let version = format!("Version: {}", env!("CARGO_PKG_VERSION"));
    assert!(control.lines().any(|line| line == version), "{control}");
    for file in [
        "usr/bin/orlop",
        "usr/share/man/man1/orlop-docker.1.gz",
        "usr/share/bash-completion/completions/orlop",
        "usr/share/zsh/vendor-completions/_orlop",
        "usr/share/fish/vendor_completions.d/orlop.fish",
    ] {
        let found = fs::metadata(root.join(file)).expect(file);
        assert!(found.len() > 0, "{file}");
    }
    let pools = Pools::read(&root.join("etc/orlop/pools.yaml")).expect("it is a pools file");
    let directory = pools.pools[0]
        .kind
        .directory()
        .expect("it is one of directories");
    let beneath = directory.strip_prefix("/").expect("it is absolute");
    assert!(root.join(beneath).is_dir(), "a place must exist");
    for unit in &units {
        let text = fs::read_to_string(unit).expect("it is there");
        let starts = text
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="));
        if let Some(words) = starts {
            // Each says only what its role knows.
            let mut words = words.split_whitespace().skip(1).collect::<Vec<_>>();
            words.push("--help");
            run(env!("CARGO_BIN_EXE_orlop"), words).expect(text.as_str());
        }
    }
    if run("systemd-analyze", ["--version"]).is_err() {
        return skipped("the units of systemd", "there is no systemd-analyze");
    }
    // Those of the system, which it orders the units by.
    for name in [
        "sysinit",
        "basic",
        "local-fs",
        "sockets",
        "shutdown",
        "multi-user",
    ] {
        let target = root.join(format!("lib/systemd/system/{name}.target"));
        fs::write(target, "[Unit]\n").expect("it is new");
    }
    let names = units.map(|unit| unit.file_name().expect("it has one").display().to_string());
    let verify = format!(
        "systemd-analyze verify --man=no --root={} {} 2>&1",
        root.display(),
        names.join(" ")
    );
    let said = run("sh", ["-c", &verify]);
    assert!(said.as_ref().is_ok_and(String::is_empty), "{said:?}");
}
