//! A node in a process of its own that is killed while it works: whatever it told anyone is still there.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use flash_proto::{Block, BlockId, Payload, block::Data};

use super::support::*;
use crate::{
    ledger::tests::support::*,
    node::{Node, NodeConfig},
    protocol::{NodeRequest, NodeResponse},
};

/// Tells the child where its directory is.
const DIRECTORY: &str = "FLASH_TEST_KILLED_DIRECTORY";

fn open(directory: &Path) -> Node {
    let config = NodeConfig::new(directory.to_owned(), params());
    Node::open(config).unwrap()
}

/// What the child does until it is killed: block after block and milestone after milestone, each told to the
/// parent once the node has answered.
#[test]
#[ignore = "the child process of the test below"]
fn child() {
    let Some(directory) = env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let node = open(&directory);
    let mut out = std::io::stdout().lock();
    for round in 0_u64.. {
        let data =
            Data { tag: std::process::id().to_le_bytes().to_vec(), data: round.to_le_bytes().to_vec() };
        let id = node.submit(&worked(node.params(), Block::new(tips(&node), Payload::Data(data)))).unwrap();
        writeln!(out, "\nblock {id}").unwrap();
        if round % 3 == 0 {
            let followed = node.issue_milestone(1, &signers()).unwrap();
            writeln!(out, "\nmilestone {}", followed.milestone.essence.index).unwrap();
        }
        out.flush().unwrap();
    }
}

#[test]
fn what_a_killed_node_had_told_is_still_there() {
    let directory = tempfile::tempdir().unwrap();
    let (mut blocks, mut milestone) = (Vec::<BlockId>::new(), 0_u64);
    for lines in [1, 7, 20, 41] {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "node::tests::killed::child", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut take = |line: String| match line.split_once(' ') {
            Some(("block", id)) => id.parse().map(|id| blocks.push(id)).is_ok(),
            Some(("milestone", index)) => index.parse().map(|index| milestone = index).is_ok(),
            _ => false,
        };
        let mut seen = 0;
        while seen < lines {
            seen += usize::from(take(told.next().expect("the child ended by itself")));
        }
        // SIGKILL: nothing in the child runs any more. What it wrote before can still be read.
        process.kill().unwrap();
        process.wait().unwrap();
        told.for_each(|line| _ = take(line));

        let node = open(directory.path());
        for block in &blocks {
            assert!(matches!(node.answer(NodeRequest::Block(*block)), NodeResponse::Block(Some(_))));
        }
        let chain = node.followed_after(0, usize::MAX).unwrap();
        assert!(u64::try_from(chain.len()).unwrap() >= milestone);
        for pair in chain.windows(2) {
            pair[1].milestone.essence.follows(&pair[0].milestone.essence).unwrap();
        }
    }
    assert!(blocks.len() > 40 && milestone > 10);
}
