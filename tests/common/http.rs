//! An HTTP/1.1 client in bytes: a request and its answer, on a connection of its own.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use serde_json::Value;

use super::raw::dial;
use super::{TestServer, parse, patience};

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert!(self.header("content-type").is_some_and(|kind| kind.contains("json")), "{self:?}");
        parse(&self.body)
    }

    /// The JSON of a success, which is exactly 200.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// A refusal of that status and code, in Natter's own shape or one of WhatsApp's; its details.
    #[track_caller]
    pub fn refused(&self, status: u16, code: u64) -> String {
        let body = self.json();
        let error = &body["error"];
        let (got, details) = if error.is_object() {
            (&error["code"], &error["error_data"]["details"])
        } else {
            (&body["code"], &body["detail"])
        };
        assert_eq!((self.status, got), (status, &Value::from(code)), "{body}");
        details.as_str().expect("details").to_owned()
    }
}

/// Somebody who calls.
#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub token: Option<String>,
}

impl Client {
    /// A caller with a token for every device of the user.
    pub fn of(server: &TestServer, user: &str) -> Self {
        Self { address: server.http(), token: Some(server.token(user)) }
    }

    /// A caller without a token.
    pub fn nobody(server: &TestServer) -> Self {
        Self { address: server.http(), token: None }
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        self.request("GET", target, &[], b"")
    }

    #[track_caller]
    pub fn post(&self, target: &str, body: &Value) -> Answer {
        self.request("POST", target, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    #[track_caller]
    pub fn request(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: natter\r\nconnection: close\r\n");
        if let Some(token) = &self.token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method != "GET" {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        exchange(self.address, &[head.as_bytes(), body].concat())
            .unwrap_or_else(|| panic!("no answer to {method} {target}"))
    }
}

/// Sends bytes and reads the answer to its end; `None` when the connection ends without one.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    let mut stream = dial(address);
    stream.set_read_timeout(Some(patience() + patience())).expect("a timeout");
    // A server that has refused early closes while this is being written.
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    read(&all)
}

fn read(all: &[u8]) -> Option<Answer> {
    let end = all.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut body = all[end + 4..].to_vec();
    if headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked") {
        body = dechunked(&body)?;
    }
    Some(Answer { status, headers, body })
}

fn dechunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?.trim(), 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(line + 2..line + 2 + length)?);
        rest = rest.get(line + 2 + length + 2..)?;
    }
}
