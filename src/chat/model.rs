//! Everything that is shown, and what follows from what happens. Pure: time comes in, effects go out.

use std::collections::BTreeMap;

use natter_client::media::MediaRef;

use super::command::{Command, HELP};
use super::edit::{Edit, Key};
use super::groups::{Act, COUNTS_MAX, Counts, is_group};
use super::page::Page;
use super::text::harmless;

/// The chat of statuses.
pub(super) const STATUS: &str = "status@broadcast";
/// Messages of a chat that are shown; older ones stay on the disk.
pub(super) const LINES_MAX: usize = 1_000;
/// How long somebody types who says so, in milliseconds.
const TYPING_MS: u64 = 6_000;
/// How often the own typing is said, in milliseconds.
const TYPING_EVERY_MS: u64 = 3_000;

/// How far an own message is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tick {
    Waiting,
    Sent,
    Delivered,
    Read,
    /// It will not arrive, for this reason.
    Failed(String),
}

/// What a message is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    Text(String),
    /// A file, and the words under it.
    File {
        what: String,
        caption: String,
        file: MediaRef,
    },
    /// What happened to a group, in words.
    System(String),
    /// Anything else, in a few words.
    Other(String),
}

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) id: String,
    pub(super) from: String,
    /// Its number, once the server has it.
    pub(super) n: Option<u64>,
    /// Unix seconds.
    pub(super) at: u64,
    pub(super) body: Body,
    /// Of own messages.
    pub(super) tick: Option<Tick>,
}

/// How somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Presence {
    #[default]
    Unknown,
    Here,
    /// Since when, in Unix seconds, if he shows it.
    Away(Option<u64>),
}

/// A conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ChatModel {
    pub(super) name: String,
    pub(super) lines: Vec<Line>,
    pub(super) unread: u64,
    /// Who types, until when (milliseconds of [`Msg::Time`]).
    pub(super) typing: Option<(String, u64)>,
    pub(super) presence: Presence,
    /// What a group is called.
    pub(super) subject: Option<String>,
    /// How many members have the own messages with numbers `after < n <= upto`; what is told later counts.
    pub(super) counts: Vec<(u64, u64, Counts)>,
}

impl ChatModel {
    /// How many members have message `n`.
    pub(super) fn counts_of(&self, n: u64) -> Option<Counts> {
        let newest = self.counts.iter().rev().find(|(after, upto, _)| *after < n && n <= *upto);
        newest.map(|(_, _, counts)| *counts)
    }

    /// Who types.
    pub(super) fn who_types(&self) -> Option<&str> {
        self.typing.as_ref().map(|(who, _)| who.as_str())
    }
}

/// How the connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Connected,
    /// Another one will be made.
    Lost(String),
    /// No other one will be made.
    Ended(String),
}

/// Something that happens.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Msg {
    Key(Key),
    Enter,
    /// To the next chat, or to the one before.
    Turn(bool),
    /// Screens up, or down.
    Scroll(bool),
    Paste(String),
    Escape,
    Quit,
    Link(Link),
    /// A message arrived, or an own one is on the disk now.
    Line {
        chat: String,
        line: Box<Line>,
    },
    /// An own message is so far.
    Tick {
        id: String,
        n: Option<u64>,
        tick: Tick,
    },
    /// The messages of this user in the chat up to `n` are so far.
    Upto {
        chat: String,
        after: u64,
        n: u64,
        tick: Tick,
    },
    /// So many members have the messages of this user in the group with `after < number <= n`.
    Counts {
        chat: String,
        after: u64,
        n: u64,
        counts: Counts,
    },
    /// A group is called that.
    Subject {
        chat: String,
        subject: String,
    },
    /// A chat is to be shown.
    Open(String),
    /// The user read this chat on another device.
    ReadElsewhere {
        chat: String,
        n: u64,
    },
    Typing {
        chat: String,
        who: String,
    },
    Presence {
        who: String,
        presence: Presence,
    },
    Gone {
        chat: String,
        id: String,
    },
    /// A file is on its way: `None` when it is there.
    Transfer {
        what: String,
        percent: Option<u8>,
    },
    /// Something to show in place of the chat.
    Page(Page),
    /// Something to say once.
    Notice(String),
    Time,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    Say { chat: String, text: String },
    SendFile { chat: String, path: String },
    Save { file: MediaRef, path: Option<String> },
    MarkRead { chat: String, n: u64 },
    Typing { chat: String },
    Watch { chat: String },
    Devices,
    MakeCode,
    Unlink { device: String },
    Group { chat: String, act: Act },
    Invite { chat: String },
    Join { link: String },
    Quit,
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Model {
    pub(super) user: String,
    pub(super) device: String,
    pub(super) chats: Vec<ChatModel>,
    pub(super) open: usize,
    pub(super) input: Edit,
    pub(super) link: Link,
    pub(super) notice: String,
    /// What is shown in place of the chat.
    pub(super) page: Option<Page>,
    pub(super) transfers: BTreeMap<String, u8>,
    /// Lines up from the end.
    pub(super) scroll: usize,
    /// Seconds that the clock on the wall is ahead of UTC.
    pub(super) offset: i32,
    said_typing: u64,
}

