//! What creating a volume costs among a thousand of them, beside what it costs among ten: `make bench-machine`.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::client::{Client, From};
use crate::figures::set_up;
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

/// Pools, and what their volumes are.
const KINDS: [(&str, &str); 2] = [("thin", "LVM thin, ext4"), ("zfs", "ZFS dataset")];

/// Prints the table.
#[test]
#[ignore = "a bench: tests/machine runs it when asked"]
fn table() {
    let node = set_up();
    let client = Client::of(&node);
    let mut report = Report::new(Path::new("/")).expect("the machine tells its load");
    for (pool, what) in KINDS {
        let create = |number: usize| {
            let started = Instant::now();
            let created = client.create(
                &format!("{pool}-{number}"),
                SIZE,
                &[("pool", pool)],
                &From::Nothing,
            );
            created.expect("there is room");
            started.elapsed()
        };
        let timed = |from: usize| -> Vec<Duration> { (from..from + TIMED).map(create).collect() };

        for number in 0..FEW {
            create(number);
        }
        let few = timed(FEW);
        for number in FEW + TIMED..MANY {
            create(number);
            if number.is_multiple_of(50) {
                tell(&format!("{number} volumes on {what}"));
            }
        }
        let many = timed(MANY);

        let rounds = many.iter().zip(&few);
        report.add(Row {
            what: "create among 1,000",
            case: what.to_owned(),
            floor: "create among 10",
            unit: "ms",
            bar: Bar::Ratio(BAR),
            rounds: rounds.map(|(many, few)| Round::of(*many, *few)).collect(),
        });
    }
}
