//! Every public item has an example that compiles, and what the README and the docs say of features and Rust versions is what Cargo says.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test ends that way")]

use std::path::{Path, PathBuf};

/// Not for apps: public for the simulation only.
const HIDDEN: [&str; 2] = ["core", "core.rs"];

const MANIFEST: &str = include_str!("../Cargo.toml");
const README: &str = include_str!("../README.md");
const LIB: &str = include_str!("../src/lib.rs");

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if HIDDEN.contains(&path.file_name().unwrap().to_str().unwrap()) {
            continue;
        }
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

/// The name of the item that a line begins, if apps see it.
fn item(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub ")?;
    let rest = rest.strip_prefix("async ").unwrap_or(rest);
    let (kind, rest) = rest.split_once(' ')?;
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    ["fn", "struct", "enum", "trait", "type", "const"].contains(&kind).then_some(name)
}

#[test]
fn every_public_item_has_an_example() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let (mut items, mut bare) = (0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file");
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let mut example = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("///") {
                example |= line.contains("```");
            } else if !line.starts_with("#[") {
                if let Some(name) = item(line) {
                    items += 1;
                    if !example {
                        bare.push(format!("{}: {name}", file.display()));
                    }
                }
                example = false;
            }
        }
    }
    assert!(items > 130, "{items}: does this test still find them?");
    assert!(bare.is_empty(), "without an example:\n{}", bare.join("\n"));
}

#[test]
fn every_feature_is_told_in_the_readme_and_in_the_docs() {
    let features = MANIFEST.split("[features]").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap();
    let names = features.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let names: Vec<&str> = names.filter(|name| !name.starts_with('#') && *name != "default").collect();
    assert_eq!(names, ["sqlite", "http", "tls", "websocket"]);
    for name in names {
        assert!(README.contains(&format!("| `{name}`")), "{name} is not in the README");
        assert!(LIB.contains(&format!("`{name}`")), "{name} is not in the docs");
    }
}

/// That no newer part of the standard library is used, clippy sees (`incompatible_msrv`, which reads `rust-version`).
#[test]
fn the_rust_version_is_the_same_everywhere() {
    let workspace = include_str!("../../Cargo.toml");
    let version = workspace.split("rust-version = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(MANIFEST.contains("rust-version.workspace = true"));
    for text in [README, LIB] {
        assert!(text.contains(&format!("minimum supported Rust version is {version}")), "expected {version}");
    }
}
