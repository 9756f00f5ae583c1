//! The contract in bytes: every file under `golden/` is input, `---`, output, in blocks with an empty line between them.
//!
//! `#` begins a comment line; `${x*5}` in an input stands for `xxxxx`. `UPDATE_GOLDEN=1 cargo test -p natter-protocol --test golden`
//! writes the outputs anew: read the difference before you commit it.

#![expect(clippy::expect_used, clippy::panic, reason = "tests end that way")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use natter_protocol::entry::{self, Entry, FailedAt, GapReason, MessageTail, Presence, ReceiptKind};
use natter_protocol::error::{Kind, NotNow, Refusal};
use natter_protocol::group::System;
use natter_protocol::ids::{Chat, DeviceId, MediaId, MessageId, UserId};
use natter_protocol::link::{Down, Up};
use natter_protocol::outbox::{self, Item, ReadUpTo, Reference};
use natter_protocol::topic::Topic;

#[test]
fn outbox() {
    check("outbox", |line| match outbox::parse(&payload(line)) {
        Ok(item) => show_item(item),
        Err(rejected) => panic!("{line} is refused: {rejected}"),
    });
}

#[test]
fn refusals() {
    check("refusals", |line| match outbox::parse(&payload(line)) {
        Ok(item) => panic!("{line} must be refused, got {item:?}"),
        Err(rejected) => {
            let id = rejected.id.map_or("no id".to_owned(), |id| format!("id {id}"));
            let kind = rejected.refusal.kind;
            format!("{:?} {}, {id}: {}", kind, kind.code(), rejected.refusal.details)
        }
    });
}

#[test]
fn entries() {
    check("entries", |line| {
        let bytes = write_entry(line);
        let text = String::from_utf8(bytes).expect("entries are UTF-8");
        natter_protocol::json::parse(text.as_bytes()).expect("an entry is JSON that the wire takes");
        let entry = Entry::parse(text.as_bytes()).expect("an entry reads back");
        format!("{text}\n{}", show_entry(&entry))
    });
}

#[test]
fn answers() {
    check("answers", |line| {
        let (name, details) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(not_now) = [NotNow::Unavailable, NotNow::Busy].into_iter().find(|n| format!("{n:?}") == name) {
            let (mqtt, http) = (not_now.mqtt_reason(), not_now.http_status());
            return format!("no PUBACK, DISCONNECT 0x{mqtt:02x}, HTTP {http}, code {}: {not_now}", NotNow::CODE);
        }
        let kind = Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == name).expect("a kind of refusal");
        assert_eq!(Kind::from_byte(kind.to_byte()), Some(kind));
        let mut refusal = Refusal::new(kind, details);
        if kind == Kind::Conflict {
            refusal.conflicts_with = Some(MessageId::parse("m1").expect("an id"));
        }
        let mut json = Vec::new();
        refusal.write_json(&mut json);
        let json = String::from_utf8(json).expect("UTF-8");
        format!("PUBACK 0x{:02x}, HTTP {}, code {}\n{json}", kind.mqtt_reason(), kind.http_status(), kind.code())
    });
}

#[test]
fn frames() {
    check("frames", |line| {
        let (direction, hex) = line.split_once(' ').unwrap_or((line, ""));
        let frame = Bytes::from(unhex(hex));
        let (shown, again) = match direction {
            "up" => match Up::decode(frame.clone()) {
                Ok(up) => (format!("{up:?}"), Some(up.encode())),
                Err(error) => (error.to_string(), None),
            },
            "down" => match Down::decode(frame.clone()) {
                Ok(down) => (format!("{down:?}"), Some(down.encode())),
                Err(error) => (error.to_string(), None),
            },
            other => panic!("expected up or down, got {other}"),
        };
        assert!(again.is_none_or(|again| again == frame), "{line} does not write back as it was read");
        shown
    });
}

