//! What happened and what happens.

use std::io::{self, Write};

use clap::Args;
use futures_util::StreamExt;
use serde_json::Value;

use super::{
    Context,
    output::{Failure, Output},
    view,
};
use crate::{
    api::{ApiError, ErrorCode, Event},
    rpc::Scope,
};

/// Events that may share one write.
const EVENTS_PER_WRITE_MAX: usize = 1024;

/// Show what happened, and with --follow what happens.
#[derive(Debug, Args)]
pub struct Events {
    /// Only events after this number [default: all that are kept]
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    /// Go on with events as they happen
    #[arg(long)]
    follow: bool,
}

impl Events {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client(Scope::Read)?;
        let mut events = client.events(self.after, self.follow).await?.ready_chunks(EVENTS_PER_WRITE_MAX);
        let mut newest = self.after;
        while let Some(page) = events.next().await {
            let failed = print(context.output, page, &mut newest)?;
            if let Some(error) = failed {
                return Err(go_on_hint(error, newest).into());
            }
        }
        if self.follow {
            let ended = ApiError::new(ErrorCode::DaemonUnreachable, "the daemon stopped", "");
            return Err(go_on_hint(ended, newest).into());
        }
        Ok(())
    }
}

/// Prints events up to an error, if there is one.
fn print(
    output: Output,
    page: Vec<Result<Event, ApiError>>,
    newest: &mut Option<u64>,
) -> Result<Option<ApiError>, Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut failed = None;
    for event in page {
        match event {
            Ok(event) => {
                *newest = Some(event.number);
                output.line(&mut out, &event, line)?;
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    out.flush()?;
    Ok(failed)
}

fn go_on_hint(error: ApiError, newest: Option<u64>) -> ApiError {
    match newest {
        Some(number) if error.code == ErrorCode::DaemonUnreachable => {
            ApiError { hint: format!("go on later with `flash events --after {number}`"), ..error }
        }
        _ => error,
    }
}

fn line(event: &Event) -> String {
    let channel = event.channel.as_ref().map(view::short).unwrap_or_default();
    format!(
        "{:>8}  {}  {:<22}  {channel:<12}  {}",
        event.number,
        view::time(event.at_ms),
        event.kind,
        details("", &event.details).join("  ")
    )
}

/// `name=value` for each of the details, those inside of others as `outer.name=value`.
fn details(name: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Null => vec![],
        Value::Object(fields) => {
            let within =
                |field: &String| if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
            fields.iter().flat_map(|(field, value)| details(&within(field), value)).collect()
        }
        Value::String(text) => vec![format!("{name}={text}")],
        other => vec![format!("{name}={other}")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_named() {
        let shown = |value| details("", &value).join("  ");
        assert_eq!(shown(serde_json::json!({})), "");
        let nested =
            serde_json::json!({ "balances": { "ours": "25", "peers": null }, "by": "us", "count": 3 });
        assert_eq!(shown(nested), "balances.ours=25  by=us  count=3");
    }
}
