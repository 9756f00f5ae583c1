//! One packet: the first byte says which version (its last bit: MQTT 5), the rest is the packet.

#![no_main]

use libfuzzer_sys::fuzz_target;
use natter_broker::fuzzing::decode;

fuzz_target!(|data: &[u8]| {
    if let Some((version, raw)) = data.split_first() {
        let _ = decode(version & 1 == 1, raw);
    }
});
