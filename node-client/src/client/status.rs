//! What became of a transaction: all nodes that are in step are asked, what one proves refutes the others, and
//! what none can prove counts only if all agree.

use flash_proto::{BlockId, Payload, Transaction, TransactionId};

use super::{BEHIND_MAX, ClientError, NodeClient, Shared, link::Link};
use crate::{
    ledger::Conflict,
    protocol::{NodeRequest, NodeResponse, TransactionAnswer},
};

/// What is known of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// No node that is in step knows it. (Their word.)
    Unknown,
    /// It is in a block that no milestone has confirmed. (A node's word.)
    Pending {
        /// The newest block that carries it.
        block: BlockId,
    },
    /// It changed the ledger. This is proven.
    Applied {
        /// The milestone that applied it.
        milestone_index: u64,
        /// The block that carried it.
        block: BlockId,
        /// The transaction.
        transaction: Box<Transaction>,
    },
    /// It was confirmed, which is proven, without changing the ledger, as all nodes say that are in step.
    Rejected {
        /// The milestone that confirmed it.
        milestone_index: u64,
        /// Why.
        conflict: Conflict,
    },
}

impl NodeClient {
    /// What is known of a transaction: that it was applied is proven by any node; all else is the word of all
    /// nodes that are in step, and one that is refuted is named.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn transaction(&self, id: TransactionId) -> Result<TransactionStatus, ClientError> {
        let shared = self.shared();
        let newest = shared.core().newest().index;
        let mut answers = shared.all(newest, |link| shared.transaction_at(link, newest, id)).await?;
        let is_applied = |status: &TransactionStatus| matches!(status, TransactionStatus::Applied { .. });
        if let Some(place) = answers.iter().position(|(_, status)| is_applied(status)) {
            let (_, applied) = answers.swap_remove(place);
            shared.refute(newest, &applied, answers);
            return Ok(applied);
        }
        let is_rejected = |status: &TransactionStatus| matches!(status, TransactionStatus::Rejected { .. });
        let place = answers.iter().position(|(_, status)| is_rejected(status));
        if let Some(rejected) = place.and_then(|place| answers.get(place)).map(|(_, status)| status.clone()) {
            let others = answers.into_iter().filter(|(_, status)| !is_rejected(status)).collect();
            answers = shared.refute(newest, &rejected, others);
            if answers.is_empty() {
                return Ok(rejected);
            }
        }
        let is_pending = |status: &TransactionStatus| matches!(status, TransactionStatus::Pending { .. });
        let pending = answers.into_iter().map(|(_, status)| status).find(is_pending);
        Ok(pending.unwrap_or(TransactionStatus::Unknown))
    }
}

impl Shared {
    async fn transaction_at(
        &self,
        link: Link,
        newest: u64,
        id: TransactionId,
    ) -> Result<TransactionStatus, ClientError> {
        let answer = self.ask(&link, &NodeRequest::Transaction(id)).await?;
        let NodeResponse::Transaction(answer) = answer else { return Err(self.unexpected(&link)) };
        match *answer {
            TransactionAnswer::Unknown | TransactionAnswer::Pruned { .. } => Ok(TransactionStatus::Unknown),
            TransactionAnswer::Pending { block } => Ok(TransactionStatus::Pending { block }),
            TransactionAnswer::Applied { block, milestone, path } => {
                let checked = self.core().applied(id, &block, &milestone, &path);
                let applied = self.judge(&link, checked)?;
                Ok(TransactionStatus::Applied {
                    milestone_index: applied.milestone_index,
                    block: applied.block,
                    transaction: Box::new(applied.transaction),
                })
            }
            TransactionAnswer::Rejected { block, milestone_index, conflict } => {
                let rejected = TransactionStatus::Rejected { milestone_index, conflict };
                match self.proven_inclusion_at(&link, block).await? {
                    Some((_, included)) if included.milestone_index != milestone_index => {
                        Err(self
                            .lied(&link, format!("a rejection by another milestone than {milestone_index}")))
                    }
                    Some((_, included)) => match included.block.payload {
                        Payload::Transaction(carried) if carried.id() == id => Ok(rejected),
                        _ => Err(self.lied(&link, "a rejection of another transaction")),
                    },
                    None if is_recent(newest, milestone_index) => {
                        let what = format!("a rejection without proof that block {block} was confirmed");
                        Err(self.lied(&link, what))
                    }
                    // Pruned since: without proof it says nothing.
                    None => Ok(TransactionStatus::Unknown),
                }
            }
        }
    }

    /// Names the nodes whose answers cannot be true after what is proven; returns the other answers.
    fn refute(
        &self,
        newest: u64,
        proven: &TransactionStatus,
        answers: Vec<(Link, TransactionStatus)>,
    ) -> Vec<(Link, TransactionStatus)> {
        let (milestone_index, became) = match proven {
            TransactionStatus::Applied { milestone_index, .. } => (*milestone_index, "applied"),
            TransactionStatus::Rejected { milestone_index, .. } => (*milestone_index, "confirmed"),
            TransactionStatus::Unknown | TransactionStatus::Pending { .. } => return answers,
        };
        let mut left = Vec::new();
        for (link, status) in answers {
            let word = match status {
                TransactionStatus::Unknown => "unknown",
                TransactionStatus::Rejected { .. } => "rejected",
                // Another block with it may wait there after the first was confirmed in vain.
                TransactionStatus::Pending { .. } if became == "applied" => "pending",
                TransactionStatus::Pending { .. } | TransactionStatus::Applied { .. } => {
                    left.push((link, status));
                    continue;
                }
            };
            // What is older may be pruned there.
            if link.heard && link.tip >= milestone_index && is_recent(newest, milestone_index) {
                let what =
                    format!("it calls a transaction {word} that milestone {milestone_index} has {became}");
                self.lied(&link, what);
            } else {
                left.push((link, status));
            }
        }
        left
    }
}

/// Whether a milestone is so young that every node that is in step still knows what it confirmed.
const fn is_recent(newest: u64, milestone_index: u64) -> bool {
    newest.saturating_sub(milestone_index) <= BEHIND_MAX
}
