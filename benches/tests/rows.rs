//! The command line of the table.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flash-benches"));
    command.args(arguments).output().expect("it starts")
}

#[test]
fn each_row_can_be_asked_for_by_its_name() {
    let listed = run(&["--list"]);
    assert!(listed.status.success());
    let text = String::from_utf8(listed.stdout).expect("text");
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"single") && names.contains(&"saturated"), "{text}");
    let mut known = names.clone();
    known.sort_unstable();
    known.dedup();
    assert_eq!(known.len(), names.len(), "no name twice: {text}");
}

#[test]
fn a_row_that_is_not_there_is_refused_before_anything_runs() {
    let refused = run(&["--", "--row", "singel"]);
    assert!(!refused.status.success());
    let text = String::from_utf8(refused.stderr).expect("text");
    assert!(text.contains("no row `singel`") && text.contains("single"), "{text}");
}
