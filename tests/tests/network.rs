//! The short version of the network that everything happens to: every stage once.

use std::time::Duration;

use flash_tests::{
    Random,
    network::{Plan, Where, run},
};

#[tokio::test(flavor = "multi_thread")]
async fn eight_nodes_go_through_everything_and_end_with_one_ledger() {
    let plan = Plan {
        time: Duration::ZERO,
        interval: Duration::from_millis(400),
        stage_milestones: 6,
        place: Where::Loopback,
    };
    let report = run(plan, Random::new()).await;
    print!("{report}");
    assert!(report.wrong.is_empty(), "{:#?}", report.wrong);
}
