use std::fs;
use std::io;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;

use super::*;

/// An authority, with its certificate in PEM.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("there is randomness");
        let pem = params.self_signed(&key).expect("it signs itself").pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// The certificate and the key of one with these DNS names.
    fn sign(&self, names: &[&str]) -> (String, String) {
        let names = names.iter().map(|&name| name.to_owned());
        self.sign_with(CertificateParams::new(names.collect::<Vec<_>>()).expect("they are names"))
    }

    fn sign_with(&self, mut params: CertificateParams) -> (String, String) {
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("there is randomness");
        let certificate = params.signed_by(&key, &self.issuer).expect("it signs");
        (certificate.pem(), key.serialize_pem())
    }

    fn pair(&self, names: &[&str]) -> Result<Pair> {
        let (chain, key) = self.sign(names);
        Pair::from_pem(chain.as_bytes(), key.as_bytes(), self.pem.as_bytes())
    }

    fn credentials(&self, name: &str) -> Credentials {
        Credentials::of(self.pair(&[name]).expect("it is good"))
    }

    fn write(&self, directory: &TempDir, name: &str) {
        let (chain, key) = self.sign(&[name]);
        for (file, text) in [
            ("tls.crt", &chain),
            ("tls.key", &key),
            ("ca.crt", &self.pem),
        ] {
            fs::write(directory.path().join(file), text).expect("it can be written");
        }
    }
}

/// Whom each end found at the other, after they have talked.
async fn meet(server: ServerConfig, client: ClientConfig) -> io::Result<(Role, Role)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut callers = listen(listener, server);
    let answering = tokio::spawn(async move {
        let mut caller = callers.next().await.expect("it listens")?;
        caller.write_all(b"!").await?;
        io::Result::Ok(caller.peer().cloned().expect("it proved it"))
    });
    let mut connection = connect(address, Arc::new(client)).await?;
    // In TLS 1.3 a client hears only with its first read that it was refused.
    connection.read_exact(&mut [0]).await?;
    let caller = answering.await.expect("no panic")?;
    Ok((caller, connection.peer().cloned().expect("it proved it")))
}

fn node(name: &str) -> Role {
    Role::Node(name.to_owned())
}

#[tokio::test]
async fn each_end_knows_who_the_other_is() {
    let authority = Authority::new();
    let here = authority.credentials("a.node.orlop.dev");
    let router = authority.credentials("controller.orlop.dev");

    let met = meet(
        here.server(|role| *role == Role::Controller),
        router.client(|role| *role == node("a")),
    )
    .await
    .expect("they may talk");

    assert_eq!(met, (Role::Controller, node("a")));
}

#[tokio::test]
async fn a_node_may_not_call_where_only_the_controller_may() {
    let authority = Authority::new();
    let here = authority.credentials("a.node.orlop.dev");
    let other = authority.credentials("b.node.orlop.dev");

    meet(
        here.server(|role| *role == Role::Controller),
        other.client(|_| true),
    )
    .await
    .expect_err("a node is not the controller");
}

#[tokio::test]
async fn a_node_that_answers_for_another_is_not_talked_to() {
    let authority = Authority::new();
    let here = authority.credentials("a.node.orlop.dev");
    let router = authority.credentials("controller.orlop.dev");

    let error = meet(
        here.server(|_| true),
        router.client(|role| *role == node("b")),
    )
    .await
    .expect_err("it is a, not b");

    assert!(error.to_string().contains("a.node.orlop.dev"), "{error}");
}

#[tokio::test]
async fn neither_end_believes_a_stranger() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let here = ours.credentials("a.node.orlop.dev");
    let router = ours.credentials("controller.orlop.dev");
    let false_node = theirs.credentials("a.node.orlop.dev");
    let false_router = theirs.credentials("controller.orlop.dev");
    // A client of which the server's authority is believed, but not the other way round.
    let (chain, key) = theirs.sign(&["controller.orlop.dev"]);
    let bundle = format!("{}{}", theirs.pem, ours.pem);
    let believer = Pair::from_pem(chain.as_bytes(), key.as_bytes(), bundle.as_bytes());
    let believer = Credentials::of(believer.expect("its own authority is in it"));

    for (server, client) in [
        (&false_node, &router),
        (&here, &false_router),
        (&here, &believer),
    ] {
        meet(server.server(|_| true), client.client(|_| true))
            .await
            .expect_err("another authority signed it");
    }
}

