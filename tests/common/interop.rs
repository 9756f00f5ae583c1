//! Libraries of others that tests run: `tests/interop/setup.sh` puts them under target/interop.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of what `tests/interop/setup.sh` makes. `None`, said aloud, when it is not there; with `NATTER_TEST_ALL=1` it is made.
pub fn installed(file: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("target/interop").join(file);
    if std::env::var_os("NATTER_TEST_ALL").is_some() {
        let setup = Command::new(root.join("tests/interop/setup.sh")).status().expect("tests/interop/setup.sh");
        assert!(setup.success(), "tests/interop/setup.sh: {setup}; it needs python3 with venv, node and npm");
    } else if !path.exists() {
        eprintln!(
            "SKIPPED: {} is missing; tests/interop/setup.sh makes it (python3 with venv, node, npm)",
            path.display()
        );
        return None;
    }
    Some(path)
}
