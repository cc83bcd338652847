//! Runs the tests that this machine's kernel can not in a guest that can, and reports them one by one as its own.
//!
//! They are the ignored tests of the targets below, run by their own binaries. With `ORLOP_TEST_ON_HOST=1` they run on
//! this machine itself, which must then have the kernel modules, and whose disks they may use loop devices of.

mod again;
mod guest;
mod payload;
mod power;
mod shown;
#[path = "../support/mod.rs"]
mod support;

use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest::{Disks, Guest, Image};
use libtest_mimic::{Arguments, Failed, Trial};
use parking_lot::Mutex;
use payload::{Payload, Suite};

/// The test targets of which the ignored tests run here.
const SUITES: [&str; 2] = ["guest", "pools"];
/// Those that take hours, and run where tests may take long.
const LONG_SUITES: [&str; 5] = ["guest", "pools", "sanity", "crash", "bad_input"];

/// How many guests there are at most: each has 2 GiB of memory.
const MOST_GUESTS: usize = 4;

/// How long one test may take in a guest, whose processor is emulated; and where tests may take long.
const LIMIT: Duration = Duration::from_mins(10);
const LONG_LIMIT: Duration = Duration::from_hours(1);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each thread has a guest of its own, of one processor.
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    arguments
        .test_threads
        .get_or_insert(processors.min(MOST_GUESTS));
    match trials() {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("the tests of the guest can not be built: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> anyhow::Result<Vec<Trial>> {
    let suites = if support::takes_long() {
        payload::suites(&LONG_SUITES)?
    } else {
        let what = "csi-sanity, crashes and most claims on LVM, ZFS and quotas";
        support::skipped(
            what,
            "in a guest they take hours: `make test-long` tries them",
        );
        payload::suites(&SUITES)?
    };
    let here = std::env::var("ORLOP_TEST_ON_HOST").is_ok_and(|value| value == "1");
    let rung = if here {
        Ok(Rung::Host(Mutex::default()))
    } else {
        Rung::guest(&suites)
    };
    let rung = rung.inspect_err(|reason| {
        support::skipped("all that needs another kernel", &format!("{reason:#}"));
    });
    let runnable = rung.is_ok();
    let rung = Arc::new(rung.unwrap_or(Rung::Host(Mutex::default())));
    let trial = |suite: &Arc<Suite>, test: &String| {
        let (suite, test, rung) = (Arc::clone(suite), test.clone(), Arc::clone(&rung));
        let name = format!("{}::{test}", suite.name);
        Trial::test(name, move || rung.run(&suite, &test)).with_ignored_flag(!runnable)
    };
    let of_suite = |suite: Suite| {
        let suite = Arc::new(suite);
        suite
            .tests
            .iter()
            .map(|test| trial(&suite, test))
            .collect::<Vec<_>>()
    };
    let mut trials: Vec<_> = suites.into_iter().flat_map(of_suite).collect();
    let name = "power::after_a_cut_all_is_as_the_clients_were_told".to_owned();
    trials.push(in_a_guest(name, &rung, power::try_cuts).with_ignored_flag(!runnable));
    let name = "build::a_guest_without_zfs_is_tried_again_after_a_day";
    let again = || again::is_tried_after_a_day().map_err(|error| format!("{error:#}").into());
    trials.push(Trial::test(name, again).with_ignored_flag(!runnable || here));
    for kind in shown::KINDS {
        let name = format!("demo::{}", kind.0);
        let told = move |image: &_, payload: &_| shown::tell(image, payload, kind);
        trials.push(in_a_guest(name, &rung, told).with_ignored_flag(true));
    }
    for (name, bench) in shown::BENCHES {
        let told = move |image: &_, payload: &_| shown::measure(image, payload, bench);
        trials.push(in_a_guest(name.to_owned(), &rung, told).with_ignored_flag(true));
    }
    Ok(trials)
}

/// A trial that has guests of its own.
fn in_a_guest(
    name: String,
    rung: &Arc<Rung>,
    tried: impl FnOnce(&Image, &Payload) -> anyhow::Result<()> + Send + 'static,
) -> Trial {
    let rung = Arc::clone(rung);
    let run = move || match &*rung {
        Rung::Guest { image, payload, .. } => {
            tried(image, payload).map_err(|error| format!("{error:#}").into())
        }
        Rung::Host(_) => {
            support::skipped("what needs a guest", "there is none");
            Ok(())
        }
    };
    Trial::test(name, run)
}

/// Where the tests run.
enum Rung {
    /// On this machine, one at a time.
    Host(Mutex<()>),
    /// In guests, each of which is booted when no other is idle.
    Guest {
        image: Image,
        payload: Payload,
        idle: Mutex<Vec<Guest>>,
    },
}

impl Rung {
    fn guest(suites: &[Suite]) -> anyhow::Result<Self> {
        let image = Image::build()?;
        let payload = Payload::pack(suites)?;
        Ok(Self::Guest {
            image,
            payload,
            idle: Mutex::default(),
        })
    }

    fn run(&self, suite: &Suite, test: &str) -> Result<(), Failed> {
        let (passed, output) = self
            .result_of(suite, test)
            .map_err(|error| format!("{error:#}"))?;
        for skipped in output
            .lines()
            .filter_map(|line| line.find("SKIPPED: ").map(|at| &line[at..]))
        {
            eprintln!("{skipped}");
        }
        if passed { Ok(()) } else { Err(output.into()) }
    }

    /// Whether the test passed, and what it printed.
    fn result_of(&self, suite: &Suite, test: &str) -> anyhow::Result<(bool, String)> {
        let arguments = [
            "--ignored",
            "--exact",
            test,
            "--nocapture",
            "--test-threads=1",
        ];
        match self {
            Self::Host(alone) => {
                let _alone = alone.lock();
                payload::run_here(&suite.binary, &arguments)
            }
            Self::Guest {
                image,
                payload,
                idle,
            } => {
                let idle = || idle.lock();
                let found = idle().pop();
                let mut guest = match found {
                    Some(guest) => guest,
                    None => Guest::boot(image, payload, &Disks::blank()?)?,
                };
                let (long, limit) = if support::takes_long() {
                    (1, LONG_LIMIT)
                } else {
                    (0, LIMIT)
                };
                let program = PathBuf::from("/payload").join(&suite.name);
                let (program, arguments) = (program.display(), arguments.join(" "));
                let command = format!("ORLOP_LONG={long} {program} {arguments}");
                let started = Instant::now();
                let (code, output) = guest.run(&command, limit)?;
                let took = started.elapsed().as_secs();
                eprintln!("machine: {}::{test} took {took} s", suite.name);
                // One that hung or died is gone.
                idle().push(guest);
                Ok((code == 0, output))
            }
        }
    }
}
