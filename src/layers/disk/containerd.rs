//! containerd's own API, as much of it as the cache asks: what it is writing, what it knows, and what it must keep.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::layers::image::digest::Digest;

/// How long a call may take.
const LIMIT: Duration = Duration::from_secs(5);

const CONTENT: &str = "content.v1.Content";
const LEASES: &str = "leases.v1.Leases";
/// The label of a lease that says when it ends by itself (`containerd/docs/garbage-collection.md`).
const EXPIRE: &str = "containerd.io/gc.expire";
/// The label of a lease that holds what it names, and not what that refers to in turn: a manifest without its layers.
const FLAT: &str = "containerd.io/gc.flat";

/// containerd's services for content and leases, in one of its namespaces.
#[derive(Clone, Debug)]
pub(super) struct Api {
    channel: Channel,
    namespace: MetadataValue<tonic::metadata::Ascii>,
}

/// `containerd.services.content.v1.AbortRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct AbortRequest {
    #[prost(string, tag = "1")]
    name: String,
}

/// `containerd.services.content.v1.ListStatusesRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct ListStatusesRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

/// `containerd.services.content.v1.ListStatusesResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct ListStatusesResponse {
    #[prost(message, repeated, tag = "1")]
    statuses: Vec<Ingest>,
}

/// `containerd.services.content.v1.Status`: a blob that containerd is writing.
#[derive(Clone, PartialEq, prost::Message)]
struct Ingest {
    #[prost(string, tag = "3")]
    name: String,
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(int64, tag = "5")]
    total: i64,
}

/// `containerd.services.content.v1.InfoRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct InfoRequest {
    #[prost(string, tag = "1")]
    digest: String,
}

/// `containerd.services.leases.v1.CreateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct CreateRequest {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(map = "string, string", tag = "3")]
    labels: HashMap<String, String>,
}

/// `containerd.services.leases.v1.Resource`.
#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    kind: String,
}

/// `containerd.services.leases.v1.AddResourceRequest` and `DeleteResourceRequest`, which are alike.
#[derive(Clone, PartialEq, prost::Message)]
struct ResourceRequest {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    resource: Option<Resource>,
}

/// `containerd.services.leases.v1.ListResourcesRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct ListResourcesRequest {
    #[prost(string, tag = "1")]
    id: String,
}

/// `containerd.services.leases.v1.ListResourcesResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct ListResourcesResponse {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<Resource>,
}

impl ResourceRequest {
    fn of(lease: &str, digest: &Digest) -> Self {
        Self {
            id: lease.to_owned(),
            resource: Some(Resource {
                id: digest.to_string(),
                kind: "content".to_owned(),
            }),
        }
    }
}

impl Api {
    /// Of the daemon behind a socket, of which nothing is asked yet.
    pub(super) fn new(socket: &Path, namespace: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))
            .with_context(|| format!("{} is not a path of a socket", socket.display()))?;
        let namespace = namespace
            .parse()
            .with_context(|| format!("{namespace:?} is not a namespace"))?;
        Ok(Self {
            channel: endpoint.timeout(LIMIT).connect_lazy(),
            namespace,
        })
    }

    /// Forgets an ingest.
    pub(super) async fn abort(&self, name: String) -> Result<(), Status> {
        self.call(CONTENT, "Abort", AbortRequest { name }).await
    }

    /// The names of ingests that have all their bytes.
    pub(super) async fn full_ingests(&self) -> Result<HashSet<String>, Status> {
        let filters = Vec::new();
        let request = ListStatusesRequest { filters };
        let answer: ListStatusesResponse = self.call(CONTENT, "ListStatuses", request).await?;
        let full = answer.statuses.into_iter();
        let full = full.filter(|ingest| ingest.total > 0 && ingest.offset == ingest.total);
        Ok(full.map(|ingest| ingest.name).collect())
    }

    /// Whether a blob is one of those that it knows, and not only a file that it is about to remove.
    pub(super) async fn knows(&self, digest: &Digest) -> Result<bool, Status> {
        let digest = digest.to_string();
        match self.call(CONTENT, "Info", InfoRequest { digest }).await {
            Ok(()) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(status),
        }
    }

    /// Makes a lease that ends by itself at this time, unless it is there.
    pub(super) async fn lease(&self, lease: &str, end: Timestamp) -> Result<(), Status> {
        let request = CreateRequest {
            id: lease.to_owned(),
            labels: [(EXPIRE, end.to_string()), (FLAT, "true".to_owned())]
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
        };
        done_or(
            Code::AlreadyExists,
            self.call(LEASES, "Create", request).await,
        )
    }

    /// The blobs that a lease holds; none if it is not there.
    pub(super) async fn held_by(&self, lease: &str) -> Result<HashSet<Digest>, Status> {
        let request = ListResourcesRequest {
            id: lease.to_owned(),
        };
        let answer: ListResourcesResponse = match self.call(LEASES, "ListResources", request).await
        {
            Err(status) if status.code() == Code::NotFound => return Ok(HashSet::new()),
            answer => answer?,
        };
        let resources = answer.resources.into_iter();
        Ok(resources
            .filter_map(|resource| resource.id.parse().ok())
            .collect())
    }

    /// Has a lease hold a blob.
    pub(super) async fn hold(&self, lease: &str, digest: &Digest) -> Result<(), Status> {
        let request = ResourceRequest::of(lease, digest);
        self.call(LEASES, "AddResource", request).await
    }

    /// Has a lease not hold a blob any more.
    pub(super) async fn release(&self, lease: &str, digest: &Digest) -> Result<(), Status> {
        let request = ResourceRequest::of(lease, digest);
        let released = self.call(LEASES, "DeleteResource", request).await;
        done_or(Code::NotFound, released)
    }

    async fn call<Q, A>(&self, service: &str, method: &str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let path = format!("/containerd.services.{service}/{method}");
        let path =
            PathAndQuery::try_from(path).map_err(|error| Status::internal(error.to_string()))?;
        let mut client = Grpc::new(self.channel.clone());
        let ready = client.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(request);
        let namespace = self.namespace.clone();
        request
            .metadata_mut()
            .insert("containerd-namespace", namespace);
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        Ok(client.unary(request, path, codec).await?.into_inner())
    }
}

/// What was done already, as the daemon says by this code, is as good as done.
fn done_or(already: Code, done: Result<(), Status>) -> Result<(), Status> {
    match done {
        Err(status) if status.code() == already => Ok(()),
        done => done,
    }
}
