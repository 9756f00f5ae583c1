//! `natter serve`: puts the parts together, says when they are ready, and takes them apart again in order.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use natter_bridge::http::{Api, Routes};
use natter_bridge::media::Media;
use natter_bridge::store::background::Check;
use natter_bridge::webhook::{self, Webhooks};
use natter_bridge::{Bridge, Running};
use natter_broker::Door;
use natter_protocol::accounts::Accounts;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking, yield_now};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::accounts::TokenAccounts;
use crate::admin::{self, Health};
use crate::codes::Codes;
use crate::config::Config;
use crate::control::{self, Control};
use crate::data::{DataDir, Lock};
use crate::desk::Desk;
use crate::http::DoorBrake;
use crate::keys::{self, OwnKey};
use crate::listener::HttpServer;
use crate::password::Hasher;
use crate::tls::Tls;
use crate::token::Verifier;
use crate::websocket::Gate;
use crate::{http, limits};

/// The exit code when a part has ended by itself (EX_SOFTWARE of sysexits.h).
const EXIT_FAILED: u8 = 70;
/// How long a start waits for the lock while no server answers: another may be stopping, or `natter user` at work.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
/// What the door may take beyond the drain's time.
const DOOR_GRACE: Duration = Duration::from_millis(500);
/// How often it looks.
const LOCK_WAIT_STEP: Duration = Duration::from_millis(50);

/// Serves until a signal or a failure.
pub(crate) fn run(config: &Config) -> Result<ExitCode> {
    start_logging(&config.log.level)?;
    limits::raise_open_files();
    // Whatever a library makes is for this user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("tokio runtime")?;
    let outcome = runtime.block_on(serve(config));
    // rumqttd's threads never end: nobody waits for them.
    runtime.shutdown_background();
    outcome
}

fn start_logging(level: &str) -> Result<()> {
    let (filter, from) = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => (filter, "RUST_LOG"),
        _ => (level.to_owned(), "log.level"),
    };
    let filter = EnvFilter::try_new(&filter).with_context(|| format!("{from}: not a tracing filter: {filter:?}"))?;
    let ansi = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(ansi);
    tracing_subscriber::registry().with(filter_fn(is_worth_its_cost)).with(filter).with(lines).init();
    Ok(())
}

/// rumqttd's router opens three spans for every frame, with its topic written into them: a third of the time of a message under load.
fn is_worth_its_cost(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() || !metadata.target().starts_with("rumqttd")
}

async fn serve(config: &Config) -> Result<ExitCode> {
    let stop = stop_on_signals()?;
    limits::outlive_file_size_limit().context("SIGXFSZ")?;
    let mut server = tokio::select! {
        started = Server::start(config) => started?,
        () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    server.say_ready();
    tokio::select! {
        () = stop.cancelled() => server.drain(config.drain_timeout()).await,
        error = server.door.failed() => {
            tracing::error!(%error, "the door has failed: the process ends");
            Ok(ExitCode::from(EXIT_FAILED))
        }
        error = server.bridge.failed() => {
            tracing::error!(%error, "the bridge has failed: the process ends");
            Ok(ExitCode::from(EXIT_FAILED))
        }
    }
}

/// Cancelled at the first SIGTERM or ctrl-c; the second ends the process at once.
fn stop_on_signals() -> Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let stop = CancellationToken::new();
    let first = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first.is_cancelled() {
                tracing::warn!("a second signal: the process ends now");
                std::process::exit(1);
            }
            tracing::info!("stopping; a second signal ends the process at once");
            first.cancel();
        }
    });
    Ok(stop)
}

/// At each SIGHUP, reads the certificate's files again.
fn reload_on_hangup(mut hangup: Signal, tls: Option<Tls>) {
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match tls.as_ref().map(Tls::reload) {
                None => tracing::info!("SIGHUP: there is no certificate to read again"),
                Some(Ok(())) => tracing::info!("SIGHUP: the certificate has been read again"),
                Some(Err(error)) => tracing::error!(%error, "SIGHUP: the certificate stays the one before"),
            }
        }
    });
}

