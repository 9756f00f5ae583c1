//! What is asked of groups over HTTP.

use hyper::Method;
use natter_protocol::group::INVITE_LINK;
use natter_protocol::{Chat as ChatName, N};
use serde::Deserialize;

use super::{Group, GroupError};
use crate::Client;

/// A group, in a list.
///
/// ```no_run
/// # async fn example(client: natter_client::Client) -> Result<(), natter_client::groups::GroupError> {
/// for group in client.groups().await? {
///     println!("{} ({}), {} members", group.subject, group.name, group.members_count);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Its name, `g:` and more.
    pub name: String,
    /// What it is called.
    pub subject: String,
    /// What it is for.
    pub description: Option<String>,
    /// How many members it has.
    pub members_count: u64,
    /// Unix second in which it was made.
    pub created_at: u64,
    /// Who made it.
    pub created_by: String,
}

/// A group and its members.
///
/// ```no_run
/// # async fn example(client: natter_client::Client) -> Result<(), natter_client::groups::GroupError> {
/// let info = client.group("g:0191f0a2c3d4e5f6").info().await?;
/// let admins = info.members.iter().filter(|member| member.is_admin).count();
/// println!("{}: {} members, {admins} of them admins", info.summary.subject, info.members.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupInfo {
    /// What a list says of it.
    pub summary: Summary,
    /// In order of names.
    pub members: Vec<Member>,
}

/// A member of a group.
///
/// ```no_run
/// # async fn example(client: natter_client::Client) -> Result<(), natter_client::groups::GroupError> {
/// for member in client.group("g:0191f0a2c3d4e5f6").info().await?.members {
///     println!("{}{}", member.user, if member.is_admin { " (admin)" } else { "" });
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// Who.
    pub user: String,
    /// Whether he may change the group.
    #[serde(rename = "admin", alias = "is_admin")]
    pub is_admin: bool,
}

/// What a member has of a message.
///
/// ```no_run
/// # async fn example(client: natter_client::Client) -> Result<(), natter_client::groups::GroupError> {
/// for member in client.group("g:0191f0a2c3d4e5f6").receipts(17).await? {
///     println!("{}: {}", member.user, if member.read { "read" } else { "not yet" });
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct MemberTicks {
    /// Who.
    pub user: String,
    /// A device of his has it.
    pub delivered: bool,
    /// He has read it.
    pub read: bool,
}

