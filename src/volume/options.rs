//! Mount options: which words a caller may say, and what each of them means to the kernel.

use super::{Error, Result};

/// The longest key and value that the kernel takes.
const MOST: usize = 255;

/// Words that would make of a mount something other than this volume at this path, or take the node down with it.
const REFUSED: [&str; 36] = [
    // Other kinds of mount call.
    "bind",
    "rbind",
    "move",
    "rmove",
    "remount",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "private",
    "rprivate",
    "unbindable",
    "runbindable",
    // Other devices than the volume's.
    "source",
    "loop",
    "offset",
    "sizelimit",
    "encryption",
    "device",
    "journal_dev",
    "journal_path",
    "logdev",
    "rtdev",
    // Another root than the volume's, which would no longer be recognised as ours.
    "subvol",
    "subvolid",
    // For mount(8) alone: who may mount, and when.
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "auto",
    "noauto",
    "helper",
    "uhelper",
    "_netdev",
    "nofail",
];

/// When a read renews the time of last access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessTime {
    /// Never.
    Never,
    /// When it is older than the last change, or than a day: the kernel's own choice.
    Relative,
    /// Always.
    Strict,
}

/// What holds for one mount, whatever other mounts of the same filesystem say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the kernel's own flags, each independent of the others"
)]
pub struct MountAttributes {
    /// Nothing can be written through it.
    pub read_only: bool,
    /// Set-user-id and set-group-id bits have no effect.
    pub nosuid: bool,
    /// Device nodes can not be opened.
    pub nodev: bool,
    /// Programs can not be started.
    pub noexec: bool,
    /// Reading a directory does not renew its time of last access.
    pub nodiratime: bool,
    /// When reading renews the time of last access; nothing means as the mount that it is made of.
    pub access_time: Option<AccessTime>,
}

/// The options of a mount, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Those of the one mount.
    pub attributes: MountAttributes,
    /// Those of the filesystem, in their order: a key, and its value if it has one.
    pub filesystem: Vec<(String, Option<String>)>,
}

impl MountOptions {
    /// Reads the mount flags of a capability (CSI 1.13, `MountVolume.mount_flags`); of words that contradict each
    /// other the last one holds.
    ///
    /// # Errors
    /// `Invalid`, naming the option that is malformed, or that no volume may be mounted with.
    pub fn parse(flags: &[String]) -> Result<Self> {
        let mut options = Self::default();
        flags
            .iter()
            .flat_map(|flag| flag.split(','))
            .try_for_each(|word| options.add(word))?;
        Ok(options)
    }

    fn add(&mut self, word: &str) -> Result<()> {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (word, None),
        };
        let longest = key.len().max(value.map_or(0, str::len));
        if key.is_empty() || longest > MOST || word.chars().any(char::is_control) {
            return Err(refused(word, "it is malformed"));
        }
        let panics = value == Some("panic");
        if REFUSED.contains(&key) || key.starts_with("x-") || key.starts_with("X-") || panics {
            return Err(refused(word, "no volume may be mounted with it"));
        }
        match (self.attributes.set(key), value) {
            (true, None) => {}
            (true, Some(_)) => return Err(refused(word, "it takes no value")),
            (false, _) => self
                .filesystem
                .push((key.to_owned(), value.map(str::to_owned))),
        }
        Ok(())
    }
}

impl MountAttributes {
    /// Takes in one word; false if it is none for a mount.
    fn set(&mut self, word: &str) -> bool {
        match word {
            "defaults" => {}
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "nosuid" => self.nosuid = true,
            "suid" => self.nosuid = false,
            "nodev" => self.nodev = true,
            "dev" => self.nodev = false,
            "noexec" => self.noexec = true,
            "exec" => self.noexec = false,
            "nodiratime" => self.nodiratime = true,
            "diratime" => self.nodiratime = false,
            "noatime" => self.access_time = Some(AccessTime::Never),
            "relatime" => self.access_time = Some(AccessTime::Relative),
            "strictatime" => self.access_time = Some(AccessTime::Strict),
            _ => return false,
        }
        true
    }
}

fn refused(word: &str, why: &str) -> Error {
    let shown: String = word.chars().take(64).collect();
    Error::Invalid(format!("mount option {shown:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Result<MountOptions> {
        MountOptions::parse(&flags.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn flags_of_the_mount_are_told_from_options_of_the_filesystem() {
        let options = parse(&["ro,noatime", "commit=30", "nosuid", "discard"]).expect("all legal");

        assert_eq!(
            options.attributes,
            MountAttributes {
                read_only: true,
                nosuid: true,
                access_time: Some(AccessTime::Never),
                ..MountAttributes::default()
            }
        );
        assert_eq!(
            options.filesystem,
            [
                ("commit".to_owned(), Some("30".to_owned())),
                ("discard".to_owned(), None)
            ]
        );
    }

    #[test]
    fn of_words_that_contradict_each_other_the_last_one_holds() {
        let options = parse(&[
            "ro", "nodev", "noexec", "nosuid", "defaults", "rw", "dev", "exec", "suid",
        ]);

        assert_eq!(options.expect("all legal"), MountOptions::default());
    }

    #[test]
    fn what_could_harm_or_is_malformed_is_refused_by_name() {
        let long = "k".repeat(256);
        let wrong = [
            "bind",
            "remount",
            "loop=/dev/loop0",
            "offset=512",
            "source=/dev/sda",
            "journal_path=/dev/sda",
            "device=/dev/sda",
            "x-systemd.automount",
            "errors=panic",
            "fatal_errors=panic",
            "ro=1",
            "",
            "=1",
            "commit=1\n",
            "no\0such",
            &long,
        ];

        for word in wrong {
            for flags in [&[word][..], &["noatime", word]] {
                let error = parse(flags).expect_err(word);

                let named: String = word.chars().take(64).collect();
                assert!(
                    matches!(&error, Error::Invalid(text) if text.contains(&format!("{named:?}"))),
                    "{error}"
                );
            }
        }
        assert!(parse(&["noatime,"]).is_err(), "an empty word at the end");
        assert_eq!(parse(&[]).expect("nothing"), MountOptions::default());
    }
}
