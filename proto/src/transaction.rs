//! Transactions: transfers of outputs and the life of a channel.

use bincode::{Decode, Encode};

use crate::{
    Amount, ChannelId, Hash, LaneState, NetworkId, Output, OutputId, PublicKey, SecretKey, Side, Signature,
    TickProof, TransactionId,
    hash::{Layout, Tag},
    payment::PaymentError,
    record::Party,
};

/// Opens a channel with the money that the transaction's inputs leave over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Open {
    /// The party that opens.
    pub party_a: Party,
    /// The other party.
    pub party_b: Party,
    /// Milestones between a unilateral close and its settlement.
    pub contest_window_milestones: u32,
    /// Index of the last milestone that may apply this; past it the inputs are free again.
    pub expiry_milestone: u64,
}

impl Open {
    /// One of the parties.
    pub fn party(&self, side: Side) -> &Party {
        side.pick(&self.party_a, &self.party_b)
    }
}

/// Both parties close at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CooperativeClose {
    /// The channel.
    pub channel: ChannelId,
    /// Number of the last update on A's lane.
    pub final_seq_a: u64,
    /// Number of the last update on B's lane.
    pub final_seq_b: u64,
    /// What A gets.
    pub payout_a: Amount,
    /// What B gets.
    pub payout_b: Amount,
    /// Index of the last milestone that may apply this; past it the channel is in use again.
    pub expiry_milestone: u64,
}

/// One party closes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UnilateralClose {
    /// The channel.
    pub channel: ChannelId,
    /// Who closes.
    pub closer: Side,
    /// The newest balance the closer holds from the other side, if any; its signature is the second
    /// unlock.
    pub balance: Option<Claim>,
}

/// What a payee shows the ledger of its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    /// The newest balance.
    pub state: LaneState,
    /// The newest tick that was revealed under it, if any.
    pub ticks: Option<TickProof>,
}

/// One side locks more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TopUp {
    /// The channel.
    pub channel: ChannelId,
    /// Whose deposit rises.
    pub side: Side,
    /// By how much: what the inputs leave over.
    pub amount: Amount,
    /// Index of the last milestone that may apply this; past it the inputs are free again.
    pub expiry_milestone: u64,
}

/// One side takes money out, and the other agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Withdraw {
    /// The channel.
    pub channel: ChannelId,
    /// Who takes it.
    pub side: Side,
    /// How much: output 0 of the transaction, at the side's payout address.
    pub amount: Amount,
    /// All that the side will have taken out so far, this included. It applies once: after it this is
    /// what the record says already.
    pub total: Amount,
    /// Index of the last milestone that may apply this; past it the money is in use again.
    pub expiry_milestone: u64,
}

/// What a transaction does beside spending inputs and making outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Action {
    /// Nothing more: a transfer.
    Transfer,
    /// Opens a channel. Unlocks: one per input.
    Open(Open),
    /// Closes a channel by both. Unlocks: A's, B's.
    CooperativeClose(CooperativeClose),
    /// Closes a channel by one. Unlocks: the closer's, and the balance's if there is one.
    UnilateralClose(UnilateralClose),
    /// Raises one lane on a closing channel. Unlock: the balance's.
    Claim(Claim),
    /// Raises a deposit. Unlocks: one per input, then the side's.
    TopUp(TopUp),
    /// Pays out a part of a side's balance. Unlocks: A's, B's.
    Withdraw(Withdraw),
}

/// What is signed: a transaction without its signatures.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Essence {
    /// The network it is for.
    pub network: NetworkId,
    /// Outputs that are spent. None in the transactions that act on an open channel.
    pub inputs: Vec<OutputId>,
    /// [`commit_inputs`] of the spent outputs, so that a signer who cannot see the ledger cannot be
    /// lied to about what it spends.
    pub inputs_commitment: Hash,
    /// Outputs that are made.
    pub outputs: Vec<Output>,
    /// What else happens.
    pub action: Action,
}

/// The key and signature that permit one part of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Unlock {
    /// The signer.
    pub key: PublicKey,
    /// The signature: over the transaction's id, but for a balance over its lane state.
    pub signature: Signature,
}

/// A transaction as it is put on the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Transaction {
    /// What was signed.
    pub essence: Essence,
    /// Inputs' unlocks in the order of the inputs, then the action's.
    pub unlocks: Vec<Unlock>,
}

