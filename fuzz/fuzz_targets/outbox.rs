//! What a device publishes. What reads is stored as a body that reads back to the same hash; a refusal is short.

#![no_main]

use libfuzzer_sys::fuzz_target;
use natter_protocol::outbox::{self, Item};

fuzz_target!(|data: &[u8]| {
    match outbox::parse(data) {
        Ok(Item::Message(message)) => {
            // `chat` beside a reference only narrows it down: it is hashed, and not part of the body.
            let has_chat = message.reference.as_ref().is_some_and(|reference| reference.chat.is_some());
            let (hash, to) = (message.hash, message.to.to_string());
            let body = String::from_utf8(message.into_body(None)).expect("bodies are UTF-8");
            let Ok(Item::Message(again)) = outbox::parse(format!("{{\"to\":\"{to}\",{body}}}").as_bytes()) else {
                panic!("a body that does not read: {body}");
            };
            assert!(has_chat || hash == again.hash, "{body}");
            assert_eq!(body.as_bytes(), again.into_body(None));
        }
        Ok(_) => {}
        Err(rejected) => assert!(rejected.refusal.details.len() < 1024, "{}", rejected.refusal.details),
    }
});
