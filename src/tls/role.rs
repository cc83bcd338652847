//! Who a process is to the others, as its certificate says it.

use std::fmt;

use anyhow::{Context, Result, bail};
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

const CONTROLLER: &str = "controller.orlop.dev";
const NODE: &str = ".node.orlop.dev";

/// Who a process is: the one DNS name in its certificate that says so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `controller.orlop.dev`: the router, who alone may change what is on the nodes.
    Controller,
    /// `<node>.node.orlop.dev`: the node of that name, for which it alone speaks.
    Node(String),
}

impl Role {
    /// Who a certificate says that it is of; other names in it mean nothing.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self> {
        let certificate =
            EndEntityCert::try_from(certificate).context("it is not a certificate")?;
        let mut roles = certificate.valid_dns_names().filter_map(Self::named);
        match (roles.next(), roles.next()) {
            (Some(role), None) => Ok(role),
            (None, _) => bail!(
                "its certificate names neither a node nor the controller: give it the DNS name <node>{NODE} or {CONTROLLER}"
            ),
            (Some(one), Some(other)) => {
                bail!("its certificate is of both {one} and {other}: give it one of these names")
            }
        }
    }

    fn named(name: &str) -> Option<Self> {
        if name == CONTROLLER {
            return Some(Self::Controller);
        }
        let node = name.strip_suffix(NODE)?;
        // A wildcard would speak for all nodes.
        (!node.is_empty() && !node.contains('*')).then(|| Self::Node(node.to_owned()))
    }
}

/// As the DNS name.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller => f.write_str(CONTROLLER),
            Self::Node(name) => write!(f, "{name}{NODE}"),
        }
    }
}
