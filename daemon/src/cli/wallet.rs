//! The money outside of channels.

use clap::Subcommand;
use flash_proto::{Address, Amount};

use super::{Context, channel, output::Failure, view, wait::wait};
use crate::{
    api::{HistoryEntry, RECOVER_ADDRESSES_MAX, RecoverRequest, RecoverResult, SendRequest, WalletBalance},
    rpc::Scope,
};

/// The money outside of channels.
#[derive(Debug, Subcommand)]
pub enum Wallet {
    /// Make a new address to receive money at
    Address {
        /// Print the address alone, also into a pipe, so that it can stand in another command
        #[arg(long, conflicts_with = "json")]
        plain: bool,
    },
    /// Show the balance
    Balance,
    /// Look for the money and channels of the seed, after a set-up with `flash init --words`
    Recover {
        /// How many addresses to look at and to watch from now on, and how many channel keys to look for
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(RECOVER_ADDRESSES_MAX)))]
        addresses: u32,
    },
    /// Send money on the ledger; returns when the transfer is applied
    Send {
        /// Who gets it
        to: Address,
        /// How much, such as 250, 1.5Ki or 2Mi
        amount: Amount,
    },
    /// Show what came and went, newest first
    History {
        /// At most this many entries
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
}

fn balance_view(balance: &WalletBalance) -> String {
    view::details([
        ("available", Some(view::amount(balance.available))),
        ("reserved", Some(view::amount(balance.reserved))),
        ("at milestone", Some(balance.milestone_index.to_string())),
    ])
}

fn recovered_view(found: &RecoverResult) -> String {
    let channels = channel::table(&found.channels, "no channels whose records were lost");
    format!("{}\n\n{channels}", balance_view(&found.balance))
}

impl Wallet {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Address { plain } => {
                let address = context.client(Scope::Admin)?.new_address().await?;
                if plain {
                    return context.output.bytes(format!("{}\n", address.address).as_bytes());
                }
                context.output.value(&address, |new| new.address.to_string())
            }
            Self::Balance => {
                let balance = context.client(Scope::Read)?.balance().await?;
                context.output.value(&balance, balance_view)
            }
            Self::Recover { addresses } => {
                let client = context.client(Scope::Admin)?;
                let goes_on = "`flash wallet balance` and `flash channel list` show what was found";
                let found = client.recover(RecoverRequest { addresses });
                let found = wait("looking at the addresses", goes_on, found).await?;
                context.output.value(&found, recovered_view)
            }
            Self::Send { to, amount } => {
                let client = context.client(Scope::Admin)?;
                let request = SendRequest { to, amount };
                let goes_on = "`flash wallet history` shows whether it was sent";
                let sent = wait("waiting for the ledger", goes_on, client.send(&request)).await?;
                context.output.value(&sent, |sent| {
                    view::details([
                        ("sent", Some(view::amount(amount))),
                        ("transaction", Some(sent.transaction.to_string())),
                        ("at milestone", Some(sent.milestone_index.to_string())),
                    ])
                })
            }
            Self::History { limit } => {
                let history = context.client(Scope::Read)?.history(limit).await?;
                context.output.value(&history, |history| self::history(history))
            }
        }
    }
}

fn history(history: &[HistoryEntry]) -> String {
    let rows = history.iter().map(|entry| {
        let text = |id: Option<String>| id.unwrap_or_default();
        [
            entry.milestone_index.to_string(),
            entry.kind.clone(),
            view::amount(entry.amount),
            text(entry.transaction.as_ref().map(ToString::to_string)),
            text(entry.address.as_ref().map(ToString::to_string)),
        ]
    });
    let header = ["MILESTONE", "KIND", "AMOUNT", "TRANSACTION", "ADDRESS"];
    view::list(header, &[0, 2], rows.collect(), "nothing came or went yet")
}
