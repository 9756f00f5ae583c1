//! A door with a bridge that answers everything, and a bystander who must not notice what others do.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use natter_broker::{Config, Door};
use natter_protocol::ids::{ConnectionId, DeviceId, MessageId};
use natter_protocol::link::{Answer, Down, Mode, Up};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::bytes;
use crate::common::{Client, FakeBridge, SOON, packet, publish, start};
use crate::script::{Leave, Script, write_text};

/// How long the door waits for a CONNECT and for the rest of a packet.
const PATIENCE: Duration = Duration::from_millis(400);
/// Entries that a connection's inbox holds.
const ENTRIES: u64 = 5;

static PANICS: AtomicU32 = AtomicU32::new(0);

/// Panics of any thread count from now on.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            usual(panic);
        }));
    });
}

/// What the process holds in memory.
pub(crate) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

pub(crate) struct World {
    door: Door,
    address: SocketAddr,
    bystander: Bystander,
    /// Each case has a user of its own.
    cases: u64,
}

impl World {
    pub(crate) async fn new() -> Self {
        count_panics();
        let config = Config { connect_time_max: PATIENCE, packet_time_max: PATIENCE, ..Config::default() };
        let (door, bridge, address) = start(config).await;
        tokio::spawn(answer_everything(bridge));
        Self { door, address, bystander: Bystander::connect(address).await, cases: 0 }
    }

