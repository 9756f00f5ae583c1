//! Programs that test a Natter server from outside.

pub mod torture;
