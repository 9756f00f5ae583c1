//! `/openapi.json`, made from the routes that are served, and `/docs`, a page that shows it: it needs nothing from anywhere else.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse as _;
use axum::routing::get;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::Ref;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, RefOr, ResponseBuilder, SecurityRequirement,
};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::Problem;
use super::shape::{CloudError, OnPremisesError, Shape};

/// The names of the ways to present a token.
const BEARER: &str = "bearer";
const D360: &str = "d360";
/// The page may run what is in it, and talk to its own server.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What any route may answer instead of what it is asked for.
const REFUSALS: [(&str, &str); 8] = [
    ("400", "Malformed, a value out of its range, an ambiguous reference"),
    ("403", "Not allowed: another user's, or the token is for something else"),
    ("404", "Nobody of that name, or nothing there"),
    ("408", "The body did not come in time"),
    ("409", "The id was used for another message"),
    ("413", "Too large"),
    ("429", "A quota is full, or too many requests: see Retry-After"),
    ("503", "Not now: nothing was done, send it again; see Retry-After"),
];

/// The routes of the document: of `protected`, which asks for a token on every route, and `public`, which asks for none.
pub(super) fn router(protected: OpenApi, public: OpenApi) -> Router {
    let document: Arc<str> = Arc::from(document(protected, public));
    let json =
        move || async move { ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response() };
    Router::new().route("/openapi.json", get(json)).route("/docs", get(page))
}

async fn page() -> impl axum::response::IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, include_str!("docs.html"))
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, options, head, patch, trace, .. } = item;
    [get, put, post, delete, options, head, patch, trace].into_iter().flatten()
}

/// Says of an operation what is true of all: what nobody has to remember to write down.
fn complete(path: &str, operation: &mut Operation, asks_for_a_token: bool) {
    let problem = ("application/problem+json", Problem::name());
    let shapes = match Shape::of(&path.replace("{version}", "24.0")) {
        // A body of the Cloud API is taken there as well, and refused in its words.
        Shape::Natter if path == "/messages" => vec![problem, ("application/json", CloudError::name())],
        Shape::Natter => vec![problem],
        // What follows the `v` may be no version: then it is nobody's path.
        Shape::Cloud => vec![("application/json", CloudError::name()), problem],
        Shape::OnPremises => vec![("application/json", OnPremisesError::name())],
    };
    let refusals = REFUSALS.into_iter().chain(asks_for_a_token.then_some(("401", "No token, or one that is not good")));
    let responses = &mut operation.responses.responses;
    for (status, words) in refusals {
        let known = responses.entry(status.to_owned());
        known.or_insert_with(|| ResponseBuilder::new().description(words).build().into());
    }
    for (status, response) in responses {
        if let RefOr::T(response) = response
            && status.starts_with(['4', '5'])
        {
            // The layer decides about it, and not the route.
            response.content.clear();
            for (content_type, name) in &shapes {
                let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(name.as_ref()))).build();
                response.content.insert((*content_type).to_owned(), content.into());
            }
        }
    }
    if asks_for_a_token {
        let ways = [BEARER, D360].map(|name| SecurityRequirement::new::<_, [&str; 0], &str>(name, []));
        operation.security = Some(ways.to_vec());
    }
}

fn document(mut protected: OpenApi, mut public: OpenApi) -> String {
    for (paths, asks_for_a_token) in [(&mut protected.paths, true), (&mut public.paths, false)] {
        for (path, item) in &mut paths.paths {
            operations(item).for_each(|operation| complete(path, operation, asks_for_a_token));
        }
    }
    let info = InfoBuilder::new().title("Natter").version(env!("CARGO_PKG_VERSION"));
    let info = info.description(Some("Messages over HTTP: the same channel, rules and receipts as over MQTT."));
    let mut document = OpenApiBuilder::new().info(info.build()).build();
    document.merge(protected);
    document.merge(public);
    let components = document.components.get_or_insert_with(Components::new);
    let mut schemas = Vec::new();
    for (name, schema, parts) in [
        (Problem::name(), Problem::schema(), Problem::schemas as fn(&mut Vec<_>)),
        (CloudError::name(), CloudError::schema(), CloudError::schemas),
        (OnPremisesError::name(), OnPremisesError::schema(), OnPremisesError::schemas),
    ] {
        schemas.push((name.into_owned(), schema));
        parts(&mut schemas);
    }
    components.schemas.extend(schemas);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    let d360 = ApiKey::Header(ApiKeyValue::new("D360-API-KEY"));
    components.add_security_scheme(D360, SecurityScheme::ApiKey(d360));
    document.to_json().unwrap_or_default()
}
