//! The identity service: who we are, what we can, and whether we are well.

use tonic::{Request, Response};

use super::Reply;
use super::proto::{
    self, GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, PluginCapability, ProbeRequest, ProbeResponse, plugin_capability,
};
use crate::driver::Driver;
use crate::names::DRIVER;

/// Serves `csi.v1.Identity`.
#[derive(Clone)]
pub struct Identity {
    driver: Driver,
}

impl Identity {
    /// The identity of this driver.
    pub fn new(driver: Driver) -> Self {
        Self { driver }
    }
}

#[tonic::async_trait]
impl proto::identity_server::Identity for Identity {
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
            ready: Some(self.driver.is_ready().await),
        }))
    }
}
