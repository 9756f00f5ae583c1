//! A message in multipart: its parameters as parts, and perhaps the file itself.

use std::future::Future;

use natter_protocol::error::Kind;
use natter_protocol::ids::MediaId;
use serde_json::{Map, Value, json};

use super::form::Form;
use super::{Api, Caller, Problem, liberal};
use crate::media::row::{MediaFile, MediaKind};

/// Files of the same name that a repeated message may have carried, at most: the newest.
const REPEATS_MAX: usize = 8;

/// A form as the parameters of a message; its file's id stands in the file's place.
fn parameters(form: &Form) -> Result<Map<String, Value>, Problem> {
    let mut body = Map::new();
    for (name, text) in &form.fields {
        if body.contains_key(name) {
            return Err(Problem::of(Kind::Malformed, format!("{name}: expected one part of that name, got two")));
        }
        body.insert(name.clone(), value(name, text)?);
    }
    if let Some(file) = &form.file {
        put(&mut body, file, &file.id);
    }
    Ok(body)
}

/// Objects come as JSON, as `location={"latitude":..}`; the words of a text are words, whatever they look like.
fn value(name: &str, text: &str) -> Result<Value, Problem> {
    if name == "text" || !text.trim_start().starts_with(['{', '[']) {
        return Ok(Value::from(text));
    }
    let mut members = liberal::parse(&[b"{\"part\":", text.as_bytes(), b"}"].concat())?;
    Ok(members.remove("part").unwrap_or_default())
}

fn put(body: &mut Map<String, Value>, file: &MediaFile, id: &MediaId) {
    let is_document = file.kind == MediaKind::Document;
    let mut object = json!({ "id": id.as_str() });
    if is_document && let Some(name) = &file.name {
        object["filename"] = Value::from(name.as_str());
    }
    let parameter = if is_document { "document" } else { "media_object" };
    body.insert(parameter.to_owned(), object);
    body.entry("type").or_insert(Value::from(file.kind.as_str()));
}

/// Sends the message of a form with `send`. A repeat of it comes with the same bytes under another media id: it is the first message still,
/// and what was uploaded for nothing goes.
pub(super) async fn send<T, F>(
    api: &Api,
    caller: &Caller,
    form: &Form,
    send: impl Fn(Map<String, Value>) -> F,
) -> Result<T, Problem>
where
    F: Future<Output = Result<T, Problem>>,
{
    let Some(file) = &form.file else { return send(parameters(form)?).await };
    let with = |id: &MediaId| {
        let mut body = parameters(form)?;
        put(&mut body, file, id);
        Ok(body)
    };
    send_file(api, caller, file, with, send).await
}

/// As [`send`], of a message that is made `with` the id of its `file`.
pub(super) async fn send_file<T, F>(
    api: &Api,
    caller: &Caller,
    file: &MediaFile,
    with: impl Fn(&MediaId) -> Result<Map<String, Value>, Problem>,
    send: impl Fn(Map<String, Value>) -> F,
) -> Result<T, Problem>
where
    F: Future<Output = Result<T, Problem>>,
{
    let sent = match with(&file.id) {
        Ok(body) => send(body).await,
        Err(problem) => Err(problem),
    };
    let problem = match sent {
        Ok(sent) => return Ok(sent),
        Err(problem) => problem,
    };
    if problem.code == Kind::Conflict.code()
        && let Some(name) = &file.name
    {
        let known = api.media.find(&caller.user, name).await?;
        let is_same = |known: &&MediaFile| {
            known.id != file.id && (&known.owner, known.sha256, known.kind) == (&file.owner, file.sha256, file.kind)
        };
        for same in known.iter().filter(is_same).take(REPEATS_MAX) {
            match send(with(&same.id)?).await {
                Ok(sent) => {
                    forget(api, caller, file).await;
                    return Ok(sent);
                }
                Err(other) if other.code == Kind::Conflict.code() => {}
                Err(other) => return Err(other),
            }
        }
    }
    if problem.status().is_client_error() {
        // It is known that nothing was sent: nobody has the file.
        forget(api, caller, file).await;
    }
    Err(problem)
}

async fn forget(api: &Api, caller: &Caller, file: &MediaFile) {
    if let Err(error) = api.media.delete(&caller.user, &file.id).await {
        tracing::debug!(%error, "a file that came with a message that was not sent stays until its time is over");
    }
}
