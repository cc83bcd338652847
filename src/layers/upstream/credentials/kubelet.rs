//! Credentials as a kubelet has them told: by the exec plugins of its `CredentialProviderConfig` (KEP-2133).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::SignedDuration;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;

use super::{Credential, basic, told_by};
use crate::host::command::Command;
use crate::layers::image::name::Repository;

/// What all versions of the conversation with a plugin begin with.
const API: &str = "credentialprovider.kubelet.k8s.io/";
/// More answers than this are not remembered.
const MOST: usize = 1000;

/// The credential providers of a kubelet.
#[derive(Debug, Default)]
pub(super) struct Kubelet {
    providers: Vec<Provider>,
    folder: PathBuf,
    told: Mutex<HashMap<Key, (Logins, Instant)>>,
}

/// A provider, and for which images it told something.
type Key = (usize, String);
/// Credentials by the images that they are for.
type Logins = HashMap<String, Login>;

/// `CredentialProviderConfig` of `kubelet.config.k8s.io`.
#[derive(Deserialize)]
struct Config {
    providers: Vec<Provider>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Provider {
    name: String,
    match_images: Vec<String>,
    default_cache_duration: SignedDuration,
    api_version: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
    token_attributes: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Variable {
    name: String,
    value: String,
}

/// `CredentialProviderResponse` of `credentialprovider.kubelet.k8s.io`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    cache_key_type: KeyType,
    cache_duration: Option<SignedDuration>,
    auth: Option<Logins>,
}

/// For which images an answer counts.
#[derive(Deserialize)]
enum KeyType {
    Image,
    Registry,
    Global,
}

#[derive(Clone, Deserialize)]
struct Login {
    username: String,
    password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("redacted")
    }
}

impl Kubelet {
    pub(super) fn read(config: &Path, folder: PathBuf) -> Result<Self> {
        let reading = || format!("reading the credential providers in {}", config.display());
        let text = std::fs::read_to_string(config).with_context(reading)?;
        let Config { providers } = serde_yaml_ng::from_str(&text).with_context(reading)?;
        for provider in &providers {
            provider.check(&folder).with_context(reading)?;
        }
        Ok(Self {
            providers,
            folder,
            told: Mutex::default(),
        })
    }

    /// What the first provider tells that has anything for an image.
    pub(super) async fn of(&self, repository: &Repository) -> Option<Credential> {
        let image = format!("{}/{}", repository.registry(), repository.path());
        for (at, provider) in self.providers.iter().enumerate() {
            let mut patterns = provider.match_images.iter();
            if !patterns.any(|pattern| matches(pattern, &image)) {
                continue;
            }
            let keys = [&image, repository.registry(), ""].map(|key| (at, key.to_owned()));
            let logins = match self.remembered(&keys) {
                Some(logins) => Some(logins),
                None => self.ask(provider, &image, keys).await,
            };
            let logins = logins.unwrap_or_default();
            let fitting = logins.iter().filter(|(key, _)| matches(key, &image));
            if let Some((_, login)) = fitting.max_by_key(|(key, _)| key.len()) {
                return basic(&login.username, &login.password);
            }
        }
        None
    }

    fn remembered(&self, keys: &[Key; 3]) -> Option<Logins> {
        let (told, now) = (self.told.lock(), Instant::now());
        let mut known = keys.iter().filter_map(|key| told.get(key));
        let (logins, _) = known.find(|(_, end)| *end > now)?;
        Some(logins.clone())
    }

    async fn ask(&self, provider: &Provider, image: &str, keys: [Key; 3]) -> Option<Logins> {
        let request = json!({
            "apiVersion": provider.api_version,
            "kind": "CredentialProviderRequest",
            "image": image,
        });
        let told = told_by(
            provider
                .command(&self.folder)
                .input(request.to_string().into_bytes()),
        );
        let told: Told = match serde_json::from_str(&told.await?) {
            Ok(told) => told,
            // Its text may be of a secret.
            Err(error) => {
                tracing::warn!(
                    provider = provider.name,
                    line = error.line(),
                    column = error.column(),
                    "its answer is no CredentialProviderResponse"
                );
                return None;
            }
        };
        let logins = told.auth.unwrap_or_default();
        let lasts = told
            .cache_duration
            .unwrap_or(provider.default_cache_duration);
        let lasts = Duration::try_from(lasts).unwrap_or_default();
        let [of_image, of_registry, of_all] = keys;
        let key = match told.cache_key_type {
            KeyType::Image => of_image,
            KeyType::Registry => of_registry,
            KeyType::Global => of_all,
        };
        let mut kept = self.told.lock();
        if kept.len() >= MOST {
            kept.clear();
        }
        if let Some(end) = Instant::now().checked_add(lasts) {
            kept.insert(key, (logins.clone(), end));
        }
        Some(logins)
    }
}

