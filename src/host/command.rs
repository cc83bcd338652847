//! Starting the machine's own tools: program and arguments, never a shell line, and always with a limit.

mod running;
mod tools;

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::time::Duration;

use crate::volume::Secret;

pub(super) use running::start;
pub use running::{Running, replace_by};
pub use tools::{Durations, Runner, Tool, Tools};

/// How long a tool may run unless its command says otherwise.
const DEFAULT_LIMIT: Duration = Duration::from_mins(2);

/// One run of a tool; prints as the line one would type.
#[derive(Clone, Debug)]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    settings: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    input: Secret,
    attended: bool,
    user: Option<User>,
    limit: Duration,
    changes: bool,
    accepted: Vec<i32>,
    with_errors: bool,
}

/// Somebody of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// Their number.
    pub uid: u32,
    /// That of their group.
    pub gid: u32,
}

impl Command {
    /// A command that changes the machine, and so passes the gate.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            settings: Vec::new(),
            input: Secret::default(),
            attended: false,
            user: None,
            limit: DEFAULT_LIMIT,
            changes: true,
            accepted: vec![0],
            with_errors: false,
        }
    }

    /// A command that only looks.
    pub fn query(program: impl Into<OsString>) -> Self {
        Self {
            changes: false,
            ..Self::new(program)
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the tool's environment, which everybody may know.
    #[must_use]
    pub fn env(
        mut self,
        key: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.settings.push((key.into(), value.into()));
        self
    }

    /// What the tool reads on its standard input: the place for a key, never an argument.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Secret>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Leaves the tool's standard input open, and silent, until [`Running::finish`] or our end, however we end.
    #[must_use]
    pub fn attended(mut self) -> Self {
        self.attended = true;
        self
    }

    /// Runs the tool as somebody: with their ids and no other groups, in `/`, and nothing of our environment.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.user = Some(user);
        self
    }

    /// How long the tool may run; past it, it and its children are killed.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Gives what the tool says on its standard error too: where some tell their version.
    #[must_use]
    pub fn with_errors(mut self) -> Self {
        self.with_errors = true;
        self
    }

    /// One more exit code, beside 0, that is no failure.
    #[must_use]
    pub fn accept(mut self, code: i32) -> Self {
        self.accepted.push(code);
        self
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.to_string_lossy())?;
        self.args
            .iter()
            .try_for_each(|arg| write!(f, " {}", arg.to_string_lossy()))
    }
}
