//! A short run of `natter torture`: servers killed while messages fly, and nothing acknowledged is lost.

use std::process::Command;

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let output = Command::new(env!("CARGO_BIN_EXE_natter"))
        .args(["torture", "--messages", "3000", "--kills", "5", "--seed", "1"])
        .output()
        .expect("natter torture");
    let (line, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}{log}");
    for part in
        ["acked=3000 ", " lost=0 ", " duplicated=0 ", " reordered=0 ", " false_receipts=0 ", " gaps=0 ", " kills=5 "]
    {
        assert!(line.contains(part), "{part:?} in {line}{log}");
    }
}
