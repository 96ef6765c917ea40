//! A watchtower: the shell around the real rules, with a store and a view of the ledger of its own. What it does, and
//! what it answers when, follows the daemon's.

use std::{collections::BTreeMap, fmt};

use flash_channel::{
    machine::LedgerView,
    store::{Batch, Fault, MemoryStore, Store, StoreError},
    tower::{Answer, Limits, Tower, TowerError},
};
use flash_proto::{
    Action, ChannelId, Essence, NetworkId, PublicKey, SecretKey, Side, Signature, Transaction, TransactionId,
    Unlock,
    tower::{Claimable, TowerRefusal, TowerRefusalCode, TowerResponse, client_hash, receipt_hash},
};

use super::setup;

/// Balances that a lying tower remembers.
const ARCHIVE_MAX: usize = 64;

/// What a client asks, and by which of its questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Keep this.
    Keep(Box<Claimable>),
    /// Show what is held.
    Show,
}

/// An answer that waits for the disk.
#[derive(Debug)]
struct Pending {
    batch: Batch,
    /// For whom, to which question.
    answer: Option<(Side, u64, TowerResponse)>,
    /// What the channel needs on the ledger because of it.
    claims: Vec<Transaction>,
    /// By what the ledger showed at this milestone.
    told: u64,
    /// The milestone up to which the ledger was followed.
    checkpoint: u64,
}

/// What may happen now that it is on the disk.
#[derive(Default)]
pub(super) struct Told {
    pub(super) answers: Vec<(Side, u64, TowerResponse)>,
    pub(super) claims: Vec<Transaction>,
    /// By what the ledger showed at this milestone.
    pub(super) milestone: u64,
}

/// One tower.
pub(super) struct Watchtower {
    network: NetworkId,
    channel: ChannelId,
    key: SecretKey,
    lies: bool,
    store: MemoryStore,
    /// `None` while the process does not run.
    tower: Option<Tower>,
    pending: Vec<Pending>,
    pub(super) write_due: bool,
    /// The newest milestone that this process has.
    pub(super) seen: Option<u64>,
    /// At which the rules were told of the channel last.
    told: u64,
    /// Up to where the ledger was followed, on the disk: no node makes a tower go back behind it.
    pub(super) checkpoint: u64,
    pub(super) stale_until: u64,
    pub(super) paused_until: u64,
    pub(super) well_since: u64,
    pub(super) drops_in_a_row: u64,
    /// It never comes back.
    pub(super) gone: bool,
    /// What it submitted, and at which milestone last.
    pub(super) submitted: BTreeMap<TransactionId, u64>,
    /// What it was ever handed, if it lies.
    archive: Vec<(Side, Claimable)>,
}

/// The key of the machine of a side, by which a tower knows it.
pub(super) fn client_key(side: Side) -> PublicKey {
    SecretKey::from_bytes([side.byte() + 31; 32]).public()
}

/// What makes the machine of `client` the one that speaks for the side `of`.
pub(super) fn permit(network: NetworkId, channel: ChannelId, of: Side, client: Side) -> Signature {
    setup::channel_key(of).sign(&client_hash(network, channel, !of, &client_key(client)))
}

impl Watchtower {
    pub(super) fn new(network: NetworkId, channel: ChannelId, number: u8, lies: bool) -> Self {
        let mut watchtower = Self {
            network,
            channel,
            key: SecretKey::from_bytes([number + 41; 32]),
            lies,
            store: MemoryStore::new(),
            tower: None,
            pending: Vec::new(),
            write_due: false,
            seen: None,
            told: 0,
            checkpoint: 0,
            stale_until: 0,
            paused_until: 0,
            well_since: 0,
            drops_in_a_row: 0,
            gone: false,
            submitted: BTreeMap::new(),
            archive: Vec::new(),
        };
        watchtower.tower = watchtower.load().ok();
        watchtower
    }

    /// Another tower in the same state, with a disk of its own and nothing that waits for it.
    pub(super) fn fork(&self) -> Self {
        Self {
            key: self.key.clone(),
            store: self.store.snapshot(),
            tower: self.tower.clone(),
            pending: Vec::new(),
            submitted: self.submitted.clone(),
            archive: self.archive.clone(),
            ..*self
        }
    }

