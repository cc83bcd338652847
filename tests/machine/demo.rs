//! The demo on pools that this machine may not be able to have: in the guest, told line by line as it goes.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::guest::{Disks, Guest, Image};
use crate::payload::Payload;

/// How long a step of the demo may take.
const STEP: Duration = Duration::from_mins(5);

/// Kinds of pool, and how one named `demo` is made on a blank disk.
pub(crate) const KINDS: [(&str, &str); 2] = [
    (
        "lvm",
        "vgcreate -qq -y demo $disk && lvcreate -qq -y --type thin-pool -L 900m -n thin demo && \
         echo 'pools: [{ name: demo, lvm: { volumeGroup: demo, thinPool: thin } }]' >/run/demo.yaml",
    ),
    (
        "zfs",
        "modprobe zfs && zpool create -O mountpoint=none demo $disk && zfs create demo/orlop && \
         echo 'pools: [{ name: demo, zfs: { dataset: demo/orlop } }]' >/run/demo.yaml",
    ),
];

/// Tells the demo on a pool of this kind, on the standard output.
pub(crate) fn tell(image: &Image, payload: &Payload, (kind, make): (&str, &str)) -> Result<()> {
    let mut guest = Guest::boot(image, payload, &Disks::blank()?)?;
    let disk = "disk=$(readlink -f /dev/disk/serial/test1)";
    let (code, output) = guest.run(&format!("{disk}; {make}"), STEP)?;
    ensure!(code == 0, "a pool of {kind} could not be made:\n{output}");
    guest.order("/payload/orlop demo --pools /run/demo.yaml")?;
    let mut shown = std::io::stdout().lock();
    loop {
        let line = guest.line(STEP)?;
        if let Some(code) = line.strip_prefix("orlop-exit ") {
            ensure!(code == "0", "the demo failed ({code})");
            return Ok(());
        }
        writeln!(shown, "{line}").context("the standard output is closed")?;
    }
}
