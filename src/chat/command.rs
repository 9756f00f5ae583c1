//! What a line of input means. Pure.

use super::groups::Act;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Words for the chat that is open.
    Say(String),
    /// A file for the chat that is open.
    Send(String),
    /// Saves the file of message `n` under a path, or under its own name.
    Save(u64, Option<String>),
    /// A status for everybody who may see it.
    Status(String),
    /// Opens a chat.
    Open(String),
    /// Shows the user's devices.
    Devices,
    /// Makes a code for a new device, and shows it.
    Link,
    /// Ends a device.
    Unlink(String),
    /// Makes a group, or does something to the one that is open.
    Group(Act),
    /// Shows the invite link of the group that is open.
    Invite,
    /// Joins the group of an invite link.
    Join(String),
    Help,
    Quit,
}

/// What `/help` says.
pub(super) const HELP: &str = "/chat NAME · /send PATH · /save NUMBER [PATH] · /status TEXT · /group new NAME USER.. · /group add|remove|promote|demote USER.. · /group name TEXT · /group info|leave · /invite · /join LINK · /devices · /link · /unlink NAME · /quit · // begins a line with a slash";

impl Command {
    /// Reads a line; `None` for an empty one.
    ///
    /// # Errors
    /// Expected and got, as text.
    pub(super) fn parse(line: &str) -> Result<Option<Self>, String> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(None);
        }
        let Some(rest) = line.strip_prefix('/') else { return Ok(Some(Self::Say(line.to_owned()))) };
        if rest.starts_with('/') {
            return Ok(Some(Self::Say(rest.to_owned())));
        }
        let (word, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let argument = argument.trim();
        let given = |what: &str| {
            if argument.is_empty() { Err(format!("/{word}: expected {what}")) } else { Ok(argument.to_owned()) }
        };
        Ok(Some(match word {
            "send" => Self::Send(given("the path of a file")?),
            "save" => {
                let (number, path) = argument.split_once(char::is_whitespace).unwrap_or((argument, ""));
                let number = number.trim_start_matches('#').parse();
                let number = number.map_err(|_| "/save: expected the number that stands before the file".to_owned())?;
                Self::Save(number, Some(path.trim().to_owned()).filter(|path| !path.is_empty()))
            }
            "status" => Self::Status(given("what you want to say")?),
            "chat" => Self::Open(given("a name")?),
            "devices" => Self::Devices,
            "link" => Self::Link,
            "unlink" => Self::Unlink(given("the name of a device")?),
            "group" => Self::Group(Act::parse(argument)?),
            "invite" => Self::Invite,
            "join" => Self::Join(given("an invite link, or its code")?),
            "help" => Self::Help,
            "quit" | "q" => Self::Quit,
            _ => return Err(format!("/{word}: expected one of {HELP}")),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_words_or_a_command() {
        let parse = |line| Command::parse(line).unwrap();
        assert_eq!(parse("  "), None);
        assert_eq!(parse("hi there "), Some(Command::Say("hi there".into())));
        assert_eq!(parse("//quit"), Some(Command::Say("/quit".into())));
        assert_eq!(parse("/send my file.txt"), Some(Command::Send("my file.txt".into())));
        assert_eq!(parse("/save 17"), Some(Command::Save(17, None)));
        assert_eq!(parse("/save #17 a b.txt"), Some(Command::Save(17, Some("a b.txt".into()))));
        assert_eq!(parse("/status out"), Some(Command::Status("out".into())));
        assert_eq!(parse("/chat bob"), Some(Command::Open("bob".into())));
        assert_eq!((parse("/devices"), parse("/link")), (Some(Command::Devices), Some(Command::Link)));
        assert_eq!(parse("/unlink laptop"), Some(Command::Unlink("laptop".into())));
        assert_eq!(parse("/group add bob"), Some(Command::Group(Act::Add(vec!["bob".into()]))));
        assert_eq!((parse("/invite"), parse("/join x")), (Some(Command::Invite), Some(Command::Join("x".into()))));
        assert_eq!((parse("/help"), parse("/quit")), (Some(Command::Help), Some(Command::Quit)));
        for bad in ["/send", "/save", "/save x", "/status ", "/chat", "/unlink", "/group", "/join", "/nonsense"] {
            assert!(Command::parse(bad).is_err(), "{bad}");
        }
    }
}
