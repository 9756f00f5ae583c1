//! The terminal, the client, and what is between them.

mod groups;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use crossterm::event::{Event as Term, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt as _;
use natter_client::devices::DeviceError;
use natter_client::media::{MediaError, MediaKind, MediaRef, safe_name};
use natter_client::{Client, ConnectionState, Error, Tick as ClientTick};
use ratatui::DefaultTerminal;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Sender};

use super::Options;
use super::edit::Key;
use super::history;
use super::model::{Effect, Line, Link, Model, Msg, STATUS, Tick, is_watched};
use super::page::{Device, Page};
use super::view::view;

/// Happenings that wait to be shown; who makes more waits.
const MSGS_MAX: usize = 1_000;
/// How often the screen is drawn when nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// How long the end waits for what is not sent yet; the rest goes out at the next start.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Where a token comes from when none is given.
pub(crate) type Identity = Arc<dyn Fn() -> Result<String> + Send + Sync>;

/// Runs until the user leaves.
///
/// # Errors
/// No terminal, no store, or a name, URL or token that cannot be.
pub(crate) fn run(options: &Options, identity: Identity) -> Result<()> {
    let offset = time::UtcOffset::current_local_offset().map_or(0, time::UtcOffset::whole_seconds);
    tokio::runtime::Runtime::new().context("runtime")?.block_on(chat(options, identity, offset))
}

/// What the tasks share.
#[derive(Clone)]
struct Hands {
    client: Client,
    history: Arc<Mutex<Connection>>,
    /// Happenings, for the model.
    msgs: Sender<Msg>,
    /// Messages to send, one after the other: chat, and a message object with its id.
    outgoing: Sender<(String, Value)>,
}

async fn chat(options: &Options, identity: Identity, offset: i32) -> Result<()> {
    let user = options.user.to_string();
    let path = store(options)?;
    let db = history::open(&path)?;
    let chats = history::load(&db, &user).context("history")?;
    let unread = history::open_ones(&db).context("history")?;

    let mut builder = Client::builder(&options.server).user(&user).device(options.device.as_str()).store(&path);
    if let Some(http) = &options.http {
        builder = builder.http(http);
    }
    builder = match &options.token {
        Some(token) => builder.token(token),
        None => {
            // Says at once what is wrong.
            identity()?;
            builder.token_provider(move || {
                let identity = Arc::clone(&identity);
                async move {
                    let token = tokio::task::spawn_blocking(move || identity()).await.map_err(|e| e.to_string())?;
                    token.map_err(|error| format!("{error:#}"))
                }
            })
        }
    };
    let client = builder.start().await.map_err(|error| anyhow::anyhow!("{error}"))?;

    let (msgs, mut happens) = mpsc::channel(MSGS_MAX);
    let (outgoing, queue) = mpsc::channel(MSGS_MAX);
    let hands = Hands { client: client.clone(), history: Arc::new(Mutex::new(db)), msgs, outgoing };
    tokio::spawn(receive(hands.clone(), user.clone()));
    tokio::spawn(send(hands.clone(), user.clone(), queue));
    for (id, chat, content, is_unsent) in unread {
        match client.message(&id) {
            Some(_) => drop(tokio::spawn(follow(hands.clone(), id))),
            // Written down, and the program died before the client had it. The id makes it one message.
            None if is_unsent => drop(hands.outgoing.send((chat, content)).await),
            None => {}
        }
    }

    let mut model = Model::new(&user, options.device.as_str(), chats);
    model.offset = offset;
    let watches: Vec<_> =
        model.chats.iter().filter(|chat| is_watched(&chat.name)).map(|chat| chat.name.clone()).collect();
    for chat in watches {
        perform(&hands, Effect::Watch { chat });
    }
    if let Some(peer) = options.peer.clone().or_else(|| model.chats.first().map(|chat| chat.name.clone())) {
        model.open(&peer).into_iter().for_each(|effect| perform(&hands, effect));
    }

    let mut terminal = ratatui::try_init().context("a terminal")?;
    let _paste = crossterm::execute!(std::io::stdout(), crossterm::event::EnableBracketedPaste);
    let ended = show(&mut terminal, &mut model, &hands, &mut happens).await;
    let _paste = crossterm::execute!(std::io::stdout(), crossterm::event::DisableBracketedPaste);
    ratatui::restore();
    ended?;
    let left = client.close(CLOSE_MAX).await;
    if left > 0 {
        crate::cli::print(&format!("{left} messages are not sent yet: the next `natter chat` sends them\n"))?;
    }
    Ok(())
}