impl Model {
    pub(super) fn new(user: &str, device: &str, chats: Vec<ChatModel>) -> Self {
        let mut model = Self {
            user: user.to_owned(),
            device: device.to_owned(),
            chats: Vec::new(),
            open: 0,
            input: Edit::default(),
            link: Link::Connecting,
            notice: String::new(),
            page: None,
            transfers: BTreeMap::new(),
            scroll: 0,
            offset: 0,
            said_typing: 0,
        };
        model.chats = chats;
        model
    }

    /// The chat that is open.
    pub(super) fn chat(&self) -> Option<&ChatModel> {
        self.chats.get(self.open)
    }

    /// Own messages that are on no server yet.
    pub(super) fn waiting(&self) -> usize {
        let lines = self.chats.iter().flat_map(|chat| &chat.lines);
        lines.filter(|line| line.tick == Some(Tick::Waiting)).count()
    }

    /// Opens a chat, and makes it where there is none.
    pub(super) fn open(&mut self, name: &str) -> Vec<Effect> {
        let is_new = !self.chats.iter().any(|chat| chat.name == name);
        self.open = self.index(name);
        self.page = None;
        self.scroll = 0;
        let mut effects = self.read();
        if is_new && is_watched(name) {
            effects.push(Effect::Watch { chat: name.to_owned() });
        }
        effects
    }

