//! What creating a volume costs among a thousand of them, beside what it costs among ten: `make bench-machine`.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::client::{Client, From};
use crate::figures::{set_up, type_in};
use crate::report::{Bar, Report, Round, Row};
use crate::support::tell;

/// How large each is.
const SIZE: u64 = 8 << 20;
/// How many there are at first, and then.
const FEW: usize = 10;
const MANY: usize = 1000;
/// How many of the next ones are timed.
const TIMED: usize = 15;
/// The most that one may cost among many, in what it costs among few.
const BAR: f64 = 1.5;

/// A pool, what its volumes are, and what makes one without us.
const KINDS: [(&str, &str, &str); 2] = [
    (
        "thin",
        "LVM thin, ext4",
        "lvcreate -qq -y -V 8m -T bench/thin-0 -n NAME",
    ),
    ("zfs", "ZFS dataset", "zfs create -o refquota=8m tank/NAME"),
];

/// Prints the table.
#[test]
#[ignore = "a bench: tests/machine runs it when asked"]
fn table() {
    let node = set_up();
    let client = Client::of(&node);
    let mut report = Report::new(Path::new("/")).expect("the machine tells its load");
    for (pool, what, bare) in KINDS {
        let parameters = [("pool", pool)];
        let create = |number: usize| {
            let name = format!("{pool}-{number}");
            let created = client.create(&name, SIZE, &parameters, &From::Nothing);
            created.expect("there is room");
        };
        let fill = |number: usize| {
            if pool == "zfs" {
                return create(number);
            }
            // Without a filesystem they count as much, and take a fraction of the time.
            let created = client.create_device(&format!("{pool}-{number}"), SIZE, &parameters);
            created.expect("there is room");
        };
        let timed = |from: usize| -> [Vec<Duration>; 2] {
            let (ours, theirs) = (from..from + TIMED)
                .map(|number| {
                    let alone = took(|| type_in(bare, &format!("bare-{number}")));
                    (took(|| create(number)), alone)
                })
                .unzip();
            [ours, theirs]
        };

        (0..FEW).for_each(fill);
        let few = timed(FEW);
        for number in FEW + TIMED..MANY {
            fill(number);
            if number.is_multiple_of(50) {
                tell(&format!("{number} volumes on {what}"));
            }
        }
        let many = timed(MANY);

        let by = [
            ("create among 1,000", Bar::Ratio(BAR)),
            ("the bare tool among 1,000", Bar::Open),
        ];
        for (((made_by, bar), many), few) in by.into_iter().zip(many).zip(few) {
            let rounds = many.iter().zip(&few);
            report.add(Row {
                what: made_by,
                case: what.to_owned(),
                floor: "the same among 10",
                unit: "ms",
                bar,
                rounds: rounds.map(|(many, few)| Round::of(*many, *few)).collect(),
            });
        }
    }
}

fn took(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}
