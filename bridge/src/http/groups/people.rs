//! Members and admins of a group over HTTP. A call that asks for what is so already has succeeded: a retry after an answer that was lost is safe
//! without an id.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use natter_protocol::error::Kind;
use natter_protocol::{GroupId, UserId};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::view::Changed;
use super::{Command, of_path, whole};
use crate::groups::Member;
use crate::http::contacts::named;
use crate::http::extract::{Names, Whole};
use crate::http::{Api, Caller, Problem, liberal};

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(add)).routes(routes!(remove)).routes(routes!(promote, demote))
}

/// Who is to be a member.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document; what is taken is read by the loop")]
struct AddMembers {
    /// 1 to 256.
    #[schema(example = json!(["carol"]))]
    users: Vec<String>,
    /// The caller's name for this command.
    id: Option<String>,
}

/// Adds members, for an admin: all of them, or nobody. Those who are members already stay as they are. They get what is written from now on.
#[utoipa::path(
    post, path = "/v1/groups/{group}/members", tag = "groups", operation_id = "add_group_members",
    params(("group" = String, Path, description = "With or without `g:`"),
        ("Idempotency-Key" = Option<String>, Header, description = "Stands for a body's `id`")),
    request_body = AddMembers,
    responses((status = 200, description = "They are members, now or before", body = Changed))
)]
async fn add(
    State(api): State<Api>,
    caller: Caller,
    Names(group): Names<String>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Json<Changed>, Problem> {
    let group = of_path(&group)?;
    let command = Command::new("add", liberal::parse(&body)?, &["id", "users"]);
    let named = command.0.get("users").and_then(Value::as_array).cloned().unwrap_or_default();
    let users: Vec<UserId> =
        named.iter().filter_map(Value::as_str).filter_map(|user| UserId::parse_recipient(user).ok()).collect();
    let are_in = |members: &[Member]| users.iter().all(|user| members.iter().any(|member| member.user == *user));
    change(&api, &caller, &headers, &group, command, are_in).await
}

/// Removes a member, for an admin; oneself: leaves, for everybody. From the answer on he is sent nothing of the group.
#[utoipa::path(
    delete, path = "/v1/groups/{group}/members/{user}", tag = "groups", operation_id = "remove_group_member",
    params(("group" = String, Path, description = "With or without `g:`"), ("user" = String, Path, description = "Whom"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names the command")),
    responses((status = 200, description = "He is no member, now or before", body = Changed))
)]
async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Names((group, user)): Names<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Changed>, Problem> {
    let (group, user) = (of_path(&group)?, named("user", &user)?);
    let command = if user == caller.user { empty("leave") } else { of_one("remove", &user) };
    let is_out = |members: &[Member]| members.iter().all(|member| member.user != user);
    change(&api, &caller, &headers, &group, command, is_out).await
}

/// Makes a member an admin, for an admin.
#[utoipa::path(
    put, path = "/v1/groups/{group}/admins/{user}", tag = "groups", operation_id = "promote_group_member",
    params(("group" = String, Path, description = "With or without `g:`"), ("user" = String, Path, description = "Whom"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names the command")),
    responses((status = 200, description = "He is an admin, now or before", body = Changed))
)]
async fn promote(
    State(api): State<Api>,
    caller: Caller,
    Names((group, user)): Names<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Changed>, Problem> {
    let (group, user) = (of_path(&group)?, named("user", &user)?);
    let is_admin = |members: &[Member]| members.iter().any(|member| member.user == user && member.is_admin);
    change(&api, &caller, &headers, &group, of_one("promote", &user), is_admin).await
}

/// Makes an admin a mere member, for an admin. The last one stays.
#[utoipa::path(
    delete, path = "/v1/groups/{group}/admins/{user}", tag = "groups", operation_id = "demote_group_admin",
    params(("group" = String, Path, description = "With or without `g:`"), ("user" = String, Path, description = "Whom"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names the command")),
    responses((status = 200, description = "He is a member and no admin, now or before", body = Changed))
)]
async fn demote(
    State(api): State<Api>,
    caller: Caller,
    Names((group, user)): Names<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Changed>, Problem> {
    let (group, user) = (of_path(&group)?, named("user", &user)?);
    let is_member = |members: &[Member]| members.iter().any(|member| member.user == user && !member.is_admin);
    change(&api, &caller, &headers, &group, of_one("demote", &user), is_member).await
}

fn empty(act: &str) -> Command {
    Command::new(act, Map::new(), &[])
}

fn of_one(act: &str, user: &UserId) -> Command {
    let mut command = empty(act);
    command.set("users", vec![user.as_str()]);
    command
}

/// Commits a command. If there was nothing to do, the rules refuse it; where the group is as it was to be, that is no failure here.
async fn change(
    api: &Api,
    caller: &Caller,
    headers: &HeaderMap,
    group: &GroupId,
    mut command: Command,
    is_so: impl FnOnce(&[Member]) -> bool,
) -> Result<Json<Changed>, Problem> {
    command.name(headers)?;
    command.set("chat", format!("g:{group}"));
    let refused = match command.commit(api, caller).await {
        Ok(committed) => return Ok(Json(Changed::to(committed))),
        Err(problem) => problem,
    };
    if refused.is(Kind::InvalidValue) && is_so(&whole(api, caller, group).await?.members) {
        return Ok(Json(Changed::BEFORE));
    }
    Err(refused)
}
