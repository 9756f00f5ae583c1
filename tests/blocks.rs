//! Blocks end to end: the real server, real sockets, a kill in between.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use common::{Client, Device, TestServer, assert_receipt, assert_text};
use serde_json::json;

#[test]
fn a_blocked_user_stays_at_one_tick_for_ever_and_cannot_tell() {
    let mut server = TestServer::with_users(&["alice", "bob"]);
    let (mut alice, mut bob) = (Device::v5(&server, "alice", "phone"), Device::v3(&server, "bob", "phone"));
    alice.send("bob", "m1", "before");
    assert_text(&bob.entry(), "alice", "before");
    assert_receipt(&alice.entry(), "delivered", "bob", 0, 1);
    // On its way, and not acknowledged, when she is blocked.
    assert_eq!(alice.send("bob", "m2", "in flight"), 2);
    let (packet_id, entry) = bob.entry_without_ack();
    assert_eq!(entry["id"], "m2");
    let of_bob = Client::of(&server, "bob");
    of_bob.request("PUT", "/v1/blocks/alice", &[], b"").ok();
    bob.raw.ack(packet_id);
    assert_eq!(alice.send("bob", "m3", "blocked"), 3, "the same answer");
    alice.publish(&json!({"status": "typing", "chat": "bob"}));
    let refused = of_bob.post("/messages", &json!({"reciever_ID": "alice", "text": "hi"}));
    assert!(refused.refused(403, 10).contains("unblock first"));
    assert_eq!(of_bob.get("/v1/blocks").ok()["blocks"][0]["user"], "alice");
    // Not even m1, which he had before, turns blue: the next that she hears is of m4.
    bob.mark_read("alice", 3);

    server.kill9();
    server.restart();
    alice.reconnect(&server);
    bob.reconnect(&server);
    let of_bob = Client::of(&server, "bob");
    of_bob.request("DELETE", "/v1/blocks/alice", &[], b"").ok();
    assert_eq!(of_bob.get("/v1/blocks").ok()["blocks"], json!([]));
    assert_eq!(alice.send("bob", "m4", "again"), 4);
    let entry = bob.entry();
    assert_eq!((&entry["id"], &entry["n"]), (&json!("m4"), &json!(4)), "nothing of the blocked time comes: {entry}");
    assert_receipt(&alice.entry(), "delivered", "bob", 3, 4);
    bob.mark_read("alice", 4);
    assert_receipt(&alice.entry(), "read", "bob", 3, 4);
}

#[test]
fn the_cloud_api_blocks_lists_and_unblocks() {
    let server = TestServer::with_users(&["alice", "bob", "15550002"]);
    let bob = Client::of(&server, "bob");
    let users = json!({"messaging_product": "whatsapp",
        "block_users": [{"user": "alice"}, {"user": "+1 555 0002"}, {"user": "nobody"}, {"user": "bob"}]});
    let path = "/v24.0/bob/block_users";
    let told = bob.post(path, &users).ok();
    let added = json!([{"input": "alice", "wa_id": "alice"}, {"input": "+1 555 0002", "wa_id": "15550002"}]);
    assert_eq!(told["block_users"]["added_users"], added);
    let failed = told["block_users"]["failed_users"].as_array().unwrap();
    let codes: Vec<_> = failed.iter().map(|user| (&user["input"], &user["errors"][0]["code"])).collect();
    assert_eq!(codes, [(&json!("nobody"), &json!(131_026)), (&json!("bob"), &json!(131_009))]);
    let wa_ids = |list: &serde_json::Value| -> Vec<String> {
        list["data"].as_array().unwrap().iter().map(|user| user["wa_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(wa_ids(&bob.get(path).ok()), ["15550002", "alice"]);
    let first = bob.get(&format!("{path}?limit=1")).ok();
    assert_eq!((wa_ids(&first), &first["paging"]["cursors"]["after"]), (vec!["15550002".into()], &json!("15550002")));
    assert_eq!(wa_ids(&bob.get(&format!("{path}?limit=1&after=15550002")).ok()), ["alice"]);
    let one = json!({"block_users": [{"user": "alice"}]}).to_string();
    let told = bob.request("DELETE", path, &[("content-type", "application/json")], one.as_bytes()).ok();
    assert_eq!(told["block_users"]["removed_users"], json!([{"input": "alice", "wa_id": "alice"}]));
    assert_eq!(wa_ids(&bob.get(path).ok()), ["15550002"]);
    bob.post("/v24.0/alice/block_users", &users).refused(403, 10);
    bob.post(path, &json!({"users": []})).refused(400, 100);
    bob.get("/v1/blocks?limit=1001").refused(400, 131_009);
    bob.request("PUT", "/v1/blocks/nobody", &[], b"").refused(404, 131_026);
}
