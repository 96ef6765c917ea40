//! Every maximum of the protocol, in one place. Nothing a peer, a node or a caller sends makes the
//! receiver hold more than these allow (I12).

/// Bytes of a payment's reference.
pub const REFERENCE_BYTES_MAX: usize = 32;
/// Bytes of the packed payments of one update: about 8,000 payments with short references.
pub const UPDATE_PAYMENTS_BYTES_MAX: usize = 128 * 1024;
/// Ticks of one chain, and so the hashes by which the ledger checks one.
pub const TICKS_MAX: u32 = 4_096;
/// Updates of one lane that may wait for the payee's acknowledgement. Past it the payer queues.
pub const UPDATES_UNACKNOWLEDGED_MAX: usize = 64;
/// Payments of one lane that may wait for the next update. Past it the caller waits.
pub const PAYMENTS_QUEUED_MAX: usize = 65_536;
/// Bytes of one frame between peers.
pub const PEER_FRAME_BYTES_MAX: usize = UPDATE_PAYMENTS_BYTES_MAX + 4 * 1024;
/// Bytes of the first frame on a stream between peers: far more than the longest proposal, and so little that
/// all streams of a peer may hold one.
pub const START_FRAME_BYTES_MAX: usize = 8 * 1024;
/// Bytes of one frame between a node and its clients.
pub const NODE_FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one frame between a watchtower and its clients: one balance and what is around it.
pub const TOWER_FRAME_BYTES_MAX: usize = 1024;
/// Bytes of one stored record.
pub const RECORD_BYTES_MAX: usize = PEER_FRAME_BYTES_MAX + 64 * 1024;

/// Bytes of one block.
pub const BLOCK_BYTES_MAX: usize = 32 * 1024;
/// Parents of one block; at least one.
pub const PARENTS_MAX: usize = 8;
/// Inputs of one transaction.
pub const INPUTS_MAX: usize = 127;
/// Outputs of one transaction.
pub const OUTPUTS_MAX: usize = 127;
/// Bytes of a data payload's tag.
pub const DATA_TAG_BYTES_MAX: usize = 64;
/// Bytes of a data payload's data: what is left of a block after its other fields.
pub const DATA_BYTES_MAX: usize = BLOCK_BYTES_MAX - 1024;
/// Coordinators of one network.
pub const COORDINATORS_MAX: usize = 32;
/// Outputs of a genesis.
pub const GENESIS_OUTPUTS_MAX: usize = 4_096;
/// Bytes of a network's name.
pub const NETWORK_NAME_BYTES_MAX: usize = 32;
/// Bits of proof of work that a network may ask for: 2^32 hashes are minutes on one core.
pub const POW_BITS_MAX: u8 = 32;

/// Milestones of the shortest contest window: time to notice, prove and claim.
pub const CONTEST_WINDOW_MILESTONES_MIN: u32 = 4;
/// Milestones of the longest contest window: four months of ten-second milestones.
pub const CONTEST_WINDOW_MILESTONES_MAX: u32 = 1_000_000;
/// Milestones of the contest window when nobody says otherwise: a minute at one a second.
pub const CONTEST_WINDOW_MILESTONES_DEFAULT: u32 = 60;

/// Channels that one milestone settles; those beyond it wait for the next, and take no more claims. With
/// the blocks that a milestone can confirm, this keeps the list of touched channels within a frame.
pub const SETTLEMENTS_PER_MILESTONE_MAX: usize = 8_192;

/// Funding outputs that one party may bring to an Open.
pub const FUNDING_INPUTS_MAX: usize = 32;
/// Bytes of the human-readable text in a refusal.
pub const DETAIL_BYTES_MAX: usize = 256;

const _: () = {
    assert!(FUNDING_INPUTS_MAX * 2 <= INPUTS_MAX, "both parties' funding fits one transaction");
    assert!(BLOCK_BYTES_MAX < NODE_FRAME_BYTES_MAX, "a block fits a frame");
    assert!(UPDATE_PAYMENTS_BYTES_MAX < PEER_FRAME_BYTES_MAX, "an update fits a frame");
    assert!(PEER_FRAME_BYTES_MAX < RECORD_BYTES_MAX, "an update fits a record");
    assert!(CONTEST_WINDOW_MILESTONES_MIN <= CONTEST_WINDOW_MILESTONES_DEFAULT, "the default is allowed");
};