/// Everything that runs.
struct Server {
    mqtt: SocketAddr,
    mqtts: Option<SocketAddr>,
    health: Arc<Health>,
    http: HttpServer,
    https: Option<HttpServer>,
    admin: HttpServer,
    webhooks: Webhooks,
    control_stop: CancellationToken,
    control: JoinHandle<()>,
    door: Arc<Door>,
    bridge: Running,
    check: Check,
    sweeper: JoinHandle<()>,
    // Last, so that they outlive all of the above.
    _dir: DataDir,
    _lock: Lock,
}

impl Server {
    async fn start(config: &Config) -> Result<Self> {
        // From here on a SIGHUP waits; before, it would end the process.
        let hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
        let dir = DataDir::open_or_make(&config.data.dir)?;
        let lock = lock(&dir).await?;
        let mqtt_listener = bind("listen.mqtt", config.listen.mqtt)?;
        let http_listener = bind("listen.http", config.listen.http)?;
        let admin_listener = bind("listen.admin", config.listen.admin)?;
        let mqtts_listener = bind_if("listen.mqtts", config.listen.mqtts)?;
        let https_listener = bind_if("listen.https", config.listen.https)?;
        let mqtt = mqtt_listener.local_addr().context("local address")?;
        let mqtts = mqtts_listener.as_ref().map(TcpListener::local_addr).transpose().context("local address")?;
        let tls = Tls::load(&config.tls)?;

        let health = Arc::new(Health::default());
        let admin = HttpServer::start(admin_listener, admin::router(Arc::clone(&health)), &config.http, None, None)?;

        let key = OwnKey::load_or_make(&dir.keys())?;
        let mut trusted = vec![key.trusted()];
        trusted.extend(keys::load_trusted(&config.auth)?);

        let store = config.bridge(dir.database());
        let bridge = spawn_blocking(|| Bridge::open(store)).await??;
        let boot = bridge.boot();
        let limits = natter_broker::Config { epoch: Some(bridge.epoch()), ..config.door() };
        let tokens = TokenAccounts::new(Verifier::new(trusted), &bridge.revocations(), bridge.disabled());
        let tokens = Arc::new(tokens);
        let accounts: Arc<dyn Accounts> = Arc::clone(&tokens) as _;
        let ends = spawn_blocking(natter_broker::start_router).await?.context("router")?;
        let bridge = bridge.start(ends.bridge.sender, ends.bridge.receiver).context("bridge")?;
        health.bridge_is_up(bridge.handle.clone());
        if let Some(user) = config.mqtt.anonymous_as() {
            tracing::warn!(%user, "clients without user name and password are this user (mqtt.anonymous_as)");
            bridge.handle.add_user(user).await.context("mqtt.anonymous_as: the user cannot be added")?;
        }
        let check = Check::start(&dir.database()).context("check of the store")?;
        health.store_is_checked(check.watch());
        let door = Arc::new(Door::start(limits, mqtt_listener, Arc::clone(&accounts), ends.door, boot));
        health.door_is_up(&door);

        let gate = Gate { door: Arc::downgrade(&door), origins: config.http.allowed_origins.clone().into() };
        let webhooks = Webhooks::start(bridge.handle.clone(), config.webhooks()).await.context("webhooks")?;
        let hasher = Hasher::new(config.accounts.hashes_at_a_time);
        let desk = Arc::new(Desk {
            bridge: bridge.handle.clone(),
            key,
            tokens,
            hasher,
            webhooks: webhooks.clone(),
            turn: Arc::default(),
        });
        let brake = Arc::new(DoorBrake(door.addresses()));
        let own = http::accounts::Accounts::new(Arc::clone(&desk), &config.accounts, door.addresses(), codes(&health)?);
        let more = http::accounts::add_to(webhook_routes(webhooks.clone()), &own);
        let more = http::devices::add_to(more, &own);
        let posts = webhooks.clone();
        let media = Media::open(bridge.handle.clone(), config.media.for_bridge(dir.path()), config.media.limits())?;
        let sweeper = tokio::spawn(media.clone().keep_swept());
        let api = Api { bridge: bridge.handle.clone(), accounts, webhooks: posts, brake, media };
        let router = http::router(gate, api, more);
        let http = HttpServer::start(http_listener, router.clone(), &config.http, None, Some(door.addresses()))?;
        let mut https = None;
        if let Some(tls) = &tls {
            if let Some(listener) = mqtts_listener {
                door.listen_tls(listener, Arc::clone(&tls.mqtt));
            }
            if let Some(listener) = https_listener {
                let (tls, addresses) = (Some(Arc::clone(&tls.http)), Some(door.addresses()));
                https = Some(HttpServer::start(listener, router, &config.http, tls, addresses)?);
            }
        }
        reload_on_hangup(hangup, tls);
        let socket = Control::bind(dir.socket()?).context("control socket")?;
        let control_stop = CancellationToken::new();
        let control = tokio::spawn(socket.run(desk, control_stop.clone()));
        tracing::info!(version = env!("CARGO_PKG_VERSION"), data = %dir.path().display(), boot, "started");
        Ok(Self {
            mqtt,
            mqtts,
            health,
            http,
            https,
            admin,
            webhooks,
            control_stop,
            control,
            door,
            bridge,
            check,
            sweeper,
            _dir: dir,
            _lock: lock,
        })
    }

