//! Channels: open, look, top up, withdraw, close.

use std::str::FromStr;

use clap::Subcommand;
use flash_node_client::quic::PeerAddress;
use flash_proto::{Amount, ChannelId};

use super::{Context, output::Failure, tower, view, wait::wait};
use crate::{
    api::{
        ApiError, ChannelInfo, CloseRequest, ErrorCode, LaneInfo, ListRequest, OpenRequest, PeerRequest,
        SignedTwice, StakeRequest,
    },
    client::Client,
    rpc::Scope,
};

/// Digits of an id that a prefix needs at least: fewer are a typing mistake.
const PREFIX_DIGITS_MIN: usize = 4;
/// Channels that are named if a prefix is that of several.
const MATCHING_MAX: usize = 16;

/// Open, look at, change and close channels.
#[derive(Debug, Subcommand)]
pub enum Channel {
    /// Open a channel; returns when it is open on the ledger
    Open {
        /// The peer's ticket, KEY@HOST:PORT, from its `flash info`
        peer: PeerAddress,
        /// What to lock here, such as 2Mi
        deposit: Amount,
        /// What the peer is asked to lock
        #[arg(long, value_name = "AMOUNT", default_value = "0i")]
        peer_deposit: Amount,
        /// Milestones between a unilateral close and its settlement [default: the daemon's]
        #[arg(long, value_name = "MILESTONES")]
        contest_window: Option<u32>,
    },
    /// List the channels, newest first
    List {
        /// Closed ones too
        #[arg(long)]
        all: bool,
    },
    /// Show one channel
    Show {
        /// The channel's id, or enough of its first digits
        channel: ChannelName,
    },
    /// Say which machine the peer of a recovered channel is, and connect to it
    Peer {
        /// The channel's id, or enough of its first digits
        channel: ChannelName,
        /// The peer's ticket, KEY@HOST:PORT, from its `flash info`
        peer: PeerAddress,
    },
    /// Say that the records of a recovered channel are the newest there are, without or against its peer
    ///
    /// Only if nothing was signed after these records were made. If anything was, the peer can keep what it paid
    /// since, and a close that was signed meanwhile can be played against later payments. Where there are no records,
    /// because the words alone brought the channel back, this gives up whatever the peer has paid.
    Trust {
        /// The channel's id, or enough of its first digits
        channel: ChannelName,
        /// Yes, although money can be lost
        #[arg(long)]
        yes: bool,
    },
    /// Lock more in a channel while it stays in use; returns when that is applied
    TopUp {
        /// The channel's id, or enough of its first digits
        channel: ChannelName,
        /// What to lock as well, such as 2Mi
        amount: Amount,
        /// Return once it is submitted
        #[arg(long)]
        no_wait: bool,
    },
    /// Take money out of a channel while it stays in use; returns when that is applied
    ///
    /// The peer must sign, too. If it does not in time, the withdraw lapses and the money stays in the
    /// channel; everything else goes on meanwhile.
    Withdraw {
        /// The channel's id, or enough of its first digits
        channel: ChannelName,
        /// What to take out, such as 2Mi
        amount: Amount,
        /// Return once the peer is asked
        #[arg(long)]
        no_wait: bool,
    },
    /// Close a channel; returns when the money is out
    Close {
        /// The channel's id, or enough of its first digits
        channel: ChannelName,
        /// Close without the peer; the money is out after the contest window
        #[arg(long)]
        force: bool,
        /// Return once the close is submitted
        #[arg(long)]
        no_wait: bool,
    },
}

