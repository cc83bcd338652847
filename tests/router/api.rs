//! A real API server of Kubernetes with its store, in a network of its own; no kubelet and no controller behind it.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rcgen::KeyPair;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;
use tempfile::TempDir;

use crate::authority::Authority;
use crate::support::{run, skipped};

/// How long it may take to start: half of it is enough on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);
/// An address of the network that an endpoint may have: the API takes no loopback address.
pub(crate) const HERE: &str = "192.0.2.1";

/// Both processes; dropped, they are killed.
pub(crate) struct Api {
    dir: TempDir,
    processes: Vec<Child>,
    _network: Network,
}

/// A network namespace with an address.
struct Network(String);

impl Api {
    /// Starts one, and moves this thread into its network. Nothing, and a line that says why, where it can not be had.
    pub(crate) async fn start() -> Option<Self> {
        let Some(kube) = built() else {
            skipped(
                "the router in a Kubernetes",
                "there is no API server: `make test-cluster` builds one",
            );
            return None;
        };
        let network = Network::new()?;
        let dir = tempfile::tempdir().expect("the temporary directory can be written");
        let mut api = Self {
            dir,
            processes: Vec::new(),
            _network: network,
        };
        api.write_identity();
        let store = "etcd --unsafe-no-fsync --log-level=error --data-dir=store";
        let server = "kube-apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address=127.0.0.1 \
            --advertise-address=192.0.2.1 --secure-port=6443 --authorization-mode=RBAC --token-auth-file=tokens \
            --tls-cert-file=tls.crt --tls-private-key-file=tls.key --service-account-issuer=https://kubernetes \
            --service-account-key-file=accounts.pub --service-account-signing-key-file=accounts \
            --service-cluster-ip-range=10.96.0.0/16 --client-ca-file=ca.crt --cert-dir=.";
        for line in [store, server] {
            api.spawn(&kube, line);
        }
        api.until_it_serves().await;
        Some(api)
    }

    /// What `KUBECONFIG` is to be.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    pub(crate) async fn client(&self) -> Client {
        let config = Kubeconfig::read_from(self.config()).expect("it was written");
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::try_from(config.expect("it is complete")).expect("it is right")
    }

    fn write_identity(&self) {
        let authority = Authority::new();
        authority.sign("127.0.0.1", self.dir.path());
        let accounts = KeyPair::generate().expect("there is randomness");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "users": [{"name": "it", "user": {"token": "admin"}}],
            "clusters": [{"name": "it", "cluster": {
                "server": "https://127.0.0.1:6443",
                "certificate-authority": self.dir.path().join("127.0.0.1/ca.crt"),
            }}],
        });
        let token = "admin,admin,admin,system:masters\n";
        for (file, text) in [
            ("accounts", accounts.serialize_pem()),
            ("accounts.pub", accounts.public_key_pem()),
            ("config", config.to_string()),
            ("tokens", token.to_owned()),
        ] {
            fs::write(self.dir.path().join(file), text).expect("it can be written");
        }
        for file in ["tls.crt", "tls.key", "ca.crt"] {
            let made = self.dir.path().join("127.0.0.1").join(file);
            fs::copy(made, self.dir.path().join(file)).expect("it was written");
        }
    }

    fn spawn(&mut self, kube: &Path, line: &str) {
        let name = line.split(' ').next().expect("it has a name");
        let log = File::create(self.dir.path().join(format!("{name}.log"))).expect("it is new");
        #[expect(
            clippy::disallowed_methods,
            reason = "a test starts what it tests with"
        )]
        let process = std::process::Command::new(kube)
            .args(line.split_whitespace())
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("it is open"))
            .stderr(log)
            .spawn();
        self.processes.push(process.expect("it was built"));
    }

    async fn until_it_serves(&mut self) {
        let (client, started) = (self.client().await, Instant::now());
        let ready = || {
            http::Request::get("/api/v1/namespaces/default")
                .body(Vec::new())
                .expect("it is a request")
        };
        while client.request_text(ready()).await.is_err() {
            let ended =
                |process: &mut Child| process.try_wait().expect("it is our child").is_some();
            let dead = self.processes.iter_mut().any(ended);
            let log = || fs::read_to_string(self.dir.path().join("kube-apiserver.log"));
            assert!(
                !dead && started.elapsed() < PATIENCE,
                "it does not serve:\n{log:?}",
                log = log()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // One that ended before is what is wanted.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Network {
    fn new() -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let network = Self(format!("orlop-api-{}-{number}", std::process::id()));
        let add = run("ip", ["netns", "add", &network.0]);
        if let Err(error) = add {
            skipped("the router in a Kubernetes", &format!("{error:#}"));
            return None;
        }
        for line in ["link set lo up", "addr add 192.0.2.1/32 dev lo"] {
            let words = ["-n", &network.0].into_iter().chain(line.split(' '));
            run("ip", words).expect("the namespace is new");
        }
        let file = File::open(format!("/run/netns/{}", network.0)).expect("it was made");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("we are root");
        Some(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = run("ip", ["netns", "del", &self.0]);
    }
}

/// The binary that `tests/cluster/build.sh` made last.
fn built() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("ORLOP_KUBE") {
        return Some(named.into());
    }
    let cache = std::env::var_os("ORLOP_CACHE").map(PathBuf::from);
    let cache =
        cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/orlop")))?;
    let folders = fs::read_dir(cache).ok()?.flatten();
    let ours = folders.filter(|folder| {
        folder
            .file_name()
            .to_string_lossy()
            .starts_with("kubernetes-")
    });
    let newest =
        ours.max_by_key(|folder| folder.metadata().and_then(|data| data.modified()).ok())?;
    let kube = newest.path().join("kube");
    kube.exists().then_some(kube)
}