    /// Everything about it that can matter later, as text.
    pub(super) fn describe(&self, to: &mut dyn fmt::Write) -> fmt::Result {
        write!(to, "{:?}{:?}", self.tower, (self.seen, self.told, self.checkpoint))
    }

    /// The key by which clients know it.
    pub(super) fn key(&self) -> PublicKey {
        self.key.public()
    }

    pub(super) const fn lies(&self) -> bool {
        self.lies
    }

    pub(super) const fn is_up(&self) -> bool {
        self.tower.is_some()
    }

    pub(super) const fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    fn load(&self) -> Result<Tower, StoreError> {
        let key = self.key.clone();
        Tower::load(&self.store.reopen(), self.network, key, Limits::default())
    }

    /// The process starts again with what the store holds.
    pub(super) fn restart(&mut self) -> Result<(), StoreError> {
        self.store = self.store.reopen();
        self.tower = Some(self.load()?);
        Ok(())
    }

    /// The process dies.
    pub(super) fn crash(&mut self) {
        self.tower = None;
        self.pending.clear();
        self.seen = None;
        self.told = 0;
        self.submitted.clear();
    }

    /// What its disk holds of the lane of `payer`, `record` being any view in which the channel is there.
    pub(super) fn on_disk(&self, payer: Side, record: &LedgerView) -> Option<Claimable> {
        let permit = permit(self.network, self.channel, !payer, !payer);
        let shown = self.load().ok()?.show(client_key(!payer), self.channel, payer, &permit, Some(record));
        shown.ok().flatten()
    }

    /// A client asks; a lie is chosen by `chance`. The answer comes once what it says is on the disk.
    pub(super) fn asked(
        &mut self,
        (client, number): (Side, u64),
        question: &Question,
        proven: &LedgerView,
        chance: u64,
    ) {
        let permit = permit(self.network, self.channel, client, client);
        let (payer, mut batch) = (!client, Batch::new());
        let Some(tower) = &mut self.tower else { return };
        // Whoever proves something has the milestone of it.
        self.seen = self.seen.max(Some(proven.index));
        let told = &mut self.told;
        let key = client_key(client);
        let answered = match question {
            Question::Keep(newest) => {
                keep((tower, told), (key, &permit), newest, proven, &mut batch).map(|answer| match answer {
                    Answer::Holds(signature) => TowerResponse::Holds(signature),
                    Answer::Newer(newer) => TowerResponse::Newer(newer),
                })
            }
            Question::Show => tower
                .show(key, self.channel, payer, &permit, Some(proven))
                .map(|held| TowerResponse::Shown(held.map(Box::new))),
        };
        let claims = tower.wanted(self.channel);
        let honest = answered.unwrap_or_else(|error| {
            TowerResponse::Refused(TowerRefusal::new(error.code(), error.to_string()))
        });
        let response = if self.lies { self.lie(payer, question, honest, chance) } else { honest };
        let (checkpoint, told) = (self.checkpoint, self.told);
        let answer = Some((client, number, response));
        self.pending.push(Pending { batch, answer, claims, told, checkpoint });
    }

    /// What a tower says that wants to do harm.
    fn lie(&mut self, payer: Side, question: &Question, honest: TowerResponse, chance: u64) -> TowerResponse {
        if let Question::Keep(newest) = question
            && self.archive.len() < ARCHIVE_MAX
        {
            self.archive.push((payer, **newest));
        }
        let old = self.old(payer, chance / 8);
        match (chance % 8, question, old) {
            // It confirms, and shows and claims something older all the same.
            (0 | 1, Question::Keep(newest), _) => {
                TowerResponse::Holds(self.key.sign(&receipt_hash(self.network, newest)))
            }
            (2, Question::Keep(_), Some(old)) => {
                TowerResponse::Holds(self.key.sign(&receipt_hash(self.network, &old)))
            }
            (3, Question::Keep(_), Some(old)) => TowerResponse::Newer(Box::new(old)),
            (4, Question::Keep(newest), _) => {
                let mut forged = **newest;
                forged.balance.state.seq = forged.balance.state.seq.saturating_add(1);
                TowerResponse::Newer(Box::new(forged))
            }
            (0..=3, Question::Show, old) => TowerResponse::Shown(old.map(Box::new)),
            (4, Question::Show, _) => TowerResponse::Shown(None),
            (5, ..) => TowerResponse::Refused(TowerRefusal::new(TowerRefusalCode::Busy, "not now, not ever")),
            _ => honest,
        }
    }

