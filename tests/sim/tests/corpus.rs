//! Every input that a fuzzer found worth keeping, and the smaller ones around it.

use std::{fs, path::Path};

use flash_sim::fuzz::TARGETS;

#[test]
fn every_input_of_the_corpora() {
    for (name, target) in TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&directory).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            target(&bytes);
            // Cut short, and with a byte too many.
            target(&bytes[..bytes.len() / 2]);
            target(&[&bytes[..], &[0]].concat());
            inputs += 1;
        }
        assert!(inputs >= 5, "{name} has {inputs} inputs");
    }
}
