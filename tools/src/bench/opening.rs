//! How connections are opened: many at a time, each through the greeting of its protocol.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use super::net::Link;
use super::packets::MqttGreeting;
use super::xmpp::greeting::XmppGreeting;

/// How long a connection may take to be answered.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Connections that are opened at a time, where nothing else is asked for.
pub(crate) const OPENING: usize = 64;
/// Addresses of the loopback network that connections come from.
const SOURCES: usize = 8;

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Mqtt,
    Xmpp,
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "mqtt" => Ok(Self::Mqtt),
            "xmpp" => Ok(Self::Xmpp),
            _ => Err(format!("expected mqtt or xmpp, got {text:?}")),
        }
    }
}

impl Protocol {
    /// As it is written on a command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Xmpp => "xmpp",
        }
    }

    fn greeting(self, login: &Login) -> Box<dyn Greeting + '_> {
        match self {
            Self::Mqtt => Box::new(MqttGreeting::new(login)),
            Self::Xmpp => Box::new(XmppGreeting::new(login)),
        }
    }
}

/// Where a server listens, and what it speaks there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoint {
    pub(crate) protocol: Protocol,
    pub(crate) address: SocketAddr,
}

/// Who connects, and what to.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) token: String,
    pub(crate) device: String,
    /// Whether it subscribes to its inbox.
    pub(crate) subscribes: bool,
}

/// What is said until a connection is of use. Pure.
pub(crate) trait Greeting {
    /// What is said first.
    fn first(&mut self) -> Vec<u8>;

    /// Takes what has come so far and was not used.
    ///
    /// # Errors
    /// The server does not let it in.
    fn take(&mut self, input: &[u8]) -> Result<Step>;
}

/// What a [`Greeting`] makes of its input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Not all of it is there.
    Wait,
    /// So many bytes are used; this is to be said.
    Say { used: usize, bytes: Vec<u8> },
    /// The same, and the connection is of use.
    Done { used: usize, bytes: Vec<u8> },
}

/// Opens connections, `at_once` at a time.
pub(crate) fn open(endpoint: Endpoint, logins: &[Login], at_once: usize) -> Result<Vec<Link>> {
    let mut links = Vec::with_capacity(logins.len());
    for logins in logins.chunks(at_once.max(1)) {
        let mut guests: Vec<Guest<'_>> = Vec::with_capacity(logins.len());
        for (index, login) in logins.iter().enumerate() {
            guests.push(Guest::new(endpoint, index, login)?);
        }
        // One answer of each at a time, so that the server has something of all of them to do.
        while guests.iter().any(|guest| !guest.is_done) {
            for guest in guests.iter_mut().filter(|guest| !guest.is_done) {
                let Login { user, device, .. } = guest.login;
                guest.go_on().with_context(|| format!("{user}/{device}"))?;
            }
        }
        for Guest { stream, input, .. } in guests {
            links.push(Link::new(stream, input)?);
        }
    }
    Ok(links)
}

/// A connection that is being opened.
struct Guest<'a> {
    login: &'a Login,
    stream: TcpStream,
    greeting: Box<dyn Greeting + 'a>,
    input: Vec<u8>,
    is_done: bool,
}

impl<'a> Guest<'a> {
    fn new(endpoint: Endpoint, index: usize, login: &'a Login) -> Result<Self> {
        let Endpoint { protocol, address } = endpoint;
        let mut stream = dial(address, index).with_context(|| address.to_string())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        let mut greeting = protocol.greeting(login);
        stream.write_all(&greeting.first())?;
        Ok(Self { login, stream, greeting, input: Vec::new(), is_done: false })
    }

    /// Waits for an answer, and says what follows.
    fn go_on(&mut self) -> Result<()> {
        let mut chunk = [0; 4096];
        let (used, bytes) = loop {
            match self.greeting.take(&self.input)? {
                Step::Wait => {}
                Step::Say { used, bytes } => break (used, bytes),
                Step::Done { used, bytes } => {
                    self.is_done = true;
                    break (used, bytes);
                }
            }
            let length = self.stream.read(&mut chunk).context("expected an answer to the greeting")?;
            if length == 0 {
                bail!("closed before the greeting was over");
            }
            self.input.extend_from_slice(chunk.get(..length).unwrap_or_default());
        };
        self.input.drain(..used);
        Ok(self.stream.write_all(&bytes)?)
    }
}

/// Connects. To a server on loopback from one of its many addresses, each of which has as many ports again.
fn dial(address: SocketAddr, index: usize) -> Result<TcpStream> {
    let SocketAddr::V4(v4) = address else { return Ok(TcpStream::connect_timeout(&address, ANSWER_MAX)?) };
    if !v4.ip().is_loopback() {
        return Ok(TcpStream::connect_timeout(&address, ANSWER_MAX)?);
    }
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let source = u8::try_from(1 + index % SOURCES).unwrap_or(1);
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, source), 0))?;
    connect(&socket, &v4)?;
    Ok(socket.into())
}
