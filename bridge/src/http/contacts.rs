//! Contacts over HTTP.

use axum::Json;
use axum::extract::State;
use natter_protocol::UserId;
use natter_protocol::error::Kind;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Names, Params, Whole};
use super::page::{PageQuery, next};
use super::send::{Success, answer};
use super::{Api, Caller, Problem, liberal};
use crate::Error;
use crate::contacts::{Ask, CONTACTS_A_PAGE, Told};

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(put, remove))
}

/// Contacts, in order of names.
#[derive(Serialize, ToSchema)]
struct ContactsPage {
    contacts: Vec<Entry>,
    /// What to say as `after`, if there may be more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Entry {
    #[schema(example = "bob")]
    user: String,
    /// What the caller calls him.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Unix seconds.
    since: String,
}

/// The caller's contacts.
#[utoipa::path(
    get, path = "/v1/contacts", tag = "contacts", operation_id = "list_contacts",
    params(PageQuery<CONTACTS_A_PAGE>),
    responses((status = 200, description = "Contacts, perhaps none", body = ContactsPage))
)]
async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<PageQuery<CONTACTS_A_PAGE>>,
) -> Result<Json<ContactsPage>, Problem> {
    let (after, limit) = query.asked(|name| named("after", name))?;
    let asked = Ask::List(caller.user, after, limit);
    let Told::List(found) = answer(api.bridge.contacts(asked)).await? else { return Err(Error::Ended.into()) };
    let next = next(&found, limit, |(user, _)| user.to_string());
    let of = |(user, contact): (UserId, crate::contacts::Contact)| Entry {
        user: user.to_string(),
        name: contact.name,
        since: contact.since.to_string(),
    };
    Ok(Json(ContactsPage { contacts: found.into_iter().map(of).collect(), next }))
}

/// What the caller calls a contact.
#[derive(Deserialize, ToSchema)]
struct PutContact {
    #[serde(default)]
    name: Option<String>,
}

/// The caller has that user as a contact from now on. Each sees the other's statuses if both have.
#[utoipa::path(
    put, path = "/v1/contacts/{user}", tag = "contacts", operation_id = "put_contact",
    params(("user" = String, Path, description = "Whom")),
    request_body = PutContact,
    responses((status = 200, description = "It is on disk", body = Success))
)]
async fn put(
    State(api): State<Api>,
    caller: Caller,
    Names(user): Names<String>,
    Whole(body): Whole,
) -> Result<Json<Success>, Problem> {
    let body = if body.is_empty() { serde_json::Map::new() } else { liberal::parse(&body)? };
    let PutContact { name } = serde_json::from_value(Value::Object(body))
        .map_err(|error| Problem::of(Kind::Malformed, format!("body: expected {{\"name\":..}}: {error}")))?;
    caller.must_still_be().map_err(Error::from)?;
    answer(api.bridge.contacts(Ask::Put(caller.user.clone(), named("user", &user)?, name))).await?;
    Ok(Json(Success::YES))
}

/// The caller has that user as a contact no more.
#[utoipa::path(
    delete, path = "/v1/contacts/{user}", tag = "contacts", operation_id = "remove_contact",
    params(("user" = String, Path, description = "Whom")),
    responses((status = 200, description = "He is none, now or before", body = Success))
)]
async fn remove(State(api): State<Api>, caller: Caller, Names(user): Names<String>) -> Result<Json<Success>, Problem> {
    caller.must_still_be().map_err(Error::from)?;
    answer(api.bridge.contacts(Ask::Remove(caller.user.clone(), named("user", &user)?))).await?;
    Ok(Json(Success::YES))
}

pub(super) fn named(parameter: &str, name: &str) -> Result<UserId, Problem> {
    liberal::user(name).map_err(|refusal| Problem::from(refusal).within(parameter))
}
