//! The configuration: command line over environment over `flash.toml` over defaults.

mod keep;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use flash_channel::{machine::HistoryRule, store::StoreKind};
use flash_node_client::quic::PeerAddress;
use flash_proto::{Amount, PublicKey, limits};
use serde::Deserialize;
use thiserror::Error;

use crate::backup::Settings;
pub use keep::Keep;

/// What the daemon does and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where peers connect: a UDP address.
    pub listen: SocketAddr,
    /// What peers are told to connect to, `HOST:PORT`; the listening address if left out.
    pub public_address: Option<String>,
    /// Where the admin RPC listens: a TCP address.
    pub rpc: SocketAddr,
    /// Tangle nodes to follow.
    pub nodes: Vec<PeerAddress>,
    /// How many of them to follow at a time: any of them that lies is noticed, and named.
    pub nodes_at_once: u8,
    /// Whether to run a full node in the daemon, too, and follow it first.
    pub full_node: bool,
    /// Where clients and other nodes connect to that node: a UDP address.
    pub node_listen: SocketAddr,
    /// Watchtowers that are handed the newest balance of every channel.
    pub towers: Vec<PeerAddress>,
    /// Where others connect that this daemon is a watchtower for: a UDP address; for nobody if left out.
    pub tower_listen: Option<SocketAddr>,
    /// Who they may be, by the keys of their machines; everybody if left out.
    pub tower_clients: Vec<PublicKey>,
    /// Contest window of the channels that are opened here, where the caller names none.
    pub contest_window_milestones: u32,
    /// Longest age, in milliseconds, of a view of a channel under which payments are accepted; half the
    /// channel's contest window if left out.
    pub freshness_ms_max: Option<u64>,
    /// How a new data directory is stored, and what one that is there must be; if left out, that is whatever it is.
    pub store: Option<StoreKind>,
    /// Updates that are kept of each lane, so that their payments can be proven.
    pub history_keep: Keep,
    /// The payee is asked for a receipt with every so-manieth update; 0: never.
    pub receipt_every: u64,
    /// What is accepted when a peer asks to open a channel.
    pub accept: Accept,
    /// The encrypted backup file, which is kept current, if there is to be one.
    pub backup: Option<PathBuf>,
    /// Whether nothing is acknowledged before it is in the backup, too.
    pub backup_sync: bool,
    /// What to log, such as `info` or `flashd=debug,quinn=warn`.
    pub log: String,
    /// Whether logs are JSON.
    pub log_json: bool,
    sources: BTreeMap<&'static str, Source>,
}

/// What is accepted when a peer asks to open a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The most that is locked here because a peer asks for it.
    pub deposit_max: Amount,
    /// The shortest contest window, in milestones.
    pub contest_window_min: u32,
    /// The longest contest window, in milestones.
    pub contest_window_max: u32,
    /// Channels with one peer that are not closed.
    pub channels_per_peer_max: u32,
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody said otherwise.
    Default,
    /// The configuration file.
    File,
    /// The environment.
    Environment,
    /// The command line.
    CommandLine,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "flash.toml",
            Self::Environment => "environment",
            Self::CommandLine => "command line",
        })
    }
}

/// Why a configuration is refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file is malformed; the text names the line.
    #[error("the configuration {path} is malformed: {reason}Known keys: {}", known_keys())]
    File {
        /// The file.
        path: String,
        /// Line, column and what is wrong.
        reason: String,
    },
    /// A value of the environment or the command line is malformed.
    #[error("{given} is not valid: {reason}")]
    Value {
        /// The variable or option with its value.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Values that make no sense together or are out of range.
    #[error("`{key}` {reason}")]
    Range {
        /// The key.
        key: &'static str,
        /// What it must be.
        reason: String,
    },
}

/// Nodes that are followed at a time, at most: each sends every milestone.
const NODES_AT_ONCE_MAX: u8 = 16;

/// Watchtowers, at most: each is handed every balance.
const TOWERS_MAX: usize = 8;

