//! `registries.conf.d` of Podman, CRI-O, Buildah and skopeo: one file, read last, with the mirror before each registry's own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

/// The last one wins for each registry, so that ours must come last; it repeats what the others say.
pub const FILE: &str = "zz-orlop.conf";

/// The whole text of our file: each registry as the other files have it, with the mirror before its own.
pub fn with_mirror(
    folder: &Path,
    ours: &Path,
    mirror: &str,
    registries: &[String],
) -> Result<String> {
    let others = others(folder, ours)?;
    let (insecure, host) = match mirror.split_once("://") {
        Some((scheme, host)) => (scheme == "http", host),
        None => (true, mirror),
    };
    let mut all = ArrayOfTables::new();
    for name in registries {
        ensure!(
            !name.contains(':'),
            "{name} has a port, which can not be part of a mirror's path: give it a name by `prefix` in registries.conf, and say that name"
        );
        let known = others.iter().rev().find(|entry| names(entry) == Some(name));
        let mut entry = known.cloned().unwrap_or_else(|| {
            let mut entry = Table::new();
            entry.insert("location", value(name));
            entry
        });
        let mut first = Table::new();
        first.insert("location", value(format!("{host}/{name}")));
        first.insert("insecure", value(insecure));
        let mut mirrors = ArrayOfTables::new();
        mirrors.push(first);
        let more = entry.remove("mirror").map(Item::into_array_of_tables);
        if let Some(more) = more {
            let more = more.ok().context("a mirror of a registry is no table")?;
            more.into_iter()
                .for_each(|mirror| mirrors.push(loose(mirror)));
        }
        entry.insert("mirror", Item::ArrayOfTables(mirrors));
        all.push(loose(entry));
    }
    let mut text = DocumentMut::new();
    text.insert("registry", Item::ArrayOfTables(all));
    Ok(text.to_string())
}

/// The registries of all other files, in the order in which they are read.
fn others(folder: &Path, ours: &Path) -> Result<Vec<Table>> {
    let main = folder.with_file_name("registries.conf");
    let mut files: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(),
    };
    files.retain(|file| file != ours && file.extension().is_some_and(|ending| ending == "conf"));
    files.sort();
    let mut found = Vec::new();
    for file in std::iter::once(main)
        .filter(|file| file.exists())
        .chain(files)
    {
        let reading = || format!("reading {}", file.display());
        let text = fs::read_to_string(&file).with_context(reading)?;
        let parsed: DocumentMut = text.parse().with_context(reading)?;
        let registries = parsed.get("registry").and_then(Item::as_array_of_tables);
        found.extend(registries.into_iter().flatten().cloned());
    }
    Ok(found)
}

/// For which names an entry is.
fn names(entry: &Table) -> Option<&str> {
    let own = entry.get("prefix").or_else(|| entry.get("location"));
    own.and_then(Item::as_str)
}

/// A table that does not remember where it stood in another file.
fn loose(mut table: Table) -> Table {
    table.set_position(None);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_keeps_what_other_files_say_of_it_behind_the_mirror() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let conf_d = folder.path().join("registries.conf.d");
        fs::create_dir(&conf_d).expect("it is new");
        let other = "[[registry]]\nlocation = \"quay.io\"\nblocked = false\n[[registry.mirror]]\nlocation = \"mine.test/quay\"\n";
        fs::write(folder.path().join("registries.conf"), other).expect("it is ours");
        let ours = conf_d.join(FILE);
        let registries = ["docker.io", "quay.io"].map(str::to_owned);

        let text = with_mirror(&conf_d, &ours, "http://127.0.0.1:5052", &registries);

        let wanted = "\
[[registry]]
location = \"docker.io\"

[[registry.mirror]]
location = \"127.0.0.1:5052/docker.io\"
insecure = true
[[registry]]
location = \"quay.io\"
blocked = false

[[registry.mirror]]
location = \"127.0.0.1:5052/quay.io\"
insecure = true
[[registry.mirror]]
location = \"mine.test/quay\"
";
        assert_eq!(text.expect("it is TOML").trim_start(), wanted);
        with_mirror(
            &conf_d,
            &ours,
            "http://127.0.0.1:5052",
            &["a.test:5000".to_owned()],
        )
        .expect_err("a port is no part of a path");
    }
}
