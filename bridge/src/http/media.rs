//! Files over HTTP: Natter's own routes, which the on-premises API's clients know too, and the Cloud API's.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use futures_util::StreamExt as _;
use natter_protocol::error::Kind;
use natter_protocol::{MediaId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Names, Params};
use super::whatsapp::must_be_version;
use super::{Api, Caller, Problem, form};
use crate::media::kind::Declared;
use crate::media::name::disposition;
use crate::media::range::{Wanted, wanted};
use crate::media::row::{MediaFile, MediaKind};
use crate::media::signed::Ticket;
use crate::webhook;

/// How long a client may keep what it downloaded: files do not change.
const CACHE_CONTROL: &str = "private, max-age=86400, immutable";
/// No file of a user runs in a browser as if it were ours.
const CONTENT_SECURITY_POLICY: &str = "sandbox; default-src 'none'";

/// The request came over TLS: the root says so, in its extensions.
#[derive(Debug, Clone, Copy)]
pub struct Secure;

/// The routes that ask for a token.
pub(super) fn with_token() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(upload, find))
        .routes(routes!(download, delete))
        .routes(routes!(cloud_upload))
        .routes(routes!(cloud_info, cloud_delete))
}

/// The one that carries its permission in its query.
pub(super) fn open() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(content))
}

/// A file that is stored.
#[derive(Debug, Serialize, ToSchema)]
struct Uploaded {
    /// The file's id: 16 to 19 decimal digits.
    id: String,
    /// The same, as the on-premises API has it.
    media: Vec<OnlyId>,
    #[serde(flatten)]
    facts: Facts,
}

#[derive(Debug, Serialize, ToSchema)]
struct OnlyId {
    /// The file's id.
    id: String,
}

/// What is known of a file.
#[derive(Debug, Serialize, ToSchema)]
struct Facts {
    /// image, audio, video, sticker or document.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Its MIME type, as its bytes say.
    mime_type: String,
    /// Of its bytes, in hexadecimal digits.
    sha256: String,
    /// In bytes.
    file_size: u64,
    /// What its owner calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Unix seconds of its upload.
    timestamp: String,
}

impl Facts {
    fn of(file: &MediaFile) -> Self {
        Self {
            kind: file.kind.as_str(),
            mime_type: file.mime.clone(),
            sha256: file.sha256_hex(),
            file_size: file.size,
            name: file.name.clone(),
            timestamp: file.made_at.to_string(),
        }
    }
}

/// What may be said of an upload in its query.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct UploadQuery {
    /// image, audio, video, sticker, document, or a MIME type. Counts above the body's Content-Type.
    file_type: Option<String>,
    /// The same.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// The file's name, for a body without one.
    name: Option<String>,
}

impl UploadQuery {
    fn declared(&self) -> Result<Declared, Problem> {
        let said = [("file_type", &self.file_type), ("type", &self.kind)];
        let mut all = Declared::default();
        for (name, value) in said {
            if let Some(value) = value {
                all = all.or(&Declared::parse(name, value)?);
            }
        }
        Ok(all)
    }
}

/// A form with a file.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
struct UploadForm {
    /// image, audio, video, sticker, document, or a MIME type; before or after the file. Without it the part's Content-Type counts.
    file_type: Option<String>,
    /// The same, as the Cloud API names it.
    #[schema(rename = "type")]
    kind: Option<String>,
    /// `whatsapp`, as the Cloud API has it.
    messaging_product: Option<String>,
    /// The file, with its name.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    file: String,
}

/// Uploads a file: as a form, or its bytes alone. Images, audio, video and stickers have at most 16 MiB, documents 100 MiB.
#[utoipa::path(post, path = "/v1/media", operation_id = "upload_file", tag = "media", params(UploadQuery),
    request_body(content((UploadForm = "multipart/form-data"), (Vec<u8> = "application/octet-stream"))),
    responses(
        (status = 200, description = "It is stored.", body = Uploaded),
        (status = 400, description = "No file, or not what it should be.", body = Problem, content_type = "application/json"),
        (status = 401, description = "No token, or not a good one.", body = Problem, content_type = "application/json"),
        (status = 403, description = "The token is not for this.", body = Problem, content_type = "application/json"),
        (status = 408, description = "The body came too slowly.", body = Problem, content_type = "application/json"),
        (status = 413, description = "Larger than its kind may be.", body = Problem, content_type = "application/json"),
        (status = 429, description = "A quota is used up.", body = Problem, content_type = "application/json"),
        (status = 503, description = "Not now.", body = Problem, content_type = "application/json"),
    ))]
