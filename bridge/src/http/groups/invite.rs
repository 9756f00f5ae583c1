//! Invite links of a group over HTTP: an admin makes one, gives it to people, and ends it by another one or by none.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use natter_protocol::GroupId;
use natter_protocol::error::Kind;
use natter_protocol::group::INVITE_LINK;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::view::{Changed, InviteLink, Joined, Listed};
use super::{Command, ask, of_path};
use crate::Error;
use crate::groups::{Ask, Told};
use crate::http::extract::{Names, Whole};
use crate::http::send::answer;
use crate::http::{Api, Caller, Problem, liberal};

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(show, make, end)).routes(routes!(preview)).routes(routes!(join))
}

/// Digits of a code: 26 of 5 bits, of which the first has 3.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A code that nobody guesses: 128 bits.
fn code(random: u128) -> String {
    (0..26).map(|i| char::from(DIGITS[(random >> (125 - 5 * i)) as usize & 31])).collect()
}

/// The group's invite link, for an admin.
#[utoipa::path(
    get, path = "/v1/groups/{group}/invite_link", tag = "groups", operation_id = "get_invite_link",
    params(("group" = String, Path, description = "With or without `g:`")),
    responses((status = 200, description = "The link, if there is one", body = InviteLink))
)]
async fn show(
    State(api): State<Api>,
    caller: Caller,
    Names(group): Names<String>,
) -> Result<Json<InviteLink>, Problem> {
    let group = of_path(&group)?;
    told(&api, Ask::Invite(caller.user, group.clone()), &group).await
}

/// Makes a new invite link, for an admin. The one before is no good any more.
#[utoipa::path(
    post, path = "/v1/groups/{group}/invite_link", tag = "groups", operation_id = "make_invite_link",
    params(("group" = String, Path, description = "With or without `g:`")),
    responses((status = 200, description = "The link", body = InviteLink))
)]
async fn make(
    State(api): State<Api>,
    caller: Caller,
    Names(group): Names<String>,
) -> Result<Json<InviteLink>, Problem> {
    let group = of_path(&group)?;
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Problem::not_now("the system has no random bytes"))?;
    caller.must_still_be().map_err(Error::from)?;
    told(&api, Ask::NewInvite(caller.user, group.clone(), code(u128::from_be_bytes(random))), &group).await
}

/// Ends the invite link, for an admin: there is none any more.
#[utoipa::path(
    delete, path = "/v1/groups/{group}/invite_link", tag = "groups", operation_id = "end_invite_link",
    params(("group" = String, Path, description = "With or without `g:`")),
    responses((status = 200, description = "There is none, now or before", body = InviteLink))
)]
async fn end(State(api): State<Api>, caller: Caller, Names(group): Names<String>) -> Result<Json<InviteLink>, Problem> {
    let group = of_path(&group)?;
    caller.must_still_be().map_err(Error::from)?;
    told(&api, Ask::NoInvite(caller.user, group.clone()), &group).await
}

async fn told(api: &Api, asked: Ask, group: &GroupId) -> Result<Json<InviteLink>, Problem> {
    match ask(api, asked, group).await? {
        Told::Invite(code) => Ok(Json(InviteLink { invite_link: code.map(|code| format!("{INVITE_LINK}{code}")) })),
        _ => Err(Error::Ended.into()),
    }
}

/// What an invite link leads to, for whoever has it.
#[utoipa::path(
    get, path = "/v1/groups/invites/{code}", tag = "groups", operation_id = "preview_invite",
    params(("code" = String, Path, description = "What follows `natter:join/`")),
    responses((status = 200, body = Listed))
)]
async fn preview(State(api): State<Api>, _: Caller, Names(code): Names<String>) -> Result<Json<Listed>, Problem> {
    match answer(api.bridge.groups(Ask::Preview(code))).await? {
        Told::Preview(summary) => Ok(Json(summary.into())),
        Told::NotFound => {
            let detail = "code: expected one of an invite link that has not ended, got another; ask an admin of the group for a new one";
            Err(Problem::new(StatusCode::NOT_FOUND, Kind::UnknownRecipient, detail))
        }
        _ => Err(Error::Ended.into()),
    }
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document; what is taken is read by the loop")]
struct JoinGroup {
    /// The link, or its code.
    #[schema(example = "natter:join/3v8q0m5t2k7x9c4w1r6y8h0n5d")]
    invite_link: String,
    /// The caller's name for this command.
    id: Option<String>,
}

/// Joins a group by its invite link.
#[utoipa::path(
    post, path = "/v1/groups/join", tag = "groups", operation_id = "join_group",
    params(("Idempotency-Key" = Option<String>, Header, description = "Stands for a body's `id`")),
    request_body = JoinGroup,
    responses((status = 200, description = "The caller is a member", body = Joined))
)]
async fn join(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Json<Joined>, Problem> {
    let mut command = Command::new("join", liberal::parse(&body)?, &["id", "invite_link"]);
    let Some(Value::String(invite)) = command.0.remove("invite_link") else {
        let detail = format!("invite_link: expected {INVITE_LINK} and a code, got nothing or no string");
        return Err(Problem::of(Kind::Malformed, detail));
    };
    command.name(&headers)?;
    command.set("invite", invite.as_str());
    let committed = command.commit(&api, &caller).await?;
    let code = invite.strip_prefix(INVITE_LINK).unwrap_or(&invite).to_owned();
    let group = match answer(api.bridge.groups(Ask::Preview(code))).await? {
        Told::Preview(summary) => Some(format!("g:{}", summary.group)),
        _ => None,
    };
    Ok(Json(Joined { group, changed: Changed::to(committed) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_all_bits_and_is_one_that_a_command_takes() {
        assert_eq!((code(0), code(u128::MAX)), ("0".repeat(26), format!("7{}", "z".repeat(25))));
        let codes: std::collections::BTreeSet<String> = (0..128).map(|bit| code(1 << bit)).collect();
        assert_eq!(codes.len(), 128, "every bit counts");
        let command = format!("{{\"group\":\"join\",\"invite\":\"{INVITE_LINK}{}\"}}", code(u128::MAX));
        assert!(natter_protocol::outbox::parse(command.as_bytes()).is_ok());
    }
}
