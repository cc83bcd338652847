//! How fast claims are served and pods start with them, and what that takes when idle: `make bench-cluster`.
#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::Test;
use crate::bed::{NAMESPACE, Watch};
use crate::space::{Space, Use};

pub(crate) const TESTS: &[Test] = &[("figures", figures)];

const LIMIT: Duration = Duration::from_mins(2);

fn figures(space: &Space<'_>) -> Result<()> {
    idle(space)?;
    one_after_the_other(space)?;
    many_at_once(space)?;
    pods(space)?;
    growth(space)?;
    walk(space)
}

/// What the containers have in memory while nothing is asked of them.
fn idle(space: &Space<'_>) -> Result<()> {
    for (what, pod) in [
        ("node", "daemonset/orlop-node"),
        ("router", "deployment/orlop-controller"),
    ] {
        let look = ["awk", "/^Rss/ { print $2 }", "/proc/1/status"];
        let exec = [
            "exec",
            "--namespace",
            NAMESPACE,
            pod,
            "--container=orlop",
            "--",
        ];
        let said = space.bed.kubectl(&[&exec[..], &look].concat())?;
        let kib: Vec<u32> = said.lines().map(str::parse).collect::<Result<_, _>>()?;
        let [own, file, shared] = kib[..] else {
            bail!("it tells {said}")
        };
        let (own, file) = ((own + shared) >> 10, file >> 10);
        println!("resident memory of an idle {what}: {own} MiB, and {file} MiB of its file");
    }
    Ok(())
}

/// Of immediate binding, so that no pod is in the way.
fn one_after_the_other(space: &Space<'_>) -> Result<()> {
    let mut seen = Phases::of_claims(space)?;
    let mut took = Vec::new();
    for number in 0..30 {
        let claim = format!("one-{number}");
        space.claim(&claim, "immediate", "16Mi", "")?;
        took.push(seen.took(&claim)?);
    }
    println!("claim seen to bound, one after the other: {}", told(took));
    delete_all(space, 30)
}

/// A pod with a claim of its own that waits for it, beside the same with none. The scheduler looks once a second whether a
/// claim is bound, and first after a second.
fn pods(space: &Space<'_>) -> Result<()> {
    let (mut pods, mut claims) = (Phases::of_pods(space)?, Phases::of_claims(space)?);
    let (mut with, mut without, mut bound) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..15 {
        let (own, none) = (format!("own-{number}"), format!("none-{number}"));
        space.pod_with(&none, "emptyDir: {}", &Use::Mount, "")?;
        without.push(pods.took(&none)?);
        space.claim(&own, "tree", "16Mi", "")?;
        space.pod(&own, &own, &Use::Mount)?;
        with.push(pods.took(&own)?);
        bound.push(claims.bound_at(&own)? - pods.added[&own]);
        space.delete(&[
            "--grace-period=0",
            &format!("pod/{own}"),
            &format!("pod/{none}"),
        ])?;
    }
    println!("pod seen to ready, with a new claim: {}", told(with));
    println!("… of which until its claim is bound: {}", told(bound));
    println!("… the same pod with an empty directory: {}", told(without));
    delete_all(space, 15)
}

/// The shortest and the middle one.
fn told(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let (best, median) = (took[0].as_millis(), took[took.len() / 2].as_millis());
    format!("p50 {median} ms, best {best} ms")
}

/// The life of a claim: with a pod, a snapshot, a restored copy with its pod, growth while it is used, and the end of all.
fn walk(space: &Space<'_>) -> Result<()> {
    let begun = Instant::now();
    let (mut laps, mut last) = (Vec::new(), begun);
    let mut lap = |what| {
        laps.push(format!("{what} {:.1} s", last.elapsed().as_secs_f64()));
        last = Instant::now();
    };
    space.claim("data", "xfs", "320Mi", "")?;
    space.pod("walk", "data", &Use::Mount)?;
    space.ready(&["walk"])?;
    space.shell("walk", "echo kept > /v/file && sync")?;
    lap("pod");
    crate::snapshots::take(space, "walk", "data")?;
    lap("snapshot");
    space.claim("again", "xfs", "320Mi", &crate::snapshots::of("walk"))?;
    space.pod("again", "again", &Use::Mount)?;
    space.ready(&["again"])?;
    ensure!(space.shell("again", "cat /v/file")? == "kept");
    lap("restored in a pod");
    crate::growth::grow(space, "480Mi")?;
    space.wait("jsonpath={.status.capacity.storage}=480Mi", "pvc/data")?;
    lap("growth");
    space.delete(&["pod/walk", "pod/again"])?;
    lap("pods deleted");
    space.delete(&["pvc/data", "pvc/again", "volumesnapshot/walk"])?;
    until_none_is_left(space)?;
    lap("all deleted");
    let took = begun.elapsed().as_secs_f64();
    println!("the walk: {took:.1} s: {}", laps.join(", "));
    Ok(())
}