    /// Plays the scripts at once, written in these turns.
    pub(crate) async fn play(&mut self, scripts: &[Script], turns: &[(usize, usize)]) -> Result<(), String> {
        self.cases += 1;
        let user = format!("u{}", self.cases);
        let mut hostiles = Vec::new();
        for script in scripts {
            hostiles.push(Hostile::connect(self.address, script, &user).await);
        }
        for (which, length) in turns {
            hostiles[*which].write(*length).await?;
        }
        for hostile in &mut hostiles {
            hostile.write(usize::MAX).await?;
            hostile.leave().await?;
        }
        let mut numbers = Vec::new();
        for hostile in hostiles {
            let mut number = None;
            if let Some((written, told)) = hostile.end().await? {
                bytes::check(&written, &told, &mut number)?;
            }
            numbers.extend(number);
        }
        if numbers.len() == 2 && numbers[0] == numbers[1] {
            return Err(format!("both connections were answered as {}", numbers[0]));
        }
        self.bystander.chat().await?;
        let give_up = Instant::now() + SOON;
        while self.door.stats().connections > 1 {
            if Instant::now() > give_up {
                return Err(format!("{} connections are still there", self.door.stats().connections));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        match PANICS.swap(0, Ordering::Relaxed) {
            0 => Ok(()),
            panics => Err(format!("{panics} panics")),
        }
    }
}

/// One connection of a case.
struct Hostile {
    writer: Option<tokio::net::tcp::OwnedWriteHalf>,
    reader: JoinHandle<(Vec<u8>, tokio::net::tcp::OwnedReadHalf)>,
    bytes: Vec<u8>,
    written: usize,
    leave: Leave,
}

impl Hostile {
    async fn connect(address: SocketAddr, script: &Script, user: &str) -> Self {
        let (mut reader, writer) = TcpStream::connect(address).await.unwrap().into_split();
        let reader = tokio::spawn(async move {
            let mut told = Vec::new();
            // A reset is an end too.
            let _ = reader.read_to_end(&mut told).await;
            (told, reader)
        });
        Self { writer: Some(writer), reader, bytes: script.bytes(user), written: 0, leave: script.leave }
    }

    /// Writes so many bytes more, unless the connection has ended.
    async fn write(&mut self, length: usize) -> Result<(), String> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let end = self.written.saturating_add(length).min(self.bytes.len());
        match timeout(SOON, writer.write_all(&self.bytes[self.written..end])).await {
            Ok(Ok(())) => self.written = end,
            Ok(Err(_)) => self.writer = None,
            Err(_) => return Err(format!("nothing is read behind byte {} of {}", self.written, self.bytes.len())),
        }
        Ok(())
    }

    async fn leave(&mut self) -> Result<(), String> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        match self.leave {
            Leave::Close => drop(writer.shutdown().await),
            Leave::Reset => {
                self.reader.abort();
                let _ = writer.as_ref().set_zero_linger();
                writer.forget();
            }
            Leave::Stay => {
                let is_half = bytes::cut(&self.bytes).1;
                let since = Instant::now();
                while is_half && !self.reader.is_finished() {
                    if since.elapsed() > SOON {
                        return Err("half a packet is waited for for ever".to_owned());
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let _ = writer.shutdown().await;
            }
        }
        Ok(())
    }

    /// What was written and what was read, once the connection has ended; `None` if nobody read to the end.
    async fn end(self) -> Result<Option<(Vec<u8>, Vec<u8>)>, String> {
        if self.leave == Leave::Reset {
            return Ok(None);
        }
        let told = timeout(SOON, self.reader).await.map_err(|_| "the connection is not ended".to_owned())?;
        Ok(Some((self.bytes, told.unwrap().0)))
    }
}

/// Somebody else, who talks over the same door.
struct Bystander {
    client: Client,
    packet_id: u16,
}

impl Bystander {
    async fn connect(address: SocketAddr) -> Self {
        let mut client = Client(TcpStream::connect(address).await.unwrap());
        client.0.set_nodelay(true).unwrap();
        let mut body = b"\0\x04MQTT\x05\xc2\0\0\0".to_vec();
        ["the-bystander", "bystander", "good"].iter().for_each(|text| write_text(&mut body, text));
        client.write(&packet(0x10, &body)).await;
        assert_eq!(client.read().await.unwrap().0, 0x20);
        let mut body = b"\0\x01\0".to_vec();
        write_text(&mut body, "users/bystander/watch/inbox");
        body.push(1);
        client.write(&packet(0x82, &body)).await;
        assert_eq!(client.read().await.unwrap().0, 0x90);
        Self { client, packet_id: 0 }
    }

    /// Publishes, and gets its PUBACK and an entry.
    async fn chat(&mut self) -> Result<(), String> {
        self.packet_id = self.packet_id % 60_000 + 1;
        self.client.write(&publish("users/bystander/watch/outbox", self.packet_id, b"{}")).await;
        let (mut puback, mut entry) = (false, false);
        while !(puback && entry) {
            let read = timeout(SOON, self.client.read()).await.map_err(|_| "the bystander waits for ever")?;
            match read.ok_or("the bystander's connection has ended")? {
                (0x40, body) if body[..2] == self.packet_id.to_be_bytes() => puback = true,
                (first @ (0x32 | 0x3a), body) => {
                    let at = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                    self.client.write(&packet(0x40, &body[at..at + 2])).await;
                    entry = first == 0x32;
                }
                (first, body) => return Err(format!("the bystander gets a 0x{first:02x}: {body:?}")),
            }
        }
        Ok(())
    }
}

/// The bridge: says yes to everything, and sends entries to whoever subscribes.
async fn answer_everything(mut bridge: FakeBridge) {
    let mut inboxes: HashMap<ConnectionId, u64> = HashMap::new();
    loop {
        let Some(frame) = bridge.next_within(SOON).await else { continue };
        bridge.confirm();
        let mut entry_to = None;
        match frame {
            Up::Open(connection, opening) => {
                let device = DeviceId::parse("phone").ok().filter(|_| !opening.clean_start);
                let held = if opening.clean_start { Vec::new() } else { vec![3] };
                bridge.send(&Down::Opened { connection, session_present: !opening.clean_start, device, held });
            }
            Up::Publish(publication) if !publication.will => {
                let (connection, packet) = (publication.connection, publication.packet);
                if packet.id > 0 {
                    // Who gets the answer can tell whose it is.
                    let id = MessageId::parse(&format!("re:c{}-{}.", connection.n, packet.id)).unwrap();
                    let answer = Answer::Message { id, n: 1, timestamp: 1_764_000_000 };
                    bridge.send(&Down::Answer { connection, packet, answer });
                }
                entry_to = (publication.device.as_str() == "watch").then_some(connection);
            }
            Up::Refused { connection, packet, kind, details } => {
                bridge.send(&Down::Answer { connection, packet, answer: Answer::Refused { kind, details } });
            }
            Up::Release { connection, packet_id } => bridge.send(&Down::Complete { connection, packet_id }),
            Up::Attach { connection, request, mode, device } => {
                let reason = u8::from(mode == Mode::Device);
                bridge.send(&Down::Attached { connection, request, reason });
                entry_to = (device.as_str() != "watch").then_some(connection);
            }
            Up::Acked { connection, .. } => {
                entry_to = inboxes.get(&connection).is_some_and(|seq| *seq < ENTRIES).then_some(connection);
            }
            Up::Close { connection, .. } => drop(inboxes.remove(&connection)),
            Up::Publish(_) | Up::Detach { .. } | Up::Took(_) | Up::Ring => {}
        }
        if let Some(connection) = entry_to {
            let seq = inboxes.entry(connection).or_default();
            *seq += 1;
            let payload = bytes_of_entry(*seq);
            bridge.send(&Down::Entry { connection, seq: *seq, again: false, payload });
        }
    }
}

fn bytes_of_entry(seq: u64) -> ::bytes::Bytes {
    format!(r#"{{"seq":{seq},"prev":{}}}"#, seq - 1).into()
}
