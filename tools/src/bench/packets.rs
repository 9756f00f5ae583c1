//! MQTT on a [`Net`](super::net::Net): packets out of bytes, and how a connection begins.

use std::time::Instant;

use anyhow::{Result, bail};

use super::net::Handler;
use super::opening::{Greeting, Login, Step};
use crate::mqtt::{self, Packet};

/// Of all connections here: longer than any run is silent.
const KEEP_ALIVE_S: u16 = 3600;

/// The topic of a device: `inbox` or `outbox`.
pub(crate) fn topic(user: &str, device: &str, which: &str) -> String {
    format!("users/{user}/{device}/{which}")
}

/// A handler of whole packets.
pub(crate) trait Packets {
    /// Handles a packet of connection `index`: its first byte, and what stands behind the length. Answers go to `output`.
    ///
    /// # Errors
    /// The run cannot go on.
    fn handle(&mut self, index: usize, first: u8, body: &[u8], now: Instant, output: &mut Vec<u8>) -> Result<()>;
}

impl<T: Packets> Handler for T {
    fn take(&mut self, index: usize, bytes: &[u8], now: Instant, output: &mut Vec<u8>) -> Result<usize> {
        let mut at = 0;
        while let Some((first, body, end)) = bytes.get(at..).and_then(split) {
            self.handle(index, first, body, now, output)?;
            at += end;
        }
        Ok(at)
    }
}

/// The first packet: its first byte, what stands behind its length, and where it ends.
pub(crate) fn split(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (body, end) = mqtt::measure(bytes)?;
    Some((*bytes.first()?, bytes.get(body..end)?, end))
}

/// CONNECT, and SUBSCRIBE right behind it.
pub(crate) struct MqttGreeting<'a> {
    login: &'a Login,
    answers: usize,
}

impl<'a> MqttGreeting<'a> {
    pub(crate) fn new(login: &'a Login) -> Self {
        Self { login, answers: 0 }
    }
}

impl Greeting for MqttGreeting<'_> {
    fn first(&mut self) -> Vec<u8> {
        let Login { user, token, device, subscribes } = self.login;
        let mut bytes = mqtt::connect(true, true, KEEP_ALIVE_S, &format!("{user}-{device}"), user, token);
        if *subscribes {
            bytes.extend_from_slice(&mqtt::subscribe(true, &topic(user, device, "inbox")));
        }
        bytes
    }

    fn take(&mut self, input: &[u8]) -> Result<Step> {
        let Some((first, body, used)) = split(input) else { return Ok(Step::Wait) };
        match mqtt::decode(first, body, true) {
            Some(Packet::ConnAck { code: 0, .. }) if self.answers == 0 => {}
            Some(Packet::SubAck { code: 0..=2 }) if self.answers == 1 => {}
            other => bail!("expected CONNACK 0 and SUBACK 0 to 2, got {other:?}"),
        }
        self.answers += 1;
        let (is_done, bytes) = (self.answers > usize::from(self.login.subscribes), Vec::new());
        Ok(if is_done { Step::Done { used, bytes } } else { Step::Say { used, bytes } })
    }
}
