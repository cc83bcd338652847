//! The node's own credentials, from programs that tell them when they are asked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::cache::{Cache, blob};
use crate::process::{Process, ask};
use crate::upstream::Upstream;

/// `hi:ho`, as a header has it.
const BASIC: &str = "Basic aGk6aG8=";

/// A program in a folder.
fn program(folder: &Path, name: &str, script: &str) {
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("it is ours");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

/// What the programs wrote down.
fn told(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("told")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_credential_provider_is_asked_once_for_all_that_its_answer_is_for() {
    let upstream = Upstream::start().await;
    let layers = ["a/b", "c/d"].map(|path| (path, upstream.blob(path, path.as_bytes())));
    upstream.lock_by(BASIC);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (config, place) = (folder.path().join("config.yaml"), folder.path().display());
    program(
        folder.path(),
        "of-cloud",
        &format!(
            r#"echo "$1 $STAGE $(cat)" >>{place}/told
echo '{{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Registry","auth":{{"*.test":{{"username":"hi","password":"ho"}}}}}}'"#
        ),
    );
    program(folder.path(), "that-fails", "exit 1");
    let text = "kind: CredentialProviderConfig
apiVersion: kubelet.config.k8s.io/v1
providers:
- name: that-fails
  matchImages: ['registry.test']
  defaultCacheDuration: 12h0m0s
  apiVersion: credentialprovider.kubelet.k8s.io/v1
- name: of-cloud
  matchImages: ['*.test']
  defaultCacheDuration: 12h0m0s
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  args: [get]
  env: [{ name: STAGE, value: blue }]
";
    fs::write(&config, text).expect("it is ours");
    let cache = Cache::with(&upstream, |settings| {
        settings.image_credential_provider_config = Some(config);
        settings.image_credential_provider_bin_dir = Some(folder.path().to_owned());
    })
    .await;

    for (path, layer) in &layers {
        let path_of = format!("/v2/{path}/blobs/{layer}?ns=registry.test");
        assert_eq!(cache.get(&path_of).await.bytes(), path.as_bytes());
    }

    let asked = r#"get blue {"apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"registry.test/a/b","kind":"CredentialProviderRequest"}"#;
    assert_eq!(told(folder.path()), [asked]);
}

#[tokio::test]
async fn an_identity_token_that_a_credential_program_tells_buys_tokens() {
    let upstream = Upstream::start().await;
    let layer = upstream.blob("a/b", b"secret layer");
    upstream.lock("bought");
    upstream.sell_to("bought", "refresh_token=id%2Bentity");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (config, place) = (folder.path().join("config.json"), folder.path().display());
    program(
        folder.path(),
        "docker-credential-of-cloud",
        &format!(
            r#"echo "$1 $(cat)" >>{place}/told; echo hm >&2; echo '{{"Username":"<token>","Secret":"id+entity"}}'"#
        ),
    );
    fs::write(&config, r#"{"credHelpers":{"registry.test":"of-cloud"}}"#).expect("it is ours");
    let path = std::env::var("PATH").unwrap_or_default();
    let cache = Process::start(&upstream, &folder.path().join("cache"), |command| {
        command.env("PATH", format!("{place}:{path}"));
        command.arg("--credentials").arg(&config);
    });

    let seen = ask(format!("{}{}", cache.url, blob(&layer))).await;

    assert_eq!(seen.as_deref(), Some(&b"secret layer"[..]));
    assert_eq!(told(folder.path()), ["get registry.test"]);
}
