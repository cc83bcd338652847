//! What a volume, its one snapshot and its mounts must be after each call, and what they are.

#![allow(dead_code, reason = "no test needs all of it")]

use std::fs;
use std::path::{Path, PathBuf};

use orlop::csi::proto::{ControllerGetVolumeRequest, CreateVolumeRequest, Snapshot, Volume};
use orlop::host::mount::Entry;
use tonic::{Code, Status};

use crate::calls::{self, Client, MIB};
use crate::dice::Dice;

/// A call about one volume; sizes in mebibytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Create(i64),
    Restore(i64),
    Delete,
    Grow(i64),
    Get,
    Snapshot,
    DeleteSnapshot,
    Stage,
    Unstage,
    Publish(usize),
    Unpublish(usize),
    /// No call: the consumer at this target puts a number into the volume.
    Write(usize, u64),
}

/// The size that was answered, 0 where none is, or the code of the refusal.
pub(crate) type Answer = Result<i64, Code>;

/// A volume, its snapshot and its mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) volume: Option<Held>,
    pub(crate) snapshot: Option<Held>,
    pub(crate) staged: usize,
    pub(crate) published: [usize; 2],
}

/// What is in a volume or a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub(crate) size: i64,
    /// The number that a consumer put there.
    pub(crate) content: u64,
    /// Whether it was made from the snapshot.
    pub(crate) restored: bool,
}

impl Dice {
    /// A call, those more often that make later ones interesting.
    pub(crate) fn op(&mut self) -> Op {
        let size = i64::try_from(1 + self.roll(4)).expect("it is small") * 4;
        let target = self.roll(2);
        match self.roll(18) {
            0..=2 => Op::Create(size),
            3 => Op::Restore(size),
            4 | 5 => Op::Delete,
            6 => Op::Grow(size),
            7 => Op::Get,
            8 | 9 => Op::Snapshot,
            10 => Op::DeleteSnapshot,
            11 | 12 => Op::Stage,
            13 => Op::Unstage,
            14 | 15 => Op::Publish(target),
            _ => Op::Unpublish(target),
        }
    }
}

impl State {
    /// The answer that the call must get now; the state becomes the one after it.
    pub(crate) fn step(&mut self, op: Op) -> Answer {
        let missing = Err(Code::NotFound);
        match (op, self.volume.as_mut()) {
            (Op::Create(size), Some(volume)) => held(volume, size, false),
            (Op::Restore(size), Some(volume)) => held(volume, size, true),
            (Op::Create(size), None) => {
                self.volume = Some(Held {
                    size,
                    content: 0,
                    restored: false,
                });
                Ok(size)
            }
            (Op::Restore(size), None) => self.snapshot.map_or(missing, |snapshot| {
                let size = size.max(snapshot.size);
                self.volume = Some(Held {
                    size,
                    restored: true,
                    ..snapshot
                });
                Ok(size)
            }),
            (Op::Delete, Some(_)) if self.staged + self.published[0] + self.published[1] > 0 => {
                Err(Code::FailedPrecondition)
            }
            (Op::Delete, _) => {
                self.volume = None;
                Ok(0)
            }
            (Op::Grow(size), Some(volume)) => {
                volume.size = volume.size.max(size);
                Ok(volume.size)
            }
            (Op::Get, Some(volume)) => Ok(volume.size),
            (Op::Snapshot, volume) => match (self.snapshot, volume) {
                (Some(snapshot), _) => Ok(snapshot.size),
                (None, None) => missing,
                (None, Some(volume)) => {
                    self.snapshot = Some(Held {
                        restored: false,
                        ..*volume
                    });
                    Ok(volume.size)
                }
            },
            (Op::DeleteSnapshot, _) => {
                self.snapshot = None;
                Ok(0)
            }
            (Op::Stage, Some(_)) => {
                self.staged = 1;
                Ok(0)
            }
            (Op::Publish(_), Some(_)) if self.staged == 0 => Err(Code::FailedPrecondition),
            (Op::Publish(target), Some(_)) => {
                self.published[target] = 1;
                Ok(0)
            }
            (Op::Grow(_) | Op::Get | Op::Stage | Op::Publish(_), None) => missing,
            (Op::Unstage, _) => {
                self.staged = 0;
                Ok(0)
            }
            (Op::Unpublish(target), _) => {
                self.published[target] = 0;
                Ok(0)
            }
            (Op::Write(_, content), volume) => {
                volume.expect("a consumer has one").content = content;
                Ok(0)
            }
        }
    }
}