/// Every key with its environment variable.
const KEYS: [(&str, &str); 23] = [
    ("listen", "FLASH_LISTEN"),
    ("public_address", "FLASH_PUBLIC_ADDRESS"),
    ("rpc", "FLASH_RPC_LISTEN"),
    ("nodes", "FLASH_NODES"),
    ("nodes_at_once", "FLASH_NODES_AT_ONCE"),
    ("full_node", "FLASH_FULL_NODE"),
    ("node_listen", "FLASH_NODE_LISTEN"),
    ("towers", "FLASH_TOWERS"),
    ("tower_listen", "FLASH_TOWER_LISTEN"),
    ("tower_clients", "FLASH_TOWER_CLIENTS"),
    ("contest_window_milestones", "FLASH_CONTEST_WINDOW_MILESTONES"),
    ("freshness_ms_max", "FLASH_FRESHNESS_MS_MAX"),
    ("backup", "FLASH_BACKUP"),
    ("backup_sync", "FLASH_BACKUP_SYNC"),
    ("store", "FLASH_STORE"),
    ("history_keep", "FLASH_HISTORY_KEEP"),
    ("receipt_every", "FLASH_RECEIPT_EVERY"),
    ("log", "FLASH_LOG"),
    ("log_json", "FLASH_LOG_JSON"),
    ("accept.deposit_max", "FLASH_ACCEPT_DEPOSIT_MAX"),
    ("accept.contest_window_min", "FLASH_ACCEPT_CONTEST_WINDOW_MIN"),
    ("accept.contest_window_max", "FLASH_ACCEPT_CONTEST_WINDOW_MAX"),
    ("accept.channels_per_peer_max", "FLASH_ACCEPT_CHANNELS_PER_PEER_MAX"),
];

fn known_keys() -> String {
    KEYS.map(|(key, _)| key).join(", ")
}

/// The content of `flash.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<SocketAddr>,
    public_address: Option<String>,
    rpc: Option<SocketAddr>,
    nodes: Option<Vec<PeerAddress>>,
    nodes_at_once: Option<u8>,
    full_node: Option<bool>,
    node_listen: Option<SocketAddr>,
    towers: Option<Vec<PeerAddress>>,
    tower_listen: Option<SocketAddr>,
    tower_clients: Option<Vec<PublicKey>>,
    contest_window_milestones: Option<u32>,
    freshness_ms_max: Option<u64>,
    backup: Option<PathBuf>,
    backup_sync: Option<bool>,
    #[serde(default, deserialize_with = "store_kind")]
    store: Option<StoreKind>,
    history_keep: Option<Keep>,
    receipt_every: Option<u64>,
    log: Option<String>,
    log_json: Option<bool>,
    #[serde(default)]
    accept: FileAccept,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileAccept {
    deposit_max: Option<Amount>,
    contest_window_min: Option<u32>,
    contest_window_max: Option<u32>,
    channels_per_peer_max: Option<u32>,
}

fn store_kind<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<StoreKind>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// A list as one text, separated by commas.
struct List<T>(Vec<T>);

impl<T: FromStr> FromStr for List<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Chooses each value from the highest layer that gives one.
struct Layers<'a> {
    flags: &'a BTreeMap<&'static str, String>,
    environment: &'a dyn Fn(&str) -> Option<String>,
    sources: BTreeMap<&'static str, Source>,
}

impl Layers<'_> {
    fn pick<T: FromStr<Err: fmt::Display>>(
        &mut self,
        key: &'static str,
        file: Option<T>,
        default: T,
    ) -> Result<T, ConfigError> {
        let variable = KEYS.iter().find(|(known, _)| *known == key).map_or("", |(_, variable)| *variable);
        let parse = |given: String, text: &str| {
            text.parse::<T>().map_err(|error| ConfigError::Value { given, reason: error.to_string() })
        };
        let (value, source) = if let Some(text) = self.flags.get(key) {
            (parse(format!("the option for `{key}` (`{text}`)"), text)?, Source::CommandLine)
        } else if let Some(text) = (self.environment)(variable) {
            (parse(format!("{variable}={text}"), &text)?, Source::Environment)
        } else if let Some(value) = file {
            (value, Source::File)
        } else {
            (default, Source::Default)
        };
        self.sources.insert(key, source);
        Ok(value)
    }

    fn pick_optional<T: FromStr<Err: fmt::Display>>(
        &mut self,
        key: &'static str,
        file: Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        Ok(self.pick(key, file.map(Maybe::Given), Maybe::Left)?.into())
    }

    fn pick_list<T: FromStr<Err: fmt::Display>>(
        &mut self,
        key: &'static str,
        file: Option<Vec<T>>,
    ) -> Result<Vec<T>, ConfigError> {
        Ok(self.pick(key, file.map(List), List(Vec::new()))?.0)
    }
}

