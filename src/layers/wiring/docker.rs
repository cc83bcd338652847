//! Docker's `daemon.json`: mirrors of docker.io, asked in their order.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The same settings, with the mirror before the others.
pub fn with_mirror(before: Option<&str>, mirror: &str) -> Result<String> {
    let text = before.filter(|text| !text.trim().is_empty());
    let mut settings: Value =
        serde_json::from_str(text.unwrap_or("{}")).context("it is not JSON")?;
    let fields = settings.as_object_mut().context("it is no JSON object")?;
    let mirrors = fields
        .entry("registry-mirrors")
        .or_insert_with(|| json!([]));
    let mirrors = mirrors
        .as_array_mut()
        .context("its registry-mirrors are no list")?;
    let known =
        |known: &Value| known.as_str().map(|known| known.trim_end_matches('/')) == Some(mirror);
    if let Some(before) = before.filter(|_| mirrors.iter().any(known)) {
        return Ok(before.to_owned());
    }
    mirrors.insert(0, mirror.into());
    let text = serde_json::to_string_pretty(&settings).context("writing it anew")?;
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_comes_first_and_other_settings_stay() {
        let before = r#"{"registry-mirrors":["https://a.test"],"live-restore":true}"#;

        let now = with_mirror(Some(before), "http://127.0.0.1:5052").expect("it is JSON");

        let read: Value = serde_json::from_str(&now).expect("it is JSON");
        assert_eq!(
            read,
            json!({"registry-mirrors": ["http://127.0.0.1:5052", "https://a.test"], "live-restore": true})
        );
        assert_eq!(
            with_mirror(Some(&now), "http://127.0.0.1:5052").expect("it is JSON"),
            now
        );
    }

    #[test]
    fn a_file_that_is_not_json_is_refused() {
        for text in ["{", "[]", r#"{"registry-mirrors":"x"}"#] {
            with_mirror(Some(text), "http://127.0.0.1:5052").expect_err(text);
        }
    }
}
