//! A PUBACK belongs to the PUBLISH of its own connection, even when the next connection uses the same packet id at once.
#![expect(clippy::panic, reason = "a test ends that way")]

mod common;

use common::{Connect, Device, Packet, TestServer};
use serde_json::json;

const ROUNDS: usize = 300;

fn text(id: &str) -> String {
    json!({"id": id, "to": "bob", "type": "text", "text": {"body": id}}).to_string()
}

fn reuse_packet_ids(connect: &Connect, server: &TestServer) {
    for round in 0..ROUNDS {
        // Publishes and is gone before the commit.
        let (mut first, _) = connect.open(server.mqtt());
        for id in 1..=3 {
            let bytes =
                first.publish_bytes("users/alice/phone/outbox", 0x02, id, text(&format!("a{round}-{id}")).as_bytes());
            first.send(&bytes);
        }
        drop(first);

        let (mut second, _) = connect.open(server.mqtt());
        for id in 1..=3 {
            let bytes =
                second.publish_bytes("users/alice/phone/outbox", 0x02, id, text(&format!("b{round}-{id}")).as_bytes());
            second.send(&bytes);
        }
        for id in 1..=3 {
            match second.next() {
                Some(Packet::PubAck { id: got, reason: 0, properties }) => {
                    assert_eq!(got, id, "PUBACKs come in the order of the PUBLISHes");
                    assert_eq!(properties.get("id"), Some(format!("b{round}-{id}").as_str()), "round {round}");
                }
                other => panic!("round {round}: expected the PUBACK of packet {id}, got {other:?}"),
            }
        }
        second.ping();
        assert_eq!(second.queued().count(), 0, "one PUBACK for each PUBLISH and no more");
    }
}

#[test]
fn a_puback_never_reaches_the_next_connection() {
    let server = TestServer::with_users(&["alice", "bob"]);
    reuse_packet_ids(&Connect::v5("alice", "alice-phone", &server.token("alice")), &server);
}

#[test]
fn a_puback_never_reaches_the_next_connection_of_a_kept_session() {
    let server = TestServer::with_users(&["alice", "bob"]);
    reuse_packet_ids(&Connect::v5("alice", "alice-phone", &server.token("alice")).keeping_its_session(), &server);
}

#[test]
fn what_was_published_before_the_drop_is_there_once_when_it_is_sent_again() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let connect = Connect::v5("alice", "alice-phone", &server.token("alice"));
    let mut bob = Device::v5(&server, "bob", "phone");
    for round in 0..100 {
        let (mut first, _) = connect.open(server.mqtt());
        first.publish("users/alice/phone/outbox", &text(&format!("m{round}")));
        drop(first);
        let (mut second, _) = connect.open(server.mqtt());
        let (reason, answer) = second.publish_and_wait("users/alice/phone/outbox", &text(&format!("m{round}")));
        assert_eq!((reason, answer.get("n")), (0, Some((round + 1).to_string().as_str())));
        assert_eq!(bob.entry()["id"], format!("m{round}"));
    }
}
