//! Finding outputs by their address in a few bytes for each: the set holds only the beginnings of addresses and
//! transaction ids, and points to outputs that are then looked at.

use std::collections::BTreeSet;

use flash_proto::{Address, Output, OutputId, TransactionId};

use super::outputs::Outputs;

/// Bytes of the beginning of an address and of a transaction id: enough that others hardly ever begin alike.
/// Where they do, that costs a look and nothing else.
const START_BYTES: usize = 6;

type Start = [u8; START_BYTES];

/// Where the outputs of each address are.
#[derive(Clone, Debug, Default)]
pub(super) struct ByAddress(BTreeSet<(Start, Start)>);

fn start(bytes: &[u8; 32]) -> Start {
    bytes.first_chunk().copied().unwrap_or_default()
}

/// The outputs of all transactions whose ids begin so, in rising order.
fn made_by(outputs: &Outputs, first: Start) -> impl Iterator<Item = &(OutputId, Output)> {
    let mut from = [0; 32];
    from.iter_mut().zip(first).for_each(|(to, byte)| *to = byte);
    outputs
        .range_from(OutputId { transaction: TransactionId::new(from), index: 0 })
        .take_while(move |(id, _)| start(id.transaction.as_bytes()) == first)
}

impl ByAddress {
    pub(super) fn of(outputs: &Outputs) -> Self {
        let starts = |(id, output): &(OutputId, Output)| {
            (start(output.address.as_bytes()), start(id.transaction.as_bytes()))
        };
        Self(outputs.iter().map(starts).collect())
    }

    /// There is a new output.
    pub(super) fn add(&mut self, address: &Address, id: &OutputId) {
        self.0.insert((start(address.as_bytes()), start(id.transaction.as_bytes())));
    }

    /// An output is gone; `outputs` are those that are left.
    pub(super) fn remove(&mut self, address: &Address, id: &OutputId, outputs: &Outputs) {
        let (at, by) = (start(address.as_bytes()), start(id.transaction.as_bytes()));
        if !made_by(outputs, by).any(|(_, output)| start(output.address.as_bytes()) == at) {
            self.0.remove(&(at, by));
        }
    }

    /// The outputs at an address from the first id above `after`, in rising order.
    pub(super) fn outputs_after<'a>(
        &'a self,
        outputs: &'a Outputs,
        address: Address,
        after: Option<OutputId>,
    ) -> impl Iterator<Item = (OutputId, Output)> + 'a {
        let at = start(address.as_bytes());
        let first = after.map_or([0; START_BYTES], |id| start(id.transaction.as_bytes()));
        let found = self.0.range((at, first)..).take_while(move |(found, _)| *found == at);
        found
            .flat_map(|(_, by)| made_by(outputs, *by))
            .filter(move |(id, output)| output.address == address && Some(*id) > after)
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use flash_proto::Amount;

    use super::*;

    fn address(start: u8, end: u8) -> Address {
        let mut bytes = [start; 32];
        bytes[31] = end;
        Address::new(bytes)
    }

    fn id(start: u8, end: u8, index: u16) -> OutputId {
        let mut bytes = [start; 32];
        bytes[31] = end;
        OutputId { transaction: TransactionId::new(bytes), index }
    }

    #[test]
    fn outputs_are_found_also_where_ids_and_addresses_begin_alike() {
        let (mut outputs, mut found) = (Outputs::default(), ByAddress::default());
        let all: Vec<_> = [(1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0), (2, 0, 9), (255, 255, 3)]
            .into_iter()
            .map(|(start, end, index)| (id(start, end, index), address(3, u8::from(index > 0))))
            .collect();
        for (id, address) in all.iter().rev() {
            outputs.set(*id, Some(Output { address: *address, amount: Amount::new(1) }), 1);
            found.add(address, id);
        }
        let check = |outputs: &Outputs, found: &ByAddress| {
            assert_eq!(found.0, ByAddress::of(outputs).0);
            for address in [address(3, 0), address(3, 1), address(4, 0)] {
                let wanted = outputs.iter().filter(|(_, output)| output.address == address);
                let wanted: Vec<_> = wanted.copied().collect();
                let after = |after| found.outputs_after(outputs, address, after).collect::<Vec<_>>();
                assert_eq!(after(None), wanted);
                for (place, (id, _)) in wanted.iter().enumerate() {
                    assert_eq!(after(Some(*id)), wanted[place + 1..]);
                }
            }
        };
        check(&outputs, &found);
        for (id, address) in &all {
            outputs.set(*id, None, 2);
            found.remove(address, id, &outputs);
            check(&outputs, &found);
        }
        assert!(found.0.is_empty());
    }
}
