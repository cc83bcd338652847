//! A pod: processes in namespaces of their own, which see volumes as if these were their own directories.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use rustix::thread::UnshareFlags;

use super::command::{self, Command, Running};
use super::folder::Folder;
use super::{Host, namespace};
use crate::volume::MountAttributes;

/// What a pod has of its own and for itself alone: empty directories, gone with it.
const COVERED: [&str; 3] = ["/dev/shm", "/tmp", "/var/lib"];

/// A pod with its own mounts, processes and shared memory; the rest it has in common with its host.
///
/// It ends when it is dropped, or when this process ends, even by SIGKILL; and with it all its processes and mounts.
#[derive(Debug)]
pub struct Pod {
    /// Dropped first: with process 1 of a namespace the kernel kills all others in it.
    _init: Running,
    orders: mpsc::Sender<Order>,
    _thread: Thread,
}

/// A command to start, and whom to give it when it runs.
struct Order {
    command: Command,
    reply: mpsc::Sender<Result<Running>>,
}

/// The thread whose namespaces are the pod's: what it starts is in the pod.
#[derive(Debug)]
struct Thread(Option<JoinHandle<()>>);

impl Pod {
    /// Starts a pod that sees the directory `from` at `at`: a new name in one of the directories that it has for itself
    /// (`/dev/shm`, `/tmp`, `/var/lib`), or a directory that is there.
    ///
    /// # Errors
    /// Without the right to make namespaces, and what mounting says.
    pub fn start(host: &Host, from: &Path, at: &Path) -> Result<Self> {
        let (ready, started) = mpsc::channel();
        let (orders, taken) = mpsc::channel::<Order>();
        let (host, from, at) = (host.clone(), from.to_owned(), at.to_owned());
        let thread = thread::Builder::new()
            .name("pod".into())
            .spawn(move || {
                let init = enter(&host, &from, &at);
                let _ = ready.send(init);
                for Order { command, reply } in taken {
                    let _ = reply.send(command::start(&host.gate, &command));
                }
            })
            .context("starting the thread that starts a pod's processes")?;
        let init = started.recv().context("the pod's thread stopped")?;
        Ok(Self {
            _init: init?,
            orders,
            _thread: Thread(Some(thread)),
        })
    }

    /// Starts a command in the pod.
    ///
    /// # Errors
    /// A tool that is missing.
    pub fn start_command(&self, command: &Command) -> Result<Running> {
        let (reply, started) = mpsc::channel();
        let command = command.clone();
        let order = Order { command, reply };
        self.orders.send(order).context("the pod has ended")?;
        started.recv().context("the pod has ended")?
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic there was seen by whoever waited for its answer.
            let _ = thread.join();
        }
    }
}

/// Takes this thread into new namespaces, shows the volume there, and starts process 1.
fn enter(host: &Host, from: &Path, at: &Path) -> Result<Running> {
    host.gate.pass("making the namespaces of a pod")?;
    namespace::leave_mounts_and(UnshareFlags::NEWPID | UnshareFlags::NEWIPC)
        .context("making the namespaces of a pod")?;
    let volume = Folder::open(from, host.gate.clone())?;
    for own in COVERED.map(Path::new) {
        if own.exists() {
            host.mounts.cover(own)?;
        }
    }
    host.mounts
        .bind_descriptor(volume.as_fd(), at, MountAttributes::default())
        .with_context(|| format!("showing {} in a pod", from.display()))?;
    // It reads until the other end of its input is closed, which the kernel does if we can not.
    command::start(&host.gate, &Command::new("cat").attended())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::gate::Gate;

    /// Runs a shell's words in a pod that sees a directory with a `file` at `/var/lib/volume`; nothing, if not root.
    fn in_pod(test: impl FnOnce(&Path, Pod)) {
        if !rustix::process::geteuid().is_root() {
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                b"SKIPPED: a pod, because it needs root\n",
            );
            return;
        }
        let volume = tempfile::tempdir().expect("a directory can be made");
        fs::write(volume.path().join("file"), "content").expect("it can be written");
        let host = Host::new(Gate::open());
        let pod = Pod::start(&host, volume.path(), Path::new("/var/lib/volume"));
        test(volume.path(), pod.expect("root may make namespaces"));
    }

    fn shell(pod: &Pod, words: &str) -> Running {
        pod.start_command(&Command::new("sh").args(["-c", words]))
            .expect("sh runs")
    }

    #[test]
    fn a_pod_sees_its_volume_and_nothing_of_the_hosts_beside_it() {
        in_pod(|volume, pod| {
            let saw = shell(&pod, "cat /var/lib/volume/file; ls /var/lib /tmp").finish();
            let wrote = shell(&pod, "echo -n rows >/var/lib/volume/rows").finish();

            assert_eq!(
                saw.expect("it is there"),
                "content/tmp:\n\n/var/lib:\nvolume\n"
            );
            wrote.expect("it is writable");
            let rows = fs::read_to_string(volume.join("rows"));
            assert_eq!(rows.expect("the host sees it"), "rows");
            assert!(!Path::new("/var/lib/volume").exists());
        });
    }

    #[test]
    fn a_pod_takes_all_its_processes_with_it() {
        in_pod(|volume, pod| {
            let words = "setsid sleep 1000 & while :; do :>/var/lib/volume/alive; sleep 0.01; done";
            let running = shell(&pod, words);
            while !volume.join("alive").exists() {
                thread::yield_now();
            }
            let ended = thread::spawn(move || running.finish());

            drop(pod);

            let error = ended.join().expect("no panic").expect_err("it was killed");
            assert!(error.to_string().contains("signal: 9"), "{error}");
            let shown = format!("{} ", volume.display());
            let mounts = fs::read_dir("/proc").expect("/proc is mounted").flatten();
            let left = mounts
                .filter_map(|process| fs::read_to_string(process.path().join("mountinfo")).ok())
                .filter(|table| table.contains(&shown) && table.contains(" /var/lib/volume "));
            assert_eq!(left.count(), 0);
        });
    }

    #[test]
    fn a_machine_that_is_cut_off_starts_no_pod() {
        let host = Host::new(Gate::cut_after(0));

        let error = Pod::start(&host, Path::new("/"), Path::new("/var/lib/volume"));

        assert!(error.is_err_and(|error| error.to_string().contains("cut off")));
    }
}
