//! The judge bites: every bug that is planted on purpose is found by `natter torture` within a minute (cargo feature `planted`).
//! What only a power cut shows, `bridge/tests/power_cut.rs` finds.

#![allow(clippy::unwrap_used, reason = "a test ends where its world does not hold")]

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use natter_protocol::planted::Bug;

/// How long finding a bug may take.
const MINUTE: Duration = Duration::from_secs(60);

fn torture(bug: Option<Bug>, seed: u64) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_natter"));
    command.args(["torture", "--seconds", "12", "--kills", "15", "--seed", &seed.to_string()]);
    match bug {
        Some(bug) => command.env("NATTER_PLANTED", bug.name()),
        None => command.env_remove("NATTER_PLANTED"),
    };
    command.output().unwrap()
}

fn is_caught(bug: Bug) {
    let start = Instant::now();
    for seed in 1.. {
        let output = torture(Some(bug), seed);
        let line = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.success(), false, "seed {seed}: not caught: {line}");
        assert!(
            line.contains("acked="),
            "it ended for another reason: {line}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    assert!(start.elapsed() < MINUTE);
}

#[test]
fn without_a_bug_nothing_is_found() {
    let output = torture(None, 1);
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

macro_rules! caught {
    ($($name:ident: $bug:ident;)*) => { $(#[test] fn $name() { is_caught(Bug::$bug); })* };
}

caught! {
    ack_before_commit_is_caught: AckBeforeCommit;
    dropped_dedupe_is_caught: DroppedDedupe;
    receipt_before_commit_is_caught: ReceiptBeforeCommit;
    seq_outside_the_transaction_is_caught: SeqOutsideTransaction;
    cursor_advanced_on_send_is_caught: CursorOnSend;
    puback_by_packet_id_alone_is_caught: AckByPacketId;
    settling_that_forgets_a_device_is_caught: SettlingForgetsDevice;
}
