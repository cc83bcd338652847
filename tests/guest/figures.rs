//! What each call costs on each kind of pool, beside the bare tools that do the same: `make bench-machine`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::client::{Client, From};
use crate::node::Node;
use crate::report::{Bar, Report, Round, Row};
use crate::support::run;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
const LARGER: u64 = 96 * MIB;
/// The most that a call may cost, in what the tool costs.
const BAR: f64 = 1.3;
/// Ours and the tool take turns this often.
const ROUNDS: usize = 9;

const POOLS: &str = "\
pools:
  - name: thin
    lvm: { volumeGroup: bench, thinPool: thin-0, overcommitPercent: 1000 }
  - name: thick
    lvm: { volumeGroup: bench }
  - name: zfs
    zfs: { dataset: tank/orlop }
";

/// A kind of volume, and the command lines by which a person would do the same; `NAME` is what is made.
struct Kind {
    pool: &'static str,
    what: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    /// By the call that they stand beside.
    bare: [(&'static str, &'static [&'static str]); 7],
}

const KINDS: [Kind; 4] = [
    Kind {
        pool: "thin",
        what: "LVM thin, ext4",
        parameters: &[],
        bare: [
            (
                "create",
                &[
                    "lvcreate -qq -y -V 64m -T bench/thin-0 -n NAME",
                    "mkfs.ext4 -q /dev/bench/NAME",
                ],
            ),
            ("publish", &["mount /dev/bench/NAME /bare/NAME"]),
            (
                "grow",
                &[
                    "lvextend -qq -y -L 96m bench/NAME",
                    "resize2fs /dev/bench/NAME",
                ],
            ),
            ("snapshot", &["lvcreate -qq -y -s -n NAME-s bench/NAME"]),
            (
                "restore",
                &["lvcreate -qq -y -s -k n -n NAME-r bench/NAME-s"],
            ),
            ("delete snapshot", &["lvremove -qq -y bench/NAME-s"]),
            ("delete", &["lvremove -qq -y bench/NAME"]),
        ],
    },
    Kind {
        pool: "thick",
        what: "LVM thick, ext4",
        parameters: &[],
        bare: [
            (
                "create",
                &[
                    "lvcreate -qq -y -W y -Z y -L 64m -n NAME bench",
                    "mkfs.ext4 -q /dev/bench/NAME",
                ],
            ),
            ("publish", &["mount /dev/bench/NAME /bare/NAME"]),
            (
                "grow",
                &[
                    "lvextend -qq -y -L 96m bench/NAME",
                    "resize2fs /dev/bench/NAME",
                ],
            ),
            (
                "snapshot",
                &["lvcreate -qq -y -s -l 100%ORIGIN -n NAME-s bench/NAME"],
            ),
            (
                "restore",
                &[
                    "lvcreate -qq -y -W y -Z y -L 96m -n NAME-r bench",
                    "dd if=/dev/bench/NAME-s of=/dev/bench/NAME-r bs=1M conv=fsync status=none",
                ],
            ),
            ("delete snapshot", &["lvremove -qq -y bench/NAME-s"]),
            ("delete", &["lvremove -qq -y bench/NAME"]),
        ],
    },
    Kind {
        pool: "zfs",
        what: "ZFS dataset",
        parameters: &[],
        bare: [
            (
                "create",
                &["zfs create -o mountpoint=legacy -o refquota=64m tank/NAME"],
            ),
            ("publish", &["mount -t zfs tank/NAME /bare/NAME"]),
            ("grow", &["zfs set refquota=96m tank/NAME"]),
            ("snapshot", &["zfs snapshot tank/NAME@s"]),
            (
                "restore",
                &["zfs clone -o mountpoint=legacy -o refquota=96m tank/NAME@s tank/NAME-r"],
            ),
            ("delete snapshot", &["zfs destroy tank/NAME@s"]),
            ("delete", &["zfs destroy tank/NAME"]),
        ],
    },
    Kind {
        pool: "zfs",
        what: "ZFS zvol, ext4",
        parameters: &[("csi.storage.k8s.io/fstype", "ext4")],
        bare: [
            (
                "create",
                &[
                    "zfs create -s -V 64m tank/NAME",
                    "udevadm settle",
                    "mkfs.ext4 -q /dev/zvol/tank/NAME",
                ],
            ),
            ("publish", &["mount /dev/zvol/tank/NAME /bare/NAME"]),
            (
                "grow",
                &[
                    "zfs set volsize=96m tank/NAME",
                    "resize2fs /dev/zvol/tank/NAME",
                ],
            ),
            ("snapshot", &["zfs snapshot tank/NAME@s"]),
            ("restore", &["zfs clone tank/NAME@s tank/NAME-r"]),
            ("delete snapshot", &["zfs destroy tank/NAME@s"]),
            ("delete", &["zfs destroy tank/NAME"]),
        ],
    },
];

/// One volume's life, each call of it timed.
struct Life<'a> {
    kind: &'a Kind,
    client: &'a Client,
    home: &'a Path,
}

/// Prints the table.
#[test]
#[ignore = "a bench: tests/machine runs it when asked"]
fn table() {
    let node = set_up();
    let client = Client::of(&node);
    let mut report = Report::new(Path::new("/")).expect("the machine tells its load");
    for kind in &KINDS {
        let life = Life {
            kind,
            client: &client,
            home: node.dir.path(),
        };
        let rounds: Vec<_> = (0..ROUNDS).map(|round| life.round(round)).collect();
        for (call, (what, lines)) in kind.bare.iter().enumerate() {
            report.add(Row {
                what,
                case: kind.what.to_owned(),
                floor: lines[0],
                unit: "ms",
                bar: Bar::Ratio(BAR),
                rounds: rounds.iter().map(|round| round[call]).collect(),
            });
        }
    }
}

impl Life<'_> {
    /// Each call beside the tool: the one is the first in one round, the other in the next.
    fn round(&self, number: usize) -> [Round; 7] {
        let name = format!("v{number}");
        let (ours, bare) = if number.is_multiple_of(2) {
            let ours = self.ours(&name);
            (ours, self.bare(&name))
        } else {
            let bare = self.bare(&name);
            (self.ours(&name), bare)
        };
        std::array::from_fn(|call| Round::of(ours[call], bare[call]))
    }

    fn ours(&self, name: &str) -> [Duration; 7] {
        let (client, pool) = (self.client, self.kind.pool);
        let (staging, target) = (self.home.join("staging"), self.home.join("target"));
        let create = |name: &str, size: u64, from: &From<'_>| {
            let mut parameters = vec![("pool", pool)];
            parameters.extend(self.kind.parameters);
            let created = client.create(name, size, &parameters, from);
            created.expect("there is room")
        };
        let (created, id) = timed(|| create(name, SIZE, &From::Nothing));
        let (shown, ()) = timed(|| client.publish(&id, &staging, &target).expect("it is there"));
        let (grown, _) = timed(|| client.grow(&id, LARGER).expect("there is room"));
        let (taken, snapshot) = timed(|| {
            let taken = client.snapshot(&id, &format!("{name}-s"));
            taken.expect("there is room")
        });
        let from = From::Snapshot(&snapshot);
        let (restored, other) = timed(|| create(&format!("{name}-r"), LARGER, &from));
        client
            .unpublish(&id, &staging, &target)
            .expect("it is ours");
        client.delete(&other).expect("nobody uses it");
        let (forgotten, ()) = timed(|| client.delete_snapshot(&snapshot).expect("it is there"));
        let (deleted, ()) = timed(|| client.delete(&id).expect("nobody uses it"));
        [created, shown, grown, taken, restored, forgotten, deleted]
    }

