//! Where nodes ask for their certificates, and where it is found out which node asks.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::api::PostParams;
use kube::{Api, Client};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::AUDIENCE;
use super::signer::Signer;
use crate::csi::Reply;
use crate::csi::proto::inspection::enrolment_server::Enrolment;
use crate::csi::proto::inspection::{EnrolRequest, EnrolResponse};
use crate::tls::Role;

/// How long the API server may take to say whose a token is.
const LIMIT: Duration = Duration::from_secs(10);
/// Where the API server says, of the token of a pod, on which node the pod is.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Signs for the pods of one service account, each for the node on which it is.
///
/// The account must be said: any pod can have a token for this audience, with the name of its node in it.
#[derive(Debug)]
pub struct Desk {
    signer: Signer,
    reviews: Api<TokenReview>,
    account: String,
}

impl Desk {
    /// One for the service account of this name.
    pub fn new(signer: Signer, client: &Client, namespace: &str, account: &str) -> Self {
        Self {
            signer,
            reviews: Api::all(client.clone()),
            account: format!("system:serviceaccount:{namespace}:{account}"),
        }
    }

    /// The node whose token it is.
    async fn node(&self, token: &str) -> Result<String, Status> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![AUDIENCE.to_owned()]),
            },
            ..Default::default()
        };
        let params = PostParams::default();
        let reviewed = tokio::time::timeout(LIMIT, self.reviews.create(&params, &review)).await;
        let status = match reviewed {
            Ok(Ok(reviewed)) => reviewed.status.unwrap_or_default(),
            Ok(Err(error)) => return Err(unsaid(&error.to_string())),
            Err(_) => return Err(unsaid("it takes too long")),
        };
        let meant = status
            .audiences
            .is_some_and(|meant| meant.iter().any(|one| one == AUDIENCE));
        if status.authenticated != Some(true) || !meant {
            return Err(Status::unauthenticated(format!(
                "the token is not one for the audience {AUDIENCE}: project it from the service account of the node"
            )));
        }
        node_of(&status.user.unwrap_or_default(), &self.account)
    }
}

#[tonic::async_trait]
impl Enrolment for Desk {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Reply<EnrolResponse> {
        let node = self.node(token(request.metadata())?).await?;
        let authorities = self.signer.authorities();
        let role = Role::Node(node);
        let signed = authorities.sign(&request.get_ref().request, &role, SystemTime::now());
        let certificate = signed.map_err(|error| {
            Status::invalid_argument(format!("the request can not be signed: {error:#}"))
        })?;
        info!(%role, "a certificate was signed");
        Ok(Response::new(EnrolResponse {
            certificate,
            authorities: authorities.certificates(),
        }))
    }
}

fn token(metadata: &MetadataMap) -> Result<&str, Status> {
    let header = metadata
        .get("authorization")
        .and_then(|header| header.to_str().ok());
    let token = header.and_then(|header| header.strip_prefix("Bearer "));
    token.ok_or_else(|| {
        Status::unauthenticated("show the token of the node: `authorization: Bearer TOKEN`")
    })
}

/// The node on which a pod of this account is.
fn node_of(user: &UserInfo, account: &str) -> Result<String, Status> {
    let name = user.username.as_deref().unwrap_or_default();
    if name != account {
        return Err(Status::permission_denied(format!(
            "the token is of {name}, and nodes are {account}"
        )));
    }
    let nodes = user.extra.as_ref().and_then(|extra| extra.get(NODE_NAME));
    match nodes.map(Vec::as_slice) {
        Some([node]) => Ok(node.clone()),
        _ => Err(Status::permission_denied(format!(
            "the token does not say on which node its pod is: it must be projected into a pod, by Kubernetes 1.30 or newer \
             ({NODE_NAME} is missing)"
        ))),
    }
}

/// Nothing is known of the token; the node asks again.
fn unsaid(why: &str) -> Status {
    warn!(error = why, "Kubernetes does not say whose a token is");
    Status::unavailable(format!("Kubernetes does not say whose the token is: {why}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tonic::Code;

    use super::*;

    const ACCOUNT: &str = "system:serviceaccount:orlop:orlop-node";

    fn user(name: &str, nodes: &[&str]) -> UserInfo {
        let nodes: Vec<_> = nodes.iter().map(|&node| node.to_owned()).collect();
        UserInfo {
            username: Some(name.to_owned()),
            extra: Some(BTreeMap::from([(NODE_NAME.to_owned(), nodes)])),
            ..Default::default()
        }
    }

    #[test]
    fn only_a_pod_of_the_account_on_one_node_is_a_node() {
        let of = |user: &UserInfo| node_of(user, ACCOUNT).map_err(|status| status.code());

        assert_eq!(of(&user(ACCOUNT, &["a"])), Ok("a".to_owned()));
        for (name, nodes) in [
            ("system:serviceaccount:other:orlop-node", &["a"][..]),
            ("", &["a"]),
            (ACCOUNT, &[]),
            (ACCOUNT, &["a", "b"]),
        ] {
            assert_eq!(
                of(&user(name, nodes)),
                Err(Code::PermissionDenied),
                "{name} {nodes:?}"
            );
        }
        assert_eq!(of(&UserInfo::default()), Err(Code::PermissionDenied));
    }
}
