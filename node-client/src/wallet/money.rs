//! The wallet: which outputs are ours, which of them are reserved, and what to spend.
//!
//! It does nothing itself. What changed of it ([`Wallet::take_changes`]) must be durable before an address or a transaction
//! that it gave out is used, so that no address is given out twice and no output is promised twice across a crash.
//! Reservations are kept one by one, because thousands may be under way and each changes twice; outputs likewise, as
//! [`WalletEvent`]s come, because anybody may send any number of them; addresses, because to derive a million of them
//! again takes half a minute.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Range,
};

use bincode::{Decode, Encode};
use flash_proto::{
    Action, Address, Amount, Essence, NetworkParams, Output, OutputId, PublicKey, SecretKey, Transaction,
    TransactionId, Unlock,
    codec::{self, CodecError},
    limits,
    message::Funding,
    transaction::commit_inputs,
};
use thiserror::Error;

use super::{Account, Seed};

mod addresses;
#[cfg(test)]
mod tests;

use addresses::Addresses;

/// Addresses beyond the last one given out that are watched too: after a recovery from words nobody
/// knows which were given out.
const GAP: u32 = 20;
/// Addresses beyond those that are watched among which the payout of a channel is looked for.
const PAYOUT_SEARCH: u32 = 4_096;

/// Bytes of a wallet's record, which held all reservations once.
const RECORD_BYTES_MAX: usize = limits::RECORD_BYTES_MAX;
/// Bytes of a reservation's record.
const RESERVATION_BYTES_MAX: usize = 2 * 1024;

/// Of an output's id, and of all else in a reservation, as they are encoded.
const _: () = assert!(limits::FUNDING_INPUTS_MAX * 34 + 64 <= RESERVATION_BYTES_MAX, "it can be read again");

/// Money outside of channels.
#[derive(Debug)]
pub struct Wallet {
    seed: Seed,
    state: State,
    reservations: BTreeMap<u64, Reserved>,
    /// Of these, what is not written down yet as it is now.
    changed: BTreeSet<u64>,
    /// Our transactions that were not applied in the view before the last: of what they left over the last may not know yet.
    pending_before: BTreeSet<TransactionId>,
    /// Our unspent outputs as they were seen last.
    outputs: BTreeMap<OutputId, Output>,
    /// Those of them that are not reserved, the largest first.
    free: BTreeSet<(Reverse<Amount>, OutputId)>,
    /// Those given out, and [`GAP`] more.
    addresses: Addresses,
    /// How many addresses were given out when a reservation was made: what it leaves over goes to one of those after
    /// them. Reservations of an earlier life are not among these.
    given_before: BTreeMap<u64, u32>,
    /// The least of these before the last view.
    pending_since: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct State {
    next_address: u32,
    next_channel_key: u32,
    next_reservation: u64,
    seen_milestone: u64,
    /// None any more: those of a record from before each of them had one of its own.
    reservations: BTreeMap<u64, Reserved>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Reserved {
    inputs: BTreeSet<OutputId>,
    /// The transaction that spends them, once it is known.
    transaction: Option<TransactionId>,
    /// Past this milestone the transaction cannot be applied any more.
    expiry_milestone: Option<u64>,
}

impl Reserved {
    /// Whether the transaction can be applied no more after this milestone.
    fn is_past(&self, milestone_index: u64) -> bool {
        self.expiry_milestone.is_some_and(|expiry| expiry < milestone_index)
    }
}

/// Outputs that are promised to one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Names it in this wallet.
    pub id: u64,
    /// What is spent.
    pub funding: Vec<Funding>,
    /// What is left over: nothing, or at least the smallest output.
    pub change: Amount,
}

/// What is to be written down of a wallet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalletChanges {
    /// Its record, whole.
    pub record: Vec<u8>,
    /// Reservations by their numbers; one without a record is over.
    pub reservations: Vec<(u64, Option<Vec<u8>>)>,
    /// New addresses by their indices.
    pub addresses: Vec<(u32, Address)>,
}