    /// Takes something in, at `now` milliseconds of any clock that does not go back.
    pub(super) fn update(&mut self, msg: Msg, now: u64) -> Vec<Effect> {
        match msg {
            Msg::Key(key) => {
                self.input.press(key);
                return self.typing(now);
            }
            Msg::Paste(text) => {
                harmless(&text).chars().for_each(|c| self.input.press(Key::Char(if c == '\n' { ' ' } else { c })))
            }
            Msg::Enter => return self.enter(),
            Msg::Escape => {
                self.input.take();
                self.page = None;
            }
            Msg::Turn(forward) => {
                let count = self.chats.len().max(1);
                self.page = None;
                self.open = (self.open + if forward { 1 } else { count - 1 }) % count;
                self.scroll = 0;
                return self.read();
            }
            Msg::Scroll(up) => self.scroll = if up { self.scroll + 10 } else { self.scroll.saturating_sub(10) },
            Msg::Quit => return vec![Effect::Quit],
            Msg::Link(link) => self.link = link,
            Msg::Line { chat, line } => return self.line(&chat, *line),
            Msg::Tick { id, n, tick } => {
                for line in self.chats.iter_mut().flat_map(|chat| &mut chat.lines).filter(|line| line.id == id) {
                    line.n = line.n.or(n);
                    raise(line, &tick);
                }
            }
            Msg::Upto { chat, after, n, tick } => {
                let lines = self.chats.iter_mut().filter(|known| known.name == chat).flat_map(|chat| &mut chat.lines);
                lines
                    .filter(|line| line.n.is_some_and(|number| after < number && number <= n))
                    .for_each(|line| raise(line, &tick));
            }
            Msg::Counts { chat, after, n, counts } => {
                if let Some(chat) = self.chats.iter_mut().find(|known| known.name == chat) {
                    chat.counts.retain(|(a, upto, _)| *a < after || n < *upto);
                    chat.counts.push((after, n, counts));
                    let too_many = chat.counts.len().saturating_sub(COUNTS_MAX);
                    chat.counts.drain(..too_many);
                }
            }
            Msg::Subject { chat, subject } => {
                let index = self.index(&chat);
                if let Some(chat) = self.chats.get_mut(index) {
                    chat.subject = Some(subject);
                }
            }
            Msg::Open(name) => return self.open(&name),
            Msg::ReadElsewhere { chat, n } => {
                let user = self.user.clone();
                if let Some(chat) = self.chats.iter_mut().find(|known| known.name == chat) {
                    let newer =
                        chat.lines.iter().filter(|line| line.from != user && line.n.is_some_and(|number| number > n));
                    chat.unread = chat.unread.min(newer.count() as u64);
                }
            }
            Msg::Typing { chat, who } => {
                let index = self.index(&chat);
                if let Some(chat) = self.chats.get_mut(index) {
                    chat.typing = Some((harmless(&who), now + TYPING_MS));
                }
            }
            Msg::Presence { who, presence } => {
                if let Some(chat) = self.chats.iter_mut().find(|chat| chat.name == who) {
                    chat.presence = presence;
                }
            }
            Msg::Gone { chat, id } => {
                if let Some(chat) = self.chats.iter_mut().find(|known| known.name == chat) {
                    let gone = chat.lines.iter_mut().filter(|line| line.id == id);
                    gone.for_each(|line| line.body = Body::Other("taken back".into()));
                }
            }
            Msg::Transfer { what, percent: Some(percent) } => drop(self.transfers.insert(what, percent)),
            Msg::Transfer { what, percent: None } => drop(self.transfers.remove(&what)),
            Msg::Page(page) => self.page = Some(page),
            Msg::Notice(text) => self.notice = harmless(&text),
            Msg::Time => {}
        }
        for chat in &mut self.chats {
            chat.typing = chat.typing.take().filter(|(_, until)| *until > now);
        }
        Vec::new()
    }

    fn index(&mut self, name: &str) -> usize {
        if let Some(index) = self.chats.iter().position(|chat| chat.name == name) {
            return index;
        }
        self.chats.push(ChatModel { name: name.to_owned(), ..ChatModel::default() });
        self.chats.len() - 1
    }

    fn line(&mut self, name: &str, line: Line) -> Vec<Effect> {
        let is_new = !self.chats.iter().any(|chat| chat.name == name);
        let (index, mine) = (self.index(name), line.from == self.user);
        let open = index == self.open;
        let Some(chat) = self.chats.get_mut(index) else { return Vec::new() };
        if chat.lines.iter().any(|known| known.id == line.id && known.from == line.from) {
            return Vec::new();
        }
        chat.typing = chat.typing.take().filter(|(who, _)| *who != line.from);
        let (n, counts) = (line.n, !mine && !matches!(line.body, Body::System(_)));
        chat.lines.push(line);
        if chat.lines.len() > LINES_MAX {
            chat.lines.remove(0);
        }
        let mut effects = Vec::new();
        match n {
            Some(n) if !mine && open => effects.push(Effect::MarkRead { chat: name.to_owned(), n }),
            _ if counts => chat.unread += 1,
            _ => {}
        }
        if is_new && is_watched(name) {
            effects.push(Effect::Watch { chat: name.to_owned() });
        }
        effects
    }

