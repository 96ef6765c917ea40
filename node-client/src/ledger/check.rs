//! What a transaction must be whatever the ledger holds. A block whose transaction is not is refused
//! by every node and never enters the Tangle.

use flash_proto::{
    Action, Amount, Claim, Essence, Hash, NetworkId, NetworkParams, Open, PublicKey, Signature, Transaction,
    TransactionId, Unlock, keys::verify_all, limits, payment::PaymentError, transaction::Withdraw,
};
use thiserror::Error;

/// Signatures that are checked together: twice as many are hardly faster.
const SIGNATURES_TOGETHER: usize = 128;

/// A transaction that passed [`Checked::new`]: form, limits and every signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    transaction: Transaction,
    id: TransactionId,
    channel_min: Amount,
    claimed: Amount,
}

/// Why a transaction can never be applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Invalid {
    /// It is for another network.
    #[error("the transaction is for another network")]
    Network,
    /// Too few or too many inputs for its kind.
    #[error("a transaction of this kind has {min} to {max} inputs, not {got}")]
    Inputs {
        /// Inputs given.
        got: usize,
        /// At least.
        min: usize,
        /// At most.
        max: usize,
    },
    /// Too few or too many outputs for its kind.
    #[error("a transaction of this kind has {min} to {max} outputs, not {got}")]
    Outputs {
        /// Outputs given.
        got: usize,
        /// At least.
        min: usize,
        /// At most.
        max: usize,
    },
    /// One output is named twice as an input.
    #[error("an input is named twice")]
    InputTwice,
    /// An output is smaller than the network's minimum.
    #[error("an output of {0} is smaller than the network's minimum")]
    OutputBelowMinimum(Amount),
    /// Amounts are more than there is.
    #[error("the amounts add up to more than the supply")]
    Supply,
    /// Not one unlock for each part that needs one.
    #[error("{got} unlocks, but {wanted} are needed")]
    Unlocks {
        /// Unlocks given.
        got: usize,
        /// Unlocks needed.
        wanted: usize,
    },
    /// A signature does not verify.
    #[error("the signature of unlock {0} is not valid")]
    Signature(usize),
    /// A contest window that is not allowed.
    #[error("a contest window has {min} to {max} milestones, not {got}", min = limits::CONTEST_WINDOW_MILESTONES_MIN, max = limits::CONTEST_WINDOW_MILESTONES_MAX)]
    ContestWindow {
        /// Milestones given.
        got: u32,
    },
    /// The deposits together are too small.
    #[error("the deposits add up to {got}, at least {min} is needed")]
    Deposits {
        /// What they add up to.
        got: Amount,
        /// Twice the smallest output.
        min: Amount,
    },
    /// A party's key is no point of the curve, or both parties have the same.
    #[error("the parties of a channel have two different valid keys")]
    PartyKeys,
    /// A balance of another channel or of the closer's own lane.
    #[error("the balance is not of the other party's lane on this channel")]
    WrongLane,
    /// The balance carries conditional amounts.
    #[error("the balance carries locks, which this ledger does not know yet")]
    Locks,
    /// Ticks that are not of the balance's chain.
    #[error("the balance's ticks do not count: {0}")]
    Ticks(PaymentError),
    /// A top-up of nothing.
    #[error("a top-up adds at least 1i")]
    NothingAdded,
    /// More is withdrawn than the total after it.
    #[error("a withdraw of {amount} cannot bring the total to {total}")]
    WithdrawnTotal {
        /// What it pays.
        amount: Amount,
        /// All that was withdrawn, it included.
        total: Amount,
    },
}