/// What changed in the wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalletEvent {
    /// Money came.
    Received {
        /// The output.
        id: OutputId,
        /// What it holds, and where.
        output: Output,
        /// Whether it is what one of our own transactions left over.
        change: bool,
    },
    /// One of our outputs is spent.
    Spent {
        /// The output.
        id: OutputId,
        /// What it held.
        output: Output,
        /// Our own transaction that was to spend it, if there was one.
        by: Option<TransactionId>,
    },
}

/// Why money cannot be spent so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WalletError {
    /// Not enough that is ours and not reserved.
    #[error("{wanted} is more than the {available} that can be spent now")]
    Insufficient {
        /// What was to be spent.
        wanted: Amount,
        /// What can be.
        available: Amount,
    },
    /// Enough, but in more outputs than one transaction takes.
    #[error("{wanted} lies in more than {max} outputs; send yourself a part of it first", max = limits::FUNDING_INPUTS_MAX)]
    TooManyOutputs {
        /// What was to be spent.
        wanted: Amount,
    },
    /// What would be left over is too small for an output.
    #[error(
        "{left} would be left over, less than the smallest output of {min}; spend {left} more or {min} less"
    )]
    Change {
        /// What would be left over.
        left: Amount,
        /// The smallest output.
        min: Amount,
    },
    /// Less than the smallest output.
    #[error("{0} is less than the smallest output of {1}")]
    TooSmall(Amount, Amount),
    /// No more addresses or keys; there are 2^31.
    #[error("the wallet has given out all of its keys")]
    Exhausted,
}

impl Wallet {
    /// A wallet that has given out nothing yet.
    pub fn new(seed: Seed) -> Self {
        Self::with(seed, State::default(), BTreeMap::new(), BTreeMap::new(), Addresses::default())
    }

    /// The wallet of a record, with its reservations by their numbers, the outputs that were received and not spent, and
    /// its addresses, beginning with that of index 0. Addresses that are missing are derived.
    ///
    /// # Errors
    /// [`CodecError`]: it is no record of a wallet, or one of them none of a reservation.
    pub fn from_record(
        seed: Seed,
        record: &[u8],
        reservations: impl IntoIterator<Item = (u64, Vec<u8>)>,
        outputs: impl IntoIterator<Item = (OutputId, Output)>,
        addresses: Vec<Address>,
    ) -> Result<Self, CodecError> {
        let state = codec::decode::<State, RECORD_BYTES_MAX>(record)?;
        let decode = |(number, record): (u64, Vec<u8>)| {
            Ok((number, codec::decode::<Reserved, RESERVATION_BYTES_MAX>(&record)?))
        };
        let reservations = reservations.into_iter().map(decode).collect::<Result<_, CodecError>>()?;
        let addresses = Addresses::written(addresses);
        Ok(Self::with(seed, state, reservations, outputs.into_iter().collect(), addresses))
    }

    fn with(
        seed: Seed,
        mut state: State,
        mut reservations: BTreeMap<u64, Reserved>,
        outputs: BTreeMap<OutputId, Output>,
        addresses: Addresses,
    ) -> Self {
        let changed = state.reservations.keys().copied().collect();
        reservations.append(&mut state.reservations);
        let mut wallet = Self {
            seed,
            state,
            reservations,
            changed,
            pending_before: BTreeSet::new(),
            outputs,
            free: BTreeSet::new(),
            addresses,
            given_before: BTreeMap::new(),
            pending_since: u32::MAX,
        };
        wallet.watch();
        wallet.look_for_free();
        wallet
    }

    fn look_for_free(&mut self) {
        let reserved: HashSet<&OutputId> =
            self.reservations.values().flat_map(|reserved| &reserved.inputs).collect();
        let free = self.outputs.iter().filter(|(id, _)| !reserved.contains(id));
        self.free = free.map(|(id, output)| (Reverse(output.amount), *id)).collect();
    }

    /// What must be durable before anything that was given out is used: all that has changed since this was asked last.
    pub fn take_changes(&mut self) -> WalletChanges {
        let changed = std::mem::take(&mut self.changed);
        let reservation = |number| (number, self.reservations.get(&number).map(codec::encode));
        WalletChanges {
            record: codec::encode(&self.state),
            reservations: changed.into_iter().map(reservation).collect(),
            addresses: self.addresses.take_new(),
        }
    }

