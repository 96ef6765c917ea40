//! A number of things that are kept, or all.

use std::{fmt, str::FromStr};

use serde::Deserialize;

/// How many are kept: a number, or `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep(pub u64);

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(u64::MAX));
        }
        text.parse().map(Self).map_err(|_| format!("`{text}` is neither a number nor `all`"))
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == u64::MAX { f.write_str("\"all\"") } else { self.0.fmt(f) }
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Self(number)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_or_all() {
        #[derive(Deserialize)]
        struct File {
            keep: Keep,
        }
        for (text, keep) in [("0", 0), ("4096", 4_096), ("\"all\"", u64::MAX), ("\"7\"", 7)] {
            let file: File = toml::from_str(&format!("keep = {text}")).unwrap();
            assert_eq!(file.keep, Keep(keep));
            let again: File = toml::from_str(&format!("keep = {}", file.keep)).unwrap();
            assert_eq!(again.keep, file.keep);
        }
        assert!("some".parse::<Keep>().unwrap_err().contains("neither a number nor `all`"));
    }
}
