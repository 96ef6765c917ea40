//! Changing what is locked in a channel: topping up and withdrawing.

use flash_node_client::ledger::check::deposits_min;
use flash_proto::{
    Action, Amount, ChannelId, Essence, Output,
    transaction::{TopUp, commit_inputs},
};

use super::{Answer, Daemon};
use crate::{
    api::{self, ApiError, ErrorCode},
    engine::View,
};

/// Milestones that a top-up may take to be applied.
const TOP_UP_EXPIRY_MILESTONES: u64 = 60;

impl Daemon {
    /// Locks more in a channel. Returns once that is durable and submitted, or with `wait` once it is applied.
    ///
    /// # Errors
    /// [`ApiError`]; [`ErrorCode::LedgerRefused`] if it was not applied in time.
    pub async fn top_up(
        &self,
        id: ChannelId,
        request: api::StakeRequest,
        wait: bool,
    ) -> Answer<api::ChannelInfo> {
        let amount = request.amount;
        if amount.is_zero() {
            return Err(ApiError::new(ErrorCode::InvalidRequest, "nothing to lock", "choose an amount"));
        }
        let before = self.0.views.get(id)?;
        if before.info.state != "open" {
            let message = format!("the channel is {}", before.info.state);
            return Err(ApiError::new(ErrorCode::ChannelState, message, "see `flash channel show`"));
        }
        let expiry_milestone = self.0.client.newest().index.saturating_add(TOP_UP_EXPIRY_MILESTONES);
        let funds = self.0.wallet.prepare_top_up(amount, expiry_milestone).await?;
        let spent: Vec<Output> = funds.funding.iter().map(|funding| funding.output).collect();
        let essence = Essence {
            network: self.0.params.id(),
            inputs: funds.funding.iter().map(|funding| funding.id).collect(),
            inputs_commitment: commit_inputs(&spent),
            outputs: funds.change.into_iter().collect(),
            action: Action::TopUp(TopUp { channel: id, side: before.info.side, amount, expiry_milestone }),
        };
        let unlocks = self.0.wallet.unlocks(&essence, &funds).await?;
        if let Err(error) = self.0.engine.top_up(id, essence, unlocks).await {
            self.0.wallet.abandon(&funds).await?;
            return Err(error);
        }
        if !wait {
            return self.channel(id);
        }
        let done = |view: &View| view.info.topping_up.is_none() || view.refused.is_some();
        let view = self.wait_for(id, done, "topped up").await?;
        if view.info.deposit > before.info.deposit {
            return Ok(view.info);
        }
        let reason = view.refused.unwrap_or_else(|| "it was not applied in time".to_owned());
        let hint = "the money is free again when it has expired; see `flash channel show`";
        Err(ApiError::new(ErrorCode::LedgerRefused, format!("the top-up of {amount}: {reason}"), hint))
    }

    /// Takes money out of a channel. Returns once the wish is durable, or with `wait` once it is applied.
    ///
    /// # Errors
    /// [`ApiError`]; [`ErrorCode::LedgerRefused`] if it was not signed by the peer or not applied in time.
    pub async fn withdraw(
        &self,
        id: ChannelId,
        request: api::StakeRequest,
        wait: bool,
    ) -> Answer<api::ChannelInfo> {
        let amount = request.amount;
        let output_min = self.0.params.output_min.max(Amount::new(1));
        if amount < output_min {
            let message = format!("{amount} is less than the smallest output of {output_min}");
            return Err(ApiError::new(ErrorCode::InvalidRequest, message, "choose another amount"));
        }
        let before = self.0.views.get(id)?.info.withdrawn;
        self.0.engine.withdraw(id, amount, deposits_min(&self.0.params)).await?;
        if !wait {
            return self.channel(id);
        }
        let done = |view: &View| view.info.withdrawing.is_none();
        let view = self.wait_for(id, done, "rid of that money").await?;
        if view.info.withdrawn > before {
            return Ok(view.info);
        }
        let message = format!("the withdraw of {amount} has lapsed: it was not signed or applied in time");
        let hint = "the money is in use in the channel; if the peer does not answer, close with --force";
        Err(ApiError::new(ErrorCode::LedgerRefused, message, hint))
    }
}
