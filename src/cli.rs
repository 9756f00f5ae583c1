//! The command line.

use std::io::{self, BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use natter_bridge::Bridge;
use natter_protocol::{DeviceId, UserId};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::cert::{self, CertOptions};
use crate::check;
use crate::config::{Config, Flags, parse_address};
use crate::control;
use crate::data::DataDir;
use crate::desk::{Answer, Request, answer_alone};
use crate::keys::{self, OwnKey};
use crate::password::Password;
use crate::serve;
use crate::tls::Tls;

/// How long `natter user` and `natter token` wait for a server that has the lock and does not answer: it starts or stops.
const SERVER_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often they look.
const SERVER_WAIT_STEP: Duration = Duration::from_millis(50);
/// Users that are added at a time, in one commit. Half of what may wait for the bridge's loop: the rest is for everybody else.
const USERS_AT_A_TIME: usize = 500;
/// Longest life of a token, in seconds: ten years.
const TTL_S_MAX: u64 = 3650 * 86_400;

/// How long a token lasts that `natter chat` makes for itself, in seconds: a day.
#[cfg(feature = "chat")]
const CHAT_TOKEN_TTL_S: u64 = 86_400;

/// A messenger whose wire is plain MQTT: one tick means on disk, two ticks mean on the other device.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Every key of the configuration can be set in the environment too, as NATTER__SECTION__KEY: \
    NATTER__LISTEN__MQTT=0.0.0.0:1883. RUST_LOG chooses what is logged."
)]
pub(crate) struct Cli {
    /// Configuration file (TOML); only what differs from the defaults
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the database, the keys and the control socket
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (what `natter` alone does too)
    Serve(Addresses),
    /// Manage users, whether the server runs or not
    #[command(subcommand)]
    User(UserCommand),
    /// Print a token for a user, whether the server runs or not
    Token {
        /// Whose token; `-` reads names from stdin, one a line, and prints as many tokens
        name: Names,
        /// Good for this device's topics only
        #[arg(long)]
        device: Option<DeviceId>,
        /// How long it lasts: 90s, 15m, 12h or 30d
        #[arg(long, value_name = "TIME", default_value = "30d", value_parser = parse_ttl)]
        ttl: u64,
    },
    /// Chat in this terminal
    #[cfg(feature = "chat")]
    Chat(crate::chat::Options),
    /// Make this machine a device of a user, by a code that another device of his shows
    #[cfg(feature = "chat")]
    Link(crate::link::Options),
    /// Say whether the store is whole
    Check(check::Options),
    /// Make a certificate authority and a certificate, for development
    Cert(CertOptions),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Kill, pause and cut servers and clients while they talk, and prove that nothing acknowledged is lost
    #[cfg(feature = "tools")]
    Torture(natter_tools::torture::Torture),
    /// Measure a server: round trips a second, latencies, CPU, memory
    #[cfg(feature = "tools")]
    Bench(natter_tools::bench::Bench),
}

#[derive(Debug, Default, Args)]
struct Addresses {
    /// Where MQTT listens; port 0 = any free one
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    mqtt: Option<SocketAddr>,
    /// Where HTTP listens
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    http: Option<SocketAddr>,
    /// Where health and metrics listen
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    admin: Option<SocketAddr>,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user
    Add {
        /// Usually a phone number in digits; else lower-case letters, digits, dot, underscore and hyphen, at most 64. `-` reads names
        /// from stdin, one a line, and passes over those that are there
        name: Names,
    },
    /// Give a user a password, or another one: it is read from stdin. His tokens end, and his connections with them
    Password {
        /// Whose
        name: UserId,
    },
    /// Keep a user out: his connections are cut, his tokens and his password do not work any more. Messages to him wait
    Disable {
        /// Whom
        name: UserId,
    },
    /// Let a user in again. He needs a new token
    Enable {
        /// Whom
        name: UserId,
    },
}

/// Whom a command is for.
#[derive(Debug, Clone)]
enum Names {
    One(UserId),
    Stdin,
}

