//! Contacts for a run, put over HTTP: many requests on their way at a time.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

/// Connections that put contacts.
const THREADS: usize = 16;
/// Requests of one of them without an answer.
const UNANSWERED: usize = 16;
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Whose contact becomes who: a token, and a name.
pub(crate) type Put<'a> = (&'a str, &'a str);

/// Puts them, and returns when all are committed.
pub(crate) fn befriend(http: SocketAddr, puts: &[Put<'_>]) -> Result<()> {
    thread::scope(|scope| {
        let shares = puts.chunks(puts.len().div_ceil(THREADS).max(1));
        let threads: Vec<_> = shares.map(|share| scope.spawn(move || put_all(http, share))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread has panicked"))?)
    })
}

fn put_all(http: SocketAddr, puts: &[Put<'_>]) -> Result<()> {
    let mut stream = TcpStream::connect(http).with_context(|| http.to_string())?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let mut chunk = [0; 16 * 1024];
    for puts in puts.chunks(UNANSWERED) {
        let requests: String = puts
            .iter()
            .map(|(token, name)| {
                format!("PUT /v1/contacts/{name} HTTP/1.1\r\nhost: natter\r\nauthorization: Bearer {token}\r\ncontent-length: 0\r\n\r\n")
            })
            .collect();
        stream.write_all(requests.as_bytes())?;
        let mut answers = String::new();
        // Each answer ends with its body.
        while answers.matches("{\"success\":true}").count() < puts.len() {
            let length = stream.read(&mut chunk).context("expected an answer over HTTP")?;
            answers.push_str(&String::from_utf8_lossy(chunk.get(..length).unwrap_or_default()));
            if length == 0 || answers.contains("HTTP/1.1 4") || answers.contains("HTTP/1.1 5") {
                bail!("PUT /v1/contacts: expected 200, got {answers:?}");
            }
        }
    }
    Ok(())
}
