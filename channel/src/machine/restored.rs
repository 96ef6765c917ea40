//! A channel of which this side may have forgotten something it signed: its records were lost and it found the
//! channel on the ledger, they came back from a backup, or they turned out to be an old copy.
//!
//! Until it is known where the lanes stand nothing is signed. The peer's newest balances are in its first message
//! on a stream ([`Reestablish`]), each with its signature; this side takes over what is newer than its own. From
//! then on it can close. It pays and takes payments again once everything else has lapsed that it may have signed
//! before: a close that it does not remember could be played against them. Claims need no signature of this side
//! and are made at all times.
//!
//! The peer may hold back what it paid. So meanwhile this side never closes because the peer asks to, but only if
//! its own user wishes to.

use flash_proto::{PublicKey, SignedBalance, TickProof, message::Reestablish};

use super::{
    Channel, ChannelEvent, CommandError, Doubt, Effects, Incoming, Known, Link, Misbehaviour, Origin, Phase,
    SIGNED_EXPIRY_MILESTONES_MAX,
};

impl Channel {
    /// Whether this side had lost its records and found the channel on the ledger.
    pub const fn is_found(&self) -> bool {
        matches!(self.agreement.origin, Origin::Found { .. })
    }

    /// What this side may have forgotten, if it may have.
    pub const fn doubt(&self) -> Option<&Doubt> {
        self.doubt.as_ref()
    }

    /// Whether this side knows what was paid: by its own records, or because the peer has shown it.
    pub const fn balances_known(&self) -> bool {
        matches!(self.doubt, None | Some(Doubt { known: Known::Balances, .. }))
    }

    /// Whether a close alone might leave behind what the peer has paid.
    pub(super) const fn knows_nothing(&self) -> bool {
        matches!(self.doubt, Some(Doubt { known: Known::Nothing, .. }))
    }

    /// Says by which key the peer's machine is known.
    ///
    /// # Errors
    /// [`CommandError::PeerKnown`] if the channel was not found again: its peer is the one that agreed on it.
    pub fn meet(&mut self, peer: PublicKey) -> Result<(), CommandError> {
        if !self.is_found() {
            return Err(CommandError::PeerKnown);
        }
        self.agreement.peer = peer;
        self.dirty.agreement = true;
        Ok(())
    }

    /// Whether the user may say that the records here are the newest ([`super::Input::Trust`]).
    ///
    /// # Errors
    /// [`CommandError::NotInDoubt`].
    pub fn may_trust(&self) -> Result<(), CommandError> {
        if self.doubt.is_some() { Ok(()) } else { Err(CommandError::NotInDoubt) }
    }

    /// The user says that nothing was signed beyond the records here. Where there were none, or they cannot be all, as
    /// the peer has spent what only it can show, that is taken as leave to close: a peer that stays silent must not
    /// keep the money locked. Where they can be all, payments go on.
    pub(super) fn trust(&mut self, effects: &mut Effects) {
        if self.may_trust().is_err() {
            return;
        }
        let unexplained = self.checked_balances().is_none();
        let closes_only = unexplained || self.is_found() && !self.balances_known();
        self.doubt =
            self.doubt.map(|doubt| Doubt { known: Known::Balances, ..doubt }).filter(|_| closes_only);
        self.dirty.doubt = true;
        self.locked.unexplained = unexplained;
        self.dirty.locked = true;
        self.resume(effects);
    }

    /// The records here may be older than what this side has signed. What the peer has shown on the stream that
    /// there is now counts.
    pub(super) fn doubt_records(&mut self, effects: &mut Effects) {
        if self.doubt.is_none() && !matches!(self.phase, Phase::Closed { .. } | Phase::Lapsed) {
            let established = self.link == Link::Established;
            let known = if established { Known::Balances } else { Known::Nothing };
            self.doubt = Some(Doubt { known, until: None });
            self.dirty.doubt = true;
            self.drop_queue(effects);
            if established {
                self.say_no_payments(effects);
            }
        }
    }