#[test]
fn names() {
    fn show<T: ToString>(result: Result<T, natter_protocol::ids::NameError>) -> String {
        result.map_or_else(|error| format!("refused: {error}"), |name| name.to_string())
    }
    check("names", |line| {
        let (what, text) = line.split_once(' ').expect("what, then the text");
        let text = expand(text);
        match what {
            "user" => show(UserId::parse(&text)),
            "to" => show(UserId::parse_recipient(&text)),
            "device" => show(DeviceId::parse(&text)),
            "message" => show(MessageId::parse(&text)),
            "media" => show(MediaId::parse(&text)),
            "chat" => show(Chat::parse(&text)),
            "topic" => match Topic::parse(&text) {
                Some(Topic { user, device, kind }) => format!("{kind:?} of {user}'s {device}"),
                None => "refused".to_owned(),
            },
            other => panic!("no such name: {other}"),
        }
    });
}

fn show_item(item: Item) -> String {
    let message = match item {
        Item::Message(message) => message,
        Item::Read(read) => {
            let typing = if read.typing { ", and typing" } else { "" };
            return match read.upto {
                ReadUpTo::Message(reference) => format!("read up to {}{typing}", show_reference(&reference)),
                ReadUpTo::Number(chat, n) => format!("read up to n {n} of {chat}{typing}"),
                ReadUpTo::Status(from, n) => format!("read up to n {n} of the statuses of {from}{typing}"),
            };
        }
        Item::Typing(chat) => return format!("typing in {chat}"),
        Item::Watch(chat) => return format!("watches {chat}"),
        Item::Unwatch(chat) => return format!("watches {chat} no more"),
        Item::Available(is) => return if is { "is available" } else { "is unavailable" }.to_owned(),
        Item::Ack(seq) => return format!("acknowledges up to seq {seq}"),
        Item::Deleted(reference) => return format!("takes back {}", show_reference(&reference)),
        Item::Starred(chat, reference, is_starred) => {
            let stars = if is_starred { "stars" } else { "takes the star from" };
            return format!("{stars} {} of {chat}", show_reference(&reference));
        }
        Item::Sync => return "asks for everything from the cursor".to_owned(),
        Item::Group(command) => return format!("group: {:?}", command.act),
    };
    let id = message.id.as_ref().map_or("without an id".to_owned(), |id| format!("id {id}"));
    let mut out = format!("message to {}, {id}, {}", message.to, message.kind.as_str());
    if let Some(media) = &message.media {
        let _ = write!(out, ", media {media}");
    }
    if let Some(reference) = &message.reference {
        let _ = write!(out, ", refers to {}", show_reference(reference));
    }
    if let Some(forwarded) = message.forwarded.as_str() {
        let _ = write!(out, ", {forwarded}");
    }
    out.push_str("\nhash ");
    message.hash.iter().for_each(|byte| out.push_str(&format!("{byte:02x}")));
    let body = String::from_utf8(message.into_body(None)).expect("bodies are UTF-8");
    let _ = write!(out, "\nbody {body}");
    out
}

fn show_reference(reference: &Reference) -> String {
    let Reference { id, from, chat } = reference;
    let from = from.as_ref().map_or(String::new(), |from| format!(" from {from}"));
    let chat = chat.as_ref().map_or(String::new(), |chat| format!(" in {chat}"));
    format!("{id}{from}{chat}")
}

/// What a client sees of an entry through the SDK's type.
fn show_entry(entry: &Entry) -> String {
    let mut out = format!("read as {}", entry.kind);
    let mut say = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(out, " {name}={value}");
        }
    };
    say("seq", entry.seq.map(|v| v.to_string()));
    say("prev", entry.prev.map(|v| v.to_string()));
    say("from", entry.from_user().map(str::to_owned));
    say("chat", entry.chat.clone());
    say("after", entry.after.map(|v| v.to_string()));
    say("n", entry.n.map(|v| v.to_string()));
    say("id", entry.id.clone());
    say("status", entry.status.clone());
    say("recipient", entry.recipient_id.clone());
    say("gap", entry.gap().map(|(from, to)| format!("{from}..={to}")));
    say("reason", entry.reason().map(str::to_owned));
    say("text", entry.text().map(|text| format!("{text:?}")));
    say("error", entry.error().map(|(code, details)| format!("{code} {details:?}")));
    let sent = entry.sent_messages();
    say("sent", (!sent.is_empty()).then(|| format!("{sent:?}")));
    out
}

