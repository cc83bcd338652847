//! What the chart lets the controller do, held against what it did: as the API server wrote it down.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::bed::{Bed, NAMESPACE};

/// Who asks.
const ACCOUNT: &str = "system:serviceaccount:orlop:orlop-controller";
/// What is done once in a year, and what the API server asks of itself when something is applied that is not there.
const UNSEEN: &[&str] = &["update secrets", "create configmaps"];
/// By this the snapshotter finds out whether to look after groups, of which Orlop has none: no is an answer.
const REFUSED: &[&str] = &["list groupsnapshot.storage.k8s.io/volumegroupsnapshotcontents"];

/// What was asked for and refused, and what may be asked for and never was.
pub(crate) fn amiss(bed: &Bed) -> Result<String> {
    let mut amiss = String::new();
    let [everywhere, at_home] = granted(bed)?;
    let (mut used, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for line in bed.audit()?.lines() {
        let event: Value = serde_json::from_str(line)?;
        if event["user"]["username"] != ACCOUNT || event["objectRef"].is_null() {
            continue;
        }
        let what = asked(&event).context(line.to_owned())?;
        // An older API server lists what a newer one sends at the begin of a watch.
        if let Some(watched) = what.strip_prefix("watch ") {
            used.insert(format!("list {watched}"));
        }
        if event["responseStatus"]["code"].as_u64() != Some(403) {
            used.insert(what);
            continue;
        }
        // An API server that just started refuses also what it has not read yet that it should grant.
        let is_home = event["objectRef"]["namespace"] == NAMESPACE;
        let is_granted = everywhere.contains(&what) || is_home && at_home.contains(&what);
        if !is_granted {
            refused.insert(what);
        }
    }
    for what in refused
        .iter()
        .filter(|what| !REFUSED.contains(&what.as_str()))
    {
        writeln!(amiss, "it may not {what}")?;
    }
    for what in everywhere
        .union(&at_home)
        .filter(|what| !used.contains(*what))
    {
        if !UNSEEN.contains(&what.as_str()) {
            writeln!(amiss, "it may {what}, and never did")?;
        }
    }
    Ok(amiss)
}

/// In the words of a rule: `patch storage.k8s.io/csinodes`.
fn asked(event: &Value) -> Option<String> {
    let object = &event["objectRef"];
    let verb = event["verb"].as_str()?;
    let resource = object["resource"].as_str()?;
    let part = object["subresource"]
        .as_str()
        .map_or(String::new(), |part| format!("/{part}"));
    let group = object["apiGroup"].as_str().unwrap_or_default();
    Some(words(verb, group, &format!("{resource}{part}")))
}

/// What it may do in every namespace, and what in its own.
fn granted(bed: &Bed) -> Result<[BTreeSet<String>; 2]> {
    Ok([
        rules(bed, "clusterrole/orlop-controller")?,
        rules(bed, "role/orlop-controller")?,
    ])
}

fn rules(bed: &Bed, role: &str) -> Result<BTreeSet<String>> {
    let role = bed.kubectl(&["get", "--namespace", NAMESPACE, "--output=json", role])?;
    let role: Value = serde_json::from_str(&role)?;
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for verb in texts(&rule["verbs"]) {
            for group in texts(&rule["apiGroups"]) {
                granted
                    .extend(texts(&rule["resources"]).map(|resource| words(verb, group, resource)));
            }
        }
    }
    Ok(granted)
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn words(verb: &str, group: &str, resource: &str) -> String {
    let slash = if group.is_empty() { "" } else { "/" };
    format!("{verb} {group}{slash}{resource}")
}
