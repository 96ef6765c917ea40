//! Bytes that mean nothing, or anything: each function takes any input, and panics if a rule is broken. Fuzzers call
//! them, and `cargo test` with the inputs in `corpus/`.

use std::sync::OnceLock;

use bincode::{Decode, Encode};
use flash_channel::machine::{Agreement, Doubt, Incoming, Locked, Outgoing, Phase, tables::KeyRecord};
use flash_node_client::ledger::Checked;
use flash_proto::{
    Block, ChannelId, LaneState, Side, Transaction,
    codec::{self, CodecError},
    limits,
    message::{ChannelMessage, Hello, OpenProposal, OpenReply, StreamStart},
};

use super::{Budget, Duel, Step, setup};

/// More steps than a channel needs to come to rest, or to be over.
const STEPS_TO_THE_END_MAX: usize = 2_000;

/// What is done with an input.
pub type Target = fn(&[u8]);

/// The functions by name: a corpus is a directory of that name.
pub const TARGETS: [(&str, Target); 4] =
    [("duel", duel), ("message", message), ("record", record), ("transaction", transaction)];

/// Whatever can be decoded has exactly these bytes as its encoding.
fn canonical<T: Decode<()> + Encode, const LIMIT: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    let value = codec::decode::<T, LIMIT>(bytes)?;
    assert_eq!(codec::encode(&value), bytes, "two spellings of one value");
    Ok(value)
}

/// What a peer sends: the frames of a control stream and of a channel's stream.
pub fn message(bytes: &[u8]) {
    const LIMIT: usize = limits::PEER_FRAME_BYTES_MAX;
    let message = canonical::<ChannelMessage, LIMIT>(bytes);
    if let Ok(ChannelMessage::Update(update)) = &message {
        let state = LaneState::new(ChannelId::new([1; 32]), Side::A);
        if let Ok(after) = state.advance(&update.payments) {
            assert!(after.seq == 1 && after.cumulative > state.cumulative, "I3: a counter must rise");
        }
        // What the list says of itself is what is in it.
        let count = u64::try_from(update.payments.iter().flatten().count());
        let total = update.payments.total();
        assert!(total.is_err() || total.map(|total| total.count).ok() == count.ok(), "a list miscounts");
    }
    let _ = canonical::<Hello, LIMIT>(bytes);
    let _ = canonical::<StreamStart, LIMIT>(bytes);
    let _ = canonical::<OpenProposal, LIMIT>(bytes);
    let _ = canonical::<OpenReply, LIMIT>(bytes);
}

/// What a disk holds.
pub fn record(bytes: &[u8]) {
    const LIMIT: usize = limits::RECORD_BYTES_MAX;
    let _ = canonical::<Agreement, LIMIT>(bytes);
    let _ = canonical::<(Phase, bool, u64), LIMIT>(bytes);
    let _ = canonical::<Outgoing, LIMIT>(bytes);
    let _ = canonical::<Incoming, LIMIT>(bytes);
    let _ = canonical::<Doubt, LIMIT>(bytes);
    let _ = canonical::<Locked, LIMIT>(bytes);
    let _ = canonical::<KeyRecord, LIMIT>(bytes);
}

/// What a node is sent.
pub fn transaction(bytes: &[u8]) {
    let block = Block::from_bytes(bytes, 0);
    if let Ok(block) = &block {
        assert_eq!(block.to_bytes(), bytes, "two spellings of one block");
    }
    if let Ok(transaction) = canonical::<Transaction, { limits::BLOCK_BYTES_MAX }>(bytes) {
        let id = transaction.id();
        let checked = Checked::new(transaction, &setup::params());
        assert!(checked.as_ref().map_or(id, Checked::id) == id, "a transaction's id changes");
    }
}

/// Two parties: the first byte chooses who they are, each further byte one of the steps that are possible then. At the
/// end whatever waits is done; two honest parties come to rest, and at rest both must agree. A side whose peer is hostile can leave.
///
/// # Panics
/// If a rule is broken; the steps are in the message.
pub fn duel(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let (mut duel, mut taken) = (begin(*first), Vec::new());
    let mut step = |duel: &mut Duel, step: Step| {
        taken.push(step);
        duel.take(step);
        assert!(duel.violation().is_none(), "{}, after {taken:?}", duel.violation().unwrap_or_default());
    };
    for byte in bytes {
        let steps = duel.steps();
        let Some(chosen) = usize::from(*byte).checked_rem(steps.len()).and_then(|at| steps.get(at)) else {
            break;
        };
        step(&mut duel, *chosen);
    }
    if let Err(broken) = ends(&mut duel, step) {
        panic!("I9: {broken}, after {taken:?}");
    }
}

/// Two honest parties come to rest. A peer that has lied may connect and be refused for ever, but the other side can
/// close alone then, and is paid out.
fn ends(duel: &mut Duel, mut step: impl FnMut(&mut Duel, Step)) -> Result<(), &'static str> {
    if duel.is_honest() {
        for _ in 0..STEPS_TO_THE_END_MAX {
            let Some(next) = duel.steps().into_iter().find(|step| step.is_due()) else { return Ok(()) };
            step(duel, next);
        }
        return Err("two parties do not come to rest");
    }
    duel.allow(Budget { closes: 2, milestones: u8::MAX, ..Budget::NOTHING });
    step(duel, Step::CloseAlone(Side::A));
    let goes_on =
        |step: &Step| (step.is_due() && *step != Step::Connect) || *step == Step::CloseAlone(Side::A);
    for _ in 0..STEPS_TO_THE_END_MAX {
        if duel.is_over(Side::A) {
            return Ok(());
        }
        let next = duel.steps().into_iter().find(goes_on).unwrap_or(Step::Milestone);
        step(duel, next);
    }
    Err("an honest side cannot leave")
}

/// One of a dozen beginnings; each is made once.
fn begin(choice: u8) -> Duel {
    static BEGINNINGS: OnceLock<Vec<Duel>> = OnceLock::new();
    let beginnings = BEGINNINGS.get_or_init(|| {
        let mut all = Vec::new();
        for deposits in [[3, 3], [1_000, 0], [0, 50]] {
            for (hostile, restores) in [(0, 0), (20, 0), (0, 2), (20, 2)] {
                all.push(Duel::new(deposits, Budget { hostile, restores, ..BUDGET }));
            }
        }
        all
    });
    let at = usize::from(choice).checked_rem(beginnings.len()).unwrap_or(0);
    beginnings.get(at).cloned().unwrap_or_else(|| Duel::new([3, 3], BUDGET))
}

const BUDGET: Budget = Budget {
    payments: 200,
    breaks: 50,
    crashes: 50,
    closes: 4,
    hostile_kinds: 60,
    milestones: 40,
    ..Budget::NOTHING
};
