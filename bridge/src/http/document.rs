//! `/openapi.json`: made from the routes that are served.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse as _;
use axum::routing::get;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, InfoBuilder, OpenApi, OpenApiBuilder, SecurityRequirement};

/// The names of the ways to present a token.
const BEARER: &str = "bearer";
const D360: &str = "d360";

/// The route of the document: of `protected`, which asks for a token on every route, and `public`, which asks for none.
pub(super) fn router(protected: OpenApi, public: OpenApi) -> Router {
    let document: Arc<str> = Arc::from(document(protected, public));
    let answer =
        move || async move { ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response() };
    Router::new().route("/openapi.json", get(answer))
}

fn document(mut protected: OpenApi, public: OpenApi) -> String {
    let token = [BEARER, D360].map(|name| SecurityRequirement::new::<_, [&str; 0], &str>(name, []));
    for item in protected.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.options,
            &mut item.head,
            &mut item.patch,
            &mut item.trace,
        ];
        for operation in operations.into_iter().flatten() {
            operation.security = Some(token.to_vec());
        }
    }
    let info = InfoBuilder::new().title("Natter").version(env!("CARGO_PKG_VERSION"));
    let info = info.description(Some("Messages over HTTP: the same channel, rules and receipts as over MQTT."));
    let mut document = OpenApiBuilder::new().info(info.build()).build();
    document.merge(protected);
    document.merge(public);
    let components = document.components.get_or_insert_with(Components::new);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    let d360 = ApiKey::Header(ApiKeyValue::new("D360-API-KEY"));
    components.add_security_scheme(D360, SecurityScheme::ApiKey(d360));
    document.to_json().unwrap_or_default()
}
