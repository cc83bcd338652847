//! How the layer cache of one node is set up.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// How the layer cache of one node is set up.
#[derive(Clone, Debug, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// Where the runtime of this node asks for images.
    #[arg(long, env = "ORLOP_LAYERS_LISTEN", default_value = "127.0.0.1:5052")]
    pub listen: SocketAddr,
    /// Where other nodes reach this one, over TCP and UDP; without it the node is alone.
    #[arg(long, env = "ORLOP_LAYERS_PEER_LISTEN")]
    pub peer_listen: Option<SocketAddr>,
    /// The same address as the others see it, if it is not the one listened on.
    #[arg(long, env = "ORLOP_LAYERS_ADVERTISE")]
    pub advertise: Option<SocketAddr>,
    /// Some of the other nodes: a static list, or the name of a headless service, each with its port.
    #[arg(long = "peer", env = "ORLOP_LAYERS_PEERS", value_delimiter = ',')]
    #[serde(default)]
    pub seeds: Vec<String>,
    /// The folder with `tls.crt`, `tls.key` and `ca.crt`, by which peers prove to be nodes; without it anyone is a peer.
    #[arg(long, env = "ORLOP_LAYERS_CERTIFICATES", value_name = "FOLDER")]
    pub certificates: Option<PathBuf>,
    /// The zone of this node, whose border a blob should cross once.
    #[arg(long, env = "ORLOP_LAYERS_ZONE", default_value = "")]
    pub zone: String,
    /// The folder for blobs and tags.
    #[arg(
        long,
        env = "ORLOP_LAYERS_CACHE",
        default_value = "/var/lib/orlop/layers"
    )]
    pub cache: PathBuf,
    /// The most that the cache takes of the disk, in MiB; 0 keeps nothing.
    #[arg(long, env = "ORLOP_LAYERS_QUOTA_MIB", default_value_t = 20_480)]
    pub quota_mib: u64,
    /// Where a registry is, if not at https and its own name: `NAME=URL`. Can be given several times.
    #[arg(long = "upstream", value_name = "NAME=URL")]
    #[serde(default)]
    pub upstreams: Vec<String>,
    /// Take no more MiB a second from all registries together.
    #[arg(long, env = "ORLOP_LAYERS_UPSTREAM_MIB", value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub upstream_mib_per_second: Option<u64>,
    /// Ask all registries together no more often than this in a second.
    #[arg(long, env = "ORLOP_LAYERS_UPSTREAM_REQUESTS", value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub upstream_requests_per_second: Option<u64>,
    /// Give no more MiB a second to all peers together; whoever would have to wait long asks another.
    #[arg(long, env = "ORLOP_LAYERS_PEERS_MIB", value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub peers_mib_per_second: Option<u64>,
    /// Give no more MiB a second to any one peer.
    #[arg(long, env = "ORLOP_LAYERS_PEER_MIB", value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub peer_mib_per_second: Option<u64>,
    /// Credentials for registries, in the form of Docker's config.json; the programs that it names are asked, too.
    #[arg(long, env = "ORLOP_LAYERS_CREDENTIALS")]
    pub credentials: Option<PathBuf>,
    /// The configuration of the kubelet's credential providers, which are asked for what --credentials does not have.
    #[arg(
        long,
        env = "ORLOP_LAYERS_PROVIDER_CONFIG",
        value_name = "FILE",
        requires = "image_credential_provider_bin_dir"
    )]
    pub image_credential_provider_config: Option<PathBuf>,
    /// The folder in which those providers are.
    #[arg(
        long,
        env = "ORLOP_LAYERS_PROVIDER_BIN_DIR",
        value_name = "FOLDER",
        requires = "image_credential_provider_config"
    )]
    pub image_credential_provider_bin_dir: Option<PathBuf>,
    /// containerd's content folder, to read blobs from that the runtime of this node keeps already; with --containerd they
    /// are held there by a lease, and not kept twice.
    #[arg(long, env = "ORLOP_LAYERS_CONTENT")]
    pub content: Option<PathBuf>,
    /// containerd's socket, to make it forget half-written blobs that are wrong.
    #[arg(long, env = "ORLOP_LAYERS_CONTAINERD")]
    pub containerd: Option<PathBuf>,
    /// The namespace of the runtime's images.
    #[arg(long, default_value = "k8s.io")]
    pub namespace: String,
    /// Whoever reaches the mirror may have what is cached, without showing a right to it.
    #[arg(long, env = "ORLOP_LAYERS_ANYONE")]
    #[serde(default)]
    pub anyone: bool,
    /// For how many seconds a tag is believed before its registry is asked again.
    #[arg(long, default_value_t = 10)]
    pub tag_seconds: u64,
}