async fn upload(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<UploadQuery>,
    request: Request,
) -> Result<Json<Uploaded>, Problem> {
    let file = take_in(&api, &caller.user, &query, request).await?;
    let id = file.id.to_string();
    Ok(Json(Uploaded { id: id.clone(), media: vec![OnlyId { id }], facts: Facts::of(&file) }))
}

async fn take_in(api: &Api, user: &UserId, query: &UploadQuery, request: Request) -> Result<MediaFile, Problem> {
    let (parts, body) = request.into_parts();
    let said = query.declared()?;
    if !form::is_multipart(&parts.headers) {
        return form::raw(&api.media, user, &parts.headers, &said, query.name.as_deref(), body).await;
    }
    let form = form::multipart(&api.media, user, &parts.headers, &said, body).await?;
    form.file.ok_or_else(|| Problem::of(Kind::Malformed, "file: expected a part of that name, with the file, got none"))
}

/// Which file is looked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct FindQuery {
    /// The exact name.
    name: Option<String>,
}

/// Files of one name.
#[derive(Debug, Serialize, ToSchema)]
struct Found {
    /// The newest first; at most 100.
    media: Vec<FoundFile>,
}

#[derive(Debug, Serialize, ToSchema)]
struct FoundFile {
    /// The file's id.
    id: String,
    #[serde(flatten)]
    facts: Facts,
}

/// Finds files by their exact name, among those that the caller uploaded or received, the newest first.
#[utoipa::path(get, path = "/v1/media", operation_id = "find_files", tag = "media", params(FindQuery),
    responses(
        (status = 200, description = "What was found; it may be nothing.", body = Found),
        (status = 400, description = "No name.", body = Problem, content_type = "application/json"),
        (status = 401, description = "No token, or not a good one.", body = Problem, content_type = "application/json"),
    ))]
async fn find(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<FindQuery>,
) -> Result<Json<Found>, Problem> {
    let Some(name) = query.name.filter(|name| !name.is_empty()) else {
        return Err(Problem::of(Kind::Malformed, "name: expected the name of a file, got nothing"));
    };
    let files = api.media.find(&caller.user, &name).await?;
    let media = files.iter().map(|file| FoundFile { id: file.id.to_string(), facts: Facts::of(file) }).collect();
    Ok(Json(Found { media }))
}

/// Downloads a file: the bytes themselves, all or one `Range` of them. For who uploaded it and who was sent it.
#[utoipa::path(get, path = "/v1/media/{id}", operation_id = "download_file", tag = "media", params(("id" = String, Path, description = "The file's id.")),
    responses(
        (status = 200, description = "All of it.", content_type = "*/*", body = Vec<u8>),
        (status = 206, description = "A range.", content_type = "*/*", body = Vec<u8>),
        (status = 302, description = "It is at the `Location`, for a few minutes."),
        (status = 304, description = "The client has it."),
        (status = 401, description = "No token, or not a good one.", body = Problem, content_type = "application/json"),
        (status = 404, description = "No such file, or not for the caller.", body = Problem, content_type = "application/json"),
        (status = 416, description = "The range lies outside of it.", body = Problem, content_type = "application/json"),
        (status = 503, description = "Not now.", body = Problem, content_type = "application/json"),
    ))]
async fn download(
    State(api): State<Api>,
    caller: Caller,
    Names(id): Names<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let file = readable(&api, &caller.user, &id).await?;
    bytes_of(&api, &file, &method, &headers).await
}

/// Deletes a file, for everybody. For who uploaded it.
#[utoipa::path(delete, path = "/v1/media/{id}", operation_id = "delete_media", tag = "media", params(("id" = String, Path, description = "The file's id.")),
    responses(
        (status = 200, description = "It is gone.", body = Done),
        (status = 401, description = "No token, or not a good one.", body = Problem, content_type = "application/json"),
        (status = 404, description = "No such file, or another's.", body = Problem, content_type = "application/json"),
    ))]
async fn delete(State(api): State<Api>, caller: Caller, Names(id): Names<String>) -> Result<Json<Done>, Problem> {
    forget(&api, &caller.user, &id).await
}

/// Done.
#[derive(Debug, Serialize, ToSchema)]
struct Done {
    /// Always true.
    success: bool,
}

/// Downloads a file by the short-lived `url` that the Cloud API's media information has; with and without a token.
#[utoipa::path(get, path = "/v1/media/{id}/content", operation_id = "file_content", tag = "media", params(("id" = String, Path, description = "The file's id.")),
    responses(
        (status = 200, description = "All of it.", content_type = "*/*", body = Vec<u8>),
        (status = 404, description = "Its time is over: ask for another.", body = Problem, content_type = "application/json"),
    ))]
