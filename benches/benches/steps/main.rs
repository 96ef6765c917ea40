//! Each step on its own. `-- --test` runs each once, to see that it works.

mod channel;
mod ledger;
mod link;
mod store;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    channel::all(&mut criterion);
    ledger::all(&mut criterion);
    store::all(&mut criterion);
    link::all(&mut criterion);
    criterion.final_summary();
}
