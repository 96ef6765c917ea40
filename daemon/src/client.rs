//! A client of the admin RPC: what the command line is made of, and what programs in Rust can use.

use std::{cmp::Reverse, io, path::Path, time::Duration};

use bytes::Bytes;
use flash_proto::{BlockId, ChannelId, TransactionId};
use futures_util::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use reqwest::{Method, RequestBuilder, Response, header, redirect};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::AsyncBufReadExt;
use tokio_util::io::StreamReader;
use zeroize::Zeroizing;

use crate::{
    api::{
        ApiError, ChannelInfo, CloseRequest, ConfirmedBlock, ErrorCode, Event, HistoryEntry, Info,
        LedgerStatus, ListRequest, MilestoneInfo, NewAddress, OpenRequest, PayRequest, PayResult,
        PaymentReceipt, PeerRequest, PublishRequest, ReceiptRequest, RecoverRequest, RecoverResult,
        SendRequest, SendResult, StakeRequest, Stopping, StreamLine, TickRequest, TowerHeld, TowerInfo,
        TransactionInfo, WalletBalance,
    },
    datadir::ready_path,
    rpc::{Scope, read_token},
};

const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Lines of a stream of payments that may share one write.
const LINES_PER_WRITE_MAX: usize = 1024;
/// Channels of one answer, when all are asked for.
const LISTED_AT_ONCE: usize = 1_000;

/// What the running daemon says about itself in `ready.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Where the RPC listens: `IP:PORT`.
    pub rpc: String,
    /// The process.
    pub pid: u32,
}

impl Ready {
    /// Reads it in the data directory `dir`.
    ///
    /// # Errors
    /// [`ErrorCode::DaemonUnreachable`] if there is none, which means that no daemon runs.
    pub fn read(dir: &Path) -> Result<Self, ApiError> {
        let path = ready_path(dir);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let message = if error.kind() == io::ErrorKind::NotFound {
                format!("no daemon runs on {}", dir.display())
            } else {
                format!("{}: {error}", path.display())
            };
            let hint = format!("start one with `flashd --data {}`, or name another directory", dir.display());
            ApiError::new(ErrorCode::DaemonUnreachable, message, hint)
        })?;
        serde_json::from_str(&text).map_err(|error| {
            let message = format!("{} is malformed: {error}", path.display());
            ApiError::new(ErrorCode::DaemonUnreachable, message, "start the daemon again; it writes the file")
        })
    }
}

/// A connection to a daemon's RPC; cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Zeroizing<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.base)
    }
}

type Answer<T> = Result<T, ApiError>;

impl Client {
    /// A client of the RPC at `base` (`http://127.0.0.1:15601`; `http://` may be left out).
    ///
    /// # Errors
    /// [`ErrorCode::InvalidRequest`] if this is no such URL.
    pub fn new(base: &str, token: Zeroizing<String>) -> Answer<Self> {
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        let base = base.trim_end_matches('/').to_owned();
        let invalid = |reason: String| {
            let message = format!("`{base}` is not the URL of an RPC: {reason}");
            ApiError::new(ErrorCode::InvalidRequest, message, "write it as http://127.0.0.1:15601")
        };
        let url: reqwest::Url = base.parse().map_err(|error| invalid(format!("{error}")))?;
        if url.scheme() != "http" || url.host_str().is_none() {
            return Err(invalid("it must begin with http:// and name a host".to_owned()));
        }
        let http = reqwest::Client::builder()
            // The daemon is on this machine; a proxy for the outside world is not for it.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_WAIT)
            .build()
            .map_err(|error| ApiError::new(ErrorCode::Internal, text(&error), "this is a defect"))?;
        Ok(Self { http, base, token })
    }

