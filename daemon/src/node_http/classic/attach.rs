//! Attaching blocks to the Tangle, and taking them in.

use std::{collections::BTreeMap, net::IpAddr};

use flash_proto::{Block, BlockId, Payload, limits::BLOCK_BYTES_MAX};
use serde::{Deserialize, Serialize};

use super::{Api, Failed, form};
use flash_node_client::protocol::{Refused, RefusedCode};

/// Bits that a caller may ask for: more are not found in a lifetime.
const WORK_BITS_MAX: u8 = 64;
/// Blocks that one call attaches: each costs a proof of work.
const ATTACH_MAX: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AttachToTangle {
    trunk_transaction: String,
    branch_transaction: String,
    min_weight_magnitude: u64,
    trytes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Attached {
    trytes: Vec<String>,
}

/// Blocks to take in.
#[derive(Debug, Deserialize)]
pub(super) struct Blocks {
    trytes: Vec<String>,
}

impl Api {
    /// Puts the payloads of the given blocks into new ones and does their proof of work. The first approves
    /// trunk and branch, each further one the block before it and the trunk. The answer holds the last
    /// block first, as it always did.
    pub(super) async fn attach_to_tangle(&self, call: AttachToTangle) -> Result<Attached, Failed> {
        // Before anything else, so that an interruption from here on counts.
        let order = self.workshop.order();
        let trunk = BlockId::new(form::id("trunkTransaction", &call.trunk_transaction)?);
        let branch = BlockId::new(form::id("branchTransaction", &call.branch_transaction)?);
        let bits = self.work_bits(call.min_weight_magnitude)?;
        let payloads = payloads(&call.trytes)?;
        let mut attached: Vec<String> = Vec::with_capacity(payloads.len());
        let mut parents = vec![trunk, branch];
        for payload in payloads {
            let block = Block::new(parents, payload);
            let block = self.workshop.work(&order, block, bits).await?;
            let bytes = block.to_bytes();
            if bytes.len() > BLOCK_BYTES_MAX {
                return Err(Failed::Invalid(format!("Invalid trytes input: {} bytes", bytes.len())));
            }
            parents = vec![Block::id_of(&bytes), trunk];
            attached.push(form::of_block(&bytes));
        }
        attached.reverse();
        Ok(Attached { trytes: attached })
    }

    /// The bits of work to do: what the network asks for, or more if the caller wants.
    fn work_bits(&self, magnitude: u64) -> Result<u8, Failed> {
        let asked = u8::try_from(magnitude).ok().filter(|bits| (1..=WORK_BITS_MAX).contains(bits));
        let asked = asked.ok_or_else(|| {
            Failed::Invalid(format!("Invalid minWeightMagnitude input: it must be 1 to {WORK_BITS_MAX}"))
        })?;
        Ok(asked.max(self.node.params().pow_bits))
    }

    /// Takes blocks in, whatever their order among themselves; what the node takes in its neighbours get.
    pub(super) async fn take_in(&self, from: IpAddr, call: Blocks) -> Result<(), Failed> {
        super::bounded("trytes", &call.trytes)?;
        let blocks = call.trytes.iter().map(|text| form::block(text)).collect::<Result<Vec<_>, _>>()?;
        self.ask(move |node| take_in_order(blocks, |bytes| node.submit_from(from, bytes).map(drop))).await
    }
}

fn payloads(trytes: &[String]) -> Result<Vec<Payload>, Failed> {
    if trytes.is_empty() || trytes.len() > ATTACH_MAX {
        return Err(Failed::Invalid(format!("Invalid trytes input: 1 to {ATTACH_MAX} are attached at once")));
    }
    let payload = |text: &String| match form::block(text)?.0.payload {
        Payload::Milestone(_) => Err(Failed::invalid("Invalid trytes input: a milestone is not attached")),
        payload => Ok(payload),
    };
    trytes.iter().map(payload).collect()
}

/// Submits blocks, each once and after those that it approves, whatever their order: `attachToTangle` answers
/// with children before their parents. What approves blocks that are not known at all holds up no other.
fn take_in_order(
    blocks: Vec<(Block, Vec<u8>)>,
    mut submit: impl FnMut(&[u8]) -> Result<(), Refused>,
) -> Result<(), Failed> {
    let mut waiting: BTreeMap<BlockId, (Block, Vec<u8>)> =
        blocks.into_iter().map(|(block, bytes)| (Block::id_of(&bytes), (block, bytes))).collect();
    let mut missing = None;
    while let Some((first, _)) = waiting.first_key_value() {
        let mut path = vec![*first];
        while let Some(last) = path.last() {
            let parents = waiting.get(last).map(|(block, _)| &block.parents[..]).unwrap_or_default();
            if let Some(parent) = parents.iter().find(|parent| waiting.contains_key(*parent)) {
                path.push(*parent);
                continue;
            }
            let next = path.pop().and_then(|last| waiting.remove(&last));
            match next.map_or(Ok(()), |(_, bytes)| submit(&bytes)) {
                Ok(()) => {}
                Err(refused) if refused.code == RefusedCode::UnknownParent => missing = Some(refused),
                Err(refused) => return Err(refused.into()),
            }
        }
    }
    missing.map_or(Ok(()), |refused| Err(refused.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain of blocks, parents first.
    fn chain(len: u8) -> Vec<(Block, Vec<u8>)> {
        let mut parent = BlockId::new([9; 32]);
        let next = |_| {
            let block = Block::new(vec![parent], Payload::Empty);
            let bytes = block.to_bytes();
            parent = Block::id_of(&bytes);
            (block, bytes)
        };
        (0..len).map(next).collect()
    }

    #[test]
    fn blocks_come_in_after_their_parents_and_each_once() {
        let parents_first = chain(100);
        let wanted: Vec<_> = parents_first.iter().map(|(_, bytes)| bytes.clone()).collect();
        let children_first: Vec<_> = parents_first.iter().rev().cloned().collect();
        let twice = [&parents_first[..], &children_first[..]].concat();
        for blocks in [parents_first, children_first, twice] {
            let mut taken = Vec::new();
            let submit = |bytes: &[u8]| {
                taken.push(bytes.to_vec());
                Ok(())
            };
            assert_eq!(take_in_order(blocks, submit), Ok(()));
            assert_eq!(taken, wanted);
        }
    }

    #[test]
    fn a_block_without_its_parents_holds_up_no_other() {
        let orphan = chain(1);
        let other = Block::new(vec![BlockId::new([8; 32])], Payload::Empty);
        let blocks = [orphan.clone(), vec![(other.clone(), other.to_bytes())]].concat();
        let mut taken = 0;
        let done = take_in_order(blocks, |bytes| {
            if bytes == orphan[0].1 {
                return Err(Refused { code: RefusedCode::UnknownParent, reason: "no parent".to_owned() });
            }
            taken += 1;
            Ok(())
        });
        assert_eq!((done, taken), (Err(Failed::invalid("no parent")), 1));
    }
}