async fn show(
    terminal: &mut DefaultTerminal,
    model: &mut Model,
    hands: &Hands,
    happens: &mut mpsc::Receiver<Msg>,
) -> Result<()> {
    let (began, mut keys, mut state) = (Instant::now(), EventStream::new(), hands.client.state());
    let mut ticks = tokio::time::interval(TICK);
    model.link = link(&state.borrow());
    let mut drawn = false;
    loop {
        if !drawn {
            terminal.draw(|frame| view(model, unix_now(), frame)).context("terminal")?;
        }
        let msg = tokio::select! {
            key = keys.next() => match key {
                Some(Ok(event)) => of_terminal(&event),
                Some(Err(error)) => return Err(error).context("terminal"),
                None => bail!("the terminal is gone"),
            },
            Some(msg) = happens.recv() => Some(msg),
            Ok(()) = state.changed() => Some(Msg::Link(link(&state.borrow_and_update()))),
            _ = ticks.tick() => Some(Msg::Time),
        };
        let now = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        for effect in msg.map(|msg| model.update(msg, now)).into_iter().flatten() {
            if effect == Effect::Quit {
                return Ok(());
            }
            perform(hands, effect);
        }
        // A burst is drawn once.
        drawn = !happens.is_empty();
    }
}

fn of_terminal(event: &Term) -> Option<Msg> {
    let KeyEvent { code, modifiers, .. } = match event {
        Term::Key(key) if key.kind != KeyEventKind::Release => key,
        Term::Paste(text) => return Some(Msg::Paste(text.clone())),
        // Drawn again.
        _ => return None,
    };
    let control = modifiers.contains(KeyModifiers::CONTROL);
    Some(match code {
        KeyCode::Char('c' | 'q') if control => Msg::Quit,
        KeyCode::Char('u') if control => Msg::Key(Key::Kill),
        KeyCode::Char('w') if control => Msg::Key(Key::KillWord),
        KeyCode::Char('a') if control => Msg::Key(Key::Home),
        KeyCode::Char('e') if control => Msg::Key(Key::End),
        KeyCode::Char('n') if control => Msg::Turn(true),
        KeyCode::Char('p') if control => Msg::Turn(false),
        KeyCode::Char(_) if control => return None,
        KeyCode::Char(c) => Msg::Key(Key::Char(*c)),
        KeyCode::Enter => Msg::Enter,
        KeyCode::Esc => Msg::Escape,
        KeyCode::Tab | KeyCode::Down => Msg::Turn(true),
        KeyCode::BackTab | KeyCode::Up => Msg::Turn(false),
        KeyCode::PageUp => Msg::Scroll(true),
        KeyCode::PageDown => Msg::Scroll(false),
        KeyCode::Backspace => Msg::Key(Key::Backspace),
        KeyCode::Delete => Msg::Key(Key::Delete),
        KeyCode::Left => Msg::Key(Key::Left),
        KeyCode::Right => Msg::Key(Key::Right),
        KeyCode::Home => Msg::Key(Key::Home),
        KeyCode::End => Msg::Key(Key::End),
        _ => return None,
    })
}

fn link(state: &ConnectionState) -> Link {
    match state {
        ConnectionState::Connected => Link::Connected,
        ConnectionState::Reconnecting(error) => Link::Lost(error.to_string()),
        ConnectionState::Closed(error) => Link::Ended(error.to_string()),
        _ => Link::Connecting,
    }
}

/// Begins what an effect asks for; what becomes of it comes as a [`Msg`].
fn perform(hands: &Hands, effect: Effect) {
    let hands = hands.clone();
    tokio::spawn(async move {
        if let Err(error) = do_it(&hands, effect).await {
            let _gone = hands.msgs.send(Msg::Notice(error)).await;
        }
    });
}

