//! Two halves of one trial: a mixed load that a power cut ends at any moment, and what must be there after it.
//! `tests/machine/power.rs` cuts the power between them, and tells the second what the first was told.

mod bench;
mod steps;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;

use crate::client::{Client, From};
use crate::support::tell;
use bench::Bench;
use steps::{Held, LARGER, LIFE, ROWS, SIZE, Step};

/// How many steps a lane takes at the most; the power goes long before.
const ENOUGH: usize = 1000;

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
