//! Groups over HTTP: what changes one is the command that a device publishes, and what is asked is asked of the loop.
//!
//! - `view` how a group, a member and a change are written · `people` members and admins · `invite` links

mod invite;
mod people;
mod view;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use natter_protocol::error::Kind;
use natter_protocol::{GroupId, N};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Names, Params, Whole, idempotency_key};
use super::page::{PageQuery, next};
use super::send::{Committed, answer, commit};
use super::{Api, Caller, Problem, liberal};
use crate::Error;
use crate::groups::{Ask, GROUPS_A_PAGE, Group, Told};
use view::{Changed, GroupsPage, Listed, Receipts, Whole as WholeGroup};

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, change))
        .routes(routes!(receipts))
        .merge(people::routes())
        .merge(invite::routes())
}

/// The caller's groups, in order of names.
#[utoipa::path(
    get, path = "/v1/groups", tag = "groups", operation_id = "list_groups",
    params(PageQuery<GROUPS_A_PAGE>),
    responses((status = 200, description = "Groups, perhaps none", body = GroupsPage))
)]
async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<PageQuery<GROUPS_A_PAGE>>,
) -> Result<Json<GroupsPage>, Problem> {
    let (after, limit) = query.asked(|name| {
        read(name).ok_or_else(|| Problem::of(Kind::InvalidValue, "after: expected a group as g:42, got another string"))
    })?;
    let asked = Ask::List(caller.user, after, limit);
    let Told::List(found) = answer(api.bridge.groups(asked)).await? else { return Err(Error::Ended.into()) };
    let next = next(&found, limit, |summary| format!("g:{}", summary.group));
    Ok(Json(GroupsPage { groups: found.into_iter().map(Listed::from).collect(), next }))
}

/// A new group.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document; what is taken is read by the loop")]
struct NewGroup {
    /// What it is called: 1 to 100 characters.
    #[schema(example = "Trip", min_length = 1, max_length = 100)]
    subject: String,
    /// What it is for: at most 2,048 characters.
    description: Option<String>,
    /// Who is in it from the beginning, beside the caller: at most 256; more are added afterwards.
    #[schema(example = json!(["bob", "carol"]))]
    users: Option<Vec<String>>,
    /// The caller's name for this command. The same again is answered with the same group.
    id: Option<String>,
}

/// Makes a group. The caller is its admin.
#[utoipa::path(
    post, path = "/v1/groups", tag = "groups", operation_id = "create_group",
    params(("Idempotency-Key" = Option<String>, Header, description = "Stands for a body's `id`: a retry with the same key is safe")),
    request_body = NewGroup,
    responses((status = 200, description = "The group is there, now or by an earlier try", body = WholeGroup))
)]
async fn create(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Json<WholeGroup>, Problem> {
    let mut command = Command::new("create", liberal::parse(&body)?, &["id", "subject", "description", "users"]);
    command.name(&headers)?;
    let group = named_after(&caller, &command)?;
    command.set("chat", format!("g:{group}"));
    command.commit(&api, &caller).await?;
    Ok(Json(whole(&api, &caller, &group).await?.into()))
}

/// The name of a new group: of its maker and his name for the command, so that a retry means the same group; else a new one.
fn named_after(caller: &Caller, command: &Command) -> Result<GroupId, Problem> {
    let stamp = match command.0.get("id").and_then(Value::as_str) {
        Some(id) => {
            let digest = Sha256::digest(format!("natter group\0{}\0{id}", caller.user));
            u128::from_be_bytes(std::array::from_fn(|i| digest[i]))
        }
        None => {
            let mut random = [0; 16];
            aws_lc_rs::rand::fill(&mut random).map_err(|_| Problem::not_now("the system has no random bytes"))?;
            u128::from_be_bytes(random)
        }
    };
    // Every digit is one that a name may have.
    GroupId::parse(&format!("{stamp:032x}")).map_err(|_| Error::Ended.into())
}

/// A group that the caller is in, with its members.
#[utoipa::path(
    get, path = "/v1/groups/{group}", tag = "groups", operation_id = "get_group",
    params(("group" = String, Path, description = "With or without `g:`")),
    responses((status = 200, body = WholeGroup))
)]
async fn show(
    State(api): State<Api>,
    caller: Caller,
    Names(group): Names<String>,
) -> Result<Json<WholeGroup>, Problem> {
    Ok(Json(whole(&api, &caller, &of_path(&group)?).await?.into()))
}

