//! Whatever is killed in the middle of whatever: every claim comes to be, nothing leaks, no running pod loses its mount.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use crate::Test;
use crate::bed::NODES;
use crate::dice::Dice;
use crate::snapshots;
use crate::space::{Space, Use, left};

/// All that is killed is what all others need, too.
pub(crate) const ALONE: &[Test] = &[("whatever_is_killed_claims_converge", rounds)];

/// How many rounds there are: `ORLOP_FAULT_ROUNDS` says another number, `ORLOP_FAULT_SEED` which ones.
const ROUNDS: u64 = 3;
/// How long a step may take, with what was killed coming back meanwhile.
const LIMIT: Duration = Duration::from_mins(4);
/// The classes of the pods that write all the time.
const STEADY: [&str; 2] = ["tree", "image"];
/// In how many milliseconds from the beginning of a step something is killed.
const DELAYS: usize = 2000;

/// What is killed, by the arguments of `pkill -9`, wherever it runs.
const VICTIMS: [(&str, &[&str]); 7] = [
    ("node plugins", &["-f", "^/usr/bin/orlop node"]),
    ("routers", &["-f", "^/usr/bin/orlop controller"]),
    ("provisioners", &["-x", "csi-provisioner"]),
    ("snapshotters", &["-x", "csi-snapshotter"]),
    ("resizers", &["-x", "csi-resizer"]),
    ("kubelets", &["-x", "kubelet"]),
    ("API server", &["-x", "kube-apiserver"]),
];

/// Classes, and what a claim of each is made with and grown to.
const CLASSES: [(&str, &str, &str); 3] = [
    ("tree", "16Mi", "32Mi"),
    ("xfs", "320Mi", "352Mi"),
    ("btrfs", "16Mi", "32Mi"),
];

type Step = (&'static str, fn(&Space<'_>, &Round) -> Result<()>);

const STEPS: [Step; 6] = [
    ("a claim and its pod", start),
    ("a snapshot", snapshot),
    ("a restore", restore),
    ("a growth", grow),
    ("the end of the pods", end_pods),
    ("the end of the claims", end_claims),
];

/// What kubectl says while the API server, a kubelet or an admission is away, or has just come back.
const AWAY: [&str; 13] = [
    "onnection refused",
    "was refused",
    "connection reset",
    "connection lost",
    "EOF",
    "TLS handshake timeout",
    "error dialing backend",
    "unable to upgrade connection",
    "pod does not exist",
    "container not found",
    "ServiceUnavailable",
    "the server is currently unable",
    // The API server has not read its roles yet.
    "forbidden",
];

struct Round {
    class: &'static str,
    size: &'static str,
    grown: &'static str,
}

