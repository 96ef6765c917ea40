//! Which outputs are the wallet's, which of them are promised, and what to spend.

use std::collections::{BTreeMap, HashMap, HashSet};

use bincode::{Decode, Encode};
use flash_proto::{
    Action, Address, Amount, Essence, NetworkParams, Output, OutputId, SecretKey, Transaction, TransactionId,
    Unlock, codec, limits::FUNDING_INPUTS_MAX, message::Funding, transaction::commit_inputs,
};

use super::{Account, Seed, WalletError};

/// Addresses beyond the last used one that are watched.
pub const GAP: u32 = 20;
/// Keys of an account: the steps of a path have 31 bits.
const KEYS_MAX: u32 = 1 << 31;
/// Bytes of a stored wallet: room for some hundred thousand outputs.
const RECORD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Names a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ReservationId(u64);

/// Outputs that are promised to a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Reservation {
    inputs: Vec<OutputId>,
    /// Past this milestone they are free again.
    expiry_milestone: u64,
    /// The transaction, once it is known.
    transaction: Option<TransactionId>,
}

/// All of a wallet but its seed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct State {
    /// Address 0, to know a record of another seed.
    first: Address,
    /// The lowest money key that nobody was given the address of.
    next_money: u32,
    next_channel: u32,
    next_reservation: u64,
    /// The milestone of `unspent`.
    milestone_index: u64,
    unspent: BTreeMap<OutputId, Output>,
    reserved: BTreeMap<ReservationId, Reservation>,
}

/// What became of the wallet's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalletEvent {
    /// A new output at one of the wallet's addresses; change is one too.
    Received {
        /// Its id.
        id: OutputId,
        /// Where and how much.
        output: Output,
    },
    /// An output is gone: spent.
    Spent {
        /// Its id.
        id: OutputId,
        /// Where and how much it was.
        output: Output,
    },
}

/// Outputs to spend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The outputs, at most [`FUNDING_INPUTS_MAX`].
    pub inputs: Vec<Funding>,
    /// What they hold beyond what is needed: nothing, or at least the network's smallest output.
    pub change: Amount,
}

/// What a party brings to a channel: outputs that are reserved for it, and what comes back at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Funded {
    /// For [`Wallet::bind`] or [`Wallet::cancel`].
    pub reservation: ReservationId,
    /// The outputs.
    pub inputs: Vec<Funding>,
    /// The change, at a fresh address.
    pub change: Option<Output>,
}

/// A wallet: pure, does not talk to anybody.
///
/// The caller stores [`Wallet::record`] after every call that takes `&mut self` and before anything that
/// the call returned leaves the machine: then no address is given out twice and no output is promised
/// twice, whenever the machine stops.
///
/// ```
/// use flash_node_client::wallet::{Seed, Wallet};
/// let words = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
/// let seed = Seed::from_words(words, "")?;
/// let mut wallet = Wallet::new(seed.clone());
/// let first = wallet.fresh_address()?;
/// let record = wallet.record(); // stored before `first` is shown to anybody
/// assert_ne!(Wallet::from_record(seed, &record)?.fresh_address()?, first);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Wallet {
    seed: Seed,
    state: State,
    /// The addresses that are watched, with the numbers of their keys.
    numbers: HashMap<Address, u32>,
    /// The same in order.
    addresses: Vec<Address>,
}

impl Wallet {
    /// A wallet of this seed that has never been used. For one that has, from words alone, see
    /// [`Wallet::watch_until`].
    pub fn new(seed: Seed) -> Self {
        let state = State {
            first: address(&seed, 0),
            next_money: 0,
            next_channel: 0,
            next_reservation: 0,
            milestone_index: 0,
            unspent: BTreeMap::new(),
            reserved: BTreeMap::new(),
        };
        Self::with_state(seed, state)
    }