#[derive(Deserialize)]
struct Listed {
    group: String,
    subject: String,
    description: Option<String>,
    members_count: u64,
    created_at: String,
    created_by: String,
    #[serde(default)]
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Page {
    groups: Vec<Listed>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Receipts {
    receipts: Vec<MemberTicks>,
}

#[derive(Deserialize)]
struct Link {
    invite_link: Option<String>,
}

impl From<Listed> for GroupInfo {
    fn from(listed: Listed) -> Self {
        let Listed { group, subject, description, members_count, created_at, created_by, members } = listed;
        let name = if group.starts_with("g:") { group } else { format!("g:{group}") };
        let created_at = created_at.parse().unwrap_or(0);
        Self { summary: Summary { name, subject, description, members_count, created_at, created_by }, members }
    }
}

impl Group {
    /// What it is called, and who is in it; for a member.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), natter_client::groups::GroupError> {
    /// println!("{}", client.group("g:0191f0a2c3d4e5f6").info().await?.summary.subject);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`GroupError`] lists them.
    pub async fn info(&self) -> Result<GroupInfo, GroupError> {
        let listed: Listed = self.ask(Method::GET, "").await?;
        Ok(listed.into())
    }

    /// Who of its members has message `n`, and who has read it, in order of names; for the sender of that message.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let group = client.group("g:0191f0a2c3d4e5f6");
    /// let sent = group.chat().send_text("hi").await?.sent().await?;
    /// let read = group.receipts(sent.n).await?.into_iter().filter(|member| member.read).count();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`GroupError`] lists them.
    pub async fn receipts(&self, n: N) -> Result<Vec<MemberTicks>, GroupError> {
        let Receipts { receipts } = self.ask(Method::GET, &format!("/messages/{n}/receipts")).await?;
        Ok(receipts)
    }

    /// The link by which others join it, `natter:join/` and a code, if there is one; for an admin.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), natter_client::groups::GroupError> {
    /// if let Some(link) = client.group("g:0191f0a2c3d4e5f6").invite_link().await? {
    ///     println!("{link}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`GroupError`] lists them.
    pub async fn invite_link(&self) -> Result<Option<String>, GroupError> {
        let Link { invite_link } = self.ask(Method::GET, LINK).await?;
        Ok(invite_link)
    }

    /// A new link; the one before is no good any more. For an admin.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), natter_client::groups::GroupError> {
    /// println!("{}", client.group("g:0191f0a2c3d4e5f6").new_invite_link().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`GroupError`] lists them.
    pub async fn new_invite_link(&self) -> Result<String, GroupError> {
        let Link { invite_link } = self.ask(Method::POST, LINK).await?;
        invite_link.ok_or_else(|| GroupError::Protocol("invite_link: expected a link, got none".into()))
    }

    /// No link is good any more; for an admin.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), natter_client::groups::GroupError> {
    /// client.group("g:0191f0a2c3d4e5f6").revoke_invite_link().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`GroupError`] lists them.
    pub async fn revoke_invite_link(&self) -> Result<(), GroupError> {
        let path = self.path(LINK)?;
        self.client().ask_http(Method::DELETE, &path, None).await?;
        Ok(())
    }

    fn path(&self, rest: &str) -> Result<String, GroupError> {
        match ChatName::parse(self.name()) {
            Ok(ChatName::Group(group)) => Ok(format!("/v1/groups/{group}{rest}")),
            _ => Err(GroupError::Invalid("group: expected g:{group}, got another string".into())),
        }
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, method: Method, rest: &str) -> Result<T, GroupError> {
        read(&self.client().ask_http(method, &self.path(rest)?, None).await?)
    }
}

/// Where a group's link is.
const LINK: &str = "/invite_link";
/// Most pages of a list: ten times as many groups as a user may be in.
const PAGES_MAX: usize = 100;

impl Client {
    /// The groups that this user is in, in order of names.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), natter_client::groups::GroupError> {
    /// let subjects: Vec<String> = client.groups().await?.into_iter().map(|group| group.subject).collect();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`GroupError`] lists them.
    pub async fn groups(&self) -> Result<Vec<Summary>, GroupError> {
        let (mut all, mut path) = (Vec::new(), "/v1/groups".to_owned());
        for _ in 0..PAGES_MAX {
            let Page { groups, next } = read(&self.ask_http(Method::GET, &path, None).await?)?;
            all.extend(groups.into_iter().map(|listed| GroupInfo::from(listed).summary));
            let Some(next) = next else { break };
            // It goes into a path: a name, and nothing that steers it.
            let name = ChatName::parse(&if next.starts_with("g:") { next } else { format!("g:{next}") });
            let Ok(ChatName::Group(next)) = name else {
                return Err(GroupError::Protocol("next: expected a group".into()));
            };
            path = format!("/v1/groups?after={next}");
        }
        Ok(all)
    }

    /// What an invite link (`natter:join/` and a code, or the code alone) invites to. [`Client::join_group`] joins it.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client, link: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// let group = client.preview_invite(link).await?;
    /// println!("{} members are in {}", group.members_count, group.subject);
    /// client.join_group(link).await?.sent().await?;
    /// client.chat(&group.name).send_text("hello everybody").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`GroupError::NotFound`]: the link is no good, or not any more. And the others of [`GroupError`].
    pub async fn preview_invite(&self, invite_link: &str) -> Result<Summary, GroupError> {
        let code = invite_link.strip_prefix(INVITE_LINK).unwrap_or(invite_link);
        let is_code = !code.is_empty() && code.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !is_code {
            let details = format!("invite_link: expected {INVITE_LINK} and a code, or the code, got another string");
            return Err(GroupError::Invalid(details));
        }
        let listed: Listed = read(&self.ask_http(Method::GET, &format!("/v1/groups/invites/{code}"), None).await?)?;
        Ok(GroupInfo::from(listed).summary)
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, GroupError> {
    serde_json::from_slice(body).map_err(|error| GroupError::Protocol(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_of_a_group_is_read() {
        let body = br#"{"group":"g:42","subject":"Trip","members_count":2,"created_at":"7","created_by":"alice",
            "members":[{"user":"alice","admin":true,"joined_n":0},{"user":"bob","admin":false,"joined_n":0}]}"#;
        let info = GroupInfo::from(read::<Listed>(body).expect("a group"));
        assert_eq!((info.summary.name.as_str(), info.summary.created_at, info.members.len()), ("g:42", 7, 2));
        assert!(info.members[0].is_admin && !info.members[1].is_admin);
        assert!(matches!(read::<Listed>(b"{}"), Err(GroupError::Protocol(_))));
    }
}
