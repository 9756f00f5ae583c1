//! Programs that test a Natter server from outside.

pub mod bench;
mod mqtt;
pub mod torture;
