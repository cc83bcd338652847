//! What a claim is tried on: a pool of one kind, fresh and empty, with a node that serves it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use std::sync::Arc;

use orlop::config;
use orlop::driver::leftovers::Kind;
use orlop::driver::mounts::{PublishSpec, StageSpec};
use orlop::host::Host;
use orlop::host::gate::Gate;
use orlop::volume::{Access, Bytes, Use, Volume, VolumeSpec};

use crate::fake::{Disk, Fake};
use crate::support::form::Form;
use crate::support::home::Home;
use crate::support::until;
use crate::support::verbs::Node;

/// What is written to a block device at a time.
const BLOCK: usize = 4096;

/// The size of most volumes: all filesystems can be made in it.
pub(crate) const USUAL: Bytes = Bytes::MIB.times(320);

/// The size to which they grow.
pub(crate) const LARGER: Bytes = USUAL.times(2);

/// A claim by its name.
pub(crate) type Claim = (&'static str, fn(&mut Trial));

/// One pool, its node, and a desk beside it where volumes are staged and published.
pub(crate) struct Trial {
    pub(crate) form: Form,
    pub(crate) config: config::Pool,
    pub(crate) place: PathBuf,
    pub(crate) desk: PathBuf,
    pub(crate) home: Home,
    disk: Option<Arc<Disk>>,
    node: Option<Node>,
}

impl Trial {
    /// On a pool of its own, at the directory `place` if it is one of folders.
    pub(crate) fn new(home: Home, form: Form, place: PathBuf, desk: PathBuf) -> Self {
        fs::create_dir(&desk).expect("it is new");
        let config = config::Pool {
            name: "pool".parse().expect("it is a legal name"),
            kind: home.pool(&place),
        };
        let mut trial = Self {
            form,
            config,
            place,
            desk,
            disk: matches!(home, Home::Memory).then(Arc::default),
            home,
            node: None,
        };
        trial.restart();
        trial
    }

    /// Ends the process, as far as the pool can tell, and begins another.
    pub(crate) fn restart(&mut self) {
        self.node = None;
        let started = match &self.disk {
            None => Node::start(&self.config, Gate::open()),
            Some(disk) => {
                let (name, disk) = (self.config.name.clone(), Arc::clone(disk));
                Node::over(Arc::new(Fake { name, disk }), Host::new(Gate::open()))
            }
        };
        self.node = Some(started.expect("the pool opens"));
    }

    /// Ends the process.
    pub(crate) fn stop(&mut self) {
        self.node = None;
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().expect("it was started")
    }

    pub(crate) fn spec(&self, name: &str) -> VolumeSpec {
        self.form.spec(name, USUAL)
    }

    /// A volume of the usual size.
    pub(crate) fn create(&self, name: &str) -> Volume {
        let made = self.node().create(&self.spec(name));
        made.expect("there is room")
    }

    /// A volume of the usual size that holds `content`.
    pub(crate) fn filled(&self, name: &str, content: &str) -> Volume {
        let volume = self.create(name);
        self.write(&volume, content);
        volume
    }

    pub(crate) fn write(&self, volume: &Volume, content: &str) {
        let shown = self.show(volume);
        shown.write(content);
        shown.hide();
    }

    pub(crate) fn read(&self, volume: &Volume) -> String {
        let shown = self.show(volume);
        let content = shown.read();
        shown.hide();
        content
    }

    pub(crate) fn staging(&self, volume: &Volume) -> StageSpec {
        StageSpec {
            volume: volume.id.clone(),
            capability: self.form.used(Use::Writers, false),
            staging: self.desk.join(format!("{}.staging", volume.id.name)),
            key: self.form.key(),
        }
    }

    pub(crate) fn publication(&self, volume: &Volume, usage: Use, read_only: bool) -> PublishSpec {
        PublishSpec {
            volume: volume.id.clone(),
            capability: self.form.used(usage, read_only),
            staging: self.staging(volume).staging,
            target: self.desk.join(format!("{}.target", volume.id.name)),
        }
    }

    /// Stages and publishes a volume.
    pub(crate) fn show(&self, volume: &Volume) -> Shown<'_> {
        if self.disk.is_none() {
            let node = self.node();
            node.stage(&self.staging(volume)).expect("it stages");
            node.publish(&self.publication(volume, Use::Writers, false))
                .expect("it publishes");
        }
        self.shown(volume)
    }

    /// A volume that is published already.
    pub(crate) fn shown(&self, volume: &Volume) -> Shown<'_> {
        Shown {
            trial: self,
            volume: volume.clone(),
            target: self.publication(volume, Use::Writers, false).target,
        }
    }

    /// Every call about this volume must refuse it, for its record can not be read, and say these words.
    pub(crate) fn assert_unreadable(&self, volume: &Volume, words: &[&str]) {
        let node = self.node();
        let told = [
            node.get(&volume.id).map(drop),
            node.create(&self.spec(&volume.record.csi_name)).map(drop),
            node.delete(&volume.id),
        ];
        for told in told {
            let told = told.expect_err("nobody knows what it is").to_string();
            assert!(words.iter().all(|word| told.contains(word)), "{told}");
        }
    }

    /// One record that can not be read, and nothing else, must be told as left over, in these words.
    pub(crate) fn assert_left_over(&self, words: &str) {
        let [left] = &self.node().leftovers()[..] else {
            panic!("one is left over: {:?}", self.node().leftovers());
        };
        assert!(left.kind == Kind::Unreadable && left.message.contains(words));
    }

    /// Whether nothing is aside: neither half-made nor half-removed. Waits for it, for a sweep takes its time.
    pub(crate) fn is_tidy(&self) -> bool {
        let whole = |entry: &String| !entry.starts_with("making/") && !entry.starts_with("trash/");
        until(|| self.home.contents(&self.place).iter().all(whole))
    }
}

