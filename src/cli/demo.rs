//! `orlop demo`: a database loses its pods and its rows, and has them back.

mod client;
mod database;
mod home;
mod postgres;
mod telling;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use tokio_util::sync::CancellationToken;

use self::client::Client;
use self::database::Database;
use self::home::Home;
use self::postgres::{Postgres, Rows, VOLUME};
use self::telling::Telling;
use super::node;
use crate::config::Pools;
use crate::csi::endpoint::Endpoint;
use crate::csi::proto::{Snapshot, Volume};
use crate::csi::socket::Socket;
use crate::host::gate::Gate;
use crate::host::pod::Pod;
use crate::host::{Host, namespace};
use crate::shutdown;
use crate::telemetry::metrics::Metrics;
use crate::volume::Bytes;

const SIZE: Bytes = Bytes(128 << 20);
const LARGER: Bytes = Bytes(256 << 20);
const ROWS: u32 = 10_000;

#[derive(Args, Debug)]
pub(super) struct Demo {
    /// Where to make the directory of the demo, which is removed at its end.
    #[arg(long, default_value = "/var/tmp", value_name = "DIR")]
    data: PathBuf,

    /// Tell the story on the pool of this pools file, instead of on one in that directory.
    #[arg(long, value_name = "FILE")]
    pools: Option<PathBuf>,

    /// Keep that directory, with the volumes and the snapshot in it.
    #[arg(long, conflicts_with = "pools")]
    keep: bool,

    /// Where PostgreSQL's programs are; Debian's and those in PATH are found without.
    #[arg(long, value_name = "DIR")]
    postgres: Option<PathBuf>,
}

/// The demo while it runs.
struct Story<'a> {
    telling: &'a Telling,
    postgres: Postgres,
    home: &'a Home,
    client: Client,
}

impl Demo {
    pub(super) fn run(self) -> Result<()> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the demo mounts volumes and starts pods: run it as root (`sudo orlop demo`)"
        );
        // In mounts of our own, those of the demo end with it even if it is killed.
        namespace::in_own_mounts(|| self.perform()).context(
            "the demo needs a kernel with namespaces, and the right to make them (CAP_SYS_ADMIN; in a container: privileged)",
        )?
    }

    fn perform(&self) -> Result<()> {
        let host = Host::new(Gate::open());
        let postgres = Postgres::find(&*host.tools, self.postgres.as_deref())?;
        let runtime = node::runtime()?;
        let shutdown = runtime.block_on(async { shutdown::on_signal() })?;
        let home = Home::make(&self.data, host)?;
        let played = runtime.block_on(self.play(&home, postgres, shutdown));
        // Waits for what calls and commands of a story that was broken off still do.
        drop(runtime);
        let cleaned = home
            .unmount()
            .and_then(|()| if self.keep { Ok(()) } else { home.remove() });
        match (played, cleaned) {
            (Err(error), Err(left)) => {
                Err(error.context(format!("not all was cleaned up: {left:#}")))
            }
            (played, cleaned) => played.and(cleaned),
        }
    }

    /// Serves a node while the story is told to it.
    async fn play(
        &self,
        home: &Home,
        postgres: Postgres,
        shutdown: CancellationToken,
    ) -> Result<()> {
        let telling = Telling::new();
        let pools = match &self.pools {
            Some(file) => Pools::read(file)?,
            None => Pools::embedded(home.path())?,
        };
        let (driver, _) = node::open(&pools, None, home.host().clone())?;
        let place = driver.look_here(|core| {
            let pool = core.pools().first()?;
            Some(format!("{} {}", pool.kind(), pool.place()))
        });
        telling.say(&format!(
            "One node, one pool ({}), and {postgres}\n",
            place.unwrap_or_default()
        ))?;
        let endpoint = Endpoint::at(home.path().join("csi.sock"))?;
        let socket = Socket::bind(&endpoint)?;
        let server = node::serve(socket, &driver, Metrics::new(), shutdown.clone());
        let server = tokio::spawn(server);
        let story = async {
            let client = Client::connect(&endpoint, home.path()).await?;
            let story = Story {
                telling: &telling,
                postgres,
                home,
                client,
            };
            story.tell(self.keep, &self.next(home)).await
        };
        let told = tokio::select! {
            // First, for the server that stops by the same token would fail the story.
            biased;
            () = shutdown.cancelled() => telling.broken_off().and(Err(anyhow!("stopped by a signal"))),
            told = story => told,
        };
        shutdown.cancel();
        let ended = server.await.context("the server stopped in the middle")?;
        told.and(ended)
    }

    /// What a person can do when the demo is over.
    fn next(&self, home: &Home) -> String {
        match &self.pools {
            Some(file) => format!(
                "Next:  `orlop node --pools {}` serves that pool to CSI clients.",
                file.display()
            ),
            None if self.keep => format!(
                "Next:  `orlop node --data {}` serves what was kept; remove that directory when you are done.",
                home.path().display()
            ),
            None => "Next:  `orlop node` serves this machine's disk to CSI clients; `orlop demo --keep` leaves a pool to look at."
                .to_owned(),
        }
    }
}

