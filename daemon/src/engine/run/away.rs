//! Channels that are away, because bulk is worked on in them ([`super::super::bulk`]), and what comes for them meanwhile.
//! Whatever it is waits until the channel is back, and is taken in the order in which it came.

use std::collections::{HashMap, VecDeque};

use flash_channel::{machine::LedgerView, store::StoreError};
use flash_proto::ChannelId;

use super::{
    super::{
        Command,
        bulk::{Bulk, Work, Worked},
    },
    EngineTask,
};

/// While commands of so many bytes wait for channels that are away no others are taken.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a command takes besides the payments that it brings, at most.
const COMMAND_BYTES: usize = 1024;

/// What came for a channel that is away.
#[derive(Debug)]
enum Later {
    Command(Command),
    Durable,
    Milestone { index: u64, view: Option<LedgerView> },
    Doubt,
}

/// The channels that are away.
#[derive(Default)]
pub(super) struct Away {
    channels: HashMap<ChannelId, VecDeque<Later>>,
    /// Bytes of all commands that wait.
    bytes: usize,
}

impl Away {
    pub(super) const fn is_crowded(&self) -> bool {
        self.bytes >= WAITING_BYTES_MAX
    }

    /// Has the channel seen at this milestone. False if it is not away.
    pub(super) fn proven(&mut self, id: ChannelId, view: LedgerView) -> bool {
        let later = self.channels.get_mut(&id);
        later.map(|later| later.push_back(Later::Milestone { index: view.index, view: Some(view) })).is_some()
    }

    /// All that are away have seen a milestone that does not name them.
    pub(super) fn milestone(&mut self, index: u64) {
        self.channels.values_mut().for_each(|later| later.push_back(Later::Milestone { index, view: None }));
    }

    /// Nothing of what waits is to be signed before all that are away doubt their records.
    pub(super) fn doubt(&mut self) {
        self.channels.values_mut().for_each(|later| later.push_front(Later::Doubt));
    }
}

fn bytes_of(command: &Command) -> usize {
    command.payments_bytes().saturating_add(COMMAND_BYTES)
}

impl EngineTask {
    /// Takes a command. Where its channel is away it waits, and where it is bulk its channel goes away with it.
    pub(in super::super) fn take(&mut self, command: Command, touched: &mut Vec<ChannelId>) {
        let Some(id) = command.channel() else { return self.command(command, touched) };
        if let Some(later) = self.away.channels.get_mut(&id) {
            self.away.bytes = self.away.bytes.saturating_add(bytes_of(&command));
            later.push_back(Later::Command(command));
            return;
        }
        let bulk = match command {
            command if !command.is_bulk() || self.slot(id).is_none() => {
                return self.command(command, touched);
            }
            Command::Message { number, message, room, .. } => Bulk::Message { number, message, room },
            Command::Pay { order, .. } => Bulk::Pay(order),
            command => return self.command(command, touched),
        };
        self.send_away(id, bulk);
    }

    /// Sends a channel away with what is to be done.
    pub(super) fn send_away(&mut self, id: ChannelId, bulk: Bulk) {
        if let Some(slot) = self.slots.remove(&id) {
            self.away.channels.insert(id, VecDeque::new());
            // Refused only when the threads have died, which ends the daemon.
            let _ = self.work.send(Work { slot, bulk, tip: self.tip });
        }
    }

    /// A channel is back. What came for it meanwhile is taken, until it goes away again.
    pub(in super::super) fn back(
        &mut self,
        worked: Worked,
        touched: &mut Vec<ChannelId>,
    ) -> Result<(), StoreError> {
        let Worked { mut slot, job, result } = worked;
        let id = slot.channel.id();
        slot.count(&self.metrics);
        self.jobs.extend(job);
        self.slots.insert(id, slot);
        touched.push(id);
        let mut later = self.away.channels.remove(&id).unwrap_or_default();
        self.heard(id, result, touched);
        self.slot(id); // what it thinks of the ledger's age counts again
        while let Some(next) = later.pop_front() {
            match next {
                Later::Command(command) => {
                    self.away.bytes = self.away.bytes.saturating_sub(bytes_of(&command));
                    self.take(command, touched);
                }
                Later::Durable => self.durable(id, touched)?,
                Later::Milestone { index, view } => self.at_milestone(id, index, view, touched),
                Later::Doubt => {
                    if let Some(slot) = self.slots.get_mut(&id).filter(|slot| slot.is_live()) {
                        slot.doubt();
                    }
                }
            }
            if let Some(gone) = self.away.channels.get_mut(&id) {
                *gone = later;
                break;
            }
        }
        Ok(())
    }

    /// A job of this channel is on the disk.
    pub(super) fn durable(&mut self, id: ChannelId, touched: &mut Vec<ChannelId>) -> Result<(), StoreError> {
        if let Some(later) = self.away.channels.get_mut(&id) {
            later.push_back(Later::Durable);
        } else if let Some(slot) = self.slots.get_mut(&id) {
            slot.durable(self.records.store.as_ref())?;
            touched.push(id);
        }
        Ok(())
    }
}
