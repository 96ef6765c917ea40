//! Payments, one or many.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use clap::{Args, value_parser};
use flash_proto::{Amount, limits};
use futures_util::{Stream as Lines, StreamExt, stream};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{
    Context,
    channel::ChannelName,
    output::{Failure, Output},
    view,
    wait::{interruptible, wait},
};
use crate::{
    api::{ApiError, ErrorCode, PayRequest, PayResult, StreamLine, StreamOutcome, TickRequest},
    exit::Exit,
    rpc::Scope,
};

/// Result lines that may share one write.
const LINES_PER_WRITE_MAX: usize = 1024;

/// Pay in a channel; returns when the payee has the payment on its disk.
#[derive(Debug, Args)]
pub struct Pay {
    /// The channel's id, or enough of its first digits
    channel: ChannelName,
    /// How much, such as 250, 1.5Ki or 2Mi
    amount: Amount,
    /// What for, for the payee: at most 32 bytes
    #[arg(long)]
    reference: Option<String>,
    /// Repeating a payment with the same key never pays twice: at most 64 bytes
    #[arg(long)]
    key: Option<String>,
}

impl Pay {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client(Scope::Pay)?;
        let id = self.channel.find(&client).await?;
        let request = PayRequest { amount: self.amount, reference: self.reference, key: self.key };
        let goes_on = format!("`flash channel show {}` shows what became of it", view::short(&id));
        let paid = wait("waiting for the payee", &goes_on, client.pay(id, &request)).await?;
        context.output.value(&paid, |paid| {
            let repeated = if paid.repeated { "; paid before, under the same key" } else { "" };
            format!("{}{repeated}", self::paid(paid))
        })
    }
}

fn paid(paid: &PayResult) -> String {
    let amount = view::amount(paid.amount);
    match paid.ticks {
        None => format!("paid {amount}, payment {}", paid.number),
        Some(1) => format!("paid {amount} in 1 tick, payment {}", paid.number),
        Some(ticks) => format!("paid {amount} in {ticks} ticks, up to payment {}", paid.number),
    }
}

/// Pay by ticks, which cost one hash each; returns when the payee has the last of them on its disk.
#[derive(Debug, Args)]
#[command(
    after_help = "Ticks of one unit go under one signature, 4096 of them, and cost the payee one hash each. \
    A payment between them, or another unit, takes a new signature."
)]
pub struct Tick {
    /// The channel's id, or enough of its first digits
    channel: ChannelName,
    /// What each tick pays, such as 5 or 1.5Ki
    unit: Amount,
    /// How many ticks
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=i64::from(limits::TICKS_MAX)))]
    count: u32,
    /// Repeating this with the same key never pays twice: at most 64 bytes
    #[arg(long)]
    key: Option<String>,
}

impl Tick {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client(Scope::Pay)?;
        let id = self.channel.find(&client).await?;
        let request = TickRequest { unit: self.unit, count: self.count, key: self.key };
        let goes_on = format!("`flash channel show {}` shows what became of it", view::short(&id));
        let paid = wait("waiting for the payee", &goes_on, client.tick(id, &request)).await?;
        context.output.value(&paid, |paid| {
            let repeated = if paid.repeated { "; paid before, under the same key" } else { "" };
            format!("{}{repeated}", self::paid(paid))
        })
    }
}

/// Pay a stream of payments, one per line of standard input.
#[derive(Debug, Args)]
#[command(after_help = "Each line is an amount (250, 1.5Ki) or JSON: \
    {\"amount\":\"250\",\"reference\":\"kWh 12\",\"key\":\"session-7-12\"} for a payment, \
    {\"unit\":\"5\",\"count\":10} for ticks.\n\
    One result is printed per line, in the same order, when the payee has the payment on its disk.")]
pub struct Stream {
    /// The channel's id, or enough of its first digits
    channel: ChannelName,
    /// Read the payments from standard input
    #[arg(long, required = true)]
    from_stdin: bool,
}

/// How far the input was read.
#[derive(Debug, Default)]
struct Input {
    /// The last line that an answer is due for.
    asked: AtomicU64,
    ended: AtomicBool,
}

/// What became of the lines.
#[derive(Debug, Default)]
struct Tally {
    answered: u64,
    paid: u64,
    sum: Amount,
    refused: u64,
}

impl Stream {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client(Scope::Pay)?;
        let id = self.channel.find(&client).await?;
        let input = Arc::new(Input::default());
        let answers = client.stream(id, stdin_lines(Arc::clone(&input))).await?;
        let goes_on = format!("`flash channel show {}` shows what was paid", view::short(&id));
        let tally = interruptible(&goes_on, print(context.output, answers)).await?;
        let Tally { answered, paid, sum, refused } = tally;
        context.output.note(&format!("{paid} paid, {} in all; {refused} refused", view::amount(sum)));
        if !input.ended.load(Ordering::Acquire) || answered != input.asked.load(Ordering::Acquire) {
            let message = format!("the daemon ended the stream after line {answered}");
            let hint = "the lines after it may have been paid; give payments a `key` to repeat them safely";
            return Err(ApiError::new(ErrorCode::DaemonUnreachable, message, hint).into());
        }
        if refused > 0 { Err(Failure::Told(Exit::Refused)) } else { Ok(()) }
    }
}

fn stdin_lines(input: Arc<Input>) -> impl Lines<Item = io::Result<String>> + Send + 'static {
    let lines = BufReader::new(tokio::io::stdin()).lines();
    stream::unfold((lines, input, 1_u64), |(mut lines, input, number)| async move {
        let line = lines.next_line().await.transpose();
        match &line {
            None => input.ended.store(true, Ordering::Release),
            // The daemon does not answer blank lines.
            Some(Ok(line)) if !line.trim().is_empty() => input.asked.store(number, Ordering::Release),
            Some(_) => {}
        }
        Some((line?, (lines, input, number.saturating_add(1))))
    })
}

async fn print(
    output: Output,
    answers: impl Lines<Item = Result<StreamLine, ApiError>>,
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let mut answers = std::pin::pin!(answers.ready_chunks(LINES_PER_WRITE_MAX));
    while let Some(page) = answers.next().await {
        let mut out = io::BufWriter::new(io::stdout().lock());
        for answer in page {
            let answer = answer?;
            tally.add(&answer);
            output.line(&mut out, &answer, line)?;
        }
        out.flush()?;
    }
    Ok(tally)
}

impl Tally {
    fn add(&mut self, answer: &StreamLine) {
        self.answered = answer.line;
        match &answer.outcome {
            StreamOutcome::Paid(paid) => {
                self.paid = self.paid.saturating_add(1);
                if !paid.repeated {
                    self.sum = self.sum.checked_add(paid.amount).unwrap_or(Amount::MAX);
                }
            }
            StreamOutcome::Refused { .. } => self.refused = self.refused.saturating_add(1),
        }
    }
}

fn line(answer: &StreamLine) -> String {
    let number = answer.line;
    match &answer.outcome {
        StreamOutcome::Paid(paid) => {
            let repeated = if paid.repeated { " (paid before)" } else { "" };
            format!("line {number}: {}{repeated}", self::paid(paid))
        }
        StreamOutcome::Refused { error } => format!("line {number}: refused: {error}"),
    }
}
