//! Cuts the guest's power at a random moment under a mixed load, and lets it compare what is there with what its
//! clients were told.
//!
//! What the guest wrote to its disks stays, in the order in which it wrote it; what it had in memory is lost.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::guest::{Disks, Guest, Image};
use crate::payload::Payload;
use crate::support::tell;

/// How many cuts, if `ORLOP_POWER_CUTS` does not say.
const CUTS: u64 = 1;
/// The load: how long its first step may take after a boot, and how long it goes on at least and at the most, in
/// milliseconds.
const START: Duration = Duration::from_mins(3);
const LEAST_MS: u64 = 10_000;
const MOST_MS: u64 = 70_000;
/// How long the comparison may take.
const CHECK: Duration = Duration::from_mins(6);

/// As many as `power::load` of the guest has.
const LANES: usize = 5;

const HALF: &str = "/payload/guest --ignored --nocapture --exact power::";

/// Cuts and compares as often as asked.
pub(crate) fn try_cuts(image: &Image, payload: &Payload) -> Result<()> {
    let cuts = match std::env::var("ORLOP_POWER_CUTS") {
        Ok(cuts) => cuts.parse().context("ORLOP_POWER_CUTS is a number")?,
        Err(_) => CUTS,
    };
    let disks = Disks::blank()?;
    let mut taken = 0;
    for cut in 1..=cuts {
        let steps = work(image, payload, &disks)?;
        let told: Vec<_> = steps.iter().map(usize::to_string).collect();
        let mut guest = Guest::boot(image, payload, &disks)?;
        let check = format!("ORLOP_TAKEN={} {HALF}check", told.join(","));
        let (code, output) = guest.run(&check, CHECK)?;
        ensure!(code == 0, "after cut {cut}, steps {told:?}:\n{output}");
        taken += steps.iter().sum::<usize>();
    }
    tell(&format!(
        "{cuts} power cuts, {taken} steps told before them"
    ));
    Ok(())
}

/// Works until the power goes; gives how many steps of each lane were told.
fn work(image: &Image, payload: &Payload, disks: &Disks) -> Result<[usize; LANES]> {
    let mut guest = Guest::boot(image, payload, disks)?;
    guest.order(&format!("{HALF}load"))?;
    let (mut steps, mut said) = ([0; LANES], String::new());
    let mut end = Instant::now() + START;
    while steps == [0; LANES] {
        let line = guest.line(end.saturating_duration_since(Instant::now()));
        let line = line.with_context(|| format!("the load does not start:\n{said}"))?;
        ensure!(!line.starts_with("orlop-exit"), "the load failed:\n{said}");
        said = said + &line + "\n";
        hear(&line, &mut steps);
    }
    end = Instant::now() + Duration::from_millis(LEAST_MS + chance(MOST_MS - LEAST_MS)?);
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let Some(line) = guest.heard(left)? else {
            break;
        };
        ensure!(!line.starts_with("orlop-exit"), "the load failed:\n{said}");
        said = said + &line + "\n";
        hear(&line, &mut steps);
    }
    for line in guest.cut()? {
        hear(&line, &mut steps);
    }
    Ok(steps)
}

/// Takes note of a line such as `taken 3 17`; the first comes after the name of the test.
fn hear(line: &str, steps: &mut [usize; LANES]) {
    let told = line.split_once("taken ").and_then(|(_, told)| {
        let (whose, number) = told.split_once(' ')?;
        Some((whose.parse::<usize>().ok()?, number.parse().ok()?))
    });
    if let Some((whose, number)) = told {
        steps[whose] = number;
    }
}

fn chance(below: u64) -> Result<u64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(u64::from(now.subsec_nanos()) / 1000 % below)
}
