//! The ledger as the daemon verified it.

use clap::Subcommand;
use flash_proto::TransactionId;

use super::{Context, node, output::Failure, view};
use crate::{api::NodeStatus, rpc::Scope};

/// The ledger as the daemon verified it.
#[derive(Debug, Subcommand)]
pub enum Ledger {
    /// Show how far the ledger is verified
    Status,
    /// Show a transaction, proven against the milestone that applied it
    Tx {
        /// The transaction's id
        id: TransactionId,
    },
    /// Show a milestone
    Milestone {
        /// Its index; the newest if left out
        index: Option<u64>,
    },
}

impl Ledger {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client(Scope::Read)?;
        match self {
            Self::Status => {
                let status = client.ledger_status().await?;
                context.output.value(&status, |status| {
                    let details = view::details([
                        ("node", Some(status.node.clone().unwrap_or_else(|| "none is connected".to_owned()))),
                        ("verified to", Some(node::ledger(status))),
                        ("milestone id", Some(status.milestone_id.to_string())),
                    ]);
                    let row = |node: &NodeStatus| {
                        [node.node.clone(), node.state.clone(), node.fault.clone().unwrap_or_default()]
                    };
                    let rows = status.nodes.iter().map(row).collect();
                    let nodes =
                        view::list(["NODE", "STATE", "CAUGHT AT"], &[], rows, "no node is configured");
                    format!("{details}\n{nodes}")
                })
            }
            Self::Tx { id } => {
                let transaction = client.transaction(id).await?;
                context.output.value(&transaction, |transaction| {
                    view::details([
                        ("transaction", Some(transaction.id.to_string())),
                        ("kind", Some(transaction.kind.clone())),
                        ("status", Some(transaction.status.clone())),
                        ("reason", transaction.reason.clone()),
                        ("at milestone", transaction.milestone_index.map(|index| index.to_string())),
                        ("block", transaction.block.as_ref().map(ToString::to_string)),
                        ("channel", transaction.channel.as_ref().map(ToString::to_string)),
                    ])
                })
            }
            Self::Milestone { index } => {
                let milestone = client.milestone(index).await?;
                context.output.value(&milestone, |milestone| {
                    let signers: Vec<_> = milestone.signed_by.iter().map(ToString::to_string).collect();
                    view::details([
                        ("milestone", Some(milestone.index.to_string())),
                        ("id", Some(milestone.id.to_string())),
                        ("time", Some(format!("{} UTC", view::time(milestone.timestamp_ms)))),
                        ("previous", Some(milestone.previous.to_string())),
                        ("state root", Some(milestone.state_root.clone())),
                        ("signed by", Some(signers.join("\n"))),
                    ])
                })
            }
        }
    }
}
