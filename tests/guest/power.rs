//! Two halves of one trial: a mixed load that a power cut ends at any moment, and what must be there after it.
//! `tests/machine/power.rs` cuts the power between them, and tells the second what the first was told.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;

use crate::client::{Client, From};
use crate::node::Node;
use crate::support::{run, tell, until};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 32 * MIB;
const LARGER: u64 = 48 * MIB;
/// How many rows one step writes, each of them synced.
const ROWS: usize = 5;
/// How many steps a lane takes at the most; the power goes long before.
const ENOUGH: usize = 1000;

const POOLS: &str = "\
pools:
  - name: thin
    lvm: { volumeGroup: cut, thinPool: thin-0 }
  - name: thick
    lvm: { volumeGroup: cut }
  - name: tank
    zfs: { dataset: tank/orlop }
  - name: tree
    directory: { path: /mnt/orlop }
";

/// Whose volumes live on which pool, as what.
const LANES: [Lane; 5] = [
    Lane::new("thin", &[]),
    Lane::new("thick", &[]),
    Lane::new("tank", &[]),
    Lane::new("tank", &[("csi.storage.k8s.io/fstype", "ext4")]),
    Lane::new("tree", &[("requireQuota", "true")]),
];

/// One client, which leads a volume through its life again and again.
#[derive(Clone, Copy)]
struct Lane {
    pool: &'static str,
    parameters: &'static [(&'static str, &'static str)],
}

/// One step of that life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Publish,
    Write,
    Grow,
    Snapshot,
    WriteMore,
    Restore,
    Unpublish,
    Delete,
    DeleteRestored,
    DeleteSnapshot,
}

const LIFE: [Step; 11] = [
    Step::Create,
    Step::Publish,
    Step::Write,
    Step::Grow,
    Step::Snapshot,
    Step::WriteMore,
    Step::Restore,
    Step::Unpublish,
    Step::Delete,
    Step::DeleteRestored,
    Step::DeleteSnapshot,
];

/// What there is of a lane after some of its steps; of what was written, the rows that were synced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    volume: Option<(u64, usize)>,
    snapshot: Option<usize>,
    restored: Option<usize>,
}

impl Lane {
    const fn new(pool: &'static str, parameters: &'static [(&'static str, &'static str)]) -> Self {
        Self { pool, parameters }
    }
}

/// A lane at work.
struct Life<'a> {
    number: usize,
    client: Client,
    home: &'a Path,
}

impl Life<'_> {
    fn name(&self, what: &str) -> String {
        format!("{what}-{}", self.number)
    }

    fn id(&self, what: &str) -> String {
        format!("{}/{}", LANES[self.number].pool, self.name(what))
    }

    fn snapshot_id(&self) -> String {
        format!("{}@{}", self.id("volume"), self.name("snapshot"))
    }

    fn place(&self, what: &str) -> PathBuf {
        self.home.join(self.name(what))
    }

    fn create(&self, what: &str, size: u64, from: &From<'_>) {
        let parameters = LANES[self.number].parameters;
        let mut all = vec![("pool", LANES[self.number].pool)];
        all.extend(parameters);
        let created = self.client.create(&self.name(what), size, &all, from);
        assert_eq!(created.expect("there is room"), self.id(what));
    }

    fn publish(&self, what: &str) -> PathBuf {
        let (staging, target) = (self.place("staging"), self.place("target"));
        let published = self.client.publish(&self.id(what), &staging, &target);
        published.expect("it is there");
        target
    }

    fn unpublish(&self, what: &str) {
        let (staging, target) = (self.place("staging"), self.place("target"));
        let back = self.client.unpublish(&self.id(what), &staging, &target);
        back.expect("nobody uses it");
    }

    fn take(&self, step: Step) {
        match step {
            Step::Create => self.create("volume", SIZE, &From::Nothing),
            Step::Publish => drop(self.publish("volume")),
            Step::Write => write_rows(&self.place("target"), 0),
            Step::WriteMore => write_rows(&self.place("target"), ROWS),
            Step::Grow => {
                let grown = self.client.grow(&self.id("volume"), LARGER);
                grown.expect("there is room");
            }
            Step::Snapshot => {
                let taken = self
                    .client
                    .snapshot(&self.id("volume"), &self.name("snapshot"));
                assert_eq!(taken.expect("there is room"), self.snapshot_id());
            }
            Step::Restore => {
                self.create("restored", LARGER, &From::Snapshot(&self.snapshot_id()));
            }
            Step::Unpublish => self.unpublish("volume"),
            Step::Delete => self.delete("volume"),
            Step::DeleteRestored => self.delete("restored"),
            Step::DeleteSnapshot => {
                let deleted = self.client.delete_snapshot(&self.snapshot_id());
                deleted.expect("nobody uses it");
            }
        }
    }

    fn delete(&self, what: &str) {
        let deleted = self.client.delete(&self.id(what));
        deleted.expect("nobody uses it");
    }

    /// What there is, by the lists and by what can be read in each.
    fn look(&self, volumes: &[(String, u64)], snapshots: &[String]) -> Held {
        let size_of = |what: &str| {
            let id = self.id(what);
            let found = volumes.iter().find(|(listed, _)| *listed == id);
            found.map(|(_, size)| *size)
        };
        let volume = size_of("volume").map(|size| (size, self.rows_of("volume")));
        let restored = size_of("restored").map(|_| self.rows_of("restored"));
        let snapshot = snapshots.contains(&self.snapshot_id()).then(|| {
            self.create("again", LARGER, &From::Snapshot(&self.snapshot_id()));
            let rows = self.rows_of("again");
            self.delete("again");
            rows
        });
        Held {
            volume,
            snapshot,
            restored,
        }
    }

    fn rows_of(&self, what: &str) -> usize {
        let rows = rows_in(&self.publish(what));
        self.unpublish(what);
        rows
    }
}

