//! How fast claims are served, of immediate binding so that no pod is in the way: `make bench-cluster`.
#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::Test;
use crate::bed::Watch;
use crate::space::{Space, Use};

pub(crate) const TESTS: &[Test] = &[("figures", figures)];

const LIMIT: Duration = Duration::from_mins(2);

fn figures(space: &Space<'_>) -> Result<()> {
    one_after_the_other(space)?;
    many_at_once(space)?;
    growth(space)
}

fn one_after_the_other(space: &Space<'_>) -> Result<()> {
    let mut seen = Phases::of_claims(space)?;
    let mut took = Vec::new();
    for number in 0..30 {
        let claim = format!("one-{number}");
        space.claim(&claim, "immediate", "16Mi", "")?;
        seen.until(|seen| seen.bound.contains_key(&claim))?;
        took.push(seen.bound[&claim] - seen.added[&claim]);
    }
    took.sort_unstable();
    let (best, median) = (took[0].as_millis(), took[took.len() / 2].as_millis());
    println!("claim seen to bound, one after the other: p50 {median} ms, best {best} ms");
    delete_all(space, 30)
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
    let ours = format!(
        "--output=jsonpath={{.items[?(@.spec.claimRef.namespace==\"{}\")]..name}}",
        space.name
    );
    space.until("no volume is left", || {
        Ok(space.bed.kubectl(&["get", "pv", &ours])?.trim().is_empty())
    })?;
    println!(
        "{claims} claims deleted: no volume left after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
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
    Ok(())
}

/// When each claim was seen first, and when it was bound.
struct Phases {
    watch: Watch,
    added: BTreeMap<String, Instant>,
    bound: BTreeMap<String, Instant>,
}

impl Phases {
    fn of_claims(space: &Space<'_>) -> Result<Self> {
        let line = "--output=jsonpath={.metadata.name} {.status.phase}{\"\\n\"}";
        let watch = ["get", "pvc", "--namespace", &space.name, "--watch", line];
        Ok(Self {
            watch: space.bed.watch(&watch)?,
            added: BTreeMap::new(),
            bound: BTreeMap::new(),
        })
    }

    fn until(&mut self, enough: impl Fn(&Self) -> bool) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while !enough(self) {
            ensure!(Instant::now() < end, "only {} are bound", self.bound.len());
            let (at, line) = self.watch.next(LIMIT)?;
            let (name, phase) = line.split_once(' ').context("a name and a phase")?;
            let seen = if phase == "Bound" {
                &mut self.bound
            } else {
                &mut self.added
            };
            seen.entry(name.to_owned()).or_insert(at);
        }
        Ok(())
    }
}
