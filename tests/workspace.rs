//! The arrows between the crates, and what the pure files do not know.
#![expect(clippy::expect_used, clippy::panic, reason = "a test ends that way")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Who may know whom (design.md section 3). The root sees all.
const ARROWS: [(&str, &[&str]); 5] = [
    ("natter-protocol", &[]),
    ("natter-broker", &["natter-protocol"]),
    ("natter-bridge", &["natter-protocol"]),
    ("natter-client", &["natter-protocol"]),
    ("natter-tools", &["natter-protocol", "natter-client"]),
];

/// Files and directories that decide and do nothing else: time and bytes are passed in, and answers come out.
const PURE: [&str; 39] = [
    "protocol/src",
    "broker/src/connect.rs",
    "broker/src/input.rs",
    "broker/src/packet.rs",
    "broker/src/rate.rs",
    "broker/src/session",
    "broker/src/validate.rs",
    "bridge/src/blocks.rs",
    "bridge/src/change.rs",
    "bridge/src/chat_key.rs",
    "bridge/src/connection.rs",
    "bridge/src/devices.rs",
    "bridge/src/engine.rs",
    "bridge/src/expiry.rs",
    "bridge/src/hidden.rs",
    "bridge/src/contacts.rs",
    "bridge/src/contacts",
    "bridge/src/media/kind.rs",
    "bridge/src/media/name.rs",
    "bridge/src/media/range.rs",
    "bridge/src/media/row.rs",
    "bridge/src/media/rules.rs",
    "bridge/src/inside.rs",
    "bridge/src/unheard.rs",
    "bridge/src/webhook/envelope.rs",
    "bridge/src/long_ack.rs",
    "bridge/src/recipient.rs",
    "bridge/src/sender.rs",
    "bridge/src/status.rs",
    "bridge/src/status/known.rs",
    "bridge/src/state.rs",
    "bridge/src/overlay.rs",
    "bridge/src/presence.rs",
    "bridge/src/presence/commands.rs",
    "bridge/src/presence/told.rs",
    "bridge/src/presence/typing.rs",
    "bridge/src/privacy.rs",
    "client-sdk/src/core",
    "client-sdk/src/core.rs",
];

/// What a pure file does not name outside its tests.
const IMPURE: [&str; 7] =
    ["tokio::", "std::net", "std::fs", "std::thread", "Instant::now", "SystemTime::now", "rusqlite"];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn arrows_between_the_crates_are_those_of_the_design() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let mut known = BTreeSet::new();
    for (name, allowed) in ARROWS {
        let package = packages.iter().find(|package| package["name"] == name);
        let package = package.unwrap_or_else(|| panic!("a crate {name}"));
        known.insert(name);
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = dependency["name"].as_str().expect("a name");
            // Only dependencies inside the workspace have a path.
            if dependency["path"].is_string() {
                assert!(allowed.contains(&to), "{name} must not depend on {to} (kind {})", dependency["kind"]);
            }
        }
    }
    let others: Vec<&str> = packages.iter().filter_map(|p| p["name"].as_str()).filter(|n| !known.contains(n)).collect();
    assert_eq!(others, ["natter"], "a new crate needs a place in the design");
}

#[test]
fn protocol_depends_on_no_runtime_and_no_store() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let protocol = packages.iter().find(|package| package["name"] == "natter-protocol").expect("the crate");
    let names = protocol["dependencies"].as_array().expect("dependencies").iter().filter_map(|d| d["name"].as_str());
    let impure: Vec<&str> = names.filter(|n| ["tokio", "rusqlite", "rumqttd", "rumqttc", "axum"].contains(n)).collect();
    assert!(impure.is_empty(), "{impure:?}");
}

#[test]
fn pure_files_name_no_runtime_no_files_and_no_clock() {
    let mut found = Vec::new();
    for path in PURE.iter().flat_map(|path| rust_files(&root().join(path))) {
        let text = std::fs::read_to_string(&path).expect("a source file");
        for (number, line) in without_tests(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            for word in IMPURE.iter().filter(|word| code.contains(*word)) {
                found.push(format!("{}:{}: {word}", path.strip_prefix(root()).unwrap_or(&path).display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "pure files must not name:\n{}", found.join("\n"));
}

/// The part before `#[cfg(test)] mod tests`, which stands last in a file.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod ").map_or(text, |at| &text[..at])
}

fn rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path)
        .unwrap_or_else(|e| panic!("{}: {e}: is the list in this test out of date?", path.display()));
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "rs") {
            files.extend(rust_files(&path));
        }
    }
    files
}

/// Versions below which a defect is known that concerns us (reference: the advisories of RustSec).
const AT_LEAST: [(&str, [u64; 3]); 4] =
    [("rustls-webpki", [0, 103, 12]), ("jsonwebtoken", [11, 0, 0]), ("h2", [0, 4, 4]), ("argon2", [0, 5, 0])];

/// Every version of a package in Cargo.lock.
fn locked(package: &str) -> Vec<[u64; 3]> {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let name = format!("name = \"{package}\"");
    let version = |line: &str| {
        let mut parts = line.strip_prefix("version = \"")?.trim_end_matches('"').split(['.', '-', '+']).map(str::parse);
        Some([parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?])
    };
    let lines: Vec<&str> = lock.lines().collect();
    lines.windows(2).filter(|pair| pair[0] == name).filter_map(|pair| version(pair[1])).collect()
}

/// Who depends on a package, named as Cargo.lock does.
fn dependents(package: &str) -> Vec<String> {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let needle = format!("\n \"{package}\",");
    let packages = lock.split("[[package]]\nname = \"").skip(1).filter(|text| text.contains(&needle));
    packages.filter_map(|text| text.split('"').next()).map(str::to_owned).collect()
}

#[test]
fn s79_dependencies_are_at_least_as_new_as_their_repairs() {
    for (package, least) in AT_LEAST {
        let versions = locked(package);
        assert!(!versions.is_empty(), "{package} is not there any more: take it from this list");
        for version in versions {
            if (package, version) == ("rustls-webpki", [0, 102, 8])
                && dependents("rustls-webpki 0.102.8") == ["rumqttc"]
            {
                // rumqttc 0.25 names its error type and verifies nothing with it: that is done by rustls, with the new one. It takes no
                // stream that was opened elsewhere (its network is private, and `NetworkOptions` has no connector), so its own TLS
                // stays, and this comes with it.
                continue;
            }
            assert!(version >= least, "{package}: expected at least {least:?}, got {version:?}; run `cargo update`");
        }
    }
}

#[test]
fn s79_unsafe_code_is_denied_and_only_tests_have_leave() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    assert!(manifest.contains("unsafe_code = \"deny\""));
    let mut dirs: Vec<PathBuf> = ["src", "protocol/src", "broker/src", "bridge/src", "client-sdk/src", "tools/src"]
        .map(|dir| root().join(dir))
        .into();
    let mut seen = 0;
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                dirs.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&entry).expect("a file");
                assert!(!text.contains("(unsafe_code"), "{}: unsafe code has leave in tests only", entry.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen} files");
}