/// A value that may be left out.
enum Maybe<T> {
    Given(T),
    Left,
}

impl<T: FromStr> FromStr for Maybe<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self::Given)
    }
}

impl<T> From<Maybe<T>> for Option<T> {
    fn from(value: Maybe<T>) -> Self {
        match value {
            Maybe::Given(value) => Some(value),
            Maybe::Left => None,
        }
    }
}

impl Config {
    /// Reads the configuration. `file` may be missing unless `required`. `flags` holds the command
    /// line's values by key (lists separated by commas).
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(
        file: &Path,
        required: bool,
        flags: &BTreeMap<&'static str, String>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let path = file.display().to_string();
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => String::new(),
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let file: File =
            toml::from_str(&text).map_err(|error| ConfigError::File { path, reason: error.to_string() })?;
        let config = Self::layered(file, Layers { flags, environment, sources: BTreeMap::new() })?;
        config.check()?;
        Ok(config)
    }

    fn layered(file: File, mut layers: Layers<'_>) -> Result<Self, ConfigError> {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (accept, history) = (file.accept, HistoryRule::default());
        Ok(Self {
            listen: layers.pick("listen", file.listen, any(15_600))?,
            public_address: layers.pick_optional("public_address", file.public_address)?,
            rpc: layers.pick("rpc", file.rpc, loopback(15_601))?,
            nodes: layers.pick_list("nodes", file.nodes)?,
            nodes_at_once: layers.pick("nodes_at_once", file.nodes_at_once, 3)?,
            full_node: layers.pick("full_node", file.full_node, false)?,
            node_listen: layers.pick("node_listen", file.node_listen, any(14_265))?,
            towers: layers.pick_list("towers", file.towers)?,
            tower_listen: layers.pick_optional("tower_listen", file.tower_listen)?,
            tower_clients: layers.pick_list("tower_clients", file.tower_clients)?,
            contest_window_milestones: layers.pick(
                "contest_window_milestones",
                file.contest_window_milestones,
                limits::CONTEST_WINDOW_MILESTONES_DEFAULT,
            )?,
            freshness_ms_max: layers.pick_optional("freshness_ms_max", file.freshness_ms_max)?,
            store: layers.pick_optional("store", file.store)?,
            history_keep: layers.pick("history_keep", file.history_keep, Keep(history.keep))?,
            receipt_every: layers.pick("receipt_every", file.receipt_every, history.receipt_every)?,
            accept: Accept {
                deposit_max: layers.pick("accept.deposit_max", accept.deposit_max, Amount::ZERO)?,
                contest_window_min: layers.pick(
                    "accept.contest_window_min",
                    accept.contest_window_min,
                    limits::CONTEST_WINDOW_MILESTONES_MIN,
                )?,
                contest_window_max: layers.pick(
                    "accept.contest_window_max",
                    accept.contest_window_max,
                    limits::CONTEST_WINDOW_MILESTONES_MAX,
                )?,
                channels_per_peer_max: layers.pick(
                    "accept.channels_per_peer_max",
                    accept.channels_per_peer_max,
                    64,
                )?,
            },
            backup: layers.pick_optional("backup", file.backup)?,
            backup_sync: layers.pick("backup_sync", file.backup_sync, false)?,
            log: layers.pick("log", file.log, "info".to_owned())?,
            log_json: layers.pick("log_json", file.log_json, false)?,
            sources: layers.sources,
        })
    }

    /// How to keep the backup, if one is to be kept.
    pub(crate) fn backup_settings(&self) -> Option<Settings> {
        Some(Settings { path: self.backup.clone()?, sync: self.backup_sync })
    }

