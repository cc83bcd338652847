//! Claims in a real Kubernetes: its own control plane, kubelets, containerd, the stock sidecars, and the chart by Helm.

mod attributes;
mod bed;
mod capacity;
#[path = "../support/dice.rs"]
mod dice;
mod examples;
mod faults;
mod figures;
mod growth;
mod health;
mod layers;
mod loss;
mod plugin;
mod rights;
mod rounds;
mod sanity;
mod snapshots;
mod space;
mod suite;
#[path = "../support/mod.rs"]
mod support;
mod volumes;

use std::process::ExitCode;
use std::sync::Arc;

use bed::Bed;
use libtest_mimic::{Arguments, Trial};
use space::Space;

/// One claim about the cluster, in a namespace of its own.
type Test = (&'static str, fn(&Space<'_>) -> anyhow::Result<()>);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(4);
    let tests = [
        volumes::TESTS,
        snapshots::TESTS,
        growth::TESTS,
        capacity::TESTS,
        faults::TESTS,
        loss::TESTS,
        plugin::TESTS,
        examples::TESTS,
        attributes::TESTS,
        health::TESTS,
        layers::TESTS,
    ]
    .concat();
    let bed = match bed(&arguments) {
        Ok(bed) => bed.map(Arc::new),
        Err(error) => {
            eprintln!("there is no cluster to test in: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let all = arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.ignored;
    let on_demand = figures::TESTS.iter().chain(suite::TESTS);
    let on_demand = on_demand.map(|test| trial(test, bed.clone()).with_ignored_flag(true));
    let trials = tests.iter().map(|test| trial(test, bed.clone()));
    let conclusion = libtest_mimic::run(&arguments, trials.chain(on_demand).collect());
    let Some(bed) = bed.filter(|_| !conclusion.has_failed()) else {
        return conclusion.exit_code();
    };
    // Those that take what all need come last, one after the other.
    arguments.test_threads = Some(1);
    let alone = [faults::ALONE, rounds::ALONE, loss::ALONE, sanity::ALONE].concat();
    let alone = alone.iter().map(|test| trial(test, Some(Arc::clone(&bed))));
    let conclusion = libtest_mimic::run(&arguments, alone.collect());
    if conclusion.has_failed() {
        return conclusion.exit_code();
    }
    match amiss(&bed, all) {
        Ok(amiss) if amiss.is_empty() => ExitCode::SUCCESS,
        Ok(amiss) => {
            eprintln!("after the tests:\n{amiss}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("what the tests left can not be told: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A cluster, if one is wanted and can be.
fn bed(arguments: &Arguments) -> anyhow::Result<Option<Bed>> {
    if arguments.list {
        return Ok(None);
    }
    if let Some(reason) = missing() {
        support::skipped("all that needs a Kubernetes", reason);
        return Ok(None);
    }
    let of_suite = |filter: &String| filter.starts_with("suite");
    let with_suite = arguments.ignored && arguments.filter.as_ref().is_some_and(of_suite);
    Bed::up(with_suite).map(Some)
}

/// What is left of the tests, and of all of them which rights they did not need.
fn amiss(bed: &Bed, all: bool) -> anyhow::Result<String> {
    let mut amiss = space::left(bed)?;
    if all {
        amiss.push_str(&rights::amiss(bed)?);
    }
    Ok(amiss)
}

fn trial((name, test): &Test, bed: Option<Arc<Bed>>) -> Trial {
    let (name, test) = (*name, *test);
    let runnable = bed.is_some();
    let run = move || {
        let bed = bed.as_deref().ok_or("there is no cluster")?;
        let inside = || {
            let space = Space::new(bed, name)?;
            test(&space)?;
            space.end()
        };
        inside().map_err(|error: anyhow::Error| format!("{error:#}").into())
    };
    Trial::test(name, run).with_ignored_flag(!runnable)
}

/// What this machine lacks for a cluster.
fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("it makes namespaces and mounts as root");
    }
    if !cfg!(target_arch = "x86_64") {
        return Some("its images are made for amd64");
    }
    let has = |program: &str| support::run(program, ["--version"]).is_ok();
    if !has("dockerd") || !has("mmdebstrap") || !has("containerd") {
        return Some(
            "it is made of Debian's docker.io, containerd and mmdebstrap: install them by tests/tools.sh test",
        );
    }
    if support::run("go", ["version"]).is_err() {
        return Some("Kubernetes is built by Go");
    }
    None
}
