//! What every way of sending over HTTP shares: into the loop, and the answer after the commit.

use std::time::Duration;

use axum::http::HeaderMap;
use bytes::Bytes;
use natter_protocol::error::Kind;
use natter_protocol::link::Answer;
use natter_protocol::{MessageId, N};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::extract::idempotency_key;
use super::liberal::Draft;
use super::{Api, Caller, Problem};
use crate::Error;

/// How long the loop may take to answer. What comes of the request is not known then, as after a connection that broke.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// Waits for the loop's answer, but not for ever.
pub(crate) async fn answer<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, Problem> {
    match timeout(ANSWER_TIME_MAX, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => {
            let secs = ANSWER_TIME_MAX.as_secs();
            let detail = format!(
                "no answer within {secs} s, and it is not known whether it was done: send the same again, with the same id"
            );
            Err(Problem::not_now(detail))
        }
    }
}

/// A message that is committed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Sent {
    /// `whatsapp`, for clients that look.
    #[schema(example = "whatsapp")]
    messaging_product: &'static str,
    /// To whom: `to` as it was sent, and the user's name.
    contacts: Vec<Recipient>,
    /// One: the message.
    messages: Vec<SentMessage>,
    /// The message's id, again.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// The message's number in its chat.
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<N>,
    /// When it was committed, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    /// What the on-premises API has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Meta>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct Recipient {
    input: String,
    wa_id: String,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct SentMessage {
    id: String,
}

/// What the on-premises API says of itself.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Meta {
    api_status: &'static str,
    version: &'static str,
}

impl Default for Meta {
    fn default() -> Self {
        Self { api_status: "stable", version: env!("CARGO_PKG_VERSION") }
    }
}

/// `{"success":true}`
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Success {
    success: bool,
}

impl Success {
    pub(crate) const YES: Self = Self { success: true };
}

impl Sent {
    /// With the members of Natter's own routes.
    pub(crate) fn natter(mut self, n: N, timestamp: u64) -> Self {
        self.id = self.messages.first().map(|message| message.id.clone());
        (self.n, self.timestamp) = (Some(n), Some(timestamp.to_string()));
        self
    }

    /// With the member of the on-premises API.
    pub(crate) fn on_premises(self) -> Self {
        Self { meta: Some(Meta::default()), ..self }
    }
}

/// Sends a message for `caller`: a body's `id`, or `Idempotency-Key`, makes a retry safe. Its number and its time come with the answer.
pub(crate) async fn send(
    api: &Api,
    caller: &Caller,
    headers: &HeaderMap,
    mut draft: Draft,
) -> Result<(Sent, N, u64), Problem> {
    draft.name(idempotency_key(headers)?);
    let Committed { id, n, timestamp } = commit(api, caller, draft.to_bytes()).await?;
    let wa_id = draft.to().to_owned();
    let contacts = vec![Recipient { input: draft.to_as_sent, wa_id }];
    let messages = vec![SentMessage { id: id.to_string() }];
    let sent =
        Sent { messaging_product: "whatsapp", contacts, messages, id: None, n: None, timestamp: None, meta: None };
    Ok((sent, n, timestamp))
}

/// What is told of a message that is committed.
#[derive(Debug, Clone)]
pub(crate) struct Committed {
    pub(crate) id: MessageId,
    pub(crate) n: N,
    /// Unix seconds.
    pub(crate) timestamp: u64,
}

/// Commits a payload that makes a message: one to somebody, or a command that the group sees.
pub(crate) async fn commit(api: &Api, caller: &Caller, payload: Vec<u8>) -> Result<Committed, Problem> {
    caller.must_still_be().map_err(Error::from)?;
    match answer(api.bridge.publish(caller.user.clone(), caller.acting_device(), Bytes::from(payload))).await? {
        Answer::Message { id, n, timestamp } => Ok(Committed { id, n, timestamp }),
        Answer::Done => Err(Problem::of(Kind::Malformed, "expected a message, got a command")),
        Answer::Refused { kind, details } => Err(Problem::of(kind, details)),
    }
}

/// Does a command, a read mark, for `caller`.
pub(crate) async fn command(api: &Api, caller: &Caller, payload: Vec<u8>) -> Result<(), Problem> {
    caller.must_still_be().map_err(Error::from)?;
    answer(api.bridge.publish(caller.user.clone(), caller.acting_device(), Bytes::from(payload))).await.map(|_| ())
}