    fn watch(&mut self) {
        for index in self.addresses.count()..self.state.next_address.saturating_add(GAP) {
            self.addresses.push(Address::of(&self.seed.key(Account::Money, index).public()));
        }
    }

    /// An address that was never given out before.
    ///
    /// # Errors
    /// [`WalletError::Exhausted`].
    pub fn fresh_address(&mut self) -> Result<Address, WalletError> {
        let index = self.state.next_address;
        self.state.next_address =
            index.checked_add(1).filter(|next| *next < 1 << 31).ok_or(WalletError::Exhausted)?;
        self.watch();
        self.addresses.get(index).ok_or(WalletError::Exhausted)
    }

    /// Watches the first `count` addresses and gives none of them out again: after a recovery from words,
    /// when nobody knows how many were given out. Nor are as many channel keys: each came with an address.
    pub fn watch_until(&mut self, count: u32) {
        self.state.next_address = self.state.next_address.max(count.min(1 << 30));
        self.state.next_channel_key = self.state.next_channel_key.max(self.state.next_address);
        self.watch();
    }

    /// The keys of channels that were found on the ledger: these and the ones before them were given out, and
    /// so were the addresses that the channels pay out to, if they are found. Returns those that are not.
    pub fn found_channels(
        &mut self,
        indices: impl IntoIterator<Item = u32>,
        payouts: impl IntoIterator<Item = Address>,
    ) -> BTreeSet<Address> {
        let payouts: BTreeSet<Address> = payouts.into_iter().collect();
        let is_known = |address: &Address| self.addresses.index(address).is_some();
        let (known, mut missing): (BTreeSet<_>, BTreeSet<_>) = payouts.into_iter().partition(is_known);
        let mut used = known.iter().filter_map(|address| self.addresses.index(address)).max();
        let watched = self.addresses.count();
        for index in watched..watched.saturating_add(PAYOUT_SEARCH) {
            if missing.is_empty() {
                break;
            }
            if missing.remove(&Address::of(&self.seed.key(Account::Money, index).public())) {
                used = Some(index);
            }
        }
        if let Some(key) = indices.into_iter().max() {
            let next = key.saturating_add(1).min(1 << 30);
            self.state.next_channel_key = self.state.next_channel_key.max(next);
        }
        self.watch_until(used.map_or(0, |index| index.saturating_add(1)));
        missing
    }

    /// These channel keys, whether they were given out or not.
    pub fn channel_keys(&self, indices: Range<u32>) -> Vec<(u32, PublicKey)> {
        indices.map(|index| (index, self.channel_key(index).public())).collect()
    }

    /// The secret of a channel key, whether it was given out or not.
    pub fn channel_key(&self, index: u32) -> SecretKey {
        self.seed.key(Account::Channels, index)
    }

    /// How many channel keys were given out.
    pub const fn channel_keys_given(&self) -> u32 {
        self.state.next_channel_key
    }

    /// The index and the secret of a channel key that was never given out before.
    ///
    /// # Errors
    /// [`WalletError::Exhausted`].
    pub fn fresh_channel_key(&mut self) -> Result<(u32, SecretKey), WalletError> {
        let index = self.state.next_channel_key;
        self.state.next_channel_key =
            index.checked_add(1).filter(|next| *next < 1 << 31).ok_or(WalletError::Exhausted)?;
        Ok((index, self.channel_key(index)))
    }

    /// The addresses whose outputs are ours.
    pub fn addresses(&self) -> &[Address] {
        self.addresses.all()
    }

    /// Says that an output is to be at this address by now.
    pub fn expect(&mut self, address: Address) {
        self.addresses.expect(address);
    }

    /// The addresses of which the ledger is to be asked next: of those where something may have happened, and in turns of
    /// the others, so that of a few thousand it is asked each time.
    pub fn due(&mut self) -> Vec<Address> {
        let held = self.outputs.values().map(|output| output.address);
        self.addresses.due(self.pending_since.min(self.given_before_pending()), held)
    }

