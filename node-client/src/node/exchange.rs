//! What a node tells and keeps for the exchange with other nodes.

use flash_channel::store::Batch;
use flash_proto::BlockId;

use super::{
    Node, NodeError,
    records::{self, META},
};

impl Node {
    /// Those of these blocks that are not here.
    ///
    /// # Errors
    /// [`NodeError::Halted`], or the store's failure.
    pub fn lacks(&self, ids: &[BlockId]) -> Result<Vec<BlockId>, NodeError> {
        let unknown: Vec<BlockId> = {
            let core = self.read();
            ids.iter().filter(|id| !core.tangle.contains(id)).copied().collect()
        };
        let mut lacking = Vec::new();
        for id in unknown {
            // Confirmed long ago, perhaps.
            if !self.is_confirmed(&id)? {
                lacking.push(id);
            }
        }
        Ok(lacking)
    }

    /// At most `limit` blocks that wait for a milestone and came after number `after`, with their numbers,
    /// in the order in which they came.
    pub fn waiting(&self, after: u64, limit: usize) -> Vec<(u64, BlockId)> {
        self.read().tangle.waiting_after(after).take(limit).collect()
    }

    /// The addresses of other nodes, as they were kept last.
    ///
    /// # Errors
    /// [`NodeError::Halted`], or the store's failure.
    pub(crate) fn kept_addresses(&self) -> Result<Option<Vec<u8>>, NodeError> {
        self.stored(self.store().get(META, records::ADDRESSES).map_err(NodeError::from))
    }

    /// Keeps the addresses of other nodes.
    ///
    /// # Errors
    /// [`NodeError::Halted`], or the store's failure.
    pub(crate) fn keep_addresses(&self, addresses: Vec<u8>) -> Result<(), NodeError> {
        let writer = self.writer()?;
        let mut batch = Batch::new();
        batch.put(META, records::ADDRESSES, addresses);
        let _durable = self.commit(&writer, &batch)?;
        Ok(())
    }
}
