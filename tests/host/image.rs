//! Image files, with what is attached to them and mounted from them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use orlop::host::FileId;
use orlop::host::command::Tools;
use orlop::host::filesystem;
use orlop::host::gate::Gate;
use orlop::host::loop_device::LoopDevices;
use orlop::host::mount::Mounts;
use orlop::volume::{Filesystem, MountOptions};

/// An image file whose loop device, if any, goes when the test does.
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

impl Image {
    pub(crate) fn new(path: PathBuf, size: u64) -> Self {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .expect("it is new");
        file.set_len(size).expect("holes cost nothing");
        Self { path, file }
    }

    pub(crate) fn id(&self) -> FileId {
        FileId::of(&self.file).expect("it is open")
    }

    pub(crate) fn copy(&self, path: PathBuf) -> Self {
        fs::copy(&self.path, &path).expect("there is room");
        let file = File::options().read(true).write(true).open(&path);
        let file = file.expect("it was made a moment ago");
        Self { path, file }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // One that is still mounted clears itself when the mounts of the test end.
        let _ = devices().detach(self.id());
    }
}

pub(crate) fn devices() -> LoopDevices {
    LoopDevices::new(Gate::open())
}

pub(crate) fn mounts() -> Mounts {
    Mounts::new(Gate::open())
}

/// Makes a filesystem in a new image, attaches it for as long as it is used, and mounts it.
pub(crate) fn mounted(dir: &Path, filesystem: Filesystem, size: u64) -> (Image, PathBuf) {
    let image = Image::new(dir.join(format!("{filesystem}.img")), size);
    filesystem::make(&*Tools::new(Gate::open()), filesystem, &image.path).expect("it is blank");
    let target = dir.join(filesystem.name());
    mount(&image, filesystem, &target);
    (image, target)
}

pub(crate) fn mount(image: &Image, filesystem: Filesystem, target: &Path) {
    let device = devices()
        .attach(&image.file, false, true)
        .expect("attaches");
    mounts()
        .mount(&device.path, filesystem, target, &MountOptions::default())
        .expect("it was made a moment ago");
}

pub(crate) fn size_of(filesystem: Filesystem) -> u64 {
    filesystem.least().0.max(128 << 20)
}