async fn content(
    State(api): State<Api>,
    Names(id): Names<String>,
    method: Method,
    headers: HeaderMap,
    uri: axum::http::Uri,
) -> Result<Response, Problem> {
    let query = uri.query().unwrap_or_default();
    let ticket = MediaId::parse(&id).ok().and_then(|id| api.media.signer().check(&id, query, api.now()));
    let Some(ticket) = ticket else {
        let detail = "expected a URL as the media information has it, less than five minutes old: ask for another";
        return Err(Problem::new(StatusCode::NOT_FOUND, Kind::NoMedia, detail));
    };
    let file = readable(&api, &ticket.user, &id).await?;
    bytes_of(&api, &file, &method, &headers).await
}

/// The Cloud API's upload: `{user}` is the caller.
#[utoipa::path(post, path = "/v{version}/{user}/media", tag = "Cloud API",
    params(("version" = String, Path, description = "Any, as 24.0"), ("user" = String, Path, description = "The caller.")),
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "It is stored.", body = CloudUploaded),
        (status = "4XX", description = "In the Cloud API's shape.", body = serde_json::Value, content_type = "application/json"),
        (status = 503, description = "Not now.", body = serde_json::Value, content_type = "application/json"),
    ))]
async fn cloud_upload(
    State(api): State<Api>,
    caller: Caller,
    Names((version, user)): Names<(String, String)>,
    request: Request,
) -> Result<Json<CloudUploaded>, Problem> {
    must_be_version(&version)?;
    caller.must_be("user in the path", &user)?;
    let file = take_in(&api, &caller.user, &UploadQuery::default(), request).await?;
    Ok(Json(CloudUploaded { id: file.id.to_string() }))
}

/// What the Cloud API says of an upload.
#[derive(Debug, Serialize, ToSchema)]
struct CloudUploaded {
    /// The file's id.
    id: String,
}

/// What the Cloud API says of a file.
#[derive(Debug, Serialize, ToSchema)]
struct CloudInfo {
    /// `whatsapp`.
    messaging_product: &'static str,
    /// Where its bytes are, for five minutes.
    url: String,
    /// Its MIME type.
    mime_type: String,
    /// Of its bytes, in hexadecimal digits.
    sha256: String,
    /// In bytes.
    file_size: u64,
    /// Its id.
    id: String,
}

/// What the Cloud API's clients say beside a media id.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct CloudQuery {
    /// Only if the file is this user's: uploaded or received by him.
    phone_number_id: Option<String>,
    /// `webhook_configuration`: in the place of a file, the caller's webhook; the path has his name then.
    fields: Option<String>,
}

impl CloudQuery {
    fn check(&self, caller: &Caller) -> Result<(), Problem> {
        match &self.phone_number_id {
            Some(user) if caller.must_be("phone_number_id", user).is_err() => Err(not_there()),
            _ => Ok(()),
        }
    }
}

/// What is known of a file, and a short-lived `url` to its bytes.
#[utoipa::path(get, path = "/v{version}/{user}", tag = "Cloud API",
    params(("version" = String, Path, description = "Any, as 24.0"), ("user" = String, Path, description = "A media id."), CloudQuery),
    responses(
        (status = 200, description = "There it is.", body = CloudInfo),
        (status = "4XX", description = "In the Cloud API's shape.", body = serde_json::Value, content_type = "application/json"),
    ))]
async fn cloud_info(
    State(api): State<Api>,
    caller: Caller,
    Names((version, id)): Names<(String, String)>,
    Params(query): Params<CloudQuery>,
    request: Request,
) -> Result<Response, Problem> {
    must_be_version(&version)?;
    if query.fields.as_deref() == Some("webhook_configuration") {
        return webhook::configuration(&api.webhooks, &caller, &id).await.map(IntoResponse::into_response);
    }
    query.check(&caller)?;
    let file = readable(&api, &caller.user, &id).await?;
    let config = api.media.config();
    let expires = api.now() + config.url_time.as_secs();
    let ticket = Ticket { id: file.id.clone(), user: caller.user, expires };
    let base = match &config.public_url {
        Some(url) => url.clone(),
        None => base_of(&request)?,
    };
    let info = Json(CloudInfo {
        messaging_product: "whatsapp",
        url: format!("{base}/v1/media/{}/content?{}", file.id, api.media.signer().query(&ticket)),
        mime_type: file.mime.clone(),
        sha256: file.sha256_hex(),
        file_size: file.size,
        id: file.id.to_string(),
    });
    Ok(info.into_response())
}