    /// One line on stdout, for whoever started us.
    fn say_ready(&self) {
        let Self { mqtt, http, admin, .. } = self;
        let mut line = format!("natter ready mqtt={mqtt} http={} admin={}", http.address, admin.address);
        let https = self.https.as_ref().map(|https| https.address);
        for (name, address) in [("mqtts", self.mqtts), ("https", https)] {
            line.extend(address.map(|address| format!(" {name}={address}")));
        }
        let mut stdout = io::stdout().lock();
        if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
            tracing::warn!(%error, "{line}: stdout");
        }
    }

    /// Takes in nothing more, finishes what has been taken in, closes the store.
    async fn drain(self, time: Duration) -> Result<ExitCode> {
        self.health.start_draining();
        // Long polls end with what they have.
        self.bridge.handle.nudge(None);
        self.control_stop.cancel();
        self.sweeper.abort();
        drop(self.check);
        let https = async {
            if let Some(https) = self.https {
                https.drain().await;
            }
        };
        let clients = async { tokio::join!(drain_door(self.door), self.http.drain(), https, self.control) };
        // The door keeps to the same time by itself, and then still has its wills to send.
        if timeout(time + DOOR_GRACE, clients).await.is_err() {
            tracing::warn!(seconds = time.as_secs(), "some clients did not leave in time: they are cut");
        }
        self.webhooks.stop().await;
        let outcome = self.bridge.stop().await;
        if timeout(Duration::from_secs(1), self.admin.drain()).await.is_err() {
            tracing::debug!("admin requests did not end in time");
        }
        if let Err(error) = outcome {
            tracing::error!(%error, "the bridge did not stop cleanly");
            return Ok(ExitCode::from(EXIT_FAILED));
        }
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    }
}

/// One-time codes, none yet.
fn codes(health: &Health) -> Result<Codes> {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).ok().context("the system has no random bytes")?;
    Ok(Codes::new(&key, health.codes_refused()))
}

/// The routes of the webhooks.
fn webhook_routes(webhooks: Webhooks) -> Routes {
    Routes { with_token: webhook::router(webhooks), ..Routes::default() }
}

async fn drain_door(mut door: Arc<Door>) {
    // A scrape of /metrics may hold it for a moment.
    let door = loop {
        match Arc::try_unwrap(door) {
            Ok(door) => break door,
            Err(shared) => door = shared,
        }
        yield_now().await;
    };
    door.drain().await;
}

async fn lock(dir: &DataDir) -> Result<Lock> {
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    let socket = dir.socket()?;
    loop {
        if let Some(lock) = dir.try_lock()? {
            return Ok(lock);
        }
        if control::is_answered(&socket) || Instant::now() >= deadline {
            bail!(
                "data directory {}: another natter is using it; stop that one, or choose another with --data",
                dir.path().display()
            );
        }
        sleep(LOCK_WAIT_STEP).await;
    }
}

/// Connections that may wait to be accepted; the kernel keeps to net.core.somaxconn. One more has to ask again a second later.
const ACCEPT_BACKLOG: u32 = 4096;

fn bind(key: &str, address: SocketAddr) -> Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // As `TcpListener::bind` does: a restarted server gets its port back at once.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(ACCEPT_BACKLOG)
    };
    listen().with_context(|| format!("{key}: cannot listen on {address}"))
}

fn bind_if(key: &str, address: Option<SocketAddr>) -> Result<Option<TcpListener>> {
    address.map(|address| bind(key, address)).transpose()
}