impl Checked {
    /// Checks everything about a transaction that needs no ledger.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn new(transaction: Transaction, params: &NetworkParams) -> Result<Self, Invalid> {
        let checked = Self::formed(transaction, params, params.id())?;
        check_signatures(&checked.transaction, checked.id)?;
        Ok(checked)
    }

    /// Checks everything but the signatures.
    fn formed(transaction: Transaction, params: &NetworkParams, network: NetworkId) -> Result<Self, Invalid> {
        if transaction.essence.network != network {
            return Err(Invalid::Network);
        }
        check_form(&transaction.essence, params)?;
        let claimed = claim_of(&transaction.essence.action).map_or(Ok(Amount::ZERO), check_claim)?;
        let id = transaction.id();
        Ok(Self { transaction, id, channel_min: deposits_min(params), claimed })
    }

    /// Checks many at once, the same as each alone and several times faster.
    pub fn all(transactions: Vec<Transaction>, params: &NetworkParams) -> Vec<Result<Self, Invalid>> {
        // It hashes the whole genesis.
        let network = params.id();
        let mut checks = Vec::new();
        let formed: Vec<_> = transactions
            .into_iter()
            .map(|transaction| {
                let formed = Self::formed(transaction, params, network)?;
                checks.extend(signatures(&formed.transaction, formed.id)?);
                Ok(formed)
            })
            .collect();
        if checks.chunks(SIGNATURES_TOGETHER).all(verify_all) {
            return formed;
        }
        // Some are wrong: which ones is found one by one.
        let alone = |checked: Self| {
            check_signatures(&checked.transaction, checked.id)?;
            Ok(checked)
        };
        formed.into_iter().map(|formed| formed.and_then(alone)).collect()
    }

    /// The transaction.
    pub const fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// Its id.
    pub const fn id(&self) -> TransactionId {
        self.id
    }

    /// The least that a channel of the network may be left with while it goes on.
    pub(super) const fn channel_min(&self) -> Amount {
        self.channel_min
    }

    /// All that was paid on the lane by the balance and the ticks that it shows; nothing if it shows none.
    /// It is kept because it may take thousands of hashes to find.
    pub(super) const fn claimed(&self) -> Amount {
        self.claimed
    }
}

/// What a transaction shows of a lane.
fn claim_of(action: &Action) -> Option<&Claim> {
    match action {
        Action::UnilateralClose(close) => close.balance.as_ref(),
        Action::Claim(claim) => Some(claim),
        _ => None,
    }
}

/// Hashes by which the ticks that a transaction shows are checked.
pub(crate) fn tick_hashes(transaction: &Transaction) -> u32 {
    let ticks = claim_of(&transaction.essence.action).and_then(|claim| claim.ticks);
    ticks.map_or(0, |ticks| ticks.index.min(limits::TICKS_MAX))
}

fn check_form(essence: &Essence, params: &NetworkParams) -> Result<(), Invalid> {
    let (inputs, outputs) = match essence.action {
        Action::Transfer => ((1, limits::INPUTS_MAX), (1, limits::OUTPUTS_MAX)),
        Action::Open(_) | Action::TopUp(_) => ((1, limits::INPUTS_MAX), (0, limits::OUTPUTS_MAX)),
        Action::CooperativeClose(_) | Action::UnilateralClose(_) | Action::Claim(_) | Action::Withdraw(_) => {
            ((0, 0), (0, 0))
        }
    };
    let (got, (min, max)) = (essence.inputs.len(), inputs);
    if !(min..=max).contains(&got) {
        return Err(Invalid::Inputs { got, min, max });
    }
    let (got, (min, max)) = (essence.outputs.len(), outputs);
    if !(min..=max).contains(&got) {
        return Err(Invalid::Outputs { got, min, max });
    }
    let mut sorted = essence.inputs.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != essence.inputs.len() {
        return Err(Invalid::InputTwice);
    }
    if let Some(small) = essence.outputs.iter().find(|output| output.amount < params.output_min) {
        return Err(Invalid::OutputBelowMinimum(small.amount));
    }
    let within_supply = |sum: Option<Amount>| sum.filter(|sum| *sum <= Amount::SUPPLY).ok_or(Invalid::Supply);
    let outputs = within_supply(Amount::checked_sum(essence.outputs.iter().map(|output| output.amount)))?;
    match &essence.action {
        Action::Transfer | Action::Claim(_) => Ok(()),
        Action::Open(open) => {
            let deposits = within_supply(open.party_a.deposit.checked_add(open.party_b.deposit))?;
            within_supply(outputs.checked_add(deposits))?;
            check_open(open, deposits, params)
        }
        Action::CooperativeClose(close) => {
            within_supply(close.payout_a.checked_add(close.payout_b)).map(|_| ())
        }
        Action::UnilateralClose(close) => match &close.balance {
            Some(Claim { state, .. }) if state.channel != close.channel || state.payer == close.closer => {
                Err(Invalid::WrongLane)
            }
            _ => Ok(()),
        },
        Action::TopUp(top_up) if top_up.amount.is_zero() => Err(Invalid::NothingAdded),
        Action::TopUp(top_up) => within_supply(outputs.checked_add(top_up.amount)).map(|_| ()),
        Action::Withdraw(withdraw) => check_withdraw(withdraw, params),
    }
}