/// Deletes a file, as the Cloud API does.
#[utoipa::path(delete, path = "/v{version}/{user}", tag = "Cloud API",
    params(("version" = String, Path, description = "Any, as 24.0"), ("user" = String, Path, description = "A media id."), CloudQuery),
    responses(
        (status = 200, description = "It is gone.", body = Done),
        (status = "4XX", description = "In the Cloud API's shape.", body = serde_json::Value, content_type = "application/json"),
    ))]
async fn cloud_delete(
    State(api): State<Api>,
    caller: Caller,
    Names((version, id)): Names<(String, String)>,
    Params(query): Params<CloudQuery>,
) -> Result<Json<Done>, Problem> {
    must_be_version(&version)?;
    query.check(&caller)?;
    forget(&api, &caller.user, &id).await
}

/// Where the client has found us. Its `Host` concerns nobody but itself.
fn base_of(request: &Request) -> Result<String, Problem> {
    let scheme = if request.extensions().get::<Secure>().is_some() { "https" } else { "http" };
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let is_host =
        |host: &&str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
    match host.filter(is_host) {
        Some(host) => Ok(format!("{scheme}://{host}")),
        None => Err(Problem::of(Kind::Malformed, "Host: expected a host, or media.public_url in the configuration")),
    }
}

/// The same for a file that is not there and one that is not for the caller.
fn not_there() -> Problem {
    let detail = "expected the id of a file that the caller uploaded or was sent";
    Problem::new(StatusCode::NOT_FOUND, Kind::NoMedia, detail)
}

async fn readable(api: &Api, user: &UserId, id: &str) -> Result<MediaFile, Problem> {
    let id = MediaId::parse(id).map_err(|_| not_there())?;
    api.media.readable(user, &id).await?.ok_or_else(not_there)
}

async fn forget(api: &Api, user: &UserId, id: &str) -> Result<Json<Done>, Problem> {
    let id = MediaId::parse(id).map_err(|_| not_there())?;
    if api.media.delete(user, &id).await? { Ok(Json(Done { success: true })) } else { Err(not_there()) }
}

async fn bytes_of(api: &Api, file: &MediaFile, method: &Method, headers: &HeaderMap) -> Result<Response, Problem> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let etag = format!("\"{}\"", file.sha256_hex());
    let range = text(header::RANGE).filter(|_| *method == Method::GET);
    let wanted = wanted(range, text(header::IF_RANGE), text(header::IF_NONE_MATCH), &etag, file.size);
    let (status, range) = match wanted {
        Wanted::Nothing => (StatusCode::NOT_MODIFIED, 0..0),
        Wanted::All => (StatusCode::OK, 0..file.size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Outside => {
            let detail = format!("Range: expected bytes from 0 to {}, got others", file.size.saturating_sub(1));
            let mut response =
                Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, Kind::InvalidValue, detail).into_response();
            insert(&mut response, header::CONTENT_RANGE, &format!("bytes */{}", file.size));
            return Ok(response);
        }
    };
    if status != StatusCode::NOT_MODIFIED
        && *method == Method::GET
        && let Some(url) = api.media.redirect(file).await?
    {
        return Ok(
            (StatusCode::FOUND, [(header::LOCATION, url), (header::CACHE_CONTROL, "no-store".into())]).into_response()
        );
    }
    let body = if *method == Method::GET && !range.is_empty() {
        // The first piece first: a store that does not answer is a 503 and not a body that breaks off.
        let mut pieces = api.media.read(file, range.clone());
        let first = pieces.next().await.transpose()?;
        Body::from_stream(futures_util::stream::iter(first.map(Ok)).chain(pieces))
    } else {
        Body::empty()
    };
    let mut response = (status, body).into_response();
    insert(&mut response, header::ETAG, &etag);
    insert(&mut response, header::CACHE_CONTROL, CACHE_CONTROL);
    if status == StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    if status == StatusCode::PARTIAL_CONTENT {
        let last = range.end.saturating_sub(1);
        insert(&mut response, header::CONTENT_RANGE, &format!("bytes {}-{last}/{}", range.start, file.size));
    }
    insert(&mut response, header::CONTENT_LENGTH, &(range.end - range.start).to_string());
    insert(&mut response, header::CONTENT_TYPE, &file.mime);
    insert(&mut response, header::CONTENT_DISPOSITION, &disposition(file.name.as_deref(), file.id.as_str()));
    insert(&mut response, header::ACCEPT_RANGES, "bytes");
    insert(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    insert(&mut response, header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    Ok(response)
}

fn insert(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// What the limits of the kinds are, for the document and for people.
const _: () = assert!(MediaKind::BYTES_MAX == 100 << 20 && MediaKind::MEDIA_BYTES_MAX == 16 << 20);
