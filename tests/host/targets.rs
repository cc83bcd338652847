//! Which paths are refused as a target, with the new mount calls and the old ones.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::sandbox::{plain, with_both};

#[test]
fn a_symlink_anywhere_is_refused_and_named() {
    with_both(|mounts, dir| {
        let (source, link) = (dir.join("source"), dir.join("link"));
        fs::create_dir(source.join("below")).expect("it is new");
        symlink(&source, &link).expect("it is new");
        let refused = |done: anyhow::Result<()>| {
            let error = format!("{:#}", done.expect_err("it leads through a symlink"));
            assert!(
                error.contains(&format!("symlink: {}", link.display())),
                "{error}"
            );
        };

        for path in [link.clone(), link.join("below"), link.join("below/deeper")] {
            refused(mounts.at(&path).map(drop));
            refused(mounts.bind(&source, &path, plain()));
            refused(mounts.bind(&path, &dir.join("target"), plain()));
            refused(mounts.unmount(&path));
            refused(mounts.remove_target(&path));
        }

        let left = fs::read_dir(&source).expect("it is there").count();
        assert_eq!(left, 2, "nothing was made or removed behind the link");
        assert!(
            mounts
                .all()
                .expect("readable")
                .iter()
                .all(|entry| !entry.target.starts_with(&source))
        );
    });
}

#[test]
fn a_path_that_is_relative_or_has_dots_is_refused() {
    with_both(|mounts, dir| {
        let source = dir.join("source");
        let wrong = [
            "target".into(),
            dir.join("./target"),
            source.join("../target"),
            source.join("."),
        ];

        for path in wrong {
            assert!(mounts.at(&path).is_err(), "{}", path.display());
            assert!(mounts.bind(&source, &path, plain()).is_err());
            assert!(mounts.unmount(&path).is_err());
            assert!(mounts.remove_target(&path).is_err());
        }

        assert!(mounts.bind(&source, Path::new("/"), plain()).is_err());
        assert!(!dir.join("target").exists());
    });
}

#[test]
fn a_missing_parent_and_a_target_of_the_wrong_kind_are_refused() {
    with_both(|mounts, dir| {
        let source = dir.join("source");
        let file = dir.join("file");
        fs::write(&file, "").expect("it is new");

        assert!(
            mounts
                .bind(&source, &dir.join("missing/target"), plain())
                .is_err()
        );
        assert!(mounts.bind(&source, &file, plain()).is_err());
        assert!(mounts.bind(&file, &dir.join("target"), plain()).is_err());

        assert!(!dir.join("missing").exists() && !dir.join("target").exists());
    });
}

#[test]
fn only_an_empty_target_is_removed() {
    with_both(|mounts, dir| {
        let (source, target) = (dir.join("source"), dir.join("target"));
        mounts.bind(&source, &target, plain()).expect("it binds");
        assert!(mounts.remove_target(&target).is_err(), "it is a mount");
        mounts.unmount(&target).expect("it is mounted");

        assert!(mounts.remove_target(&source).is_err(), "it has a file");
        assert!(mounts.remove_target(&source.join("file")).is_err());
        mounts.remove_target(&target).expect("it is empty");
        mounts.remove_target(&target).expect("it is gone already");
        mounts
            .remove_target(&target.join("deeper"))
            .expect("so is its parent");

        assert!(source.join("file").exists() && !target.exists());
    });
}
