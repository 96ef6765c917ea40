//! Opening, closing and checking the channels of a run.

use std::time::{Duration, Instant};

use flash_proto::{Amount, ChannelId, Output, Side};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    api::{ChannelInfo, CloseRequest, ErrorCode, OpenRequest},
    client::Client,
    local::LocalNetwork,
    run::Failure,
};

/// What a deposit has beyond what is paid: above the smallest output of a development network.
pub(super) const RESERVE: Amount = Amount::new(1_000_000);
/// Milestones of the contest window: wide, so that a busy machine never pauses the payments.
const WINDOW_MILESTONES: u32 = 1_000;
/// Outputs that one transfer makes at most, besides its change.
const OUTPUTS_AT_ONCE: usize = 100;
/// How long the money of closed channels may take to arrive.
const MONEY_WAIT: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// What to open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) channels: u16,
    /// What each side locks in each channel.
    pub(super) deposits: [Amount; 2],
    /// Channels that are opened or closed at once.
    pub(super) at_once: usize,
}

impl Plan {
    /// All that is locked.
    pub(super) fn total(&self) -> Option<Amount> {
        let [ours, theirs] = self.deposits;
        ours.checked_add(theirs)?.checked_mul(u64::from(self.channels))
    }
}

/// A channel of the run. The payer is its party A.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    pub(super) id: ChannelId,
}

/// Sends both daemons the money for their deposits, an output for each channel.
pub(super) async fn fund(network: &LocalNetwork, clients: [&Client; 2], plan: &Plan) -> Result<(), Failure> {
    let mut outputs = Vec::new();
    for (client, amount) in clients.iter().zip(plan.deposits).filter(|(_, deposit)| !deposit.is_zero()) {
        for _ in 0..plan.channels {
            outputs.push(Output { address: client.new_address().await?.address, amount });
        }
    }
    for part in outputs.chunks(OUTPUTS_AT_ONCE) {
        network.fund(part).await?;
    }
    for (client, deposit) in clients.into_iter().zip(plan.deposits) {
        let wanted = deposit.checked_mul(u64::from(plan.channels)).unwrap_or(Amount::MAX);
        arrived(client, wanted).await?;
    }
    Ok(())
}

/// Opens the channels; returns when all are open on the ledger.
pub(super) async fn open(payer: &Client, ticket: &str, plan: &Plan) -> Result<Vec<Opened>, Failure> {
    let [deposit, peer_deposit] = plan.deposits;
    let request = OpenRequest {
        peer: ticket.to_owned(),
        deposit,
        peer_deposit,
        contest_window_milestones: Some(WINDOW_MILESTONES),
    };
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
pub(super) async fn close(payer: &Client, opened: &[Opened]) -> Result<(), Failure> {
    let closing = stream::iter(opened).map(|channel| async {
        payer.close(channel.id, CloseRequest::default(), true).await?;
        Ok(())
    });
    closing.buffered(opened.len().max(1)).try_collect().await
}

/// Checks what both sides were paid out, and that it is in their wallets. Gives back all money of the
/// run.
pub(super) async fn check(
    clients: [&Client; 2],
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
        for (client, [mine, other]) in clients.iter().zip([[first, second], [second, first]]) {
            let info = closed(client, channel.id).await?;
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
    for (client, wanted) in clients.into_iter().zip(wanted) {
        arrived(client, wanted).await?;
    }
    let [first, second] = wanted;
    first.checked_add(second).ok_or_else(overflow)
}

/// The channel, once this side knows that it is closed.
async fn closed(client: &Client, id: ChannelId) -> Result<ChannelInfo, Failure> {
    let asked = Instant::now();
    loop {
        let info = client.channel(id).await?;
        if info.state == "closed" || asked.elapsed() > MONEY_WAIT {
            return Ok(info);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Waits until the wallet holds exactly this.
async fn arrived(client: &Client, wanted: Amount) -> Result<(), Failure> {
    let asked = Instant::now();
    loop {
        let late = asked.elapsed() > MONEY_WAIT;
        match client.balance().await {
            Ok(balance) if (balance.available, balance.reserved) == (wanted, Amount::ZERO) => return Ok(()),
            Ok(balance) if late => {
                return Err(Failure::new(format!(
                    "a wallet holds {} and {} more reserved, but it should hold {wanted}",
                    balance.available, balance.reserved
                )));
            }
            // A daemon that has just started has no view of the ledger yet.
            Err(error) if late || error.code != ErrorCode::LedgerUnavailable => return Err(error.into()),
            _ => {}
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