impl Channel {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let channel = match self {
            Self::List { all } => return list(context, all).await,
            Self::Open { peer, deposit, peer_deposit, contest_window } => {
                let request = OpenRequest {
                    peer: peer.to_string(),
                    deposit,
                    peer_deposit,
                    contest_window_milestones: contest_window,
                };
                let client = context.client(Scope::Admin)?;
                let goes_on = "`flash channel list` shows what became of it";
                wait("opening the channel", goes_on, client.open(&request)).await?
            }
            Self::Show { channel } => {
                let client = context.client(Scope::Read)?;
                client.channel(channel.find(&client).await?).await?
            }
            Self::Peer { channel, peer } => {
                let client = context.client(Scope::Admin)?;
                let id = channel.find(&client).await?;
                client.meet(id, &PeerRequest { peer: peer.to_string() }).await?
            }
            Self::Trust { yes: false, .. } => {
                let message =
                    "if anything was signed after these records were made, this can lose what the peer paid";
                let hint = "`flash channel trust --help` says what; repeat it with --yes";
                return Err(ApiError::new(ErrorCode::InvalidRequest, message, hint).into());
            }
            Self::Trust { channel, yes: true } => {
                let client = context.client(Scope::Admin)?;
                let id = channel.find(&client).await?;
                client.trust(id).await?
            }
            Self::TopUp { channel, amount, no_wait } => {
                let client = context.client(Scope::Admin)?;
                let id = channel.find(&client).await?;
                let top_up = client.top_up(id, StakeRequest { amount }, !no_wait);
                wait("topping up the channel", &goes_on(&id), top_up).await?
            }
            Self::Withdraw { channel, amount, no_wait } => {
                let client = context.client(Scope::Admin)?;
                let id = channel.find(&client).await?;
                let withdraw = client.withdraw(id, StakeRequest { amount }, !no_wait);
                wait("taking money out of the channel", &goes_on(&id), withdraw).await?
            }
            Self::Close { channel, force, no_wait } => {
                let client = context.client(Scope::Admin)?;
                let id = channel.find(&client).await?;
                let close = client.close(id, CloseRequest { force }, !no_wait);
                wait("closing the channel", &goes_on(&id), close).await?
            }
        };
        context.output.value(&channel, view)
    }
}

fn goes_on(id: &ChannelId) -> String {
    format!("`flash channel show {}` shows what became of it", view::short(id))
}

async fn list(context: &Context, all: bool) -> Result<(), Failure> {
    let channels = context.client(Scope::Read)?.channels(all).await?;
    let nothing = "no channels; open one with `flash channel open PEER DEPOSIT`";
    context.output.value(&channels, |channels| table(channels, nothing))
}

/// Channels, a line each; or `nothing`.
pub(super) fn table(channels: &[ChannelInfo], nothing: &str) -> String {
    let rows = channels.iter().map(|channel| {
        [
            view::short(&channel.id),
            state(channel),
            view::short(&channel.peer),
            if channel.connected { "yes" } else { "no" }.to_owned(),
            balance(channel.balance),
            balance(channel.peer_balance),
            channel.sent.payments.to_string(),
            channel.received.payments.to_string(),
        ]
    });
    let header = ["CHANNEL", "STATE", "PEER", "CONNECTED", "BALANCE", "PEER'S BALANCE", "SENT", "RECEIVED"];
    view::list(header, &[4, 5, 6, 7], rows.collect(), nothing)
}

fn balance(balance: Option<Amount>) -> String {
    balance.map_or_else(|| "unknown".to_owned(), view::amount)
}

fn state(channel: &ChannelInfo) -> String {
    if channel.paused.is_some() { format!("{}, paused", channel.state) } else { channel.state.clone() }
}

fn view(channel: &ChannelInfo) -> String {
    let connected = if channel.connected { "connected" } else { "not connected" };
    let lane = |lane: LaneInfo| {
        let ticks = lane.ticks.map_or_else(String::new, |ticks| {
            format!(", ticks of {}: {} paid, {} left", ticks.unit, ticks.paid, ticks.left)
        });
        format!(
            "{} (payments: {}, acknowledged: {}, updates: {}{ticks})",
            view::amount(lane.cumulative),
            lane.payments,
            lane.acknowledged,
            lane.updates
        )
    };
    let held_up = channel.balance.is_some_and(|balance| balance > channel.payable);
    let taken = |amount: Amount| (!amount.is_zero()).then(|| view::amount(amount));
    view::details([
        ("channel", Some(channel.id.to_string())),
        ("state", Some(channel.state.clone())),
        ("paused", channel.paused.clone()),
        ("goes on at", channel.resumes_at_milestone.map(|index| format!("milestone {index}"))),
        ("peer", Some(format!("{} ({connected})", channel.peer))),
        ("since", Some(view::time(channel.created_ms))),
        ("side", Some(channel.side.to_string())),
        ("deposit", Some(view::amount(channel.deposit))),
        ("peer's deposit", Some(view::amount(channel.peer_deposit))),
        ("withdrawn", taken(channel.withdrawn)),
        ("peer has withdrawn", taken(channel.peer_withdrawn)),
        ("topping up", channel.topping_up.map(view::amount)),
        ("withdrawing", channel.withdrawing.map(view::amount)),
        ("peer is withdrawing", channel.peer_withdrawing.map(view::amount)),
        ("balance", Some(balance(channel.balance))),
        ("peer's balance", Some(balance(channel.peer_balance))),
        ("payable now", held_up.then(|| view::amount(channel.payable))),
        ("sent", Some(lane(channel.sent))),
        ("received", Some(lane(channel.received))),
        ("contest window", Some(format!("{} milestones", channel.contest_window_milestones))),
        ("contest ends at", channel.deadline_milestone.map(|index| format!("milestone {index}"))),
        ("opened by", channel.open_transaction.as_ref().map(ToString::to_string)),
        ("closed by", channel.close_transaction.as_ref().map(ToString::to_string)),
        ("paid out", channel.payout.map(view::amount)),
        ("paid out to peer", channel.peer_payout.map(view::amount)),
        ("peer signed twice", channel.signed_twice.as_deref().map(signed_twice)),
        ("watchtowers", tower::standings(&channel.towers)),
    ])
}

