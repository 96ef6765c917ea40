//! What a node is sent: see `flash_sim::fuzz::transaction`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| flash_sim::fuzz::transaction(bytes));