impl FromStr for Names {
    type Err = <UserId as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "-" { Ok(Self::Stdin) } else { text.parse().map(Self::One) }
    }
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the configuration is valid, with the key files that it names
    Check,
    /// Print what is in force, as TOML
    Print,
}

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    let Cli { config, data, command } = cli;
    let command = command.unwrap_or_else(|| Command::Serve(Addresses::default()));
    #[cfg(feature = "tools")]
    if let Command::Torture(options) = &command {
        return natter_tools::torture::run(options, data);
    }
    #[cfg(feature = "tools")]
    if let Command::Bench(options) = &command {
        return natter_tools::bench::run(options, data);
    }
    if let Command::Cert(options) = &command {
        print(&cert::make(options)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    #[cfg(feature = "chat")]
    if let Command::Link(options) = &command {
        crate::link::run(options)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut flags = Flags { data, ..Flags::default() };
    if let Command::Serve(Addresses { mqtt, http, admin }) = &command {
        (flags.mqtt, flags.http, flags.admin) = (*mqtt, *http, *admin);
    }
    let config = Config::load(config.as_deref(), &flags)?;
    match command {
        Command::Serve(_) => return serve::run(&config),
        Command::User(UserCommand::Add { name: Names::One(user) }) => add_user(&config, user)?,
        Command::User(UserCommand::Add { name: Names::Stdin }) => add_users(&config, &read_names()?)?,
        Command::User(UserCommand::Password { name }) => {
            let password = read_password()?;
            set(
                &config,
                &Request::SetPassword { user: name.clone(), password },
                &format!("{name} has a new password"),
            )?;
        }
        Command::User(UserCommand::Disable { name }) => {
            let request = Request::SetDisabled { user: name.clone(), disabled: true };
            set(&config, &request, &format!("{name} is kept out"))?;
        }
        Command::User(UserCommand::Enable { name }) => {
            let request = Request::SetDisabled { user: name.clone(), disabled: false };
            set(&config, &request, &format!("{name} may come in"))?;
        }
        Command::Token { name: Names::One(user), device, ttl } => issue_token(&config, user, device, ttl)?,
        Command::Token { name: Names::Stdin, device, ttl } => {
            for user in read_names()? {
                issue_token(&config, user, device.clone(), ttl)?;
            }
        }
        #[cfg(feature = "chat")]
        Command::Chat(options) => return chat(config, &options),
        Command::Check(options) => return check::run(&config, &options),
        Command::Config(ConfigCommand::Check) => {
            keys::load_trusted(&config.auth)?;
            Tls::load(&config.tls)?;
            print("the configuration is valid\n")?;
        }
        Command::Config(ConfigCommand::Print) => print(&config.to_toml()?)?,
        // Done above.
        Command::Cert(_) => {}
        #[cfg(feature = "chat")]
        Command::Link(_) => {}
        #[cfg(feature = "tools")]
        Command::Torture(_) | Command::Bench(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn add_user(config: &Config, user: UserId) -> Result<()> {
    match ask(config, &Request::AddUser { user: user.clone() })? {
        Answer::Added => print(&format!("added {user}\n")),
        Answer::Known => bail!("there is a user {user} already"),
        other => unexpected(other),
    }
}

/// Does what changes a user who is there.
fn set(config: &Config, request: &Request, done: &str) -> Result<()> {
    match ask(config, request)? {
        Answer::Done => print(&format!("{done}\n")),
        Answer::UnknownUser => bail!("there is no such user; `natter user add NAME` adds one"),
        other => unexpected(other),
    }
}

/// The first line of stdin; not shown while it is typed.
fn read_password() -> Result<Password> {
    let stdin = io::stdin();
    let shown = tcgetattr(&stdin).ok();
    if let Some(shown) = &shown {
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &hidden).context("terminal")?;
        write!(io::stderr(), "password: ").context("stderr")?;
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line).context("stdin");
    if let Some(shown) = &shown {
        tcsetattr(&stdin, OptionalActions::Now, shown).context("terminal")?;
        writeln!(io::stderr()).context("stderr")?;
    }
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned().into())
}

fn add_users(config: &Config, users: &[UserId]) -> Result<()> {
    let (mut all_added, mut all_known) = (0, 0);
    for users in users.chunks(USERS_AT_A_TIME) {
        match ask(config, &Request::AddUsers { users: users.to_vec() })? {
            Answer::AddedSome { added, known } => (all_added, all_known) = (all_added + added, all_known + known),
            other => return unexpected(other),
        }
    }
    print(&format!("added {all_added} users, {all_known} were there already\n"))
}

/// Names from stdin, one a line; all of them are read before anything is done.
fn read_names() -> Result<Vec<UserId>> {
    let mut users = Vec::new();
    for (number, line) in (1..).zip(io::stdin().lock().lines()) {
        let line = line.context("stdin")?;
        let name = line.trim();
        if !name.is_empty() {
            users.push(name.parse().with_context(|| format!("line {number} of stdin"))?);
        }
    }
    Ok(users)
}

/// Without a token of his own, the user gets one as `natter token` makes it, whenever he needs another.
#[cfg(feature = "chat")]
fn chat(config: Config, options: &crate::chat::Options) -> Result<ExitCode> {
    let user = options.user().clone();
    let identity: crate::chat::Identity =
        std::sync::Arc::new(move || make_token(&config, user.clone(), None, CHAT_TOKEN_TTL_S));
    crate::chat::run(options, identity)?;
    Ok(ExitCode::SUCCESS)
}

fn issue_token(config: &Config, user: UserId, device: Option<DeviceId>, ttl_s: u64) -> Result<()> {
    print(&format!("{}\n", make_token(config, user, device, ttl_s)?))
}

fn make_token(config: &Config, user: UserId, device: Option<DeviceId>, ttl_s: u64) -> Result<String> {
    match ask(config, &Request::IssueToken { user: user.clone(), device, ttl_s })? {
        Answer::Token { token } => Ok(token),
        Answer::UnknownUser => bail!("there is no user {user}: add it with `natter user add {user}`"),
        other => unexpected(other).map(|()| String::new()),
    }
}

fn unexpected(answer: Answer) -> Result<()> {
    match answer {
        Answer::Failed { reason } => bail!(reason),
        Answer::Added
        | Answer::AddedSome { .. }
        | Answer::Known
        | Answer::Done
        | Answer::UnknownUser
        | Answer::Token { .. } => {
            bail!("the server's answer does not fit the question: is it of another version?")
        }
    }
}

/// Asks the server that runs in the data directory, or opens the store if none does.
fn ask(config: &Config, request: &Request) -> Result<Answer> {
    let dir = DataDir::open_or_make(&config.data.dir)?;
    let socket = dir.socket()?;
    let deadline = Instant::now() + SERVER_WAIT_MAX;
    loop {
        if let Some(answer) = control::ask(&socket, request).context("control socket of the running server")? {
            return Ok(answer);
        }
        if let Some(_lock) = dir.try_lock()? {
            let key = OwnKey::load_or_make(&dir.keys())?;
            let mut bridge = Bridge::open(config.bridge(dir.database()))?;
            return Ok(answer_alone(&mut bridge, &key, request));
        }
        if Instant::now() >= deadline {
            bail!("data directory {}: another natter is using it and does not answer; try again", dir.path().display());
        }
        sleep(SERVER_WAIT_STEP);
    }
}

pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("stdout")
}

/// Parses a time to live into seconds.
///
/// # Errors
/// Expected and got, as text.
fn parse_ttl(text: &str) -> Result<u64, String> {
    let seconds = |text: &str| {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let unit_s = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let total = number.parse::<u64>().ok()?.checked_mul(unit_s)?;
        (digits && (1..=TTL_S_MAX).contains(&total)).then_some(total)
    };
    seconds(text).ok_or_else(|| format!("expected 1s to 3650d, as 90s, 15m, 12h or 30d, got {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_ttl_is_a_number_and_a_unit() {
        assert_eq!(parse_ttl("1s"), Ok(1));
        assert_eq!(parse_ttl("15m"), Ok(900));
        assert_eq!(parse_ttl("12h"), Ok(43_200));
        assert_eq!(parse_ttl("30d"), Ok(2_592_000));
        for wrong in ["", "d", "30", "0s", "-1d", "+1d", "1.5h", "3651d", "99999999999999999999d", "1w", "1 d", "1µ"] {
            assert!(parse_ttl(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn global_flags_stand_before_or_after_the_command() {
        for line in [
            &["natter", "--data", "d", "--config", "c", "user", "add", "alice"][..],
            &["natter", "user", "add", "alice", "--data", "d", "--config", "c"],
            &["natter", "user", "--data", "d", "add", "--config", "c", "alice"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!((cli.data, cli.config), (Some("d".into()), Some("c".into())));
        }
    }
}