/// A published volume.
pub(crate) struct Shown<'a> {
    trial: &'a Trial,
    volume: Volume,
    pub(crate) target: PathBuf,
}

impl Shown<'_> {
    pub(crate) fn write(&self, content: &str) {
        match &self.trial.disk {
            Some(disk) => disk.write(&self.volume.id.name, content),
            None => self.try_write(content).expect("there is room"),
        }
    }

    pub(crate) fn try_write(&self, content: &str) -> std::io::Result<()> {
        self.write_at("content", 0, content)
    }

    /// What was written; nothing if nothing was.
    pub(crate) fn read(&self) -> String {
        if let Some(disk) = &self.trial.disk {
            return disk.read(&self.volume.id.name);
        }
        if self.trial.form.access == Access::Block {
            let mut block = [0; BLOCK];
            let device = File::open(&self.target).expect("it is published");
            device.read_exact_at(&mut block, 0).expect("it can be read");
            let text = String::from_utf8_lossy(&block);
            return text.trim_end_matches('\0').to_owned();
        }
        match fs::read_to_string(self.target.join("content")) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            content => content.expect("it can be read"),
        }
    }

    /// Whether the last bytes of a volume of this size can be used: of a filesystem nearly the last, for it needs some.
    pub(crate) fn reaches(&self, size: Bytes) -> bool {
        if self.trial.form.access == Access::Block {
            let last = size.0 - BLOCK as u64;
            return self.write_at("", last, "the end").is_ok();
        }
        let path = self.target.join("large");
        let file = File::create(&path).expect("there is room for a name");
        let most = size.0 / 4 * 3;
        let fits = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, most);
        drop(file);
        fs::remove_file(path).expect("it was made a moment ago");
        fits.is_ok()
    }

    fn write_at(&self, name: &str, at: u64, content: &str) -> std::io::Result<()> {
        if self.trial.form.access == Access::Block {
            let mut block = content.as_bytes().to_owned();
            block.resize(BLOCK, 0);
            let device = File::options().write(true).open(&self.target)?;
            device.write_all_at(&block, at)?;
            return device.sync_all();
        }
        fs::write(self.target.join(name), content)
    }

    /// Unpublishes and unstages it.
    pub(crate) fn hide(self) {
        if self.trial.disk.is_none() {
            let (node, id) = (self.trial.node(), &self.volume.id);
            node.unpublish(id, &self.target).expect("it unpublishes");
            let staging = self.trial.staging(&self.volume).staging;
            node.unstage(id, &staging).expect("it unstages");
        }
    }
}
