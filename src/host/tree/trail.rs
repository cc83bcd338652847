//! The way from the top of a tree down to where a walk is, with few descriptors however deep that is.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Mode, OFlags, openat};

use super::node::{Found, Identity, Node};

/// How many directories of a trail stay open, beside the top.
const OPEN: usize = 32;

/// How much of a path a message shows: a tree may be ten thousand levels deep.
const SHOWN: usize = 8;

/// The directories from a top to the current one.
pub(super) struct Trail {
    top: Node,
    steps: Vec<Step>,
}

struct Step {
    place: Rc<Place>,
    identity: Identity,
    node: Option<Node>,
}

/// Where a directory is beneath the top; cheap to remember, because it shares its beginning with its siblings.
pub(super) struct Place {
    above: Option<Rc<Place>>,
    name: OsString,
}

impl Trail {
    /// A trail that begins, and for now ends, at `top`.
    pub(super) fn new(top: BorrowedFd<'_>) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(top, c".", flags, Mode::empty()).context("opening the top of a tree")?;
        Ok(Self {
            top: Node::of(fd)?,
            steps: Vec::new(),
        })
    }

    /// The current directory.
    pub(super) fn here(&self) -> &Node {
        self.steps.last().map_or(&self.top, |step| {
            step.node.as_ref().expect("the last step is always open")
        })
    }

    /// The directory at which the trail begins.
    pub(super) fn top(&self) -> &Node {
        &self.top
    }

    /// Where the current directory is; nothing for the top.
    pub(super) fn place(&self) -> Option<Rc<Place>> {
        self.steps.last().map(|step| Rc::clone(&step.place))
    }

    /// Goes on to `node`, found as `name` in the current directory.
    pub(super) fn down(&mut self, name: &OsStr, node: Node) {
        self.steps.push(Step {
            place: Rc::new(Place {
                above: self.place(),
                name: name.to_owned(),
            }),
            identity: node.identity(),
            node: Some(node),
        });
        if let Some(far) = self.steps.len().checked_sub(OPEN + 1) {
            self.steps[far].node = None;
        }
    }

    /// Goes back to the directory above and gives the one that was left, with its name; nothing at the top.
    ///
    /// # Errors
    /// The directory was moved meanwhile, so that the one above is not where the walk came from.
    pub(super) fn up(&mut self) -> Result<Option<(OsString, Node)>> {
        let Some(left) = self.steps.pop() else {
            return Ok(None);
        };
        let below = left.node.context("the last step is always open")?;
        if let Some(step) = self.steps.last_mut()
            && step.node.is_none()
        {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let above = Node::of(openat(&below, c"..", flags, Mode::empty())?)?;
            ensure!(
                above.identity() == step.identity,
                "{} was moved while its tree was walked",
                left.place
            );
            step.node = Some(above);
        }
        Ok(Some((left.place.name.clone(), below)))
    }

    /// Opens another directory of this tree by its place.
    pub(super) fn open(&self, place: Option<&Rc<Place>>) -> Result<Option<Node>> {
        let mut names = Vec::new();
        let mut next = place;
        while let Some(place) = next {
            names.push(&place.name);
            next = place.above.as_ref();
        }
        let mut node = None;
        for name in names.into_iter().rev() {
            let from = node.as_ref().unwrap_or(&self.top);
            match Node::open(from.as_fd(), name)? {
                Found::Node(found) => node = Some(found),
                Found::Mount | Found::Nothing => bail!("{} is gone", name.display()),
            }
        }
        Ok(node)
    }

    /// What to call the entry `name` of the current directory in a message.
    pub(super) fn path_of(&self, name: &OsStr) -> String {
        self.place().map_or_else(
            || name.display().to_string(),
            |place| format!("{place}/{}", name.display()),
        )
    }
}

impl fmt::Display for Place {
    /// The path beneath the top; of a long one only the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = vec![self.name.as_os_str()];
        let mut next = self.above.as_ref();
        while let Some(place) = next {
            if names.len() == SHOWN {
                names.push(OsStr::new("…"));
                break;
            }
            names.push(&place.name);
            next = place.above.as_ref();
        }
        let path: PathBuf = names.into_iter().rev().collect();
        write!(f, "{}", path.display())
    }
}

impl Drop for Place {
    /// Level by level: left to itself the drop of a deep place would overflow the stack.
    fn drop(&mut self) {
        let mut next = self.above.take();
        while let Some(mut place) = next.and_then(Rc::into_inner) {
            next = place.above.take();
        }
    }
}
