//! What a disk holds: see `flash_sim::fuzz::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| flash_sim::fuzz::record(bytes));
