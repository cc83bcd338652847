//! What is for people to read: the demo and the figures of pools that only the guest can have, line by line as they come.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::guest::{Disks, Guest, Image};
use crate::payload::Payload;

/// How long the next line may take.
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

/// Trials that measure, and the tests of the guest that they are.
pub(crate) const BENCHES: [(&str, &str); 2] = [
    ("figures::beside_the_bare_tools", "figures::table"),
    ("figures::among_a_thousand", "many::table"),
];

/// Tells the demo on a pool of this kind, on the standard output.
pub(crate) fn tell(image: &Image, payload: &Payload, (kind, make): (&str, &str)) -> Result<()> {
    let mut guest = Guest::boot(image, payload, &Disks::blank()?)?;
    let disk = "disk=$(readlink -f /dev/disk/serial/test1)";
    let (code, output) = guest.run(&format!("{disk}; {make}"), STEP)?;
    ensure!(code == 0, "a pool of {kind} could not be made:\n{output}");
    let code = guest.show("/payload/orlop demo --pools /run/demo.yaml", STEP)?;
    ensure!(code == 0, "the demo failed ({code})");
    Ok(())
}

/// Measures by one of [`BENCHES`], and prints its table.
pub(crate) fn measure(image: &Image, payload: &Payload, bench: &str) -> Result<()> {
    let mut guest = Guest::boot(image, payload, &Disks::blank()?)?;
    let bench = format!("/payload/guest --ignored --nocapture --exact {bench}");
    let code = guest.show(&bench, STEP)?;
    ensure!(code == 0, "the bench failed ({code})");
    Ok(())
}
