//! Presence and privacy over HTTP.

use axum::Json;
use axum::extract::State;
use natter_protocol::error::Kind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::contacts::named;
use super::extract::{Names, Whole};
use super::send::{Success, answer};
use super::{Api, Caller, Problem, liberal};
use crate::Error;
use crate::presence::ask::{Ask, Told};
use crate::privacy::{Aspect, Rule, Who};

/// Most bytes of three lists of names.
const RULES_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(presence)).routes(routes!(rules, put_rules))
}

/// How a user looks to the caller. One who shows nothing looks like one who never was there.
#[derive(Serialize, ToSchema)]
struct PresenceOf {
    #[schema(example = "bob")]
    user: String,
    /// `available`: a device of his is there, with the app in front; `unavailable`: none is, or he does not show it.
    #[schema(example = "unavailable")]
    presence: &'static str,
    /// Unix seconds at which he left last, if he is away, was there before, and shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "1764000000")]
    last_seen: Option<String>,
}

/// Whether a user is there, and when he left, as far as he shows it to the caller and the caller to him.
#[utoipa::path(
    get, path = "/v1/presence/{user}", tag = "presence", operation_id = "get_presence",
    params(("user" = String, Path, description = "Who")),
    responses((status = 200, description = "How he looks", body = PresenceOf))
)]
async fn presence(
    State(api): State<Api>,
    caller: Caller,
    Names(user): Names<String>,
) -> Result<Json<PresenceOf>, Problem> {
    let user = named("user", &user)?;
    let asked = Ask::Presence { asker: caller.user, user: user.clone() };
    let Told::Presence(shown) = answer(api.bridge.presence(asked)).await? else { return Err(Error::Ended.into()) };
    let presence = if shown.available { "available" } else { "unavailable" };
    let last_seen = shown.last_seen.map(|at| at.to_string());
    Ok(Json(PresenceOf { user: user.to_string(), presence, last_seen }))
}

/// Who sees what of the caller. The first two are reciprocal: of another he sees what he shows him. A block stands above them.
#[derive(Serialize, ToSchema)]
struct Rules {
    /// When he was there last. `everyone`, `contacts`, `except`, `only` or `nobody`.
    last_seen: RuleOf,
    /// Whether he is there. As `last_seen`.
    online: RuleOf,
    /// What he posts to `status@broadcast` from now on. `contacts`, `except`, `only` or `nobody`.
    status: RuleOf,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RuleOf {
    /// Contacts are those whom he has as a contact and who have him; `except` and `only` narrow these by `users`.
    #[schema(example = "except")]
    who: String,
    /// With `except` and `only`: at most 10,000 names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["carol"]))]
    users: Option<Vec<String>>,
}

impl From<&Rule> for RuleOf {
    fn from(rule: &Rule) -> Self {
        let users = rule.who.has_list().then(|| rule.users.iter().map(ToString::to_string).collect());
        Self { who: rule.who.as_str().to_owned(), users }
    }
}

/// Who sees what of the caller.
#[utoipa::path(
    get, path = "/v1/privacy", tag = "presence", operation_id = "get_privacy",
    responses((status = 200, description = "All three rules", body = Rules))
)]
async fn rules(State(api): State<Api>, caller: Caller) -> Result<Json<Rules>, Problem> {
    let asked = Ask::Rules(caller.user);
    let Told::Rules(rules) = answer(api.bridge.presence(asked)).await? else { return Err(Error::Ended.into()) };
    let of = |wanted| {
        let rule = rules.iter().find(|(aspect, _)| *aspect == wanted).map(|(_, rule)| rule.clone());
        RuleOf::from(&rule.unwrap_or_default())
    };
    Ok(Json(Rules { last_seen: of(Aspect::LastSeen), online: of(Aspect::Online), status: of(Aspect::Status) }))
}

/// Rules to change; what is left out stays.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document; what is taken is read below")]
struct PutRules {
    last_seen: Option<RuleOf>,
    online: Option<RuleOf>,
    status: Option<RuleOf>,
}

/// Changes who sees what of the caller, at once for whoever watches him; statuses stay with those who have them.
#[utoipa::path(
    put, path = "/v1/privacy", tag = "presence", operation_id = "put_privacy",
    request_body = PutRules,
    responses((status = 200, description = "It is on disk", body = Success))
)]
async fn put_rules(
    State(api): State<Api>,
    caller: Caller,
    Whole(body): Whole<RULES_BYTES_MAX>,
) -> Result<Json<Success>, Problem> {
    let rules = parse(liberal::parse(&body)?)?;
    caller.must_still_be().map_err(Error::from)?;
    answer(api.bridge.presence(Ask::Put(caller.user.clone(), rules))).await?;
    Ok(Json(Success::YES))
}

fn parse(body: Map<String, Value>) -> Result<Vec<(Aspect, Rule)>, Problem> {
    let mut rules = Vec::new();
    for (name, value) in body {
        let Some(aspect) = Aspect::parse(&name) else {
            let detail = "body: expected last_seen, online and status alone, got another name";
            return Err(Problem::of(Kind::Malformed, detail));
        };
        let RuleOf { who, users } = serde_json::from_value(value).map_err(|error| {
            Problem::of(Kind::Malformed, format!("{name}: expected {{\"who\":..,\"users\":[..]}}: {error}"))
        })?;
        let Some(who) = Who::parse(&who) else {
            let names = Who::ALL.map(Who::as_str).join(", ");
            let detail = format!("{name}.who: expected one of {names}, got another string");
            return Err(Problem::of(Kind::InvalidValue, detail));
        };
        if users.is_some() != who.has_list() {
            let detail = format!("{name}.users: expected a list with except and only, and none with the others");
            return Err(Problem::of(Kind::InvalidValue, detail));
        }
        let path = format!("{name}.users");
        let users: Result<_, Problem> = users.iter().flatten().map(|user| named(&path, user)).collect();
        rules.push((aspect, Rule::new(who, users?)));
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(body: Value) -> Result<Vec<(Aspect, Rule)>, String> {
        parse(body.as_object().unwrap().clone()).map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn rules_are_read_as_they_are_documented() {
        let rules = parsed(json!({"online": {"who": "only", "users": ["bob", "+49 123", "bob"]}})).unwrap();
        assert_eq!((rules.len(), rules[0].0, rules[0].1.who), (1, Aspect::Online, Who::Only));
        assert_eq!(rules[0].1.users.iter().map(ToString::to_string).collect::<Vec<_>>(), ["49123", "bob"]);
        assert_eq!(parsed(json!({})).unwrap(), []);
        for (body, said) in [
            (json!({"photo": {"who": "nobody"}}), "last_seen, online and status"),
            (json!({"online": "nobody"}), "online: expected"),
            (json!({"online": {"who": "nobody", "whom": []}}), "unknown field"),
            (json!({"online": {"who": "friends"}}), "one of everyone, contacts, except, only, nobody"),
            (json!({"online": {"who": "except"}}), "online.users: expected a list"),
            (json!({"online": {"who": "contacts", "users": []}}), "online.users: expected a list"),
            (json!({"online": {"who": "only", "users": ["a b/c"]}}), "online.users"),
        ] {
            let error = parsed(body.clone()).unwrap_err();
            assert!(error.contains(said), "{body}: {error}");
        }
    }
}
