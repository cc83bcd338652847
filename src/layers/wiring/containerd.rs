//! containerd's `certs.d`: a folder for each registry, and `_default` for all others, each with a `hosts.toml`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use toml_edit::{Document, Item};

/// The folder for registries that have none of their own.
const ALL: &str = "_default";

/// The files of the registries, of all others, and of those that have a folder already, since such a one hides
/// `_default`. A folder of certificates alone is left as it is, unless its registry is named.
pub fn files(certs_d: &Path, registries: &[String]) -> Result<Vec<PathBuf>> {
    let mut folders = BTreeSet::from([ALL.to_owned()]);
    if certs_d.is_dir() {
        let listing = || format!("listing {}", certs_d.display());
        for entry in fs::read_dir(certs_d).with_context(listing)? {
            let entry = entry.with_context(listing)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let file = entry.path().join("hosts.toml");
            let wanted = super::is_there(&file) || registries.contains(&name);
            if wanted && entry.path().is_dir() {
                folders.insert(name);
            }
        }
    }
    let file = |name| certs_d.join(name).join("hosts.toml");
    Ok(folders.into_iter().map(file).collect())
}

/// A `hosts.toml` that asks the mirror first, and then whom it asked before.
pub fn with_mirror(before: Option<&str>, mirror: &str) -> Result<String> {
    let before = before.unwrap_or_default();
    let parsed = Document::parse(before).context("it is not TOML")?;
    let known = parsed.get("host").and_then(|hosts| hosts.get(mirror));
    if known.is_some() {
        return Ok(before.to_owned());
    }
    // containerd asks in the order of the file, so the mirror comes before all other tables. A containerd older than
    // 2.1 passes over the time-out.
    let block = format!(
        "[host.\"{mirror}\"]\ncapabilities = [\"pull\", \"resolve\"]\ndial_timeout = \"200ms\"\n"
    );
    let at = first_table(parsed.as_item()).unwrap_or(before.len());
    let (head, tables) = before.split_at(above_comments(before, at));
    let gap = if head.is_empty() || head.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let space = if tables.is_empty() { "" } else { "\n" };
    let text = format!("{head}{gap}{block}{space}{tables}");
    Document::parse(text.as_str())
        .context("its hosts can not be added to: write each as [host.\"<url>\"]")?;
    Ok(text)
}

/// Where the first header of a table stands.
fn first_table(item: &Item) -> Option<usize> {
    let table = item.as_table_like().filter(|_| !item.is_value());
    let inner = table
        .into_iter()
        .flat_map(|table| table.iter())
        .filter_map(|(_, inner)| first_table(inner));
    let listed = item.as_array_of_tables();
    let listed = listed.and_then(toml_edit::ArrayOfTables::span);
    let own = item
        .as_table()
        .filter(|table| !table.is_implicit() && !table.is_dotted())
        .and_then(toml_edit::Table::span)
        .filter(|span| span.start > 0 || !span.is_empty());
    inner
        .chain(listed.map(|span| span.start))
        .chain(own.map(|span| span.start))
        .min()
}

/// The same place, before the comments that stand directly above it.
fn above_comments(text: &str, mut at: usize) -> usize {
    while let Some(above) = text[..at].strip_suffix('\n') {
        let line = above.rfind('\n').map_or(0, |end| end + 1);
        if !above[line..].starts_with('#') {
            break;
        }
        at = line;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIRROR: &str = "http://127.0.0.1:5052";
    const BLOCK: &str = "[host.\"http://127.0.0.1:5052\"]\ncapabilities = [\"pull\", \"resolve\"]\ndial_timeout = \"200ms\"\n";

    #[test]
    fn the_mirror_comes_first_and_nothing_else_changes() {
        let server = "server = \"https://up.test\"\n";
        let hosts = "# ours\n[host.\"https://other.test\"]\n  skip_verify = true\n[host.\"https://other.test\".header]\n  x = [\"y\"]\n";

        for (before, wanted) in [
            (None, BLOCK.to_owned()),
            (Some(String::new()), BLOCK.to_owned()),
            (Some(server.to_owned()), format!("{server}{BLOCK}")),
            (Some(hosts.to_owned()), format!("{BLOCK}\n{hosts}")),
            (
                Some(format!("{server}\n{hosts}")),
                format!("{server}\n{BLOCK}\n{hosts}"),
            ),
        ] {
            let now = with_mirror(before.as_deref(), MIRROR).expect("it is TOML");
            assert_eq!(now, wanted, "{before:?}");
        }
    }

    #[test]
    fn a_mirror_that_is_there_stays_as_it_is() {
        let before = format!("{BLOCK}skip_verify = true\n");

        assert_eq!(
            with_mirror(Some(&before), MIRROR).expect("it is TOML"),
            before
        );
    }

    #[test]
    fn what_can_not_be_added_to_is_refused() {
        for before in ["server = ", "host = { \"https://other.test\" = {} }\n"] {
            with_mirror(Some(before), MIRROR).expect_err(before);
        }
    }
}