fn rounds(space: &Space<'_>) -> Result<()> {
    let of_environment = |name| std::env::var(name).ok().map(|text| text.parse::<u64>());
    let rounds = of_environment("ORLOP_FAULT_ROUNDS").unwrap_or(Ok(ROUNDS))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = of_environment("ORLOP_FAULT_SEED").unwrap_or(Ok(now.as_secs()))?;
    let mut dice = Dice(seed);
    let steady = STEADY.map(|class| Steady::start(space, class));
    let steady = steady.into_iter().collect::<Result<Vec<_>>>()?;
    for number in 0..rounds {
        let (class, size, grown) = CLASSES[dice.roll(CLASSES.len())];
        let (victim, step) = (dice.roll(VICTIMS.len()), dice.roll(STEPS.len()));
        let delay = Duration::from_millis(dice.roll(DELAYS) as u64);
        let round = Round { class, size, grown };
        let begun = Instant::now();
        walk(space, &round, (step, victim, delay))
            .and_then(|()| steady.iter().try_for_each(|pod| pod.goes_on(space)))
            .with_context(|| {
                format!(
                    "round {number} of seed {seed}: a claim of class {class}; {} killed {delay:?} into {}",
                    VICTIMS[victim].0, STEPS[step].0
                )
            })?;
        eprintln!(
            "round {number}: {} killed {delay:?} into {}, of class {class}: {:.0} s",
            VICTIMS[victim].0,
            STEPS[step].0,
            begun.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

/// All that a claim lives through; in one step something is killed.
fn walk(
    space: &Space<'_>,
    round: &Round,
    (fatal, victim, delay): (usize, usize, Duration),
) -> Result<()> {
    for (number, (name, step)) in STEPS.into_iter().enumerate() {
        if number != fatal {
            step(space, round).context(name)?;
            continue;
        }
        std::thread::scope(|scope| {
            let killed = scope.spawn(|| {
                std::thread::sleep(delay);
                kill(space, VICTIMS[victim].1)
            });
            let stepped = step(space, round).context(name);
            killed.join().expect("it does not panic")?;
            stepped
        })?;
    }
    nothing_is_left(space)
}

fn kill(space: &Space<'_>, which: &[&str]) -> Result<()> {
    let line = format!("pkill -9 {} '{}' || true", which[0], which[1]);
    for node in NODES {
        space.bed.on(node, &["sh", "-c", &line])?;
    }
    space.bed.inside(&["sh", "-c", &line]).map(drop)
}

fn start(space: &Space<'_>, round: &Round) -> Result<()> {
    insist("a claim", || {
        space.claim("data", round.class, round.size, "")
    })?;
    ready(space, "user", "data")?;
    shell(space, "user", "echo kept > /v/file && sync").map(drop)
}

fn snapshot(space: &Space<'_>, _: &Round) -> Result<()> {
    insist("a snapshot", || snapshots::take(space, "before", "data"))?;
    shell(space, "user", "echo changed > /v/file").map(drop)
}

fn restore(space: &Space<'_>, round: &Round) -> Result<()> {
    insist("a restore", || {
        space.claim("copy", round.class, round.size, &snapshots::of("before"))
    })?;
    ready(space, "reader", "copy")?;
    let read = shell(space, "reader", "cat /v/file")?;
    ensure!(read == "kept", "the restored file holds {read:?}");
    Ok(())
}

fn grow(space: &Space<'_>, round: &Round) -> Result<()> {
    insist("a growth", || crate::growth::grow(space, round.grown))?;
    insist("that it is larger", || {
        let larger = format!("jsonpath={{.status.capacity.storage}}={}", round.grown);
        space.wait(&larger, "pvc/data")
    })?;
    let read = shell(space, "user", "cat /v/file")?;
    ensure!(read == "changed", "the file holds {read:?}");
    Ok(())
}

fn end_pods(space: &Space<'_>, _: &Round) -> Result<()> {
    delete(space, &["pod", "user", "reader"])
}

fn end_claims(space: &Space<'_>, _: &Round) -> Result<()> {
    delete(space, &["volumesnapshot", "before"])?;
    delete(space, &["pvc", "data", "copy"])
}

/// What steady pods have, and no more.
fn nothing_is_left(space: &Space<'_>) -> Result<()> {
    let names = || -> Result<String> {
        let ours = format!(
            "--output=jsonpath={{.items[?(@.spec.claimRef.namespace==\"{}\")].spec.claimRef.name}}",
            space.name
        );
        let volumes = space.bed.kubectl(&["get", "pv", &ours])?;
        let contents = "--output=jsonpath={.items[*].metadata.name}";
        let snapshots = space
            .bed
            .kubectl(&["get", "volumesnapshotcontents", contents])?;
        let left: Vec<_> = volumes
            .split_whitespace()
            .filter(|claim| !claim.starts_with("steady"))
            .chain(snapshots.split_whitespace())
            .collect();
        Ok(left.join(" "))
    };
    let end = Instant::now() + LIMIT;
    loop {
        let (objects, left) = (insist("what is left", names)?, left(space.bed)?);
        // What is not in a pool is a device or a mount: what the steady ones have lies there.
        let in_pools = left.lines().filter_map(|line| line.split_once(": "));
        let in_pools = in_pools.filter(|(_, what)| !what.starts_with('/')).count();
        if objects.is_empty() && in_pools == STEADY.len() {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "this stays: {objects}, and on the nodes:\n{left}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// A pod that writes all the time.
struct Steady {
    pod: String,
}

impl Steady {
    fn start(space: &Space<'_>, class: &str) -> Result<Self> {
        let pod = format!("steady-{class}");
        space.claim(&pod, class, "16Mi", "")?;
        ready(space, &pod, &pod)?;
        let write =
            "(n=0; while echo $n > /v/count; do n=$((n + 1)); sleep 0.1; done) >/dev/null 2>&1 &";
        space.shell(&pod, write)?;
        Ok(Self { pod })
    }

    /// That it still writes: the process that does so, and the mount that it writes to, are the first.
    fn goes_on(&self, space: &Space<'_>) -> Result<()> {
        let count = || shell(space, &self.pod, "cat /v/count");
        let before = count()?;
        let end = Instant::now() + LIMIT;
        while count()? == before {
            ensure!(Instant::now() < end, "{} writes no more", self.pod);
        }
        Ok(())
    }
}

fn ready(space: &Space<'_>, pod: &str, claim: &str) -> Result<()> {
    let volume = format!("persistentVolumeClaim: {{claimName: {claim}}}");
    // A node whose kubelet or API server is away for a moment must not lose the pod to a stranger.
    let tolerant = "tolerations: [{operator: Exists}],";
    insist("a pod", || {
        space.pod_with(pod, &volume, &Use::Mount, tolerant)
    })?;
    insist("that it is ready", || space.ready(&[pod]))
}

fn shell(space: &Space<'_>, pod: &str, line: &str) -> Result<String> {
    insist(line, || space.shell(pod, line))
}

fn delete(space: &Space<'_>, what: &[&str]) -> Result<()> {
    let delete = [&["delete", "--wait", "--ignore-not-found"], what].concat();
    insist("a deletion", || space.kubectl(&delete).map(drop))
}

/// Asks again while whom it asks is away.
fn insist<T>(what: &str, ask: impl Fn() -> Result<T>) -> Result<T> {
    let end = Instant::now() + LIMIT;
    loop {
        let error = match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) => format!("{error:#}"),
        };
        if !AWAY.iter().any(|away| error.contains(away)) || Instant::now() > end {
            bail!("{what}: {error}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
