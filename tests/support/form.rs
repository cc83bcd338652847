//! What kind of volumes a test makes.

use orlop::volume::{
    Access, Bytes, Capability, CapacityRange, Claim, Class, Filesystem, Layout, MountOptions,
    Secret, Snapshot, Source, Use, Volume, VolumeSpec, Wishes,
};

/// The key of the encrypted volumes of tests.
pub(crate) const KEY: &str = "this is the key of all encrypted volumes of tests";

/// What kind of volumes a test makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) access: Access,
    pub(crate) layout: Option<Layout>,
    pub(crate) filesystem: Option<Filesystem>,
    pub(crate) encryption: bool,
    /// Whether its size must be enforced.
    pub(crate) quota: bool,
}

impl Form {
    pub(crate) const TREE: Self = Self {
        access: Access::Mount,
        layout: Some(Layout::Tree),
        filesystem: None,
        encryption: false,
        quota: false,
    };
    pub(crate) const QUOTA: Self = Self {
        quota: true,
        ..Self::TREE
    };
    pub(crate) const BLOCK: Self = Self {
        access: Access::Block,
        layout: None,
        filesystem: None,
        encryption: false,
        quota: false,
    };

    pub(crate) const fn image(filesystem: Filesystem) -> Self {
        Self {
            access: Access::Mount,
            layout: Some(Layout::Image),
            filesystem: Some(filesystem),
            encryption: false,
            quota: false,
        }
    }

    pub(crate) const fn device(filesystem: Filesystem) -> Self {
        Self {
            layout: Some(Layout::Device),
            ..Self::image(filesystem)
        }
    }

    pub(crate) const fn encrypted(self) -> Self {
        Self {
            encryption: true,
            ..self
        }
    }

    /// The key of volumes of this form, if they have one.
    pub(crate) fn key(self) -> Option<Secret> {
        self.encryption
            .then(|| Secret::from(KEY.as_bytes().to_vec()))
    }

    pub(crate) fn is_tree(self) -> bool {
        self.layout == Some(Layout::Tree)
    }

    pub(crate) fn class(self) -> Class {
        Class {
            pool: None,
            access: self.access,
            filesystem: self.filesystem,
            layout: self.layout,
            require_quota: self.quota,
            encryption: self.encryption.then_some(true),
            wishes: Wishes::default(),
        }
    }

    pub(crate) fn spec(self, name: &str, size: Bytes) -> VolumeSpec {
        VolumeSpec {
            csi_name: name.to_owned(),
            class: self.class(),
            mutable: Wishes::default(),
            range: at_least(size),
            source: None,
            claim: Claim::default(),
            ephemeral: false,
        }
    }

    pub(crate) fn restored(self, name: &str, size: Bytes, from: &Snapshot) -> VolumeSpec {
        VolumeSpec {
            source: Some(Source::Snapshot(from.id.clone())),
            ..self.spec(name, size)
        }
    }

    pub(crate) fn cloned(self, name: &str, size: Bytes, from: &Volume) -> VolumeSpec {
        VolumeSpec {
            source: Some(Source::Volume(from.id.clone())),
            ..self.spec(name, size)
        }
    }

    pub(crate) fn used(self, usage: Use, read_only: bool) -> Capability {
        let mut options = MountOptions::default();
        options.attributes.read_only = read_only;
        Capability {
            access: self.access,
            filesystem: self.filesystem,
            options,
            usage,
        }
    }
}

pub(crate) fn wishes(pairs: &[(&str, &str)]) -> Wishes {
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(text).collect()
}

pub(crate) fn at_least(size: Bytes) -> CapacityRange {
    CapacityRange {
        required: Some(size),
        limit: None,
    }
}
