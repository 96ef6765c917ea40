//! Two nodes with a channel, and what one says handed to the other.

use std::cell::{Cell, RefCell};

use lightning::{
    bitcoin::{
        Amount, Transaction, TxOut,
        absolute::LockTime,
        block::{Header, Version},
        blockdata::constants::genesis_block,
        hashes::{Hash, sha256},
        secp256k1::PublicKey,
        transaction,
    },
    chain::Confirm,
    events::{Event, EventsProvider, PaymentPurpose},
    ln::{
        channelmanager::{PaymentId, RecipientOnionFields},
        msgs::{BaseMessageHandler, ChannelMessageHandler, Init, MessageSendEvent},
        types::ChannelId,
    },
    routing::router::{Path, Route, RouteHop},
    types::{
        features::{ChannelFeatures, NodeFeatures},
        payment::{PaymentHash, PaymentPreimage},
    },
    util::ser::Writeable,
};

use crate::node::{Kept, Manager, NETWORK, node};

/// Satoshis of the channel, all of the first node.
const CHANNEL_SATS: u64 = 16_000_000;
/// Of each payment.
const PAYMENT_MSAT: u64 = 10_000;
/// Blocks until a payment may be taken back.
const EXPIRY: u32 = 42;
/// Bytes that the link adds to each message: its type, its encrypted length, and two checksums.
const FRAME_BYTES: u64 = 2 + 18 + 16;

/// Two nodes with a channel.
pub struct Pair {
    nodes: [(Manager, PublicKey); 2],
    /// Bytes of all messages.
    bytes: Cell<u64>,
    /// What came of payments.
    events: RefCell<Vec<Event>>,
    paid: u64,
    claimed: Cell<u64>,
    sent: Cell<u64>,
    /// What the first node could pay at the beginning.
    outbound_msat: u64,
    route: Option<(u64, ChannelId)>,
    _dir: tempfile::TempDir,
}

