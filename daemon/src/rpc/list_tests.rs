//! Lists of more channels than one answer has, over real HTTP.

use std::{collections::BTreeSet, fs};

use flash_proto::{ChannelId, SecretKey};

use super::{Scope, read_token, tests::Server};
use crate::{
    api::{ErrorCode, LISTED_MAX, ListRequest},
    bench::idle,
    client::Client,
    datadir::{self, DataDir},
    run,
};

/// One more than an answer has.
const CHANNELS: u32 = 10_001;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_are_listed_in_parts_of_which_none_repeats_or_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    idle::fill(dir.path(), "many", 1_000, CHANNELS, |_| ()).unwrap();
    let data = DataDir::open(&dir.path().join("many")).unwrap();
    let nobody = format!("nodes = [\"{}@127.0.0.1:9\"]", SecretKey::from_bytes([1; 32]).public());
    fs::write(datadir::config_path(data.path()), nobody).unwrap();
    let server = Server::of(dir, run::tests::started_in(&data).await.daemon.clone()).await;
    let token = read_token(server.dir.path(), Scope::Read).unwrap();
    let client = Client::new(&server.base, token).unwrap();
    let all = client.channels(false).await.unwrap();
    let ids: BTreeSet<ChannelId> = all.iter().map(|channel| channel.id).collect();
    assert_eq!((all.len(), ids.len()), (10_001, 10_001));
    let at_once = client.list(&ListRequest::default()).await.unwrap_err();
    assert_eq!(at_once.code, ErrorCode::InvalidRequest, "{at_once:?}");

    let ordered: Vec<ChannelId> = ids.iter().copied().collect();
    let after = ordered[399];
    let request = ListRequest { limit: Some(300), after: Some(after), ..ListRequest::default() };
    let part = client.list(&request).await.unwrap();
    assert_eq!(part.iter().map(|channel| channel.id).collect::<Vec<_>>(), ordered[400..700]);

    let prefix = after.to_string()[..2].to_owned();
    let begins = ordered.iter().filter(|id| id.to_string().starts_with(&prefix)).count();
    let found = client.list(&ListRequest { prefix, ..ListRequest::default() }).await.unwrap();
    assert_eq!(found.len(), begins);

    let too_many = ListRequest { limit: Some(LISTED_MAX + 1), ..ListRequest::default() };
    let refused = client.list(&too_many).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidRequest, "{refused:?}");
}