impl Held {
    /// What there must be after this many steps.
    fn after(steps: usize) -> Self {
        let mut held = Self::default();
        for step in LIFE.iter().take(steps % LIFE.len()) {
            match step {
                Step::Create => held.volume = Some((SIZE, 0)),
                Step::Write => held.volume = Some((SIZE, ROWS)),
                Step::Grow => held.volume = Some((LARGER, ROWS)),
                Step::WriteMore => held.volume = Some((LARGER, 2 * ROWS)),
                Step::Snapshot => held.snapshot = Some(ROWS),
                Step::Restore => held.restored = held.snapshot,
                Step::Delete => held.volume = None,
                Step::DeleteRestored => held.restored = None,
                Step::DeleteSnapshot => held.snapshot = None,
                Step::Publish | Step::Unpublish => {}
            }
        }
        held
    }

    /// Whether this is `after` but for rows that are being written: some of them can be there.
    fn is(&self, before: &Self, after: &Self) -> bool {
        let rows_between = |seen: usize| {
            let rows = |held: &Self| held.volume.map_or(0, |(_, rows)| rows);
            (rows(before)..=rows(after)).contains(&seen)
        };
        let volume = match (self.volume, after.volume) {
            (Some((size, rows)), Some((wanted, _))) => size == wanted && rows_between(rows),
            (seen, wanted) => seen == wanted,
        };
        volume && self.snapshot == after.snapshot && self.restored == after.restored
    }
}

/// Works until the power goes, and says after each step whose it was and the number of it.
#[test]
#[ignore = "half of a trial of tests/machine"]
fn load() {
    let cut = Bench::set_up();
    let home = cut.node.dir.path();
    thread::scope(|scope| {
        for number in 0..LANES.len() {
            let client = Client::of(&cut.node);
            let life = Life {
                number,
                client,
                home,
            };
            scope.spawn(move || {
                for (taken, step) in LIFE.into_iter().cycle().take(ENOUGH).enumerate() {
                    life.take(step);
                    tell(&format!("taken {number} {}", taken + 1));
                }
            });
        }
    });
}

/// Compares what is there with what was told, `ORLOP_TAKEN` (the steps of each lane), then takes it all away.
#[test]
#[ignore = "half of a trial of tests/machine"]
fn check() {
    let taken = std::env::var("ORLOP_TAKEN").expect("the first half was told");
    let taken: Vec<usize> = taken
        .split(',')
        .map(|steps| steps.parse().expect("it is a number"))
        .collect();
    let cut = Bench::set_up();
    let client = Client::of(&cut.node);
    let (volumes, snapshots) = (client.volumes(), client.snapshots());
    let home = cut.node.dir.path();
    let lives = (0..LANES.len()).map(|number| Life {
        number,
        client: Client::of(&cut.node),
        home,
    });

    let mut known = 0;
    for (life, steps) in lives.zip(&taken) {
        let seen = life.look(&volumes, &snapshots);
        let (told, next) = (Held::after(*steps), Held::after(*steps + 1));

        tell(&format!("lane {} after {steps}: {seen:?}", life.number));
        assert!(
            seen.is(&told, &told) || seen.is(&told, &next),
            "lane {}: told {told:?}, at most {next:?}, but there is {seen:?}",
            life.number
        );
        for (there, what) in [
            (seen.volume.is_some(), "volume"),
            (seen.restored.is_some(), "restored"),
        ] {
            if there {
                life.delete(what);
                known += 1;
            }
        }
        if seen.snapshot.is_some() {
            life.take(Step::DeleteSnapshot);
            known += 1;
        }
    }

    assert_eq!(
        volumes.len() + snapshots.len(),
        known,
        "nobody made {volumes:?} {snapshots:?}"
    );
    cut.assert_empty();
}

