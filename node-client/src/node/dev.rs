//! A network for development: one coordinator, and the whole supply in one treasury.

use flash_proto::{Address, Amount, NetworkParams, Output, SecretKey};

/// The smallest output of a development network: 1 Ki.
pub const OUTPUT_MIN: Amount = Amount::new(1_000);
/// Equal outputs of the treasury, so that so many transactions can be funded at once; one more holds what is
/// left over.
const EQUAL_OUTPUTS: u64 = 16;

/// What can be chosen of a development network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevNetwork {
    /// Milliseconds between milestones, at least 1.
    pub milestone_interval_ms: u64,
    /// Zero bits of proof of work.
    pub pow_bits: u8,
}

/// A development network with all its keys.
#[derive(Clone, Debug)]
pub struct DevKeys {
    /// The network.
    pub params: NetworkParams,
    /// Signs the milestones.
    pub coordinator: SecretKey,
    /// Owns the whole supply.
    pub treasury: SecretKey,
    /// The node's own key, by which its clients know it.
    pub node: SecretKey,
}

impl DevNetwork {
    /// Makes the network that begins at `genesis_ms` (milliseconds since 1970) from 96 random bytes.
    ///
    /// ```
    /// use flash_node_client::node::dev::DevNetwork;
    /// let dev = DevNetwork { milestone_interval_ms: 1_000, pow_bits: 8 }.make(0, [[1; 32], [2; 32], [3; 32]]);
    /// dev.params.check()?;
    /// # Ok::<(), flash_proto::network::NetworkError>(())
    /// ```
    #[must_use]
    pub fn make(self, genesis_ms: u64, entropy: [[u8; 32]; 3]) -> DevKeys {
        let [coordinator, treasury, node] = entropy.map(SecretKey::from_bytes);
        let params = NetworkParams {
            name: "dev".to_owned(),
            coordinators: vec![coordinator.public()],
            threshold: 1,
            pow_bits: self.pow_bits,
            output_min: OUTPUT_MIN,
            milestone_interval_ms: self.milestone_interval_ms,
            genesis_ms,
            genesis: self::treasury(Address::of(&treasury.public())),
        };
        DevKeys { params, coordinator, treasury, node }
    }
}

/// A genesis that gives the supply to one address, in equal parts, and the rest.
pub fn treasury(address: Address) -> Vec<Output> {
    let supply = Amount::SUPPLY.units();
    let part = supply / (EQUAL_OUTPUTS + 1);
    let rest = supply.saturating_sub(part.saturating_mul(EQUAL_OUTPUTS));
    let amounts = (0..EQUAL_OUTPUTS).map(|_| part).chain([rest]).map(Amount::new);
    amounts.map(|amount| Output { address, amount }).collect()
}
