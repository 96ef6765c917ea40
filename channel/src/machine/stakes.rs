//! Changing what is locked while the channel stays in use: topping up and withdrawing.
//!
//! A top-up needs only the side whose deposit rises; the ledger applies it, and both count it once they
//! have seen that. A withdraw needs both: whoever takes the money out signs and counts it as taken from then
//! on, then the other does the same if the money is there by its own records. It counts until the ledger shows
//! that it was applied, or a milestone past its expiry shows that it was not. So neither side ever counts more
//! as locked than the ledger does.
//!
//! The two sides see the ledger at different times. Each tells the other what it counts, and a payer pays only
//! from what both count. Payments go on all the while, and a request that nobody answers lapses.

use flash_proto::{
    Action, Amount, Balances, ChannelPhase, ChannelRecord, Essence, Side, Signature, Transaction, Unlock,
    message::{ChannelMessage, Stake, Stakes},
    transaction::{TopUp, Withdraw},
};

use super::{
    After, Agreement, Channel, ChannelEvent, CommandError, Effects, Link, Locked, Misbehaviour, Origin,
    PendingWithdraw, Phase, SIGNED_EXPIRY_MILESTONES_MAX,
};

/// Milestones that a withdraw may take to be applied before it lapses.
pub const WITHDRAW_EXPIRY_MILESTONES: u64 = 60;

fn stakes_of(stake: impl Fn(Side) -> Stake) -> Stakes {
    Stakes { a: stake(Side::A), b: stake(Side::B) }
}

impl Locked {
    /// What the agreement says: what was locked at first, or on the ledger when the channel was found again.
    pub(super) fn agreed(agreement: &Agreement) -> Self {
        let withdrawn = match &agreement.origin {
            Origin::Agreed(_) => [Amount::ZERO; 2],
            Origin::Found { withdrawn_a, withdrawn_b, .. } => [*withdrawn_a, *withdrawn_b],
        };
        let [a, b] = withdrawn;
        let proven = stakes_of(|side| Stake {
            deposit: agreement.open.party(side).deposit,
            withdrawn: side.pick(a, b),
        });
        Self { proven, withdraw_a: None, withdraw_b: None, top_up: None, unexplained: false }
    }

    /// A side's withdraw that is signed here and neither applied nor lapsed.
    pub fn withdraw(&self, side: Side) -> Option<&PendingWithdraw> {
        side.pick(&self.withdraw_a, &self.withdraw_b).as_deref()
    }

    fn withdraw_mut(&mut self, side: Side) -> &mut Option<Box<PendingWithdraw>> {
        side.pick(&mut self.withdraw_a, &mut self.withdraw_b)
    }

    /// What a side has locked, a withdraw counted from its signature here on.
    pub fn counted(&self, side: Side) -> Stake {
        let Stake { deposit, withdrawn } = self.proven.of(side);
        let signed = self.withdraw(side).map_or(Amount::ZERO, |pending| pending.withdraw.total);
        Stake { deposit, withdrawn: withdrawn.max(signed) }
    }

    /// What this side is about to lock as well.
    pub fn topping_up(&self) -> Option<Amount> {
        self.top_up.as_ref().and_then(|it| topped_up(&it.essence)).map(|top_up| top_up.amount)
    }

    /// Whether nothing is under way.
    pub const fn is_settled(&self) -> bool {
        self.withdraw_a.is_none() && self.withdraw_b.is_none() && self.top_up.is_none()
    }

    /// What is left of the changes once the ledger shows `proven`, and no more of them may come if `over`
    /// says so of their expiry.
    fn seen(&self, side: Side, proven: Stakes, over: impl Fn(u64) -> bool) -> Self {
        let open = |side: Side| {
            let pending = self.withdraw(side).filter(|PendingWithdraw { withdraw, .. }| {
                proven.of(side).withdrawn < withdraw.total && !over(withdraw.expiry_milestone)
            });
            pending.copied().map(Box::new)
        };
        let risen = proven.of(side).deposit > self.proven.of(side).deposit;
        let top_up = self.top_up.as_ref().filter(|transaction| {
            !risen && topped_up(&transaction.essence).is_some_and(|top_up| !over(top_up.expiry_milestone))
        });
        Self {
            proven,
            withdraw_a: open(Side::A),
            withdraw_b: open(Side::B),
            top_up: top_up.cloned(),
            unexplained: self.unexplained,
        }
    }
}

/// What a top-up says.
pub(super) const fn topped_up(essence: &Essence) -> Option<TopUp> {
    match essence.action {
        Action::TopUp(top_up) => Some(top_up),
        _ => None,
    }
}

impl Channel {
    /// What both sides have locked, and what is under way to change that.
    pub const fn locked(&self) -> &Locked {
        &self.locked
    }

