//! Holds docs/conformance.md to the list of statements and to the tests: one row for each statement, in order; what is kept is proven by
//! tests that exist and run, what is not offered has a reason.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const DOCUMENT: &str = "docs/conformance.md";
const STATEMENTS: &str = "docs/mqtt5-statements.tsv";
/// Test files whose comments name statements.
const NAMING: &str = "mqtt_";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A row of one of the tables.
#[derive(Debug)]
struct Row {
    statement: String,
    /// Level and whom it binds; the table of 3.1.1 has none.
    level: Option<String>,
    is_kept: bool,
    proof: String,
}

impl Row {
    /// The tests that a text names.
    fn tests(text: &str) -> Vec<&str> {
        text.split('`').skip(1).step_by(2).filter(|code| code.contains("::")).collect()
    }
}

/// The rows below a heading, up to the next heading of its kind.
fn table(document: &str, heading: &str) -> Vec<Row> {
    let (_, rest) = document.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no ## {heading}"));
    let section = rest.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with('|'));
    let lines = lines.filter(|line| !line.starts_with("| statement |") && !line.starts_with("|---"));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let (statement, level, state, proof) = match cells[..] {
                [statement, level, state, proof] => (statement, Some(level.to_owned()), state, proof),
                [statement, state, proof] => (statement, None, state, proof),
                _ => panic!("expected 3 or 4 cells, got {line}"),
            };
            let (id, gist) = statement.split_once(' ').unwrap_or_else(|| panic!("no gist: {line}"));
            assert!(id.starts_with("MQTT-") && !gist.is_empty(), "{line}");
            let is_kept = match state {
                "kept" => true,
                "not offered" => false,
                other => panic!("expected `kept` or `not offered`, got {other:?}: {line}"),
            };
            Row { statement: id.to_owned(), level, is_kept, proof: proof.to_owned() }
        })
        .collect()
}

/// What the attributes above a function say of it.
#[derive(Debug, Default, PartialEq)]
struct Attributes {
    is_test: bool,
    is_ignored: bool,
}

/// The test functions of a file, with what their attributes say.
fn functions(source: &str) -> BTreeMap<String, Attributes> {
    let mut found = BTreeMap::new();
    let mut attributes = Attributes::default();
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            attributes.is_test = true;
        } else if line.starts_with("#[ignore") {
            attributes.is_ignored = true;
        } else if let Some(name) = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ") {
            let name = name.split(['(', '<']).next().unwrap_or_default();
            found.insert(name.to_owned(), std::mem::take(&mut attributes));
        } else if !line.starts_with("//") && !line.starts_with("#[") {
            attributes = Attributes::default();
        }
    }
    found
}

/// What is wrong with the rows' proofs.
fn faults_of_proofs(rows: &[Row], mut source: impl FnMut(&str) -> Option<String>) -> Vec<String> {
    let mut files: BTreeMap<String, BTreeMap<String, Attributes>> = BTreeMap::new();
    let mut faults = Vec::new();
    for row in rows {
        let (proof, open) = row.proof.split_once("open:").unwrap_or((&row.proof, ""));
        let (proven_by, open) = (Row::tests(proof), Row::tests(open));
        if row.is_kept == proven_by.is_empty() || proof.is_empty() {
            faults.push(format!("{}: kept rows name a test, others a reason and no test", row.statement));
        }
        for (test, is_open) in proven_by.iter().map(|test| (test, false)).chain(open.iter().map(|test| (test, true))) {
            let (path, name) = test.split_once("::").expect("Row::tests looks for it");
            if !files.contains_key(path) {
                files.insert(path.to_owned(), source(path).as_deref().map(functions).unwrap_or_default());
            }
            match files[path].get(name) {
                Some(Attributes { is_test: true, is_ignored }) if *is_ignored == is_open => {}
                Some(Attributes { is_test: true, is_ignored: true }) => {
                    faults.push(format!("{}: {test} is ignored: name it behind `open:`", row.statement));
                }
                Some(Attributes { is_test: true, .. }) => {
                    faults.push(format!("{}: {test} runs: take `open:` away", row.statement));
                }
                _ => faults.push(format!("{}: no test {test}", row.statement)),
            }
        }
    }
    faults
}