fn signed_twice(pair: &SignedTwice) -> String {
    let [held, other] = pair.cumulative.map(view::amount);
    format!("{held} and {other} in all, both as update {}; --json shows the proof", pair.update)
}

/// A channel's id, or the first digits of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelName {
    /// The whole id.
    Id(ChannelId),
    /// Its first digits, in lower case.
    Prefix(String),
}

impl FromStr for ChannelName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        let digits = text.len();
        if !text.chars().all(|c| c.is_ascii_hexdigit()) || !(PREFIX_DIGITS_MIN..64).contains(&digits) {
            return Err(format!(
                "a channel is named by its id, 64 hexadecimal digits, or by its first {PREFIX_DIGITS_MIN} or more"
            ));
        }
        Ok(Self::Prefix(text.to_ascii_lowercase()))
    }
}

impl ChannelName {
    /// The id of the one channel with this name.
    pub(super) async fn find(&self, client: &Client) -> Result<ChannelId, ApiError> {
        match self {
            Self::Id(id) => Ok(*id),
            Self::Prefix(prefix) => {
                let request = ListRequest {
                    all: true,
                    prefix: prefix.clone(),
                    limit: Some(MATCHING_MAX),
                    ..ListRequest::default()
                };
                let matching = client.list(&request).await?;
                choose(prefix, matching.iter().map(|channel| channel.id))
            }
        }
    }
}

fn choose(prefix: &str, ids: impl Iterator<Item = ChannelId>) -> Result<ChannelId, ApiError> {
    let mut matching = ids.filter(|id| id.to_string().starts_with(prefix));
    let Some(first) = matching.next() else {
        let message = format!("there is no channel whose id begins with {prefix}");
        return Err(ApiError::new(
            ErrorCode::UnknownChannel,
            message,
            "`flash channel list --all` lists all",
        ));
    };
    let others: Vec<String> = matching.map(|id| id.to_string()).collect();
    if others.is_empty() {
        return Ok(first);
    }
    let message = format!("{prefix} begins the ids of several channels: {first}, {}", others.join(", "));
    Err(ApiError::new(ErrorCode::InvalidRequest, message, "write more digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_name_exactly_one_channel() {
        let id = |first: u8, second: u8| {
            let mut bytes = [0; 32];
            (bytes[0], bytes[1], bytes[2]) = (0xab, first, second);
            ChannelId::new(bytes)
        };
        let ids = [id(1, 1), id(1, 2), id(2, 0)];
        assert_eq!(choose("ab02", ids.into_iter()).unwrap(), id(2, 0));
        assert_eq!(choose("ab0102", ids.into_iter()).unwrap(), id(1, 2));
        assert_eq!(choose("abcd", ids.into_iter()).unwrap_err().code, ErrorCode::UnknownChannel);
        let several = choose("ab01", ids.into_iter()).unwrap_err();
        assert!(several.message.contains(&id(1, 1).to_string()), "{several}");
        assert!(several.message.contains(&id(1, 2).to_string()), "{several}");
        assert!(!several.message.contains(&id(2, 0).to_string()), "{several}");
    }

    #[test]
    fn names() {
        assert_eq!("ABCD".parse(), Ok(ChannelName::Prefix("abcd".to_owned())));
        assert!(matches!("0".repeat(64).parse(), Ok(ChannelName::Id(_))));
        for wrong in ["abc", "", "xyzw", &"0".repeat(65)] {
            assert!(wrong.parse::<ChannelName>().is_err(), "{wrong}");
        }
    }
}