    fn check(&self) -> Result<(), ConfigError> {
        let window = limits::CONTEST_WINDOW_MILESTONES_MIN..=limits::CONTEST_WINDOW_MILESTONES_MAX;
        let windows = [
            ("contest_window_milestones", self.contest_window_milestones),
            ("accept.contest_window_min", self.accept.contest_window_min),
            ("accept.contest_window_max", self.accept.contest_window_max),
        ];
        for (key, value) in windows {
            if !window.contains(&value) {
                let reason = format!("is {value}; it must be {} to {}", window.start(), window.end());
                return Err(ConfigError::Range { key, reason });
            }
        }
        if self.accept.contest_window_min > self.accept.contest_window_max {
            let reason = "must not be above `accept.contest_window_max`".to_owned();
            return Err(ConfigError::Range { key: "accept.contest_window_min", reason });
        }
        if !(1..=NODES_AT_ONCE_MAX).contains(&self.nodes_at_once) {
            let reason = format!("is {}; it must be 1 to {NODES_AT_ONCE_MAX}", self.nodes_at_once);
            return Err(ConfigError::Range { key: "nodes_at_once", reason });
        }
        if self.backup_sync && self.backup.is_none() {
            let reason = "needs a `backup` to wait for".to_owned();
            return Err(ConfigError::Range { key: "backup_sync", reason });
        }
        if !self.rpc.ip().is_loopback() {
            let reason = format!(
                "is {}; the admin RPC is not encrypted and listens on loopback only (127.0.0.1 or [::1])",
                self.rpc
            );
            return Err(ConfigError::Range { key: "rpc", reason });
        }
        if self.towers.len() > TOWERS_MAX {
            let reason = format!("names {}; it may name {TOWERS_MAX}", self.towers.len());
            return Err(ConfigError::Range { key: "towers", reason });
        }
        let machines: BTreeSet<PublicKey> = self.towers.iter().map(|tower| tower.key).collect();
        if machines.len() < self.towers.len() {
            let reason = "names one machine twice".to_owned();
            return Err(ConfigError::Range { key: "towers", reason });
        }
        if let Some(address) = &self.public_address
            && !address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        {
            let reason = format!("is `{address}`; it must be HOST:PORT");
            return Err(ConfigError::Range { key: "public_address", reason });
        }
        Ok(())
    }

