//! What is done with groups: changed by the client's outbox, looked at over HTTP.

use natter_client::Error;
use natter_client::groups::GroupError;

use super::Hands;
use crate::chat::groups::Act;
use crate::chat::model::Msg;
use crate::chat::page::Page;

/// Does it, and waits for what the server says: as long as there is no connection, too.
pub(super) async fn act(hands: &Hands, chat: &str, act: Act) -> Result<(), String> {
    let group = hands.client.group(chat);
    let change = match act {
        Act::New { subject, users } => return make(hands, subject, &users).await.map_err(|error| error.to_string()),
        Act::Info => return info(hands, chat).await.map_err(|error| error.to_string()),
        Act::Add(users) => group.add(&users).await,
        Act::Remove(users) => group.remove(&users).await,
        Act::Promote(users) => group.promote(&users).await,
        Act::Demote(users) => group.demote(&users).await,
        Act::Leave => group.leave().await,
        Act::Name(subject) => group.set_subject(&subject).await,
    };
    let done = async { change?.sent().await };
    done.await.map(drop).map_err(|error: Error| error.to_string())
}

/// It is open before the server has it: what is typed into it goes behind its creation.
async fn make(hands: &Hands, subject: String, users: &[String]) -> Result<(), Error> {
    let group = hands.client.create_group(&subject, users).await?;
    let chat = group.name().to_owned();
    let _gone = hands.msgs.send(Msg::Subject { chat: chat.clone(), subject }).await;
    let _gone = hands.msgs.send(Msg::Open(chat)).await;
    match group.creation() {
        Some(creation) => creation.sent().await.map(drop),
        None => Ok(()),
    }
}

async fn info(hands: &Hands, chat: &str) -> Result<(), GroupError> {
    let info = hands.client.group(chat).info().await?;
    let members = info.members.into_iter().map(|member| (member.user, member.is_admin)).collect();
    let (subject, description) = (info.summary.subject, info.summary.description);
    let _gone = hands.msgs.send(Msg::Page(Page::Group { subject, description, members })).await;
    Ok(())
}

/// Shows the group's link; makes one where there is none.
pub(super) async fn invite(hands: &Hands, chat: &str) -> Result<(), GroupError> {
    let group = hands.client.group(chat);
    let link = match group.invite_link().await? {
        Some(link) => link,
        None => group.new_invite_link().await?,
    };
    let _gone = hands.msgs.send(Msg::Page(Page::Invite { link })).await;
    Ok(())
}

/// Joins, and opens the group.
pub(super) async fn join(hands: &Hands, link: &str) -> Result<(), String> {
    let summary = hands.client.preview_invite(link).await.map_err(|error| error.to_string())?;
    let joined = async { hands.client.join_group(link).await?.sent().await };
    joined.await.map_err(|error| error.to_string())?;
    let (chat, subject) = (summary.name, summary.subject);
    let _gone = hands.msgs.send(Msg::Subject { chat: chat.clone(), subject }).await;
    let _gone = hands.msgs.send(Msg::Open(chat)).await;
    Ok(())
}
