//! A pod with a PostgreSQL in it, step by step.

use anyhow::{Context, Result, ensure};

use super::postgres::{Postgres, Rows, VOLUME};
use super::telling::Telling;
use crate::host::command::Command;
use crate::host::pod::Pod;

/// A pod that sees a volume, and what runs there.
pub(super) struct Database<'a> {
    pub(super) pod: Pod,
    pub(super) name: &'static str,
    pub(super) telling: &'a Telling,
    pub(super) postgres: &'a Postgres,
}

impl Database<'_> {
    /// Makes an empty database on the volume.
    pub(super) async fn initialise(&self) -> Result<()> {
        let initialising = async {
            self.run(self.postgres.own()).await?;
            self.run(self.postgres.init()).await
        };
        let done = |_: &_| format!("{} initialised its data on the volume", self.postgres);
        self.telling
            .step("initialising PostgreSQL's data", initialising, done)
            .await
            .map(drop)
    }

    pub(super) async fn start(&self) -> Result<()> {
        let starting = async {
            let Err(error) = self.run(self.postgres.start()).await else {
                return Ok(());
            };
            let words = self.run(Postgres::last_words()).await;
            Err(error.context(words.unwrap_or_default().trim().to_owned()))
        };
        self.telling
            .step("starting PostgreSQL", starting, |()| {
                format!("PostgreSQL started in {}", self.name)
            })
            .await
    }

    /// Stops it; gives how much its volume then holds, in MiB.
    pub(super) async fn stop(&self) -> Result<u64> {
        let stopping = async {
            self.run(self.postgres.stop()).await?;
            let printed = self.run(Command::query("du").args(["-sk", VOLUME])).await?;
            let kibibytes = printed.split_whitespace().next().unwrap_or_default();
            Ok(kibibytes.parse::<u64>().context("du printed no number")? / 1024)
        };
        self.telling
            .step("stopping PostgreSQL", stopping, |_| {
                "PostgreSQL stopped".to_owned()
            })
            .await
    }

    /// Writes this many rows.
    pub(super) async fn write(&self, rows: u32) -> Result<Rows> {
        let writing = async {
            self.run(self.postgres.write(rows)).await?;
            self.rows(u64::from(rows)).await
        };
        self.telling
            .step("writing rows", writing, |rows| format!("written: {rows}"))
            .await
    }

    /// Looks whether these rows are there, all and unchanged; tells it in the words `done`.
    pub(super) async fn find(&self, rows: &Rows, done: &str) -> Result<()> {
        let finding = async {
            let found = self.rows(rows.count).await?;
            ensure!(
                found == *rows,
                "their checksum is {}, and was {}",
                found.checksum,
                rows.checksum
            );
            Ok(())
        };
        self.telling
            .step("looking for the rows", finding, |()| {
                format!("{done}: {rows}")
            })
            .await
    }

    /// Deletes all rows, and looks whether they are gone.
    pub(super) async fn delete(&self) -> Result<()> {
        let deleting = async {
            self.run(self.postgres.delete()).await?;
            self.rows(0).await
        };
        self.telling
            .step("deleting the rows", deleting, |left| {
                format!("the rows are deleted: {} left", left.count)
            })
            .await
            .map(drop)
    }

    /// Reads the rows, of which there must be so many.
    async fn rows(&self, count: u64) -> Result<Rows> {
        let rows = Rows::read(&self.run(self.postgres.rows()).await?)?;
        ensure!(
            rows.count == count,
            "{} rows are there, and not {count}",
            rows.count
        );
        Ok(rows)
    }

    /// Runs a command in the pod to its end.
    async fn run(&self, command: Command) -> Result<String> {
        let running = self.pod.start_command(&command)?;
        blocking(move || running.finish()).await
    }
}

/// Does work that blocks, where it may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("a step stopped in the middle")
        .flatten()
}