/// The commitment to the outputs that a transaction spends, in the order of its inputs.
pub fn commit_inputs(spent: &[Output]) -> Hash {
    spent
        .iter()
        .fold(Layout::new(Tag::INPUTS).count(spent.len()), |layout, output| {
            layout.bytes(output.address.as_bytes()).amount(output.amount)
        })
        .hash()
}

impl Essence {
    /// An essence that only acts on a channel: no inputs, no outputs.
    pub fn acting(network: NetworkId, action: Action) -> Self {
        Self {
            network,
            inputs: Vec::new(),
            inputs_commitment: commit_inputs(&[]),
            outputs: Vec::new(),
            action,
        }
    }

    /// The transaction's id: the hash of the essence (`docs/protocol.md`, "Transaction").
    pub fn id(&self) -> TransactionId {
        let mut layout =
            Layout::new(Tag::TRANSACTION).bytes(self.network.as_bytes()).count(self.inputs.len());
        for input in &self.inputs {
            layout = layout.bytes(input.transaction.as_bytes()).u16(input.index);
        }
        layout = layout.bytes(self.inputs_commitment.as_bytes()).count(self.outputs.len());
        for output in &self.outputs {
            layout = layout.bytes(output.address.as_bytes()).amount(output.amount);
        }
        TransactionId::new(*self.action.write(layout).hash().as_bytes())
    }

    /// Signs the transaction's id.
    pub fn unlock(&self, key: &SecretKey) -> Unlock {
        Unlock { key: key.public(), signature: key.sign(&Hash::new(*self.id().as_bytes())) }
    }
}

impl Claim {
    /// A balance under which no tick was revealed.
    pub const fn of(state: LaneState) -> Self {
        Self { state, ticks: None }
    }

    /// All that was paid on the lane by what is shown.
    ///
    /// # Errors
    /// [`PaymentError`] if the ticks are not of the balance's chain, or the sum does not fit.
    pub fn total(&self) -> Result<Amount, PaymentError> {
        self.state.with_ticks(self.ticks.as_ref())
    }

    fn write(&self, layout: Layout) -> Layout {
        let layout = self.state.write(layout);
        match &self.ticks {
            None => layout.u8(0),
            Some(ticks) => layout.u8(1).u32(ticks.index).bytes(ticks.preimage.as_bytes()),
        }
    }
}

impl Action {
    fn write(&self, layout: Layout) -> Layout {
        match self {
            Self::Transfer => layout.u8(0),
            Self::Open(open) => {
                let layout = layout.u8(1);
                [open.party_a, open.party_b]
                    .iter()
                    .fold(layout, |layout, party| {
                        layout
                            .bytes(party.key.as_bytes())
                            .bytes(party.payout.as_bytes())
                            .amount(party.deposit)
                    })
                    .u32(open.contest_window_milestones)
                    .u64(open.expiry_milestone)
            }
            Self::CooperativeClose(close) => layout
                .u8(2)
                .bytes(close.channel.as_bytes())
                .u64(close.final_seq_a)
                .u64(close.final_seq_b)
                .amount(close.payout_a)
                .amount(close.payout_b)
                .u64(close.expiry_milestone),
            Self::UnilateralClose(close) => {
                let layout = layout.u8(3).bytes(close.channel.as_bytes()).side(close.closer);
                match &close.balance {
                    None => layout.u8(0),
                    Some(claim) => claim.write(layout.u8(1)),
                }
            }
            Self::Claim(claim) => claim.write(layout.u8(4)),
            Self::TopUp(top_up) => layout
                .u8(5)
                .bytes(top_up.channel.as_bytes())
                .side(top_up.side)
                .amount(top_up.amount)
                .u64(top_up.expiry_milestone),
            Self::Withdraw(withdraw) => layout
                .u8(6)
                .bytes(withdraw.channel.as_bytes())
                .side(withdraw.side)
                .amount(withdraw.amount)
                .amount(withdraw.total)
                .u64(withdraw.expiry_milestone),
        }
    }

    /// The channel that is acted on. For an Open use [`ChannelId::opened_by`] on the transaction's id.
    pub fn channel(&self) -> Option<ChannelId> {
        match self {
            Self::Transfer | Self::Open(_) => None,
            Self::CooperativeClose(close) => Some(close.channel),
            Self::UnilateralClose(close) => Some(close.channel),
            Self::Claim(claim) => Some(claim.state.channel),
            Self::TopUp(top_up) => Some(top_up.channel),
            Self::Withdraw(withdraw) => Some(withdraw.channel),
        }
    }

