//! Media by `link`: fetched here and kept as if its sender had uploaded it. Off unless the configuration names hosts.

use axum::http::{StatusCode, header};
use http_body_util::BodyExt as _;
use natter_protocol::MediaId;
use natter_protocol::error::{Kind, Refusal};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::{Api, Caller, Problem};
use crate::media::kind::{Declared, too_large};
use crate::media::row::{MediaFile, MediaKind};
use crate::webhook::{Client, Settings, Target};

/// Longest link, in bytes.
const LINK_BYTES_MAX: usize = 2048;

/// Fetches the file that a message names by `link`. `None` for any other message, and if no host is allowed: then such a message is
/// refused where its parameters are read.
///
/// # Errors
/// Why it cannot be had: 403 for a host that is not allowed, 400 for a link that leads to no file, 413 for one that is too large.
pub(super) async fn fetch(api: &Api, caller: &Caller, body: &Map<String, Value>) -> Result<Option<MediaFile>, Problem> {
    let allowed = &api.media.config().links;
    let Some(name) = body.get("type").and_then(Value::as_str) else { return Ok(None) };
    let Some(kind) = MediaKind::parse(name) else { return Ok(None) };
    let Some(object) = body.get(name).and_then(Value::as_object) else { return Ok(None) };
    let Some(Value::String(link)) = object.get("link") else { return Ok(None) };
    if allowed.hosts.is_empty() || object.contains_key("id") {
        return Ok(None);
    }
    let target = target(link, &allowed.hosts).map_err(|refusal| at(name, refusal.into()))?;
    let deadline = Instant::now() + allowed.time_max;
    let fetched = timeout_at(deadline, file(api, caller, kind, &target)).await.unwrap_or_else(|_| {
        let details = format!("expected the file within {} s, got no more of it", allowed.time_max.as_secs());
        Err(Refusal::new(Kind::NoMedia, details).into())
    });
    fetched.map(Some).map_err(|problem| at(name, problem))
}

/// The message with the id of what was fetched in the place of its link.
pub(super) fn replaced(body: &Map<String, Value>, id: &MediaId) -> Map<String, Value> {
    let mut body = body.clone();
    let name = body.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(object) = body.get_mut(&name).and_then(Value::as_object_mut) {
        object.remove("link");
        object.insert("id".into(), Value::from(id.as_str()));
    }
    body
}

fn at(name: &str, problem: Problem) -> Problem {
    problem.within(&format!("{name}.link"))
}

fn target(link: &str, hosts: &[String]) -> Result<Target, Refusal> {
    let invalid = |details: String| Refusal::new(Kind::InvalidValue, details);
    if link.len() > LINK_BYTES_MAX {
        return Err(invalid(format!("expected at most {LINK_BYTES_MAX} bytes, got {}", link.len())));
    }
    let target = Target::parse(link).map_err(|error| invalid(own_words(&error)))?;
    let host = target.host().to_ascii_lowercase();
    if !hosts.iter().any(|allowed| allowed == "*" || *allowed == host) {
        let details = "expected a host that this server fetches from (media.link_hosts), got another";
        return Err(Refusal::new(Kind::NotAllowed, details));
    }
    Ok(target)
}

/// What the client of webhooks says, said of a link.
fn own_words(error: &str) -> String {
    let error = error.strip_prefix("url: ").unwrap_or(error);
    error.replace("webhooks.private_addresses", "media.link_private_addresses")
}

async fn file(api: &Api, caller: &Caller, kind: MediaKind, target: &Target) -> Result<MediaFile, Problem> {
    let allowed = &api.media.config().links;
    let unreachable = |error: String| Problem::from(Refusal::new(Kind::NoMedia, own_words(&error)));
    let settings =
        Settings { private_addresses: allowed.private_addresses, posts_at_a_time: 1, timeout: allowed.time_max };
    let (answer, _connection) = Client::new(settings).get(target).await.map_err(unreachable)?;
    if answer.status() != StatusCode::OK {
        // A redirect may lead anywhere: it is not followed.
        let details = format!("expected 200 and the file itself, got {}", answer.status());
        return Err(Refusal::new(Kind::NoMedia, details).into());
    }
    let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let size: Option<u64> = text(header::CONTENT_LENGTH).and_then(|size| size.parse().ok());
    let of_answer = text(header::CONTENT_TYPE).and_then(Declared::of_type).unwrap_or_default();
    let said = Declared { kind: Some(kind), mime: None }.or(&of_answer);
    if size.is_some_and(|size| size > kind.bytes_max()) {
        return Err(too_large(kind).into());
    }
    let mut upload = api.media.begin(&caller.user, size).await?;
    upload.limit_to(&said);
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| unreachable(format!("expected all of the file, got {error}")))?;
        if let Some(bytes) = frame.data_ref() {
            upload.write(bytes).await?;
        }
    }
    // A repeat finds it by its name.
    Ok(upload.finish(&said, Some(target.file_name().unwrap_or(target.host()))).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s64_only_allowed_hosts_are_asked() {
        let hosts = ["cdn.example.com".to_owned()];
        let kind = |link: &str| target(link, &hosts).map(|_| ()).map_err(|refusal| refusal.kind);
        assert_eq!(kind("https://cdn.example.com/a.png?x=1"), Ok(()));
        assert_eq!(kind("https://CDN.example.com:8443/a.png"), Ok(()));
        for other in
            ["https://example.com/", "https://cdn.example.com.evil.com/", "http://127.0.0.1/", "https://[::1]/"]
        {
            assert_eq!(kind(other), Err(Kind::NotAllowed), "{other}");
        }
        let long = format!("https://cdn.example.com/{}", "a".repeat(2048));
        for wrong in
            ["", "a.png", "file:///etc/passwd", "gopher://cdn.example.com/", "https://x@cdn.example.com/", &long]
        {
            assert_eq!(kind(wrong), Err(Kind::InvalidValue), "{wrong}");
        }
        assert_eq!(target("https://any.example.com/", &["*".to_owned()]).map(|_| ()), Ok(()));
    }
}
