//! The table and the JSON of a run: ours, its floor, the ratio of the two, and whether the bar is reached.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What one round says of ours and of the floor, in the unit of its row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) ours: f64,
    pub(crate) floor: f64,
}

/// What must be reached, judged by the median of all rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    /// Ours ÷ floor, at most.
    Ratio(f64),
    /// Ours ÷ floor, at least.
    Gain(f64),
    /// Ours, at most.
    Most(f64),
    /// Ours − floor, at most.
    Above(f64),
    /// None: the row is there to explain others.
    Open,
}

/// One line of the table.
pub(crate) struct Row {
    /// What of ours is measured.
    pub(crate) what: &'static str,
    /// On what, or beside what.
    pub(crate) case: String,
    /// What stands beside it.
    pub(crate) floor: &'static str,
    /// Of both.
    pub(crate) unit: &'static str,
    pub(crate) bar: Bar,
    pub(crate) rounds: Vec<Round>,
}

/// The least, the median and the greatest.
#[derive(Clone, Copy)]
struct Spread {
    least: f64,
    median: f64,
    greatest: f64,
}

/// Prints each row as it comes, and keeps it.
pub(crate) struct Report {
    machine: Value,
    rows: Vec<Value>,
}

impl Round {
    /// A round of times, in milliseconds.
    pub(crate) fn of(ours: Duration, floor: Duration) -> Self {
        Self {
            ours: ms(ours),
            floor: ms(floor),
        }
    }
}

impl Bar {
    fn text(self) -> String {
        match self {
            Self::Ratio(most) => format!("≤ {most} ×"),
            Self::Gain(least) => format!("≥ {least} ×"),
            Self::Most(most) => format!("≤ {most}"),
            Self::Above(most) => format!("≤ floor + {most}"),
            Self::Open => "-".to_owned(),
        }
    }

    fn reached(self, ours: Spread, floor: Spread, ratio: Spread) -> Option<bool> {
        match self {
            Self::Ratio(most) => Some(ratio.median <= most),
            Self::Gain(least) => Some(ratio.median >= least),
            Self::Most(most) => Some(ours.median <= most),
            Self::Above(most) => Some(ours.median - floor.median <= most),
            Self::Open => None,
        }
    }
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        Self {
            least: at(0),
            median: at(figures.len() / 2),
            greatest: at(figures.len().saturating_sub(1)),
        }
    }

    fn json(self) -> Value {
        json!({"min": self.least, "median": self.median, "max": self.greatest})
    }
}

impl Report {
    /// A report of the run in `directory`; prints its head.
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let load = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
        let kernel = rustix::system::uname();
        let machine = json!({
            "kernel": kernel.release().to_string_lossy(),
            "processors": std::thread::available_parallelism()?.get(),
            "load_before": load.trim(),
            "directory": directory,
        });
        say(&format!("{machine:#}\n"));
        say(&format!(
            "{:<68} {:>10} {:>10} {:<6} {:>22}  {:<13} {}",
            "what (beside: its floor)",
            "ours",
            "floor",
            "",
            "ratio min/median/max",
            "bar",
            "reached"
        ));
        Ok(Self {
            machine,
            rows: Vec::new(),
        })
    }

    /// Adds a row.
    pub(crate) fn add(&mut self, row: Row) {
        let Row {
            what,
            case,
            floor: beside,
            unit,
            bar,
            rounds,
        } = row;
        let ours = Spread::of(rounds.iter().map(|round| round.ours));
        let floor = Spread::of(rounds.iter().map(|round| round.floor));
        let ratio = Spread::of(rounds.iter().map(|round| round.ours / round.floor));
        let reached = bar.reached(ours, floor, ratio);
        let verdict = reached.map_or("", |reached| if reached { "yes" } else { "NO" });
        say(&format!("{what}, {case}"));
        say(&format!(
            "{:<68} {:>10} {:>10} {unit:<6} {:>22}  {:<13} {verdict}",
            format!("  beside: {beside}"),
            figure(ours.median),
            figure(floor.median),
            format!(
                "{}/{}/{}",
                figure(ratio.least),
                figure(ratio.median),
                figure(ratio.greatest)
            ),
            bar.text(),
        ));
        self.rows.push(json!({
            "what": what,
            "case": case,
            "beside": beside,
            "unit": unit,
            "rounds": rounds.len(),
            "ours": ours.json(),
            "floor": floor.json(),
            "ratio": ratio.json(),
            "bar": bar.text(),
            "reached": reached,
        }));
    }

    /// Says why something is not measured.
    pub(crate) fn skip(&mut self, what: &str, reason: &str) {
        say(&format!("SKIPPED: {what}, because {reason}"));
        self.rows.push(json!({"what": what, "skipped": reason}));
    }

    /// Writes the JSON.
    pub(crate) fn write(mut self, file: &Path) -> Result<()> {
        let load = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
        self.machine["load_after"] = load.trim().into();
        let all = json!({"machine": self.machine, "rows": self.rows});
        fs::write(file, format!("{all:#}\n")).with_context(|| file.display().to_string())?;
        let file = file.canonicalize()?;
        say(&format!("\nwritten to {}", file.display()));
        Ok(())
    }
}

/// The median of some times.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Three digits that mean something.
fn figure(figure: f64) -> String {
    match figure.abs() {
        0.0..0.995 => format!("{figure:.3}"),
        0.995..9.95 => format!("{figure:.2}"),
        9.95..99.5 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
fn say(line: &str) {
    println!("{line}");
}
