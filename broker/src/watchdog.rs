//! Notices that the router's thread has died or is stuck: a link of its own asks for an answer every second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use rumqttd::local::{LinkError, LinkRx, LinkTx};
use rumqttd::protocol::{Packet, PingReq};

/// How often the router is asked.
const TICK: Duration = Duration::from_secs(1);
/// Ticks without an answer after which the router counts as dead. Ticks, not time: a stopped process must not wake up to a dead router.
const TICKS_MAX: u32 = 5;
/// Nobody subscribes to it; publishing is the only way to raise an event without blocking.
const TOPIC: &str = "watchdog";

/// Whether the router still answers.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// The router is dead or stuck.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The thread that asks.
pub struct Watchdog {
    tx: LinkTx,
    rx: LinkRx,
    is_waiting: bool,
    ticks_silent: u32,
}

impl Watchdog {
    /// Starts asking over a link that subscribes to nothing.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(tx: LinkTx, rx: LinkRx) -> io::Result<Health> {
        let health = Health::default();
        let (watchdog, dead) = (Self { tx, rx, is_waiting: false, ticks_silent: 0 }, health.clone());
        thread::Builder::new().name("watchdog".into()).spawn(move || {
            watchdog.run();
            tracing::error!("the router does not answer");
            dead.0.store(true, Ordering::Relaxed);
        })?;
        Ok(health)
    }

    /// Returns when the router is dead.
    fn run(mut self) {
        while self.ticks_silent < TICKS_MAX && self.ask().is_ok() && self.wait(Instant::now() + TICK).is_ok() {}
    }

    fn ask(&mut self) -> Result<(), Box<LinkError>> {
        if self.is_waiting {
            return Ok(());
        }
        self.tx.buffer().push_back(Packet::PingReq(PingReq));
        match self.tx.try_publish(TOPIC, "?") {
            // A full queue keeps what was put in the buffer; it goes with the next event, or never.
            Ok(_) | Err(LinkError::TrySend(flume::TrySendError::Full(_))) => {
                self.is_waiting = true;
                Ok(())
            }
            Err(error) => Err(Box::new(error)),
        }
    }

    /// Takes in answers until `deadline`.
    fn wait(&mut self, deadline: Instant) -> Result<(), Box<LinkError>> {
        loop {
            match self.rx.recv_deadline(deadline) {
                Ok(Some(notification)) => {
                    if let Some(Packet::PingResp(_)) = Option::<Packet>::from(notification) {
                        self.is_waiting = false;
                        self.ticks_silent = 0;
                    }
                }
                Ok(None) => {}
                Err(LinkError::RecvTimeout(flume::RecvTimeoutError::Timeout)) => break,
                Err(error) => return Err(Box::new(error)),
            }
        }
        if self.is_waiting {
            self.ticks_silent += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rumqttd::local::LinkBuilder;
    use rumqttd::{Router, RouterConfig};

    use super::*;

    fn config() -> RouterConfig {
        RouterConfig {
            max_connections: 4,
            max_outgoing_packet_count: 100,
            max_segment_size: 1 << 20,
            max_segment_count: 4,
            ..RouterConfig::default()
        }
    }

    #[test]
    fn a_router_whose_thread_has_died_is_noticed() {
        let router_tx = Router::new(1, config()).spawn();
        let (tx, rx, _) = LinkBuilder::new("watchdog", router_tx.clone()).build().unwrap();
        let health = Watchdog::start(tx, rx).unwrap();
        thread::sleep(Duration::from_millis(1500));
        assert!(!health.is_dead());
        // K1: the topic that no client can ever bring this far.
        let (mut tx, _rx, _) = LinkBuilder::new("killer", router_tx).build().unwrap();
        tx.subscribe("a").unwrap();
        tx.publish("é/x", "boom").unwrap();
        let give_up = Instant::now() + Duration::from_secs(8);
        while !health.is_dead() {
            assert!(Instant::now() < give_up, "nobody noticed");
            thread::sleep(Duration::from_millis(50));
        }
    }
}