#[test]
fn every_statement_of_mqtt_5_has_its_row_and_there_are_no_others() {
    let rows = table(&read(DOCUMENT), "MQTT 5");
    let expected: Vec<String> = read(STATEMENTS)
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| match line.split('\t').collect::<Vec<_>>()[..] {
            [id, level, binds] => format!("{id} {level}, {binds}"),
            _ => panic!("expected an id, a level and whom it binds, got {line}"),
        })
        .collect();
    let got: Vec<String> =
        rows.iter().map(|row| format!("{} {}", row.statement, row.level.as_deref().unwrap_or("?"))).collect();
    assert!(expected.len() > 200, "the list is there: {}", expected.len());
    assert_eq!(got, expected);
    let (kept, not) = (rows.iter().filter(|row| row.is_kept).count(), rows.iter().filter(|row| !row.is_kept).count());
    let words = format!("({kept} kept, {not} not offered)");
    assert!(read(DOCUMENT).contains(&words), "the counts in words: expected {words}");
}

#[test]
fn a_statement_of_3_1_1_has_one_row() {
    let rows = table(&read(DOCUMENT), "MQTT 3.1.1");
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.statement.as_str()).collect();
    assert!(rows.len() > 30 && rows.iter().all(|row| row.level.is_none()), "{}", rows.len());
    assert_eq!(ids.len(), rows.len(), "each once");
}

#[test]
fn what_is_kept_is_proven_by_tests_that_run() {
    let document = read(DOCUMENT);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut faults = Vec::new();
    for heading in ["MQTT 5", "MQTT 3.1.1"] {
        faults.extend(faults_of_proofs(&table(&document, heading), |path| fs::read_to_string(root.join(path)).ok()));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn statements_that_tests_name_exist() {
    let statements = read(STATEMENTS);
    let known: BTreeSet<&str> = statements.lines().filter_map(|line| line.split('\t').next()).collect();
    let old: BTreeSet<String> = table(&read(DOCUMENT), "MQTT 3.1.1").into_iter().map(|row| row.statement).collect();
    let mut named = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.starts_with(NAMING) {
            continue;
        }
        for (at, piece) in read(&format!("tests/{name}")).split("[MQTT-").enumerate().skip(1) {
            let id = format!("MQTT-{}", piece.split(']').next().unwrap_or_default());
            assert!(known.contains(id.as_str()) || old.contains(&id), "{name}: no statement {id} ({at})");
            named += 1;
        }
    }
    assert!(named > 100, "{named}");
}

#[test]
fn a_proof_that_is_none_is_a_fault() {
    let file = "/// about\n#[test]\nfn good() {}\n\n#[test]\n#[ignore = \"a defect\"]\nfn broken() {}\n\nfn helper() {}\n\
        #[tokio::test(flavor = \"multi_thread\")]\nasync fn later() {}\n";
    let source = |path: &str| (path == "f.rs").then(|| file.to_owned());
    for (is_kept, proof, is_good) in [
        (true, "`f.rs::good`", true),
        (true, "`f.rs::good`, `f.rs::later`; a note", true),
        (true, "`f.rs::good`; open: `f.rs::broken`", true),
        (false, "nothing is retained: `retain` ends with 0x9A", true),
        (true, "", false),
        (true, "surely", false),
        (true, "`f.rs::helper`", false),
        (true, "`f.rs::missing`", false),
        (true, "`g.rs::good`", false),
        (true, "`f.rs::broken`", false),
        (true, "`f.rs::good`; open: `f.rs::later`", false),
        (false, "`f.rs::good`", false),
        (false, "", false),
    ] {
        let row = Row { statement: "MQTT-1".into(), level: None, is_kept, proof: proof.into() };
        assert_eq!(faults_of_proofs(&[row], source).is_empty(), is_good, "{proof:?}");
    }
}
