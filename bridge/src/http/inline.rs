//! A message in multipart: its parameters as parts, and perhaps the file itself.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request};
use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use natter_protocol::error::Kind;
use natter_protocol::ids::MediaId;
use natter_protocol::message::MessageType;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::{Api, Caller, Problem};

/// Most parts of a message.
const PARTS_MAX: usize = 32;
/// Most bytes of a part that is no file.
const PART_BYTES_MAX: usize = 64 * 1024;
/// How long a part that is no file may take to arrive, and the head of a file.
const PART_TIME_MAX: Duration = Duration::from_secs(30);

/// Takes in the files that come with messages: what keeps media implements it.
pub trait InlineFiles: Send + Sync {
    /// Uploads `file` for the caller, reading it as it comes; its media id. The limits of its kind hold.
    fn take<'a>(
        &'a self,
        caller: &'a Caller,
        file: InlineFile<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<MediaId, Problem>> + Send + 'a>>;
}

/// A file that comes with a message.
pub struct InlineFile<'a> {
    /// What it is sent as, where that is known before it is read.
    pub kind: Option<MessageType>,
    /// Its name, as the sender says: data, never a path.
    pub name: Option<String>,
    /// Its type, as the sender says.
    pub content_type: Option<String>,
    /// Its bytes.
    pub bytes: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + 'a>>,
}

/// Reads a message's parameters; a file among them is uploaded, and its id stands in its place.
pub(super) async fn read(api: &Api, caller: &Caller, request: Request) -> Result<Map<String, Value>, Problem> {
    // A file may be as large as its kind may be: whoever takes it counts.
    let mut parts = Multipart::from_request(unlimited(request), &())
        .await
        .map_err(|rejection| Problem::of(Kind::Malformed, format!("body: {}", rejection.body_text())))?;
    let mut body = Map::new();
    for _ in 0..PARTS_MAX {
        let Some(part) = next(&mut parts).await? else { return Ok(body) };
        let name = part.name().unwrap_or_default().to_owned();
        let is_file = matches!(name.as_str(), "media_object" | "document" | "file")
            && (part.file_name().is_some() || part.content_type().is_some_and(|kind| !kind.starts_with("text/plain")));
        if body.contains_key(&name) {
            return Err(Problem::of(Kind::Malformed, format!("{name}: expected one part of that name, got two")));
        }
        if is_file {
            file(api, caller, part, &name, &mut body).await?;
        } else {
            let value = text(part, &name).await?;
            body.insert(name, value);
        }
    }
    Err(Problem::of(Kind::Malformed, format!("body: expected at most {PARTS_MAX} parts, got more")))
}

/// Lifts the limit that is meant for bodies that are held in memory.
fn unlimited(mut request: Request) -> Request {
    DefaultBodyLimit::disable().apply(&mut request);
    request
}

async fn next(parts: &mut Multipart) -> Result<Option<Field<'_>>, Problem> {
    match timeout(PART_TIME_MAX, parts.next_field()).await {
        Ok(part) => part.map_err(|error| unreadable(&error)),
        Err(_) => Err(too_slow()),
    }
}

async fn text(mut part: Field<'_>, name: &str) -> Result<Value, Problem> {
    let reading = async {
        let mut bytes = Vec::new();
        while let Some(chunk) = part.chunk().await.map_err(|error| unreadable(&error))? {
            if bytes.len() + chunk.len() > PART_BYTES_MAX {
                let detail = format!("{name}: expected at most {PART_BYTES_MAX} bytes, got more");
                return Err(Problem::of(Kind::TooLarge, detail));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    };
    let bytes = timeout(PART_TIME_MAX, reading).await.map_err(|_| too_slow())??;
    let text = String::from_utf8(bytes)
        .map_err(|_| Problem::of(Kind::Malformed, format!("{name}: expected UTF-8, got something else")))?;
    // Objects come as JSON, as `location={"latitude":..}`; the words of a text are words, whatever they look like.
    if name != "text" && text.trim_start().starts_with(['{', '[']) {
        let wrapped = [b"{\"part\":", text.as_bytes(), b"}"].concat();
        let mut members = super::liberal::parse(&wrapped)?;
        return Ok(members.remove("part").unwrap_or_default());
    }
    Ok(Value::from(text))
}

async fn file(
    api: &Api,
    caller: &Caller,
    part: Field<'_>,
    name: &str,
    body: &mut Map<String, Value>,
) -> Result<(), Problem> {
    let Some(files) = &api.files else {
        let detail = format!("{name}: expected a media id, got a file; this server keeps no media");
        return Err(Problem::of(Kind::NoMedia, detail));
    };
    let named = body.get("type").and_then(Value::as_str).and_then(MessageType::parse);
    let kind = if name == "document" { Some(MessageType::Document) } else { named };
    let file_name = part.file_name().map(ToOwned::to_owned);
    let content_type = part.content_type().map(ToOwned::to_owned);
    let by_content_type = content_type.as_deref().and_then(|text| match text.split('/').next() {
        Some("image") => Some(MessageType::Image),
        Some("audio") => Some(MessageType::Audio),
        Some("video") => Some(MessageType::Video),
        _ => None,
    });
    let bytes = part.map(|chunk| chunk.map_err(io::Error::other));
    let kind = kind.or(by_content_type);
    let file = InlineFile { kind, name: file_name.clone(), content_type, bytes: Box::pin(bytes) };
    let id = files.take(caller, file).await?;
    let mut object = json!({ "id": id.to_string() });
    let is_document = kind.is_none_or(|kind| kind == MessageType::Document);
    if is_document && let Some(file_name) = file_name.filter(|name| !name.is_empty()) {
        object["filename"] = Value::from(file_name);
    }
    // `file` is either, as its type says.
    let name = match name {
        "file" if is_document => "document",
        "file" => "media_object",
        name => name,
    };
    body.insert(name.to_owned(), object);
    if let Some(kind) = kind {
        body.entry("type").or_insert(Value::from(kind.as_str()));
    }
    Ok(())
}

fn unreadable(error: &MultipartError) -> Problem {
    let kind = if error.status() == StatusCode::PAYLOAD_TOO_LARGE { Kind::TooLarge } else { Kind::Malformed };
    Problem::of(kind, format!("body: {}", error.body_text()))
}

fn too_slow() -> Problem {
    let detail = format!("body: expected the next part within {} s", PART_TIME_MAX.as_secs());
    Problem::new(StatusCode::REQUEST_TIMEOUT, Kind::Malformed, detail)
}
