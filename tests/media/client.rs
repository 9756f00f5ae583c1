//! Bodies that are too large to be held: sent and read as they come.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    reason = "every test uses its part, and ends with the first thing that is wrong"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::common::{Client, TestServer, dial, patience};

pub const MIB: u64 = 1 << 20;

/// Bytes that can be made anywhere: those of a file of that seed from `at` on.
pub fn fill(seed: u8, at: u64, out: &mut [u8]) {
    for (byte, at) in out.iter_mut().zip(at..) {
        *byte = (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ seed;
    }
    // No magic number of any type.
    if at == 0 && !out.is_empty() {
        out[0] = 1;
    }
}

pub fn bytes(seed: u8, count: usize) -> Vec<u8> {
    let mut all = vec![0; count];
    fill(seed, 0, &mut all);
    all
}

pub fn sum(seed: u8, count: u64) -> String {
    let mut sha = Sha256::new();
    pieces(seed, 0..count, |piece| {
        sha.update(piece);
        true
    });
    hex(&sha.finalize())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pieces(seed: u8, range: std::ops::Range<u64>, mut take: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    let mut at = range.start;
    while at < range.end {
        let count = usize::try_from((range.end - at).min(64 << 10)).expect("small");
        fill(seed, at, &mut buffer[..count]);
        if !take(&buffer[..count]) {
            return;
        }
        at += count as u64;
    }
}

/// A request whose body is sent in parts.
pub struct Sending {
    stream: TcpStream,
    chunked: bool,
}

impl Sending {
    /// Sends the head. Without a `length` the body is chunked.
    pub fn begin(client: &Client, target: &str, headers: &[(&str, &str)], length: Option<u64>) -> Self {
        let mut stream = dial(client.address);
        stream.set_read_timeout(Some(patience() * 3)).expect("a timeout");
        let mut head = format!("POST {target} HTTP/1.1\r\nhost: natter\r\nconnection: close\r\n");
        if let Some(token) = &client.token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        match length {
            Some(length) => head.push_str(&format!("content-length: {length}\r\n")),
            None => head.push_str("transfer-encoding: chunked\r\n"),
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).expect("a connection");
        Self { stream, chunked: length.is_none() }
    }

    /// Sends bytes; `false`: the server takes no more.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        if self.chunked {
            let head = format!("{:x}\r\n", bytes.len());
            return self.stream.write_all(&[head.as_bytes(), bytes, b"\r\n"].concat()).is_ok();
        }
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends bytes of a file of that seed.
    pub fn send_file(&mut self, seed: u8, range: std::ops::Range<u64>) {
        pieces(seed, range, |piece| self.send(piece));
    }

    /// Ends the body and reads the answer.
    pub fn answer(mut self) -> Answer {
        if self.chunked {
            let _ = self.stream.write_all(b"0\r\n\r\n");
        }
        Answer::read(self.stream, None)
    }

    /// The answer to a body that is not all there.
    pub fn early_answer(self) -> Answer {
        Answer::read(self.stream, None)
    }
}

/// An answer whose body may be large.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    pub length: u64,
    pub sha256: String,
}

impl Answer {
    /// Reads an answer; of the body the first MiB is kept. With `stop_at`, no more than so many bytes of it.
    fn read(stream: TcpStream, stop_at: Option<u64>) -> Self {
        let mut reader = BufReader::with_capacity(64 << 10, stream);
        let mut head = String::new();
        loop {
            let mut line = String::new();
            let read = reader.read_line(&mut line).expect("an answer");
            assert!(read > 0, "the connection ends before an answer: {head:?}");
            if line == "\r\n" {
                // What comes before the answer to a body that was asked for.
                if head.starts_with("HTTP/1.1 100") {
                    head.clear();
                    continue;
                }
                break;
            }
            head.push_str(&line);
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let (mut sha, mut body, mut length, mut buffer) = (Sha256::new(), Vec::new(), 0, vec![0; 64 << 10]);
        while stop_at.is_none_or(|stop_at| length < stop_at) {
            let Ok(count @ 1..) = reader.read(&mut buffer) else { break };
            sha.update(&buffer[..count]);
            if body.len() < MIB as usize {
                body.extend_from_slice(&buffer[..count]);
            }
            length += count as u64;
        }
        Self { status, head: head.to_ascii_lowercase(), body, length, sha256: hex(&sha.finalize()) }
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// GET, and what comes of it; with `stop_at`, the connection is closed after so many bytes.
pub fn get(client: &Client, target: &str, headers: &[(&str, &str)], stop_at: Option<u64>) -> Answer {
    let mut stream = dial(client.address);
    stream.set_read_timeout(Some(patience() * 3)).expect("a timeout");
    let mut head = format!("GET {target} HTTP/1.1\r\nhost: natter\r\nconnection: close\r\n");
    if let Some(token) = &client.token {
        head.push_str(&format!("authorization: Bearer {token}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).expect("a connection");
    Answer::read(stream, stop_at)
}

/// Uploads bytes alone; the answer's id.
pub fn upload(client: &Client, query: &str, mime: &str, content: &[u8]) -> String {
    let answer = client.request("POST", &format!("/v1/media{query}"), &[("content-type", mime)], content);
    answer.ok()["id"].as_str().expect("an id").to_owned()
}

/// The body of a form: fields before the file, the file, fields behind it.
pub fn form(before: &[(&str, &str)], file: Option<(&str, &str, &[u8])>, after: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    let field = |body: &mut Vec<u8>, (name, value): &(&str, &str)| {
        body.extend_from_slice(
            format!("--b0undary\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").as_bytes(),
        );
    };
    before.iter().for_each(|pair| field(&mut body, pair));
    if let Some((name, mime, content)) = file {
        body.extend_from_slice(
            format!("--b0undary\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n").as_bytes(),
        );
        if !mime.is_empty() {
            body.extend_from_slice(format!("Content-Type: {mime}\r\n").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    after.iter().for_each(|pair| field(&mut body, pair));
    body.extend_from_slice(b"--b0undary--\r\n");
    body
}

pub const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=b0undary");

/// Files of the local store, whole or not.
pub fn stored(server: &TestServer) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() { walk(&entry.path(), found) } else { found.push(entry.path()) }
        }
    }
    let mut found = Vec::new();
    walk(&server.data().join("media/objects"), &mut found);
    found
}

/// Waits until the local store has so many files, and none that is not whole.
#[track_caller]
pub fn stored_soon(server: &TestServer, count: usize) {
    let deadline = Instant::now() + patience();
    loop {
        let found = stored(server);
        if found.len() == count && found.iter().all(|path| !path.display().to_string().contains('#')) {
            return;
        }
        assert!(Instant::now() < deadline, "expected {count} files, got {found:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Watches how much memory a process has.
pub struct Rss {
    pid: u32,
    before: u64,
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

impl Rss {
    pub fn watch(pid: u32) -> Self {
        let before = rss_kib(pid);
        let (most, stop) = (Arc::new(AtomicU64::new(before)), Arc::new(AtomicBool::new(false)));
        let shared = (Arc::clone(&most), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !shared.1.load(Ordering::Relaxed) {
                shared.0.fetch_max(rss_kib(pid), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self { pid, before, most, stop, thread }
    }

    /// By how many MiB it grew at the most.
    pub fn grown_mib(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a thread");
        let most = self.most.load(Ordering::Relaxed).max(rss_kib(self.pid));
        most.saturating_sub(self.before) >> 10
    }
}
