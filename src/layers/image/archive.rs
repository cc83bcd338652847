//! Images in a file: an OCI layout, as a folder or a tar archive, or what `docker save` writes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::digest::{Digest, Sum};
use crate::layers::mirror::grants::named;

/// No manifest and no list is larger.
const LARGEST_TEXT: u64 = 8 << 20;
/// The names under which tools write the whole name of an image into a layout.
const NAMES: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

/// An archive that can be read at any place.
#[derive(Debug)]
pub enum Archive {
    /// A folder.
    Folder(PathBuf),
    /// A tar archive, and where each of its files begins and how long it is.
    Tar(PathBuf, HashMap<String, (u64, u64)>),
}

/// An image of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The names that the archive gives it, each with a tag.
    pub names: Vec<String>,
    /// Its manifest.
    pub digest: Digest,
    /// Everything that it consists of and that is in the archive; the manifest comes last.
    pub blobs: Vec<Blob>,
}

/// One blob of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// What it is called.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Where it is.
    pub place: Place,
}

/// Where the bytes of a blob are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this file of the archive.
    File(String),
    /// Here, since the archive does not have it.
    Text(Vec<u8>),
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: Digest,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

/// An image of a `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u8,
    media_type: &'static str,
    config: Listed,
    layers: Vec<Listed>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    media_type: &'static str,
    size: u64,
    digest: Digest,
}