async fn do_it(hands: &Hands, effect: Effect) -> Result<(), String> {
    let of = |error: Error| error.to_string();
    match effect {
        Effect::Say { chat, text } => {
            let message = json!({"id": new_id(), "type": "text", "text": {"body": text}});
            let _gone = hands.outgoing.send((chat, message)).await;
        }
        Effect::SendFile { chat, path } => send_file(hands, chat, &path).await.map_err(|error| error.to_string())?,
        Effect::Save { file, path } => save(hands, &file, path).await.map_err(|error| error.to_string())?,
        Effect::MarkRead { chat, n } => {
            with(hands, |db| history::keep_read(db, &chat, n))?;
            // Statuses are numbered by poster: one number says nothing of them all.
            if chat != STATUS {
                hands.client.chat(&chat).mark_read(n).await.map_err(of)?;
            }
        }
        Effect::Typing { chat } => hands.client.chat(&chat).typing().await.map_err(of)?,
        Effect::Watch { chat } => hands.client.chat(&chat).watch_presence().await.map_err(of)?,
        Effect::Devices => devices(hands).await.map_err(|error| error.to_string())?,
        Effect::MakeCode => make_code(hands).await.map_err(|error| error.to_string())?,
        Effect::Unlink { device } => {
            hands.client.unlink(&device).await.map_err(|error| error.to_string())?;
            let _gone = hands.msgs.send(Msg::Notice(format!("{device} is unlinked"))).await;
        }
        Effect::Group { chat, act } => groups::act(hands, &chat, act).await?,
        Effect::Invite { chat } => groups::invite(hands, &chat).await.map_err(|error| error.to_string())?,
        Effect::Join { link } => groups::join(hands, &link).await?,
        Effect::Quit => {}
    }
    Ok(())
}

