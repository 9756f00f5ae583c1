//! A file of contacts. What reads keeps its bounds; refusals are short.

#![no_main]

use libfuzzer_sys::fuzz_target;
use natter_bridge::contacts::vcard::{self, CARDS_MAX, NAMES_MAX};

fuzz_target!(|data: &[u8]| {
    let Ok(cards) = vcard::read(data, None) else { return };
    assert!((1..=CARDS_MAX).contains(&cards.len()));
    for card in cards {
        match card {
            Ok(card) => {
                assert!((1..=NAMES_MAX).contains(&card.names.len()));
                assert!(card.name.is_none_or(|name| !name.is_empty() && name.trim() == name && !name.contains(char::is_control)));
            }
            Err(refusal) => assert!(refusal.details.len() < 1024, "{}", refusal.details),
        }
    }
});
