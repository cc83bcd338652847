//! Images that need no registry: made of this machine's own programs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::engine::Engine;
use crate::support::run;

/// An image `busybox`, with a file at `/seed/file`; false where this machine has no busybox.
pub(crate) fn busybox<P>(engine: &Engine<P>) -> bool {
    let (_directory, root) = root();
    let (from, to) = (Path::new("/bin/busybox"), root.join("bin/busybox"));
    if fs::copy(from, to).is_err() {
        return false;
    }
    for name in ["sh", "cat", "sleep", "true"] {
        symlink("busybox", root.join("bin").join(name)).expect("it is new");
    }
    fs::create_dir(root.join("seed")).expect("it is new");
    fs::write(root.join("seed/file"), "from the image").expect("there is room");
    engine.import(&root, "busybox");
    true
}

/// An image `postgres` with this machine's PostgreSQL, whose data are at `/data`; false where it has none.
pub(crate) fn postgres(engine: &Engine) -> bool {
    let Some(programs) = programs() else {
        return false;
    };
    let (_directory, root) = root();
    let version = programs.parent().expect("it has a version");
    let shared = Path::new("/usr/share/postgresql").join(version.file_name().expect("a version"));
    let lib = version.join("lib");
    // Not the compiler of queries, which weighs more than all else.
    let modules = ["dict_snowball.so", "plpgsql.so"].map(|name| lib.join(name));
    let tools = ["initdb", "postgres", "psql"].map(|name| programs.join(name));
    let own = [PathBuf::from("/bin/bash"), "/bin/sleep".into()];
    let mut files: Vec<PathBuf> = tools.into_iter().chain(modules).chain(own).collect();
    let libraries = files
        .iter()
        .flat_map(|file| libraries(file))
        .collect::<Vec<_>>();
    files.extend(libraries);
    files.push(shared);
    let copy = root.with_file_name("programs.tar");
    let copy = copy.to_str().expect("it is text");
    let names = files.iter().map(|file| file.to_str().expect("it is text"));
    run("tar", ["-chPf", copy].into_iter().chain(names)).expect("there is room");
    run(
        "tar",
        ["-xf", copy, "-C", root.to_str().expect("it is text")],
    )
    .expect("there is room");
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/:/bin/bash\npostgres:x:999:999::/:/bin/bash\n",
    )
    .expect("there is room");
    symlink("bash", root.join("bin/sh")).expect("it is new");
    symlink(&programs, root.join("postgresql")).expect("it is new");
    fs::create_dir(root.join("data")).expect("it is new");
    run(
        "chown",
        ["999:999", root.join("data").to_str().expect("text")],
    )
    .expect("root may");
    engine.import(&root, "postgres");
    true
}

fn root() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("there is room");
    let root = directory.path().join("root");
    for name in ["bin", "etc", "tmp", "dev", "proc", "sys"] {
        fs::create_dir_all(root.join(name)).expect("it is new");
    }
    run("chmod", ["1777", root.join("tmp").to_str().expect("text")]).expect("it is ours");
    (directory, root)
}

fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let programs = versions.map(|version| version.path().join("bin"));
    programs.filter(|bin| bin.join("initdb").exists()).max()
}

/// The libraries that a program is linked with.
fn libraries(file: &Path) -> Vec<PathBuf> {
    let told = run("ldd", [file]).unwrap_or_default();
    let paths = told.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(PathBuf::from).collect()
}
