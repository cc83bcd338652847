//! Names of images: registry, repository and tag, checked as they come in.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// Where an image lives: the registry that its name begins with, and its path there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Repository {
    registry: String,
    path: String,
}

/// What stands behind the repository in a request for a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Movable.
    Tag(String),
    /// Fixed.
    Digest(Digest),
}

impl Repository {
    /// A repository from a path and the registry named beside it (containerd's `?ns=`).
    ///
    /// Without one, the path may begin with a registry, as the mirrors of skopeo, Podman and CRI-O have it; and a
    /// path that does not is one of `docker.io`, the only registry that Docker mirrors. Nothing if any of it is
    /// malformed.
    pub fn parse(path: &str, ns: Option<&str>) -> Option<Self> {
        let (registry, path) = match (ns, path.split_once('/')) {
            (Some(ns), _) => (ns, path),
            (None, Some((first, rest))) if first.contains(['.', ':']) || first == "localhost" => {
                (first, rest)
            }
            (None, _) => ("docker.io", path),
        };
        let official = registry == "docker.io" && !path.contains('/');
        (is_registry(registry) && is_path(path)).then(|| Self {
            registry: registry.to_owned(),
            path: if official {
                format!("library/{path}")
            } else {
                path.to_owned()
            },
        })
    }

    /// The registry: a host, perhaps with a port.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

impl Reference {
    /// Reads a tag or a digest; nothing if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains(':') {
            return text.parse().ok().map(Self::Digest);
        }
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_tag = (1..=128).contains(&text.len())
            && text.bytes().all(legal)
            && !text.starts_with(['.', '-']);
        is_tag.then(|| Self::Tag(text.to_owned()))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// Reads the name of an image as people write it: `alpine`, `quay.io/a/b:v1`, `a/b@sha256:…`. Without a tag it is `latest`.
pub fn image(text: &str) -> Option<(Repository, Reference)> {
    let tagged = |text: &str| match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path.to_owned(), tag.to_owned()),
        _ => (text.to_owned(), "latest".to_owned()),
    };
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    let (path, tag) = tagged(name);
    // A tag beside a digest says nothing.
    let reference = match digest {
        Some(digest) => Reference::Digest(digest.parse().ok()?),
        None => Reference::parse(&tag)?,
    };
    Some((Repository::parse(&path, None)?, reference))
}

/// A host name or address, perhaps with a port; nothing that could change the rest of a URL.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'));
    let legal_host = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            host.starts_with(|first: char| first.is_ascii_alphanumeric())
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        }
    };
    legal_host && text.len() <= 255 && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn is_path(text: &str) -> bool {
    let legal =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    text.len() <= 255
        && text.split('/').all(|part| {
            part.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
                && part.bytes().all(legal)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, ns: Option<&str>) -> Option<String> {
        Repository::parse(path, ns).map(|repository| repository.to_string())
    }

    #[test]
    fn all_three_dialects_name_the_same_image() {
        let same = Some("docker.io/library/alpine".to_owned());

        assert_eq!(read("library/alpine", Some("docker.io")), same);
        assert_eq!(read("docker.io/library/alpine", None), same);
        assert_eq!(read("alpine", None), same);
    }

    #[test]
    fn a_port_and_deep_paths_belong_to_the_name() {
        assert_eq!(
            read("registry.test:5000/a/b/c", None).as_deref(),
            Some("registry.test:5000/a/b/c")
        );
        assert_eq!(
            read("a/b", Some("[::1]:5000")).as_deref(),
            Some("[::1]:5000/a/b")
        );
    }

    #[test]
    fn nothing_that_could_redirect_a_request_is_a_name() {
        for (path, ns) in [
            ("a/../b", None),
            ("a//b", None),
            ("", None),
            ("a?b", None),
            ("a", Some("host/path")),
            ("a", Some("user@host")),
            ("a", Some("host:99999")),
            ("a", Some("")),
            ("A/b", Some("host")),
        ] {
            assert_eq!(read(path, ns), None, "{path} {ns:?}");
        }
    }

    #[test]
    fn an_image_is_named_as_people_do() {
        let digest = Digest::of(b"");
        let by_digest = format!("a/b:v1@{digest}");

        for (text, wanted) in [
            ("alpine", "docker.io/library/alpine latest".to_owned()),
            ("quay.io/a/b:v1", "quay.io/a/b v1".to_owned()),
            ("localhost:5000/a", "localhost:5000/a latest".to_owned()),
            (&by_digest, format!("docker.io/a/b {digest}")),
        ] {
            let (repository, reference) = image(text).expect("it is a name");
            assert_eq!(format!("{repository} {reference}"), wanted);
        }
        assert_eq!(image("a b"), None);
        assert_eq!(image("a:"), None);
    }

    #[test]
    fn a_reference_is_a_tag_or_a_digest() {
        let digest = Digest::of(b"");

        assert_eq!(
            Reference::parse("v1.0_x-y"),
            Some(Reference::Tag("v1.0_x-y".to_owned()))
        );
        assert_eq!(
            Reference::parse(&digest.to_string()),
            Some(Reference::Digest(digest))
        );
        assert_eq!(Reference::parse("sha256:zz"), None);
        assert_eq!(Reference::parse(".hidden"), None);
    }
}