/// The machine of both halves: the disks as the cut left them, and a node that serves them.
struct Bench {
    node: Node,
}

impl Bench {
    /// Makes what the first boot finds blank, brings up what a later one finds, and starts the node.
    fn set_up() -> Self {
        run("modprobe", ["-a", "dm_thin_pool", "dm_snapshot", "zfs"]).expect("the guest has them");
        let disk = |serial: &str| {
            let link = Path::new("/dev/disk/serial").join(serial);
            let node = fs::canonicalize(link).expect("the guest has the disk");
            node.display().to_string()
        };
        let (group, tank, tree) = (disk("test1"), disk("test2"), disk("test3"));
        if run("vgs", ["cut"]).is_err() {
            run("vgcreate", ["--quiet", "--yes", "cut", &group]).expect("it is blank");
            let pool = ["--type=thin-pool", "--size=400m", "--name=thin-0"];
            run("lvcreate", pool.iter().chain(&["--yes", "cut"])).expect("there is room");
        }
        if run("zpool", ["import", "-d", "/dev", "-N", "tank"]).is_err() {
            run("zpool", ["create", "-O", "mountpoint=none", "tank", &tank]).expect("it is blank");
            run("zfs", ["create", "tank/orlop"]).expect("it is new");
        }
        fs::create_dir_all("/mnt").expect("the root can be written");
        if mount_tree(&tree).is_err() {
            run("mkfs.xfs", ["-q", &tree]).expect("it is blank");
            mount_tree(&tree).expect("it was just made");
            fs::create_dir("/mnt/orlop").expect("it is new");
            run("sync", [""; 0]).expect("it can be written");
        }
        let file = Path::new("/run/pools.yaml");
        fs::write(file, POOLS).expect("it can be written");
        let node = Node::start(&["--log", "warn", "--pools", "/run/pools.yaml"]);
        Self { node }
    }

    /// Nothing is left of what was deleted: no logical volume, dataset, mapping, project.
    fn assert_empty(&self) {
        let left = || {
            let lvs = run("lvs", ["--noheadings", "-o", "lv_name", "cut"]);
            let lvs = lvs.expect("it is there");
            let ours = lvs.lines().map(str::trim).filter(|lv| *lv != "thin-0");
            let datasets = run(
                "zfs",
                ["list", "-Hr", "-t", "all", "-o", "name", "tank/orlop"],
            );
            let datasets = datasets.expect("it is there");
            let ours = ours.chain(datasets.lines().skip(1));
            let projects = run("xfs_quota", ["-x", "-c", "report -p -n -N -b -i", "/mnt"]);
            let projects = projects.expect("quotas are on");
            let others = projects.lines().filter(|line| {
                let mut words = line.split_whitespace();
                words.next().is_some_and(|project| project != "#0")
                    && words.any(|figure| figure.parse::<u64>().is_ok_and(|figure| figure > 0))
            });
            let mut left: Vec<_> = ours.chain(others).map(str::to_owned).collect();
            for part in ["volumes", "snapshots", "making", "trash"] {
                let entries = fs::read_dir(Path::new("/mnt/orlop").join(part));
                let entries = entries.expect("the pool is there").flatten();
                left.extend(entries.map(|entry| entry.path().display().to_string()));
            }
            left
        };
        // What is deleted is gone at once, and removed a little later.
        let gone = until(|| left().is_empty());
        assert!(gone, "left: {:?}\n{}", left(), self.node.log());
        let mapped = run("dmsetup", ["ls"]).expect("the device mapper answers");
        let others: Vec<_> = mapped
            .lines()
            .filter(|line| !line.starts_with("cut-thin--0"))
            .collect();
        assert!(others.is_empty(), "still mapped: {others:?}");
    }
}

fn mount_tree(disk: &str) -> anyhow::Result<()> {
    run("mount", ["-t", "xfs", "-o", "prjquota", disk, "/mnt"]).map(drop)
}

/// Writes rows, each of them synced with all that makes it found again.
fn write_rows(volume: &Path, from: usize) {
    let path = volume.join("rows");
    let opened = File::options().create(true).append(true).open(path);
    let mut file = opened.expect("the volume can be written");
    for row in from..from + ROWS {
        writeln!(file, "row {row}").expect("there is room");
        file.sync_all().expect("the disk is well");
        if row == 0 {
            let directory = File::open(volume).expect("it is there");
            directory.sync_all().expect("the disk is well");
        }
    }
}

/// How many rows are there, all from the first on.
fn rows_in(volume: &Path) -> usize {
    let text = fs::read_to_string(volume.join("rows")).unwrap_or_default();
    let rows: Vec<_> = text.split_inclusive('\n').collect();
    let whole = |(number, row): &(usize, &&str)| **row == format!("row {number}\n");
    rows.iter().enumerate().take_while(whole).count()
}