#[tokio::test]
async fn configurations_that_were_given_follow_a_new_authority() {
    let (old, new) = (Authority::new(), Authority::new());
    let here = old.credentials("a.node.orlop.dev");
    let router = old.credentials("controller.orlop.dev");
    let server = here.server(|_| true);
    let client = router.client(|_| true);
    meet(server.clone(), client.clone())
        .await
        .expect("they may talk");

    here.replace(new.pair(&["a.node.orlop.dev"]).expect("it is good"));
    meet(server.clone(), client.clone())
        .await
        .expect_err("only one has the new authority");
    router.replace(new.pair(&["controller.orlop.dev"]).expect("it is good"));
    meet(server, client).await.expect("both have it");
}

#[tokio::test]
async fn a_new_pair_in_the_folder_is_taken_and_a_broken_one_is_not() {
    let (old, new) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().expect("a directory can be made");
    old.write(&directory, "a.node.orlop.dev");
    let credentials = Credentials::open(directory.path()).expect("it is good");
    let first = credentials.pair();
    let reload = || credentials.reload(directory.path());

    let unchanged = reload().expect("nothing has changed");
    fs::write(directory.path().join("ca.crt"), &new.pem).expect("it can be written");
    let error = reload().expect_err("the new authority did not sign it");
    let kept = credentials.pair();
    new.write(&directory, "a.node.orlop.dev");
    let changed = reload().expect("it is good again");

    assert!(!unchanged && changed);
    assert!(
        format!("{error:#}").contains("ca.crt must have signed it"),
        "{error:#}"
    );
    assert!(kept.is_same_as(&first) && !credentials.pair().is_same_as(&first));
}

#[tokio::test]
async fn the_folder_is_followed_while_somebody_has_the_credentials() {
    let (old, new) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().expect("a directory can be made");
    old.write(&directory, "a.node.orlop.dev");
    let credentials = Credentials::of(Pair::read(directory.path()).expect("it is good"));
    let first = credentials.pair();
    let tick = Duration::from_millis(1);
    let current = Arc::downgrade(&credentials.0);
    let following = tokio::spawn(follow(directory.path().to_owned(), current, tick));

    new.write(&directory, "a.node.orlop.dev");
    let taken = tokio::time::timeout(Duration::from_secs(20), async {
        while credentials.pair().is_same_as(&first) {
            tokio::time::sleep(tick).await;
        }
    });

    taken.await.expect("it looks again and again");
    drop(credentials);
    following.await.expect("it ends with them");
}

#[test]
fn a_certificate_is_of_exactly_one_role() {
    let authority = Authority::new();

    let role = |names: &[&str]| authority.pair(names).map(|pair| pair.role().clone());

    assert_eq!(
        role(&["a.b.node.orlop.dev", "localhost"]).expect("one role"),
        node("a.b")
    );
    for none in [
        &["localhost"][..],
        &["node.orlop.dev"],
        &["*.node.orlop.dev"],
        &["x.controller.orlop.dev"],
        &["a.node.orlop.dev", "b.node.orlop.dev"],
        &["a.node.orlop.dev", "controller.orlop.dev"],
    ] {
        role(none).expect_err("it must be clear who that is");
    }
}

#[test]
fn what_others_would_not_believe_is_told_at_once() {
    let authority = Authority::new();
    let (chain, key) = authority.sign(&["a.node.orlop.dev"]);
    let (_, other) = authority.sign(&["a.node.orlop.dev"]);
    let mut over = CertificateParams::new(vec!["a.node.orlop.dev".to_owned()]).expect("a name");
    over.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let (over, its_key) = authority.sign_with(over);
    let told = |chain: &str, key: &str, ca: &str| {
        let pair = Pair::from_pem(chain.as_bytes(), key.as_bytes(), ca.as_bytes());
        format!("{:#}", pair.expect_err("it is of no use"))
    };

    assert!(told(&chain, &other, &authority.pem).contains("tls.key does not belong to tls.crt"));
    assert!(told(&over, &its_key, &authority.pem).contains("for now"));
    assert!(told(&chain, "", &authority.pem).contains("tls.key: no private key"));
    assert!(told("", &key, &authority.pem).contains("tls.crt: no certificate"));
    assert!(told(&chain, &key, "").contains("ca.crt: no certificate"));
}
