//! Makes the driver known to the kubelet, which watches a directory for sockets such as this one and calls.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tracing::{error, info};

use super::endpoint::Endpoint;
use super::proto::pluginregistration::registration_server::{
    Registration as Service, RegistrationServer,
};
use super::proto::pluginregistration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use super::socket::Socket;
use crate::names::DRIVER;
use crate::telemetry::metrics::Metrics;

/// The versions of the registration that a CSI driver may name; the kubelet knows this one.
const VERSION: &str = "1.0.0";

/// The registration's socket in the kubelet's directory for them.
///
/// The kubelet sends the path of the socket, `/` written as `%2F`, as the authority of its calls. That is none, and
/// refused below HTTP, unless all of it but the last name stands before an `@`, where percents are allowed.
pub fn endpoint(directory: &Path) -> Result<Endpoint> {
    Endpoint::at(directory.join(format!("orlop@{DRIVER}-reg.sock")))
}

/// Answers the kubelet until the token is set; to be called when `driver` is being served, as the kubelet dials it at once.
///
/// # Errors
/// The kubelet refused the driver; the message is the kubelet's.
pub async fn serve(
    socket: Socket,
    driver: &Endpoint,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    drain_limit: Duration,
) -> Result<()> {
    let refusal = Arc::new(OnceLock::new());
    let stop = shutdown.child_token();
    let registration = Registration {
        driver: driver.path().to_owned(),
        refusal: refusal.clone(),
        stop: stop.clone(),
    };
    let routes = Routes::new(RegistrationServer::new(registration));
    super::serve(socket, routes, metrics, stop, drain_limit).await?;
    match refusal.get() {
        None => Ok(()),
        Some(message) => bail!("the kubelet refused the driver {DRIVER}: {message}"),
    }
}

#[derive(Debug)]
struct Registration {
    driver: PathBuf,
    refusal: Arc<OnceLock<String>>,
    stop: CancellationToken,
}

#[tonic::async_trait]
impl Service for Registration {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: DRIVER.to_owned(),
            endpoint: self.driver.to_string_lossy().into_owned(),
            supported_versions: vec![VERSION.to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            info!("the kubelet knows this driver now");
        } else {
            error!(error = status.error, "the kubelet refused this driver");
            self.refusal.get_or_init(|| status.error);
            self.stop.cancel();
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