fn many_at_once(space: &Space<'_>) -> Result<()> {
    let mut seen = Phases::of_claims(space)?;
    let claim = |number| {
        format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: many-{number}}}, spec: {{accessModes: \
             [ReadWriteOnce], storageClassName: immediate, resources: {{requests: {{storage: 16Mi}}}}}}}}\n---\n"
        )
    };
    space.apply(&(0..100).map(claim).collect::<String>())?;
    seen.until(|seen| seen.bound.len() == 100)?;
    let first = seen.added.values().min().context("there are some")?;
    let last = seen.bound.values().max().context("there are some")?;
    let took = (*last - *first).as_secs_f64();
    println!(
        "100 claims at once: bound in {took:.1} s, {:.0} a second",
        100.0 / took
    );
    delete_all(space, 100)
}

fn delete_all(space: &Space<'_>, claims: u32) -> Result<()> {
    let begun = Instant::now();
    space.kubectl(&["delete", "pvc", "--all", "--wait=false"])?;
    until_none_is_left(space)?;
    println!(
        "{claims} claims deleted: no volume left after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

fn until_none_is_left(space: &Space<'_>) -> Result<()> {
    let ours = format!(
        "--output=jsonpath={{.items[?(@.spec.claimRef.namespace==\"{}\")]..name}}",
        space.name
    );
    space.until("no volume is left", || {
        Ok(space.bed.kubectl(&["get", "pv", &ours])?.trim().is_empty())
    })
}

fn growth(space: &Space<'_>) -> Result<()> {
    space.claim("data", "xfs", "320Mi", "")?;
    space.pod("user", "data", &Use::Mount)?;
    space.ready(&["user"])?;
    // Asked within the pod, as a look by kubectl takes longer than what it looks for.
    let wait = "was=$(stat -fc %b /v); echo ready; while [ $(stat -fc %b /v) = $was ]; do usleep 10000; done; echo grown";
    let mut said = space.bed.watch(&[
        "exec",
        "--namespace",
        &space.name,
        "user",
        "--",
        "sh",
        "-c",
        wait,
    ])?;
    said.next(LIMIT)?;
    let begun = Instant::now();
    crate::growth::grow(space, "480Mi")?;
    let (at, _) = said.next(LIMIT)?;
    println!(
        "claim edited to larger in its pod: {} ms",
        (at - begun).as_millis()
    );
    space.delete(&["pod/user", "pvc/data"])
}

/// When each of a kind was seen first, and when it was as it should be.
struct Phases {
    watch: Watch,
    added: BTreeMap<String, Instant>,
    bound: BTreeMap<String, Instant>,
}

impl Phases {
    fn of_claims(space: &Space<'_>) -> Result<Self> {
        Self::of(space, "pvc", "{.status.phase}")
    }

    fn of_pods(space: &Space<'_>) -> Result<Self> {
        let ready = "{.status.conditions[?(@.type==\"Ready\")].status}";
        Self::of(space, "pods", ready)
    }

    fn of(space: &Space<'_>, kind: &str, phase: &str) -> Result<Self> {
        let line = format!("--output=jsonpath={{.metadata.name}} {phase}{{\"\\n\"}}");
        let watch = ["get", kind, "--namespace", &space.name, "--watch", &line];
        Ok(Self {
            watch: space.bed.watch(&watch)?,
            added: BTreeMap::new(),
            bound: BTreeMap::new(),
        })
    }

    /// How long it took this one.
    fn took(&mut self, name: &str) -> Result<Duration> {
        let bound = self.bound_at(name)?;
        Ok(bound - self.added[name])
    }

    fn bound_at(&mut self, name: &str) -> Result<Instant> {
        self.until(|seen| seen.bound.contains_key(name))?;
        Ok(self.bound[name])
    }

    fn until(&mut self, enough: impl Fn(&Self) -> bool) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while !enough(self) {
            ensure!(Instant::now() < end, "only {} are there", self.bound.len());
            let (at, line) = self.watch.next(LIMIT)?;
            let (name, phase) = line.split_once(' ').context("a name and a phase")?;
            let seen = match phase {
                "Bound" | "True" => &mut self.bound,
                _ => &mut self.added,
            };
            seen.entry(name.to_owned()).or_insert(at);
        }
        Ok(())
    }
}
