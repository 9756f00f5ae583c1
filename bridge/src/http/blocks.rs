//! Blocks over HTTP: Natter's own routes, and the Cloud API's `block_users`.

use axum::Json;
use axum::extract::State;
use natter_protocol::UserId;
use natter_protocol::error::Kind;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::contacts::named;
use super::extract::{Names, Params, Whole};
use super::page::{PageQuery, next};
use super::send::{Success, answer};
use super::{Api, Caller, Problem, liberal, must_be_version};
use crate::Error;
use crate::blocks::{Ask, BLOCKS_A_PAGE, Told};

/// A page of a list.
type Paged = PageQuery<BLOCKS_A_PAGE>;

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(block, unblock)).routes(routes!(
        cloud_list,
        cloud_block,
        cloud_unblock
    ))
}

/// Blocked users, in order of names.
#[derive(Serialize, ToSchema)]
struct BlocksPage {
    blocks: Vec<Blocked>,
    /// What to say as `after`, if there may be more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Blocked {
    #[schema(example = "mallory")]
    user: String,
    /// Unix seconds.
    since: String,
}

/// Whom the caller has blocked.
#[utoipa::path(
    get, path = "/v1/blocks", tag = "blocks", operation_id = "list_blocks",
    params(Paged),
    responses((status = 200, description = "Users, perhaps none", body = BlocksPage))
)]
async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<Paged>,
) -> Result<Json<BlocksPage>, Problem> {
    let (found, next) = page(&api, caller, &query).await?;
    let of = |(user, since): (UserId, u64)| Blocked { user: user.to_string(), since: since.to_string() };
    Ok(Json(BlocksPage { blocks: found.into_iter().map(of).collect(), next }))
}

async fn page(api: &Api, caller: Caller, query: &Paged) -> Result<(Vec<(UserId, u64)>, Option<String>), Problem> {
    let (after, limit) = query.asked(|name| named("after", name))?;
    let Told::List(found) = answer(api.bridge.blocks(Ask::List(caller.user, after, limit))).await? else {
        return Err(Error::Ended.into());
    };
    let next = next(&found, limit, |(user, _)| user.to_string());
    Ok((found, next))
}

/// The caller blocks that user: what he sends, posts or types does not arrive any more, and he is not told.
#[utoipa::path(
    put, path = "/v1/blocks/{user}", tag = "blocks", operation_id = "block",
    params(("user" = String, Path, description = "Whom")),
    responses((status = 200, description = "He is blocked, now or before", body = Success))
)]
async fn block(State(api): State<Api>, caller: Caller, Names(user): Names<String>) -> Result<Json<Success>, Problem> {
    caller.must_still_be().map_err(Error::from)?;
    answer(api.bridge.blocks(Ask::Block(caller.user.clone(), named("user", &user)?))).await?;
    Ok(Json(Success::YES))
}

/// The caller blocks that user no more. What he sent meanwhile does not come.
#[utoipa::path(
    delete, path = "/v1/blocks/{user}", tag = "blocks", operation_id = "unblock",
    params(("user" = String, Path, description = "Whom")),
    responses((status = 200, description = "He is not blocked, now or before", body = Success))
)]
async fn unblock(State(api): State<Api>, caller: Caller, Names(user): Names<String>) -> Result<Json<Success>, Problem> {
    caller.must_still_be().map_err(Error::from)?;
    answer(api.bridge.blocks(Ask::Unblock(caller.user.clone(), named("user", &user)?))).await?;
    Ok(Json(Success::YES))
}

