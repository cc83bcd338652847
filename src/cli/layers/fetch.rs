//! `orlop layers prefetch|import`: images that are to be there before anybody asks.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::remote::{Cache, Remote};
use crate::cli::client::Failed;
use crate::cli::output::{Output, Shown, size};
use crate::layers::image::archive::{Archive, Blob, Place, names};
use crate::layers::people::admin::{Named, SIZE};
use crate::layers::people::prefetch::{Order, Outcome, Step};

/// Bytes of a blob that go over the socket at a time.
const PIECE: usize = 256 << 10;
/// What is shown of bytes on their way.
const MOVING: &str =
    "{msg}  {bar:30}  {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}";

#[derive(Args, Debug)]
pub(super) struct Prefetch {
    /// Images, as `quay.io/a/b:v1`.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// On this node alone, not on all that it knows.
    #[arg(long)]
    here: bool,
    /// How many prefetches run at a time, over all images and nodes.
    #[arg(long, env = "ORLOP_LAYERS_AT_ONCE", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    at_once: u16,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(super) struct Import {
    /// An OCI layout, as a folder or a tar archive, or what `docker save` wrote.
    file: PathBuf,
    /// What the image is to be called, if the archive does not say it: `quay.io/a/b:v1`.
    #[arg(long, value_name = "IMAGE")]
    name: Option<String>,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: Output,
}

impl Prefetch {
    pub(super) fn run(self) -> Result<()> {
        let order = Order {
            images: self.images,
            everywhere: !self.here,
            at_once: usize::from(self.at_once),
        };
        let ends = self
            .remote
            .with(async |cache| watch(&cache, &order).await)?;
        let failed = ends.iter().find_map(|end| match &end.0.state {
            Outcome::Done => None,
            Outcome::Going => Some("the cache broke off".to_owned()),
            Outcome::Failed(why) => Some(why.clone()),
        });
        self.output.list(&ends)?;
        match failed {
            None => Ok(()),
            Some(why) => Err(anyhow::anyhow!("not all could be fetched: {why}")),
        }
    }
}

/// Follows a prefetch to its end; the last step of each image on each node.
async fn watch(cache: &Cache, order: &Order) -> Result<Vec<End>> {
    let mut answer = cache.post("prefetch", serde_json::to_vec(order)?).await?;
    let bars = Bars::new();
    let mut ends: BTreeMap<(String, String), End> = BTreeMap::new();
    let mut buffer = Vec::new();
    while let Some(bytes) = answer.chunk().await.context("the cache broke off")? {
        buffer.extend_from_slice(&bytes);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<_> = buffer.drain(..=end).collect();
            let step: Step =
                serde_json::from_slice(&line).context("the cache is of another release")?;
            let known = ends.entry((step.node.clone(), step.image.clone()));
            let bar = match &known {
                std::collections::btree_map::Entry::Occupied(end) => end.get().1.clone(),
                std::collections::btree_map::Entry::Vacant(_) => {
                    bars.add(format!("{} {}", step.node, step.image))
                }
            };
            bar.set_length(step.total_bytes);
            bar.set_position(step.done_bytes);
            if step.state != Outcome::Going {
                bar.finish_and_clear();
            }
            known.insert_entry(End(step, bar));
        }
    }
    Ok(ends.into_values().collect())
}

impl Import {
    pub(super) fn run(self) -> Result<()> {
        let reading = || format!("importing {}", self.file.display());
        let wrong = |error: anyhow::Error| Failed {
            message: format!("{:#}", error.context(reading())),
            exit: 2,
        };
        let archive = Archive::open(&self.file).map_err(wrong)?;
        let images = archive.images().map_err(wrong)?;
        let mut imported = Vec::new();
        for image in images {
            let names = names(&image, self.name.as_deref()).map_err(wrong)?;
            self.remote.with(async |cache| {
                let bars = Bars::new();
                for blob in &image.blobs {
                    upload(&cache, &archive, blob, &bars).await?;
                }
                for name in &names {
                    let request = Named {
                        image: name.clone(),
                        digest: image.digest.clone(),
                    };
                    let request = cache.put("images").body(serde_json::to_vec(&request)?);
                    cache.send(request).await?;
                }
                Ok(())
            })?;
            imported.extend(names.into_iter().map(|name| Imported {
                image: name,
                digest: image.digest.to_string(),
                size_bytes: image.blobs.iter().map(|blob| blob.size).sum(),
            }));
        }
        self.output.list(&imported)
    }
}

async fn upload(cache: &Cache, archive: &Archive, blob: &Blob, bars: &Bars) -> Result<()> {
    let what = format!("blobs/{}", blob.digest);
    if cache.has(&what).await? {
        return Ok(());
    }
    let request = cache.put(&what).header(SIZE, blob.size);
    let request = match &blob.place {
        Place::Text(text) => request.body(text.clone()),
        Place::File(name) => {
            let mut file = archive.read(name)?;
            let bar = bars.add(blob.digest.to_string());
            bar.set_length(blob.size);
            let (pieces, body) = mpsc::channel(2);
            tokio::task::spawn_blocking(move || {
                loop {
                    let mut piece = vec![0; PIECE];
                    let read = file.read(&mut piece).map(|read| {
                        piece.truncate(read);
                        bar.inc(read as u64);
                        Bytes::from(piece)
                    });
                    let end = read.as_ref().map_or(true, Bytes::is_empty);
                    // Who hung up says why in its answer.
                    if pieces.blocking_send(read).is_err() || end {
                        bar.finish_and_clear();
                        return;
                    }
                }
            });
            request.body(reqwest::Body::wrap_stream(ReceiverStream::new(body)))
        }
    };
    cache.send(request).await.map(drop)
}

/// Bars for a person who looks; nothing for others.
struct Bars(Option<MultiProgress>);

impl Bars {
    fn new() -> Self {
        Self(std::io::stderr().is_terminal().then(MultiProgress::new))
    }

    fn add(&self, message: String) -> ProgressBar {
        let Some(bars) = &self.0 else {
            return ProgressBar::hidden();
        };
        let style = ProgressStyle::with_template(MOVING).expect("the template is a constant");
        bars.add(ProgressBar::new(0).with_message(message).with_style(style))
    }
}

/// How a prefetch ended, and its bar.
struct End(Step, ProgressBar);

impl Serialize for End {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Shown for End {
    const COLUMNS: &'static [&'static str] = &["NODE", "IMAGE", "SIZE", "STATE"];

    fn name(&self) -> &str {
        &self.0.image
    }

    fn cells(&self) -> Vec<String> {
        let Step { node, image, .. } = &self.0;
        let node = if node.is_empty() { "-" } else { node };
        let state = match &self.0.state {
            Outcome::Done => "there",
            Outcome::Going => "cut off",
            Outcome::Failed(why) => why,
        };
        let size = size(self.0.total_bytes);
        vec![node.to_owned(), image.clone(), size, state.to_owned()]
    }
}

/// An image that is in the cache now.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Imported {
    image: String,
    digest: String,
    size_bytes: u64,
}

impl Shown for Imported {
    const COLUMNS: &'static [&'static str] = &["IMAGE", "DIGEST", "SIZE"];

    fn name(&self) -> &str {
        &self.image
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.image.clone(),
            self.digest.clone(),
            size(self.size_bytes),
        ]
    }
}
