//! The treasury of a development network: a client of the running node, with the key in the node's directory.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use flash_node_client::client::{Applied, ClientConfig, NodeClient};
use flash_proto::{
    Action, Address, Amount, Essence, NetworkParams, Output, OutputId, SecretKey, Transaction,
    transaction::commit_inputs,
};
use futures_util::future::try_join_all;

use crate::{
    datadir::{self, read_network},
    failure::Failure,
    node_keys::{random_key, read_keys, shown},
    node_service::address,
};

/// How long a call waits for the running node.
const NODE_WAIT: Duration = Duration::from_secs(60);
/// Outputs that one transfer makes at most, besides its change.
const OUTPUTS_AT_ONCE: usize = 100;

/// A client of the node that runs on a data directory, with its network.
///
/// # Errors
/// [`Failure`] if no node runs there.
pub fn connect(data: &Path) -> Result<(NodeClient, Arc<NetworkParams>), Failure> {
    let address = address(data)?;
    let params = Arc::new(read_network(&datadir::network_path(data))?);
    let (key, bind) = (random_key()?, SocketAddr::from(([0, 0, 0, 0], 0)));
    let config = ClientConfig::new(Arc::clone(&params), vec![address], key, bind);
    let client = NodeClient::start(config).map_err(Failure::new)?;
    Ok((client, params))
}

/// Sends money from the treasury of a development network in one transfer; returns when that is applied.
///
/// # Errors
/// [`Failure`].
pub async fn fund(data: &Path, to: &[Output]) -> Result<(Transaction, Applied), Failure> {
    in_time(Treasury::open(data)?.pay(to)).await
}

/// The same in as many transfers as it takes.
///
/// # Errors
/// [`Failure`].
pub async fn fund_all(data: &Path, to: &[Output]) -> Result<(), Failure> {
    let treasury = Treasury::open(data)?;
    for to in to.chunks(OUTPUTS_AT_ONCE * OUTPUTS_AT_ONCE) {
        in_time(treasury.pay_by_parts(to)).await?;
    }
    Ok(())
}

async fn in_time<T>(paying: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(NODE_WAIT, paying)
        .await
        .map_err(|_| Failure::new("the node did not answer in time; see its log"))?
}

struct Treasury {
    client: NodeClient,
    params: Arc<NetworkParams>,
    key: SecretKey,
}

impl Treasury {
    fn open(data: &Path) -> Result<Self, Failure> {
        let keys = read_keys(data)?;
        let treasury = keys.treasury.as_ref().ok_or_else(|| {
            Failure::unusable_data(format!(
                "{} has no treasury: it is not the node of a development network",
                data.display()
            ))
        })?;
        let key = shown(treasury)?;
        let (client, params) = connect(data)?;
        Ok(Self { client, params, key })
    }

    fn address(&self) -> Address {
        Address::of(&self.key.public())
    }

    async fn pay(&self, to: &[Output]) -> Result<(Transaction, Applied), Failure> {
        let outputs = self.client.outputs_of(&[self.address()]).await.map_err(Failure::new)?.value;
        let transaction = spend(&self.params, &self.key, &outputs, to)?;
        let applied = self.client.submit_and_wait(transaction.clone(), None).await.map_err(Failure::new)?;
        Ok((transaction, applied))
    }

    /// Pays itself what each of as many transfers takes, and then all of those at once.
    async fn pay_by_parts(&self, to: &[Output]) -> Result<(), Failure> {
        let chunks: Vec<&[Output]> = to.chunks(OUTPUTS_AT_ONCE).collect();
        if chunks.len() < 2 {
            return self.pay(to).await.map(|_| ());
        }
        let part = |chunk: &&[Output]| Ok(Output { address: self.address(), amount: sum(chunk)? });
        let parts = chunks.iter().map(part).collect::<Result<Vec<_>, Failure>>()?;
        let (transaction, _) = self.pay(&parts).await?;
        let id = transaction.id();
        let paying = (0..).zip(parts).zip(chunks).map(|((index, output), to)| async move {
            let part = (OutputId { transaction: id, index }, output);
            let transfer = spend(&self.params, &self.key, &[part], to)?;
            self.client.submit_and_wait(transfer, None).await.map_err(Failure::new)
        });
        try_join_all(paying).await.map(|_| ())
    }
}

fn sum(of: &[Output]) -> Result<Amount, Failure> {
    Amount::checked_sum(of.iter().map(|output| output.amount))
        .ok_or_else(|| Failure::new("the amounts add up to more than the supply"))
}

/// Spends the treasury's largest outputs; what is left over goes back to it.
fn spend(
    params: &NetworkParams,
    key: &SecretKey,
    outputs: &[(OutputId, Output)],
    to: &[Output],
) -> Result<Transaction, Failure> {
    let wanted = sum(to)?;
    let mut sorted = outputs.to_vec();
    sorted.sort_by_key(|(id, output)| (std::cmp::Reverse(output.amount), *id));
    let (mut inputs, mut spent, mut sum) = (Vec::new(), Vec::new(), Amount::ZERO);
    for (id, output) in sorted.iter().take(flash_proto::limits::INPUTS_MAX) {
        if sum >= wanted {
            break;
        }
        inputs.push(*id);
        spent.push(*output);
        sum = sum.checked_add(output.amount).unwrap_or(sum);
    }
    let change = sum
        .checked_sub(wanted)
        .ok_or_else(|| Failure::new(format!("the treasury has {sum}, that is less than {wanted}")))?;
    let mut made = to.to_vec();
    if change >= params.output_min {
        made.push(Output { address: Address::of(&key.public()), amount: change });
    } else if !change.is_zero() {
        return Err(Failure::new(format!("{change} would be left over, which is too little for an output")));
    }
    let essence = Essence {
        network: params.id(),
        inputs,
        inputs_commitment: commit_inputs(&spent),
        outputs: made,
        action: Action::Transfer,
    };
    let unlock = essence.unlock(key);
    let unlocks = vec![unlock; spent.len()];
    Ok(Transaction { essence, unlocks })
}
