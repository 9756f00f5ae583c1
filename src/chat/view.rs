//! A model on a screen. Pure.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line as TextLine, Span};
use ratatui::widgets::{Block, Borders, Paragraph};

use super::groups::Counts;
use super::model::{Body, ChatModel, Line, Link, Model, Presence, STATUS, Tick};
use super::page::Page;
use super::text::{ago, cut, harmless, size, width, wrapped};

/// Columns of the list of chats; on a narrow screen there is none.
const CHATS_COLUMNS: u16 = 22;
const NARROW_COLUMNS: u16 = 50;

/// Draws it. `now`: Unix seconds.
pub(super) fn view(model: &Model, now: u64, frame: &mut Frame<'_>) {
    let [main, input, status] =
        Layout::vertical([Constraint::Min(1), Constraint::Length(1), Constraint::Length(1)]).areas(frame.area());
    let chats_columns = if frame.area().width >= NARROW_COLUMNS { CHATS_COLUMNS } else { 0 };
    let [left, right] = Layout::horizontal([Constraint::Length(chats_columns), Constraint::Min(1)]).areas(main);
    if chats_columns > 0 {
        chats(model, frame, left);
    }
    match &model.page {
        Some(page) => show_page(page, model, now, frame, right),
        None => conversation(model, now, frame, right),
    }
    write(model, frame, input);
    frame.render_widget(Paragraph::new(state(model)).style(Style::new().add_modifier(Modifier::REVERSED)), status);
}

/// A chat's name, as people call it.
fn title(chat: &ChatModel) -> String {
    if chat.name == STATUS { "Status".to_owned() } else { harmless(chat.subject.as_ref().unwrap_or(&chat.name)) }
}

fn chats(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let block = Block::new().borders(Borders::RIGHT);
    let inner = block.inner(area);
    let columns = usize::from(inner.width);
    let lines = model.chats.iter().enumerate().map(|(index, chat)| {
        let sign = match (chat.who_types().is_some(), chat.presence) {
            (true, _) => "✎ ".green(),
            (false, Presence::Here) => "● ".green(),
            (false, Presence::Unknown | Presence::Away(_)) => "  ".into(),
        };
        let unread = if chat.unread > 0 { format!(" {}", chat.unread) } else { String::new() };
        let name = cut(&title(chat), columns.saturating_sub(2 + width(&unread)));
        let fill = " ".repeat(columns.saturating_sub(2 + width(&name) + width(&unread)));
        let line = TextLine::from(vec![sign, Span::raw(name), Span::raw(fill), unread.bold().green()]);
        if index == model.open { line.reversed() } else { line }
    });
    // The open one is always among those that fit.
    let skipped = model.open.saturating_sub(usize::from(inner.height).saturating_sub(1));
    frame.render_widget(Paragraph::new(lines.skip(skipped).collect::<Vec<_>>()).block(block), area);
}

fn show_page(page: &Page, model: &Model, now: u64, frame: &mut Frame<'_>, area: Rect) {
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new(page.title()).bold(), head);
    let columns = usize::from(body.width);
    let lines = page.lines(&model.device, now).into_iter().flat_map(|line| wrapped(&line, columns));
    frame.render_widget(Paragraph::new(lines.map(TextLine::from).collect::<Vec<_>>()), body);
}

fn conversation(model: &Model, now: u64, frame: &mut Frame<'_>, area: Rect) {
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let Some(chat) = model.chat() else {
        frame.render_widget(Paragraph::new("/chat NAME opens a chat, /help says more").dim(), area);
        return;
    };
    frame.render_widget(Paragraph::new(heading(chat, now)).bold(), head);
    let columns = usize::from(body.width);
    let lines: Vec<_> = chat.lines.iter().flat_map(|line| message(line, chat, model, columns)).collect();
    let (rows, all) = (usize::from(body.height), lines.len());
    let end = all.saturating_sub(model.scroll.min(all.saturating_sub(rows)));
    let shown: Vec<_> = lines.into_iter().take(end).skip(end.saturating_sub(rows)).collect();
    frame.render_widget(Paragraph::new(shown), body);
}

