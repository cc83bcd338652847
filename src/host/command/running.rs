//! One run of a command: started, fed and drained, and killed with its children at its limit.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{Command, User};
use crate::host::gate::Gate;

/// Where the tools are for a command that is run as somebody, who gets nothing of our environment.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Becomes the command, in place of this process: what it prints, and how it ends, is for whoever started us. Its limit
/// does not count. Comes back, with why, only if it can not be started.
pub fn replace_by(command: &Command) -> anyhow::Error {
    could_not_start(process(command).exec(), command)
}

#[expect(
    clippy::disallowed_methods,
    reason = "this module is the one door through which processes start"
)]
fn process(command: &Command) -> std::process::Command {
    let mut process = std::process::Command::new(&command.program);
    process.args(&command.args);
    process
}

fn could_not_start(error: io::Error, command: &Command) -> anyhow::Error {
    let program = command.program.display();
    anyhow::Error::from(error).context(format!(
        "`{command}` could not be started: is {program} installed?"
    ))
}

/// A tool that runs; dropped before its end, it is killed with its children.
#[derive(Debug)]
pub struct Running {
    child: Child,
    command: Command,
    started: Instant,
}

impl Running {
    /// Waits for its end, and gives the standard output.
    ///
    /// # Errors
    /// As those of [`Runner::run`](super::Runner::run).
    pub fn finish(mut self) -> Result<String> {
        let command = &self.command;
        let (status, stdout, stderr) = finish(&mut self.child, command)?;
        tracing::debug!(command = %command, elapsed = ?self.started.elapsed(), %status, "ran");
        if !status
            .code()
            .is_some_and(|code| command.accepted.contains(&code))
        {
            bail!("`{command}`: {status}: {}", stderr.trim());
        }
        Ok(if command.with_errors {
            stdout + &stderr
        } else {
            stdout
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Starts a command in the namespaces of this thread.
pub(in crate::host) fn start(gate: &Gate, command: &Command) -> Result<Running> {
    if command.changes {
        gate.pass(command)?;
    }
    let mut process = process(command);
    if let Some(User { uid, gid }) = command.user {
        process.uid(uid).gid(gid).current_dir("/");
        process.env_clear().env("PATH", PATH);
    }
    let child = process
        .env("LC_ALL", "C")
        .envs(
            command
                .settings
                .iter()
                .map(|(key, value)| (&**key, &**value)),
        )
        .stdin(if command.input.bytes().is_empty() && !command.attended {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| could_not_start(error, command))?;
    Ok(Running {
        child,
        command: command.clone(),
        started: Instant::now(),
    })
}

/// Feeds and drains the child, and kills its whole process group when the limit passes.
fn finish(child: &mut Child, command: &Command) -> Result<(ExitStatus, String, String)> {
    let group = Pid::from_child(child);
    let input = child.stdin.take();
    let stdout = child
        .stdout
        .take()
        .context("no pipe for the standard output")?;
    let stderr = child
        .stderr
        .take()
        .context("no pipe for the standard error")?;
    let (done, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let watchdog = scope.spawn(move || {
            let overdue = ended.recv_timeout(command.limit) == Err(mpsc::RecvTimeoutError::Timeout);
            if overdue {
                let _ = kill_process_group(group, Signal::KILL);
            }
            overdue
        });
        // A tool that does not read its input to the end says so by its status, not by our broken pipe.
        scope.spawn(move || input.map(|mut pipe| pipe.write_all(command.input.bytes())));
        let errors = scope.spawn(move || drain(stderr));
        let output = drain(stdout);
        let status = child
            .wait()
            .with_context(|| format!("`{command}` could not be waited for"))?;
        drop(done);
        if watchdog.join().unwrap_or_default() {
            bail!(
                "`{command}` was killed: it ran longer than {:?}",
                command.limit
            );
        }
        Ok((status, output, errors.join().unwrap_or_default()))
    })
}

fn drain(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::host::command::{Runner, Tools};

    fn run(command: &Command) -> Result<String> {
        Tools::new(Gate::open()).run(command)
    }

    #[test]
    fn what_the_tool_prints_comes_back() {
        let output = run(&Command::query("cat").input(b"rows\n".to_vec()));

        assert_eq!(output.expect("cat runs"), "rows\n");
    }

    #[test]
    fn a_failure_names_the_line_and_what_the_tool_said() {
        let error = run(&Command::query("ls").arg("/nowhere/at/all"))
            .expect_err("there is no such directory");

        assert!(
            error
                .to_string()
                .starts_with("`ls /nowhere/at/all`: exit status: 2"),
            "{error}"
        );
        assert!(
            error.to_string().contains("No such file or directory"),
            "{error}"
        );
    }

    #[test]
    fn an_accepted_exit_code_is_no_failure() {
        let exits = |code: &str| Command::query("sh").args(["-c", code]).accept(1);

        let codes = ["exit 0", "exit 1", "exit 2", "kill $$"];
        let ran = codes.map(|code| run(&exits(code)).is_ok());

        assert_eq!(ran, [true, true, false, false]);
    }

    #[test]
    fn a_tool_past_its_limit_is_killed_with_its_children() {
        let started = Instant::now();

        let error = run(&Command::query("sh")
            .args(["-c", "sleep 30 & sleep 30"])
            .limit(Duration::from_millis(100)));

        assert!(
            error
                .expect_err("it was killed")
                .to_string()
                .contains("ran longer than 100ms")
        );
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_tool_that_is_dropped_is_killed_with_its_children() {
        let command = Command::query("sh").args(["-c", "sleep 30 & wait"]);
        let running = start(&Gate::open(), &command).expect("sh runs");
        let group = Pid::from_child(&running.child);

        drop(running);

        let gone = || rustix::process::test_kill_process_group(group).is_err();
        let limit = Instant::now() + Duration::from_secs(10);
        while !gone() && Instant::now() < limit {
            std::thread::yield_now();
        }
        assert!(gone(), "a child lives on");
    }

    #[test]
    fn a_tool_that_is_run_as_somebody_gets_nothing_of_ours() {
        if !rustix::process::geteuid().is_root() {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: running as somebody, because it needs root"
            );
            return;
        }
        let nobody = User {
            uid: 65534,
            gid: 65533,
        };

        let output = run(&Command::query("sh")
            .args(["-c", "id -u; id -G; pwd; env | cut -d= -f1 | sort"])
            .user(nobody));

        assert_eq!(
            output.expect("sh runs"),
            "65534\n65533\n/\nLC_ALL\nPATH\nPWD\n"
        );
    }

    #[test]
    fn a_missing_tool_is_named() {
        let error = run(&Command::query("no-such-tool")).expect_err("there is no such tool");

        assert!(
            error.to_string().contains("is no-such-tool installed?"),
            "{error}"
        );
    }
}
