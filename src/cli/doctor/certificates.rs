//! How long certificates are still good for.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use x509_cert::Certificate;
use x509_cert::time::Time;

use super::Finding;

/// The part of its life, in percent, in which a certificate should have been replaced.
const LAST_PERCENT: u64 = 10;

/// Those of a folder as Kubernetes mounts a Secret of them: `tls.crt`, and `ca.crt` if it is there.
pub(super) fn of_folder(folder: &Path) -> Vec<Finding> {
    let there = |name: &&str| *name == "tls.crt" || folder.join(name).exists();
    ["tls.crt", "ca.crt"]
        .into_iter()
        .filter(there)
        .map(|name| of_file(&folder.join(name)))
        .collect()
}

fn of_file(file: &Path) -> Finding {
    let check = format!("certificate {}", file.display());
    match life(file) {
        Ok((total, left)) => judged(check, total, left),
        Err(error) => Finding::bad(
            check,
            format!("{error:#}"),
            "let the controller or cert-manager make it again: delete the Secret that it comes from",
        ),
    }
}

fn judged(check: String, total: u64, left: Option<u64>) -> Finding {
    let advice =
        "it should have been renewed: look at the log of what makes it, then delete its Secret";
    match left {
        None => Finding::bad(check, "expired", advice),
        Some(left) => {
            let found = format!(
                "good for {} days and {} hours",
                left / 86400,
                left / 3600 % 24
            );
            if left < total / 100 * LAST_PERCENT {
                Finding::warn(check, found, advice)
            } else {
                Finding::ok(check, found)
            }
        }
    }
}

/// For how many seconds the first to expire of a file is good in all, and from now on.
fn life(file: &Path) -> Result<(u64, Option<u64>)> {
    let text = std::fs::read(file)?;
    let all = Certificate::load_pem_chain(&text).context("it holds no certificates")?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs();
    let ends = all.iter().map(|one| {
        let life = one.tbs_certificate().validity();
        let [from, until] = [life.not_before, life.not_after].map(Time::to_unix_duration);
        (until.as_secs(), until.saturating_sub(from).as_secs())
    });
    let (until, total) = ends.min().context("it is empty")?;
    Ok((total, until.checked_sub(now).filter(|left| *left > 0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Status;

    #[test]
    fn a_certificate_near_its_end_is_told() {
        let status = |left| judged(String::new(), 100_000, left).status;

        assert_eq!(status(Some(50_000)), Status::Ok);
        assert_eq!(status(Some(9_999)), Status::Warn);
        assert_eq!(status(None), Status::Bad);
    }
}