/// `message seq=5 prev=4 from=alice chat=alice n=17 id=m1 timestamp=1764000000 {"type":"text",..}`: the kind of entry, its
/// parts, and behind a space that begins with `{` the body as a device publishes it.
fn write_entry(line: &str) -> Vec<u8> {
    let (fields, body) = match line.find(" {") {
        Some(at) => (&line[..at], Some(&line[at + 1..])),
        None => (line, None),
    };
    let (what, fields) = fields.split_once(' ').expect("a kind and its fields");
    let get = |name: &str| {
        fields.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('=')).map(|v| v.replace('_', " "))
    };
    let text = |name: &str| get(name).unwrap_or_else(|| panic!("{name}= is missing in {line}"));
    let number = |name: &str| text(name).parse::<u64>().expect("a number");
    let user = |name: &str| UserId::parse(&text(name)).expect("a user");
    let chat = |name: &str| Chat::parse(&text(name)).expect("a chat");
    let id = |name: &str| MessageId::parse(&text(name)).expect("an id");
    let why = || {
        let kind = Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == text("why")).expect("a kind of refusal");
        let mut why = Refusal::new(kind, text("details"));
        why.conflicts_with = get("conflicts").map(|id| MessageId::parse(&id).expect("an id"));
        why
    };
    let tail = match what {
        "message" | "unsupported" => {
            let (from, chat, id) = (user("from"), chat("chat"), id("id"));
            let to = get("to").map(|to| Chat::parse(&to).expect("a chat"));
            let (n, timestamp) = (number("n"), number("timestamp"));
            let tail = MessageTail { from: &from, chat: &chat, to: to.as_ref(), n, id: &id, timestamp };
            if what == "unsupported" {
                tail.unsupported(&why())
            } else {
                let published = body.expect("the message as it was published");
                let Ok(Item::Message(message)) = outbox::parse(published.as_bytes()) else { panic!("{published}") };
                let of = get("of").map(|of| UserId::parse(&of).expect("a user"));
                let about = get("of-n").map(|n| n.parse().expect("a number"));
                tail.with_body(&message.into_body_about(of.as_ref(), about))
            }
        }
        "delivered" | "read" => {
            let kind = if what == "read" { ReceiptKind::Read } else { ReceiptKind::Delivered };
            let (chat, id, recipient) = (chat("chat"), id("id"), user("recipient"));
            entry::receipt(kind, &chat, number("after"), number("n"), &id, &recipient, number("timestamp"))
        }
        "counts" => {
            let count = |name: &str| u32::try_from(number(name)).expect("a count");
            let counts =
                entry::Counts { delivered_to: count("delivered_to"), read_by: count("read_by"), of: count("of") };
            let kind = if get("read").is_some() { ReceiptKind::Read } else { ReceiptKind::Delivered };
            let range = (number("after"), number("n"));
            entry::group_receipt(kind, &chat("chat"), range, &id("id"), counts, number("timestamp"))
        }
        "status_read" => {
            let (from, id, reader) = (user("from"), id("id"), user("recipient"));
            entry::status_read(&from, number("after"), number("n"), &id, &reader, number("timestamp"))
        }
        "status_deleted" => entry::status_deleted(&user("from"), number("n"), &id("id"), number("timestamp")),
        "starred" | "unstarred" => {
            let (chat, from, id) = (chat("chat"), user("from"), id("id"));
            entry::starred(what == "starred", &chat, &from, number("n"), &id, number("timestamp"))
        }
        "sent" => {
            let ids = text("messages");
            let pairs = ids.split(',').map(|pair| pair.split_once('/').expect("id/n"));
            let messages: Vec<_> =
                pairs.map(|(id, n)| (MessageId::parse(id).expect("an id"), n.parse().expect("n"))).collect();
            entry::sent(&chat("chat"), &messages, number("timestamp"))
        }
        "failed" => {
            let at = get("n").map(|_| FailedAt {
                chat: chat("chat"),
                n: number("n"),
                recipient: user("recipient"),
                timestamp: number("timestamp"),
            });
            entry::failed(get("id").map(|_| id("id")).as_ref(), at.as_ref(), &why())
        }
        "gap" => {
            let reason = [GapReason::Expired, GapReason::Lagged].into_iter().find(|r| r.as_str() == text("reason"));
            entry::gap(number("from"), number("to"), reason.expect("a reason"))
        }
        "system" => {
            let (users, by) = ([user("user")], user("by"));
            let system = match text("event").as_str() {
                "UserAdded" => System::UserAdded { users: &users, subject: "Trip" },
                "UserRemoved" => System::UserRemoved(&users),
                other => panic!("no such change: {other}"),
            };
            let (chat, id) = (chat("chat"), id("id"));
            let (n, timestamp) = (number("n"), number("timestamp"));
            MessageTail { from: &by, chat: &chat, to: None, n, id: &id, timestamp }.with_body(&system.body(&by))
        }
        "typing" => entry::typing(&user("from"), &chat("chat")),
        "presence" => {
            let presence = [Presence::Available, Presence::Unavailable].into_iter().find(|p| p.as_str() == text("is"));
            let last_seen = get("last-seen").map(|t| t.parse().expect("Unix seconds"));
            entry::presence(&user("from"), presence.expect("a presence"), last_seen)
        }
        other => panic!("no such entry: {other}"),
    };
    match get("seq") {
        Some(_) => entry::head(number("seq"), number("prev"), &tail),
        None => entry::live(&tail),
    }
}

