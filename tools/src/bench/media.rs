//! Files: up, then down, over HTTP, several at a time, a connection for each.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::process::Cpu;

/// How long a transfer may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// What is written and read at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// The head of an answer, at most.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What is transferred.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    pub(crate) files: u32,
    /// Of a file.
    pub(crate) bytes: u64,
    pub(crate) at_once: u32,
}

/// What one direction took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    pub(crate) time: Duration,
    pub(crate) cpu: Cpu,
}

/// Sends all files up, then fetches them all.
pub(crate) fn run(plan: &Plan, server: Option<u32>) -> Result<(Took, Took)> {
    let mut up = Vec::new();
    let uploading = timed(server, || {
        up = all(plan, |_| upload(plan))?;
        Ok(())
    })?;
    let downloading = timed(server, || {
        let fetch = |i: u32| download(plan, up.get(i as usize).map_or("", String::as_str));
        all(plan, fetch).map(drop)
    })?;
    Ok((uploading, downloading))
}

fn timed(server: Option<u32>, work: impl FnOnce() -> Result<()>) -> Result<Took> {
    let (start, before) = (Instant::now(), Cpu::now(server)?);
    work()?;
    Ok(Took { time: start.elapsed(), cpu: Cpu::now(server)?.since(before) })
}

/// Does `one` for every file, `at_once` at a time.
fn all<T: Send>(plan: &Plan, one: impl Fn(u32) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicU32::new(0);
    let work = || {
        let numbers = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < plan.files));
        numbers.map(&one).collect::<Result<Vec<T>>>()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.at_once).map(|_| scope.spawn(work)).collect();
        let done = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread of the transfers has panicked")));
        Ok(done.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    })
}

/// The id of the file.
fn upload(plan: &Plan) -> Result<String> {
    let mut stream = connect(plan)?;
    write!(
        stream,
        "POST /v1/media?file_type=document HTTP/1.1\r\nhost: natter\r\nauthorization: Bearer {}\r\ncontent-type: \
         application/octet-stream\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        plan.token, plan.bytes
    )?;
    let piece = vec![0x5a; PIECE_BYTES];
    let mut left = plan.bytes;
    while left > 0 {
        let length = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        stream.write_all(piece.get(..length).unwrap_or_default())?;
        left -= length as u64;
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").and_then(|at| answer.get(at + 4..));
    let said: serde_json::Value = serde_json::from_slice(body.unwrap_or_default())
        .with_context(|| format!("upload: expected JSON, got {:?}", String::from_utf8_lossy(&answer)))?;
    said["id"].as_str().map(str::to_owned).with_context(|| format!("upload: expected an id, got {said}"))
}

fn download(plan: &Plan, id: &str) -> Result<()> {
    let mut stream = connect(plan)?;
    write!(
        stream,
        "GET /v1/media/{id} HTTP/1.1\r\nhost: natter\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        plan.token
    )?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut head = Vec::new();
    let mut got: Option<u64> = None;
    loop {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            break;
        }
        match &mut got {
            Some(got) => *got += length as u64,
            None => {
                head.extend_from_slice(piece.get(..length).unwrap_or_default());
                if let Some(at) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                    got = Some((head.len() - at - 4) as u64);
                } else if head.len() > HEAD_BYTES_MAX {
                    bail!("download: expected a head of at most {HEAD_BYTES_MAX} bytes");
                }
            }
        }
    }
    if got != Some(plan.bytes) || !head.starts_with(b"HTTP/1.1 200") {
        let shown = String::from_utf8_lossy(head.get(..head.len().min(200)).unwrap_or_default()).into_owned();
        bail!("download: expected {} bytes of file {id}, got {got:?}: {shown:?}", plan.bytes);
    }
    Ok(())
}

fn connect(plan: &Plan) -> Result<TcpStream> {
    let stream = TcpStream::connect(plan.address).with_context(|| plan.address.to_string())?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    Ok(stream)
}