fn heading(chat: &ChatModel, now: u64) -> String {
    let how = match (chat.who_types(), chat.presence) {
        (Some(who), _) if who == chat.name => "typing…".to_owned(),
        (Some(who), _) => format!("{who} is typing…"),
        (None, Presence::Here) => "online".to_owned(),
        (None, Presence::Away(Some(since))) => format!("last seen {}", ago(now.saturating_sub(since))),
        (None, Presence::Away(None) | Presence::Unknown) => String::new(),
    };
    format!("{}  {how}", title(chat)).trim_end().to_owned()
}

/// `12:30 bob  the words`, own ones with their ticks behind.
fn message(line: &Line, chat: &ChatModel, model: &Model, columns: usize) -> Vec<TextLine<'static>> {
    let mine = line.from == model.user;
    let who = if mine { "you".to_owned() } else { harmless(&line.from) };
    let at = line.at.saturating_add_signed(model.offset.into());
    let time = format!("{:02}:{:02} ", at / 3600 % 24, at / 60 % 60);
    if let Body::System(words) = &line.body {
        let lines = wrapped(&harmless(words), columns.saturating_sub(width(&time))).into_iter().enumerate();
        let lead = |index| if index == 0 { time.clone() } else { " ".repeat(width(&time)) };
        return lines.map(|(index, words)| TextLine::from(format!("{}{words}", lead(index))).dim()).collect();
    }
    let counts = line.n.and_then(|n| chat.counts_of(n));
    let counts = line.tick.as_ref().zip(counts).map(|(tick, counts)| counted(tick, counts)).unwrap_or_default();
    let lead = width(&time) + width(&who) + 1;
    let number = line.n.map(|n| format!("#{n} ")).unwrap_or_default();
    let words = match &line.body {
        Body::Text(text) => harmless(text),
        Body::File { what, caption, file } => {
            let size = file.file_size.map(size).unwrap_or_default();
            let caption = if caption.is_empty() { String::new() } else { format!("\n{}", harmless(caption)) };
            format!("📎 {number}{} {size}{caption}", harmless(what)).trim_end().to_owned()
        }
        Body::System(what) | Body::Other(what) => format!("({})", harmless(what)),
    };
    // Room for the ticks behind the last line.
    let mut lines: Vec<_> =
        wrapped(&words, columns.saturating_sub(lead + 3 + width(&counts))).into_iter().map(Span::raw).collect();
    if matches!(line.body, Body::File { .. }) {
        lines = lines.into_iter().map(|span| span.cyan()).collect();
    }
    let last = lines.len().saturating_sub(1);
    let mut out = Vec::new();
    for (index, words) in lines.into_iter().enumerate() {
        let mut spans = if index == 0 {
            let name = if mine { who.clone().blue() } else { who.clone().magenta() };
            vec![time.clone().dim(), name, Span::raw(" ")]
        } else {
            vec![Span::raw(" ".repeat(lead))]
        };
        spans.push(words);
        if index == last {
            spans.extend(line.tick.as_ref().map(ticks).into_iter().flatten());
            spans.push(counts.clone().dim());
        }
        out.push(TextLine::from(spans));
    }
    if let Some(Tick::Failed(why)) = &line.tick {
        let columns = columns.saturating_sub(lead);
        out.push(TextLine::from(format!("{}{}", " ".repeat(lead), cut(&harmless(why), columns))).red());
    }
    out
}

/// How many members the next tick is of, behind the tick.
fn counted(tick: &Tick, counts: Counts) -> String {
    match tick {
        Tick::Sent => format!(" {}/{}", counts.delivered_to, counts.of),
        Tick::Delivered => format!(" {}/{}", counts.read_by, counts.of),
        Tick::Waiting | Tick::Read | Tick::Failed(_) => String::new(),
    }
}

fn ticks(tick: &Tick) -> [Span<'static>; 2] {
    let sign = match tick {
        Tick::Waiting => "◷".dim(),
        Tick::Sent => "✓".dim(),
        Tick::Delivered => "✓✓".dim(),
        Tick::Read => Span::styled("✓✓", Style::new().fg(Color::LightBlue).add_modifier(Modifier::BOLD)),
        Tick::Failed(_) => "✗".red(),
    };
    [Span::raw(" "), sign]
}

