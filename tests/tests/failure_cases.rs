//! Checks the list of failure cases in `docs/testing-cases.md`: none is missing, and each test that it names
//! exists and runs by default.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

const CASES: u32 = 36;

/// The tests that the list names for each case, as `FILE::NAME`.
fn listed(list: &str) -> BTreeMap<u32, Vec<&str>> {
    let rows = list.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let numbered = rows.filter_map(|(number, rest)| Some((number.parse().ok()?, rest)));
    let mut cases = BTreeMap::new();
    for (number, rest) in numbered {
        let (_, tests) = rest.rsplit_once(" | ").expect("a third column");
        let tests = tests.split('`').skip(1).step_by(2).collect();
        assert!(cases.insert(number, tests).is_none(), "case {number} is listed twice");
    }
    cases
}

/// The lines between the last blank line or closing brace and the function.
fn attributes<'a>(source: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let lines: Vec<&str> = source.lines().collect();
    let is_it = |line: &&str| {
        let line = line.trim_start();
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ")
            .is_some_and(|rest| rest.strip_prefix(name).is_some_and(|rest| rest.starts_with('(')))
    };
    let at = lines.iter().position(is_it)?;
    let above =
        lines[..at].iter().rev().map(|line| line.trim()).take_while(|line| line.starts_with(['#', '/']));
    Some(above.collect())
}

#[test]
fn every_case_has_tests_that_exist_and_run() {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let list = fs::read_to_string(root.join("docs/testing-cases.md")).expect("the list");
    let cases = listed(&list);
    assert_eq!(cases.keys().copied().collect::<Vec<_>>(), (1..=CASES).collect::<Vec<_>>());
    let mut sources: HashMap<PathBuf, String> = HashMap::new();
    for (number, tests) in cases {
        assert!(!tests.is_empty(), "case {number} has no test");
        for test in tests {
            let (file, name) = test.rsplit_once("::").unwrap_or_else(|| panic!("{test} is not FILE::NAME"));
            let path = root.join(file);
            let source = sources.entry(path.clone()).or_insert_with(|| {
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("case {number}: {file}: {error}"))
            });
            let above =
                attributes(source, name).unwrap_or_else(|| panic!("case {number}: there is no {test}"));
            let has = |what: &str| above.iter().any(|line| line.starts_with("#[") && line.contains(what));
            assert!(has("test"), "case {number}: {test} is no test");
            assert!(!has("ignore"), "case {number}: {test} does not run");
        }
    }
}
