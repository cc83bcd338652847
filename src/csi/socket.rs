//! The Unix sockets that are served: only root may connect, only one process serves, none is left behind.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use listenfd::ListenFd;
use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use tokio::net::UnixListener;

use super::endpoint::Endpoint;

const BACKLOG: i32 = 1024;

/// A socket that listens; when dropped, its file is removed, unless another process has put its own there.
#[derive(Debug)]
pub struct Socket {
    /// What listens.
    pub listener: UnixListener,
    /// What it is removed by.
    pub file: SocketFile,
}

/// The file of a listening socket; when dropped, it is removed.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Held open, so that its inode number is nobody else's.
    pinned: File,
}

impl Socket {
    /// Listens at the endpoint with mode 0600, in a directory that is made (0750) if it is missing.
    ///
    /// What a dead process left behind is replaced. Must be called inside a runtime.
    ///
    /// # Errors
    /// Somebody answers there already; something that is no socket is there, and stays.
    pub fn bind(endpoint: &Endpoint) -> Result<Self> {
        let path = endpoint.path();
        let directory = path.parent().context("a socket needs a file name")?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(directory)
            .with_context(|| format!("the directory {} could not be made", directory.display()))?;
        let _turn = take_turn(directory)?;
        remove_stale(path)?;
        let listener = listen_at(path)
            .with_context(|| format!("the socket {} could not be opened", path.display()))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pinned = rustix::fs::open(path, flags, Mode::empty())
            .with_context(|| format!("the new socket {} could not be opened", path.display()))?;
        Ok(Self {
            listener: UnixListener::from_std(listener.into())
                .context("the socket could not be given to the runtime")?,
            file: SocketFile {
                path: path.to_owned(),
                pinned: pinned.into(),
            },
        })
    }
}

/// The socket that systemd listens on for us, if it started us because of one (`sd_listen_fds(3)`); its file is
/// systemd's. To be asked for once, inside a runtime.
///
/// # Errors
/// What it gave is no listening Unix socket.
pub fn handed_over() -> Result<Option<UnixListener>> {
    let given = ListenFd::from_env().take_unix_listener(0);
    let given = given.context("what systemd listens on for us: it has to be one ListenStream=")?;
    given
        .map(|listener| {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        })
        .transpose()
        .context("the socket of systemd could not be given to the runtime")
}

impl SocketFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn remove(&self) -> Result<()> {
        let directory = self.path.parent().context("a socket has a directory")?;
        let _turn = take_turn(directory)?;
        let ours = self.pinned.metadata()?;
        let there = match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            there => there?,
        };
        if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) {
            fs::remove_file(&self.path)?;
        }
        Ok(())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::debug!(path = %self.path.display(), error = %format!("{error:#}"), "a socket stays behind");
        }
    }
}

/// Locks the directory against other processes like this one, so that two that start at once do not both find, and
/// replace, a stale socket; held until dropped.
fn take_turn(directory: &Path) -> Result<File> {
    let opened = File::open(directory)
        .with_context(|| format!("the directory {} could not be opened", directory.display()))?;
    flock(&opened, FlockOperation::LockExclusive)
        .with_context(|| format!("the directory {} could not be locked", directory.display()))?;
    Ok(opened)
}

fn remove_stale(path: &Path) -> Result<()> {
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there.with_context(|| format!("{} could not be looked at", path.display()))?,
    };
    ensure!(
        there.file_type().is_socket(),
        "{} is not a socket: it is left alone, choose another endpoint",
        path.display()
    );
    match connect(unconnected()?, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path)
            .with_context(|| format!("the stale socket {} could not be removed", path.display())),
        // A full backlog is a sign of life, too.
        Ok(()) | Err(Errno::AGAIN) => bail!(
            "another process serves {} already: stop it, or choose another endpoint",
            path.display()
        ),
        Err(error) => Err(error).with_context(|| {
            format!(
                "whether {} is in use could not be found out",
                path.display()
            )
        }),
    }
}

