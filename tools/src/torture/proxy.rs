//! A TCP proxy between clients and server that can delay, hold, throttle, cut and reset what it carries.
//!
//! Its port stays the same when the server's changes. Two threads a link, at most [`LINKS_MAX`] links: one more is closed at once.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Most connections at a time.
const LINKS_MAX: usize = 1024;
/// Most bytes of one direction that wait for their time.
const WAITING_MAX: usize = 256 * 1024;
/// How soon a pump notices a new fault, at the latest.
const LOOK: Duration = Duration::from_millis(50);
/// How long it waits for more while something is waiting for its time.
const LOOK_DELAYED: Duration = Duration::from_millis(5);
/// How long it waits for the server to accept.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// No cut is planned.
const NEVER: u32 = u32::MAX;

/// What is wrong with one direction.
#[derive(Debug)]
pub(crate) struct Direction {
    delay_ms: AtomicU32,
    held: AtomicBool,
    /// Bytes a second, 0: as many as come.
    rate: AtomicU32,
    /// The link ends behind so many more bytes.
    cut_after: AtomicU32,
}

impl Default for Direction {
    fn default() -> Self {
        let (delay_ms, held, rate) = (AtomicU32::new(0), AtomicBool::new(false), AtomicU32::new(0));
        Self { delay_ms, held, rate, cut_after: AtomicU32::new(NEVER) }
    }
}

/// A connection through the proxy.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// From the client to the server.
    up: Direction,
    down: Direction,
    over: AtomicBool,
    reset: AtomicBool,
}

/// What the nemesis can do to a link.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Delay(u32),
    /// One direction stands still.
    HoldOne,
    HoldBoth,
    Throttle(u32),
    CutAfter(u32),
    Reset,
}

impl Link {
    /// `up`: in the direction to the server, where a fault has one.
    pub(crate) fn inflict(&self, fault: Fault, up: bool) {
        let one = if up { &self.up } else { &self.down };
        match fault {
            Fault::Delay(ms) => [&self.up, &self.down].iter().for_each(|way| way.delay_ms.store(ms, SeqCst)),
            Fault::HoldOne => one.held.store(true, SeqCst),
            Fault::HoldBoth => [&self.up, &self.down].iter().for_each(|way| way.held.store(true, SeqCst)),
            Fault::Throttle(rate) => one.rate.store(rate.max(1), SeqCst),
            Fault::CutAfter(bytes) => one.cut_after.store(bytes.min(NEVER - 1), SeqCst),
            Fault::Reset => {
                self.reset.store(true, SeqCst);
                self.over.store(true, SeqCst);
            }
        }
    }

    pub(crate) fn heal(&self) {
        for way in [&self.up, &self.down] {
            way.delay_ms.store(0, SeqCst);
            way.held.store(false, SeqCst);
            way.rate.store(0, SeqCst);
            way.cut_after.store(NEVER, SeqCst);
        }
    }
}

/// The proxy; its threads end with the process.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    upstream: AtomicU16,
    /// Nothing passes anywhere.
    dark: AtomicBool,
    links: Mutex<Vec<Arc<Link>>>,
    opened: AtomicUsize,
}

impl Proxy {
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("port of the proxy")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        thread::Builder::new().name("proxy".into()).spawn(move || accept(&listener, &own))?;
        Ok(Self { port, shared })
    }

    /// Where the server listens now.
    pub(crate) fn lead_to(&self, port: u16) {
        self.shared.upstream.store(port, SeqCst);
    }

    pub(crate) fn darken(&self, dark: bool) {
        self.shared.dark.store(dark, SeqCst);
    }

    /// The connections that live.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        let links = self.shared.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.iter().filter(|link| !link.over.load(SeqCst)).cloned().collect()
    }

    pub(crate) fn heal(&self) {
        self.darken(false);
        self.links().iter().for_each(|link| link.heal());
    }

    /// How many connections there were.
    pub(crate) fn opened(&self) -> usize {
        self.shared.opened.load(SeqCst)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let Ok(client) = client else {
            thread::sleep(LOOK);
            continue;
        };
        let link = Arc::new(Link::default());
        {
            let mut links = shared.links.lock().unwrap_or_else(PoisonError::into_inner);
            links.retain(|link| !link.over.load(SeqCst));
            if links.len() >= LINKS_MAX {
                continue;
            }
            links.push(Arc::clone(&link));
        }
        shared.opened.fetch_add(1, SeqCst);
        let own = Arc::clone(shared);
        // Without a thread the connection is closed: the client comes again.
        let _no_thread = thread::Builder::new().name("link".into()).spawn(move || carry(client, &link, &own));
    }
}

/// Connects to the server and carries both directions until one ends.
fn carry(client: TcpStream, link: &Arc<Link>, shared: &Arc<Shared>) {
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, shared.upstream.load(SeqCst)));
    if let Ok(server) = TcpStream::connect_timeout(&server, CONNECT_WAIT) {
        let (client, server) = (Arc::new(client), Arc::new(server));
        let back = {
            let (client, server, link, shared) =
                (Arc::clone(&client), Arc::clone(&server), Arc::clone(link), Arc::clone(shared));
            thread::Builder::new().name("link".into()).spawn(move || pump(&server, &client, &link, &link.down, &shared))
        };
        if back.is_ok() {
            pump(&client, &server, link, &link.up, shared);
        }
        // The last one to go closes the sockets, with RST if that is what is wanted.
    }
    link.over.store(true, SeqCst);
}

