//! A real S3 server for tests: SeaweedFS, as `setup.sh` installs it, on free ports of loopback with a directory of its own; and a way to it
//! that can be slow, down or broken.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "every test uses its part, and ends with the first thing that is wrong"
)]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub const ACCESS_KEY: &str = "natter";
pub const SECRET_KEY: &str = "natter-secret";
/// Made by the first upload.
pub const BUCKET: &str = "natter-media";
/// How long the server may take to come up.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// A running server; killed, and its directory removed, on drop.
pub struct Weed {
    child: Child,
    dir: TempDir,
    pub address: SocketAddr,
}

/// The program, installed if it is not; `None`: it cannot be here, and the test says SKIP. With `NATTER_TEST_ALL` no test skips.
pub fn program() -> Option<PathBuf> {
    let root = root();
    let output = Command::new(root.join("tests/s3/setup.sh")).output().expect("bash");
    if output.status.success() {
        return Some(root.join("target/s3/venv/bin/weed"));
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(std::env::var_os("NATTER_TEST_ALL").is_none(), "tests/s3/setup.sh: {stderr}");
    eprintln!("SKIP: no S3 server, since tests/s3/setup.sh fails: {stderr}");
    None
}

/// The workspace, from whichever package the test is of.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if here.join("tests/s3/setup.sh").exists() { here.to_owned() } else { here.parent().expect("a parent").to_owned() }
}

impl Weed {
    /// Starts one, unless there is no program for it.
    pub fn start() -> Option<Self> {
        let program = program()?;
        for _ in 0..5 {
            // Another test may have taken a port meanwhile.
            if let Some(weed) = Self::try_start(&program) {
                return Some(weed);
            }
        }
        panic!("the S3 server does not start");
    }

    fn try_start(program: &Path) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let identities = format!(
            r#"{{"identities":[{{"name":"t","credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}],
            "actions":["Admin","Read","Write","List"]}}]}}"#
        );
        let config = dir.path().join("s3.json");
        std::fs::write(&config, identities).expect("a file");
        let [s3, master, volume, filer] = free_ports();
        let child = Command::new(program)
            .arg("server")
            .arg(format!("-dir={}", dir.path().display()))
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-master.telemetry=false"])
            .args(["-volume.max=100", "-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0", "-s3.port.lance=0"])
            .arg(format!("-s3.port={s3}"))
            .arg(format!("-s3.config={}", config.display()))
            .arg(format!("-s3.localSocket={}", dir.path().join("s3.sock").display()))
            .arg(format!("-master.port={master}"))
            .arg(format!("-volume.port={volume}"))
            .arg(format!("-filer.port={filer}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log")).expect("a file"))
            .spawn()
            .expect("weed");
        let mut weed = Self { child, dir, address: SocketAddr::from(([127, 0, 0, 1], s3)) };
        let deadline = Instant::now() + START_TIME_MAX;
        while Instant::now() < deadline {
            if weed.child.try_wait().expect("a status").is_some() {
                eprintln!("{}", std::fs::read_to_string(weed.dir.path().join("log")).unwrap_or_default());
                return None;
            }
            if weed.answers() && is_writable(filer) {
                return Some(weed);
            }
            thread::sleep(Duration::from_millis(100));
        }
        None
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.address) else { return false };
        let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 403")
    }
}

/// Writes a file into the bucket by the back door: the first write makes volumes, which takes seconds.
fn is_writable(filer: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", filer)) else { return false };
    let request = format!(
        "PUT /buckets/{BUCKET}/warm HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
    );
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 201")
}

impl Drop for Weed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports that are free, and those 10,000 above them too, which the server takes as well; all below those that the kernel gives out.
fn free_ports() -> [u16; 4] {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let seed = std::process::id() as usize * 7919;
    let mut ports = std::iter::repeat_with(|| {
        let at = seed + NEXT.fetch_add(1, Ordering::Relaxed);
        11_000 + u16::try_from(at % 11_000).expect("small")
    })
    .filter(|port| is_free(*port) && is_free(port + 10_000));
    std::array::from_fn(|_| ports.next().expect("endless"))
}

/// A way to a server that can be made worse.
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    mode: AtomicUsize,
    /// How many more requests are answered with 500 in [`Mode::Fails`].
    failures: AtomicU64,
    connections: AtomicUsize,
}

/// What a proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Hands everything on.
    Fast,
    /// Hands 16 KiB on every 5 ms.
    Slow,
    /// Closes every connection at once.
    Down,
    /// Takes everything and says nothing.
    Silent,
    /// Answers so many requests with 500, and hands everything on after that.
    Fails(u64),
}

const MODES: [Mode; 4] = [Mode::Fast, Mode::Slow, Mode::Down, Mode::Silent];
const FAILS: usize = 4;

impl Proxy {
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                thread::spawn(move || state.connection(client, server));
            }
        });
        Self { address, state }
    }

    /// From now on, also for connections that are open.
    pub fn set(&self, mode: Mode) {
        if let Mode::Fails(count) = mode {
            self.state.failures.store(count, Ordering::SeqCst);
        }
        let number = MODES.iter().position(|known| *known == mode).unwrap_or(FAILS);
        self.state.mode.store(number, Ordering::SeqCst);
    }
}

impl State {
    fn mode(&self) -> Option<Mode> {
        MODES.get(self.mode.load(Ordering::SeqCst)).copied()
    }

    fn connection(self: Arc<Self>, client: TcpStream, server: SocketAddr) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        if self.mode() == Some(Mode::Down) {
            return;
        }
        if self.mode().is_none() && self.fails_once(&client) {
            return;
        }
        let Ok(upstream) = TcpStream::connect(server) else { return };
        let (from, to) = (upstream.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
        let state = Arc::clone(&self);
        let back = thread::spawn(move || state.pump(from, to));
        self.pump(client, upstream);
        let _ = back.join();
    }

    /// Answers one request with 500 and closes.
    fn fails_once(&self, mut client: &TcpStream) -> bool {
        let take = |left: u64| left.checked_sub(1);
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
            return false;
        }
        let mut buffer = vec![0; 64 * 1024];
        let _ = client.read(&mut buffer);
        let _ =
            client.write_all(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let _ = client.shutdown(Shutdown::Write);
        // What it still sends is read, so that it sees the answer and no reset.
        let _ = client.set_read_timeout(Some(Duration::from_millis(500)));
        while client.read(&mut buffer).is_ok_and(|n| n > 0) {}
        true
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            match self.mode() {
                Some(Mode::Slow) => thread::sleep(Duration::from_millis(5)),
                Some(Mode::Silent) => continue,
                Some(Mode::Fast) => {}
                Some(Mode::Down | Mode::Fails(_)) => break,
                None if self.failures.load(Ordering::SeqCst) > 0 => break,
                None => {}
            }
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
