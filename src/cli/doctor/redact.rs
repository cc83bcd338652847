//! Takes secrets out of what is given to others.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

/// What stands where something was.
const REDACTED: &str = "redacted";
/// The words by which a name tells that its value is secret.
const SECRET: &str = "secret|token|passw(?:or)?d|passphrase|credential|authorization|private[_-]?key|api[_-]?key|access[_-]?key|encryption[_-]?key";
/// A value that is shorter may stand anywhere by chance.
const LEAST: usize = 4;

/// Knows secrets by how they look, and those of our own environment by heart.
pub(super) struct Redactor {
    name: Regex,
    patterns: Vec<(Regex, &'static str)>,
    known: Vec<String>,
}

impl Redactor {
    /// One that also knows the values of those of these variables whose names tell that they are secret.
    pub(super) fn new(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let build = |pattern: &str| {
            RegexBuilder::new(pattern)
                .case_insensitive(true)
                .build()
                .expect("the patterns are constants")
        };
        let name = build(SECRET);
        let is_secret =
            |(key, value): &(String, String)| name.is_match(key) && value.len() >= LEAST;
        let secrets = environment.into_iter().filter(is_secret);
        let known = secrets.map(|(_, value)| value).collect();
        let value = r#"(?:"(?:[^"\\]|\\.)*"|'[^']*'|(?:(?:bearer|basic)\s+)?[^\s,;&}\])"']+)"#;
        let assigned =
            format!(r#"([a-z0-9_.-]*(?:{SECRET})[a-z0-9_.-]*\\?["']?\s*[:=]\s*\\?){value}"#);
        let patterns = vec![
            (
                build(
                    "-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*PRIVATE KEY-----)?",
                ),
                REDACTED,
            ),
            (build(&assigned), "${1}redacted"),
            (
                build(r"\b(bearer|basic)\s+[a-z0-9+/=._~-]{6,}"),
                "${1} redacted",
            ),
            (build(r"eyJ[a-z0-9_-]+\.[a-z0-9_-]+\.[a-z0-9_-]*"), REDACTED),
            (build(r#"://[^/\s:@"]*:[^/\s@"]+@"#), "://redacted@"),
        ];
        Self {
            name,
            patterns,
            known,
        }
    }

    /// Whether what has this name is secret.
    pub(super) fn hides(&self, name: &str) -> bool {
        self.name.is_match(name)
    }

    /// The text without what looks like a secret or is one that is known.
    pub(super) fn clean(&self, text: &str) -> String {
        let mut clean = Cow::Borrowed(text);
        for secret in &self.known {
            if clean.contains(secret) {
                clean = clean.replace(secret, REDACTED).into();
            }
        }
        for (pattern, instead) in &self.patterns {
            if let Cow::Owned(changed) = pattern.replace_all(&clean, *instead) {
                clean = changed.into();
            }
        }
        clean.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_taken_out_and_the_rest_stays() {
        let environment = [("REGISTRY_PASSWORD", "anchor"), ("HOME", "/root")];
        let redactor =
            Redactor::new(environment.map(|(key, value)| (key.to_owned(), value.to_owned())));

        for (text, wanted) in [
            ("password=hunter2 pool=a", "password=redacted pool=a"),
            (
                r#"{"dbPassword":"a \" b","n":1}"#,
                r#"{"dbPassword":redacted,"n":1}"#,
            ),
            (
                "encryption_passphrase: 'x y'",
                "encryption_passphrase: redacted",
            ),
            (
                "Authorization: Bearer abc.def-ghi",
                "Authorization: redacted",
            ),
            ("sent Bearer abcdefgh to it", "sent Bearer redacted to it"),
            (
                "https://me:pw@example.com/x",
                "https://redacted@example.com/x",
            ),
            (
                "it dropped the anchor at /root",
                "it dropped the redacted at /root",
            ),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----\nend",
                "redacted\nend",
            ),
            (
                "volume created volume.id=default/data",
                "volume created volume.id=default/data",
            ),
        ] {
            assert_eq!(redactor.clean(text), wanted);
        }
    }
}