    /// The wallet that gave this record.
    ///
    /// # Errors
    /// [`WalletError::Record`], [`WalletError::OtherSeed`].
    pub fn from_record(seed: Seed, record: &[u8]) -> Result<Self, WalletError> {
        let state: State = codec::decode::<_, RECORD_BYTES_MAX>(record)?;
        if state.first != address(&seed, 0) {
            return Err(WalletError::OtherSeed);
        }
        Ok(Self::with_state(seed, state))
    }

    fn with_state(seed: Seed, state: State) -> Self {
        let mut wallet = Self { seed, state, numbers: HashMap::new(), addresses: Vec::new() };
        wallet.watch_until(0);
        wallet
    }

    /// All that must be stored, without the seed.
    pub fn record(&self) -> Vec<u8> {
        codec::encode(&self.state)
    }

    /// An address that was never given out. Every receipt and every change has its own.
    ///
    /// # Errors
    /// [`WalletError::Exhausted`].
    pub fn fresh_address(&mut self) -> Result<Address, WalletError> {
        let number = self.state.next_money;
        self.state.next_money = next(number)?;
        self.watch_until(0);
        Ok(address(&self.seed, number))
    }

    /// The addresses to watch: all that were given out, and at least [`GAP`] more.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Watches at least so many addresses: to find the money of a wallet of which only the words are left.
    /// The ledger shows unspent outputs only, so the money may lie behind many addresses that are empty
    /// by now. After the outputs at [`Wallet::addresses`] were observed, all addresses up to the last one
    /// found are taken as given out, and the ones to watch reach further; look again until no more come.
    pub fn watch_until(&mut self, count: u32) {
        let wanted = self.state.next_money.saturating_add(GAP).max(count).min(KEYS_MAX);
        let known = u32::try_from(self.addresses.len()).unwrap_or(KEYS_MAX);
        for number in known..wanted {
            let address = address(&self.seed, number);
            self.numbers.insert(address, number);
            self.addresses.push(address);
        }
    }

    /// Takes over what is unspent at [`Wallet::addresses`] at a milestone: all of it. Frees what is
    /// reserved past its expiry or for a transaction that can no longer come, because an input is spent.
    /// A list of an older milestone than the last one changes nothing.
    ///
    /// # Errors
    /// [`WalletError::Supply`].
    pub fn observe(
        &mut self,
        milestone_index: u64,
        outputs: impl IntoIterator<Item = (OutputId, Output)>,
    ) -> Result<Vec<WalletEvent>, WalletError> {
        if milestone_index < self.state.milestone_index {
            return Ok(Vec::new());
        }
        let ours = |(_, output): &(OutputId, Output)| self.numbers.contains_key(&output.address);
        let unspent: BTreeMap<OutputId, Output> = outputs.into_iter().filter(ours).collect();
        let sum = Amount::checked_sum(unspent.values().map(|output| output.amount));
        sum.filter(|sum| *sum <= Amount::SUPPLY).ok_or(WalletError::Supply)?;

        let used = unspent.values().filter_map(|output| self.numbers.get(&output.address)).max().copied();
        let after_used = used.map_or(0, |number| number.saturating_add(1));
        self.state.next_money = self.state.next_money.max(after_used);
        self.state.milestone_index = milestone_index;
        let before = std::mem::replace(&mut self.state.unspent, unspent);
        self.watch_until(0);
        let State { unspent, reserved, .. } = &mut self.state;
        reserved.retain(|_, reservation| {
            let possible = reservation.inputs.iter().all(|id| unspent.contains_key(id));
            possible && milestone_index <= reservation.expiry_milestone
        });
        let spent = before.iter().filter(|(id, _)| !unspent.contains_key(id));
        let received = unspent.iter().filter(|(id, _)| !before.contains_key(id));
        let spent = spent.map(|(id, output)| WalletEvent::Spent { id: *id, output: *output });
        let received = received.map(|(id, output)| WalletEvent::Received { id: *id, output: *output });
        Ok(spent.chain(received).collect())
    }

    /// The milestone of the last observation.
    pub const fn milestone_index(&self) -> u64 {
        self.state.milestone_index
    }