impl Pair {
    /// An open channel.
    pub fn open(kept: Kept) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let nodes = [1, 2].map(|seed| node(seed, kept, dir.path()));
        let mut pair = Self {
            nodes,
            bytes: Cell::default(),
            events: RefCell::default(),
            paid: 0,
            claimed: Cell::default(),
            sent: Cell::default(),
            outbound_msat: 0,
            route: None,
            _dir: dir,
        };
        pair.connect();
        let [(a, _), (_, b_id)] = &pair.nodes;
        a.create_channel(*b_id, CHANNEL_SATS, 0, 42, None, None).expect("a channel");
        pair.settle();
        let transaction = pair.fund();
        pair.settle();
        pair.confirm(&transaction);
        pair.settle();
        let channels = pair.nodes[0].0.list_usable_channels();
        let channel = channels.first().expect("the channel is open");
        let scid = channel.get_outbound_payment_scid().expect("it can be named");
        pair.route = Some((scid, channel.channel_id));
        pair.outbound_msat = channel.outbound_capacity_msat;
        pair.bytes.set(0);
        pair
    }

    fn connect(&self) {
        let [(a, a_id), (b, b_id)] = &self.nodes;
        for (node, other, other_id, inbound) in [(a, b, b_id, false), (b, a, a_id, true)] {
            let features = other.init_features();
            let init = Init { features, networks: None, remote_network_address: None };
            node.peer_connected(*other_id, &init, inbound).expect("they speak the same");
        }
    }

    /// Gives the channel its transaction.
    fn fund(&self) -> Transaction {
        let found = self.events.borrow_mut().drain(..).find_map(|event| match event {
            Event::FundingGenerationReady { temporary_channel_id, output_script, .. } => {
                Some((temporary_channel_id, output_script))
            }
            _ => None,
        });
        let (channel, script_pubkey) = found.expect("it asks for a transaction");
        let output = TxOut { value: Amount::from_sat(CHANNEL_SATS), script_pubkey };
        let transaction = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: Vec::new(),
            output: vec![output],
        };
        let [(a, _), (_, b_id)] = &self.nodes;
        a.funding_transaction_generated(channel, *b_id, transaction.clone()).expect("it is right");
        transaction
    }

    fn confirm(&self, transaction: &Transaction) {
        let before = genesis_block(NETWORK).header;
        let header = Header {
            version: Version::NO_SOFT_FORK_SIGNALLING,
            prev_blockhash: before.block_hash(),
            merkle_root: before.merkle_root,
            ..before
        };
        for (node, _) in &self.nodes {
            node.transactions_confirmed(&header, &[(1, transaction)], 1);
            node.best_block_updated(&header, 1);
        }
    }

    /// So many payments on their way at once; returns when the payer knows of all that they are paid.
    pub fn pay(&mut self, count: usize) {
        for _ in 0..count {
            self.send();
        }
        self.settle();
        assert_eq!(self.sent.get(), self.paid, "all are paid");
    }

    fn send(&mut self) {
        let mut preimage = [0; 32];
        preimage[..8].copy_from_slice(&self.paid.to_le_bytes());
        self.paid += 1;
        let hash = PaymentHash(sha256::Hash::hash(&preimage).to_byte_array());
        let [(a, _), (b, b_id)] = &self.nodes;
        let secret = b.create_inbound_payment_for_hash(hash, None, 7_200, None).expect("an invoice");
        let (short_channel_id, _) = self.route.expect("the channel is open");
        let hop = RouteHop {
            pubkey: *b_id,
            node_features: NodeFeatures::empty(),
            short_channel_id,
            channel_features: ChannelFeatures::empty(),
            fee_msat: PAYMENT_MSAT,
            cltv_expiry_delta: EXPIRY,
            maybe_announced_channel: false,
        };
        let route = Route { paths: vec![Path { hops: vec![hop], blinded_tail: None }], route_params: None };
        let onion = RecipientOnionFields::secret_only(secret);
        a.send_payment_with_route(route, hash, onion, PaymentId(hash.0)).expect("there is room");
    }

    /// Hands over what either says, and does what its events ask for, until both are silent.
    fn settle(&self) {
        loop {
            let mut silent = true;
            for [from, to] in [[0, 1], [1, 0]] {
                let messages = self.nodes[from].0.get_and_clear_pending_msg_events();
                silent &= messages.is_empty();
                for message in messages {
                    self.deliver(from, to, message);
                }
            }
            for (node, _) in &self.nodes {
                node.process_pending_htlc_forwards();
                let came = RefCell::new(Vec::new());
                node.process_pending_events(&|event| {
                    came.borrow_mut().push(event);
                    Ok(())
                });
                for event in came.into_inner() {
                    silent = false;
                    self.event(node, event);
                }
            }
            if silent {
                return;
            }
        }
    }

    fn event(&self, node: &Manager, event: Event) {
        match event {
            Event::PaymentClaimable { purpose, payment_hash, amount_msat, .. } => {
                assert_eq!(amount_msat, PAYMENT_MSAT);
                assert!(matches!(purpose, PaymentPurpose::Bolt11InvoicePayment { .. }));
                node.claim_funds(self.preimage(payment_hash));
            }
            Event::PaymentClaimed { amount_msat, .. } => self.claimed.set(self.claimed.get() + amount_msat),
            Event::PaymentSent { .. } => self.sent.set(self.sent.get() + 1),
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => {
                let accepted =
                    node.accept_inbound_channel(&temporary_channel_id, &counterparty_node_id, 0, None);
                accepted.expect("it can be accepted");
            }
            Event::PaymentFailed { .. } | Event::HTLCHandlingFailed { .. } => panic!("{event:?}"),
            event => self.events.borrow_mut().push(event),
        }
    }

    /// The preimage of one of the newest payments.
    fn preimage(&self, wanted: PaymentHash) -> PaymentPreimage {
        let newest = (0..self.paid).rev().map(|number| {
            let mut preimage = [0; 32];
            preimage[..8].copy_from_slice(&number.to_le_bytes());
            preimage
        });
        let found = newest.into_iter().find(|it| sha256::Hash::hash(it).to_byte_array() == wanted.0);
        PaymentPreimage(found.expect("a payment that was made"))
    }

    fn count(&self, message: &impl Writeable) {
        let bytes = u64::try_from(message.serialized_length()).expect("a small message");
        self.bytes.set(self.bytes.get() + bytes + FRAME_BYTES);
    }

    fn deliver(&self, from: usize, to: usize, message: MessageSendEvent) {
        let (node, id) = (&self.nodes[to].0, self.nodes[from].1);
        macro_rules! hand {
            ($handle:ident, $message:expr) => {{
                self.count($message);
                node.$handle(id, $message);
            }};
        }
        match &message {
            MessageSendEvent::SendOpenChannel { msg, .. } => hand!(handle_open_channel, msg),
            MessageSendEvent::SendAcceptChannel { msg, .. } => hand!(handle_accept_channel, msg),
            MessageSendEvent::SendFundingCreated { msg, .. } => hand!(handle_funding_created, msg),
            MessageSendEvent::SendFundingSigned { msg, .. } => hand!(handle_funding_signed, msg),
            MessageSendEvent::SendChannelReady { msg, .. } => hand!(handle_channel_ready, msg),
            MessageSendEvent::SendChannelUpdate { msg, .. } => hand!(handle_channel_update, msg),
            MessageSendEvent::SendRevokeAndACK { msg, .. } => hand!(handle_revoke_and_ack, msg),
            MessageSendEvent::UpdateHTLCs { updates, .. } => {
                for add in &updates.update_add_htlcs {
                    hand!(handle_update_add_htlc, add);
                }
                for fulfill in &updates.update_fulfill_htlcs {
                    self.count(fulfill);
                    node.handle_update_fulfill_htlc(id, fulfill.clone());
                }
                assert!(updates.update_fail_htlcs.is_empty(), "no payment fails");
                for signed in &updates.commitment_signed {
                    hand!(handle_commitment_signed, signed);
                }
            }
            MessageSendEvent::HandleError { .. } => panic!("{message:?}"),
            // What is for others is not sent.
            _ => {}
        }
    }

    /// Fails unless exactly so many payments have arrived, to the unit.
    pub fn check(&self, made: u32) {
        let all_msat = u64::from(made) * PAYMENT_MSAT;
        assert_eq!(self.claimed.get(), all_msat, "what the payee got");
        let channels = self.nodes[0].0.list_usable_channels();
        let left = channels.first().expect("the channel is open").outbound_capacity_msat;
        // What may not be spent is the same before and after, but for the payee's reserve.
        assert!(self.outbound_msat - left <= all_msat, "what the payer gave");
    }

    /// Bytes of the messages of a payment.
    pub fn bytes_each(&self, made: u32) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a number to be looked at")]
        let bytes = self.bytes.get() as f64;
        bytes / f64::from(made)
    }
}