    /// How many addresses were given out before what is left over of any reservation goes to one.
    fn given_before_pending(&self) -> u32 {
        // The oldest one comes first.
        let oldest = self.reservations.keys().next();
        oldest.map_or(u32::MAX, |oldest| self.given_before.get(oldest).copied().unwrap_or(0))
    }

    /// All unspent outputs at these addresses, proven, those at each address after this milestone or a later one. Older
    /// views than the last are of no interest.
    pub fn observe(
        &mut self,
        milestone_index: u64,
        asked: &[Address],
        outputs: Vec<(OutputId, Output)>,
    ) -> Vec<WalletEvent> {
        if milestone_index < self.state.seen_milestone {
            return Vec::new();
        }
        self.state.seen_milestone = milestone_index;
        self.addresses.answered();
        let asked: HashSet<&Address> = asked.iter().collect();
        let others = self.outputs.iter().filter(|(_, output)| !asked.contains(&output.address));
        let mut now: BTreeMap<OutputId, Output> = others.map(|(id, output)| (*id, *output)).collect();
        now.extend(outputs.into_iter().filter(|(_, output)| self.addresses.index(&output.address).is_some()));
        self.keep_together(milestone_index, &mut now);
        let pending: BTreeSet<TransactionId> =
            self.reservations.values().filter_map(|reserved| reserved.transaction).collect();
        let before = std::mem::replace(&mut self.pending_before, pending.clone());
        let ours: BTreeSet<TransactionId> = pending.into_iter().chain(before).collect();
        let mut events = Vec::new();
        for (id, output) in &now {
            if !self.outputs.contains_key(id) {
                let change = ours.contains(&id.transaction);
                events.push(WalletEvent::Received { id: *id, output: *output, change });
            }
            let used = self.addresses.index(&output.address).map_or(0, |index| index.saturating_add(1));
            self.state.next_address = self.state.next_address.max(used);
        }
        let spending = |reserved: &Reserved| {
            let transaction = reserved.transaction;
            reserved.inputs.clone().into_iter().map(move |input| (input, transaction))
        };
        let spenders: HashMap<OutputId, Option<TransactionId>> =
            self.reservations.values().flat_map(spending).collect();
        for (id, output) in &self.outputs {
            if !now.contains_key(id) {
                let by = spenders.get(id).copied().flatten();
                events.push(WalletEvent::Spent { id: *id, output: *output, by });
            }
        }
        self.pending_since = self.given_before_pending();
        let changed = &mut self.changed;
        self.reservations.retain(|number, reserved| {
            let spent = reserved.inputs.iter().any(|input| !now.contains_key(input));
            let is_over = spent || reserved.is_past(milestone_index);
            if is_over {
                changed.insert(*number);
            }
            !is_over
        });
        self.given_before.retain(|number, _| self.reservations.contains_key(number));
        self.outputs = now;
        self.look_for_free();
        self.watch();
        events
    }

    /// A view of what was spent together may be older for one address than for another: as long as a part of it is there,
    /// all of it is as it was.
    fn keep_together(&self, milestone_index: u64, now: &mut BTreeMap<OutputId, Output>) {
        for reserved in self.reservations.values().filter(|reserved| !reserved.is_past(milestone_index)) {
            if reserved.inputs.iter().any(|id| now.contains_key(id)) {
                let known = reserved.inputs.iter().filter_map(|id| Some((*id, *self.outputs.get(id)?)));
                for (id, output) in known {
                    now.entry(id).or_insert(output);
                }
            }
        }
    }

    /// The milestone of the newest view.
    pub const fn seen_milestone(&self) -> u64 {
        self.state.seen_milestone
    }

    /// What can be spent now.
    pub fn available(&self) -> Amount {
        // Outputs of one ledger never add up to more than the supply.
        Amount::checked_sum(self.free.iter().map(|(Reverse(amount), _)| *amount)).unwrap_or(Amount::MAX)
    }

    /// What is promised to transactions that are not applied yet.
    pub fn reserved(&self) -> Amount {
        let all = Amount::checked_sum(self.outputs.values().map(|output| output.amount));
        all.and_then(|all| all.checked_sub(self.available())).unwrap_or(Amount::MAX)
    }

