//! Devices of a user by the SDK: a code, a new device with a token of its own, and its end.
#![expect(clippy::expect_used, reason = "a test ends that way")]

mod common;

use common::{TestServer, patience};
use natter_client::devices::DeviceError;
use natter_client::{Client, ConnectionState, Error, Event, Events};
use tokio::time::timeout;

async fn connect(server: &TestServer, user: &str, device: &str, token: String) -> Client {
    let builder = Client::builder(&format!("mqtt://{}", server.mqtt())).http(&http(server)).user(user).device(device);
    builder.token(token).connect().await.expect("a connection")
}

fn http(server: &TestServer) -> String {
    format!("http://{}", server.http())
}

/// The next message: who wrote it, and its words.
async fn message(events: &mut Events) -> (String, String) {
    loop {
        match timeout(patience(), events.next()).await.expect("in time").expect("a client that runs") {
            Event::Message(message) => return (message.from.clone(), message.text().expect("words").to_owned()),
            _ => continue,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_linked_by_its_code_has_what_the_first_one_writes_and_ends_with_its_unlinking() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let alice = connect(&server, "alice", "phone", server.token("alice")).await;
    let phone = connect(&server, "bob", "phone", server.token("bob")).await;
    let code = phone.link_code().await.expect("a code");
    let wrong = Client::redeem(&http(&server), "bob", "ZZZZ-ZZZZ", "laptop").await;
    assert!(matches!(wrong, Err(DeviceError::WrongCode(_))), "{wrong:?}");
    let taken = Client::redeem(&http(&server), "bob", &code.code, "phone").await;
    assert!(matches!(taken, Err(DeviceError::Taken(_))), "{taken:?}");
    let linked = Client::redeem(&http(&server), "bob", &code.code, "laptop").label("Work").await.expect("a token");
    assert_eq!(linked.user, "bob");
    let used = Client::redeem(&http(&server), "bob", &code.code, "tablet").await;
    assert!(matches!(used, Err(DeviceError::WrongCode(_))), "{used:?}");

    let laptop = connect(&server, "bob", "laptop", linked.token).await;
    let (mut at_laptop, mut at_phone) = (laptop.events(), phone.events());
    phone.chat("alice").send_text("from the phone").await.expect("sent");
    assert_eq!(message(&mut at_laptop).await, ("bob".into(), "from the phone".into()), "his own");
    alice.chat("bob").send_text("hi").await.expect("sent");
    for events in [&mut at_laptop, &mut at_phone] {
        assert_eq!(message(events).await, ("alice".into(), "hi".into()));
    }
    let devices = laptop.devices().await.expect("a list");
    let brief: Vec<_> =
        devices.iter().map(|d| (d.name.as_str(), d.label.as_deref(), d.connected, d.is_current)).collect();
    assert_eq!(brief, [("laptop", Some("Work"), true, true), ("phone", None, true, false)]);
    assert!(devices.iter().all(|device| device.linked_at.is_some() && device.last_seen.is_some()));

    // The token of one device ends that device and no other.
    for refused in [laptop.unlink("phone").await, laptop.link_code().await.map(drop)] {
        assert!(matches!(refused, Err(DeviceError::NotAllowed(_))), "{refused:?}");
    }
    phone.unlink("laptop").await.expect("unlinked");
    alice.chat("bob").send_text("behind the end").await.expect("sent");
    assert_eq!(message(&mut at_phone).await.1, "behind the end");
    let mut state = laptop.state();
    let end = timeout(patience(), state.wait_for(|state| matches!(state, ConnectionState::Closed(_)))).await;
    let end = end.expect("in time").expect("a client").clone();
    assert!(matches!(end, ConnectionState::Closed(Error::Denied(_))), "{end:?}");
    while let Some(event) = timeout(patience(), at_laptop.next()).await.expect("in time") {
        assert!(!matches!(event, Event::Message(_)), "{event:?}");
    }
    let denied = laptop.devices().await;
    assert!(matches!(denied, Err(DeviceError::Denied(_))), "{denied:?}");
    let gone = phone.unlink("laptop").await;
    assert!(matches!(gone, Err(DeviceError::NotFound(_))), "{gone:?}");
    assert_eq!(phone.devices().await.expect("a list").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_password_a_linked_device_links_and_unlinks_others() {
    const PASSWORD: &str = "correct horse battery";
    let server = TestServer::start_with("[accounts]\nregistration = \"open\"\n");
    let account = serde_json::json!({"user": "bob", "password": PASSWORD, "device": "phone"});
    let answer = common::Client::nobody(&server).post("/v1/users", &account).json();
    let token = answer["token"].as_str().expect("a token").to_owned();
    let phone = connect(&server, "bob", "phone", token).await;
    let wrong = phone.link_code_with_password("another one").await;
    assert!(matches!(wrong, Err(DeviceError::Denied(_))), "{wrong:?}");
    let code = phone.link_code_with_password(PASSWORD).await.expect("a code");
    Client::redeem(&http(&server), "bob", &code.code, "laptop").await.expect("a token");
    let refused = phone.unlink("laptop").await;
    assert!(matches!(refused, Err(DeviceError::NotAllowed(_))), "{refused:?}");
    phone.unlink_with_password("laptop", PASSWORD).await.expect("unlinked");
    let names: Vec<_> = phone.devices().await.expect("a list").into_iter().map(|device| device.name).collect();
    assert_eq!(names, ["phone"]);
    phone.unlink("phone").await.expect("itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_is_asked_for_again_once() {
    let server = TestServer::with_users(&["bob"]);
    let good = server.token("bob");
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let provider = move || {
        let first = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        std::future::ready(Ok::<_, Error>(if first { "no token".to_owned() } else { good.clone() }))
    };
    // Nobody is at that port: the client itself hears of no refusal.
    let builder = Client::builder("mqtt://127.0.0.1:1").http(&http(&server)).user("bob").token_provider(provider);
    let bob = builder.start().await.expect("a client");
    assert_eq!(bob.token(None).await.as_deref(), Ok("no token"));
    assert_eq!(bob.devices().await, Ok(Vec::new()));
    let fixed = Client::builder("mqtt://127.0.0.1:1").http(&http(&server)).user("bob").token("no token");
    let denied = fixed.start().await.expect("a client").devices().await;
    assert!(matches!(denied, Err(DeviceError::Denied(_))), "{denied:?}");
}
