//! What a peer sends: see `flash_sim::fuzz::message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| flash_sim::fuzz::message(bytes));
