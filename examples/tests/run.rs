//! The examples run, and say what they should.

use std::process::{Command, Output};

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{error}", output.status);
    output
}

#[test]
fn two_machines_pay_each_other_and_close() {
    let output = run(env!("CARGO_BIN_EXE_two-machines"), &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("B: got 300").count(), 3, "{text}");
    assert!(text.ends_with("A got 1.24965Mi, B got 350i\n"), "{text}");
}

#[test]
fn a_household_pays_two_hours_by_the_wh() {
    let output = run(env!("CARGO_BIN_EXE_household-meter"), &["--minutes", "120", "--speed", "100000"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("2007-02-01T00") && text.contains("2007-02-01T01"), "{text}");
    assert!(text.contains("every unit is accounted for"), "{text}");
}
