//! How a process of a node has its certificates signed by a controller.

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use tonic::transport::Uri;

use crate::enrol::Applicant;

/// Where a controller is, and how the node proves to it who it is; beside the flag `--certificates`.
#[derive(Args, Debug, Default)]
pub(super) struct Enrolment {
    /// Have these certificates signed by a controller there, such as `https://orlop-controller.orlop.svc:9741`.
    #[arg(
        long = "enrol-at",
        env = "ORLOP_ENROL_AT",
        value_name = "URL",
        value_parser = place,
        requires_all = ["certificates", "token", "authorities"]
    )]
    at: Option<String>,

    /// The file with the token of this node's service account, for the audience `orlop`.
    #[arg(long = "enrol-token", env = "ORLOP_ENROL_TOKEN", value_name = "FILE")]
    token: Option<PathBuf>,

    /// The file with the authorities by which a controller is believed.
    #[arg(long = "enrol-ca", env = "ORLOP_ENROL_CA", value_name = "FILE")]
    authorities: Option<PathBuf>,
}

impl Enrolment {
    /// Who keeps the certificates of this node in that folder; nobody, if a person does.
    pub(super) fn applicant(&self, folder: &Path, node: &str) -> Option<Applicant> {
        Some(Applicant::new(
            self.at.clone()?,
            self.token.clone()?,
            self.authorities.clone()?,
            folder.to_owned(),
            node.to_owned(),
        ))
    }
}

/// The `host:port` of a URL, in which an IPv6 address may stand without brackets, as Kubernetes gives those of services.
fn place(text: &str) -> Result<String> {
    let bare = text.strip_prefix("https://").and_then(|at| {
        let (host, port) = at.rsplit_once(':')?;
        let host: Ipv6Addr = host.parse().ok()?;
        Some(format!("https://[{host}]:{port}"))
    });
    let url: Uri = bare.as_deref().unwrap_or(text).parse()?;
    let plain = url.scheme_str() == Some("https") && matches!(url.path(), "" | "/");
    let at = url.authority().filter(|at| plain && at.port().is_some());
    let at = at.context("write it like https://orlop-controller.orlop.svc:9741")?;
    Ok(at.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_named_by_host_and_port() {
        let taken = |text| place(text).ok();
        let at = |at: &str| Some(at.to_owned());
        assert_eq!(taken("https://orlop.svc:9741"), at("orlop.svc:9741"));
        assert_eq!(taken("https://10.0.0.1:9741/"), at("10.0.0.1:9741"));
        assert_eq!(taken("https://[fd00::1]:9741"), at("[fd00::1]:9741"));
        assert_eq!(taken("https://fd00::1:9741"), at("[fd00::1]:9741"));
        for wrong in [
            "http://orlop.svc:9741",
            "https://orlop.svc",
            "https://orlop.svc:9741/v1",
            "orlop.svc:9741",
        ] {
            assert_eq!(taken(wrong), None, "{wrong}");
        }
    }
}