impl Provider {
    /// Whether it can be run, and as a kubelet would.
    fn check(&self, folder: &Path) -> Result<()> {
        let name = &self.name;
        ensure!(
            !name.is_empty() && !name.contains('/') && name != "." && name != "..",
            "{name:?} is no name of a provider"
        );
        ensure!(
            self.api_version.starts_with(API),
            "{name}: apiVersion {:?} is not of {API}",
            self.api_version
        );
        ensure!(
            self.token_attributes.is_none(),
            "{name} wants the service account tokens of pods, which the kubelet alone has: give the layer cache a \
             configuration without tokenAttributes"
        );
        let program = folder.join(name);
        ensure!(program.is_file(), "there is no {}", program.display());
        Ok(())
    }

    fn command(&self, folder: &Path) -> Command {
        let command = Command::query(folder.join(&self.name)).args(&self.args);
        let set = |command: Command, Variable { name, value }: &Variable| {
            command.env(name.clone(), value.clone())
        };
        self.env.iter().fold(command, set)
    }
}

/// Whether an image is one of those that a pattern means: as many labels in its host, each of which may have `*`, the
/// same port, and a path that begins like its own.
fn matches(pattern: &str, image: &str) -> bool {
    let pattern = pattern.split_once("://").map_or(pattern, |(_, rest)| rest);
    let ((host, port, path), (host_of, port_of, path_of)) = (parts(pattern), parts(image));
    let (globs, labels) = (host.split('.'), host_of.split('.'));
    globs.clone().count() == labels.clone().count()
        && globs.zip(labels).all(|(glob, label)| fits(glob, label))
        && port == port_of
        && path_of.starts_with(path)
}

/// The host, the port and the path of a pattern or an image, each of which may be missing but the first.
fn parts(text: &str) -> (&str, &str, &str) {
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    let (host, port) = host.split_once(':').unwrap_or((host, ""));
    (host, port, path)
}

fn fits(glob: &str, label: &str) -> bool {
    let Some((start, rest)) = glob.split_once('*') else {
        return glob == label;
    };
    label.strip_prefix(start).is_some_and(|after| {
        let mut tails = (0..=after.len()).filter_map(|at| after.get(at..));
        tails.any(|tail| fits(rest, tail))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_images_as_the_kubelet_has_it() {
        let image = "123.dkr.ecr.eu-1.amazonaws.test/team/app";

        for (pattern, means) in [
            ("*.dkr.ecr.*.amazonaws.test", true),
            ("https://*.dkr.ecr.eu-*.amazonaws.test/team", true),
            ("*.dkr.ecr.us-*.amazonaws.test", false),
            ("*.amazonaws.test", false),
            ("*.dkr.ecr.*.amazonaws.test:5000", false),
            ("*.dkr.ecr.*.amazonaws.test/other", false),
        ] {
            assert_eq!(matches(pattern, image), means, "{pattern}");
        }
    }

    #[test]
    fn what_can_not_be_run_is_told_at_the_start() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("config.yaml");
        let provider = |more: &str| {
            let text = format!(
                "providers:\n- name: sh\n  matchImages: ['*.test']\n  defaultCacheDuration: 12h0m0s\n  {more}\n"
            );
            std::fs::write(&config, text).expect("it is ours");
            let read = Kubelet::read(&config, "/bin".into());
            read.map(|read| read.providers[0].default_cache_duration)
                .map_err(|error| format!("{error:#}"))
        };
        let api = "apiVersion: credentialprovider.kubelet.k8s.io/v1";

        assert_eq!(provider(api), Ok(SignedDuration::from_hours(12)));
        let error = provider("apiVersion: v1").expect_err("it is another's");
        assert!(error.contains("is not of credentialprovider"), "{error}");
        let error = provider(&format!("{api}\n  tokenAttributes: {{}}"));
        let error = error.expect_err("there are no pods here");
        assert!(error.contains("the kubelet alone has"), "{error}");
    }
}
