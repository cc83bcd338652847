//! What was last reported of a volume group, which is true for as long as the metadata on its disks is the same.
//!
//! A command of LVM takes tens of milliseconds, a look at the header of the metadata one read: every change, by whomever,
//! writes it anew. After one the metadata itself is read; LVM is asked at first, and at any doubt.

use std::sync::Arc;

use anyhow::Result;
use parking_lot::Mutex;

use super::metadata::Stamp;
use super::report::Report;

/// The last report.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Option<Last>>);

#[derive(Debug)]
struct Last {
    report: Arc<Report>,
    /// What the disks said before the report and after it, if they could be read and said the same.
    stamp: Option<Stamp>,
}

impl Seen {
    /// The last report, if it is still true, or else a new one: by the disks, or the one that `ask` gets. Who comes
    /// meanwhile waits for the same.
    pub(super) fn get(&self, ask: impl Fn() -> Result<Report>) -> Result<Arc<Report>> {
        let mut last = self.0.lock();
        let before = last.as_ref().and_then(|last| Stamp::of(&last.report.disks));
        if let (Some(last), Some(now)) = (&*last, &before)
            && last.stamp.as_ref() == Some(now)
        {
            return Ok(Arc::clone(&last.report));
        }
        let known = last.as_ref().map(|last| &*last.report);
        let read = known
            .zip(before.as_ref())
            .and_then(|(known, stamp)| read(known, stamp));
        let report = Arc::new(match read {
            Some(report) => report,
            None => ask()?,
        });
        let after = Stamp::of(&report.disks);
        let stamp = after.filter(|after| before.as_ref() == Some(after));
        #[cfg(debug_assertions)]
        agree(&report, &ask()?, stamp.as_ref());
        *last = Some(Last {
            report: Arc::clone(&report),
            stamp,
        });
        Ok(report)
    }
}

/// What the disks say; nothing, if that is not as expected.
fn read(known: &Report, stamp: &Stamp) -> Option<Report> {
    stamp
        .report(known)
        .inspect_err(|error| {
            tracing::debug!(error = format!("{error:#}"), "LVM is asked what there is");
        })
        .ok()
}

/// Both must say the same, unless somebody has changed something in between. All tests run with it.
#[cfg(debug_assertions)]
fn agree(read: &Report, told: &Report, stamp: Option<&Stamp>) {
    let unchanged = stamp.is_some() && Stamp::of(&read.disks).as_ref() == stamp;
    assert!(
        !unchanged || read.says_the_same_as(told),
        "LVM reports {told:#?}, on the disks is {read:#?}"
    );
}
