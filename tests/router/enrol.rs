//! Certificates that a controller signs: for itself, and for nodes that prove by a real token who they are.

use std::fs;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client as Kubernetes};
use orlop::csi::proto::inspection::EnrolRequest;
use orlop::csi::proto::inspection::enrolment_client::EnrolmentClient;
use orlop::tls;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

use crate::api::{Api as Server, HERE};
use crate::calls::{Client, MIB, volume};
use crate::fleet::{on, place, until_it};
use crate::kubernetes::{NAMESPACE, Objects};
use crate::node::Node;
use crate::support::Killed;

const PORT: u16 = 9740;
const AT: &str = "192.0.2.1:9741";

/// What nodes have from Kubernetes: their tokens, and the authorities, as files.
struct Mounted {
    kubernetes: Kubernetes,
    dir: TempDir,
}

impl Mounted {
    async fn new(server: &Server) -> Self {
        let it = Self {
            kubernetes: server.client().await,
            dir: tempfile::tempdir().expect("the temporary directory can be written"),
        };
        for account in ["orlop-node", "other"] {
            it.create::<ServiceAccount>(json!({"metadata": {"name": account}}))
                .await;
        }
        it
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.kubernetes.clone(), NAMESPACE)
    }

    async fn create<K>(&self, object: Value) -> K
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
    {
        let object = serde_json::from_value(object).expect("it is one");
        self.api()
            .create(&PostParams::default(), &object)
            .await
            .expect("it is new")
    }

    /// A token of an account for an audience, as of a pod on this node, if one is said.
    async fn token(&self, account: &str, audience: &str, node: Option<&str>) -> String {
        let mut bound = Value::Null;
        if let Some(node) = node {
            let name = format!("{account}-{node}-{audience}");
            let pod: Pod = self
                .create(json!({"metadata": {"name": name}, "spec": {
                    "serviceAccountName": account, "nodeName": node,
                    "containers": [{"name": "orlop", "image": "orlop"}],
                }}))
                .await;
            bound =
                json!({"kind": "Pod", "apiVersion": "v1", "name": name, "uid": pod.metadata.uid});
        }
        let request: TokenRequest = serde_json::from_value(json!({
            "metadata": {}, "spec": {"audiences": [audience], "boundObjectRef": bound},
        }))
        .expect("it is one");
        let accounts = self.api::<ServiceAccount>();
        let made = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await;
        made.expect("it may").status.expect("it is told").token
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.dir.path().join(name);
        fs::write(&file, text).expect("it can be written");
        file
    }

    /// The file with the authorities, as the kubelet would renew it.
    async fn authorities(&self) -> PathBuf {
        let told = self
            .api::<ConfigMap>()
            .get("orlop-trust")
            .await
            .expect("the controller made it");
        self.file("authorities", &told.data.expect("it is told")["ca.crt"])
    }
}

fn controller(server: &Server) -> Node {
    controller_with(server, &[])
}

fn controller_with(server: &Server, more: &[&str]) -> Node {
    let config = server.config().display().to_string();
    let args = [
        "--kubeconfig",
        &config,
        "--namespace",
        NAMESPACE,
        "--enrol-listen",
        AT,
    ];
    Node::start_as("controller", &[&args, more].concat())
}

