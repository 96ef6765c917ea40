//! The commands that ask.

use std::{collections::BTreeSet, time::Instant};

use flash_node_client::{
    node::{CarriedMilestone, Find, Node, NodeError},
    protocol::{NodeRequest, NodeResponse},
    trytes,
};
use flash_proto::{Address, BlockId, TransactionId};
use serde::{Deserialize, Serialize};

use super::{Api, Failed, bounded, form};
use crate::{events::now_ms, node_http::CALL_WAIT};

/// Tips that are listed.
const TIPS_MAX: usize = 1_000;
/// Blocks that one search finds.
const FOUND_MAX: usize = 10_000;
/// Bytes of the blocks in one answer.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many milestones back tips may be wanted from.
const DEPTH_MAX: u64 = 15;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeInfo {
    app_name: &'static str,
    app_version: &'static str,
    jre_available_processors: usize,
    jre_free_memory: u64,
    jre_max_memory: u64,
    jre_total_memory: u64,
    jre_version: &'static str,
    latest_milestone: String,
    latest_milestone_index: u64,
    latest_solid_subtangle_milestone: String,
    latest_solid_subtangle_milestone_index: u64,
    milestone_start_index: u64,
    last_snapshotted_milestone_index: u64,
    neighbors: usize,
    packets_queue_size: u64,
    time: u64,
    tips: u64,
    transactions_to_request: u64,
    features: [&'static str; 0],
    coordinator_address: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Hashes {
    hashes: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct FindTransactions {
    bundles: Option<Vec<String>>,
    addresses: Option<Vec<String>>,
    tags: Option<Vec<String>>,
    approvees: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct GetTrytes {
    hashes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Trytes {
    trytes: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct GetInclusionStates {
    transactions: Vec<String>,
    #[serde(default)]
    tips: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct States {
    states: Vec<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct GetBalances {
    addresses: Vec<String>,
    threshold: Option<u64>,
    #[serde(default)]
    tips: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BalancesAnswer {
    balances: Vec<String>,
    references: Vec<String>,
    milestone_index: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct GetTransactionsToApprove {
    depth: u64,
    reference: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToApprove {
    trunk_transaction: String,
    branch_transaction: String,
}

impl Api {
    /// The fields about a Java machine say 0, and `none` for its version: there is none.
    pub(super) async fn get_node_info(&self) -> Result<NodeInfo, Failed> {
        let (CarriedMilestone { milestone, block }, tips) = self
            .ask(|node| {
                let NodeResponse::Info(info) = node.answer(NodeRequest::Info) else {
                    return Err(Failed::Node("the node does not tell about itself".to_owned()));
                };
                Ok((newest(node)?, info.tips))
            })
            .await?;
        let past = self.node.past();
        let coordinator = milestone.signatures.first().map(|signature| *signature.coordinator.as_bytes());
        let (hash, index) = (form::block_hash(&block), milestone.essence.index);
        Ok(NodeInfo {
            app_name: "Flash",
            app_version: env!("CARGO_PKG_VERSION"),
            jre_available_processors: std::thread::available_parallelism().map_or(1, usize::from),
            jre_free_memory: 0,
            jre_max_memory: 0,
            jre_total_memory: 0,
            jre_version: "none",
            latest_milestone: hash.clone(),
            latest_milestone_index: index,
            // A node holds nothing that is not solid.
            latest_solid_subtangle_milestone: hash,
            latest_solid_subtangle_milestone_index: index,
            milestone_start_index: past.milestones,
            last_snapshotted_milestone_index: past.blocks,
            neighbors: self.neighbours.as_ref().map_or(0, |neighbours| neighbours.list().len()),
            packets_queue_size: 0,
            time: now_ms(),
            tips,
            transactions_to_request: 0,
            features: [],
            coordinator_address: trytes::encode_id(&coordinator.unwrap_or_default()),
        })
    }

    pub(super) fn get_tips(&self) -> Hashes {
        Hashes { hashes: self.node.tips(TIPS_MAX).iter().map(form::block_hash).collect() }
    }

    /// The blocks that are found by one value at least of every list that is given.
    pub(super) async fn find_transactions(&self, call: FindTransactions) -> Result<Hashes, Failed> {
        let lists = call.lists()?;
        let found = self.ask(move |node| find(node, &lists)).await?;
        Ok(Hashes { hashes: found.iter().map(form::block_hash).collect() })
    }

    /// Blocks that are not known are all `9`.
    pub(super) async fn get_trytes(&self, call: GetTrytes) -> Result<Trytes, Failed> {
        let ids = form::block_ids("hashes", &call.hashes)?;
        let trytes = move |node: &Node| {
            let (mut blocks, mut bytes) = (Vec::new(), 0_usize);
            for id in ids {
                let block = node.block(&id)?.unwrap_or_default();
                bytes = bytes.saturating_add(block.len());
                if bytes > ANSWER_BYTES_MAX {
                    return Err(Failed::invalid("Could not complete request: ask for fewer blocks at once"));
                }
                blocks.push(form::of_block(&block));
            }
            Ok(blocks)
        };
        Ok(Trytes { trytes: self.ask(trytes).await? })
    }

    /// Whether each block is in the past of one of the tips; of the newest milestone if none are given.
    pub(super) async fn get_inclusion_states(&self, call: GetInclusionStates) -> Result<States, Failed> {
        let blocks = form::block_ids("transactions", &call.transactions)?;
        let mut tips = form::block_ids("tips", &call.tips)?;
        let states = move |node: &Node| {
            for tip in &tips {
                if node.block_state(*tip)?.is_none() {
                    return Err(Failed::invalid("One of the tips is absent"));
                }
            }
            if tips.is_empty() {
                tips.push(newest(node)?.block);
            }
            let states = node.in_past(&tips, &blocks)?;
            states.ok_or_else(|| {
                Failed::invalid("the tips' past is too long to look through; give a milestone as the tip")
            })
        };
        Ok(States { states: self.ask(states).await? })
    }

    /// The confirmed balances at the newest milestone.
    pub(super) async fn get_balances(&self, call: GetBalances) -> Result<BalancesAnswer, Failed> {
        bounded("addresses", &call.addresses)?;
        if !call.threshold.is_none_or(|threshold| (1..=100).contains(&threshold)) {
            return Err(Failed::invalid("Illegal 'threshold'"));
        }
        if !call.tips.is_empty() {
            return Err(Failed::invalid("balances are given at the newest milestone only; leave out tips"));
        }
        let addresses: Vec<Address> =
            call.addresses.iter().map(|text| form::address(text)).collect::<Result<_, _>>()?;
        let (balances, milestone) = self
            .ask(move |node| {
                let balances = node.balances(&addresses);
                let milestone = node.milestone(Some(balances.milestone_index))?;
                Ok::<_, NodeError>((balances, milestone.ok_or(NodeError::Damaged("milestone"))?))
            })
            .await?;
        Ok(BalancesAnswer {
            balances: balances.amounts.iter().map(|amount| amount.units().to_string()).collect(),
            references: vec![form::block_hash(&milestone.block)],
            milestone_index: balances.milestone_index,
        })
    }

    /// Two different tips where there are two; a reference that is given is the branch.
    pub(super) async fn get_transactions_to_approve(
        &self,
        call: GetTransactionsToApprove,
    ) -> Result<ToApprove, Failed> {
        if call.depth > DEPTH_MAX {
            return Err(Failed::invalid("Invalid depth input"));
        }
        let reference =
            call.reference.map(|text| form::id("reference", &text).map(BlockId::new)).transpose()?;
        if let Some(reference) = reference.filter(|reference| !self.node.may_approve(reference)) {
            let reason = format!("reference {reference} is not known here, or too old to be approved");
            return Err(Failed::Invalid(reason));
        }
        let mut tips = match self.ask(|node| Ok::<_, NodeError>(node.answer(NodeRequest::Tips))).await? {
            NodeResponse::Tips(tips) => tips,
            NodeResponse::Refused(refused) => return Err(refused.into()),
            _ => return Err(Failed::Node("the node did not answer with tips".to_owned())),
        };
        tips.retain(|tip| Some(*tip) != reference);
        // They stand in order of their ids; which two come first is left to chance.
        let draw = getrandom::u64().map_err(|error| Failed::Node(error.to_string()))?;
        let count = u64::try_from(tips.len()).unwrap_or(u64::MAX).max(1);
        tips.rotate_left(usize::try_from(draw % count).unwrap_or(0));
        let first = tips.first().copied().or(reference);
        let trunk = first.ok_or_else(|| Failed::Node("the node did not answer with tips".to_owned()))?;
        let branch = reference.or_else(|| tips.get(1).copied()).unwrap_or(trunk);
        Ok(ToApprove {
            trunk_transaction: form::block_hash(&trunk),
            branch_transaction: form::block_hash(&branch),
        })
    }
}

fn newest(node: &Node) -> Result<CarriedMilestone, NodeError> {
    node.milestone(None)?.ok_or(NodeError::Damaged("milestone"))
}

impl FindTransactions {
    /// What to look for, list by list.
    fn lists(self) -> Result<Vec<Vec<Find>>, Failed> {
        type Parse = fn(&str) -> Result<Find, Failed>;
        let given: [(&str, Option<Vec<String>>, Parse); 4] = [
            ("bundles", self.bundles, |text| {
                form::id("bundles", text).map(|id| Find::Transaction(TransactionId::new(id)))
            }),
            ("addresses", self.addresses, |text| form::address(text).map(Find::Address)),
            ("tags", self.tags, |text| form::tag(text).map(Find::Tag)),
            ("approvees", self.approvees, |text| {
                form::id("approvees", text).map(|id| Find::Parent(BlockId::new(id)))
            }),
        ];
        let mut lists = Vec::new();
        for (name, texts, parse) in given {
            let Some(texts) = texts else { continue };
            bounded(name, &texts)?;
            let texts: BTreeSet<String> = texts.into_iter().collect();
            lists.push(texts.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?);
        }
        if lists.is_empty() {
            return Err(Failed::invalid("Invalid parameters: give bundles, addresses, tags or approvees"));
        }
        Ok(lists)
    }
}

fn find(node: &Node, lists: &[Vec<Find>]) -> Result<BTreeSet<BlockId>, Failed> {
    let began = Instant::now();
    let mut common: Option<BTreeSet<BlockId>> = None;
    for list in lists {
        let mut found = BTreeSet::new();
        for what in list {
            if began.elapsed() > CALL_WAIT {
                // Nobody waits for the answer any more.
                return Err(Failed::Node("the search took too long; look for less at once".to_owned()));
            }
            let left = FOUND_MAX.saturating_sub(found.len()).saturating_add(1);
            let blocks = node.find(what, None, left)?;
            found.extend(blocks.ok_or_else(|| {
                Failed::invalid("Could not complete request: too many transactions came after an approvee")
            })?);
            if found.len() > FOUND_MAX {
                return Err(Failed::Invalid(format!(
                    "Could not complete request: more than {FOUND_MAX} transactions are found"
                )));
            }
        }
        common = Some(match common {
            None => found,
            Some(common) => common.intersection(&found).copied().collect(),
        });
    }
    Ok(common.unwrap_or_default())
}
