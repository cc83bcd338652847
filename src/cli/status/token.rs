//! Who may see the status page: whoever knows its token.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine};

/// Nobody guesses one of so many characters.
const SHORTEST: usize = 16;

/// What whoever opens the page has to know.
#[derive(Clone)]
pub(in crate::cli) enum Token {
    /// This text.
    Text(String),
    /// What is in this file now.
    File(PathBuf),
}

impl Token {
    /// That of a file, which is read again at each request: who changes it need not start anything anew.
    ///
    /// # Errors
    /// There is none in it now, with what to do.
    pub(in crate::cli) fn in_file(file: PathBuf) -> Result<Self> {
        read(&file)?;
        Ok(Self::File(file))
    }

    /// Whether a request brings it: as a bearer, as the password that a browser asks for, or in the address.
    pub(super) async fn is_in(&self, address: &Uri, headers: &HeaderMap) -> bool {
        let token = match self.clone() {
            Self::Text(text) => Ok(text),
            Self::File(file) => tokio::task::spawn_blocking(move || read(&file))
                .await
                .context("reading the token")
                .flatten(),
        };
        match token {
            Ok(token) => told(address, headers)
                .iter()
                .any(|told| same(told, token.as_bytes())),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "nobody can see the status page");
                false
            }
        }
    }
}

/// What is said to who does not bring it; a browser then asks for a password.
pub(super) fn refused() -> Response {
    let advice = "this page needs a token: give it as the password to any name, open the page as /?token=TOKEN, or send \
                  `Authorization: Bearer TOKEN`\n";
    let ask = [(WWW_AUTHENTICATE, "Basic realm=\"orlop\", charset=\"UTF-8\"")];
    (StatusCode::UNAUTHORIZED, ask, advice).into_response()
}

fn read(file: &Path) -> Result<String> {
    let make = || {
        format!(
            "the token of the status page: `openssl rand -hex 32 >{}` makes one",
            file.display()
        )
    };
    let token = fs::read_to_string(file)
        .with_context(|| format!("reading {}", file.display()))
        .with_context(make)?;
    let token = token.trim_end_matches(['\r', '\n']);
    ensure!(
        token.len() >= SHORTEST,
        "{} has fewer than {SHORTEST} characters, which can be guessed: {}",
        file.display(),
        make()
    );
    Ok(token.to_owned())
}

/// All that a request gives for a token.
fn told(address: &Uri, headers: &HeaderMap) -> Vec<Vec<u8>> {
    let query = address.query().unwrap_or_default().split('&');
    let in_address = query.filter_map(|pair| pair.strip_prefix("token="));
    let mut all: Vec<_> = in_address.map(|text| text.as_bytes().to_vec()).collect();
    let sent = headers.get(AUTHORIZATION);
    let sent = sent.and_then(|sent| sent.to_str().ok()?.split_once(' '));
    match sent {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            all.push(token.as_bytes().to_vec());
        }
        Some((scheme, credentials)) if scheme.eq_ignore_ascii_case("basic") => {
            all.extend(password(credentials));
        }
        _ => {}
    }
    all
}

/// The password of what a browser sends: `NAME:PASSWORD` as base64.
fn password(credentials: &str) -> Option<Vec<u8>> {
    let decoded = BASE64_STANDARD.decode(credentials.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(decoded[colon + 1..].to_vec())
}

/// Compares in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |found, (a, b)| found | (a ^ b)) == 0
}