fn write(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    const PROMPT: &str = "> ";
    let columns = usize::from(area.width).saturating_sub(PROMPT.len() + 1);
    let before = model.input.before();
    // A line that is too long is shown from where its cursor is still in it.
    let skipped =
        before.char_indices().map(|(at, _)| at).find(|at| width(before.get(*at..).unwrap_or_default()) <= columns);
    let skipped = skipped.unwrap_or(if width(&before) <= columns { 0 } else { before.len() });
    let text = model.input.text();
    let shown = text.get(skipped..).unwrap_or_default();
    frame.render_widget(Paragraph::new(format!("{PROMPT}{}", harmless(shown))), area);
    let column = PROMPT.len() + width(before.get(skipped..).unwrap_or_default());
    let x = area.x + u16::try_from(column).unwrap_or(u16::MAX).min(area.width.saturating_sub(1));
    frame.set_cursor_position(Position::new(x, area.y));
}

/// The last line: who, how the connection is, what waits, what moves, and the newest notice.
fn state(model: &Model) -> String {
    let link = match &model.link {
        Link::Connecting => "connecting…".to_owned(),
        Link::Connected => "connected".to_owned(),
        Link::Lost(why) => format!("no connection ({}), trying again", cut(&harmless(why), 40)),
        Link::Ended(why) => format!("ended: {}", harmless(why)),
    };
    let mut parts = vec![format!("{}/{}", model.user, model.device), link];
    match model.waiting() {
        0 => {}
        1 => parts.push("1 message waits".into()),
        n => parts.push(format!("{n} messages wait")),
    }
    parts.extend(model.transfers.iter().map(|(what, percent)| format!("{} {percent} %", harmless(what))));
    if !model.notice.is_empty() {
        parts.push(model.notice.clone());
    }
    format!(" {}", parts.join(" · "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::model::Msg;
    use natter_client::media::MediaRef;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(model: &Model, columns: u16, rows: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| view(model, 1_764_000_600, frame)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let row = |y| {
            let (mut row, mut x) = (String::new(), 0);
            while x < columns {
                let symbol = buffer[(x, y)].symbol();
                row.push_str(symbol);
                // What lies behind a wide one is hidden.
                x += u16::try_from(width(symbol).max(1)).unwrap();
            }
            row.trim_end().to_owned()
        };
        (0..rows).map(row).collect::<Vec<_>>().join("\n")
    }

    fn line(from: &str, n: u64, body: Body, tick: Option<Tick>) -> Line {
        let at = 1_764_000_000 + n * 60;
        Line { id: format!("{from}{n}"), from: from.into(), n: Some(n), at, body, tick }
    }

    fn text(words: &str) -> Body {
        Body::Text(words.into())
    }

    /// As in the README.
    fn example() -> Model {
        let mut model = Model::new("alice", "terminal", Vec::new());
        model.open("bob");
        let mut file = MediaRef::new("1234567890123456".parse().unwrap());
        file.file_size = Some(3 << 19);
        let body = Body::File { what: "harbour.jpg".into(), caption: "from the pier".into(), file };
        for (chat, line) in [
            ("bob", line("alice", 1, text("see you at eight?"), Some(Tick::Read))),
            ("bob", line("bob", 2, text("yes"), None)),
            ("bob", line("bob", 3, body, None)),
            ("bob", line("alice", 4, text("lovely, I will bring the boat"), Some(Tick::Delivered))),
            ("bob", line("alice", 5, text("and a coat"), Some(Tick::Sent))),
            ("carol", line("carol", 1, text("hi"), None)),
            ("carol", line("carol", 2, text("there?"), None)),
        ] {
            model.update(Msg::Line { chat: chat.into(), line: Box::new(line) }, 0);
        }
        let waiting = Line { n: None, ..line("alice", 6, text("on my way"), Some(Tick::Waiting)) };
        model.update(Msg::Line { chat: "bob".into(), line: Box::new(waiting) }, 0);
        model.update(Msg::Presence { who: "bob".into(), presence: Presence::Here }, 0);
        model.update(Msg::Typing { chat: "carol".into(), who: "carol".into() }, 0);
        model.update(Msg::Link(Link::Connected), 0);
        model.update(Msg::Transfer { what: "boat.mp4".into(), percent: Some(42) }, 0);
        "see you".chars().for_each(|c| drop(model.update(Msg::Key(crate::chat::edit::Key::Char(c)), 0)));
        model
    }

    #[test]
    fn the_screen_is_the_one_of_the_readme() {
        let shown = screen(&example(), 80, 13);
        let readme = include_str!("../../README.md");
        assert!(readme.contains(&shown), "the README has another one than this:\n{shown}");
    }

    #[test]
    fn ticks_have_their_colours_and_a_failure_its_reason() {
        let mut model = example();
        let tick = Tick::Failed("there is no such user".into());
        model.update(Msg::Tick { id: "alice5".into(), n: None, tick }, 0);
        let shown = screen(&model, 80, 14);
        assert!(shown.contains("and a coat ✗") && shown.contains("there is no such user"), "{shown}");
        assert_eq!(ticks(&Tick::Read)[1].style.fg, Some(Color::LightBlue));
        assert_ne!(ticks(&Tick::Delivered)[1].style.fg, Some(Color::LightBlue));
    }

    #[test]
    fn a_small_screen_shows_the_newest_and_scrolls_to_the_oldest() {
        let mut model = example();
        let small = screen(&model, 30, 5);
        assert!(small.contains("on my way ◷") && !small.contains("yes"), "{small}");
        model.update(Msg::Scroll(true), 0);
        let scrolled = screen(&model, 30, 5);
        assert!(scrolled.contains("see you at") && !scrolled.contains("on my way"), "{scrolled}");
        // Nothing is too small, and no line too long.
        (0..400).for_each(|_| drop(model.update(Msg::Key(crate::chat::edit::Key::Char('日')), 0)));
        for (columns, rows) in [(1, 1), (2, 2), (5, 3), (49, 4), (50, 4)] {
            screen(&model, columns, rows);
        }
    }

    #[test]
    fn a_group_has_its_subject_who_speaks_what_happened_and_how_many_have_it() {
        let mut model = Model::new("alice", "terminal", Vec::new());
        model.update(Msg::Subject { chat: "g:42".into(), subject: "Trip".into() }, 0);
        model.open("g:42");
        let made = Body::System("alice made the group Trip with bob, carol".into());
        for line in [
            line("alice", 1, made, None),
            line("bob", 2, text("who drives?"), None),
            line("alice", 3, text("I do"), Some(Tick::Delivered)),
            line("alice", 4, text("at eight"), Some(Tick::Sent)),
        ] {
            model.update(Msg::Line { chat: "g:42".into(), line: Box::new(line) }, 0);
        }
        let mut told = |after, n, delivered_to, read_by| {
            let counts = Counts { delivered_to, read_by, of: 2 };
            model.update(Msg::Counts { chat: "g:42".into(), after, n, counts }, 0);
        };
        told(0, 3, 2, 1);
        told(3, 4, 1, 0);
        let shown = screen(&model, 80, 8);
        for words in
            ["16:01 alice made the group Trip with", "16:02 bob who drives?", "you I do ✓✓ 1/2", "you at eight ✓ 1/2"]
        {
            assert!(shown.contains(words), "{words}:\n{shown}");
        }
        assert!(shown.starts_with("  Trip") && !shown.contains("g:42"), "{shown}");
        for (columns, rows) in [(1, 1), (5, 3), (50, 4)] {
            screen(&model, columns, rows);
        }
    }

    #[test]
    fn a_page_stands_in_place_of_the_chat() {
        let mut model = example();
        let (code, user, server) = ("7G4K-X2MQ".into(), "alice".into(), "http://127.0.0.1:8080".into());
        let page = Page::Code { code, user, server, expires_at: 1_764_000_690 };
        model.update(Msg::Page(page), 0);
        let shown = screen(&model, 80, 13);
        assert!(shown.contains("7G4K-X2MQ  good once, for another 1:30") && !shown.contains("see you at"), "{shown}");
        for (columns, rows) in [(1, 1), (5, 3), (50, 4)] {
            screen(&model, columns, rows);
        }
        model.update(Msg::Escape, 0);
        assert!(screen(&model, 80, 13).contains("see you at"));
    }

    #[test]
    fn strangers_words_do_not_steer_the_terminal() {
        let mut model = Model::new("alice", "x", Vec::new());
        model.open("bob");
        model.update(Msg::Line { chat: "bob".into(), line: Box::new(line("bob", 1, text("a\u{1b}[2Jb"), None)) }, 0);
        assert!(!screen(&model, 80, 5).contains('\u{1b}'));
    }
}
