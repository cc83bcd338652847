//! The identity service: who we are, what we can, and whether we are well.

use tonic::{Request, Response};

use super::Reply;
use super::proto::{
    self, GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, PluginCapability, ProbeRequest, ProbeResponse, plugin_capability,
};
use crate::driver::Driver;
use crate::names::DRIVER;

/// Serves `csi.v1.Identity`, of a node or of the router: they differ only in when they are ready.
#[derive(Clone)]
pub struct Identity<R> {
    served: R,
}

/// Who can say whether calls can be answered now.
pub trait Readiness: Clone + Send + Sync + 'static {
    /// Whether they can.
    fn is_ready(&self) -> impl Future<Output = bool> + Send;
}

impl Readiness for Driver {
    fn is_ready(&self) -> impl Future<Output = bool> + Send {
        self.is_ready()
    }
}

impl<R: Readiness> Identity<R> {
    /// The identity of what is served.
    pub fn new(served: R) -> Self {
        Self { served }
    }
}

#[tonic::async_trait]
impl<R: Readiness> proto::identity_server::Identity for Identity<R> {
    async fn get_plugin_info(
        &self,
        _request: Request<GetPluginInfoRequest>,
    ) -> Reply<GetPluginInfoResponse> {
        Ok(Response::new(GetPluginInfoResponse {
            name: DRIVER.to_owned(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: [].into(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _request: Request<GetPluginCapabilitiesRequest>,
    ) -> Reply<GetPluginCapabilitiesResponse> {
        use plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion};
        let service = |r#type: service::Type| {
            Type::Service(Service {
                r#type: r#type.into(),
            })
        };
        let online = VolumeExpansion {
            r#type: volume_expansion::Type::Online.into(),
        };
        let capabilities = [
            service(service::Type::ControllerService),
            service(service::Type::VolumeAccessibilityConstraints),
            service(service::Type::SnapshotAccessibilityConstraints),
            Type::VolumeExpansion(online),
        ];
        let capability = |r#type| PluginCapability {
            r#type: Some(r#type),
        };
        Ok(Response::new(GetPluginCapabilitiesResponse {
            capabilities: capabilities.into_iter().map(capability).collect(),
        }))
    }

    async fn probe(&self, _request: Request<ProbeRequest>) -> Reply<ProbeResponse> {
        Ok(Response::new(ProbeResponse {
            ready: Some(self.served.is_ready().await),
        }))
    }
}
