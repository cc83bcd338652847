//! What is promised of the room that nodes have: each has a disk with an end, and one has twice the room of the others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::Test;
use crate::bed::{NAMESPACE, NODES};
use crate::space::{Space, Use, alone};

pub(crate) const TESTS: &[Test] = &[
    ("a_claim_goes_where_there_is_room", one_fits),
    ("the_last_space_is_given_away_once", last_space),
    ("a_change_of_room_is_told_in_time", told),
];

const MIB: u64 = 1 << 20;
/// Ten of them have no room, and half of them have.
const PART: u64 = 400;

fn one_fits(space: &Space<'_>) -> Result<()> {
    let _alone = alone();

    space.claim("data", "disk", "1300Mi", "")?;
    space.pod("user", "data", &Use::Mount)?;
    space.ready(&["user"])?;

    ensure!(space.node_of("user")? == "n3");
    Ok(())
}

fn last_space(space: &Space<'_>) -> Result<()> {
    let _alone = alone();
    let room = settled_room(space)?;
    let fit: u64 = room.values().map(|bytes| bytes / MIB / PART).sum();
    ensure!((5..10).contains(&fit), "the disks have room for {fit}");
    let names: Vec<_> = (0..10).map(|number| format!("part-{number}")).collect();
    for name in &names {
        space.claim(name, "disk", &format!("{PART}Mi"), "")?;
        space.pod(name, name, &Use::Mount)?;
    }

    // Who has its part leaves; then there must be room for who waits.
    let mut open = names;
    let mut most = 0;
    let end = Instant::now() + Duration::from_mins(3);
    while !open.is_empty() {
        ensure!(Instant::now() < end, "{open:?} wait for ever");
        let given = given(space)?;
        for (node, parts) in &given {
            let fit = room[node] / MIB / PART;
            ensure!(*parts <= fit, "{node} has room for {fit} and gave {parts}");
        }
        most = most.max(given.values().sum());
        let (done, waiting): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|name| is_ready(space, name));
        open = waiting;
        if most == fit {
            for name in &done {
                space.delete(&[&format!("pod/{name}"), &format!("pvc/{name}")])?;
            }
        } else {
            open.extend(done);
        }
    }
    Ok(())
}

fn told(space: &Space<'_>) -> Result<()> {
    let _alone = alone();
    let before = settled_room(space)?;
    space.claim("data", "disk", &format!("{PART}Mi"), "")?;
    space.pod("user", "data", &Use::Mount)?;
    space.ready(&["user"])?;
    let node = space.node_of("user")?;

    // By a little less than the part: what the filesystem of the disk takes for itself is counted while the disk is empty.
    let end = Instant::now() + Duration::from_secs(15);
    while room(space)?[&node] > before[&node] - PART * MIB * 3 / 4 {
        ensure!(Instant::now() < end, "{node} still has {before:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// The room that each node has for the class `disk`, as the scheduler is told.
fn room(space: &Space<'_>) -> Result<BTreeMap<String, u64>> {
    let class = "{range .items[?(@.storageClassName==\"disk\")]}";
    let fields =
        "{.nodeTopology.matchLabels.topology\\.orlop\\.dev/node} {.capacity}{\"\\n\"}{end}";
    let output = format!("--output=jsonpath={class}{fields}");
    let told = space.bed.kubectl(&[
        "get",
        "csistoragecapacities",
        "--namespace",
        NAMESPACE,
        &output,
    ])?;
    let one = |line: &str| {
        let (node, room) = line.split_once(' ').context("a node and its room")?;
        Ok((
            node.to_owned(),
            bytes(room).with_context(|| format!("{room:?} is no size"))?,
        ))
    };
    told.lines().map(one).collect()
}

/// The same, of the empty disks.
fn settled_room(space: &Space<'_>) -> Result<BTreeMap<String, u64>> {
    space.until("all room of the disks is told", || {
        let room = room(space)?;
        let at_least = |node: &str| if node == "n3" { 1750 } else { 850 };
        Ok(NODES.iter().all(|node| {
            room.get(*node)
                .is_some_and(|room| *room > at_least(node) * MIB)
        }))
    })?;
    room(space)
}

/// How many parts each node gave away.
fn given(space: &Space<'_>) -> Result<BTreeMap<String, u64>> {
    let at = ".spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].values[0]";
    let output = format!(
        "--output=jsonpath={{range .items[?(@.spec.claimRef.namespace==\"{}\")]}}{{{at}}}{{\"\\n\"}}{{end}}",
        space.name
    );
    let mut given = BTreeMap::new();
    for node in space.bed.kubectl(&["get", "pv", &output])?.lines() {
        *given.entry(node.to_owned()).or_default() += 1;
    }
    Ok(given)
}

fn is_ready(space: &Space<'_>, pod: &str) -> bool {
    let ready = ".status.conditions[?(@.type==\"Ready\")].status";
    space
        .field(&format!("pod/{pod}"), ready)
        .is_ok_and(|ready| ready == "True")
}

/// A size as Kubernetes writes it.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|one: char| one.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => MIB,
        "Gi" => 1 << 30,
        "k" => 1000,
        "M" => 1_000_000,
        _ => return None,
    };
    Some(digits.parse::<u64>().ok()? * unit)
}