fn with<T>(hands: &Hands, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, String> {
    work(&hands.history.lock().unwrap_or_else(PoisonError::into_inner)).map_err(|error| format!("history: {error}"))
}

/// What arrives: on the disk, then on the screen.
async fn receive(hands: Hands, user: String) {
    let mut events = hands.client.events();
    loop {
        let me = user.clone();
        match events.next_in_transaction(move |db, event| history::keep(db, &me, &event)).await {
            Ok(Some(msgs)) => {
                for msg in msgs {
                    let _gone = hands.msgs.send(msg).await;
                }
            }
            Ok(None) => return,
            Err(error) => {
                let _gone = hands.msgs.send(Msg::Notice(error.to_string())).await;
                tokio::time::sleep(error.retry_after().unwrap_or(TICK)).await;
            }
        }
    }
}

/// What is sent: written down, then given to the client, in order.
async fn send(hands: Hands, user: String, mut queue: mpsc::Receiver<(String, Value)>) {
    while let Some((chat, message)) = queue.recv().await {
        let id = message.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let content = message.as_object().cloned().unwrap_or_default();
        let tick = Some(Tick::Waiting);
        let line =
            Line { id: id.clone(), from: user.clone(), n: None, at: unix_now(), body: history::body(&content), tick };
        let kept = with(&hands, |db| history::insert(db, &chat, &line, &message));
        let sent = match kept {
            Ok(()) => {
                let _gone = hands.msgs.send(Msg::Line { chat: chat.clone(), line: Box::new(line) }).await;
                hands.client.chat(&chat).send(message).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error),
        };
        match sent {
            Ok(_) => drop(tokio::spawn(follow(hands.clone(), id))),
            Err(error) => tell(&hands, &id, None, Tick::Failed(error)).await,
        }
    }
}

/// Follows the ticks of an own message until it is read.
async fn follow(hands: Hands, id: String) {
    let Some(message) = hands.client.message(&id) else { return };
    let mut ticks = message.ticks();
    loop {
        let progress = ticks.borrow_and_update().clone();
        let tick = match (&progress.failure, progress.tick) {
            (Some(failure), _) => Tick::Failed(failure.to_string()),
            (None, ClientTick::Sent) => Tick::Sent,
            (None, ClientTick::Delivered) => Tick::Delivered,
            (None, ClientTick::Read) => Tick::Read,
            (None, _) => Tick::Waiting,
        };
        let is_last = matches!(tick, Tick::Read | Tick::Failed(_));
        tell(&hands, &id, progress.sent.map(|(n, _)| n), tick).await;
        if is_last || ticks.changed().await.is_err() {
            return;
        }
    }
}

async fn tell(hands: &Hands, id: &str, n: Option<u64>, tick: Tick) {
    if let Err(error) = with(hands, |db| history::keep_tick(db, id, n, &tick)) {
        let _gone = hands.msgs.send(Msg::Notice(error)).await;
    }
    let _gone = hands.msgs.send(Msg::Tick { id: id.to_owned(), n, tick }).await;
}

async fn devices(hands: &Hands) -> Result<(), DeviceError> {
    let found = hands.client.devices().await?.into_iter();
    let shown = found.map(|device| {
        let natter_client::devices::Device { name, label, connected, last_seen, .. } = device;
        Device { name, label, connected, last_seen }
    });
    let _gone = hands.msgs.send(Msg::Page(Page::Devices(shown.collect()))).await;
    Ok(())
}

async fn make_code(hands: &Hands) -> Result<(), DeviceError> {
    let made = hands.client.link_code().await?;
    let (user, server) = (hands.client.user().to_string(), hands.client.http_url().to_owned());
    let page = Page::Code { code: made.code, user, server, expires_at: made.expires_at };
    let _gone = hands.msgs.send(Msg::Page(page)).await;
    Ok(())
}

async fn send_file(hands: &Hands, chat: String, path: &str) -> Result<(), MediaError> {
    let path = home(path);
    let what = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (msgs, name) = (hands.msgs.clone(), what.clone());
    let upload = hands.client.media().upload(&path).on_progress(move |progress| {
        // A screen that is behind misses some of them.
        let _full = msgs.try_send(Msg::Transfer { what: name.clone(), percent: progress.percent() });
    });
    let uploaded = upload.await;
    let _gone = hands.msgs.send(Msg::Transfer { what: what.clone(), percent: None }).await;
    let file = uploaded?;
    let kind = file.kind.unwrap_or(MediaKind::Document).as_str();
    // The size is for the own screen: what the others see of it, the server writes.
    let mut object = json!({"id": file.id.as_str(), "file_size": file.file_size});
    if kind == "document" {
        object["filename"] = what.into();
    }
    let _gone = hands.outgoing.send((chat, json!({"id": new_id(), "type": kind, kind: object}))).await;
    Ok(())
}

async fn save(hands: &Hands, file: &MediaRef, path: Option<String>) -> Result<(), MediaError> {
    let name = safe_name(file.filename.as_deref().unwrap_or_default(), file.id.as_str());
    let path = match path {
        Some(path) if home(&path).is_dir() => home(&path).join(&name),
        Some(path) => home(&path),
        None => free(&name),
    };
    let (msgs, what) = (hands.msgs.clone(), name.clone());
    let download = hands.client.media().download(file, &path).on_progress(move |progress| {
        let _full = msgs.try_send(Msg::Transfer { what: what.clone(), percent: progress.percent() });
    });
    let saved = download.await;
    let _gone = hands.msgs.send(Msg::Transfer { what: name, percent: None }).await;
    let saved = saved?;
    let _gone = hands.msgs.send(Msg::Notice(format!("saved as {}", saved.path.display()))).await;
    Ok(())
}

/// A name in this directory that nothing has: what a stranger calls his file replaces nothing.
fn free(name: &str) -> PathBuf {
    let names = std::iter::once(name.to_owned()).chain((1..).map(|number| format!("{number}-{name}")));
    names.map(PathBuf::from).find(|path| !path.exists()).unwrap_or_default()
}

/// A path as people write it.
fn home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}

/// Where messages are kept.
fn store(options: &Options) -> Result<PathBuf> {
    if let Some(path) = &options.store {
        return Ok(path.clone());
    }
    let data = match (std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME")) {
        (Some(data), _) if !data.is_empty() => PathBuf::from(data),
        (_, Some(home)) => PathBuf::from(home).join(".local/share"),
        _ => bail!("expected HOME, or --store FILE, to keep messages in"),
    };
    let dir = data.join("natter");
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir.join(format!("chat-{}-{}.db", options.user, options.device)))
}

fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