    /// What each side has locked as this side counts it.
    pub fn stakes(&self) -> Stakes {
        stakes_of(|side| self.locked.counted(side))
    }

    /// What this side can pay by its own view and the peer's, payments that wait not counted.
    pub(super) fn payable(&self) -> Amount {
        let side = self.agreement.side;
        let own = self.locked.counted(side);
        let stated = self.stated.map_or(own, |stated| stated.of(side));
        let both = Stake {
            deposit: own.deposit.min(stated.deposit),
            withdrawn: own.withdrawn.max(stated.withdrawn),
        };
        let owned = both.owned(self.totals(!side).sent).unwrap_or(Amount::ZERO);
        owned.saturating_sub(self.totals(side).sent)
    }

    /// Whether the payments that wait may be signed now. A peer that counts less than when they were taken
    /// lets them wait.
    pub(super) fn queue_is_covered(&self) -> bool {
        !self.behind && !self.locked.unexplained && self.queued_amount <= self.payable()
    }

    /// Whether a top-up or withdraw of this side is neither applied nor lapsed.
    pub fn changes_stake(&self) -> bool {
        self.locked.top_up.is_some() || self.locked.withdraw(self.agreement.side).is_some()
    }

    /// Whether the peer, too, counts just what this side does, and that makes sense.
    pub(super) fn agrees_on_stakes(&self) -> bool {
        self.stated == Some(self.stakes()) && !self.locked.unexplained
    }

    fn may_change_stake(&self) -> Result<(), CommandError> {
        if self.phase != Phase::Open || self.wants_close || self.doubt.is_some() {
            return Err(CommandError::Phase(self.state()));
        }
        if self.peer_wants_close {
            return Err(CommandError::Phase("closing"));
        }
        if self.changes_stake() { Err(CommandError::StakeChanging) } else { Ok(()) }
    }

