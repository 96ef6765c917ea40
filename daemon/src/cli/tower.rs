//! The watchtowers of the daemon.

use clap::Subcommand;

use super::{Context, channel::ChannelName, output::Failure, view};
use crate::{
    api::{TowerHeld, TowerInfo, TowerStanding},
    rpc::Scope,
};

/// What is said where there are no watchtowers.
const NONE: &str = "no watchtowers; name some as `towers` in flash.toml";

/// The watchtowers that claim for the daemon while it is away.
#[derive(Debug, Subcommand)]
pub enum Tower {
    /// List the watchtowers, and how far they are
    List,
    /// Ask each watchtower what it holds of a channel, as after a loss of records
    Show {
        /// The channel's id, or enough of its first digits
        channel: ChannelName,
    },
}

impl Tower {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client(Scope::Read)?;
        match self {
            Self::List => context.output.value(&client.towers().await?, |towers| {
                let header = ["TOWER", "CONNECTED", "ANSWERED", "UP TO DATE", "BEHIND", "SAID"];
                view::list(header, &[3, 4], towers.iter().map(row).collect(), NONE)
            }),
            Self::Show { channel } => {
                let held = client.tower_held(channel.find(&client).await?).await?;
                context.output.value(&held, |held| {
                    let header = ["TOWER", "UPDATE", "PAID BY THE PEER", "SAID"];
                    view::list(header, &[1, 2], held.iter().map(held_row).collect(), NONE)
                })
            }
        }
    }
}

fn held_row(held: &TowerHeld) -> [String; 4] {
    [
        held.tower.clone(),
        held.update.map_or_else(|| "none".to_owned(), |update| update.to_string()),
        held.paid.map(view::amount).unwrap_or_default(),
        held.error.clone().unwrap_or_default(),
    ]
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
