//! What a client reads of its inbox.

#![no_main]

use libfuzzer_sys::fuzz_target;
use natter_protocol::entry::Entry;

fuzz_target!(|data: &[u8]| {
    let _ = Entry::parse(data);
});
