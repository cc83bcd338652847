//! The sockets of what may serve beside the node: each that is there must have somebody who serves.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::Finding;

/// What it is, where, and what starts who serves.
const SOCKETS: [(&str, &str, &str); 2] = [
    (
        "Docker plugin",
        "/run/docker/plugins/orlop.sock",
        "Docker waits for it at each call: `systemctl restart orlop-docker`, or remove the file",
    ),
    (
        "layer cache",
        "/var/lib/orlop/layers/admin.sock",
        "start `orlop layers`; if it shall not run, say `orlop layers restore`, and remove the file",
    ),
];

/// One for each socket that is there.
pub(super) fn findings() -> Vec<Finding> {
    let found = |(check, path, advice): (&str, &str, &str)| look(check, Path::new(path), advice);
    SOCKETS.into_iter().filter_map(found).collect()
}

fn look(check: &str, path: &Path, advice: &str) -> Option<Finding> {
    let shown = path.display();
    match UnixStream::connect(path) {
        Ok(_) => Some(Finding::ok(check, format!("it serves on {shown}"))),
        Err(error) => match error.kind() {
            ErrorKind::NotFound => None,
            ErrorKind::PermissionDenied => {
                let found = format!("{shown} may not be opened");
                Some(Finding::warn(check, found, "run this as root"))
            }
            _ => {
                let found = format!("nobody serves on {shown} ({error})");
                Some(Finding::bad(check, found, advice))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::cli::doctor::Status;

    #[test]
    fn a_socket_on_which_nobody_serves_is_bad_and_one_that_is_not_there_is_nothing() {
        let directory = tempfile::tempdir().expect("there is room");
        let path = directory.path().join("orlop.sock");
        let look = || look("Docker plugin", &path, "start it");

        let before = look();
        let listener = UnixListener::bind(&path).expect("the place is free");
        let served = look().expect("it is there");
        drop(listener);
        let left = look().expect("it is there");

        assert!(before.is_none());
        assert_eq!(served.status, Status::Ok);
        assert_eq!(left.status, Status::Bad);
        assert_eq!(left.advice.as_deref(), Some("start it"));
    }
}