    /// What is on the screen is read.
    fn read(&mut self) -> Vec<Effect> {
        let user = self.user.clone();
        let Some(chat) = self.chats.get_mut(self.open).filter(|chat| chat.unread > 0) else { return Vec::new() };
        chat.unread = 0;
        let newest = chat.lines.iter().filter(|line| line.from != user).filter_map(|line| line.n).max();
        newest.map(|n| Effect::MarkRead { chat: chat.name.clone(), n }).into_iter().collect()
    }

    fn typing(&mut self, now: u64) -> Vec<Effect> {
        let due = self.said_typing == 0 || now.saturating_sub(self.said_typing) >= TYPING_EVERY_MS;
        let words = !self.input.text().trim().is_empty() && !self.input.text().starts_with('/');
        match self.chat() {
            Some(chat) if due && words && chat.name != STATUS => {
                let chat = chat.name.clone();
                self.said_typing = now.max(1);
                vec![Effect::Typing { chat }]
            }
            _ => Vec::new(),
        }
    }

    fn enter(&mut self) -> Vec<Effect> {
        let command = match Command::parse(&self.input.text()) {
            Ok(Some(command)) => command,
            Ok(None) => return Vec::new(),
            Err(error) => {
                self.notice = error;
                return Vec::new();
            }
        };
        self.notice.clear();
        self.page = None;
        let effect = match (command, self.chat()) {
            (Command::Quit, _) => Effect::Quit,
            (Command::Devices, _) => Effect::Devices,
            (Command::Link, _) => Effect::MakeCode,
            (Command::Unlink(device), _) => Effect::Unlink { device },
            (Command::Join(link), _) => Effect::Join { link },
            (Command::Group(act @ Act::New { .. }), _) => Effect::Group { chat: String::new(), act },
            (Command::Group(act), Some(chat)) if is_group(&chat.name) => Effect::Group { chat: chat.name.clone(), act },
            (Command::Invite, Some(chat)) if is_group(&chat.name) => Effect::Invite { chat: chat.name.clone() },
            (Command::Group(_) | Command::Invite, _) => {
                "no group is open: /group new NAME USER.. makes one".clone_into(&mut self.notice);
                return Vec::new();
            }
            (Command::Help, _) => {
                HELP.clone_into(&mut self.notice);
                self.input.take();
                return Vec::new();
            }
            (Command::Open(name), _) => {
                self.input.take();
                return self.open(&name);
            }
            (Command::Status(text), _) => Effect::Say { chat: STATUS.to_owned(), text },
            (Command::Say(text), Some(chat)) => Effect::Say { chat: chat.name.clone(), text },
            (Command::Send(path), Some(chat)) => Effect::SendFile { chat: chat.name.clone(), path },
            (Command::Save(n, path), Some(chat)) => {
                let file = chat.lines.iter().rev().filter(|line| line.n == Some(n)).find_map(|line| match &line.body {
                    Body::File { file, .. } => Some(file.clone()),
                    Body::Text(_) | Body::System(_) | Body::Other(_) => None,
                });
                let Some(file) = file else {
                    self.notice = format!("/save: expected the number of a file, got {n}");
                    return Vec::new();
                };
                Effect::Save { file, path }
            }
            (Command::Say(_) | Command::Send(_) | Command::Save(..), None) => {
                "no chat is open: /chat NAME opens one".clone_into(&mut self.notice);
                return Vec::new();
            }
        };
        self.input.take();
        (self.scroll, self.said_typing) = (0, 0);
        vec![effect]
    }
}

/// Whether somebody is at the other end who comes and goes.
pub(super) fn is_watched(chat: &str) -> bool {
    chat != STATUS && !is_group(chat)
}