    /// A client of the daemon that runs on the data directory `dir`, with the token of `scope`; another
    /// RPC address or token, if given, is used instead.
    ///
    /// # Errors
    /// [`ErrorCode::DaemonUnreachable`] if none runs, [`ErrorCode::Unauthorized`] if the token cannot be
    /// read.
    pub fn of_data_dir(
        dir: &Path,
        scope: Scope,
        rpc: Option<&str>,
        token: Option<Zeroizing<String>>,
    ) -> Answer<Self> {
        let rpc = rpc.map_or_else(|| Ready::read(dir).map(|ready| ready.rpc), |rpc| Ok(rpc.to_owned()))?;
        let token = token.map_or_else(|| read_token(dir, scope), Ok).map_err(|error| {
            let hint = "run the command as the daemon's user, or give a token in FLASH_TOKEN";
            ApiError::new(ErrorCode::Unauthorized, error.to_string(), hint)
        })?;
        Self::new(&rpc, token)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(self.token.as_str())
    }

    async fn send_request(&self, request: RequestBuilder) -> Answer<Response> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        Err(serde_json::from_slice(&body).unwrap_or_else(|_| self.foreign(&format!("it answered {status}"))))
    }

    async fn value<T: DeserializeOwned>(&self, request: RequestBuilder) -> Answer<T> {
        let body =
            self.send_request(request).await?.bytes().await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&body).map_err(|error| self.foreign(&error.to_string()))
    }

    fn unreachable(&self, error: &reqwest::Error) -> ApiError {
        let (message, hint) = if error.is_connect() {
            (
                format!("cannot reach the daemon at {}: {}", self.base, text(error)),
                "is it running? start it with `flashd`",
            )
        } else {
            (
                format!("the connection to the daemon at {} was lost: {}", self.base, text(error)),
                "what was asked for may have been done; look before asking again",
            )
        };
        ApiError::new(ErrorCode::DaemonUnreachable, message, hint)
    }

    fn foreign(&self, reason: &str) -> ApiError {
        let message = format!("what answers at {} does not speak like this daemon: {reason}", self.base);
        ApiError::new(ErrorCode::Internal, message, "check the address and that both have the same version")
    }

    /// GET of any path, such as `/v1/info`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Answer<T> {
        self.value(self.request(Method::GET, path)).await
    }

    /// POST to any path with a JSON body.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Answer<T> {
        self.value(self.request(Method::POST, path).json(body)).await
    }

    /// The daemon at a glance.
    pub async fn info(&self) -> Answer<Info> {
        self.get("/v1/info").await
    }

    /// What the daemon counts, in the OpenMetrics format.
    pub async fn metrics(&self) -> Answer<String> {
        let response = self.send_request(self.request(Method::GET, "/metrics")).await?;
        response.text().await.map_err(|error| self.unreachable(&error))
    }

    /// A new address to receive money at.
    pub async fn new_address(&self) -> Answer<NewAddress> {
        self.post("/v1/wallet/addresses", &()).await
    }

    /// The wallet's money.
    pub async fn balance(&self) -> Answer<WalletBalance> {
        self.get("/v1/wallet/balance").await
    }

    /// What came and went, newest first.
    pub async fn history(&self, limit: usize) -> Answer<Vec<HistoryEntry>> {
        self.get(&format!("/v1/wallet/history?limit={limit}")).await
    }

    /// Looks for money at the first addresses of the seed, and for its channels.
    pub async fn recover(&self, request: RecoverRequest) -> Answer<RecoverResult> {
        self.post("/v1/wallet/recover", &request).await
    }

    /// Sends money; returns when the transfer is applied.
    pub async fn send(&self, request: &SendRequest) -> Answer<SendResult> {
        self.post("/v1/wallet/transfers", request).await
    }

    /// The channels that are asked for: newest first, or with a limit in the order of their ids.
    pub async fn list(&self, request: &ListRequest) -> Answer<Vec<ChannelInfo>> {
        self.value(self.request(Method::GET, "/v1/channels").query(request)).await
    }

    /// All channels, newest first; closed ones too if `all`. However many there are, the daemon lists a part at a time.
    pub async fn channels(&self, all: bool) -> Answer<Vec<ChannelInfo>> {
        let mut channels: Vec<ChannelInfo> = Vec::new();
        loop {
            let after = channels.last().map(|channel| channel.id);
            let request = ListRequest { all, limit: Some(LISTED_AT_ONCE), after, ..ListRequest::default() };
            let mut some = self.list(&request).await?;
            let is_last = some.len() < LISTED_AT_ONCE;
            channels.append(&mut some);
            if is_last {
                channels.sort_by_key(|channel| Reverse(channel.created_ms));
                return Ok(channels);
            }
        }
    }

    /// One channel.
    pub async fn channel(&self, id: ChannelId) -> Answer<ChannelInfo> {
        self.get(&format!("/v1/channels/{id}")).await
    }

    /// Opens a channel; returns when it is open on the ledger.
    pub async fn open(&self, request: &OpenRequest) -> Answer<ChannelInfo> {
        self.post("/v1/channels", request).await
    }

    /// Locks more in a channel; returns when that is applied if `wait`, otherwise once it is submitted.
    pub async fn top_up(&self, id: ChannelId, request: StakeRequest, wait: bool) -> Answer<ChannelInfo> {
        self.post(&format!("/v1/channels/{id}/topup?wait={wait}"), &request).await
    }

    /// Takes money out of a channel; returns when that is applied if `wait`, otherwise once the peer is asked.
    pub async fn withdraw(&self, id: ChannelId, request: StakeRequest, wait: bool) -> Answer<ChannelInfo> {
        self.post(&format!("/v1/channels/{id}/withdraw?wait={wait}"), &request).await
    }

    /// Closes a channel; returns when the money is out if `wait`, otherwise once the close is submitted.
    pub async fn close(&self, id: ChannelId, request: CloseRequest, wait: bool) -> Answer<ChannelInfo> {
        self.post(&format!("/v1/channels/{id}/close?wait={wait}"), &request).await
    }

    /// Says which machine the peer of a recovered channel is.
    pub async fn meet(&self, id: ChannelId, request: &PeerRequest) -> Answer<ChannelInfo> {
        self.post(&format!("/v1/channels/{id}/peer"), request).await
    }

    /// Says that the records of a channel are the newest there are.
    pub async fn trust(&self, id: ChannelId) -> Answer<ChannelInfo> {
        self.post(&format!("/v1/channels/{id}/trust"), &()).await
    }

    /// Proof of one payment.
    pub async fn receipt(&self, id: ChannelId, request: ReceiptRequest) -> Answer<PaymentReceipt> {
        let ReceiptRequest { payment, received } = request;
        self.get(&format!("/v1/channels/{id}/receipt?payment={payment}&received={received}")).await
    }

    /// Pays; returns when the payee has the payment on its disk.
    pub async fn pay(&self, id: ChannelId, request: &PayRequest) -> Answer<PayResult> {
        self.post(&format!("/v1/channels/{id}/payments"), request).await
    }

    /// Pays by ticks; returns when the payee has the last of them on its disk.
    pub async fn tick(&self, id: ChannelId, request: &TickRequest) -> Answer<PayResult> {
        self.post(&format!("/v1/channels/{id}/ticks"), request).await
    }

    /// What each watchtower says that it holds of a channel.
    pub async fn tower_held(&self, id: ChannelId) -> Answer<Vec<TowerHeld>> {
        self.get(&format!("/v1/channels/{id}/towers")).await
    }

    /// The watchtowers, in the order of the configuration.
    pub async fn towers(&self) -> Answer<Vec<TowerInfo>> {
        self.get("/v1/towers").await
    }

    /// How far the ledger is verified.
    pub async fn ledger_status(&self) -> Answer<LedgerStatus> {
        self.get("/v1/ledger/status").await
    }

    /// A transaction on the ledger.
    pub async fn transaction(&self, id: TransactionId) -> Answer<TransactionInfo> {
        self.get(&format!("/v1/ledger/transactions/{id}")).await
    }

    /// A milestone; the newest if `index` is `None`.
    pub async fn milestone(&self, index: Option<u64>) -> Answer<MilestoneInfo> {
        let index = index.map_or_else(|| "latest".to_owned(), |index| index.to_string());
        self.get(&format!("/v1/ledger/milestones/{index}")).await
    }

    /// Puts data on the ledger; returns when a milestone has confirmed it.
    pub async fn publish(&self, request: &PublishRequest) -> Answer<ConfirmedBlock> {
        self.post("/v1/ledger/data", request).await
    }

    /// A block with what proves that a milestone confirmed it.
    pub async fn confirmed_block(&self, id: BlockId) -> Answer<ConfirmedBlock> {
        self.get(&format!("/v1/ledger/blocks/{id}")).await
    }

    /// Asks the daemon to stop; returns before it has.
    pub async fn shutdown(&self) -> Answer<Stopping> {
        self.post("/v1/shutdown", &()).await
    }

    /// Pays a stream of payments: `lines` go out as they come (each a [`crate::api::StreamRequest`] as JSON or only
    /// an amount, without a line end), and what becomes of each comes back in the same order, while `lines`
    /// goes on. An error of `lines` ends the stream; the payments before it stay paid.
    pub async fn stream(
        &self,
        id: ChannelId,
        lines: impl Stream<Item = io::Result<String>> + Send + 'static,
    ) -> Answer<BoxStream<'static, Answer<StreamLine>>> {
        let writes = lines.ready_chunks(LINES_PER_WRITE_MAX).map(|lines| {
            let mut text = String::new();
            for line in lines {
                text.push_str(&line?);
                text.push('\n');
            }
            Ok::<_, io::Error>(Bytes::from(text))
        });
        let request = self
            .request(Method::POST, &format!("/v1/channels/{id}/stream"))
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .body(reqwest::Body::wrap_stream(writes));
        let response = self.send_request(request).await?;
        let client = self.clone();
        let answers = body_lines(response).map(move |line| {
            let line = line.map_err(|error| client.broke_off(&error))?;
            serde_json::from_str(&line).map_err(|error| client.foreign(&error.to_string()))
        });
        Ok(answers.boxed())
    }

    fn broke_off(&self, error: &io::Error) -> ApiError {
        let message = format!("the connection to the daemon at {} was lost: {error}", self.base);
        let hint =
            "payments without an answer may have been made; give payments a `key` to repeat them safely";
        ApiError::new(ErrorCode::DaemonUnreachable, message, hint)
    }

    /// The events after number `after` (or from the oldest that are kept), in order and without gaps;
    /// those to come as well if `follow`. Ends when the daemon stops.
    pub async fn events(
        &self,
        after: Option<u64>,
        follow: bool,
    ) -> Answer<BoxStream<'static, Answer<Event>>> {
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        let request = self.request(Method::GET, &format!("/v1/events?follow={follow}{after}"));
        let lines = body_lines(self.send_request(request).await?);
        let (client, mut kind) = (self.clone(), String::new());
        let events = lines.filter_map(move |line| {
            let event = match line {
                Err(error) => Some(Err(client.broke_off(&error))),
                Ok(line) => match line.split_once(": ") {
                    Some(("event", name)) => {
                        name.clone_into(&mut kind);
                        None
                    }
                    Some(("data", data)) => Some(client.event(&kind, data)),
                    _ => None,
                },
            };
            std::future::ready(event)
        });
        Ok(events.boxed())
    }

    fn event(&self, kind: &str, data: &str) -> Answer<Event> {
        let foreign = |error: serde_json::Error| self.foreign(&error.to_string());
        if kind == "error" {
            return Err(serde_json::from_str(data).map_err(foreign)?);
        }
        serde_json::from_str(data).map_err(foreign)
    }
}

fn body_lines(response: Response) -> BoxStream<'static, io::Result<String>> {
    let lines = StreamReader::new(response.bytes_stream().map_err(io::Error::other)).lines();
    stream::unfold(Some(lines), |lines| async move {
        let mut lines = lines?;
        match lines.next_line().await {
            Ok(line) => Some((Ok(line?), Some(lines))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

/// An error with its causes: the outermost alone says only that something failed.
fn text(error: &reqwest::Error) -> String {
    let mut source = std::error::Error::source(error);
    let mut innermost = None;
    while let Some(cause) = source {
        innermost = Some(cause.to_string());
        source = cause.source();
    }
    innermost.unwrap_or_else(|| error.to_string())
}