    /// The peer has shown a newer balance of this side's than the records here know (I3): they are an old copy, or
    /// somebody else signs with this side's key.
    pub(super) fn signed_unknown(&mut self, effects: &mut Effects) {
        if let Some(doubt) = &mut self.doubt {
            // Whatever signed it may have signed a close as well.
            doubt.until = None;
            self.dirty.doubt = true;
        } else {
            let running = self.was_established;
            self.doubt_records(effects);
            effects.after.push(super::After::Event(ChannelEvent::OldRecords { running }));
        }
    }

    /// Whether what the peer shows of the lanes is taken over, whatever is accepted as a payment.
    pub(super) const fn takes_shown(&self) -> bool {
        self.doubt.is_some()
            && !matches!(self.phase, Phase::ClosingAlone | Phase::Closed { .. } | Phase::Lapsed)
    }

    /// The peer has said where it stands: this side knows as much from here on.
    pub(super) fn shown(
        &mut self,
        standing: &Reestablish,
        effects: &mut Effects,
    ) -> Result<(), Misbehaviour> {
        if !self.takes_shown() {
            return Ok(());
        }
        let before = self.incoming;
        if let Some(newer) = self.incoming_shown(standing.signed, standing.signed_ticks)? {
            self.incoming = newer;
        }
        if self.checked_balances().is_none() {
            // What was taken out may have been paid with what the peer holds back.
            self.incoming = before;
            return Err(Misbehaviour::HeldBack);
        }
        self.took_over(&before, effects);
        self.learn(Known::Balances);
        self.say_no_payments(effects);
        Ok(())
    }

    /// Takes over a balance of the peer's that somebody else has kept, such as a watchtower. This side may close
    /// alone with it.
    pub(super) fn shown_elsewhere(
        &mut self,
        held: SignedBalance,
        ticks: Option<TickProof>,
        effects: &mut Effects,
    ) -> Result<(), Misbehaviour> {
        self.check_one_body(&held, effects)?;
        let Some(newer) = self.incoming_shown(Some(held), ticks)? else { return Ok(()) };
        let before = self.incoming;
        if !self.takes_shown() || self.balances_known() {
            return Ok(());
        }
        // What the peer owned cannot be checked: that depends on this side's own lane, which is lost as well.
        self.incoming = newer;
        self.took_over(&before, effects);
        self.learn(Known::PeersLane);
        Ok(())
    }

    /// Says what is held now, if it is more than before.
    fn took_over(&mut self, before: &Incoming, effects: &mut Effects) {
        if self.incoming != *before {
            self.dirty.incoming = true;
            self.dirty.acknowledge = self.link != Link::Down;
            self.recovered(!self.agreement.side, effects);
        }
    }

    fn learn(&mut self, known: Known) {
        if let Some(doubt) = self.doubt.as_mut().filter(|doubt| doubt.known < known) {
            doubt.known = known;
            self.dirty.doubt = true;
        }
    }

    /// The user wishes to close: the peer may have signed a close already that was not taken before.
    pub(super) fn ask_standing(&mut self, effects: &mut Effects) {
        if self.doubt.is_some() && self.link == Link::Established {
            self.send_standing(effects);
            self.say_no_payments(effects);
        }
    }

    fn say_no_payments(&mut self, effects: &mut Effects) {
        self.paused = false;
        self.pauses(effects);
    }

    /// The ledger was seen. A young view begins the wait for all to lapse that may have been signed and forgotten, and
    /// a later one ends it.
    ///
    /// What was signed before the loss was to lapse within [`SIGNED_EXPIRY_MILESTONES_MAX`] of a milestone that was
    /// there then. The young view is at most half a contest window old, and milestones come at most twice as fast as
    /// they should: so that milestone is at most a window ahead of this view.
    pub(super) fn lapse_forgotten(&mut self) {
        let (Some(doubt), Some(seen)) = (&mut self.doubt, self.seen.filter(|_| self.fresh)) else { return };
        match doubt.until {
            None => {
                let window = u64::from(self.agreement.open.contest_window_milestones);
                doubt.until = Some(seen.saturating_add(SIGNED_EXPIRY_MILESTONES_MAX).saturating_add(window));
            }
            Some(until) if seen >= until && doubt.known == Known::Balances => self.doubt = None,
            Some(_) => return,
        }
        self.dirty.doubt = true;
    }
}
