//! What one network address may hold and try: connections at a time, and authentications that fail. IPv6 is counted by /64, since whoever
//! has one address of it has them all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::metrics::count;
use crate::rate::{Bucket, Rate};

/// Addresses whose failures are remembered. At this many, those whose time is over are forgotten; if there are none, the failures of
/// further addresses do not count: nobody may shut others out by filling a table.
const FAILING_MAX: usize = 65_536;
/// How often those whose time is over are looked for while the table is full.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// See the module. Shared by all listeners of a process.
#[derive(Debug)]
pub struct Addresses {
    connections_max: usize,
    failures: Rate,
    loopback_counts: bool,
    inner: Mutex<Inner>,
    over_limit: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    /// Open connections; only addresses that have some.
    open: HashMap<IpAddr, usize>,
    failing: HashMap<IpAddr, Bucket>,
    forgot_at: Option<Instant>,
}

impl Addresses {
    pub(crate) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            connections_max: config.connections_per_address_max,
            failures: config.auth_failure_rate,
            loopback_counts: config.loopback_counts,
            inner: Mutex::default(),
            over_limit: AtomicU64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `peer` counts as; `None` if it is not counted.
    #[must_use]
    pub fn counted(&self, peer: SocketAddr) -> Option<IpAddr> {
        match peer.ip().to_canonical() {
            ip if ip.is_loopback() && !self.loopback_counts => None,
            IpAddr::V6(ip) => Some(IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)))),
            ip => Some(ip),
        }
    }

    /// Room for one more connection from `peer`; `None` when [`Config::connections_per_address_max`] of its address are open.
    #[must_use]
    pub fn seat(self: &Arc<Self>, peer: SocketAddr) -> Option<Seat> {
        let address = self.counted(peer);
        if let Some(address) = address {
            let mut inner = self.lock();
            let open = inner.open.entry(address).or_default();
            if *open >= self.connections_max {
                count(&self.over_limit);
                return None;
            }
            *open += 1;
        }
        Some(Seat { addresses: Arc::clone(self), address })
    }

    /// Connections that had no seat.
    pub(crate) fn over_limit(&self) -> u64 {
        self.over_limit.load(Ordering::Relaxed)
    }

    /// Whether `peer` may try to authenticate: not after [`Config::auth_failure_rate`] failures.
    #[must_use]
    pub fn may_authenticate(&self, peer: SocketAddr, now: Instant) -> bool {
        let Some(address) = self.counted(peer) else { return true };
        self.lock().failing.get(&address).is_none_or(|bucket| bucket.wait(self.failures, now).is_zero())
    }

    /// An authentication of `peer` has failed.
    pub fn failed(&self, peer: SocketAddr, now: Instant) {
        let Some(address) = self.counted(peer) else { return };
        let mut inner = self.lock();
        if let Some(bucket) = inner.failing.get_mut(&address) {
            return bucket.take(self.failures, now);
        }
        if inner.failing.len() >= FAILING_MAX && inner.forgot_at.is_none_or(|at| at + FORGET_EVERY <= now) {
            inner.failing.retain(|_, bucket| !bucket.is_full(now));
            inner.forgot_at = Some(now);
        }
        if inner.failing.len() < FAILING_MAX {
            inner.failing.entry(address).or_default().take(self.failures, now);
        }
    }
}

/// One connection's part of what its address may hold. Dropping it gives it back.
#[derive(Debug)]
pub struct Seat {
    addresses: Arc<Addresses>,
    /// `None`: it does not count.
    address: Option<IpAddr>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut inner = self.addresses.lock();
        if let Some(open) = inner.open.get_mut(&address) {
            *open -= 1;
            if *open == 0 {
                inner.open.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn addresses(connections_max: usize, loopback_counts: bool) -> Arc<Addresses> {
        Addresses::new(&Config {
            connections_per_address_max: connections_max,
            auth_failure_rate: Rate::per_minute(2),
            loopback_counts,
            ..Config::default()
        })
    }

    fn peer(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 1)
    }

    #[test]
    fn an_address_has_its_seats_and_gives_them_back() {
        let addresses = addresses(2, false);
        let mut seats: Vec<_> = (0..2).map(|_| addresses.seat(peer("192.0.2.1")).unwrap()).collect();
        assert!(addresses.seat(peer("192.0.2.1")).is_none());
        assert!(addresses.seat(peer("::ffff:192.0.2.1")).is_none(), "the same address in other words");
        assert!(addresses.seat(peer("192.0.2.2")).is_some());
        assert_eq!(addresses.over_limit(), 2);
        seats.pop();
        assert!(addresses.seat(peer("192.0.2.1")).is_some());
        drop(seats);
        assert!(addresses.lock().open.is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn a_64_counts_as_one_address() {
        let addresses = addresses(1, false);
        let _seat = addresses.seat(peer("2001:db8:0:1::1")).unwrap();
        assert!(addresses.seat(peer("2001:db8:0:1:ffff::2")).is_none());
        assert!(addresses.seat(peer("2001:db8:0:2::1")).is_some());
    }

    #[test]
    fn loopback_counts_if_it_is_told_to() {
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            let addresses = [addresses(1, false), addresses(1, true)];
            let [two_not, two_counted] = addresses.map(|addresses| {
                let _one = addresses.seat(peer(loopback)).unwrap();
                addresses.seat(peer(loopback)).is_some()
            });
            assert_eq!((two_not, two_counted), (true, false), "{loopback}");
        }
    }

    #[test]
    fn failures_shut_their_address_out_for_a_while() {
        let (addresses, now) = (addresses(1, false), start());
        let bad = peer("192.0.2.1");
        for _ in 0..2 {
            assert!(addresses.may_authenticate(bad, now));
            addresses.failed(bad, now);
        }
        assert!(!addresses.may_authenticate(bad, now));
        assert!(addresses.may_authenticate(peer("192.0.2.2"), now));
        assert!(addresses.may_authenticate(bad, now + Duration::from_secs(30)));
    }

    #[test]
    fn the_table_of_failures_is_bounded_and_full_it_shuts_nobody_else_out() {
        let (addresses, now) = (addresses(1, false), start());
        let nth = |n: u32| SocketAddr::new(IpAddr::V4((0x0a00_0000 + n).into()), 1);
        let max = u32::try_from(FAILING_MAX).unwrap();
        for n in 0..max + 1000 {
            addresses.failed(nth(n), now);
            addresses.failed(nth(n), now);
        }
        assert_eq!(addresses.lock().failing.len(), FAILING_MAX);
        assert!(!addresses.may_authenticate(nth(5), now) && addresses.may_authenticate(nth(max + 5), now));
        let later = now + Duration::from_secs(120);
        addresses.failed(nth(max), later);
        assert_eq!(addresses.lock().failing.len(), 1, "those whose time is over are forgotten");
    }
}
