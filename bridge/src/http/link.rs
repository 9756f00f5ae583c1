//! Media by `link`: fetched here and kept as if its sender had uploaded it. Off unless the configuration names hosts.

use axum::http::{StatusCode, header};
use http_body_util::BodyExt as _;
use natter_protocol::MediaId;
use natter_protocol::error::{Kind, Refusal};
use natter_protocol::message::MessageType;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::{Api, Caller, Problem};
use crate::media::kind::{Declared, too_large};
use crate::media::row::MediaKind;
use crate::webhook::{Client, Settings, Target};

/// Longest link, in bytes.
const LINK_BYTES_MAX: usize = 2048;

/// Fetches the file that a message names by `link`, and puts its id in the place of the link. Nothing is done to any other message, nor if
/// no host is allowed: then such a message is refused where its parameters are read.
///
/// # Errors
/// Why it cannot be had: 403 for a host that is not allowed, 400 for a link that leads to no file, 413 for one that is too large.
pub(super) async fn fetch(
    api: &Api,
    caller: &Caller,
    body: &mut Map<String, Value>,
) -> Result<Option<MediaId>, Problem> {
    let allowed = &api.media.config().links;
    let Some((name, kind)) = body.get("type").and_then(Value::as_str).and_then(|name| {
        let kind = MediaKind::parse(MessageType::parse(name)?.as_str())?;
        Some((name.to_owned(), kind))
    }) else {
        return Ok(None);
    };
    let Some(object) = body.get_mut(&name).and_then(Value::as_object_mut) else { return Ok(None) };
    if allowed.hosts.is_empty() || object.contains_key("id") {
        return Ok(None);
    }
    let Some(Value::String(link)) = object.get("link") else { return Ok(None) };
    let target = target(link, &allowed.hosts).map_err(|error| at(&name, error))?;
    let deadline = Instant::now() + allowed.time_max;
    let fetched = timeout_at(deadline, file(api, caller, kind, &target)).await.unwrap_or_else(|_| {
        let error = format!("expected the file within {} s, got no more of it", allowed.time_max.as_secs());
        Err(Refusal::new(Kind::NoMedia, error).into())
    });
    let id = fetched.map_err(|problem| problem.within(&format!("{name}.link")))?;
    object.remove("link");
    object.insert("id".into(), Value::from(id.to_string()));
    Ok(Some(id))
}

/// A message that is not sent leaves nothing of its file.
pub(super) async fn undo(api: &Api, caller: &Caller, fetched: Option<MediaId>) {
    if let Some(id) = fetched
        && let Err(error) = api.media.delete(&caller.user, &id).await
    {
        tracing::debug!(%id, %error, "media: the file of a message that was not sent stays until it expires");
    }
}

fn at(name: &str, refusal: Refusal) -> Problem {
    Problem::from(refusal).within(&format!("{name}.link"))
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

async fn file(api: &Api, caller: &Caller, kind: MediaKind, target: &Target) -> Result<MediaId, Problem> {
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
    Ok(upload.finish(&said, target.file_name()).await?.id)
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
