//! What a command prints: a table for people, or the same as JSON, YAML or names for scripts.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::client::fail;
use crate::volume::Bytes;

/// How to print.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Output {
    /// How to print: for people, or for scripts with sizes in bytes.
    #[arg(
        short = 'o',
        long = "output",
        env = "ORLOP_OUTPUT",
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        global = true
    )]
    format: Format,

    /// The same as `-o json`.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// One id or name in each line.
    Name,
}

/// Something that can be printed in every way.
pub(super) trait Shown: Serialize {
    /// The titles of its columns.
    const COLUMNS: &'static [&'static str];

    /// What it is called, in a command that is about it.
    fn name(&self) -> &str;

    /// What stands in its columns.
    fn cells(&self) -> Vec<String>;

    /// All of it, each part with its title; what is empty is left out.
    fn details(&self) -> Vec<(&'static str, String)> {
        Self::COLUMNS.iter().copied().zip(self.cells()).collect()
    }
}

impl Output {
    fn format(self) -> Format {
        if self.json { Format::Json } else { self.format }
    }

    /// As a command line has it.
    pub(super) fn argument(self) -> String {
        let format = self.format().to_possible_value();
        let name = format.as_ref().map_or("table", |value| value.get_name());
        format!("--output={name}")
    }

    /// Prints a list.
    pub(super) fn list<S: Shown>(self, all: &[S]) -> Result<()> {
        match self.format() {
            Format::Table => {
                let titles = S::COLUMNS.iter().map(|&title| title.to_owned()).collect();
                let rows = all.iter().map(Shown::cells);
                print(&table(std::iter::once(titles).chain(rows).collect()))
            }
            Format::Name => print(&names(all)),
            _ => self.data(all),
        }
    }

    /// Prints all of one thing.
    pub(super) fn one<S: Shown>(self, one: &S) -> Result<()> {
        match self.format() {
            Format::Table => {
                let filled = one
                    .details()
                    .into_iter()
                    .filter(|(_, text)| !text.is_empty());
                print(&table(
                    filled
                        .map(|(title, text)| vec![format!("{title}:"), text])
                        .collect(),
                ))
            }
            Format::Name => print(&names(std::slice::from_ref(one))),
            _ => self.data(one),
        }
    }

    /// Prints a few lines about `all` for people, all of it for scripts.
    pub(super) fn summary<T: Serialize>(
        self,
        all: &T,
        lines: impl FnOnce(&T) -> String,
    ) -> Result<()> {
        match self.format() {
            Format::Table => print(&lines(all)),
            _ => self.data(all),
        }
    }

    /// Says what was done to one thing: a sentence for people that begins with its name, itself for scripts.
    pub(super) fn did<S: Shown>(self, one: &S, what: &str) -> Result<()> {
        match self.format() {
            Format::Table => print(&format!("{} {what}\n", one.name())),
            _ => self.one(one),
        }
    }

    /// Tries to remove each of these, and says which are gone; it fails as the first that is not.
    pub(super) async fn remove<Id: ToString>(
        self,
        ids: &[Id],
        remove: impl AsyncFn(&Id) -> Result<()>,
    ) -> Result<()> {
        let (mut gone, mut outcome) = (Vec::new(), Ok(()));
        for id in ids {
            match (remove(id).await, &outcome) {
                (Ok(()), _) => gone.push(Removed { id: id.to_string() }),
                (error, Ok(())) => outcome = error,
                (Err(error), Err(_)) => {
                    fail(&error);
                }
            }
        }
        match self.format() {
            Format::Table => {
                let line = |one: &Removed| format!("{} removed\n", one.id);
                print(&gone.iter().map(line).collect::<String>())?;
            }
            _ => self.list(&gone)?,
        }
        outcome
    }

    fn data(self, value: &(impl Serialize + ?Sized)) -> Result<()> {
        if self.format() == Format::Yaml {
            return print(&serde_yaml_ng::to_string(value)?);
        }
        print(&(serde_json::to_string_pretty(value)? + "\n"))
    }
}

/// Something that is no more.
#[derive(Debug, Serialize)]
struct Removed {
    id: String,
}

impl Shown for Removed {
    const COLUMNS: &'static [&'static str] = &["ID"];

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self) -> Vec<String> {
        vec![self.id.clone()]
    }
}

/// Prints to the standard output. A reader that has seen enough, such as `head`, is no error.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.context("writing to the standard output"),
    }
}

/// A size for people: exact where it is short, else to a tenth of its largest unit.
pub(super) fn size(bytes: u64) -> String {
    let exact = Bytes(bytes).to_string();
    let unit = 10 * (bytes.max(1).ilog2() / 10).min(5);
    let short = exact.chars().take_while(char::is_ascii_digit).count() < 4;
    if short || unit == 0 {
        return exact;
    }
    // The integer part has at most four digits, and one digit after the point is what is shown.
    let tenths = (u128::from(bytes) * 10) >> unit;
    let name = ["", "KiB", "MiB", "GiB", "TiB", "PiB"][unit as usize / 10];
    format!("{}.{}{name}", tenths / 10, tenths % 10)
}

/// A time for people, to the second: what RFC 3339 says, with a space.
pub(super) fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// What stands where there is nothing.
pub(super) fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty())
        .unwrap_or("-")
        .to_owned()
}

fn names<S: Shown>(all: &[S]) -> String {
    all.iter().map(|one| one.name().to_owned() + "\n").collect()
}

/// Columns as wide as their widest cell. What would move a terminal's cursor is not printed.
pub(super) fn table(mut rows: Vec<Vec<String>>) -> String {
    let mut widths = Vec::new();
    for row in &mut rows {
        for (column, cell) in row.iter_mut().enumerate() {
            *cell = cell.replace(char::is_control, "?");
            let width = cell.chars().count();
            match widths.get_mut(column) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&widths);
        let cells: Vec<_> = padded
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        cells.join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["ID", "SIZE"],
            ["default/größe", "1GiB"],
            ["a\x1b[2J", "2GiB"],
        ];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec()).to_vec();

        assert_eq!(
            table(rows),
            "ID              SIZE\ndefault/größe   1GiB\na?[2J           2GiB\n"
        );
    }

    #[test]
    fn a_size_is_short_and_exact_where_it_can_be() {
        let sizes = [
            0,
            1023,
            4096,
            10 << 30,
            1536 << 20,
            270_462_976_000,
            u64::MAX,
        ];

        let shown = sizes.map(size);

        let wanted = [
            "0B",
            "1023B",
            "4KiB",
            "10GiB",
            "1.5GiB",
            "251.8GiB",
            "16383.9PiB",
        ];
        assert_eq!(shown, wanted);
    }
}
