//! Files on the ledger, by the command line: proofs hold without any node, and whatever is changed is found.

use std::{fs, path::Path, process::Command};

use flash_proto::Amount;
use flash_tests::{Ended, Net, binary, run};
use flashd::datadir::network_path;
use serde_json::Value;

async fn flash(data: &Path, arguments: &[&str], files: &[&Path]) -> Ended {
    let mut command = Command::new(binary("flash"));
    command.arg("--data").arg(data).arg("--json").arg("ledger").args(arguments).args(files);
    run(command).await
}

/// Runs `flash ledger verify`, which must end with this code and say this.
async fn verify(data: &Path, file: &Path, options: &[&str], code: i32, says: &str) {
    let ended = flash(data, &[&["verify"], options].concat(), &[file]).await;
    assert_eq!(ended.code, Some(code), "{options:?}: {}", ended.output);
    assert!(ended.output.contains(says), "{options:?} should say `{says}`: {}", ended.output);
}

/// The proof in this file with one change.
fn changed(proof: &Path, change: impl FnOnce(&mut Value)) -> String {
    let mut value: Value = serde_json::from_str(&fs::read_to_string(proof).unwrap()).unwrap();
    change(&mut value);
    let path = proof.with_extension("changed");
    fs::write(&path, value.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Changes the digit so many from the end.
fn flip(text: &mut Value, from_end: usize) {
    let mut digits = text.as_str().unwrap().as_bytes().to_vec();
    let at = digits.len() - from_end;
    digits[at] = if digits[at] == b'0' { b'1' } else { b'0' };
    *text = String::from_utf8(digits).unwrap().into();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_proven_offline_and_every_change_is_found() {
    let mut net = Net::start().await;
    let mut car = net.daemon("car", Amount::ZERO).await;
    let data = car.data().to_owned();
    let firmware = net.path().join("firmware.bin");
    fs::write(&firmware, vec![7; 200_000]).unwrap();
    let ended = flash(&data, &["notarize", "--tag", "firmware"], &[&firmware]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    let reports: Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!((&reports[0]["tag"], &reports[0]["bytes"]), (&"firmware".into(), &200_000.into()));
    let block = reports[0]["block"].as_str().unwrap().to_owned();
    verify(&data, &firmware, &["--block", &block], 0, "milestone_index").await;
    verify(&data, &firmware, &["--block", &"0".repeat(64)], 8, "no node proves").await;
    let again = flash(&data, &["notarize"], &[&firmware]).await;
    assert_eq!(again.code, Some(2), "an older proof is kept: {}", again.output);
    assert!(again.output.contains("exists already"), "{}", again.output);

    // From here on there is neither a daemon nor a node, only the network's file.
    assert_eq!(car.stop().await.code, Some(0));
    net.node.kill();
    let network = network_path(&data);
    let nowhere = net.path().join("nowhere");
    let by_file = ["--network", network.to_str().unwrap()];
    verify(&nowhere, &firmware, &by_file, 0, &block).await;
    verify(&data, &firmware, &[], 0, &block).await;

    let proof = net.path().join("firmware.bin.flash-proof");
    let with = |change: &dyn Fn(&mut Value)| changed(&proof, change);
    let signed = with(&|it| flip(&mut it["evidence"]["milestone"], 1));
    verify(&data, &firmware, &["--proof", &signed], 13, "signatures_invalid").await;
    let block = with(&|it| flip(&mut it["evidence"]["block"], 1));
    verify(&data, &firmware, &["--proof", &block], 12, "proof_invalid").await;
    let path = with(&|it| it["path"]["leaves"] = 2.into());
    verify(&data, &firmware, &["--proof", &path], 12, "proof_invalid").await;
    let hash = with(&|it| flip(&mut it["file"]["hash"], 1));
    verify(&data, &firmware, &["--proof", &hash], 12, "proof_invalid").await;
    let cut = with(&|it| *it = Value::Null);
    verify(&data, &firmware, &["--proof", &cut], 12, "is no proof").await;
    let named = with(&|it| flip(&mut it["network"], 1));
    verify(&data, &firmware, &["--proof", &named], 14, "other_network").await;
    let other = net.path().join("other.json");
    fs::write(&other, fs::read_to_string(&network).unwrap().replace("\"pow_bits\": 8", "\"pow_bits\": 9"))
        .unwrap();
    verify(&data, &firmware, &["--network", other.to_str().unwrap()], 14, "other_network").await;
    verify(&data, &firmware, &["--proof", "nowhere"], 2, "nowhere").await;
    let mut content = fs::read(&firmware).unwrap();
    content[150_000] ^= 1;
    fs::write(&firmware, content).unwrap();
    verify(&data, &firmware, &[], 11, "file_changed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_makes_one_block_and_a_proof_for_each_file() {
    let net = Net::start().await;
    let car = net.daemon("car", Amount::ZERO).await;
    let readings = net.path().join("readings");
    fs::create_dir_all(readings.join("may")).unwrap();
    let files = ["1.csv", "2.csv", "may/1.csv"].map(|name| readings.join(name));
    for (n, file) in files.iter().enumerate() {
        fs::write(file, format!("reading {n}")).unwrap();
    }
    let ended = flash(car.data(), &["notarize"], &[&readings]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    let reports: Vec<Value> = serde_json::from_str(&ended.output).unwrap();
    assert_eq!(reports.len(), 3);
    let block = reports[0]["block"].as_str().unwrap();
    for file in &files {
        verify(car.data(), file, &[], 0, block).await;
    }
    let others = format!("{}.flash-proof", files[1].display());
    verify(car.data(), &files[0], &["--proof", &others], 11, "file_changed").await;
    verify(car.data(), &files[0], &["--block", block], 12, "proof_invalid").await;
}
