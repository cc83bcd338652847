//! How a zpool fares, in its own words.

use std::time::{Duration, Instant};

use super::{LIMIT, Zfs};
use crate::host::command::Command;
use crate::pool::{Fault, Severity};
use crate::volume::Bytes;

/// For how long an answer holds: the health of a thousand volumes is asked in one go.
const FRESH: Duration = Duration::from_secs(2);

/// What was wrong when it was looked at last.
#[derive(Debug)]
pub(super) struct Status {
    at: Instant,
    faults: Vec<Fault>,
}

impl Zfs {
    /// What is wrong with the zpool, asked at most every two seconds.
    pub(super) fn status(&self) -> Vec<Fault> {
        let mut status = self.status.lock();
        match &*status {
            Some(last) if last.at.elapsed() < FRESH => last.faults.clone(),
            _ => {
                let faults = self.ask_zpool();
                *status = Some(Status {
                    at: Instant::now(),
                    faults: faults.clone(),
                });
                faults
            }
        }
    }

    fn ask_zpool(&self) -> Vec<Fault> {
        let zpool = self.names.zpool();
        let ask = |args: &[&str]| {
            let command = Command::query("zpool").args(args).arg(zpool).limit(LIMIT);
            self.host.tools.run(&command)
        };
        let asked = ask(&["list", "-Hpo", "health"])
            .and_then(|health| Ok((health, ask(&["status", "-x"])?)));
        match asked {
            Ok((health, status)) => of_zpool(zpool, health.trim(), &status)
                .into_iter()
                .chain(self.nearly_full())
                .collect(),
            Err(error) => vec![Fault::inaccessible(
                "Unreachable",
                format!(
                    "zpool {zpool} does not answer: {error:#}; import it, or look at its disks"
                ),
            )],
        }
    }

    fn nearly_full(&self) -> Option<Fault> {
        // A zpool that does not answer this is told already.
        let (used, free) = self.space().ok()?;
        full(&self.names.home, used, free)
    }
}

/// From this use on a person should look.
const NEARLY_FULL_PERCENT: u64 = 95;

/// That a dataset, with all above it that bounds it, is nearly full.
fn full(dataset: &str, used: Bytes, free: Bytes) -> Option<Fault> {
    let (used, total) = (u128::from(used.0), u128::from(used.plus(free).0));
    let percent = u64::try_from(used * 100 / total.max(1)).unwrap_or(100);
    (percent >= NEARLY_FULL_PERCENT).then(|| {
        Fault::degraded(
            "NearlyFull",
            format!(
                "{dataset} is {percent} % full, and in a full one writes fail: delete volumes or snapshots, add disks by \
                 `zpool add`, or raise the quotas above it"
            ),
        )
    })
}

/// The fault of a zpool with this health and this status, if it has one.
fn of_zpool(zpool: &str, health: &str, status: &str) -> Option<Fault> {
    if status.trim_end().ends_with("is healthy") {
        return None;
    }
    let said = said(status);
    let lost = status.contains("errors: Permanent errors") || status.contains("data errors, use");
    let (severity, reason) = match health {
        "SUSPENDED" => (Severity::Inaccessible, "Suspended"),
        "FAULTED" | "UNAVAIL" | "REMOVED" | "OFFLINE" => (Severity::Inaccessible, "Faulted"),
        _ if lost => (Severity::DataLoss, "DataErrors"),
        _ => (Severity::Degraded, "ZpoolDegraded"),
    };
    let advice = if health == "SUSPENDED" {
        format!("; bring its disks back, then run `zpool clear {zpool}`")
    } else {
        String::new()
    };
    Some(Fault {
        severity,
        reason,
        message: format!("zpool {zpool} is {health}: {said}{advice}"),
    })
}

/// What `zpool status` says for people: its paragraphs `status` and `action`, in one line.
fn said(status: &str) -> String {
    let mut words = Vec::new();
    let mut wanted = false;
    for line in status.lines() {
        if let Some((title, rest)) = line.split_once(": ")
            && !title.trim().contains(' ')
        {
            wanted = matches!(title.trim(), "status" | "action");
            words.extend(wanted.then_some(rest));
        } else if wanted && line.starts_with('\t') {
            words.push(line);
        } else {
            wanted = false;
        }
    }
    words
        .join(" ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// zfs-2.1.11, of a mirror of which one disk was taken away.
    const DEGRADED: &str = "  pool: tank
 state: DEGRADED
status: One or more devices could not be used because the label is missing or
\tinvalid.  Sufficient replicas exist for the pool to continue
\tfunctioning in a degraded state.
action: Replace the device using 'zpool replace'.
   see: https://openzfs.github.io/openzfs-docs/msg/ZFS-8000-4J
config:

\tNAME        STATE     READ WRITE CKSUM
\ttank        DEGRADED     0     0     0
errors: No known data errors
";

    #[test]
    fn a_dataset_with_little_left_is_nearly_full() {
        let told = |used, free| full("tank/orlop", Bytes(used), Bytes(free)).is_some();

        assert!(told(95, 5) && told(100, 0));
        assert!(!told(94, 6) && !told(0, 0));
    }

    #[test]
    fn a_healthy_zpool_has_no_fault() {
        assert_eq!(of_zpool("tank", "ONLINE", "pool 'tank' is healthy\n"), None);
    }

    #[test]
    fn a_degraded_one_is_told_in_its_own_words() {
        let fault = of_zpool("tank", "DEGRADED", DEGRADED).expect("a disk is missing");

        assert_eq!(fault.severity, Severity::Degraded);
        assert!(
            fault
                .message
                .contains("label is missing or invalid. Sufficient"),
            "{}",
            fault.message
        );
        assert!(
            fault.message.contains("Replace the device"),
            "{}",
            fault.message
        );
        assert!(!fault.message.contains("NAME"), "{}", fault.message);
    }

    #[test]
    fn a_suspended_one_is_inaccessible_until_it_is_cleared() {
        let fault = of_zpool("tank", "SUSPENDED", DEGRADED).expect("it is suspended");

        assert_eq!(fault.severity, Severity::Inaccessible);
        assert!(
            fault.message.contains("`zpool clear tank`"),
            "{}",
            fault.message
        );
    }
}
