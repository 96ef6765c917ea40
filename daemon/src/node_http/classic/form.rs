//! What the classic API's texts mean on this ledger.

use flash_node_client::trytes;
use flash_proto::{
    Address, Block, BlockId,
    block::BLOCK_VERSION,
    codec::{self, CodecError},
    limits::BLOCK_BYTES_MAX,
};

use super::Failed;

/// Trytes of a transaction then. Shorter blocks are filled up with `9`.
pub(super) const TRANSACTION_TRYTES: usize = 2_673;
/// Trytes of an address with the checksum that wallets then showed.
const ADDRESS_WITH_CHECKSUM_TRYTES: usize = 90;

/// A hash among the values of `name`.
pub(super) fn id(name: &str, text: &str) -> Result<[u8; 32], Failed> {
    trytes::decode_id(text).map_err(|error| wrong(name, &error))
}

/// Block ids among the values of `name`.
pub(super) fn block_ids(name: &str, texts: &[String]) -> Result<Vec<BlockId>, Failed> {
    super::bounded(name, texts)?;
    texts.iter().map(|text| id(name, text).map(BlockId::new)).collect()
}

pub(super) fn block_hash(id: &BlockId) -> String {
    trytes::encode_id(id.as_bytes())
}

/// An address in trytes; the nine of a checksum are left out.
pub(super) fn address(text: &str) -> Result<Address, Failed> {
    let bare = match text.len() {
        ADDRESS_WITH_CHECKSUM_TRYTES => text.get(..trytes::HASH_TRYTES).unwrap_or(text),
        _ => text,
    };
    id("addresses", bare).map(Address::new)
}

/// The bytes of a tag. The `9`s at its end are padding.
pub(super) fn tag(text: &str) -> Result<Vec<u8>, Failed> {
    let mut bare = text.trim_end_matches('9').to_owned();
    if bare.len() % 2 == 1 {
        bare.push('9');
    }
    trytes::decode(&bare).map_err(|error| wrong("tags", &error))
}

/// A block's trytes.
pub(super) fn of_block(bytes: &[u8]) -> String {
    let mut text = trytes::encode(bytes);
    let missing = TRANSACTION_TRYTES.saturating_sub(text.len());
    text.extend(std::iter::repeat_n('9', missing));
    text
}

/// A block and its bytes from trytes, with or without padding.
pub(in crate::node_http) fn block(text: &str) -> Result<(Block, Vec<u8>), Failed> {
    if text.len() > BLOCK_BYTES_MAX * 2 {
        return Err(wrong("trytes", &format!("{} trytes are more than a block has", text.len())));
    }
    let padded = text.len() == TRANSACTION_TRYTES;
    // The padding may end in the middle of a byte.
    let even = if padded { text.strip_suffix('9').unwrap_or(text) } else { text };
    let mut bytes = trytes::decode(even).map_err(|error| wrong("trytes", &error))?;
    let mut decoded = codec::decode::<Block, BLOCK_BYTES_MAX>(&bytes);
    if let (true, Err(CodecError::Trailing(rest))) = (padded, &decoded) {
        let len = bytes.len().saturating_sub(*rest);
        if bytes.get(len..).is_some_and(|rest| rest.iter().all(|byte| *byte == 0)) {
            bytes.truncate(len);
            decoded = codec::decode::<Block, BLOCK_BYTES_MAX>(&bytes);
        }
    }
    match decoded {
        // Trytes that are all `9` say nothing, but are an encoding.
        Ok(block) if block.version != BLOCK_VERSION => {
            Err(wrong("trytes", &format!("not a block: its version is {}", block.version)))
        }
        Ok(block) => Ok((block, bytes)),
        Err(error) => Err(wrong("trytes", &format!("not a block: {error}"))),
    }
}

fn wrong(name: &str, why: &dyn std::fmt::Display) -> Failed {
    Failed::Invalid(format!("Invalid {name} input: {why}"))
}

#[cfg(test)]
mod tests {
    use flash_proto::{Payload, block::Data};

    use super::*;

    #[test]
    fn blocks_read_back_padded_and_bare() {
        let parents = vec![BlockId::new([7; 32])];
        for (len, nonce) in [(0, 0), (0, 1 << 63), (700, 5), (20_000, 0)] {
            let data = Data { tag: b"t".to_vec(), data: vec![0; len] };
            let mut made = Block::new(parents.clone(), Payload::Data(data));
            made.nonce = nonce;
            let text = of_block(&made.to_bytes());
            assert!(text.len() >= TRANSACTION_TRYTES);
            assert_eq!(block(&text), Ok((made.clone(), made.to_bytes())));
            assert_eq!(block(&trytes::encode(&made.to_bytes())), Ok((made.clone(), made.to_bytes())));
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let bytes = Block::new(vec![BlockId::new([7; 32])], Payload::Empty).to_bytes();
        let mut longer = trytes::encode(&bytes);
        longer.push_str("99");
        let mut dirty = of_block(&bytes);
        dirty.replace_range(2_000..2_002, "A9");
        for text in ["", "9", "A", &"9".repeat(TRANSACTION_TRYTES), &longer, &dirty, &"9".repeat(70_000)] {
            assert!(matches!(block(text), Err(Failed::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn tags_lose_their_padding_and_nothing_else() {
        for bytes in [&b"meter"[..], &[1], &[27, 1], &[255], b""] {
            let bare = trytes::encode(bytes);
            let padded = format!("{bare:9<27}");
            assert_eq!((tag(&bare), tag(&padded)), (Ok(bytes.to_vec()), Ok(bytes.to_vec())));
        }
        assert!(tag("tag").is_err());
    }

    #[test]
    fn addresses_come_with_and_without_a_checksum() {
        let wanted = Address::new([3; 32]);
        let text = trytes::encode_id(wanted.as_bytes());
        assert_eq!(address(&text), Ok(wanted));
        assert_eq!(address(&format!("{text}ABCDEFGHI")), Ok(wanted));
        assert!(address(&text[..80]).is_err());
        assert!(address(&format!("é{}", "9".repeat(88))).is_err());
    }
}