    /// Promises outputs of at least `amount` to a transaction, the largest first, so that what is left
    /// over is nothing or an output of its own.
    ///
    /// # Errors
    /// [`WalletError`]; nothing is reserved.
    pub fn reserve(
        &mut self,
        amount: Amount,
        output_min: Amount,
        expiry_milestone: Option<u64>,
    ) -> Result<Reservation, WalletError> {
        let (mut funding, mut sum) = (Vec::new(), Amount::ZERO);
        let fits =
            |sum: Amount| sum.checked_sub(amount).filter(|change| change.is_zero() || *change >= output_min);
        for (_, id) in &self.free {
            if fits(sum).is_some() {
                break;
            }
            let Some(output) = self.outputs.get(id).copied() else { continue };
            if funding.len() == limits::FUNDING_INPUTS_MAX {
                return Err(WalletError::TooManyOutputs { wanted: amount });
            }
            funding.push(Funding { id: *id, output });
            sum = sum.checked_add(output.amount).unwrap_or(sum);
        }
        let Some(change) = fits(sum) else {
            return Err(match sum.checked_sub(amount) {
                Some(left) => WalletError::Change { left, min: output_min },
                None => WalletError::Insufficient { wanted: amount, available: sum },
            });
        };
        let id = self.state.next_reservation;
        self.state.next_reservation = id.saturating_add(1);
        if !funding.is_empty() {
            for Funding { id, output } in &funding {
                self.free.remove(&(Reverse(output.amount), *id));
            }
            let inputs = funding.iter().map(|funding| funding.id).collect();
            self.reservations.insert(id, Reserved { inputs, transaction: None, expiry_milestone });
            self.given_before.insert(id, self.state.next_address);
            self.changed.insert(id);
        }
        Ok(Reservation { id, funding, change })
    }

    /// Says which transaction a reservation was for.
    pub fn spends(&mut self, reservation: u64, transaction: TransactionId) {
        if let Some(reserved) = self.reservations.get_mut(&reservation) {
            reserved.transaction = Some(transaction);
            self.changed.insert(reservation);
        }
    }

    /// Frees what was reserved: the transaction never left, or can never be applied.
    pub fn release(&mut self, reservation: u64) {
        let Some(released) = self.reservations.remove(&reservation) else { return };
        self.changed.insert(reservation);
        self.given_before.remove(&reservation);
        let held = released.inputs.iter().filter_map(|id| Some((*id, self.outputs.get(id)?)));
        self.free.extend(held.map(|(id, output)| (Reverse(output.amount), id)));
    }

    /// The unlocks of our funding in a transaction, in its order.
    pub fn unlocks(&self, essence: &Essence, funding: &[Funding]) -> Vec<Unlock> {
        let index = |funding: &Funding| self.addresses.index(&funding.output.address);
        let keys = funding.iter().filter_map(index).map(|index| self.seed.key(Account::Money, index));
        keys.map(|key| essence.unlock(&key)).collect()
    }

    /// A signed transfer; what is left over goes to a fresh address.
    ///
    /// # Errors
    /// [`WalletError`]; nothing is reserved.
    pub fn transfer(
        &mut self,
        to: Address,
        amount: Amount,
        params: &NetworkParams,
    ) -> Result<(Transaction, Reservation), WalletError> {
        if amount < params.output_min {
            return Err(WalletError::TooSmall(amount, params.output_min));
        }
        let reservation = self.reserve(amount, params.output_min, None)?;
        let mut outputs = vec![Output { address: to, amount }];
        if !reservation.change.is_zero() {
            outputs.push(Output { address: self.fresh_address()?, amount: reservation.change });
        }
        let spent: Vec<Output> = reservation.funding.iter().map(|funding| funding.output).collect();
        let essence = Essence {
            network: params.id(),
            inputs: reservation.funding.iter().map(|funding| funding.id).collect(),
            inputs_commitment: commit_inputs(&spent),
            outputs,
            action: Action::Transfer,
        };
        let unlocks = self.unlocks(&essence, &reservation.funding);
        self.spends(reservation.id, essence.id());
        Ok((Transaction { essence, unlocks }, reservation))
    }
}