fn payload(line: &str) -> Vec<u8> {
    match line.strip_prefix("hex") {
        Some(hex) => unhex(hex),
        None => expand(line).into_bytes(),
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

/// Replaces `${text*times}`.
fn expand(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("${") {
        let (spec, behind) = after.split_once('}').expect("${text*times}");
        let (text, times) = spec.rsplit_once('*').expect("${text*times}");
        out.push_str(before);
        out.push_str(&text.repeat(times.parse().expect("how many times")));
        rest = behind;
    }
    out + rest
}

/// Runs every file of a subject and compares; with `UPDATE_GOLDEN=1` it writes what came out.
fn check(subject: &str, answer: impl Fn(&str) -> String) {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(subject);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&directory).expect("the subject's directory").map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no files in {}", directory.display());
    let mut different = Vec::new();
    for path in paths {
        let was = std::fs::read_to_string(&path).expect("a golden file");
        let is = rewrite(&was, &answer);
        if was != is {
            if update {
                std::fs::write(&path, &is).expect("a golden file written");
            } else {
                different.push(format!("{}\n{}", path.display(), first_difference(&was, &is)));
            }
        }
    }
    assert!(different.is_empty(), "UPDATE_GOLDEN=1 would change:\n{}", different.join("\n"));
}

/// The file with every output made anew.
fn rewrite(file: &str, answer: &impl Fn(&str) -> String) -> String {
    let blocks = file.split("\n\n").map(str::trim).filter(|block| !block.is_empty());
    let blocks: Vec<String> = blocks
        .map(|block| {
            let input = block.split("\n---").next().unwrap_or(block);
            let lines = input.lines().filter(|line| !line.starts_with('#'));
            let output: Vec<String> = lines.map(answer).collect();
            let rule = if output.is_empty() { "" } else { "\n---\n" };
            format!("{input}{rule}{}", output.join("\n"))
        })
        .collect();
    blocks.join("\n\n") + "\n"
}

fn first_difference(was: &str, is: &str) -> String {
    let mut pairs = was.lines().zip(is.lines());
    match pairs.find(|(was, is)| was != is) {
        Some((was, is)) => format!("  file: {was}\n  got:  {is}"),
        None => "  one of them ends earlier".to_owned(),
    }
}