/// What is to be another.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document; what is taken is read by the loop")]
struct ChangeGroup {
    /// 1 to 100 characters.
    subject: Option<String>,
    /// At most 2,048 characters; none: it has none any more.
    description: Option<String>,
    /// The caller's name for this command.
    id: Option<String>,
}

/// Changes subject or description, for an admin.
#[utoipa::path(
    patch, path = "/v1/groups/{group}", tag = "groups", operation_id = "change_group",
    params(("group" = String, Path, description = "With or without `g:`"),
        ("Idempotency-Key" = Option<String>, Header, description = "Stands for a body's `id`")),
    request_body = ChangeGroup,
    responses((status = 200, description = "It is changed", body = Changed))
)]
async fn change(
    State(api): State<Api>,
    caller: Caller,
    Names(group): Names<String>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Json<Changed>, Problem> {
    let group = of_path(&group)?;
    let mut command = Command::new("change", liberal::parse(&body)?, &["id", "subject", "description"]);
    command.name(&headers)?;
    command.set("chat", format!("g:{group}"));
    Ok(Json(Changed::to(command.commit(&api, &caller).await?)))
}

/// Who has had a message of the caller's in a group, and who has read it: those who are members now and were when it was sent.
#[utoipa::path(
    get, path = "/v1/groups/{group}/messages/{n}/receipts", tag = "groups", operation_id = "get_group_receipts",
    params(("group" = String, Path, description = "With or without `g:`"), ("n" = u64, Path, description = "`n` of the message")),
    responses((status = 200, body = Receipts))
)]
async fn receipts(
    State(api): State<Api>,
    caller: Caller,
    Names((group, n)): Names<(String, String)>,
) -> Result<Json<Receipts>, Problem> {
    let group = of_path(&group)?;
    let n: N = n.parse().map_err(|_| {
        Problem::of(Kind::InvalidValue, "n: expected the number of a message of the group, got another string")
    })?;
    match answer(api.bridge.groups(Ask::Receipts(caller.user, group.clone(), n))).await? {
        Told::Receipts(members) => Ok(Json(members.into())),
        Told::NotFound => {
            let detail =
                format!("n: expected a message of yours in a group that you are a member of, got {n} of g:{group}");
            Err(Problem::of(Kind::UnknownRecipient, detail))
        }
        _ => Err(Error::Ended.into()),
    }
}

/// A command of an outbox, as it is being put together: its members are looked at where those of a device's are.
struct Command(Map<String, Value>);

impl Command {
    /// What `body` says in `names`.
    fn new(act: &str, mut body: Map<String, Value>, names: &[&str]) -> Self {
        body.retain(|name, _| names.contains(&name.as_str()));
        body.insert("group".into(), Value::from(act));
        Self(body)
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    /// Names it by the header, if it has no name of its own.
    fn name(&mut self, headers: &HeaderMap) -> Result<(), Problem> {
        if let Some(id) = idempotency_key(headers)?
            && !self.0.contains_key("id")
        {
            self.set("id", id.as_str());
        }
        Ok(())
    }

    async fn commit(&self, api: &Api, caller: &Caller) -> Result<Committed, Problem> {
        commit(api, caller, serde_json::to_vec(&self.0).unwrap_or_default()).await
    }
}

/// A group that the caller is in.
async fn whole(api: &Api, caller: &Caller, group: &GroupId) -> Result<Group, Problem> {
    match ask(api, Ask::Show(caller.user.clone(), group.clone()), group).await? {
        Told::Group(group) => Ok(group),
        _ => Err(Error::Ended.into()),
    }
}

/// Asks about a group; one that is not the caller's is none.
async fn ask(api: &Api, asked: Ask, group: &GroupId) -> Result<Told, Problem> {
    match answer(api.bridge.groups(asked)).await? {
        Told::NotFound => Err(not_found(&format!("g:{group}"))),
        told => Ok(told),
    }
}

/// A name as people and other routes write it: with `g:`, or without.
fn read(name: &str) -> Option<GroupId> {
    GroupId::parse(name.strip_prefix("g:").unwrap_or(name)).ok()
}

fn of_path(name: &str) -> Result<GroupId, Problem> {
    read(name).ok_or_else(|| not_found("another string"))
}

/// In the words of the rules: whoever may not know of a group must not see a difference, whichever part of the server answers.
fn not_found(got: &str) -> Problem {
    Problem::of(Kind::UnknownRecipient, format!("chat: expected a group that you are a member of, got {got}"))
}