/// Ticks only rise, and what failed stays failed.
fn raise(line: &mut Line, tick: &Tick) {
    if let Some(known) = &mut line.tick
        && *known < *tick
    {
        *known = tick.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(from: &str, n: u64, text: &str) -> Line {
        let tick = (from == "alice").then_some(Tick::Sent);
        Line { id: format!("{from}{n}"), from: from.into(), n: Some(n), at: 0, body: Body::Text(text.into()), tick }
    }

    fn arrives(model: &mut Model, chat: &str, line: Line) -> Vec<Effect> {
        model.update(Msg::Line { chat: chat.into(), line: Box::new(line) }, 0)
    }

    fn types(model: &mut Model, text: &str) -> Vec<Effect> {
        text.chars().flat_map(|c| model.update(Msg::Key(Key::Char(c)), 1)).collect()
    }

    fn model() -> Model {
        let mut model = Model::new("alice", "phone", Vec::new());
        assert_eq!(model.open("bob"), [Effect::Watch { chat: "bob".into() }]);
        model
    }

    #[test]
    fn what_arrives_in_the_open_chat_is_read_and_elsewhere_it_is_counted() {
        let mut model = model();
        assert_eq!(arrives(&mut model, "bob", line("bob", 1, "hi")), [Effect::MarkRead { chat: "bob".into(), n: 1 }]);
        assert_eq!(arrives(&mut model, "carol", line("carol", 1, "a")), [Effect::Watch { chat: "carol".into() }]);
        arrives(&mut model, "carol", line("carol", 2, "b"));
        arrives(&mut model, "carol", line("carol", 2, "b"));
        assert_eq!((model.chats[1].unread, model.chats[1].lines.len()), (2, 2), "a repeat is none");
        model.update(Msg::ReadElsewhere { chat: "carol".into(), n: 1 }, 0);
        assert_eq!(model.chats[1].unread, 1);
        assert_eq!(model.update(Msg::Turn(true), 0), [Effect::MarkRead { chat: "carol".into(), n: 2 }]);
        assert_eq!((model.chats[1].unread, model.update(Msg::Turn(false), 0)), (0, vec![]));
    }

    #[test]
    fn ticks_rise_and_never_fall() {
        let mut model = model();
        for n in 1..=3 {
            arrives(&mut model, "bob", line("alice", n, "x"));
        }
        let ticks = |model: &Model| model.chats[0].lines.iter().map(|l| l.tick.clone().unwrap()).collect::<Vec<_>>();
        model.update(Msg::Upto { chat: "bob".into(), after: 0, n: 2, tick: Tick::Read }, 0);
        model.update(Msg::Upto { chat: "bob".into(), after: 0, n: 3, tick: Tick::Delivered }, 0);
        assert_eq!(ticks(&model), [Tick::Read, Tick::Read, Tick::Delivered]);
        model.update(Msg::Tick { id: "alice3".into(), n: None, tick: Tick::Failed("x".into()) }, 0);
        model.update(Msg::Upto { chat: "bob".into(), after: 0, n: 3, tick: Tick::Read }, 0);
        assert_eq!(ticks(&model)[2], Tick::Failed("x".into()));
        assert_eq!(model.waiting(), 0);
    }

    #[test]
    fn typing_is_said_now_and_then_and_shown_for_a_while() {
        let mut model = model();
        assert_eq!(types(&mut model, "hello"), [Effect::Typing { chat: "bob".into() }]);
        assert_eq!(
            model.update(Msg::Key(Key::Char('x')), TYPING_EVERY_MS + 1),
            [Effect::Typing { chat: "bob".into() }]
        );
        model.update(Msg::Escape, 0);
        assert_eq!(types(&mut model, "/quit"), []);
        model.update(Msg::Typing { chat: "bob".into(), who: "bob".into() }, 10);
        assert_eq!(model.chats[0].who_types(), Some("bob"));
        model.update(Msg::Time, 9 + TYPING_MS);
        assert_eq!(model.chats[0].who_types(), Some("bob"));
        model.update(Msg::Time, 10 + TYPING_MS);
        assert_eq!(model.chats[0].who_types(), None);
    }

    #[test]
    fn lines_and_commands_become_effects() {
        let mut model = model();
        let mut enter = |text: &str| {
            model.update(Msg::Paste(text.into()), 0);
            let effects = model.update(Msg::Enter, 0);
            (effects, model.notice.clone(), model.update(Msg::Escape, 0)).0
        };
        assert_eq!(enter("hi bob"), [Effect::Say { chat: "bob".into(), text: "hi bob".into() }]);
        assert_eq!(enter("/status out"), [Effect::Say { chat: STATUS.into(), text: "out".into() }]);
        assert_eq!(enter("/send a.txt"), [Effect::SendFile { chat: "bob".into(), path: "a.txt".into() }]);
        assert_eq!(enter("/save 4"), []);
        assert_eq!(enter("/chat carol"), [Effect::Watch { chat: "carol".into() }]);
        assert_eq!((enter("/devices"), enter("/link")), (vec![Effect::Devices], vec![Effect::MakeCode]));
        assert_eq!(enter("/unlink laptop"), [Effect::Unlink { device: "laptop".into() }]);
        assert_eq!(enter("/quit"), [Effect::Quit]);
        assert_eq!(enter(""), []);
        let file = MediaRef::new("1234567890123456".parse().unwrap());
        let body = Body::File { what: "photo".into(), caption: String::new(), file: file.clone() };
        arrives(&mut model, "carol", Line { body, ..line("carol", 4, "") });
        model.update(Msg::Paste("/save 4 here".into()), 0);
        assert_eq!(model.update(Msg::Enter, 0), [Effect::Save { file, path: Some("here".into()) }]);
        assert!(model.notice.is_empty());
        model.update(Msg::Paste("/nope".into()), 0);
        assert_eq!((model.update(Msg::Enter, 0), model.input.text().as_str()), (vec![], "/nope"), "to be mended");
        assert!(model.notice.contains("/nope"));
    }

    #[test]
    fn a_group_is_opened_changed_and_counted() {
        let mut model = model();
        let mut enter = |text: &str| {
            model.update(Msg::Paste(text.into()), 0);
            (model.update(Msg::Enter, 0), model.update(Msg::Escape, 0)).0
        };
        let act = Act::New { subject: "Trip".into(), users: vec!["bob".into()] };
        assert_eq!(enter("/group new Trip bob"), [Effect::Group { chat: String::new(), act }]);
        assert_eq!((enter("/group leave"), enter("/invite")), (vec![], vec![]), "bob is no group");
        assert_eq!(enter("/join x"), [Effect::Join { link: "x".into() }]);
        model.update(Msg::Subject { chat: "g:42".into(), subject: "Trip".into() }, 0);
        assert_eq!(model.update(Msg::Open("g:42".into()), 0), [], "nobody is watched");
        model.update(Msg::Paste("/group leave".into()), 0);
        assert_eq!(model.update(Msg::Enter, 0), [Effect::Group { chat: "g:42".into(), act: Act::Leave }]);

        model.update(Msg::Open("bob".into()), 0);
        let told = Line { body: Body::System("bob left".into()), ..line("bob", 1, "") };
        assert_eq!((arrives(&mut model, "g:42", told), model.chats[1].unread), (vec![], 0), "it is no message");
        let counts = |delivered_to| Counts { delivered_to, read_by: 0, of: 3 };
        let mut told = |after, n, delivered_to| {
            model.update(Msg::Counts { chat: "g:42".into(), after, n, counts: counts(delivered_to) }, 0);
            (1..=4).map(|n| model.chats[1].counts_of(n).map_or(9, |counts| counts.delivered_to)).collect::<Vec<_>>()
        };
        assert_eq!(told(0, 3, 1), [1, 1, 1, 9]);
        assert_eq!(told(1, 2, 2), [1, 2, 1, 9]);
        assert_eq!(told(0, 4, 3), [3, 3, 3, 3]);
        assert_eq!(model.chats[1].counts.len(), 1, "what is told anew is not kept");
    }

    #[test]
    fn a_chat_on_the_screen_has_an_end() {
        let mut model = model();
        (1..=LINES_MAX as u64 + 3).for_each(|n| drop(arrives(&mut model, "bob", line("bob", n, "x"))));
        assert_eq!((model.chats[0].lines.len(), model.chats[0].lines[0].n), (LINES_MAX, Some(4)));
    }
}