fn held(volume: &Held, size: i64, restored: bool) -> Answer {
    if volume.size >= size && volume.restored == restored {
        Ok(volume.size)
    } else {
        Err(Code::AlreadyExists)
    }
}

/// A volume of this model: its names, and its consumers' paths.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    name: String,
    at: PathBuf,
    image: bool,
}

impl Slot {
    /// With paths beneath `at`, where a directory is made for them.
    pub(crate) fn new(name: String, at: &Path, image: bool) -> Self {
        let at = at.join(&name);
        fs::create_dir_all(&at).expect("the temporary directory can be written");
        Self { name, at, image }
    }

    /// Whether what a consumer writes can be seen in the pool.
    pub(crate) fn is_tree(&self) -> bool {
        !self.image
    }

    fn id(&self) -> String {
        format!("default/{}", self.name)
    }

    fn snapshot_id(&self) -> String {
        format!("default/{0}@s-{0}", self.name)
    }

    fn staging(&self) -> PathBuf {
        self.at.join("staging")
    }

    fn target(&self, number: usize) -> PathBuf {
        self.at.join(format!("target-{number}"))
    }

    fn wanted(&self, size: i64) -> CreateVolumeRequest {
        if self.image {
            calls::image(&self.name, size * MIB, "ext4")
        } else {
            calls::volume(&self.name, size * MIB)
        }
    }

    /// Makes the call, and gives its answer in full.
    pub(crate) async fn call(&self, client: &mut Client, op: Op) -> Result<i64, Status> {
        let id = self.id();
        match op {
            Op::Create(size) => client
                .create(self.wanted(size))
                .await
                .map(|made| made.capacity_bytes / MIB),
            Op::Restore(size) => {
                let source = Some(calls::of_snapshot(&self.snapshot_id()));
                let request = CreateVolumeRequest {
                    volume_content_source: source,
                    ..self.wanted(size)
                };
                client
                    .create(request)
                    .await
                    .map(|made| made.capacity_bytes / MIB)
            }
            Op::Delete => client.delete(&id).await.map(|()| 0),
            Op::Grow(size) => client.grow(&id, size * MIB).await.map(|bytes| bytes / MIB),
            Op::Get => {
                let found = client
                    .controller
                    .controller_get_volume(ControllerGetVolumeRequest { volume_id: id })
                    .await?;
                Ok(found
                    .into_inner()
                    .volume
                    .map_or(0, |volume| volume.capacity_bytes)
                    / MIB)
            }
            Op::Snapshot => {
                let taken = client.snapshot(&format!("s-{}", self.name), &id).await?;
                Ok(taken.size_bytes / MIB)
            }
            Op::DeleteSnapshot => client
                .delete_snapshot(&self.snapshot_id())
                .await
                .map(|()| 0),
            Op::Stage => client
                .stage(&id, &self.staging(), calls::mounted())
                .await
                .map(|()| 0),
            Op::Unstage => client.unstage(&id, &self.staging()).await.map(|()| 0),
            Op::Publish(number) => {
                let request = calls::publication(&id, &self.staging(), &self.target(number));
                client.publish(request).await.map(|()| 0)
            }
            Op::Unpublish(number) => client
                .unpublish(&id, &self.target(number))
                .await
                .map(|()| 0),
            Op::Write(number, content) => {
                let written = fs::write(self.target(number).join("content"), content.to_string());
                written.expect("a published volume can be written");
                Ok(0)
            }
        }
    }

    /// What is there, by the driver's lists, the kernel's table of mounts, and the pool's own files.
    pub(crate) fn look(
        &self,
        volumes: &[Volume],
        snapshots: &[Snapshot],
        mounts: &[Entry],
        pool: &Path,
    ) -> State {
        let count = |path: PathBuf| mounts.iter().filter(|mount| mount.target == path).count();
        let content = |entry: PathBuf| {
            let text = fs::read_to_string(entry.join("data/content"));
            text.map_or(0, |text| text.parse().expect("whole numbers are written"))
        };
        let volume = volumes.iter().find(|volume| volume.volume_id == self.id());
        let snapshot = snapshots
            .iter()
            .find(|snapshot| snapshot.snapshot_id == self.snapshot_id());
        State {
            volume: volume.map(|volume| Held {
                size: volume.capacity_bytes / MIB,
                content: content(pool.join("volumes").join(&self.name)),
                restored: volume.content_source.is_some(),
            }),
            snapshot: snapshot.map(|snapshot| Held {
                size: snapshot.size_bytes / MIB,
                content: content(pool.join("snapshots").join(format!("s-{}", self.name))),
                restored: false,
            }),
            staged: count(self.staging()),
            published: [0, 1].map(|number| count(self.target(number))),
        }
    }
}