    /// The configuration as a `flash.toml`, each value with where it came from.
    pub fn to_toml(&self) -> String {
        let text = |value: &dyn fmt::Display| toml::Value::String(value.to_string()).to_string();
        let list =
            |items: &mut dyn Iterator<Item = String>| format!("[{}]", items.collect::<Vec<_>>().join(", "));
        let optional = |value: Option<String>| value;
        let values: [(&'static str, Option<String>); 23] = [
            ("listen", Some(text(&self.listen))),
            ("public_address", optional(self.public_address.as_ref().map(|address| text(address)))),
            ("rpc", Some(text(&self.rpc))),
            ("nodes", Some(list(&mut self.nodes.iter().map(|node| text(node))))),
            ("nodes_at_once", Some(self.nodes_at_once.to_string())),
            ("full_node", Some(self.full_node.to_string())),
            ("node_listen", Some(text(&self.node_listen))),
            ("towers", Some(list(&mut self.towers.iter().map(|tower| text(tower))))),
            ("tower_listen", optional(self.tower_listen.as_ref().map(|address| text(address)))),
            ("tower_clients", Some(list(&mut self.tower_clients.iter().map(|key| text(key))))),
            ("contest_window_milestones", Some(self.contest_window_milestones.to_string())),
            ("freshness_ms_max", optional(self.freshness_ms_max.map(|ms| ms.to_string()))),
            ("backup", optional(self.backup.as_ref().map(|path| text(&path.display())))),
            ("backup_sync", Some(self.backup_sync.to_string())),
            ("store", optional(self.store.map(|store| text(&store)))),
            ("history_keep", Some(self.history_keep.to_string())),
            ("receipt_every", Some(self.receipt_every.to_string())),
            ("log", Some(text(&self.log))),
            ("log_json", Some(self.log_json.to_string())),
            ("accept.deposit_max", Some(text(&self.accept.deposit_max))),
            ("accept.contest_window_min", Some(self.accept.contest_window_min.to_string())),
            ("accept.contest_window_max", Some(self.accept.contest_window_max.to_string())),
            ("accept.channels_per_peer_max", Some(self.accept.channels_per_peer_max.to_string())),
        ];
        let mut lines = Vec::new();
        let mut in_accept = false;
        for (key, value) in values {
            let source = self.sources.get(key).copied().unwrap_or(Source::Default);
            let name = key.strip_prefix("accept.");
            if name.is_some() && !in_accept {
                in_accept = true;
                lines.push("\n[accept]".to_owned());
            }
            let name = name.unwrap_or(key);
            lines.push(match value {
                Some(value) => format!("{name} = {value} # {source}"),
                None => format!("# {name} is not set # {source}"),
            });
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a@127.0.0.1:14265";

    fn load(
        text: &str,
        flags: &[(&'static str, &str)],
        environment: &[(&str, &str)],
    ) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flash.toml");
        fs::write(&path, text).unwrap();
        let flags = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let variable = |name: &str| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Config::load(&path, true, &flags, &variable)
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let text = "listen = \"127.0.0.1:1\"\nrpc = \"127.0.0.1:2\"\nlog = \"debug\"\n";
        let config = load(
            text,
            &[("listen", "127.0.0.1:9")],
            &[("FLASH_LISTEN", "x"), ("FLASH_RPC_LISTEN", "127.0.0.1:8")],
        )
        .unwrap();
        assert_eq!((config.listen.port(), config.rpc.port(), config.log.as_str()), (9, 8, "debug"));
        assert_eq!(config.contest_window_milestones, limits::CONTEST_WINDOW_MILESTONES_DEFAULT);
    }

    #[test]
    fn what_is_printed_is_the_same_configuration_and_says_where_from() {
        let key = NODE.split('@').next().unwrap();
        let text = format!(
            "nodes = [\"{NODE}\"]\ntowers = [\"{NODE}\"]\ntower_clients = [\"{key}\"]\n\
             [accept]\ndeposit_max = \"1.5Mi\"\n"
        );
        let config =
            load(&text, &[("freshness_ms_max", "5000")], &[("FLASH_TOWER_LISTEN", "127.0.0.1:7")]).unwrap();
        let printed = config.to_toml();
        assert!(printed.contains("deposit_max = \"1.5Mi\" # flash.toml"), "{printed}");
        assert!(printed.contains("freshness_ms_max = 5000 # command line"), "{printed}");
        assert!(printed.contains("listen = \"0.0.0.0:15600\" # default"), "{printed}");
        assert!(printed.contains("tower_listen = \"127.0.0.1:7\" # environment"), "{printed}");
        assert!(printed.contains(&format!("towers = [\"{NODE}\"] # flash.toml")), "{printed}");
        let again = load(&printed, &[], &[]).unwrap();
        assert_eq!(Config { sources: config.sources.clone(), ..again }, config);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let unknown = load("listen = \"127.0.0.1:1\"\nlissten = 1\n", &[], &[]).unwrap_err().to_string();
        assert!(unknown.contains("line 2") && unknown.contains("lissten"), "{unknown}");
        let malformed = load("\n\n[accept]\ndeposit_max = \"0.5i\"\n", &[], &[]).unwrap_err().to_string();
        assert!(
            malformed.contains("line 4") && malformed.contains("finer than one base unit"),
            "{malformed}"
        );
        let towers = vec![format!("\"{NODE}\""); 9].join(", ");
        let towers = load(&format!("towers = [{towers}]\n"), &[], &[]).unwrap_err().to_string();
        assert!(towers.contains("`towers` names 9"), "{towers}");
        let twice = format!("towers = [\"{NODE}\", \"{}\"]\n", NODE.replace("14265", "14266"));
        let twice = load(&twice, &[], &[]).unwrap_err().to_string();
        assert!(twice.contains("twice"), "{twice}");
        let range = load("contest_window_milestones = 1\n", &[], &[]).unwrap_err().to_string();
        assert!(range.contains("`contest_window_milestones` is 1; it must be 4 to"), "{range}");
        let exposed = load("rpc = \"0.0.0.0:15601\"\n", &[], &[]).unwrap_err().to_string();
        assert!(exposed.contains("loopback"), "{exposed}");
        let variable = load("", &[], &[("FLASH_NODES", "nonsense")]).unwrap_err().to_string();
        assert!(variable.contains("FLASH_NODES=nonsense"), "{variable}");
    }
}
