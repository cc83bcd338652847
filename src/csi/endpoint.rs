//! Where a socket is, as people and the kubelet write it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};

/// What `sockaddr_un` holds, without its final NUL.
const LONGEST_PATH: usize = 107;

/// The absolute path of a Unix socket.
///
/// Read from `unix:///run/csi.sock`, `unix:/run/csi.sock` or a bare path, which may be relative; printed as the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(PathBuf);

impl Endpoint {
    /// The socket at this path; a relative one starts in the current directory.
    ///
    /// # Errors
    /// A path that is empty, or longer than the 107 bytes that a socket address holds.
    pub fn at(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let path = std::path::absolute(path)
            .with_context(|| format!("\"{}\" is not the path of a socket", path.display()))?;
        let length = path.as_os_str().len();
        ensure!(
            length <= LONGEST_PATH,
            "{} is too long for a socket: {length} bytes, and {LONGEST_PATH} is the most",
            path.display()
        );
        Ok(Self(path))
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let path = match text.split_once(':') {
            Some(("unix", rest)) => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                path.starts_with('/').then_some(path)
            }
            // A colon after the first slash belongs to a file's name.
            Some((scheme, _)) if !scheme.contains('/') => None,
            _ => Some(text),
        };
        match path {
            Some(path) => Self::at(path),
            None => bail!(
                "{text:?} is not an endpoint: write it like unix:///run/csi.sock or /run/csi.sock"
            ),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_an_endpoint_means_the_same_path() {
        for text in ["unix:///run/o.sock", "unix:/run/o.sock", "/run/o.sock"] {
            let endpoint: Endpoint = text.parse().expect(text);

            assert_eq!(endpoint.path(), Path::new("/run/o.sock"));
            assert_eq!(endpoint.to_string(), "unix:///run/o.sock");
        }
        for text in ["o.sock", "./o.sock", "./a:b"] {
            let endpoint: Endpoint = text.parse().expect(text);

            assert!(endpoint.path().is_absolute(), "{endpoint}");
        }
    }

    #[test]
    fn what_is_no_unix_socket_is_refused_with_an_example() {
        for text in [
            "tcp://127.0.0.1:9000",
            "127.0.0.1:9000",
            "unix://o.sock",
            "unix:o.sock",
            "unix:",
            "unix-abstract:orlop",
        ] {
            let error = text.parse::<Endpoint>().expect_err(text);

            assert!(
                error.to_string().contains("unix:///run/csi.sock"),
                "{error}"
            );
        }
        "".parse::<Endpoint>().expect_err("it is empty");
    }

    #[test]
    fn a_path_of_107_bytes_is_the_longest() {
        let longest = format!("/{}", "o".repeat(106));

        longest.parse::<Endpoint>().expect("it fits");
        let error = format!("{longest}o").parse::<Endpoint>();

        let error = error.expect_err("it is too long").to_string();
        assert!(error.contains("108 bytes, and 107 is the most"), "{error}");
    }
}