/// On Linux a socket's file gets the mode of the socket, so it is never open to others, not even for a moment.
fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let socket = unconnected()?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn unconnected() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener as Plain;
    use std::time::Duration;

    use rustix::io::FdFlags;
    use tempfile::TempDir;

    use super::*;

    fn place() -> (TempDir, Endpoint) {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let endpoint = Endpoint::at(directory.path().join("csi.sock")).expect("it is short");
        (directory, endpoint)
    }

    fn mode(path: &Path) -> u32 {
        let metadata = fs::symlink_metadata(path).expect("it is there");
        metadata.permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn only_the_owner_may_connect() {
        let (directory, _) = place();
        let endpoint = Endpoint::at(directory.path().join("made/csi.sock")).expect("it is short");

        let _socket = Socket::bind(&endpoint).expect("the place is free");

        assert_eq!(mode(endpoint.path()), 0o600);
        assert_eq!(mode(&directory.path().join("made")), 0o750);
    }

    #[tokio::test]
    async fn no_tool_inherits_it() {
        let (_directory, endpoint) = place();

        let socket = Socket::bind(&endpoint).expect("the place is free");

        for fd in [socket.listener.as_fd(), socket.file.pinned.as_fd()] {
            let flags = rustix::io::fcntl_getfd(fd).expect("it is open");
            assert!(flags.contains(FdFlags::CLOEXEC), "{fd:?}");
        }
    }

    #[tokio::test]
    async fn a_live_socket_is_refused_and_stays() {
        let (_directory, endpoint) = place();
        let first = Socket::bind(&endpoint).expect("the place is free");

        let error = Socket::bind(&endpoint)
            .expect_err("somebody answers")
            .to_string();

        assert!(error.contains("another process serves"), "{error}");
        std::os::unix::net::UnixStream::connect(endpoint.path()).expect("the first one answers");
        drop(first);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let (_directory, endpoint) = place();
        drop(Plain::bind(endpoint.path()).expect("the place is free"));
        assert!(endpoint.path().exists(), "std leaves the file behind");

        let _socket = Socket::bind(&endpoint).expect("nobody answers there");

        std::os::unix::net::UnixStream::connect(endpoint.path()).expect("the new one answers");
    }

    #[tokio::test]
    async fn of_many_that_start_at_once_on_a_stale_socket_one_serves() {
        let (_directory, endpoint) = place();
        drop(Plain::bind(endpoint.path()).expect("the place is free"));

        let starts: Vec<_> = (0..16)
            .map(|_| endpoint.clone())
            .map(|endpoint| tokio::task::spawn_blocking(move || Socket::bind(&endpoint)))
            .collect();
        let mut sockets = Vec::new();
        for start in starts {
            sockets.extend(start.await.expect("no panic"));
        }

        assert_eq!(sockets.len(), 1);
    }

    #[tokio::test]
    async fn a_start_waits_for_another_in_the_same_directory() {
        let (directory, endpoint) = place();
        let other = take_turn(directory.path()).expect("it is free");
        let mut start = tokio::task::spawn_blocking(move || Socket::bind(&endpoint));

        let early = tokio::time::timeout(Duration::from_millis(100), &mut start).await;
        drop(other);

        assert!(early.is_err(), "it is the other one's turn");
        start.await.expect("no panic").expect("the place is free");
    }

    #[tokio::test]
    async fn what_is_no_socket_is_refused_and_stays() {
        let (directory, endpoint) = place();
        fs::write(directory.path().join("precious"), "data").expect("it can be written");
        std::os::unix::fs::symlink("precious", endpoint.path()).expect("it can be linked");

        let error = Socket::bind(&endpoint)
            .expect_err("a link is no socket")
            .to_string();

        assert!(error.contains("is not a socket"), "{error}");
        let content = fs::read_to_string(endpoint.path()).expect("it is still there");
        assert_eq!(content, "data");
    }

    #[tokio::test]
    async fn a_dropped_socket_is_removed_but_not_its_successor() {
        let (_directory, endpoint) = place();
        drop(Socket::bind(&endpoint).expect("the place is free"));
        assert!(!endpoint.path().exists());

        let first = Socket::bind(&endpoint).expect("the place is free");
        fs::remove_file(endpoint.path()).expect("it is there");
        let second = Socket::bind(&endpoint).expect("the place is free");
        drop(first);

        assert!(endpoint.path().exists());
        drop(second);
    }
}