    /// Whether a withdraw of so much can be asked for now, with at least `left_min` left in the channel.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn may_withdraw(&self, amount: Amount, left_min: Amount) -> Result<(), CommandError> {
        self.may_change_stake()?;
        if self.link != Link::Established {
            return Err(CommandError::NotConnected);
        }
        if !self.sees_enough() {
            return Err(CommandError::StaleLedgerView);
        }
        let available = self.available();
        if amount.is_zero() || amount > available {
            return Err(CommandError::Insufficient { amount, available });
        }
        let left = self.balances().total().unwrap_or(Amount::ZERO).saturating_sub(amount);
        if left < left_min { Err(CommandError::TooLittleLeft { left, min: left_min }) } else { Ok(()) }
    }

    /// Whether this top-up can be made now.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn may_top_up(&self, essence: &Essence) -> Result<(), CommandError> {
        self.may_change_stake()?;
        match topped_up(essence) {
            Some(TopUp { channel, side, amount, .. })
                if essence.network == self.agreement.network
                    && channel == self.id
                    && side == self.agreement.side
                    && !amount.is_zero() =>
            {
                Ok(())
            }
            _ => Err(CommandError::NotThisTopUp),
        }
    }

    fn sees_enough(&self) -> bool {
        self.fresh && self.seen.is_some() && !self.behind && !self.locked.unexplained
    }

    pub(super) fn top_up(&mut self, essence: Essence, mut unlocks: Vec<Unlock>, effects: &mut Effects) {
        if let (Ok(()), Some(TopUp { amount, .. })) = (self.may_top_up(&essence), topped_up(&essence)) {
            unlocks.push(essence.unlock(&self.key));
            self.locked.top_up = Some(Box::new(Transaction { essence, unlocks }));
            self.dirty.locked = true;
            effects.after.push(After::Event(ChannelEvent::ToppingUp { amount }));
        }
    }

    pub(super) fn withdraw(&mut self, amount: Amount, left_min: Amount, effects: &mut Effects) {
        let side = self.agreement.side;
        let total = self.locked.proven.of(side).withdrawn.checked_add(amount);
        let (Ok(()), Some(seen), Some(total)) = (self.may_withdraw(amount, left_min), self.seen, total)
        else {
            return;
        };
        let expiry_milestone = seen.saturating_add(WITHDRAW_EXPIRY_MILESTONES);
        let withdraw = Withdraw { channel: self.id, side, amount, total, expiry_milestone };
        let taker = self.withdraw_essence(withdraw).unlock(&self.key).signature;
        self.count(PendingWithdraw { withdraw, taker, other: None }, effects);
        self.resume_withdraw(effects);
    }

    /// Counts a withdraw as taken out from here on.
    fn count(&mut self, pending: PendingWithdraw, effects: &mut Effects) {
        let Withdraw { side, amount, .. } = pending.withdraw;
        *self.locked.withdraw_mut(side) = Some(Box::new(pending));
        self.dirty.locked = true;
        effects.after.push(After::Event(ChannelEvent::Withdrawing { side, amount }));
        self.state_stakes(effects);
    }

    /// Tells the peer what this side counts. Whatever of the peer's waits for that is said again then.
    pub(super) fn state_stakes(&self, effects: &mut Effects) {
        if self.link != Link::Down {
            effects.after.push(After::Send(ChannelMessage::Stakes(self.stakes())));
        }
    }

    /// What the peer counts. It may now sign what it could not before.
    pub(super) fn take_stakes(&mut self, stakes: Stakes, effects: &mut Effects) {
        self.stated = Some(stakes);
        self.resume_close(effects);
        self.resume_withdraw(effects);
    }

    /// Asks, again after a break, for the peer's signature under this side's withdraw.
    pub(super) fn resume_withdraw(&self, effects: &mut Effects) {
        if let Some(PendingWithdraw { withdraw, taker, other: None }) =
            self.locked.withdraw(self.agreement.side)
        {
            let message = ChannelMessage::WithdrawSigned { withdraw: *withdraw, signature: *taker };
            effects.after.push(After::Send(message));
        }
    }

    /// The peer wishes to take money out. What this side cannot sign now it passes over: the peer says it
    /// again, or it lapses.
    pub(super) fn take_withdraw(
        &mut self,
        withdraw: Withdraw,
        signature: Signature,
        effects: &mut Effects,
    ) -> Result<(), Misbehaviour> {
        let Withdraw { channel, side, amount, total, expiry_milestone } = withdraw;
        if channel != self.id || side != !self.agreement.side || amount.is_zero() || total < amount {
            return Err(Misbehaviour::WrongWithdraw);
        }
        if let Some(PendingWithdraw { withdraw: known, other: Some(ours), .. }) = self.locked.withdraw(side) {
            if *known == withdraw {
                let message = ChannelMessage::WithdrawComplete { withdraw, signature: *ours };
                effects.after.push(After::Send(message));
            }
            return Ok(());
        }
        let Some(seen) = self.seen.filter(|_| self.sees_enough()) else { return Ok(()) };
        let follows = self.locked.proven.of(side).withdrawn.checked_add(amount) == Some(total);
        if self.phase != Phase::Open || self.doubt.is_some() || !follows || expiry_milestone <= seen {
            return Ok(());
        }
        check_expiry(expiry_milestone, seen)?;
        let essence = self.withdraw_essence(withdraw);
        self.check_signed(&essence, &signature)?;
        let owned = self.balances().of(side);
        if amount > owned {
            return Err(Misbehaviour::WithdrawsTooMuch { amount, owned });
        }
        let ours = essence.unlock(&self.key).signature;
        self.count(PendingWithdraw { withdraw, taker: signature, other: Some(ours) }, effects);
        let message = ChannelMessage::WithdrawComplete { withdraw, signature: ours };
        effects.after.push(After::Send(message));
        Ok(())
    }

    /// The peer has signed this side's withdraw, too.
    pub(super) fn complete_withdraw(
        &mut self,
        withdraw: Withdraw,
        signature: Signature,
    ) -> Result<(), Misbehaviour> {
        let side = self.agreement.side;
        let waits = |pending: &&PendingWithdraw| pending.withdraw == withdraw && pending.other.is_none();
        if let Some(pending) = self.locked.withdraw(side).filter(waits).copied() {
            self.check_signed(&self.withdraw_essence(withdraw), &signature)?;
            let complete = PendingWithdraw { other: Some(signature), ..pending };
            *self.locked.withdraw_mut(side) = Some(Box::new(complete));
            self.dirty.locked = true;
        }
        Ok(())
    }

    fn withdraw_essence(&self, withdraw: Withdraw) -> Essence {
        Essence::acting(self.agreement.network, Action::Withdraw(withdraw))
    }

    /// The change of the stakes that waits for the ledger: this side's, or else the peer's.
    pub(super) fn wanted_change(&self) -> Option<Transaction> {
        let withdraw = |side: Side| {
            let PendingWithdraw { withdraw, taker, other } = *self.locked.withdraw(side)?;
            let (a, b) = side.pick((taker, other?), (other?, taker));
            Some(self.signed_by_both(self.withdraw_essence(withdraw), [a, b]))
        };
        let side = self.agreement.side;
        let top_up = self.locked.top_up.as_deref().cloned();
        top_up.or_else(|| withdraw(side)).or_else(|| withdraw(!side))
    }

    /// What the ledger shows to be locked.
    pub(super) fn see_stakes(&mut self, record: &ChannelRecord, index: u64, effects: &mut Effects) {
        let proven = stakes_of(|side| {
            let totals = record.totals(side);
            Stake { deposit: totals.deposit, withdrawn: totals.withdrawn }
        });
        for side in Side::BOTH {
            let (before, now) = (self.locked.proven.of(side), proven.of(side));
            assert!(
                now.deposit >= before.deposit && now.withdrawn >= before.withdrawn,
                "I3: deposits and withdrawn totals must not fall"
            );
        }
        if proven == self.locked.proven && self.locked.is_settled() {
            return;
        }
        let closing = record.phase != ChannelPhase::Open;
        let now = self.locked.seen(self.agreement.side, proven, |expiry| closing || index > expiry);
        if now == self.locked {
            return;
        }
        let before = std::mem::replace(&mut self.locked, now);
        self.locked.unexplained = self.balances_known() && self.checked_balances().is_none();
        self.dirty.locked = true;
        self.tell_changes(&before, effects);
        self.state_stakes(effects);
    }

    /// What the peer has shown may explain what was taken out.
    pub(super) fn explain(&mut self) {
        if self.locked.unexplained && self.checked_balances().is_some() {
            self.locked.unexplained = false;
            self.dirty.locked = true;
        }
    }

    fn tell_changes(&self, before: &Locked, effects: &mut Effects) {
        let mut tell = |event| effects.after.push(After::Event(event));
        for side in Side::BOTH {
            let (old, new) = (before.proven.of(side), self.locked.proven.of(side));
            let locked = new.deposit.saturating_sub(old.deposit);
            let taken = new.withdrawn.saturating_sub(old.withdrawn);
            if !locked.is_zero() {
                tell(ChannelEvent::ToppedUp { side, amount: locked });
            }
            if !taken.is_zero() {
                tell(ChannelEvent::Withdrawn { side, amount: taken });
            }
            if let (Some(PendingWithdraw { withdraw, .. }), None) =
                (before.withdraw(side), self.locked.withdraw(side))
                && new.withdrawn < withdraw.total
            {
                tell(ChannelEvent::WithdrawLapsed { side, amount: withdraw.amount });
            }
        }
        let side = self.agreement.side;
        if let (Some(amount), None) = (before.topping_up(), &self.locked.top_up)
            && self.locked.proven.of(side).deposit == before.proven.of(side).deposit
        {
            tell(ChannelEvent::TopUpLapsed { amount });
        }
    }

    /// The channel is gone, and what it paid tells which of the changes that were under way had been applied:
    /// those that explain it, if any do.
    pub(super) fn end_changes(&mut self, payouts: Option<Balances>, effects: &mut Effects) {
        if self.locked.is_settled() {
            return;
        }
        let own = self.agreement.side;
        let explanations = [false, true].into_iter().flat_map(|top_up| {
            [[false, false], [false, true], [true, false], [true, true]].map(|taken| (top_up, taken))
        });
        for (top_up, [taken_a, taken_b]) in explanations {
            let proven = stakes_of(|side| {
                let Stake { deposit, withdrawn } = self.locked.proven.of(side);
                let added = self.locked.topping_up().filter(|_| top_up && side == own);
                let added = added.unwrap_or(Amount::ZERO);
                let taken = self.locked.withdraw(side).filter(|_| side.pick(taken_a, taken_b));
                let total = taken.map_or(withdrawn, |pending| pending.withdraw.total);
                Stake { deposit: deposit.checked_add(added).unwrap_or(deposit), withdrawn: total }
            });
            let now = self.locked.seen(own, proven, |_| true);
            let before = std::mem::replace(&mut self.locked, now);
            if payouts.is_some() && self.checked_balances() == payouts {
                self.dirty.locked = true;
                self.tell_changes(&before, effects);
                return;
            }
            self.locked = before;
        }
    }

    /// Whether the payer owns what it paid only if a withdraw of it has lapsed, as it may know already. Then
    /// nothing is taken before the ledger has shown more.
    pub(super) fn waits_for_lapse(&mut self, total: Amount, effects: &mut Effects) -> bool {
        let peer = !self.agreement.side;
        let owned = self.locked.proven.of(peer).owned(self.totals(!peer).sent);
        let waits = self.locked.withdraw(peer).is_some() && owned.is_some_and(|owned| total <= owned);
        if waits {
            self.behind = true;
            self.pauses(effects);
        }
        waits
    }
}

/// Checks that what the peer asks to be signed is over in a bounded time: whoever lost the records of it can wait
/// that out.
pub(super) fn check_expiry(got: u64, seen: u64) -> Result<(), Misbehaviour> {
    let max = seen.saturating_add(SIGNED_EXPIRY_MILESTONES_MAX);
    if got > max { Err(Misbehaviour::Expiry { got, max }) } else { Ok(()) }
}
