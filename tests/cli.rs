//! The command line as its users meet it: real processes, real signals, a data directory each.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test ends that way")]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// `natter` in `dir`, deaf to the environment of whoever runs the tests.
fn natter(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_natter"));
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("NATTER__") {
            command.env_remove(key);
        }
    }
    command.env_remove("RUST_LOG").current_dir(dir).args(args).stdin(Stdio::null());
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    natter(dir, args).output().unwrap()
}

/// Runs what must succeed; its stdout.
fn good(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs what must fail with exit code 1 and say all of `words` on stderr, and nothing on stdout.
fn bad(dir: &Path, args: &[&str], words: &[&str]) {
    refused(&run(dir, args), words);
}

fn refused(output: &Output, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in {stderr:?}");
    }
}

/// A server in a directory of its own; killed when dropped.
struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    mqtt: SocketAddr,
    http: SocketAddr,
    admin: SocketAddr,
}

impl Server {
    fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    fn start_with(dir: &Path, more: &[&str]) -> Self {
        let mut args = vec!["serve", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        args.extend(more);
        let mut child = natter(dir, &args).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let addresses: Vec<SocketAddr> = line
            .strip_prefix("natter ready ")
            .and_then(|rest| rest.strip_suffix('\n'))
            .unwrap_or_else(|| panic!("not ready: {line:?}"))
            .split(' ')
            .zip(["mqtt=", "http=", "admin="])
            .map(|(word, name)| word.strip_prefix(name).unwrap().parse().unwrap())
            .collect();
        let [mqtt, http, admin] = addresses[..] else { panic!("{line:?}") };
        Self { child, stdout, mqtt, http, admin }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; what else it wrote on stdout.
    fn end(mut self) -> (ExitStatus, String) {
        let status = ended(&mut self.child);
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (status, rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn ended(child: &mut Child) -> ExitStatus {
    let mut status = None;
    eventually("the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One HTTP exchange: status, content type, body.
fn http(address: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: natter\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let content_type = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), content_type.to_owned(), body.to_owned())
}

fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    http(address, "GET", path)
}

/// A client that asks and asks and reads nothing: its answers cannot leave, which holds the drain.
fn a_client_that_does_not_read(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let requests = "GET / HTTP/1.1\r\nHost: natter\r\n\r\n".repeat(1000);
    while stream.write_all(requests.as_bytes()).is_ok() {}
    stream
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The payload of a token that must be alone on stdout.
fn is_token(stdout: &str) -> bool {
    let token = stdout.strip_suffix('\n').unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    parts.len() == 3 && token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn version_and_help_are_there() {
    let dir = dir();
    assert_eq!(good(dir.path(), &["--version"]), format!("natter {}\n", env!("CARGO_PKG_VERSION")));
    let help = good(dir.path(), &["--help"]);
    for word in ["serve", "user", "token", "config", "--config", "--data", "NATTER__"] {
        assert!(help.contains(word), "{word} is not in {help}");
    }
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing was made");
}

#[test]
fn config_print_gives_the_defaults_and_what_stands_above_them() {
    let dir = dir();
    let plain = good(dir.path(), &["config", "print"]);
    fs::write(dir.path().join("shipped.toml"), include_str!("../config/natter.toml")).unwrap();
    assert_eq!(good(dir.path(), &["config", "print", "--config", "shipped.toml"]), plain);
    for line in [
        "dir = \"natter-data\"",
        "mqtt = \"127.0.0.1:1883\"",
        "http = \"127.0.0.1:8080\"",
        "admin = \"127.0.0.1:8081\"",
    ] {
        assert!(plain.contains(line), "{line} is not in {plain}");
    }

    fs::write(dir.path().join("my.toml"), "[listen]\nmqtt = \"127.0.0.1:1\"\nhttp = \"127.0.0.1:2\"\n").unwrap();
    let args = ["--config", "my.toml", "config", "print", "--data", "elsewhere"];
    let output = natter(dir.path(), &args).env("NATTER__LISTEN__HTTP", "127.0.0.1:3").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    for line in ["dir = \"elsewhere\"", "mqtt = \"127.0.0.1:1\"", "http = \"127.0.0.1:3\""] {
        assert!(printed.contains(line), "{line} is not in {printed}");
    }
    fs::write(dir.path().join("printed.toml"), &printed).unwrap();
    assert_eq!(good(dir.path(), &["--config", "printed.toml", "config", "print"]), printed);
    assert_eq!(good(dir.path(), &["--config", "printed.toml", "config", "check"]), "the configuration is valid\n");
}

#[test]
fn config_check_names_what_is_wrong() {
    let dir = dir();
    let check = |text: &str, words: &[&str]| {
        fs::write(dir.path().join("my.toml"), text).unwrap();
        bad(dir.path(), &["config", "check", "--config", "my.toml"], words);
        bad(dir.path(), &["--config", "my.toml"], words);
    };
    check("[listen]\nmqqt = \"127.0.0.1:1\"\n", &["mqqt", "listen"]);
    check("[listen]\nmqtt = 1883\n", &["listen.mqtt", "IP:PORT", "1883"]);
    check("[auth]\nalgorithm = \"none\"\n", &["auth.algorithm", "EdDSA", "none"]);
    check("[auth]\njwks_file = \"nowhere.json\"\n", &["nowhere.json"]);
    bad(dir.path(), &["config", "check", "--config", "nowhere.toml"], &["nowhere.toml"]);
    let output = natter(dir.path(), &["config", "check"]).env("NATTER__LISTEN__MQQT", "127.0.0.1:1").output().unwrap();
    refused(&output, &["mqqt", "listen"]);
}

#[test]
fn users_and_tokens_are_made_while_no_server_runs() {
    let dir = dir();
    bad(dir.path(), &["token", "alice"], &["alice", "natter user add alice"]);
    assert_eq!(good(dir.path(), &["user", "add", "alice"]), "added alice\n");
    bad(dir.path(), &["user", "add", "alice"], &["alice", "already"]);
    assert!(is_token(&good(dir.path(), &["token", "alice"])));
    assert!(is_token(&good(dir.path(), &["token", "alice", "--device", "phone", "--ttl", "90s"])));
    bad(dir.path(), &["token", "bob"], &["bob", "natter user add bob"]);
    assert_eq!(mode(&dir.path().join("natter-data")), 0o700);
    assert_eq!(mode(&dir.path().join("natter-data/keys/token-ed25519.pk8")), 0o600);
}

#[test]
fn users_and_tokens_are_made_while_a_server_runs_and_outlive_it() {
    let dir = dir();
    let server = Server::start(dir.path());
    bad(dir.path(), &["token", "alice"], &["alice", "natter user add alice"]);
    assert_eq!(good(dir.path(), &["user", "add", "alice"]), "added alice\n");
    bad(dir.path(), &["user", "add", "alice"], &["alice", "already"]);
    assert!(is_token(&good(dir.path(), &["token", "alice", "--device", "phone"])));
    assert_eq!(mode(&dir.path().join("natter-data/natter.sock")), 0o600);
    server.signal(Signal::TERM);
    assert_eq!(server.end().0.code(), Some(0));
    assert!(!dir.path().join("natter-data/natter.sock").exists());
    bad(dir.path(), &["user", "add", "alice"], &["already"]);
    assert!(is_token(&good(dir.path(), &["token", "alice"])));
}

#[test]
fn a_name_outside_the_grammar_is_refused_at_once() {
    let dir = dir();
    for args in [
        &["user", "add", "Alice"][..],
        &["user", "add", "system"],
        &["token", "a/b"],
        &["token", "a", "--device", "a b"],
    ] {
        assert_eq!(run(dir.path(), args).status.code(), Some(2), "{args:?}");
    }
    assert_eq!(run(dir.path(), &["token", "alice", "--ttl", "3w"]).status.code(), Some(2));
    assert!(!dir.path().join("natter-data").exists());
}

#[test]
fn commands_wait_for_a_server_that_is_starting() {
    let dir = dir();
    let mut adding: Vec<Child> = ["alice", "bob", "carol", "dave"]
        .iter()
        .map(|name| natter(dir.path(), &["user", "add", name]).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    let _server = Server::start(dir.path());
    for child in &mut adding {
        assert!(ended(child).success());
    }
    assert!(is_token(&good(dir.path(), &["token", "dave"])));
}

#[test]
fn one_ready_line_and_a_clean_end_at_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = dir();
        let server = Server::start(dir.path());
        for address in [server.mqtt, server.http, server.admin] {
            assert!(address.ip().is_loopback() && address.port() != 0);
            TcpStream::connect(address).unwrap();
        }
        server.signal(signal);
        let (status, rest) = server.end();
        assert_eq!((status.code(), rest.as_str()), (Some(0), ""));
    }
}

#[test]
fn a_second_server_in_the_same_directory_is_refused() {
    let dir = dir();
    let _server = Server::start(dir.path());
    bad(dir.path(), &["serve"], &["natter-data", "another natter is using it"]);
    bad(dir.path(), &[], &["natter-data", "another natter is using it"]);
}

#[test]
fn many_users_and_tokens_at_once_come_from_stdin() {
    let dir = dir();
    let with_stdin = |args: &[&str], text: &str| {
        let mut child = natter(dir.path(), args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let good = |args: &[&str], text: &str| {
        let output = with_stdin(args, text);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(good(&["user", "add", "-"], "alice\n\nbob\n"), "added 2 users, 0 were there already\n");
    let server = Server::start(dir.path());
    // Of the longest names, three requests.
    let names: String = (0..1200).map(|i| format!("{i:064}\n")).collect();
    assert_eq!(
        good(&["user", "add", "-"], &format!("{names}alice\nalice")),
        "added 1200 users, 2 were there already\n"
    );
    assert_eq!(good(&["user", "add", "-"], &names), "added 0 users, 1200 were there already\n");
    let tokens = good(&["token", "-"], &format!("bob\n{:064}\n", 1199));
    assert_eq!(tokens.lines().map(|token| token.split('.').count()).collect::<Vec<_>>(), [3, 3]);
    // A name that is none: nothing is done.
    refused(&with_stdin(&["user", "add", "-"], "carol\nBad Name\n"), &["line 2", "Bad Name"]);
    refused(&with_stdin(&["token", "-"], "carol\n"), &["carol", "natter user add carol"]);
    drop(server);
}

#[test]
fn an_address_in_use_is_named() {
    let dir = dir();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let args = ["serve", "--mqtt", &address, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    bad(dir.path(), &args, &["listen.mqtt", &address]);
}

#[test]
fn a_killed_server_leaves_nothing_in_the_way() {
    let dir = dir();
    let server = Server::start(dir.path());
    good(dir.path(), &["user", "add", "alice"]);
    server.signal(Signal::KILL);
    drop(server);
    assert!(dir.path().join("natter-data/natter.sock").exists());
    assert!(is_token(&good(dir.path(), &["token", "alice"])));
    let _again = Server::start(dir.path());
    assert!(is_token(&good(dir.path(), &["token", "alice"])));
}

#[test]
fn a_deep_data_directory_works() {
    let dir = dir();
    let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
    let data = deep.to_str().unwrap();
    let _server = Server::start_with(dir.path(), &["--data", data]);
    good(dir.path(), &["--data", data, "user", "add", "alice"]);
    assert!(is_token(&good(dir.path(), &["token", "alice", "--data", data])));
    assert!(deep.join("natter.sock").exists());
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let dir = dir();
    good(dir.path(), &["user", "add", "alice"]);
    let key = dir.path().join("natter-data/keys/token-ed25519.pk8");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    bad(dir.path(), &["token", "alice"], &["0600", "0644", "chmod"]);
    let args = ["serve", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    bad(dir.path(), &args, &["0600", "0644", "chmod"]);
}

#[test]
fn the_control_socket_survives_whatever_comes() {
    let dir = dir();
    let _server = Server::start(dir.path());
    let socket = dir.path().join("natter-data/natter.sock");
    let connect = || {
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let ask = |bytes: &[u8]| {
        let mut stream = connect();
        // The server may answer and close before it has read everything.
        let _written = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _closed = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    };
    for request in
        ["\n", "no\n", "{}\n", r#"{"do":"add_user","user":"Bad Name"}"#, r#"{"do":"add_user","user":"bob","x":1}"#]
    {
        let answer = ask(format!("{request}\n").as_bytes());
        assert!(answer.contains("not understood") && answer.ends_with('\n'), "{request}: {answer}");
    }
    ask(&[b'x'; 1 << 20]);
    let idle: Vec<UnixStream> = (0..8).map(|_| connect()).collect();
    assert_eq!(good(dir.path(), &["user", "add", "bob"]), "added bob\n");
    drop(idle);
}

#[test]
fn http_says_what_this_is_and_refuses_the_rest_in_json() {
    let dir = dir();
    let server = Server::start(dir.path());
    let (status, content_type, body) = get(server.http, "/");
    assert_eq!((status, content_type.as_str()), (200, "text/plain; charset=utf-8"));
    assert!(body.contains("Natter") && body.contains("README.md"), "{body}");
    for (method, path, expected) in [("GET", "/nothing", 404), ("GET", "/v1", 404), ("POST", "/", 405)] {
        let (status, content_type, body) = http(server.http, method, path);
        assert_eq!((status, content_type.as_str()), (expected, "application/problem+json"));
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], expected);
        for member in ["type", "title", "detail", "code"] {
            assert!(!problem[member].is_null(), "{member} is not in {body}");
        }
    }
    assert_eq!(get(server.http, "/metrics").0, 404);
}

#[test]
fn admin_tells_health_readiness_and_metrics() {
    let dir = dir();
    let server = Server::start(dir.path());
    assert_eq!(get(server.admin, "/healthz").0, 200);
    eventually("ready", || get(server.admin, "/readyz").0 == 200);
    let readiness: serde_json::Value = serde_json::from_str(&get(server.admin, "/readyz").2).unwrap();
    assert_eq!(readiness, serde_json::json!({"ready": true, "bridge": true, "door": true, "draining": false}));
    let (status, _, metrics) = get(server.admin, "/metrics");
    assert_eq!(status, 200);
    for line in
        ["natter_ready 1", "# TYPE natter_messages counter", "natter_messages_total 0", "natter_door_connections 0"]
    {
        assert!(metrics.lines().any(|each| each == line), "{line} is not in {metrics}");
    }
    assert_eq!(get(server.admin, "/").0, 404);
}

#[test]
fn a_server_that_drains_is_not_ready() {
    let dir = dir();
    let server = Server::start(dir.path());
    let client = a_client_that_does_not_read(server.http);
    server.signal(Signal::TERM);
    eventually("not ready", || get(server.admin, "/readyz").0 == 503);
    assert_eq!(get(server.admin, "/healthz").0, 200);
    let readiness: serde_json::Value = serde_json::from_str(&get(server.admin, "/readyz").2).unwrap();
    assert_eq!((&readiness["ready"], &readiness["draining"]), (&false.into(), &true.into()));
    drop(client);
    assert_eq!(server.end().0.code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_drain() {
    let dir = dir();
    let server = Server::start(dir.path());
    let _client = a_client_that_does_not_read(server.http);
    server.signal(Signal::TERM);
    eventually("draining", || get(server.admin, "/readyz").0 == 503);
    server.signal(Signal::TERM);
    assert_eq!(server.end().0.code(), Some(1));
}

#[test]
fn a_drain_that_takes_too_long_is_cut() {
    let dir = dir();
    fs::write(dir.path().join("my.toml"), "[shutdown]\ndrain_timeout_s = 1\n").unwrap();
    let server = Server::start_with(dir.path(), &["--config", "my.toml"]);
    let _client = a_client_that_does_not_read(server.http);
    server.signal(Signal::TERM);
    assert_eq!(server.end().0.code(), Some(0));
}