    /// Index of the last milestone that may apply this, if there is one.
    pub const fn expiry_milestone(&self) -> Option<u64> {
        match self {
            Self::Open(open) => Some(open.expiry_milestone),
            Self::CooperativeClose(close) => Some(close.expiry_milestone),
            Self::TopUp(top_up) => Some(top_up.expiry_milestone),
            Self::Withdraw(withdraw) => Some(withdraw.expiry_milestone),
            Self::Transfer | Self::UnilateralClose(_) | Self::Claim(_) => None,
        }
    }

    /// A short name for logs and listings.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Transfer => "transfer",
            Self::Open(_) => "open",
            Self::CooperativeClose(_) => "cooperative_close",
            Self::UnilateralClose(_) => "unilateral_close",
            Self::Claim(_) => "claim",
            Self::TopUp(_) => "top_up",
            Self::Withdraw(_) => "withdraw",
        }
    }
}

impl Transaction {
    /// The transaction's id; its signatures have no part in it.
    pub fn id(&self) -> TransactionId {
        self.essence.id()
    }

    /// The channel that the transaction opens or acts on.
    pub fn channel(&self) -> Option<ChannelId> {
        match self.essence.action {
            Action::Open(_) => Some(ChannelId::opened_by(self.id())),
            ref action => action.channel(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Address, LaneState, SecretKey, TickChain, TickTerms, record::Party};

    /// Every action of the channel `[1; 32]`, with its own expiry if it has one.
    fn actions() -> [(Action, Option<u64>); 7] {
        let (channel, side) = (ChannelId::new([1; 32]), Side::A);
        let amount = Amount::new(5);
        let claim = Claim { state: LaneState::new(channel, side), ticks: None };
        let party = Party {
            key: SecretKey::from_bytes([1; 32]).public(),
            payout: Address::new([1; 32]),
            deposit: amount,
        };
        let open =
            Open { party_a: party, party_b: party, contest_window_milestones: 10, expiry_milestone: 21 };
        let close = CooperativeClose {
            channel,
            final_seq_a: 1,
            final_seq_b: 2,
            payout_a: amount,
            payout_b: amount,
            expiry_milestone: 22,
        };
        [
            (Action::Transfer, None),
            (Action::Open(open), Some(21)),
            (Action::CooperativeClose(close), Some(22)),
            (Action::UnilateralClose(UnilateralClose { channel, closer: side, balance: Some(claim) }), None),
            (Action::Claim(claim), None),
            (Action::TopUp(TopUp { channel, side, amount, expiry_milestone: 23 }), Some(23)),
            (
                Action::Withdraw(Withdraw { channel, side, amount, total: amount, expiry_milestone: 24 }),
                Some(24),
            ),
        ]
    }

    /// Logs, listings and the API name them so.
    #[test]
    fn each_action_has_its_name() {
        let names = actions().map(|(action, _)| action.name());
        let wanted =
            ["transfer", "open", "cooperative_close", "unilateral_close", "claim", "top_up", "withdraw"];
        assert_eq!(names, wanted);
    }

    #[test]
    fn a_claim_is_worth_its_balance_and_the_ticks_under_it() {
        let mut chain = TickChain::new(Hash::new([7; 32]), Amount::new(3), 5).unwrap();
        let state = LaneState {
            cumulative: Amount::new(40),
            ticks: chain.terms(),
            ..LaneState::new(ChannelId::new([1; 32]), Side::A)
        };
        assert_eq!(Claim::of(state).total(), Ok(Amount::new(40)));
        let ticks = chain.reveal(2);
        assert_eq!(Claim { state, ticks }.total(), Ok(Amount::new(46)));
        let foreign = Claim { state: LaneState { ticks: TickTerms::NONE, ..state }, ticks };
        assert!(foreign.total().is_err());
    }

    #[test]
    fn an_action_says_its_channel_and_until_when_it_may_be_applied() {
        let network = NetworkId::new([1; 32]);
        for (action, expiry) in actions() {
            assert_eq!(action.expiry_milestone(), expiry, "{}", action.name());
            let transaction = Transaction { essence: Essence::acting(network, action), unlocks: Vec::new() };
            let wanted = match transaction.essence.action {
                Action::Transfer => None,
                Action::Open(_) => Some(ChannelId::opened_by(transaction.id())),
                _ => Some(ChannelId::new([1; 32])),
            };
            assert_eq!(transaction.channel(), wanted, "{}", transaction.essence.action.name());
        }
        let ids: std::collections::BTreeSet<_> =
            actions().map(|(action, _)| Essence::acting(network, action).id()).into_iter().collect();
        assert_eq!(ids.len(), actions().len(), "no two actions hash to one id");
    }
}
