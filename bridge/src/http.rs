//! The HTTP API: routes, who calls, and what an error looks like. The root mounts [`router`] on its listener, beside what is its own.
//!
//! - `caller` the one authentication layer, and [`Caller`], which every route behind it gets
//! - `problem` an error, as RFC 9457 · `shape` the same in WhatsApp's words, on WhatsApp's paths
//! - `messages` the mission's calls · `whatsapp` the on-premises and Cloud API's · `send` what all ways of sending share
//! - `liberal` bodies as real clients write them (pure) · `inline` a message in multipart · `extract` queries, paths, bodies
//! - `contacts` whom a user knows · `import` out of a file · `blocks` whom he does not hear · `status` what is shown for a day
//! - `presence` who is there, and who may see it
//! - `groups` who is in them, who may change them, invite links · `page` lists in pages
//! - `media` files · `form` bodies that carry one · `link` files that lie elsewhere
//! - `document` `/openapi.json`, made from the routes, and a page that shows it
//!
//! Routes are added with `routes!` of utoipa-axum only, so what is served and what is documented are one list.

mod blocks;
mod caller;
mod contacts;
mod document;
mod extract;
pub mod form;
mod groups;
mod import;
mod inline;
mod liberal;
mod link;
pub mod media;
mod messages;
mod page;
mod presence;
mod problem;
mod send;
mod shape;
mod status;
mod whatsapp;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::Uri;
use axum::middleware::{from_fn, from_fn_with_state};
use natter_protocol::accounts::Accounts;
use tower_service::Service as _;
use utoipa_axum::router::OpenApiRouter;

pub use caller::{Brake, Caller, token};
pub use extract::{Names, Whole};
pub use problem::Problem;
pub(crate) use whatsapp::must_be_version;

use crate::Handle;
use crate::media::Media;
use crate::webhook::Webhooks;

/// Most bytes of a request's body, on routes that set no other limit: a payload of the outbox and what is written around it.
pub const BODY_BYTES_MAX: usize = 128 * 1024;

/// What every route may use. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// The loop.
    pub bridge: Handle,
    /// Who may call.
    pub accounts: Arc<dyn Accounts>,
    /// What is posted to whom.
    pub webhooks: Webhooks,
    /// What keeps an address from guessing tokens.
    pub brake: Arc<dyn Brake>,
    /// Files.
    pub media: Media,
}

impl Api {
    /// Unix seconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

/// Routes of other parts that join these: what is `open` asks for no token.
#[derive(Default)]
pub struct Routes {
    /// For everybody.
    pub open: OpenApiRouter,
    /// Behind the authentication layer: their handlers may take a [`Caller`].
    pub with_token: OpenApiRouter,
}

/// All routes, with `more` among them; nothing but `more.open` and the document is served without a token.
pub fn router(api: Api, more: Routes) -> Router {
    let waiting = api.bridge.clone();
    // Whoever waits looks whether it still may.
    api.accounts.on_revocation(Box::new(move |revocation| waiting.nudge(Some(revocation.user()))));
    let own = OpenApiRouter::new()
        .merge(messages::routes())
        .merge(whatsapp::routes())
        .merge(media::with_token())
        .merge(status::routes())
        .merge(contacts::routes())
        .merge(import::routes())
        .merge(blocks::routes())
        .merge(presence::routes())
        .merge(groups::routes());
    let with_token = own.with_state(api.clone()).merge(more.with_token);
    let (with_token, protected) = with_token.split_for_parts();
    let open = OpenApiRouter::new().merge(media::open()).with_state(api.clone()).merge(more.open);
    let (open, public) = open.split_for_parts();
    with_token
        .route_layer(from_fn_with_state(api, caller::authenticate))
        .merge(open)
        .merge(document::router(protected, public))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// `router`, where whatever it has no answer for is a problem, and every problem has the shape of its path. A `/` at the end of a path
/// means nothing.
pub fn with_problems(router: Router) -> Router {
    let router = router.method_not_allowed_fallback(problem::no_method);
    let known = router.clone().fallback(problem::no_route);
    let again = move |mut request: Request| {
        let mut known = known.clone();
        async move {
            if let Some(uri) = without_slash(request.uri()) {
                *request.uri_mut() = uri;
            }
            known.call(request).await
        }
    };
    router.fallback(again).layer(from_fn(shape::of_the_path))
}

/// The same without a `/` at the end of the path.
fn without_slash(uri: &Uri) -> Option<Uri> {
    let path = uri.path().strip_suffix('/').filter(|path| !path.is_empty())?;
    let uri = match uri.query() {
        Some(query) => format!("{path}?{query}").parse(),
        None => path.parse(),
    };
    uri.ok()
}
