//! The house of DESIGN.md §3: each layer looks only down.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the roof to the ground; each may look at those after it.
const LAYERS: [&str; 6] = ["cli", "csi", "driver", "pool", "host", "volume"];

/// What is beside the layers, and which layers it may look at itself.
const BESIDE: [(&str, &[&str]); 10] = [
    ("client", &["csi", "names", "volume"]),
    // The router is a CSI client of the nodes: it knows the wire and the nouns, and no pool, driver or machine.
    (
        "cluster",
        &["csi", "names", "shutdown", "telemetry", "tls", "volume"],
    ),
    ("config", &["volume"]),
    ("docker", &["client", "csi", "names", "volume"]),
    // Certificates are asked for by a call, and kept in a Kubernetes.
    ("enrol", &["csi", "tls"]),
    // Of the machine, what starts its programs.
    ("layers", &["host", "shutdown", "telemetry", "tls"]),
    ("names", &[]),
    ("shutdown", &[]),
    ("telemetry", &[]),
    // Who our processes are to each other, whatever they say then.
    ("tls", &[]),
];

#[test]
fn every_layer_looks_only_down() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut upward = Vec::new();
    for file in sources(&source) {
        let place = file.strip_prefix(&source).expect("it was found there");
        let text = fs::read_to_string(&file).expect("it is text");
        let layer = layer_of(place);
        for seen in seen_by(&text) {
            if !may_look(&layer, &seen) {
                upward.push(format!(
                    "src/{}: `{layer}` looks at `{seen}`",
                    place.display()
                ));
            }
        }
        if text.contains("super::super::") {
            upward.push(format!(
                "src/{}: say where from the root: crate::…",
                place.display()
            ));
        }
    }

    assert!(
        upward.is_empty(),
        "a layer looks only down:\n{}",
        upward.join("\n")
    );
}

#[test]
fn a_look_upward_is_seen() {
    assert_eq!(
        seen_by("use crate::driver::Core; crate::{csi::serve, pool};"),
        ["driver", "csi", "pool"]
    );
    assert!(!may_look("pool", "driver"));
    assert!(may_look("driver", "pool"));
    assert!(!may_look("telemetry", "volume"));
    assert!(may_look("cli", "layers") && !may_look("driver", "layers"));
    assert!(!may_look("layers", "driver"));
    assert!(!may_look("cluster", "driver") && !may_look("csi", "cluster"));
    assert!(may_look("docker", "client") && !may_look("docker", "driver"));
    assert!(!may_look("csi", "client"));
}

#[test]
fn every_folder_of_the_source_is_in_the_table() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(&source).expect("there is a source") {
        let name = layer_of(Path::new(&entry.expect("it can be listed").file_name()));

        let known = LAYERS.contains(&&*name) || BESIDE.iter().any(|(beside, _)| *beside == name);
        assert!(
            known || ["lib", "main"].contains(&&*name),
            "src/{name} is not in the table of tests/layering.rs"
        );
    }
}

fn may_look(layer: &str, seen: &str) -> bool {
    let height = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let beside = |name: &str| BESIDE.iter().find(|(beside, _)| *beside == name);
    match (height(layer), height(seen)) {
        _ if layer == seen || ["lib", "main"].contains(&layer) => true,
        (Some(from), Some(to)) => from < to,
        // These are neighbours: only who puts the parts together knows them.
        (Some(_), None) => {
            beside(seen).is_some()
                && (layer == "cli"
                    || !["client", "cluster", "docker", "enrol", "layers"].contains(&seen))
        }
        (None, _) => beside(layer).is_some_and(|(_, allowed)| allowed.contains(&seen)),
    }
}

/// The first word of each `crate::` path, also of those in braces.
fn seen_by(text: &str) -> Vec<String> {
    let word = |text: &str| {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let mut seen = Vec::new();
    for (at, found) in text.match_indices("crate::") {
        let rest = &text[at + found.len()..];
        match rest.strip_prefix('{') {
            None => seen.push(word(rest)),
            Some(group) => {
                let mut depth = 1;
                let mut start = true;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 1 => start = true,
                        c if start && !c.is_whitespace() => {
                            seen.push(word(&group[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    seen
}

fn layer_of(place: &Path) -> String {
    let first = place.components().next().expect("a file has a name");
    first
        .as_os_str()
        .to_string_lossy()
        .trim_end_matches(".rs")
        .to_owned()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("it is a folder") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}