    fn old(&self, payer: Side, which: u64) -> Option<Claimable> {
        let of: Vec<_> = self.archive.iter().filter(|(of, _)| *of == payer).collect();
        let at = usize::try_from(which).ok()?.checked_rem(of.len())?;
        of.get(at).map(|(_, old)| *old)
    }

    /// An old balance, for the ledger.
    pub(super) fn old_claim(&self, payer: Side, which: u64) -> Option<Transaction> {
        let old = self.old(payer, which)?;
        let essence = Essence::acting(self.network, Action::Claim(old.claim()));
        let unlock = Unlock { key: setup::channel_key(payer).public(), signature: old.balance.signature };
        Some(Transaction { essence, unlocks: vec![unlock] })
    }

    /// Somebody else than the payee's machine hands over `newest`; true if that was refused.
    pub(super) fn refuses_stranger(&mut self, newest: &Claimable, proven: &LedgerView) -> bool {
        let payee = !newest.balance.state.payer;
        // The payer itself, with its own signature and by its own machine's key.
        let named = client_hash(self.network, self.channel, !payee, &client_key(!payee));
        let permit = setup::channel_key(!payee).sign(&named);
        let Some(tower) = &mut self.tower else { return true };
        let mut batch = Batch::new();
        let kept = keep((tower, &mut self.told), (client_key(!payee), &permit), newest, proven, &mut batch);
        self.seen = self.seen.max(Some(proven.index));
        kept == Err(TowerError::NotThePayee) && batch.is_empty()
    }

    /// The ledger shows this. What waits to be claimed is claimed again until it need not be.
    pub(super) fn shown(&mut self, view: &LedgerView) {
        let Some(tower) = &mut self.tower else { return };
        self.seen = Some(view.index);
        self.told = self.told.max(view.index);
        let mut batch = Batch::new();
        tower.ledger(self.channel, view, &mut batch);
        let claims = tower.wanted(self.channel);
        let told = self.told;
        self.pending.push(Pending { batch, answer: None, claims, told, checkpoint: view.index });
    }

    /// Commits what waits; what it held back may happen now. An error is a crash.
    pub(super) fn write(&mut self, fault: Option<Fault>) -> Result<Told, StoreError> {
        let mut batch = Batch::new();
        for pending in &mut self.pending {
            batch.append(&mut pending.batch);
        }
        if let Some(fault) = fault.filter(|_| !batch.is_empty()) {
            self.store.fail_next(fault);
        }
        let _durable = self.store.commit(&batch)?;
        let mut told = Told::default();
        for pending in self.pending.drain(..) {
            self.checkpoint = self.checkpoint.max(pending.checkpoint);
            told.answers.extend(pending.answer);
            // What the newest of them says.
            (told.claims, told.milestone) = (pending.claims, pending.told);
        }
        Ok(told)
    }
}

/// Asks, and if the tower has not seen the channel on the ledger, shows it and asks again.
fn keep(
    (tower, told): (&mut Tower, &mut u64),
    (client, permit): (PublicKey, &Signature),
    newest: &Claimable,
    proven: &LedgerView,
    batch: &mut Batch,
) -> Result<Answer, TowerError> {
    match tower.keep(client, newest, permit, None, batch) {
        Err(TowerError::NotSeen) => {
            let answer = tower.keep(client, newest, permit, Some(proven), batch);
            if answer.is_ok() {
                *told = proven.index;
            }
            answer
        }
        answer => answer,
    }
}