fn pump(from: &TcpStream, to: &TcpStream, link: &Link, way: &Direction, shared: &Shared) {
    let _ended = move_bytes(from, to, link, way, shared);
    link.over.store(true, SeqCst);
    for socket in [from, to] {
        let _gone_already = if link.reset.load(SeqCst) {
            rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO)).map_err(Into::into)
        } else {
            socket.shutdown(Shutdown::Both)
        };
    }
}

fn move_bytes(
    mut from: &TcpStream,
    to: &TcpStream,
    link: &Link,
    way: &Direction,
    shared: &Shared,
) -> std::io::Result<()> {
    from.set_nodelay(true)?;
    to.set_write_timeout(Some(LOOK))?;
    let mut wait = Duration::ZERO;
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut chunk = [0; 16 * 1024];
    let mut ended = false;
    while !(link.over.load(SeqCst) || ended && waiting.is_empty()) {
        let held = || way.held.load(SeqCst) || shared.dark.load(SeqCst);
        if held() {
            thread::sleep(LOOK_DELAYED);
            continue;
        }
        let look = if waiting.is_empty() { LOOK } else { LOOK_DELAYED };
        if ended || waiting.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() >= WAITING_MAX {
            thread::sleep(LOOK_DELAYED);
        } else {
            if look != wait {
                from.set_read_timeout(Some(look))?;
                wait = look;
            }
            match from.read(&mut chunk) {
                Ok(0) => ended = true,
                Ok(length) => {
                    let delay = Duration::from_millis(way.delay_ms.load(SeqCst).into());
                    waiting.push_back((Instant::now() + delay, chunk.get(..length).unwrap_or_default().to_vec()));
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(e) => return Err(e),
            }
        }
        // What was read just before it was held waits too.
        while !held()
            && waiting.front().is_some_and(|(due, _)| *due <= Instant::now())
            && let Some((_, bytes)) = waiting.pop_front()
        {
            if !pass_on(to, &bytes, link, way)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Writes `bytes` as fast as it may; `false` behind a cut.
fn pass_on(mut to: &TcpStream, bytes: &[u8], link: &Link, way: &Direction) -> std::io::Result<bool> {
    let mut rest = bytes;
    while !rest.is_empty() {
        if link.over.load(SeqCst) {
            return Ok(false);
        }
        let (rate, left) = (way.rate.load(SeqCst), way.cut_after.load(SeqCst));
        // A tenth of a second's worth.
        let most = if rate == 0 { rest.len() } else { (rate as usize / 10).max(1) };
        let most = if left == NEVER { most } else { most.min(left as usize) };
        if most == 0 {
            return Ok(false);
        }
        match to.write(rest.get(..most).unwrap_or(rest)) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => {
                rest = rest.get(length..).unwrap_or_default();
                if left != NEVER {
                    let length = u32::try_from(length).unwrap_or(NEVER);
                    // Healed meanwhile: then it stays healed.
                    let _healed = way.cut_after.compare_exchange(left, left.saturating_sub(length), SeqCst, SeqCst);
                }
                if rate > 0 {
                    thread::sleep(Duration::from_millis(100));
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client and what the server sees of it, through the proxy.
    fn pair(proxy: &Proxy, server: &TcpListener) -> (TcpStream, TcpStream, Arc<Link>) {
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
        let (peer, _) = server.accept().unwrap();
        [&client, &peer].iter().for_each(|s| s.set_read_timeout(Some(Duration::from_secs(10))).unwrap());
        let link = proxy.links().pop().unwrap();
        (client, peer, link)
    }

    fn start() -> (Proxy, TcpListener) {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Proxy::start().unwrap();
        proxy.lead_to(server.local_addr().unwrap().port());
        (proxy, server)
    }

    #[test]
    fn bytes_pass_both_ways_and_a_cut_comes_in_their_middle() {
        let (proxy, server) = start();
        let (mut client, mut peer, link) = pair(&proxy, &server);
        let mut five = [0; 5];
        client.write_all(b"hello").unwrap();
        peer.read_exact(&mut five).unwrap();
        peer.write_all(b"again").unwrap();
        client.read_exact(&mut five).unwrap();
        assert_eq!(&five, b"again");
        link.inflict(Fault::CutAfter(3), true);
        client.write_all(b"hello").unwrap();
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"hel");
        assert_eq!(client.read(&mut five).unwrap(), 0);
    }

    #[test]
    fn what_is_held_comes_when_it_is_healed_and_the_other_way_goes_on() {
        let (proxy, server) = start();
        let (mut client, mut peer, link) = pair(&proxy, &server);
        link.inflict(Fault::HoldOne, true);
        client.write_all(b"hello").unwrap();
        peer.write_all(b"again").unwrap();
        let mut five = [0; 5];
        client.read_exact(&mut five).unwrap();
        peer.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(peer.read(&mut five).is_err(), "held");
        proxy.heal();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        peer.read_exact(&mut five).unwrap();
        assert_eq!(&five, b"hello");
    }

    #[test]
    fn a_delay_delays_and_a_reset_resets() {
        let (proxy, server) = start();
        let (mut client, mut peer, link) = pair(&proxy, &server);
        link.inflict(Fault::Delay(300), true);
        let start = Instant::now();
        client.write_all(b"hello").unwrap();
        let mut five = [0; 5];
        peer.read_exact(&mut five).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(300));
        link.inflict(Fault::Reset, true);
        assert_eq!(client.read(&mut five).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(peer.read(&mut five).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