/// An authority as cert-manager keeps it, from the same key each time.
fn issued(key: &rcgen::KeyPair) -> Value {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Orlop");
    let certificate = params.self_signed(key).expect("it may").pem();
    json!({
        "metadata": {"name": "orlop-ca-issued"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": certificate, "tls.key": key.serialize_pem(), "ca.crt": certificate},
    })
}

fn node(name: &str, folder: &Path, token: &Path, authorities: &Path) -> Node {
    let [folder, token, authorities] =
        [folder, token, authorities].map(|path| path.display().to_string());
    Node::start(&[
        "--node-name",
        name,
        "--listen",
        &format!("{HERE}:{PORT}"),
        "--certificates",
        &folder,
        "--enrol-at",
        &format!("https://{AT}"),
        "--enrol-token",
        &token,
        "--enrol-ca",
        &authorities,
    ])
}

async fn ask(token: &str, authorities: &Path, request: &str) -> Result<String, Status> {
    let authorities = fs::read(authorities).expect("it was written");
    let connect = move |_| {
        let authorities = authorities.clone();
        async move {
            tls::connect_to_controller(AT, &authorities)
                .await
                .map(TokioIo::new)
        }
    };
    let channel = Endpoint::from_static("http://controller")
        .connect_with_connector(tower::service_fn(connect))
        .await
        .expect("it listens");
    let mut asked = Request::new(EnrolRequest {
        request: request.to_owned(),
    });
    let header = format!("Bearer {token}").parse().expect("it is a header");
    asked.metadata_mut().insert("authorization", header);
    let answer = EnrolmentClient::new(channel).enrol(asked).await?;
    Ok(answer.into_inner().certificate)
}

#[tokio::test]
async fn a_node_gets_its_certificate_by_its_token_and_a_new_one_from_new_authorities() {
    let Some((server, mounted)) = with_a_serving_node().await else {
        return;
    };
    let token = mounted.token("orlop-node", "orlop", Some("a")).await;
    let token_file = mounted.file("token", &token);
    let folder = mounted.dir.path().join("tls");

    // Without any controller the node serves all that is its own.
    let no_authorities = mounted.file("authorities", "");
    let node = node("a", &folder, &token_file, &no_authorities);
    let mut own = Client::new(node.channel().await);
    own.create(volume("own", MIB))
        .await
        .expect("it needs nobody");

    let first = controller(&server);
    mounted.authorities().await;
    creates(&first, "data").await;

    // A second controller finds the authorities of the first.
    drop(first);
    let second = controller(&server);
    creates(&second, "data").await;

    // As after the Secret was lost.
    drop(second);
    let secrets = mounted.api::<Secret>();
    secrets
        .delete("orlop-ca", &DeleteParams::default())
        .await
        .expect("it is there");
    let third = controller(&server);
    mounted.authorities().await;
    creates(&third, "data").await;

    for log in [node.log(), third.log()] {
        assert!(
            !log.contains(&token) && !log.contains("PRIVATE"),
            "a secret is in the log"
        );
    }
}

#[tokio::test]
async fn an_authority_that_another_issued_signs_and_is_only_read() {
    let Some((server, mounted)) = with_a_serving_node().await else {
        return;
    };
    let key = rcgen::KeyPair::generate().expect("there is randomness");
    let made: Secret = mounted.create(issued(&key)).await;
    let args = ["--ca-secret", "orlop-ca-issued", "--ca-issued"];

    let first = controller_with(&server, &args);
    let authorities = mounted.authorities().await;
    let token = mounted.token("orlop-node", "orlop", Some("a")).await;
    let token = mounted.file("token", &token);
    let _node = node("a", &mounted.dir.path().join("tls"), &token, &authorities);
    creates(&first, "data").await;
    drop(first);

    // Renewed: the node still believes the certificate before, and has one that was signed under it.
    let secrets = mounted.api::<Secret>();
    let found = secrets.get("orlop-ca-issued").await.expect("it is there");
    assert_eq!(found.data, made.data, "it was changed");
    let any = DeleteParams::default();
    let gone = secrets.delete("orlop-ca-issued", &any).await;
    gone.expect("it is there");
    mounted.create::<Secret>(issued(&key)).await;
    let second = controller_with(&server, &args);
    creates(&second, "more").await;
    let own = secrets.get_opt("orlop-ca").await.expect("it may");
    assert!(own.is_none(), "an authority of its own was made");
}

/// A Kubernetes with one node, which is said to serve.
async fn with_a_serving_node() -> Option<(Server, Mounted)> {
    let server = Server::start().await?;
    let mounted = Mounted::new(&server).await;
    let objects = Objects::new(&mounted.kubernetes);
    objects.add_node(0).await;
    objects.serve_at(0, PORT, true).await;
    Some((server, mounted))
}

/// A volume of this name is made on the node by way of this controller, as soon as they believe each other.
async fn creates(controller: &Node, name: &str) {
    let mut client = Client::new(controller.channel().await);
    let made = until_it(&mut client, async |client| {
        client.create(on(name, &["a"])).await
    });
    assert_eq!(place(&made.await), "a");
}

/// A Kubernetes with one node, and a controller in it.
async fn with_a_node() -> Option<(Server, Mounted, Node)> {
    let server = Server::start().await?;
    let mounted = Mounted::new(&server).await;
    Objects::new(&mounted.kubernetes).add_node(0).await;
    let controller = controller(&server);
    Some((server, mounted, controller))
}

#[tokio::test]
async fn a_layer_cache_gets_the_certificate_of_its_node() {
    let Some((_server, mounted, _controller)) = with_a_node().await else {
        return;
    };
    let authorities = mounted.authorities().await;
    let token = mounted.token("orlop-node", "orlop", Some("a")).await;
    let [folder, cache] = ["tls", "cache"].map(|name| mounted.dir.path().join(name));
    #[expect(clippy::disallowed_methods, reason = "a test starts what it tests")]
    let layers = std::process::Command::new(env!("CARGO_BIN_EXE_orlop"))
        .args(["layers", "--node-name", "a", "--listen", "127.0.0.1:0"])
        .args(["--peer-listen", &format!("{HERE}:{PORT}")])
        .args(["--enrol-at", &format!("https://{AT}")])
        .arg("--enrol-token")
        .arg(mounted.file("token", &token))
        .arg("--enrol-ca")
        .arg(authorities)
        .arg("--certificates")
        .arg(&folder)
        .arg("--cache")
        .arg(cache)
        .spawn();
    let _layers = Killed(layers.expect("cargo built the binary"));

    let certified = || {
        tls::Credentials::open(&folder)
            .is_ok_and(|credentials| credentials.role() == tls::Role::Node("a".to_owned()))
    };
    crate::kubernetes::until(certified).await;
    // Only who has its certificate listens for peers.
    let listens = || std::net::TcpStream::connect((HERE, PORT)).is_ok();
    crate::kubernetes::until(listens).await;
}

#[tokio::test]
async fn nobody_else_gets_a_certificate() {
    let Some((_server, mounted, _controller)) = with_a_node().await else {
        return;
    };
    let authorities = mounted.authorities().await;
    let key = rcgen::KeyPair::generate().expect("there is randomness");
    let request = rcgen::CertificateParams::default().serialize_request(&key);
    let request = request
        .and_then(|request| request.pem())
        .expect("it signs itself");

    let ours = mounted.token("orlop-node", "orlop", Some("a")).await;
    let signed = ask(&ours, &authorities, &request).await;
    assert!(signed.is_ok(), "{signed:?}");
    let unreadable = ask(&ours, &authorities, "no request").await;
    assert_eq!(
        unreadable.expect_err("it is none").code(),
        Code::InvalidArgument
    );

    for (token, code) in [
        ("forged".to_owned(), Code::Unauthenticated),
        (
            mounted.token("orlop-node", "elsewhere", Some("a")).await,
            Code::Unauthenticated,
        ),
        (
            mounted.token("other", "orlop", Some("a")).await,
            Code::PermissionDenied,
        ),
        (
            mounted.token("orlop-node", "orlop", None).await,
            Code::PermissionDenied,
        ),
    ] {
        let refused = ask(&token, &authorities, &request)
            .await
            .expect_err("it is no node");
        assert_eq!(refused.code(), code, "{refused}");
    }

    // A node that takes itself for another has no use of its certificate.
    let token = mounted.file("token", &ours);
    let impostor = node("b", &mounted.dir.path().join("tls"), &token, &authorities);
    let refused = || impostor.log().contains("the token is of a.node.orlop.dev");
    crate::kubernetes::until(refused).await;
}
