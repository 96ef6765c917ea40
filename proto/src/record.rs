//! What the ledger stores: unspent outputs and channel records, and where they stand in the state tree.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    Address, Amount, ChannelId, Hash, Open, OutputId, PublicKey, Side,
    balance::{Balances, Totals},
    hash::{Layout, Tag},
};

/// An amount at an address, to be spent whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Output {
    /// Whose key may spend it.
    pub address: Address,
    /// How much it holds.
    pub amount: Amount,
}

/// One party of a channel as the ledger knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Party {
    /// Signs this party's lane and its closes.
    pub key: PublicKey,
    /// Where this party's balance goes at the end.
    pub payout: Address,
    /// What this party locked.
    pub deposit: Amount,
}

/// The highest state of a lane that the ledger was shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct LaneClaim {
    /// Number of the update.
    pub seq: u64,
    /// All that was paid on the lane up to it.
    pub cumulative: Amount,
}

/// Where a channel is in its life on the ledger. A closed channel has no record any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ChannelPhase {
    /// In use.
    Open,
    /// One party closed alone; claims count while the milestone index is at most `deadline`, and the
    /// milestone after it settles.
    Closing {
        /// Who closed.
        closer: Side,
        /// Index of the last milestone that may apply a claim.
        deadline: u64,
    },
}

/// A channel on the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ChannelRecord {
    /// The party that opened it.
    pub party_a: Party,
    /// The other party.
    pub party_b: Party,
    /// Taken out by A so far.
    pub withdrawn_a: Amount,
    /// Taken out by B so far.
    pub withdrawn_b: Amount,
    /// Milestones between a unilateral close and its settlement.
    pub contest_window_milestones: u32,
    /// What A is known to have paid to B.
    pub lane_a: LaneClaim,
    /// What B is known to have paid to A.
    pub lane_b: LaneClaim,
    /// In use, or closing.
    pub phase: ChannelPhase,
}

impl ChannelRecord {
    /// The record that `open` makes.
    pub fn opened(open: &Open) -> Self {
        Self {
            party_a: open.party_a,
            party_b: open.party_b,
            withdrawn_a: Amount::ZERO,
            withdrawn_b: Amount::ZERO,
            contest_window_milestones: open.contest_window_milestones,
            lane_a: LaneClaim::default(),
            lane_b: LaneClaim::default(),
            phase: ChannelPhase::Open,
        }
    }

    /// One of the parties.
    pub fn party(&self, side: Side) -> &Party {
        side.pick(&self.party_a, &self.party_b)
    }

    /// The highest known state of the lane whose payer is `side`.
    pub fn lane(&self, side: Side) -> LaneClaim {
        side.pick(self.lane_a, self.lane_b)
    }

    /// All the money in the channel, or `None` if the record's numbers make no sense.
    pub fn total(&self) -> Option<Amount> {
        let locked = self.party_a.deposit.checked_add(self.party_b.deposit)?;
        locked.checked_sub(self.withdrawn_a.checked_add(self.withdrawn_b)?)
    }

    /// One side's totals, with what the ledger knows of its lane.
    pub fn totals(&self, side: Side) -> Totals {
        Totals {
            deposit: self.party(side).deposit,
            withdrawn: side.pick(self.withdrawn_a, self.withdrawn_b),
            sent: self.lane(side).cumulative,
        }
    }

    /// What a settlement of this record pays.
    pub fn settle(&self) -> Option<Balances> {
        Balances::settle(self.totals(Side::A), self.totals(Side::B))
    }

    /// The hash that stands for this record in the state tree.
    pub fn value_hash(&self) -> Hash {
        let mut layout = Layout::new(Tag::STATE_VALUE).u8(KIND_CHANNEL);
        for side in Side::BOTH {
            let party = self.party(side);
            layout = layout
                .bytes(party.key.as_bytes())
                .bytes(party.payout.as_bytes())
                .amount(party.deposit)
                .amount(side.pick(self.withdrawn_a, self.withdrawn_b))
                .u64(self.lane(side).seq)
                .amount(self.lane(side).cumulative);
        }
        let (phase, closer, deadline) = match self.phase {
            ChannelPhase::Open => (0, 0, 0),
            ChannelPhase::Closing { closer, deadline } => (1, closer.byte(), deadline),
        };
        layout.u32(self.contest_window_milestones).u8(phase).u8(closer).u64(deadline).hash()
    }
}

impl Output {
    /// The hash that stands for this output in the state tree.
    pub fn value_hash(&self) -> Hash {
        Layout::new(Tag::STATE_VALUE)
            .u8(KIND_OUTPUT)
            .bytes(self.address.as_bytes())
            .amount(self.amount)
            .hash()
    }
}

const KIND_OUTPUT: u8 = 0;
const KIND_CHANNEL: u8 = 1;

/// Names a thing in the ledger's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum StateKey {
    /// An unspent output.
    Output(OutputId),
    /// A channel record.
    Channel(ChannelId),
}

impl StateKey {
    /// Its key in the state tree: a hash, so that the tree stays balanced whatever ids are chosen.
    pub fn tree_key(&self) -> Hash {
        let layout = Layout::new(Tag::STATE_KEY);
        match self {
            Self::Output(id) => layout.u8(KIND_OUTPUT).bytes(id.transaction.as_bytes()).u16(id.index).hash(),
            Self::Channel(id) => layout.u8(KIND_CHANNEL).bytes(id.as_bytes()).hash(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecretKey;

    #[test]
    fn a_settlement_pays_what_was_locked_and_moved_and_not_taken_out() {
        let party = |deposit| Party {
            key: SecretKey::from_bytes([1; 32]).public(),
            payout: Address::new([1; 32]),
            deposit: Amount::new(deposit),
        };
        let open = Open {
            party_a: party(100),
            party_b: party(50),
            contest_window_milestones: 10,
            expiry_milestone: 5,
        };
        let mut record = ChannelRecord::opened(&open);
        record.lane_a.cumulative = Amount::new(30);
        record.lane_b.cumulative = Amount::new(7);
        record.withdrawn_b = Amount::new(20);
        let paid = Balances::of_payouts(Amount::new(77), Amount::new(53));
        assert_eq!((record.settle(), record.total()), (Some(paid), Some(Amount::new(130))));
        record.withdrawn_a = Amount::new(131);
        assert_eq!(record.total(), None, "more was taken out than there was");
    }
}
