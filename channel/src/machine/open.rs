//! How two parties come to a channel: checks and signatures of the opening transaction, on both sides.

use flash_proto::{
    Address, Amount, Essence, NetworkId, Open, Output, Transaction, Unlock, limits,
    message::{OpenAccept, OpenParty, OpenProposal},
    transaction::Action,
};
use thiserror::Error;

/// Why a proposal, or the answer to one, is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Too many funding outputs.
    #[error("a party funds a channel with at most {max} outputs, not {got}", max = limits::FUNDING_INPUTS_MAX)]
    FundingCount {
        /// Outputs given.
        got: usize,
    },
    /// Funding, change and deposit do not add up.
    #[error("the peer's funding of {funding} is not its deposit and change")]
    FundingSum {
        /// What the funding adds up to.
        funding: Amount,
    },
    /// Not the deposit that was asked for.
    #[error("the peer would lock {got}, not {wanted}")]
    Deposit {
        /// What it would lock.
        got: Amount,
        /// What was asked for.
        wanted: Amount,
    },
    /// Both parties have the same key, or the peer's is not one.
    #[error("the peer's channel key cannot be used")]
    Key,
    /// One output funds both parties, or twice.
    #[error("an output funds the channel twice")]
    FundingTwice,
    /// Not one valid unlock for each of the peer's funding outputs.
    #[error("the peer's signatures over the opening are not valid")]
    Signatures,
}

/// Checks that a party's funding is its deposit and its change, to the unit.
fn check_party(party: &OpenParty) -> Result<(), OpenError> {
    if party.funding.len() > limits::FUNDING_INPUTS_MAX {
        return Err(OpenError::FundingCount { got: party.funding.len() });
    }
    let funding = Amount::checked_sum(party.funding.iter().map(|funding| funding.output.amount));
    let change = party.change.map_or(Amount::ZERO, |change: Output| change.amount);
    if funding.is_none() || funding != party.deposit.checked_add(change) {
        return Err(OpenError::FundingSum { funding: funding.unwrap_or(Amount::MAX) });
    }
    Ok(())
}

/// Checks what both parties make together; `theirs` is the peer's part.
fn check_pair(proposal: &OpenProposal, party_b: &OpenParty, theirs: &OpenParty) -> Result<(), OpenError> {
    check_party(&proposal.party_a)?;
    check_party(party_b)?;
    if proposal.party_a.key == party_b.key || theirs.key.verifier().is_none() {
        return Err(OpenError::Key);
    }
    let mut ids: Vec<_> =
        [&proposal.party_a, party_b].iter().flat_map(|party| party.funding.iter().map(|it| it.id)).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| matches!(pair, [left, right] if left == right)) {
        return Err(OpenError::FundingTwice);
    }
    Ok(())
}

/// Party B: checks a proposal, and gives the transaction that it and `party_b` make.
///
/// # Errors
/// [`OpenError`].
pub fn answer(
    network: NetworkId,
    proposal: &OpenProposal,
    party_b: &OpenParty,
) -> Result<Essence, OpenError> {
    check_pair(proposal, party_b, &proposal.party_a)?;
    Ok(proposal.essence(network, party_b))
}

/// Party A: checks the answer to its proposal, and gives the transaction that both make.
///
/// # Errors
/// [`OpenError`].
pub fn check_answer(
    network: NetworkId,
    proposal: &OpenProposal,
    accept: &OpenAccept,
) -> Result<Essence, OpenError> {
    let party_b = &accept.party_b;
    if party_b.deposit != proposal.deposit_b {
        return Err(OpenError::Deposit { got: party_b.deposit, wanted: proposal.deposit_b });
    }
    check_pair(proposal, party_b, party_b)?;
    let essence = proposal.essence(network, party_b);
    let hash = flash_proto::Hash::new(*essence.id().as_bytes());
    let valid = accept.unlocks.len() == party_b.funding.len()
        && accept.unlocks.iter().zip(&party_b.funding).all(|(unlock, funding)| {
            Address::of(&unlock.key) == funding.output.address && unlock.key.verify(&hash, &unlock.signature)
        });
    if valid { Ok(essence) } else { Err(OpenError::Signatures) }
}

/// The opening transaction from its essence, A's unlocks and B's.
pub fn transaction(essence: Essence, unlocks_a: Vec<Unlock>, unlocks_b: Vec<Unlock>) -> Transaction {
    Transaction { essence, unlocks: [unlocks_a, unlocks_b].concat() }
}

/// What an opening transaction opens.
pub const fn opened(essence: &Essence) -> Option<Open> {
    match essence.action {
        Action::Open(open) => Some(open),
        _ => None,
    }
}
