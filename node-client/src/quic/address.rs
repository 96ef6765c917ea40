//! Where a peer or node is reached, and who must answer there.

use std::{fmt, str::FromStr};

use flash_proto::PublicKey;
use thiserror::Error;

/// Bytes of the longest DNS name.
const HOST_BYTES_MAX: usize = 253;

/// The key that must answer, and where: `KEY@HOST:PORT` as text, an IPv6 host in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    /// The node key of whoever answers there.
    pub key: PublicKey,
    host: String,
    port: u16,
}

/// A text that is not `KEY@HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` is not a peer's address: expected KEY@HOST:PORT, {hint}")]
pub struct PeerAddressError {
    text: String,
    hint: &'static str,
}

impl PeerAddress {
    /// The address of `key` at a host name or IP address (IPv6 without brackets) and port.
    ///
    /// # Errors
    /// [`PeerAddressError`] if the host cannot be one.
    pub fn new(key: PublicKey, host: impl Into<String>, port: u16) -> Result<Self, PeerAddressError> {
        let host = host.into();
        let well_formed =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'%');
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.bytes().all(well_formed) {
            return Err(PeerAddressError::new(&host, "with a host name or an IP address"));
        }
        Ok(Self { key, host, port })
    }

    /// The host name or IP address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The UDP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl PeerAddressError {
    fn new(text: &str, hint: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), hint }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{}@[{}]:{}", self.key, self.host, self.port)
        } else {
            write!(f, "{}@{}:{}", self.key, self.host, self.port)
        }
    }
}

impl FromStr for PeerAddress {
    type Err = PeerAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |hint| PeerAddressError::new(text, hint);
        let (key, place) = text.split_once('@').ok_or_else(|| wrong("with an @ after the key"))?;
        let key = key.parse().map_err(|_| wrong("with a key of 64 hexadecimal digits"))?;
        let (host, port) = place.rsplit_once(':').ok_or_else(|| wrong("with a port"))?;
        let port = port.parse().map_err(|_| wrong("with a port from 0 to 65535"))?;
        let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
            Some(Some(host)) => host,
            None if !host.contains(':') => host,
            _ => return Err(wrong("with an IPv6 address in brackets")),
        };
        Self::new(key, host, port).map_err(|error| wrong(error.hint))
    }
}

flash_proto::serde_as_text!(PeerAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back() {
        let key = PublicKey::new([0xab; 32]);
        for place in ["localhost:7700", "node-1.example:1", "192.0.2.7:65535", "[::1]:7700"] {
            let text = format!("{key}@{place}");
            let address: PeerAddress = text.parse().unwrap();
            assert_eq!((address.key, address.to_string()), (key, text.clone()));
            let json = serde_json::to_string(&address).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<PeerAddress>(&json).unwrap(), address);
        }
        let address: PeerAddress = format!("{key}@[::1]:7700").parse().unwrap();
        assert_eq!((address.host(), address.port()), ("::1", 7700));
    }

    #[test]
    fn other_texts_are_refused() {
        let key = "ab".repeat(32);
        let long = "a".repeat(254);
        for text in [
            String::new(),
            key.clone(),
            "host:1".to_owned(),
            format!("{key}@host"),
            format!("{key}@:1"),
            format!("{key}@host:"),
            format!("{key}@host:65536"),
            format!("{key}@::1:1"),
            format!("{key}@[::1:1"),
            format!("{key}@[]:1"),
            format!("{key}@ho st:1"),
            format!("{key}@ho@st:1"),
            format!("{key}@{long}:1"),
            format!("{}@host:1", &key[1..]),
        ] {
            assert!(text.parse::<PeerAddress>().is_err(), "{text}");
        }
    }
}
