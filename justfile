# `just` lists what there is. The steps themselves are in .ci/run, so that they are the same everywhere.

_list:
    @just --list

# all tests
test *arguments:
    cargo test --workspace --locked {{arguments}}

# everything that must hold before a change is taken, or the steps named
ci *steps:
    .ci/run {{steps}}

# simulated lives of a channel for so many hours
soak hours="1":
    cargo run --release --locked --manifest-path tests/fast/Cargo.toml --package flash-sim-fast -- --minutes "$((60 * {{hours}}))"

# break the rules one at a time: does the simulator notice?
sabotage *arguments:
    cargo run --release --locked --manifest-path tests/fast/Cargo.toml --package flash-sim-fast --bin sabotage -- {{arguments}}

# inputs that nobody thought of, for so many seconds: duel, message, record or transaction
fuzz target="duel" seconds="60" *arguments:
    .ci/fuzz {{target}} -max_total_time={{seconds}} {{arguments}}

# which lines of the protocol and the channel no test reaches
coverage *crates:
    .ci/coverage {{crates}}

# change the protocol and the channel in one place after the other: does a test notice? `--shard 0/8` takes a sample
mutants *arguments:
    RUSTC_BOOTSTRAP=1 PROPTEST_MAX_SHRINK_ITERS=0 cargo mutants --package flash-proto --package flash-channel {{arguments}}

# every figure on this machine, with what it is compared with: `--list` shows the rows, `--row single` runs one
bench *arguments:
    cargo run --release --locked --package flash-benches -- {{arguments}}

# single steps of the core, in nanoseconds
bench-steps *arguments:
    cargo bench --locked --package flash-benches {{arguments}}

# the channel of LDK, for comparison; `just bench` then shows it, too
bench-ldk *arguments:
    cargo run --release --locked --manifest-path benches/ldk/Cargo.toml -- {{arguments}}

# the classic commands, made by a client library of 2019; needs Python and a package index
classic-client:
    cargo build --locked --package flashd --bin flashd
    tests/classic-client/run.sh

# two daemons and a ledger on this machine, paying each other
demo *arguments:
    cargo run --release --locked -- demo {{arguments}}

# eight nodes on this machine that everything happens to, for ten minutes
network *arguments:
    cargo run --release --locked --package flash-tests --bin network -- {{arguments}}

# build for ARM64 and run there what an emulator can run
arm64 *steps:
    .ci/arm64 {{steps}}

# the memory and the disk that a node and two daemons take
footprint *arguments:
    cargo run --release --locked -- footprint {{arguments}}

# format the code
fmt:
    cargo fmt --all

# the documentation of all crates, in target/doc
docs:
    .ci/run docs

# check the test vectors with the Python implementation
vectors:
    .ci/run vectors
