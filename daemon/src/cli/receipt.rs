//! Proofs of single payments: made with the daemon, checked with nothing but their file.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use flash_proto::{
    Amount, ChannelId, NetworkId, PaymentProof, ProvenPayment, PublicKey, Side,
    receipt::{PROOF_BYTES_MAX, ProofError, Signer},
};
use serde::Serialize;

use super::{
    Context,
    channel::ChannelName,
    notary::{read_proof, write_proof},
    output::Failure,
    view,
    wait::wait,
};
use crate::{
    api::{ApiError, ErrorCode, ReceiptRequest},
    rpc::Scope,
};

/// What a proof file's name ends with.
const PROOF_SUFFIX: &str = "flash-receipt";
const NOT_PROVEN: &str = "whose keys these are, that the channel is on the ledger, and the payment's number";

/// Prove one single payment, or check such a proof
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Receipt {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    prove: Option<Prove>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a proof, with nothing but its file
    Verify(Verify),
}

/// Which payment, and where its proof goes.
#[derive(Debug, Args)]
struct Prove {
    /// The channel's id, or enough of its first digits
    channel: ChannelName,
    /// The payment's number in the channel, as `flash pay` printed it
    #[arg(long, value_name = "N")]
    payment: u64,
    /// A payment that was received, proven by the payer's signature, instead of one that was sent, proven by the
    /// payee's
    #[arg(long)]
    received: bool,
    /// Where the proof goes [default: CHANNEL-N.flash-receipt here]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What to check.
#[derive(Debug, Args)]
struct Verify {
    /// The proof
    file: PathBuf,
    /// The channel that it must be of
    #[arg(long, value_name = "ID")]
    channel: Option<ChannelId>,
    /// The payee's key in the channel
    #[arg(long, value_name = "KEY")]
    payee: Option<PublicKey>,
    /// The payer's key in the channel
    #[arg(long, value_name = "KEY")]
    payer: Option<PublicKey>,
}

/// What is said of a proven payment.
#[derive(Serialize)]
struct Report<'a> {
    file: &'a Path,
    payment: String,
    amount: Amount,
    reference: String,
    tick: bool,
    network: NetworkId,
    channel: ChannelId,
    payer: Side,
    payer_key: PublicKey,
    payee_key: PublicKey,
    update: String,
    position: u32,
    signed_by: Signer,
    signed_update: String,
    signed_total: Amount,
    not_proven: &'static str,
}

impl Receipt {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match (self.command, self.prove) {
            (Some(Command::Verify(verify)), _) => verify.run(context),
            (None, Some(prove)) => prove.run(context).await,
            (None, None) => {
                let hint = "see `flash receipt --help`";
                Err(ApiError::new(ErrorCode::InvalidRequest, "no channel and no proof is named", hint).into())
            }
        }
    }
}

impl Prove {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client(Scope::Read)?;
        let id = self.channel.find(&client).await?;
        let name = || format!("{}-{}.{PROOF_SUFFIX}", view::short(&id), self.payment);
        let file = self.out.unwrap_or_else(|| name().into());
        if file.exists() {
            let message = format!("{} exists already", file.display());
            let hint = "move it away, or name another with --out";
            return Err(ApiError::new(ErrorCode::InvalidRequest, message, hint).into());
        }
        let request = ReceiptRequest { payment: self.payment, received: self.received };
        let asked = client.receipt(id, request);
        let proof = wait("asking for the receipt", "nothing was changed", asked).await?.proof;
        // What the daemon says is not taken on trust, either.
        let proven = proof.verify().map_err(|error| refused(&file, &error))?;
        let text = serde_json::to_string_pretty(&proof).map_err(io::Error::other)?;
        write_proof(&file, &text).map_err(|error| {
            let message = format!("{} cannot be written: {error}", file.display());
            ApiError::new(ErrorCode::InvalidRequest, message, "see to the disk, or name another with --out")
        })?;
        context.output.value(&report(&file, &proven), text_of)
    }
}

impl Verify {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let proof: PaymentProof = read_proof(&self.file, PROOF_BYTES_MAX, "name the proof's file")?;
        let proven = proof.verify().map_err(|error| refused(&self.file, &error))?;
        let pins = [
            ("channel", self.channel.map(|it| it.to_string()), proven.channel.to_string()),
            ("payee", self.payee.map(|it| it.to_string()), proven.payee_key.to_string()),
            ("payer", self.payer.map(|it| it.to_string()), proven.payer_key.to_string()),
        ];
        for (what, wanted, found) in pins {
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                let message = format!("the proof's {what} is {found}, not {wanted}");
                let hint = "it proves a payment, but not the one that you asked for";
                return Err(ApiError::new(ErrorCode::ProofInvalid, message, hint).into());
            }
        }
        context.output.value(&report(&self.file, &proven), text_of)
    }
}

fn refused(file: &Path, error: &ProofError) -> ApiError {
    let message = format!("{} proves nothing: {error}", file.display());
    let hint = "the proof was changed; get it again from whoever made it";
    ApiError::new(ErrorCode::ProofInvalid, message, hint)
}

fn report<'a>(file: &'a Path, proven: &ProvenPayment) -> Report<'a> {
    Report {
        file,
        payment: proven.number.to_string(),
        amount: proven.amount,
        reference: proven.reference.to_text(),
        tick: proven.tick,
        network: proven.network,
        channel: proven.channel,
        payer: proven.payer,
        payer_key: proven.payer_key,
        payee_key: proven.payee_key,
        update: proven.seq.to_string(),
        position: proven.position,
        signed_by: proven.signed_by,
        signed_update: proven.signed.seq.to_string(),
        signed_total: proven.signed.cumulative,
        not_proven: NOT_PROVEN,
    }
}

fn text_of(report: &Report<'_>) -> String {
    let what = if report.tick { "tick" } else { "payment" };
    let signed =
        format!("the {}, under a total of {}", report.signed_by.name(), view::amount(report.signed_total));
    view::details([
        ("proven", Some(format!("{what} of {}", view::amount(report.amount)))),
        // Anybody can write a reference.
        ("reference", Some(report.reference.escape_debug().to_string())),
        ("number", Some(report.payment.clone())),
        ("in update", Some(format!("{}, place {}", report.update, report.position))),
        ("channel", Some(report.channel.to_string())),
        ("network", Some(report.network.to_string())),
        ("paid by", Some(format!("{} {}", report.payer, report.payer_key))),
        ("paid to", Some(format!("{} {}", !report.payer, report.payee_key))),
        ("signed by", Some(signed)),
        ("not proven", Some(report.not_proven.to_owned())),
        ("file", Some(report.file.display().to_string())),
    ])
}
