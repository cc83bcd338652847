//! The registration: how the kubelet learns of the driver.

use std::path::Path;

use orlop::csi::proto::pluginregistration::registration_client::RegistrationClient;
use orlop::csi::proto::pluginregistration::{InfoRequest, RegistrationStatus};
use orlop::csi::registration;
use orlop::csi::socket::Socket;

use crate::served::{PATIENCE, Served, channel, within};

#[test]
fn the_path_of_the_registration_is_an_authority_as_the_kubelet_writes_it() {
    let registry = Path::new("/var/lib/kubelet/plugins_registry");
    let socket = registration::endpoint(registry).expect("the path is short");

    let written = socket.path().to_string_lossy().replace('/', "%2F");

    assert!(written.parse::<http::uri::Authority>().is_ok(), "{written}");
}

#[tokio::test]
async fn the_kubelet_learns_the_driver_and_a_refusal_ends_the_registration() {
    let served = Served::start(PATIENCE);
    let endpoint = registration::endpoint(served.directory.path()).expect("it is short");
    let socket = Socket::bind(&endpoint).expect("the place is free");
    let driver = served.endpoint.clone();
    let (metrics, shutdown) = (served.metrics.clone(), served.shutdown.clone());
    let registered = tokio::spawn(async move {
        registration::serve(socket, &driver, metrics, shutdown, PATIENCE).await
    });
    let mut kubelet = RegistrationClient::new(channel(&endpoint).await);

    let info = kubelet
        .get_info(InfoRequest {})
        .await
        .expect("it answers")
        .into_inner();
    let status = |plugin_registered, error: &str| RegistrationStatus {
        plugin_registered,
        error: error.to_owned(),
    };
    let success = kubelet.notify_registration_status(status(true, "")).await;
    assert!(!registered.is_finished());
    let failure = kubelet
        .notify_registration_status(status(false, "name taken"))
        .await;

    assert!(endpoint.path().ends_with("orlop@csi.orlop.dev-reg.sock"));
    assert_eq!(
        (info.r#type.as_str(), info.name.as_str()),
        ("CSIPlugin", "csi.orlop.dev")
    );
    assert_eq!(Path::new(&info.endpoint), served.endpoint.path());
    assert_eq!(info.supported_versions, ["1.0.0"]);
    success.expect("it is heard");
    failure.expect("it is heard");
    let error = within(registered)
        .await
        .expect("no panic")
        .expect_err("it was refused");
    assert!(error.to_string().contains("name taken"), "{error}");
    assert!(!served.server.is_finished() && !served.shutdown.is_cancelled());
}

#[tokio::test]
async fn the_registration_ends_well_at_shutdown() {
    let served = Served::start(PATIENCE);
    let endpoint = registration::endpoint(served.directory.path()).expect("it is short");
    let socket = Socket::bind(&endpoint).expect("the place is free");
    served.shutdown.cancel();

    let (metrics, shutdown) = (served.metrics.clone(), served.shutdown.clone());
    let ended = registration::serve(socket, &served.endpoint, metrics, shutdown, PATIENCE);

    within(ended).await.expect("nobody refused");
}