    fn bare(&self, name: &str) -> [Duration; 7] {
        let name = format!("bare-{name}");
        let (at, mut times) = (Path::new("/bare").join(&name), [Duration::ZERO; 7]);
        fs::create_dir_all(&at).expect("the root can be written");
        for (call, (what, lines)) in self.kind.bare.iter().enumerate() {
            if *what == "delete snapshot" {
                run("umount", [&at]).expect("it is mounted");
                self.remove_restored(&name);
            }
            (times[call], ()) = timed(|| lines.iter().for_each(|line| type_in(line, &name)));
        }
        times
    }

    fn remove_restored(&self, name: &str) {
        let remove = if self.kind.pool == "zfs" {
            "zfs destroy tank/NAME-r"
        } else {
            "lvremove -qq -y bench/NAME-r"
        };
        type_in(remove, name);
    }
}

/// A node with a pool of each kind.
pub(crate) fn set_up() -> Node {
    run("modprobe", ["-a", "dm_thin_pool", "dm_snapshot", "zfs"]).expect("the guest has them");
    let disk = |serial: &str| {
        let link = Path::new("/dev/disk/serial").join(serial);
        let node = fs::canonicalize(link).expect("the guest has the disk");
        node.display().to_string()
    };
    type_in("vgcreate -qq -y bench NAME", &disk("test1"));
    type_in(
        "lvcreate -qq -y --type thin-pool -L 12g --poolmetadatasize 64m -n NAME",
        "thin-0 bench",
    );
    type_in("zpool create -O mountpoint=none tank NAME", &disk("test2"));
    type_in("zfs create tank/NAME", "orlop");
    let file = PathBuf::from("/run/pools.yaml");
    fs::write(&file, POOLS).expect("it can be written");
    Node::start(&["--log", "warn", "--pools", "/run/pools.yaml"])
}

/// Runs a command line, with the name in it.
pub(crate) fn type_in(line: &str, name: &str) {
    let line = line.replace("NAME", name);
    let (program, arguments) = line.split_once(' ').expect("each has arguments");
    run(program, arguments.split(' ')).expect("the pool was just made");
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let done = work();
    (started.elapsed(), done)
}
