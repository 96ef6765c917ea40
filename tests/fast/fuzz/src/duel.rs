//! Two parties, each byte one of the steps that are possible then: see `flash_sim::fuzz::duel`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| flash_sim::fuzz::duel(bytes));
