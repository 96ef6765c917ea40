//! Opening, closing and checking the channels of a run.

use flash_proto::{Amount, ChannelId, Output, Side};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    api::{CloseRequest, OpenRequest},
    client::Client,
    failure::Failure,
    local::{LocalDaemon, LocalNetwork, reached},
};

/// What a deposit has beyond what is paid: above the smallest output of a development network.
pub const RESERVE: Amount = Amount::new(1_000_000);
/// Milestones of the contest window: wide, so that a busy machine never pauses the payments.
const WINDOW_MILESTONES: u32 = 1_000;

/// What to open.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many.
    pub channels: u32,
    /// What each side locks in each channel.
    pub deposits: [Amount; 2],
    /// Channels that are opened or closed at once.
    pub at_once: usize,
}

impl Plan {
    /// All that is locked; nothing if it does not fit.
    pub fn total(&self) -> Option<Amount> {
        let [ours, theirs] = self.deposits;
        ours.checked_add(theirs)?.checked_mul(u64::from(self.channels))
    }

    /// Asks for one of the channels.
    pub fn request(&self, ticket: &str) -> OpenRequest {
        let [deposit, peer_deposit] = self.deposits;
        let contest_window_milestones = Some(WINDOW_MILESTONES);
        OpenRequest { peer: ticket.to_owned(), deposit, peer_deposit, contest_window_milestones }
    }
}

/// A channel of the run. The payer is its party A.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// Its id.
    pub id: ChannelId,
}

/// Sends both daemons the money for their deposits, an output for each channel.
///
/// # Errors
/// [`Failure`].
pub async fn fund(network: &LocalNetwork, daemons: [&LocalDaemon; 2], plan: &Plan) -> Result<(), Failure> {
    let mut outputs = Vec::new();
    for (daemon, amount) in daemons.iter().zip(plan.deposits).filter(|(_, deposit)| !deposit.is_zero()) {
        let given = stream::iter(0..plan.channels).map(|_| daemon.client.new_address());
        let given: Vec<_> = given.buffered(plan.at_once).try_collect().await?;
        outputs.extend(given.into_iter().map(|it| Output { address: it.address, amount }));
    }
    network.fund(&outputs).await?;
    for (daemon, deposit) in daemons.into_iter().zip(plan.deposits) {
        let wanted = deposit.checked_mul(u64::from(plan.channels)).unwrap_or(Amount::MAX);
        daemon.settled(wanted).await?;
    }
    Ok(())
}

/// Opens the channels; returns when all are open on the ledger.
///
/// # Errors
/// [`Failure`].
pub async fn open(payer: &Client, ticket: &str, plan: &Plan) -> Result<Vec<Opened>, Failure> {
    let request = plan.request(ticket);
    let opening = stream::iter(0..plan.channels).map(|_| async {
        let info = payer.open(&request).await?;
        if info.side != Side::A {
            return Err(Failure::new("a channel that was opened here has this side as party B"));
        }
        Ok(Opened { id: info.id })
    });
    opening.buffered(plan.at_once).try_collect().await
}

/// Closes the channels; returns when all are paid out.
///
/// # Errors
/// [`Failure`].
pub async fn close(payer: &Client, opened: &[Opened]) -> Result<(), Failure> {
    let closing = stream::iter(opened).map(|channel| async {
        payer.close(channel.id, CloseRequest::default(), true).await?;
        Ok(())
    });
    closing.buffered(opened.len().max(1)).try_collect().await
}

/// Checks what both sides were paid out, and that it is in their wallets. Gives back all money of the
/// run.
///
/// # Errors
/// [`Failure`].
pub async fn check(
    daemons: [&LocalDaemon; 2],
    opened: &[Opened],
    plan: &Plan,
    paid: Option<&[[Amount; 2]]>,
) -> Result<Amount, Failure> {
    let overflow = || Failure::new("a sum of this run does not fit 64 bits");
    let mut wanted = [Amount::ZERO; 2];
    for (at, channel) in opened.iter().enumerate() {
        let [sent, received] = paid.and_then(|paid| paid.get(at)).copied().unwrap_or_default();
        let [ours, theirs] = plan.deposits;
        let moved = |deposit: Amount, gained, lost| deposit.checked_add(gained)?.checked_sub(lost);
        let first = moved(ours, received, sent).ok_or_else(overflow)?;
        let second = moved(theirs, sent, received).ok_or_else(overflow)?;
        for (daemon, [mine, other]) in daemons.iter().zip([[first, second], [second, first]]) {
            let info = reached(&daemon.client, channel.id, "closed").await?;
            if (info.payout, info.peer_payout) != (Some(mine), Some(other)) {
                return Err(Failure::new(format!(
                    "channel {}: paid out {:?} and {:?}, but it should be {mine} and {other}",
                    channel.id, info.payout, info.peer_payout
                )));
            }
        }
        for (sum, part) in wanted.iter_mut().zip([first, second]) {
            *sum = sum.checked_add(part).ok_or_else(overflow)?;
        }
    }
    for (daemon, wanted) in daemons.into_iter().zip(wanted) {
        daemon.settled(wanted).await?;
    }
    let [first, second] = wanted;
    first.checked_add(second).ok_or_else(overflow)
}