    /// The confirmed money that can be spent.
    pub fn available(&self) -> Amount {
        sum(self.free().into_iter().map(|funding| funding.output))
    }

    /// The confirmed money that is reserved.
    pub fn reserved(&self) -> Amount {
        let reserved = self.reserved_ids();
        sum(self.state.unspent.iter().filter(|(id, _)| reserved.contains(id)).map(|(_, output)| *output))
    }

    /// The unspent outputs and whether each is reserved.
    pub fn outputs(&self) -> impl Iterator<Item = (Funding, bool)> + '_ {
        let reserved = self.reserved_ids();
        let unspent = self.state.unspent.iter();
        unspent.map(move |(id, output)| (Funding { id: *id, output: *output }, reserved.contains(id)))
    }

    fn reserved_ids(&self) -> HashSet<OutputId> {
        self.state.reserved.values().flat_map(|reservation| reservation.inputs.iter().copied()).collect()
    }

    /// Unreserved outputs, the largest first; equal ones by id.
    fn free(&self) -> Vec<Funding> {
        let free = self.outputs().filter_map(|(funding, reserved)| (!reserved).then_some(funding));
        let mut free: Vec<Funding> = free.collect();
        free.sort_by_key(|funding| (std::cmp::Reverse(funding.output.amount), funding.id));
        free
    }

    /// Chooses what to spend for `amount`: the largest outputs first, as few as will do, so that what is
    /// left over is nothing or large enough for an output. Reserves nothing.
    ///
    /// # Errors
    /// [`WalletError::Insufficient`], [`WalletError::TooManyInputs`], [`WalletError::ChangeTooSmall`].
    pub fn select(&self, amount: Amount, params: &NetworkParams) -> Result<Selection, WalletError> {
        let (mut inputs, mut all) = (Vec::new(), Amount::ZERO);
        let min = params.output_min;
        let mut free = self.free().into_iter();
        loop {
            let change = all.checked_sub(amount);
            if let Some(change) = change.filter(|change| change.is_zero() || *change >= min) {
                return Ok(Selection { inputs, change });
            }
            let more = if inputs.len() < FUNDING_INPUTS_MAX { free.next() } else { None };
            match (more, change) {
                (Some(funding), _) => {
                    all = all.checked_add(funding.output.amount).ok_or(WalletError::Supply)?;
                    inputs.push(funding);
                }
                (None, Some(change)) => {
                    return Err(WalletError::ChangeTooSmall { wanted: amount, change, min, all });
                }
                (None, None) if self.available() < amount => {
                    let available = self.available();
                    return Err(WalletError::Insufficient { wanted: amount, available });
                }
                (None, None) => return Err(WalletError::TooManyInputs { wanted: amount, largest: all }),
            }
        }
    }

    /// A signed transfer of `amount` to `to`. Its inputs are reserved until past milestone
    /// `expiry_milestone`; a transfer itself never expires, so by then it must be applied or given up.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn transfer(
        &mut self,
        to: Address,
        amount: Amount,
        params: &NetworkParams,
        expiry_milestone: u64,
    ) -> Result<Transaction, WalletError> {
        let min = params.output_min;
        if amount < min {
            return Err(WalletError::BelowMinimum { got: amount, min });
        }
        let Selection { inputs, change } = self.select(amount, params)?;
        let change = self.change(change)?;
        let spent: Vec<Output> = inputs.iter().map(|funding| funding.output).collect();
        let outputs = [Output { address: to, amount }].into_iter().chain(change).collect();
        let essence = Essence {
            network: params.id(),
            inputs: inputs.iter().map(|funding| funding.id).collect(),
            inputs_commitment: commit_inputs(&spent),
            outputs,
            action: Action::Transfer,
        };
        let unlocks = self.unlocks(&essence, &inputs)?;
        self.reserve(&inputs, expiry_milestone, Some(essence.id()));
        Ok(Transaction { essence, unlocks })
    }

    /// Outputs for a channel's deposit, reserved until past milestone `expiry_milestone`, which must not be
    /// before the Open's own.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn fund(
        &mut self,
        deposit: Amount,
        params: &NetworkParams,
        expiry_milestone: u64,
    ) -> Result<Funded, WalletError> {
        let Selection { inputs, change } = self.select(deposit, params)?;
        let change = self.change(change)?;
        let reservation = self.reserve(&inputs, expiry_milestone, None);
        Ok(Funded { reservation, inputs, change })
    }

    fn change(&mut self, amount: Amount) -> Result<Option<Output>, WalletError> {
        if amount.is_zero() {
            return Ok(None);
        }
        Ok(Some(Output { address: self.fresh_address()?, amount }))
    }

    fn reserve(
        &mut self,
        inputs: &[Funding],
        expiry_milestone: u64,
        transaction: Option<TransactionId>,
    ) -> ReservationId {
        let taken = self.reserved_ids();
        assert!(inputs.iter().all(|funding| !taken.contains(&funding.id)), "no output is promised twice");
        let id = ReservationId(self.state.next_reservation);
        self.state.next_reservation = self.state.next_reservation.wrapping_add(1);
        let inputs = inputs.iter().map(|funding| funding.id).collect();
        self.state.reserved.insert(id, Reservation { inputs, expiry_milestone, transaction });
        id
    }

    /// Names the transaction of a reservation, once both parties have agreed on it.
    pub fn bind(&mut self, reservation: ReservationId, transaction: TransactionId) {
        if let Some(reservation) = self.state.reserved.get_mut(&reservation) {
            reservation.transaction = Some(transaction);
        }
    }

    /// Gives a reservation up. Only for what nobody else can put on the ledger.
    pub fn cancel(&mut self, reservation: ReservationId) {
        self.state.reserved.remove(&reservation);
    }

    /// Gives up what is reserved for a transaction: the ledger has rejected it.
    pub fn release(&mut self, transaction: TransactionId) {
        self.state.reserved.retain(|_, reservation| reservation.transaction != Some(transaction));
    }

    /// Signs the spending of own outputs by a transaction, in the order of `funding`.
    ///
    /// # Errors
    /// [`WalletError::NotOurs`], [`WalletError::OtherInputs`].
    pub fn unlocks(&self, essence: &Essence, funding: &[Funding]) -> Result<Vec<Unlock>, WalletError> {
        let unlock = |funding: &Funding| {
            if !essence.inputs.contains(&funding.id) {
                return Err(WalletError::OtherInputs(essence.id()));
            }
            let address = funding.output.address;
            let number = self.numbers.get(&address).ok_or(WalletError::NotOurs(address))?;
            Ok(essence.unlock(&self.seed.key(Account::Money, 0, *number)))
        };
        funding.iter().map(unlock).collect()
    }

    /// The number of a key that no channel has used.
    ///
    /// # Errors
    /// [`WalletError::Exhausted`].
    pub fn fresh_channel_key(&mut self) -> Result<u32, WalletError> {
        let number = self.state.next_channel;
        self.state.next_channel = next(number)?;
        Ok(number)
    }

    /// A channel's key by its number.
    pub fn channel_key(&self, number: u32) -> SecretKey {
        self.seed.key(Account::Channels, 0, number)
    }

    /// The key by which peers and nodes know this machine.
    pub fn node_key(&self) -> SecretKey {
        self.seed.key(Account::Node, 0, 0)
    }
}

fn address(seed: &Seed, number: u32) -> Address {
    Address::of(&seed.key(Account::Money, 0, number).public())
}

fn next(number: u32) -> Result<u32, WalletError> {
    number.checked_add(1).filter(|next| *next <= KEYS_MAX).ok_or(WalletError::Exhausted)
}

/// What was observed holds the supply at most.
fn sum(outputs: impl Iterator<Item = Output>) -> Amount {
    Amount::checked_sum(outputs.map(|output| output.amount)).unwrap_or(Amount::SUPPLY)
}
