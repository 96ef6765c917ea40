//! A channel that was found on the ledger after this side had lost its records.
//!
//! The ledger shows the parties, their deposits and whether the channel is being closed, but not what was
//! paid. The peer's newest balances are in its first message on a stream ([`Reestablish`]), each with its
//! signature. Before that this side signs nothing; after it the channel can be closed. Nothing is paid or
//! accepted as a payment any more: a close that this side signed and forgot could be played against it.
//!
//! The peer may hold back what it paid. So this side never closes because the peer asks to, but only if its
//! own user wishes to.

use flash_proto::{
    PublicKey, SignedBalance,
    message::{ChannelMessage, PauseReason, Reestablish},
};

use super::{After, Channel, CommandError, Effects, Link, Misbehaviour, Origin, Phase};

impl Channel {
    /// Whether this side has lost its records and found the channel on the ledger.
    pub const fn is_found(&self) -> bool {
        matches!(self.agreement.origin, Origin::Found { .. })
    }

    /// Whether this side knows what was paid: by its own records, or because the peer has shown it.
    pub const fn balances_known(&self) -> bool {
        !matches!(self.agreement.origin, Origin::Found { shown: false, .. })
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

    /// Whether what the peer shows of the lanes is taken over, though nothing is accepted any more.
    pub(super) const fn takes_shown(&self) -> bool {
        self.is_found() && matches!(self.phase, Phase::Open | Phase::Contested { .. })
    }

    /// The peer has said where it stands: this side knows as much from here on, and takes no payments.
    pub(super) fn shown(
        &mut self,
        standing: &Reestablish,
        effects: &mut Effects,
    ) -> Result<(), Misbehaviour> {
        if !self.takes_shown() {
            return Ok(());
        }
        let before = self.incoming;
        if let Some(newer) = self.incoming_shown(standing)? {
            self.incoming = newer;
            self.dirty.incoming = true;
            self.dirty.acknowledge = true;
        }
        if self.checked_balances().is_none() {
            // What was taken out may have been paid with what the peer holds back.
            self.incoming = before;
            return Err(Misbehaviour::HeldBack);
        }
        if self.incoming != before {
            self.recovered(!self.agreement.side, effects);
        }
        if let Origin::Found { shown: shown @ false, .. } = &mut self.agreement.origin {
            *shown = true;
            self.dirty.agreement = true;
        }
        self.say_no_payments(effects);
        Ok(())
    }

    /// The user wishes to close: the peer may have signed a close already that was not taken before.
    pub(super) fn ask_standing(&self, effects: &mut Effects) {
        if self.is_found() && self.link == Link::Established {
            self.send_standing(effects);
            self.say_no_payments(effects);
        }
    }

    fn say_no_payments(&self, effects: &mut Effects) {
        let held_seq = self.incoming.held.map_or(0, |held: SignedBalance| held.state.seq);
        let paused = ChannelMessage::Paused { held_seq, reason: PauseReason::Closing };
        effects.after.push(After::Send(paused));
    }
}
