//! Contacts out of a file or a message, over HTTP.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use natter_protocol::error::Refusal;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::Whole;
use super::send::answer;
use super::{Api, Caller, Problem, liberal};
use crate::Error;
use crate::contacts::import::{IMPORT_BYTES_MAX, Outcome, of_message};
use crate::contacts::vcard::{self, Card};
use crate::contacts::{Ask, Told};

/// The route. (A user whose name is `import` is put as a contact by `/v1/contacts/%69mport`.)
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(import))
}

/// The people of a message of type `contacts`, as it came.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document; what is taken is read in `contacts::import`")]
struct ImportContacts {
    /// Each with `name.formatted_name`, and `phones` with `wa_id` or `phone`.
    contacts: Vec<ImportContact>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
struct ImportContact {
    name: Option<serde_json::Value>,
    phones: Vec<serde_json::Value>,
}

/// What came of an import.
#[derive(Serialize, ToSchema)]
struct Imported {
    /// How many contacts are new.
    added: usize,
    /// How many were there before, or stand in an earlier card; they keep their names.
    present: usize,
    /// How many cards brought nobody.
    failed: usize,
    /// In the order of the file; a card that names several users has a line for each.
    cards: Vec<Line>,
}

#[derive(Serialize, ToSchema)]
struct Line {
    /// Which card, from 1 on.
    card: usize,
    /// `added`, `present` or `failed`.
    status: &'static str,
    /// The user it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "15550002")]
    user: Option<String>,
    /// The name that the card has.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Why it brought nobody: the stable code.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u32>,
    /// What was expected and what came.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Everybody in the file who is a user of this server becomes a contact of the caller, in one commit or not at all.
///
/// The body is a vCard file (2.1, 3.0, 4.0; `Content-Type: text/vcard`) or JSON with the `contacts` of a message of that type. A card names a
/// user by `X-NATTER:bob`, `IMPP:natter:bob`, or by the digits of a `TEL` (in JSON `wa_id` or `phone`). At most 8 MiB, 1,000 cards and
/// 4,000 numbers; more contacts than `people.contacts_max` are refused as a whole.
#[utoipa::path(
    post, path = "/v1/contacts/import", tag = "contacts", operation_id = "import_contacts",
    request_body(content((String = "text/vcard"), (ImportContacts = "application/json"))),
    responses((status = 200, description = "It is on disk: what was added, what was there, and what was not understood", body = Imported))
)]
async fn import(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Whole(body): Whole<IMPORT_BYTES_MAX>,
) -> Result<Json<Imported>, Problem> {
    let cards = cards(&headers, &body)?;
    let names: Vec<Option<String>> = cards.iter().map(|card| card.as_ref().ok()?.name.clone()).collect();
    caller.must_still_be().map_err(Error::from)?;
    let told = answer(api.bridge.contacts(Ask::Import(caller.user.clone(), cards))).await?;
    let Told::Imported(outcomes) = told else { return Err(Error::Ended.into()) };
    let mut imported = Imported { added: 0, present: 0, failed: 0, cards: Vec::new() };
    for (index, (name, outcomes)) in names.into_iter().zip(outcomes).enumerate() {
        for outcome in outcomes {
            let mut line =
                Line { card: index + 1, status: "failed", user: None, name: name.clone(), code: None, detail: None };
            match outcome {
                Outcome::Added(user) => {
                    imported.added += 1;
                    (line.status, line.user) = ("added", Some(user.to_string()));
                }
                Outcome::Present(user) => {
                    imported.present += 1;
                    (line.status, line.user) = ("present", Some(user.to_string()));
                }
                Outcome::Refused(refusal) => {
                    imported.failed += 1;
                    (line.code, line.detail) = (Some(refusal.kind.code()), Some(refusal.details));
                }
            }
            imported.cards.push(line);
        }
    }
    Ok(Json(imported))
}

/// Of what the header says it is; where it says neither, what it looks like.
fn cards(headers: &HeaderMap, body: &[u8]) -> Result<Vec<Result<Card, Refusal>>, Refusal> {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = declared.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_vcard = matches!(kind.as_str(), "text/vcard" | "text/x-vcard" | "text/directory");
    let looks_like_json = body.trim_ascii_start().first() == Some(&b'{');
    if kind == "application/json" || (!is_vcard && looks_like_json) {
        return of_message(&liberal::parse(body)?);
    }
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.eq_ignore_ascii_case("charset").then(|| value.trim_matches('"'))
    });
    vcard::read(body, charset.filter(|_| is_vcard))
}
