//! A frame of the link, in both directions: what reads is written and read as the same.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use natter_protocol::link::{Down, Up};

fuzz_target!(|data: &[u8]| {
    let frame = Bytes::copy_from_slice(data);
    if let Ok(up) = Up::decode(frame.clone()) {
        assert_eq!(Up::decode(up.encode()), Ok(up));
    }
    if let Ok(down) = Down::decode(frame) {
        assert_eq!(Down::decode(down.encode()), Ok(down));
    }
});
