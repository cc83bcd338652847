//! The mappings of encrypted volumes: which are open, what is below, and what can be read there.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use orlop::host::encryption::beneath;

use crate::support::run;

/// The one mapping that is open, and the device beneath it.
pub(crate) fn devices() -> (PathBuf, PathBuf) {
    let open = mappings();
    assert_eq!(open.len(), 1, "{open:?}");
    let mapping = fs::canonicalize(&open[0]).expect("udev made it");
    let rdev = fs::metadata(&mapping).expect("it is a device").rdev();
    let (below, _) = beneath(rdev).expect("it is a mapping");
    (mapping, Path::new("/dev").join(below))
}

pub(crate) fn mappings() -> Vec<PathBuf> {
    let nodes = fs::read_dir("/dev/mapper").expect("there is a device mapper");
    nodes
        .map(|node| node.expect("it can be read").path())
        .filter(|path| {
            let name = path.file_name().and_then(OsStr::to_str);
            name.is_some_and(|name| name.starts_with("orlop-"))
        })
        .collect()
}

pub(crate) fn size_of(device: &Path) -> u64 {
    let told = run("blockdev", [OsStr::new("--getsize64"), device.as_ref()]);
    let told = told.expect("it is a device");
    told.trim().parse().expect("it is a number")
}

/// Whether this text is somewhere in a file, a device, or the files of a directory.
pub(crate) fn holds(place: &Path, text: &str) -> bool {
    let options = ["-raqF", text].map(OsStr::new);
    run("grep", options.into_iter().chain([place.as_ref()])).is_ok()
}