fn check_withdraw(withdraw: &Withdraw, params: &NetworkParams) -> Result<(), Invalid> {
    let Withdraw { amount, total, .. } = *withdraw;
    if amount < params.output_min || amount.is_zero() {
        return Err(Invalid::OutputBelowMinimum(amount));
    }
    if total < amount { Err(Invalid::WithdrawnTotal { amount, total }) } else { Ok(()) }
}

fn check_open(open: &Open, deposits: Amount, params: &NetworkParams) -> Result<(), Invalid> {
    let window = limits::CONTEST_WINDOW_MILESTONES_MIN..=limits::CONTEST_WINDOW_MILESTONES_MAX;
    if !window.contains(&open.contest_window_milestones) {
        return Err(Invalid::ContestWindow { got: open.contest_window_milestones });
    }
    let min = deposits_min(params);
    if deposits < min {
        return Err(Invalid::Deposits { got: deposits, min });
    }
    let usable = |key: PublicKey| key.verifier().is_some();
    if open.party_a.key == open.party_b.key || !usable(open.party_a.key) || !usable(open.party_b.key) {
        return Err(Invalid::PartyKeys);
    }
    Ok(())
}

/// The least that both deposits of a channel add up to: its payouts may be of any size, so this bounds
/// the dust that closing leaves behind.
pub fn deposits_min(params: &NetworkParams) -> Amount {
    params.output_min.checked_mul(2).unwrap_or(Amount::MAX)
}

/// What a claim says was paid on its lane.
fn check_claim(claim: &Claim) -> Result<Amount, Invalid> {
    if claim.state.locks_root != Hash::ZERO {
        return Err(Invalid::Locks);
    }
    claim.state.ticks.check_form().map_err(|error| Invalid::Ticks(error.into()))?;
    claim.total().map_err(Invalid::Ticks)
}

/// What every unlock's key must have signed, and its signature. Whether the keys are the right ones only the
/// ledger can tell.
fn signatures(
    transaction: &Transaction,
    id: TransactionId,
) -> Result<impl Iterator<Item = (PublicKey, Hash, Signature)> + '_, Invalid> {
    let essence = &transaction.essence;
    let of_id = Hash::new(*id.as_bytes());
    let of_balance = |claim: &Claim| claim.state.signing_hash(essence.network);
    let mut hashes = vec![of_id; essence.inputs.len()];
    match &essence.action {
        Action::Transfer | Action::Open(_) => {}
        Action::CooperativeClose(_) | Action::Withdraw(_) => hashes.extend([of_id, of_id]),
        Action::TopUp(_) => hashes.push(of_id),
        Action::UnilateralClose(close) => {
            hashes.push(of_id);
            hashes.extend(close.balance.as_ref().map(of_balance));
        }
        Action::Claim(claim) => hashes.push(of_balance(claim)),
    }
    if transaction.unlocks.len() != hashes.len() {
        return Err(Invalid::Unlocks { got: transaction.unlocks.len(), wanted: hashes.len() });
    }
    Ok(transaction.unlocks.iter().zip(hashes).map(|(unlock, hash)| (unlock.key, hash, unlock.signature)))
}

fn check_signatures(transaction: &Transaction, id: TransactionId) -> Result<(), Invalid> {
    let mut checks = signatures(transaction, id)?;
    match checks.position(|(key, hash, signature)| !key.verify(&hash, &signature)) {
        Some(bad) => Err(Invalid::Signature(bad)),
        None => Ok(()),
    }
}

/// The unlocks of an action, after those of the inputs.
pub(super) fn action_unlocks(transaction: &Transaction) -> &[Unlock] {
    transaction.unlocks.get(transaction.essence.inputs.len()..).unwrap_or_default()
}
