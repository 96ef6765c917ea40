//! Two bodies that the peer has signed under one number (I6): both are kept as evidence, once for each channel.
//!
//! Whoever signs twice harms only itself, as the ledger counts the higher one. But an honest machine never does, so
//! its operator should hear of it: somebody else uses the same key, or it means to cheat.

use bincode::{Decode, Encode};
use flash_proto::{LaneState, SignedBalance, message::Update};

use super::{
    After, Channel, ChannelEvent, Effects, Misbehaviour,
    tables::{self, Lane},
};
use crate::store::{Store, StoreError};

/// Two balances of the peer's lane under one number, both with its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedTwice {
    /// The one that was held when the other came.
    pub held: SignedBalance,
    /// The other one.
    pub other: SignedBalance,
}

/// What is known of bodies that were signed twice.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// The first pair that the peer has shown.
    pub(super) pair: Option<Box<SignedTwice>>,
    /// The peer's lane before the newest update, which says what body another update under its number has.
    pub(super) before: Option<LaneState>,
}

impl Evidence {
    /// As it is in the store.
    pub(super) fn load(store: &dyn Store, channel: &Channel) -> Result<Self, StoreError> {
        let newest = tables::kept(store, channel.id, Lane::Peers, channel.incoming_seq())?;
        let pair = tables::signed_twice(store, channel.id)?.map(Box::new);
        Ok(Self { pair, before: newest.map(|kept| kept.before) })
    }
}

impl Channel {
    /// The first two bodies that the peer has signed under one number, if it ever did.
    pub fn signed_twice(&self) -> Option<&SignedTwice> {
        self.evidence.pair.as_deref()
    }

    /// The peer has shown a balance: there must be no other body under the number of the newest that is held.
    pub(super) fn check_one_body(
        &mut self,
        shown: &SignedBalance,
        effects: &mut Effects,
    ) -> Result<(), Misbehaviour> {
        let seq = shown.state.seq;
        let held = self.incoming.held.filter(|held| held.state.seq == seq && held.state != shown.state);
        let Some(held) = held else { return Ok(()) };
        self.check_peers(shown)?;
        if self.evidence.pair.is_none() {
            let pair = Box::new(SignedTwice { held, other: *shown });
            tables::put_signed_twice(&mut effects.batch, self.id, &pair);
            self.evidence.pair = Some(pair.clone());
            effects.after.push(After::Event(ChannelEvent::SignedTwice(pair)));
        }
        Err(Misbehaviour::TwoBodies(seq))
    }

    /// The same of an update under that number, whose body depends on the lane before it.
    pub(super) fn check_one_update(
        &mut self,
        update: &Update,
        effects: &mut Effects,
    ) -> Result<(), Misbehaviour> {
        let newest = self.incoming.held.filter(|held| held.state.seq == update.seq);
        if newest.is_none_or(|held| held.signature == update.signature) {
            return Ok(());
        }
        let state = self.evidence.before.and_then(|before| update.after(&before).ok());
        if let Some(state) = state {
            self.check_one_body(&SignedBalance { state, signature: update.signature }, effects)?;
        }
        Err(Misbehaviour::TwoBodies(update.seq))
    }
}
