//! What is shown in place of a chat until another thing is done. Pure.

use super::text::{ago, harmless};

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    /// The user's devices.
    Devices(Vec<Device>),
    /// A code that links one.
    Code {
        code: String,
        user: String,
        /// Where the server's HTTP is.
        server: String,
        /// Unix second.
        expires_at: u64,
    },
    /// A group, and whether each of its members is an admin.
    Group { subject: String, description: Option<String>, members: Vec<(String, bool)> },
    /// The link by which others join a group.
    Invite { link: String },
}

/// A device, as far as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) label: Option<String>,
    pub(super) connected: bool,
    /// Unix second.
    pub(super) last_seen: Option<u64>,
}

impl Page {
    pub(super) fn title(&self) -> String {
        match self {
            Self::Devices(_) => "Devices".into(),
            Self::Code { .. } => "A new device".into(),
            Self::Group { subject, .. } => harmless(subject),
            Self::Invite { .. } => "An invite link".into(),
        }
    }

    /// Its lines at a Unix second, for whoever sits at `here`.
    pub(super) fn lines(&self, here: &str, now: u64) -> Vec<String> {
        let mut lines = match self {
            Self::Devices(devices) => devices.iter().map(|device| device.line(here, now)).collect(),
            Self::Code { expires_at, .. } if *expires_at <= now => vec!["the code is over: /link makes another".into()],
            Self::Code { code, user, server, expires_at } => {
                let left = expires_at - now;
                vec![
                    format!("{code}  good once, for another {}:{:02}", left / 60, left % 60),
                    String::new(),
                    "on the new device:".into(),
                    format!("natter link {code} --user {user} --server {server} --device NAME"),
                ]
            }
            Self::Group { description, members, .. } => {
                let member = |(user, is_admin): &(String, bool)| {
                    format!("{}{}", harmless(user), if *is_admin { "  admin" } else { "" })
                };
                let description = description.iter().flat_map(|text| [harmless(text), String::new()]);
                description.chain(members.iter().map(member)).collect()
            }
            Self::Invite { link } => {
                vec![harmless(link), String::new(), "who has it joins by".into(), format!("/join {}", harmless(link))]
            }
        };
        lines.extend([String::new(), "Esc goes back".into()]);
        lines
    }
}

impl Device {
    fn line(&self, here: &str, now: u64) -> String {
        let label = self.label.as_ref().map(|label| format!(" ({})", harmless(label))).unwrap_or_default();
        let how = match (self.name == here, self.connected, self.last_seen) {
            (true, ..) => "this one".to_owned(),
            (false, true, _) => "connected".to_owned(),
            (false, false, Some(at)) => format!("last seen {}", ago(now.saturating_sub(at))),
            (false, false, None) => "never connected".to_owned(),
        };
        format!("{}{label}  {how}", harmless(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart() {
        let device = |name: &str, label: Option<&str>, connected, last_seen| Device {
            name: name.into(),
            label: label.map(str::to_owned),
            connected,
            last_seen,
        };
        let page = Page::Devices(vec![
            device("laptop", Some("a\u{1b}[2Jb"), false, Some(40)),
            device("phone", None, true, Some(99)),
            device("terminal", None, true, None),
        ]);
        let lines = page.lines("terminal", 100);
        let expected = ["laptop (a\u{fffd}[2Jb)  last seen 1 min ago", "phone  connected", "terminal  this one"];
        assert_eq!(lines[..3], expected);
    }

    #[test]
    fn a_group_shows_its_members_and_a_link_how_it_is_used() {
        let members = vec![("alice".to_owned(), true), ("bob".to_owned(), false)];
        let page = Page::Group { subject: "Trip".into(), description: Some("May\u{7}".into()), members };
        assert_eq!(page.title(), "Trip");
        assert_eq!(page.lines("terminal", 0)[..4], ["May\u{fffd}", "", "alice  admin", "bob"]);
        let page = Page::Invite { link: "natter:join/x".into() };
        assert!(page.lines("terminal", 0).contains(&"/join natter:join/x".to_owned()));
    }

    #[test]
    fn a_code_says_how_long_it_is_good_and_when_it_is_over() {
        let (code, user, server) = ("7G4K-X2MQ".into(), "bob".into(), "http://h:8080".into());
        let page = Page::Code { code, user, server, expires_at: 220 };
        let at = |now| page.lines("terminal", now).join("\n");
        assert!(at(100).contains("7G4K-X2MQ  good once, for another 2:00"), "{}", at(100));
        assert!(at(211).contains("for another 0:09") && at(211).contains("natter link 7G4K-X2MQ --user bob"));
        assert!(!at(220).contains("7G4K") && at(220).contains("/link makes another"));
    }
}