impl Story<'_> {
    async fn tell(&self, keep: bool, next: &str) -> Result<()> {
        let others = self.client.list().await?;
        ensure!(
            others.is_empty(),
            "the pool holds {} and {} more: name one without volumes, for the demo alone",
            others[0],
            others.len() - 1
        );
        let volume = self.create("cargo", SIZE, None).await?;
        let (rows, snapshot) = self.first_pod(&volume).await?;
        self.second_pod(&volume, &rows).await?;
        let restored = self.create("restored", LARGER, Some(&snapshot)).await?;
        self.third_pod(&restored, &rows).await?;
        if !keep {
            self.clean_up(&[&volume, &restored], &snapshot).await?;
        }
        self.telling.say(
            "\nShown: the rows outlived their pod, and after they were deleted a snapshot brought them back.",
        )?;
        self.telling.say(next)
    }

    async fn first_pod(&self, volume: &Volume) -> Result<(Rows, Snapshot)> {
        let database = self.pod("pod 1", volume).await?;
        database.initialise().await?;
        database.start().await?;
        let rows = database.write(ROWS).await?;
        let used = database.stop().await?;
        let taking = self.client.snapshot(volume, "before");
        let snapshot = self
            .telling
            .step("taking a snapshot", taking, |_| {
                format!("snapshot taken of {used} MiB")
            })
            .await?;
        self.end(database, volume).await?;
        Ok((rows, snapshot))
    }

    async fn second_pod(&self, volume: &Volume, rows: &Rows) -> Result<()> {
        let database = self.pod("pod 2", volume).await?;
        database.start().await?;
        database.find(rows, "the rows are there").await?;
        database.delete().await?;
        database.stop().await?;
        self.end(database, volume).await
    }

    async fn third_pod(&self, restored: &Volume, rows: &Rows) -> Result<()> {
        let database = self.pod("pod 3", restored).await?;
        database.start().await?;
        database.find(rows, "the rows are back").await?;
        database.stop().await?;
        self.end(database, restored).await
    }

    async fn create(&self, name: &str, size: Bytes, from: Option<&Snapshot>) -> Result<Volume> {
        let creating = async {
            let volume = self.client.create(name, size, from).await?;
            let has = volume.capacity_bytes;
            ensure!(
                has >= size.as_wire(),
                "{size} were asked for, and the volume has {has} bytes"
            );
            Ok(volume)
        };
        let (doing, done) = match from {
            None => ("creating a volume", "volume created"),
            Some(_) => ("restoring the snapshot", "snapshot restored"),
        };
        self.telling
            .step(doing, creating, |volume| {
                format!("{done}: {} of {} MiB", volume.volume_id, size.0 >> 20)
            })
            .await
    }

    /// Publishes the volume and starts a pod that sees it.
    async fn pod(&self, name: &'static str, volume: &Volume) -> Result<Database<'_>> {
        let starting = async {
            let published = self.client.publish(volume).await?;
            let host = self.home.host().clone();
            let start = move || Pod::start(&host, &published, Path::new(VOLUME));
            database::blocking(start).await
        };
        let pod = self
            .telling
            .step("publishing the volume to a pod", starting, |_| {
                format!("staged and published: {name} sees it at {VOLUME}")
            })
            .await?;
        Ok(Database {
            pod,
            name,
            telling: self.telling,
            postgres: &self.postgres,
        })
    }

    async fn end(&self, database: Database<'_>, volume: &Volume) -> Result<()> {
        let Database { pod, name, .. } = database;
        let ending = async {
            drop(pod);
            self.client.unpublish(volume).await
        };
        self.telling
            .step("ending the pod", ending, |()| {
                format!("{name} died with its namespaces; unpublished and unstaged")
            })
            .await?;
        self.telling.say("")
    }

    async fn clean_up(&self, volumes: &[&Volume], snapshot: &Snapshot) -> Result<()> {
        let cleaning = async {
            for volume in volumes {
                self.client.delete(volume).await?;
            }
            self.client.delete_snapshot(snapshot).await?;
            let listed = self.client.list().await?;
            ensure!(listed.is_empty(), "still listed: {}", listed.join(", "));
            let left = [self.home.leftovers()?, self.home.mounts()?].concat();
            match left.first() {
                None => Ok(()),
                Some(first) => bail!("{} and {} more are left", first.display(), left.len() - 1),
            }
        };
        self.telling
            .step("deleting everything", cleaning, |()| {
                "all deleted: lists and pool are empty, nothing is mounted".to_owned()
            })
            .await
    }
}
