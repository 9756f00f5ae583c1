//! MQTT over WebSocket (MQTT 5 section 6): the route, who may use it, and a WebSocket as a stream of bytes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{ConnectInfo, Extension, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::{Buf as _, Bytes};
use futures_util::{SinkExt as _, StreamExt as _};
use natter_bridge::http::Problem;
use natter_broker::{Door, OVERSIZE_BYTES_MAX, Seat};
use natter_protocol::error::Kind;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The subprotocol that a client must offer [MQTT-6.0.0-3].
const SUBPROTOCOL: &str = "mqtt";
/// Most bytes of a frame, and of a message of several: a little above the largest packet that the door reads past.
const MESSAGE_BYTES_MAX: usize = OVERSIZE_BYTES_MAX + 1024;
/// Memory that a connection holds for reading, idle or not; a larger frame grows it.
const READ_BUFFER_BYTES: usize = 2 * 1024;
/// Most bytes of a frame that is sent. It is what waits for a client that does not read, beyond what the door has.
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// What the route needs to know.
#[derive(Clone)]
pub(crate) struct Gate {
    /// Weak, as the door is gone once it has drained.
    pub(crate) door: Weak<Door>,
    /// Web pages of other hosts that may connect.
    pub(crate) origins: Arc<[String]>,
}

/// `GET /mqtt`: a WebSocket that carries MQTT.
pub(crate) async fn mqtt(
    State(gate): State<Gate>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(seat): Extension<Arc<Seat>>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    if !may_connect(&headers, uri.authority(), &gate.origins) {
        let detail = "pages of this Origin may not connect; the server's http.allowed_origins names those that may";
        return Err(Problem::new(StatusCode::FORBIDDEN, Kind::NotAllowed, detail.to_owned()));
    }
    let upgrade = upgrade.map_err(|rejection| {
        let detail = format!("expected a WebSocket handshake: {}", rejection.body_text());
        Problem::new(rejection.status(), Kind::Malformed, detail)
    })?;
    let upgrade = upgrade.protocols([SUBPROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        let detail = "expected the subprotocol mqtt in Sec-WebSocket-Protocol, and it is not there";
        return Err(Problem::new(StatusCode::BAD_REQUEST, Kind::Malformed, detail.to_owned()));
    }
    let Some(place) = gate.door.upgrade().and_then(|door| door.place(peer, seat)) else {
        let detail = "no more connections are taken now; try again later";
        return Err(Problem::not_now(detail.to_owned()));
    };
    let upgrade = upgrade
        .max_frame_size(MESSAGE_BYTES_MAX)
        .max_message_size(MESSAGE_BYTES_MAX)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0);
    Ok(upgrade.on_upgrade(move |socket| place.serve(Box::new(Frames::new(socket)))).into_response())
}

/// Whether the page that a browser speaks for, if any, may connect: a page of the host that the request goes to, or one that is listed.
fn may_connect(headers: &HeaderMap, authority: Option<&Authority>, allowed: &[String]) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (origin, second) = (origins.next(), origins.next());
    let Some(origin) = origin else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    if second.is_some() {
        return false;
    }
    if allowed.iter().any(|each| each.eq_ignore_ascii_case(origin)) {
        return true;
    }
    let own = match authority {
        Some(authority) => Some(authority.clone()),
        None => headers.get(header::HOST).and_then(|host| host.as_bytes().try_into().ok()),
    };
    let page = origin.split_once("://").and_then(|(_, page)| page.parse::<Authority>().ok());
    match (own, page) {
        (Some(own), Some(page)) => own.host().eq_ignore_ascii_case(page.host()) && !origin.contains('@'),
        _ => false,
    }
}

/// A WebSocket as the stream of bytes that its binary messages make; where a message ends means nothing [MQTT-6.0.0-2].
struct Frames {
    socket: WebSocket,
    /// What is left of the last message.
    rest: Bytes,
}

impl Frames {
    fn new(socket: WebSocket) -> Self {
        Self { socket, rest: Bytes::new() }
    }

    /// Says why the connection ends, if that can be written at once.
    fn refuse(&mut self, cx: &mut Context<'_>, code: u16, reason: &'static str) -> io::Error {
        if self.socket.poll_ready_unpin(cx).is_ready() {
            let close = CloseFrame { code, reason: reason.into() };
            let _said = self.socket.start_send_unpin(Message::Close(Some(close)));
            let _written = self.socket.poll_flush_unpin(cx);
        }
        io::Error::new(io::ErrorKind::InvalidData, reason)
    }
}

impl AsyncRead for Frames {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.socket.poll_next_unpin(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                // Pings are answered below us. A close is answered there too, and then the stream ends.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    let reason = "expected binary frames, got text";
                    return Poll::Ready(Err(self.refuse(cx, close_code::UNSUPPORTED, reason)));
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "WebSocket");
                    return Poll::Ready(Err(self.refuse(cx, close_code::PROTOCOL, "a frame that cannot be read")));
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let bytes = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..bytes]);
        self.rest.advance(bytes);
        if self.rest.is_empty() {
            // Not only emptied: the memory of the message goes.
            self.rest = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Frames {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.socket.poll_ready_unpin(cx)).map_err(io::Error::other)?;
        let bytes = &bytes[..bytes.len().min(FRAME_BYTES_MAX)];
        let frame = Message::Binary(Bytes::copy_from_slice(bytes));
        self.socket.start_send_unpin(frame).map_err(io::Error::other)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_flush_unpin(cx).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_close_unpin(cx).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(host: &str, origins: &[&str], allowed: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        for origin in origins {
            headers.append(header::ORIGIN, origin.parse().unwrap());
        }
        let allowed: Vec<String> = allowed.iter().map(|each| (*each).to_owned()).collect();
        may_connect(&headers, None, &allowed)
    }

    #[test]
    fn no_page_the_hosts_own_pages_and_listed_ones_may_connect() {
        assert!(passes("chat.example.com", &[], &[]));
        for own in ["https://chat.example.com", "http://chat.example.com", "http://Chat.Example.com:3000"] {
            assert!(passes("chat.example.com:8443", &[own], &[]), "{own}");
        }
        assert!(passes("[::1]:8080", &["http://[::1]:3000"], &[]));
        assert!(passes("chat.example.com", &["https://app.example.com"], &["https://app.example.com"]));
        assert!(passes("chat.example.com", &["capacitor://localhost"], &["capacitor://localhost"]));
    }

    #[test]
    fn other_pages_may_not() {
        for origin in [
            "https://example.com",
            "https://evil.example.com",
            "https://chat.example.com.evil.com",
            "https://chat.example.com@evil.com",
            "https://evil.com/chat.example.com",
            "chat.example.com",
            "null",
            "",
        ] {
            assert!(!passes("chat.example.com", &[origin], &[]), "{origin:?}");
        }
        assert!(!passes("chat.example.com", &["https://app.example.com:444"], &["https://app.example.com"]));
        assert!(!passes("chat.example.com", &["https://chat.example.com", "https://evil.com"], &[]));
    }
}
