//! The watchtowers of the daemon.

use clap::Subcommand;

use super::{Context, output::Failure, view};
use crate::{
    api::{TowerInfo, TowerStanding},
    rpc::Scope,
};

/// The watchtowers that claim for the daemon while it is away.
#[derive(Debug, Subcommand)]
pub enum Tower {
    /// List the watchtowers, and how far they are
    List,
}

impl Tower {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self::List = self;
        let towers = context.client(Scope::Read)?.towers().await?;
        context.output.value(&towers, |towers| {
            let rows = towers.iter().map(row).collect();
            let header = ["TOWER", "CONNECTED", "ANSWERED", "UP TO DATE", "BEHIND", "SAID"];
            view::list(header, &[3, 4], rows, "no watchtowers; name some as `towers` in flash.toml")
        })
    }
}

fn row(tower: &TowerInfo) -> [String; 6] {
    [
        tower.tower.clone(),
        if tower.connected { "yes" } else { "no" }.to_owned(),
        tower.answered_ms.map_or_else(|| "never".to_owned(), view::time),
        tower.newest.to_string(),
        tower.behind.to_string(),
        tower.error.clone().unwrap_or_default(),
    ]
}

/// What each tower has of a channel, a line each.
pub(super) fn standings(towers: &[TowerStanding]) -> Option<String> {
    let line = |tower: &TowerStanding| {
        let has = match tower.state.as_str() {
            "newest" => "has the newest".to_owned(),
            "behind" if tower.updates_behind == 1 => "is 1 update behind".to_owned(),
            "behind" => format!("is {} updates behind", tower.updates_behind),
            "nothing_received" => "has nothing to keep yet".to_owned(),
            _ => "has never confirmed a balance".to_owned(),
        };
        let said = tower.error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
        format!("{} {has}{said}", tower.tower)
    };
    (!towers.is_empty()).then(|| towers.iter().map(line).collect::<Vec<_>>().join("\n"))
}