impl Archive {
    /// Looks what is in an archive.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let mut magic = [0; 2];
        let read = file.read(&mut magic)?;
        ensure!(
            read < 2 || (magic != [0x1f, 0x8b] && magic != [0x28, 0xb5]),
            "{} is compressed: decompress it first, with gunzip or unzstd",
            path.display()
        );
        file.rewind()?;
        let reading = || format!("{} is no tar archive", path.display());
        let mut files = HashMap::new();
        let mut archive = tar::Archive::new(file);
        for entry in archive.entries_with_seek().with_context(reading)? {
            let entry = entry.with_context(reading)?;
            if entry.header().entry_type().is_file() {
                let name = entry.path()?.to_string_lossy().into_owned();
                let name = name.trim_start_matches("./").to_owned();
                files.insert(name, (entry.raw_file_position(), entry.size()));
            }
        }
        Ok(Self::Tar(path.to_owned(), files))
    }

    /// The images in it.
    pub fn images(&self) -> Result<Vec<Image>> {
        if self.has("index.json") {
            return self.layout();
        }
        ensure!(
            self.has("manifest.json"),
            "it has neither an index.json nor a manifest.json, so it is no image"
        );
        let saved: Vec<Saved> = serde_json::from_slice(&self.text("manifest.json")?)
            .context("its manifest.json is none of Docker's")?;
        saved.iter().map(|saved| self.saved(saved)).collect()
    }

    /// The bytes of a file in it.
    pub fn read(&self, name: &str) -> Result<Box<dyn Read + Send>> {
        let reading = || format!("reading {name} of the archive");
        Ok(match self {
            Self::Folder(root) => {
                let plain = |part| matches!(part, Component::Normal(_));
                ensure!(
                    Path::new(name).components().all(plain),
                    "the archive names {name}, which is not in it"
                );
                Box::new(File::open(root.join(name)).with_context(reading)?)
            }
            Self::Tar(path, files) => {
                let (at, size) = files.get(name).copied().with_context(reading)?;
                let mut file = File::open(path).with_context(reading)?;
                file.seek(SeekFrom::Start(at)).with_context(reading)?;
                Box::new(file.take(size))
            }
        })
    }

    fn has(&self, name: &str) -> bool {
        self.size(name).is_some()
    }

    fn size(&self, name: &str) -> Option<u64> {
        match self {
            Self::Folder(root) => Some(root.join(name).metadata().ok()?.len()),
            Self::Tar(_, files) => files.get(name).map(|(_, size)| *size),
        }
    }

    fn text(&self, name: &str) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        self.read(name)?.take(LARGEST_TEXT).read_to_end(&mut text)?;
        Ok(text)
    }

    /// An OCI layout, whose index lists images or indices of them.
    fn layout(&self) -> Result<Vec<Image>> {
        let index: Index =
            serde_json::from_slice(&self.text("index.json")?).context("its index.json is none")?;
        let mut images: Vec<Image> = Vec::new();
        for entry in index.manifests {
            let name = NAMES.iter().find_map(|name| entry.annotations.get(*name));
            if let Some(known) = images.iter_mut().find(|image| image.digest == entry.digest) {
                known.names.extend(name.cloned());
                continue;
            }
            images.push(Image {
                names: name.cloned().into_iter().collect(),
                blobs: self.below(&entry.digest)?,
                digest: entry.digest,
            });
        }
        Ok(images)
    }

    /// A manifest and all below it that is here; what names others comes after them.
    fn below(&self, digest: &Digest) -> Result<Vec<Blob>> {
        let file = format!("blobs/{}", digest.path().display());
        let Some(size) = self.size(&file) else {
            return Ok(Vec::new());
        };
        let mut blobs = Vec::new();
        if size <= LARGEST_TEXT {
            let text = self.text(&file)?;
            for inner in named(&text) {
                blobs.extend(self.below(&inner)?);
            }
        }
        blobs.push(Blob {
            digest: digest.clone(),
            size,
            place: Place::File(file),
        });
        Ok(blobs)
    }

    /// An image of `docker save`, which has no manifest of its own: one is made, as Docker would push it.
    fn saved(&self, saved: &Saved) -> Result<Image> {
        let config = self.summed(&saved.config)?;
        let layers: Vec<_> = saved
            .layers
            .iter()
            .map(|layer| self.summed(layer))
            .collect::<Result<_>>()?;
        let listed = |blob: &Blob, media_type| Listed {
            media_type,
            size: blob.size,
            digest: blob.digest.clone(),
        };
        let layer = "application/vnd.docker.image.rootfs.diff.tar";
        let manifest = Manifest {
            schema_version: 2,
            media_type: "application/vnd.docker.distribution.manifest.v2+json",
            config: listed(&config, "application/vnd.docker.container.image.v1+json"),
            layers: layers.iter().map(|blob| listed(blob, layer)).collect(),
        };
        let text = serde_json::to_vec(&manifest)?;
        let digest = Digest::of(&text);
        let mut blobs = layers;
        blobs.push(config);
        blobs.push(Blob {
            digest: digest.clone(),
            size: text.len() as u64,
            place: Place::Text(text),
        });
        Ok(Image {
            names: saved.repo_tags.clone().unwrap_or_default(),
            digest,
            blobs,
        })
    }

    /// A file of the archive by the sum of its bytes.
    fn summed(&self, name: &str) -> Result<Blob> {
        let mut file = self.read(name)?;
        let mut sum = Sum::default();
        let (mut size, mut buffer) = (0, vec![0; 1 << 20]);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => {
                    sum.update(&buffer[..read]);
                    size += read as u64;
                }
            }
        }
        Ok(Blob {
            digest: sum.digest(),
            size,
            place: Place::File(name.to_owned()),
        })
    }
}

/// The whole names under which an image is imported: those of the archive, or the one that was given for it.
pub fn names(image: &Image, given: Option<&str>) -> Result<Vec<String>> {
    if let Some(given) = given {
        return Ok(vec![given.to_owned()]);
    }
    let whole = |name: &String| name.contains('/') || name.contains(':');
    match image.names.iter().find(|name| !whole(name)) {
        Some(tag) => bail!("the archive says only the tag {tag}: say the whole name by --name"),
        None if image.names.is_empty() => {
            bail!("the archive does not say what its image is called: say it by --name")
        }
        None => Ok(image.names.clone()),
    }
}
