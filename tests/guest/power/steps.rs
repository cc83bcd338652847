//! The steps of a volume's life, and what there must be after each.

const MIB: u64 = 1 << 20;
pub(super) const SIZE: u64 = 32 * MIB;
pub(super) const LARGER: u64 = 48 * MIB;
/// How many rows one step writes, each of them synced.
pub(super) const ROWS: usize = 5;

/// One step of that life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Create,
    Publish,
    Write,
    Grow,
    Snapshot,
    WriteMore,
    Restore,
    Unpublish,
    Delete,
    DeleteRestored,
    DeleteSnapshot,
}

pub(super) const LIFE: [Step; 11] = [
    Step::Create,
    Step::Publish,
    Step::Write,
    Step::Grow,
    Step::Snapshot,
    Step::WriteMore,
    Step::Restore,
    Step::Unpublish,
    Step::Delete,
    Step::DeleteRestored,
    Step::DeleteSnapshot,
];

/// What there is of a lane after some of its steps; of what was written, the rows that were synced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) volume: Option<(u64, usize)>,
    pub(super) snapshot: Option<usize>,
    pub(super) restored: Option<usize>,
}

impl Held {
    /// What there must be after this many steps.
    pub(super) fn after(steps: usize) -> Self {
        let mut held = Self::default();
        for step in LIFE.iter().take(steps % LIFE.len()) {
            match step {
                Step::Create => held.volume = Some((SIZE, 0)),
                Step::Write => held.volume = Some((SIZE, ROWS)),
                Step::Grow => held.volume = Some((LARGER, ROWS)),
                Step::WriteMore => held.volume = Some((LARGER, 2 * ROWS)),
                Step::Snapshot => held.snapshot = Some(ROWS),
                Step::Restore => held.restored = held.snapshot,
                Step::Delete => held.volume = None,
                Step::DeleteRestored => held.restored = None,
                Step::DeleteSnapshot => held.snapshot = None,
                Step::Publish | Step::Unpublish => {}
            }
        }
        held
    }

    /// Whether this is `after` but for rows that are being written: some of them can be there.
    pub(super) fn is(&self, before: &Self, after: &Self) -> bool {
        let rows_between = |seen: usize| {
            let rows = |held: &Self| held.volume.map_or(0, |(_, rows)| rows);
            (rows(before)..=rows(after)).contains(&seen)
        };
        let volume = match (self.volume, after.volume) {
            (Some((size, rows)), Some((wanted, _))) => size == wanted && rows_between(rows),
            (seen, wanted) => seen == wanted,
        };
        volume && self.snapshot == after.snapshot && self.restored == after.restored
    }
}