/// The Cloud API's list of users.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document; what is taken is read below")]
struct BlockUsers {
    /// `whatsapp`; may be left out.
    messaging_product: Option<String>,
    /// At most 1,000.
    block_users: Vec<BlockUser>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
struct BlockUser {
    /// A name or number.
    #[schema(example = "mallory")]
    user: String,
}

/// Whom the caller has blocked, as the Cloud API lists them.
#[utoipa::path(
    get, path = "/v{version}/{user}/block_users", tag = "Cloud API",
    params(
        ("version" = String, Path, description = "Any, as 24.0"),
        ("user" = String, Path, description = "The token's user, where the Cloud API has a phone number id"),
        Paged,
    ),
    responses((status = 200, description = "`data`, perhaps empty, and `paging.cursors.after` if there may be more", body = Value))
)]
async fn cloud_list(
    State(api): State<Api>,
    caller: Caller,
    Names((version, user)): Names<(String, String)>,
    Params(query): Params<Paged>,
) -> Result<Json<Value>, Problem> {
    must_be_version(&version)?;
    caller.must_be("user in the path", &user)?;
    let (found, next) = page(&api, caller, &query).await?;
    let data: Vec<Value> =
        found.into_iter().map(|(user, _)| json!({"messaging_product": "whatsapp", "wa_id": user.as_str()})).collect();
    let mut body = json!({"data": data});
    if let Some(next) = next {
        body["paging"] = json!({"cursors": {"after": next}});
    }
    Ok(Json(body))
}

/// The caller blocks these users, as the Cloud API has it: those that cannot be are told apart.
#[utoipa::path(
    post, path = "/v{version}/{user}/block_users", tag = "Cloud API",
    params(("version" = String, Path), ("user" = String, Path)),
    request_body = BlockUsers,
    responses((status = 200, description = "`block_users` with `added_users`, and `failed_users` if there are any", body = Value))
)]
async fn cloud_block(
    State(api): State<Api>,
    caller: Caller,
    Names(names): Names<(String, String)>,
    Whole(body): Whole,
) -> Result<Json<Value>, Problem> {
    cloud_all(&api, &caller, names, &body, "added_users", Ask::Block).await
}

/// The caller blocks these users no more.
#[utoipa::path(
    delete, path = "/v{version}/{user}/block_users", tag = "Cloud API",
    params(("version" = String, Path), ("user" = String, Path)),
    request_body = BlockUsers,
    responses((status = 200, description = "`block_users` with `removed_users`, and `failed_users` if there are any", body = Value))
)]
async fn cloud_unblock(
    State(api): State<Api>,
    caller: Caller,
    Names(names): Names<(String, String)>,
    Whole(body): Whole,
) -> Result<Json<Value>, Problem> {
    cloud_all(&api, &caller, names, &body, "removed_users", Ask::Unblock).await
}

async fn cloud_all(
    api: &Api,
    caller: &Caller,
    (version, user): (String, String),
    body: &[u8],
    done: &str,
    ask: fn(UserId, UserId) -> Ask,
) -> Result<Json<Value>, Problem> {
    must_be_version(&version)?;
    caller.must_be("user in the path", &user)?;
    let body = liberal::parse(body)?;
    let malformed = |got: &str| {
        Problem::of(Kind::Malformed, format!("block_users: expected a list of objects with `user`, got {got}"))
    };
    let users = body.get("block_users").and_then(Value::as_array).ok_or_else(|| malformed("none"))?;
    if users.len() > BLOCKS_A_PAGE {
        let detail = format!("block_users: expected at most {BLOCKS_A_PAGE}, got {}", users.len());
        return Err(Problem::of(Kind::InvalidValue, detail));
    }
    let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
    for user in users {
        let input = user.get("user").and_then(Value::as_str).ok_or_else(|| malformed("another"))?;
        let refusal = match liberal::user(input) {
            Ok(other) => {
                caller.must_still_be().map_err(Error::from)?;
                match api.bridge.blocks(ask(caller.user.clone(), other.clone())).await {
                    Ok(_) => {
                        succeeded.push(json!({"input": input, "wa_id": other.as_str()}));
                        continue;
                    }
                    Err(Error::Refused(refusal)) => refusal,
                    Err(error) => return Err(error.into()),
                }
            }
            Err(refusal) => refusal,
        };
        let error = json!({"code": refusal.kind.code(), "message": "user cannot be blocked",
            "error_data": {"details": refusal.details}});
        failed.push(json!({"input": input, "errors": [error]}));
    }
    let mut block_users = json!({done: succeeded});
    if !failed.is_empty() {
        block_users["failed_users"] = Value::from(failed);
    }
    Ok(Json(json!({"messaging_product": "whatsapp", "block_users": block_users})))
}
