//! A disk that fails when it is told to.

use crate::support::{run, until};

pub(crate) const FAILING: &str = "/dev/mapper/failing";

/// How many sectors of the disk below it begins at.
const ASIDE: u64 = 2048;

/// Dropped, it is gone.
pub(crate) struct Failing {
    table: String,
    sectors: u64,
}

impl Failing {
    pub(crate) fn on(device: &str) -> Self {
        let size = run("blockdev", ["--getsz", device]).expect("it is a disk");
        let size: u64 = size.trim().parse().expect("it is a number");
        // Behind the beginning, where LVM would see its label on the disk itself too.
        let sectors = size - ASIDE;
        let table = format!("0 {sectors} linear {device} {ASIDE}");
        run("dmsetup", ["create", "failing", "--table", &table]).expect("nobody uses it");
        Self { table, sectors }
    }

    pub(crate) fn fail(&self) {
        Self::load(&format!("0 {} error", self.sectors));
    }

    pub(crate) fn mend(&self) {
        Self::load(&self.table);
    }

    fn load(table: &str) {
        run("dmsetup", ["suspend", "--nolockfs", "--noflush", "failing"]).expect("it is there");
        run("dmsetup", ["load", "failing", "--table", table]).expect("it is a table");
        run("dmsetup", ["resume", "failing"]).expect("it is loaded");
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        Self::load(&self.table);
        if !until(|| run("dmsetup", ["remove", "failing"]).is_ok()) {
            eprintln!("{FAILING} stays behind");
        }
    }
}
