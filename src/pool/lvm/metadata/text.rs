//! The text that LVM keeps its metadata in: sections within sections, and keys with numbers, texts and lists of them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// How deep sections may be in each other; LVM needs four.
const DEEPEST: usize = 16;

/// What stands between a pair of braces.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Section<'a> {
    sections: BTreeMap<&'a str, Section<'a>>,
    values: BTreeMap<&'a str, Value>,
}

#[derive(Debug, PartialEq, Eq)]
enum Value {
    Number(u64),
    Text(String),
    List(Vec<Value>),
}

/// Reads a whole text, which ends with a zero.
///
/// # Errors
/// What is not as LVM writes it.
pub(super) fn parse(text: &[u8]) -> Result<Section<'_>> {
    let text = text.strip_suffix(b"\0").context("it has no end")?;
    let mut reader = Reader {
        rest: std::str::from_utf8(text)?,
    };
    reader.section(0)
}

impl<'a> Section<'a> {
    /// The sections in the one of this name, which may be left out.
    pub(super) fn sections_of(&self, name: &str) -> impl Iterator<Item = (&'a str, &Self)> {
        let found = self.sections.get(name).into_iter();
        found.flat_map(|within| {
            within
                .sections
                .iter()
                .map(|(name, section)| (*name, section))
        })
    }

    pub(super) fn sections(&self) -> impl Iterator<Item = (&'a str, &Self)> {
        self.sections.iter().map(|(name, section)| (*name, section))
    }

    pub(super) fn number(&self, key: &str) -> Result<u64> {
        match self.values.get(key) {
            Some(Value::Number(number)) => Ok(*number),
            other => bail!("{key} is no number but {other:?}"),
        }
    }

    /// A text, which may be left out.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.values.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The texts in a list, which may be left out; numbers among them are passed over.
    pub(super) fn texts(&self, key: &str) -> impl Iterator<Item = &str> {
        let list = match self.values.get(key) {
            Some(Value::List(list)) => list.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        list.iter().filter_map(|value| match value {
            Value::Text(text) => Some(text.as_str()),
            Value::Number(_) | Value::List(_) => None,
        })
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// Up to the brace that closes it, or to the end of the outermost.
    fn section(&mut self, depth: usize) -> Result<Section<'a>> {
        ensure!(depth < DEEPEST, "sections are in each other too deep");
        let mut section = Section::default();
        loop {
            self.skip();
            if self.rest.is_empty() && depth == 0 || depth > 0 && self.takes('}') {
                return Ok(section);
            }
            let name = self.word()?;
            self.skip();
            let new = if self.takes('{') {
                let within = self.section(depth + 1)?;
                section.sections.insert(name, within).is_none()
            } else {
                ensure!(self.takes('='), "{name} is neither a section nor a key");
                let value = self.value()?;
                section.values.insert(name, value).is_none()
            };
            ensure!(new, "{name} is there twice");
        }
    }

    fn value(&mut self) -> Result<Value> {
        self.skip();
        if !self.takes('[') {
            return self.scalar();
        }
        let mut list = Vec::new();
        loop {
            self.skip();
            if self.takes(']') {
                return Ok(Value::List(list));
            }
            list.push(self.scalar()?);
            self.skip();
            self.takes(',');
        }
    }

    fn scalar(&mut self) -> Result<Value> {
        if self.takes('"') {
            return self.quoted().map(Value::Text);
        }
        let number = self.word()?.parse();
        number.map(Value::Number).context("neither text nor number")
    }

    /// Behind the quote that opens it.
    fn quoted(&mut self) -> Result<String> {
        let mut text = String::new();
        let mut letters = self.rest.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\\' => text.extend(letters.next().map(|(_, escaped)| escaped)),
                _ => text.push(letter),
            }
        }
        bail!("a text has no end")
    }

    /// A name or a number.
    fn word(&mut self) -> Result<&'a str> {
        let is_in = |letter: char| letter.is_ascii_alphanumeric() || "_.+-".contains(letter);
        let end = self.rest.find(|letter| !is_in(letter));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        ensure!(!word.is_empty(), "neither a name nor a number");
        self.rest = rest;
        Ok(word)
    }

    /// Passes over blanks and comments.
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            if !self.rest.starts_with('#') {
                return;
            }
            self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
        }
    }

    fn takes(&mut self, letter: char) -> bool {
        let rest = self.rest.strip_prefix(letter);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_keys_and_lists_are_read() {
        let text = b"vg {\n id = \"a\\\"b\" # its name\n seqno = 7\n pv0 { flags = [] }\n tags = [\"x\", \"y\"]\n\
            stripes = [\n \"pv0\", 0\n ]\n}\n# Generated\nversion = 1\n\0";

        let root = parse(text).expect("LVM writes so");

        let (_, vg) = root.sections().next().expect("it is there");
        assert_eq!(root.number("version").expect("it is one"), 1);
        assert_eq!(
            (vg.text("id"), vg.number("seqno").expect("it is one")),
            (Some("a\"b"), 7)
        );
        assert_eq!(vg.texts("tags").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(vg.texts("stripes").collect::<Vec<_>>(), ["pv0"]);
        let within: Vec<_> = vg.sections().map(|(name, _)| name).collect();
        assert_eq!(within, ["pv0"]);
    }

    #[test]
    fn what_lvm_does_not_write_is_an_error() {
        for text in [
            "a = 1",
            "a {\0",
            "a = \"b\0",
            "a = [1\0",
            "a\0",
            "a = -\0",
            "a = 1 a = 2\0",
            "}\0",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "[a-z0-9_={}\\[\\]\",#\\\\ \n]{0,80}") {
            let _ = parse(format!("{text}\0").as_bytes());
        }
    }
}
