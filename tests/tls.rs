//! MQTT and HTTP over TLS: stock clients with a certificate of `natter cert`, and what must not get through.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::mosquitto::{self, Subscriber, Version};
use common::server::natter;
use common::tls::{self, Certificate};
use common::websocket::{SUBPROTOCOL, WebSocket};
use common::{Connect, Device, TestServer, assert_text, dial, patience};

const MESSAGE: &str = r#"{"id":"m1","to":"bob","type":"text","text":{"body":"hi"}}"#;

fn server(certificate: &Certificate, more: &str) -> TestServer {
    let server = TestServer::start_with(&format!("{}{more}", certificate.config()));
    ["alice", "bob"].iter().for_each(|name| server.add_user(name));
    server
}

/// What comes until the server closes, and when that is.
fn read_to_end(mut stream: TcpStream) -> (Vec<u8>, Instant) {
    stream.set_read_timeout(Some(patience())).unwrap();
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the server does not close"),
        // What it has not read when it closes makes a reset of the close.
        Ok(_) | Err(_) => (bytes, Instant::now()),
    }
}

#[test]
fn mosquitto_clients_talk_over_tls() {
    if !mosquitto::is_there() {
        return;
    }
    let certificate = Certificate::make();
    let server = server(&certificate, "");
    let (ca, port) = (certificate.file("ca.pem"), server.mqtts().port().to_string());
    let ca = ca.to_str().unwrap();
    let (alice, bob) = (server.token("alice"), server.token("bob"));
    for (version, host) in [(Version::V311, "localhost"), (Version::V5, "127.0.0.1")] {
        for tls_version in ["tlsv1.2", "tlsv1.3"] {
            let over = ["-h", host, "-p", &port, "--cafile", ca, "--tls-version", tls_version];
            let mut inbox = Subscriber::start(&server, version, "bob", "phone", &bob, &over);
            let payload = format!(r#"{{"to":"bob","type":"text","text":{{"body":"{host} {tls_version}"}}}}"#);
            let status = mosquitto::publish_with(&server, version, "alice", "phone", &alice, 1, &payload, &over);
            assert!(status.success(), "{status}");
            assert_text(&inbox.entry(), "alice", &format!("{host} {tls_version}"));
        }
    }
    // One that trusts another authority goes away, and one that does not speak TLS gets nowhere.
    let other = Certificate::make().file("ca.pem");
    let over = ["-h", "localhost", "-p", &port, "--cafile", other.to_str().unwrap()];
    assert!(!mosquitto::publish_with(&server, Version::V5, "alice", "phone", &alice, 1, MESSAGE, &over).success());
    let over = ["-h", "localhost", "-p", &port];
    assert!(!mosquitto::publish_with(&server, Version::V5, "alice", "phone", &alice, 1, MESSAGE, &over).success());
}

#[test]
fn what_natter_cert_prints_works_as_it_stands() {
    if !mosquitto::is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cert = || natter().args(["cert", "--host", "localhost", "--out", "tls"]).current_dir(&dir).output().unwrap();
    let output = cert();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let server =
        TestServer::start_with(&text.replace("0.0.0.0:8883", "127.0.0.1:0").replace("0.0.0.0:8443", "127.0.0.1:0"));
    ["alice", "bob"].iter().for_each(|name| server.add_user(name));

    let mut bob = Device::v5(&server, "bob", "phone");
    let lines =
        text.lines().filter_map(|line| line.strip_prefix("# ")).skip_while(|line| !line.starts_with("mosquitto_pub"));
    let command = lines.collect::<Vec<_>>().join("\n").replace("-p 8883", &format!("-p {}", server.mqtts().port()));
    // The `natter` that it calls is ours.
    std::os::unix::fs::symlink(natter().get_program(), dir.path().join("natter")).unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let status =
        Command::new("sh").args(["-euc", &command]).env("PATH", path).env("NATTER__DATA__DIR", server.data()).status();
    assert!(status.unwrap().success(), "{command}");
    assert_text(&bob.entry(), "alice", "hi");

    // Once more, and it is refused.
    let output = cert();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && stderr.contains("ca.pem") && stderr.contains("--out"), "{stderr}");
}

#[test]
fn alpn_is_mqtt_or_http_1_1_or_nothing() {
    let certificate = Certificate::make();
    let server = server(&certificate, "");
    let ca = certificate.file("ca.pem");
    for (address, name) in [(server.mqtts(), "mqtt"), (server.https(), "http/1.1")] {
        let chosen = |alpn: &[&str]| tls::connect(address, &ca, alpn).conn.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(chosen(&["h2", name]), Some(name.as_bytes().to_vec()));
        assert_eq!(chosen(&[]), None);
        assert!(tls::handshake(dial(address), tls::client_config(&ca, &["h2"]), "localhost").is_err());
    }
}

#[test]
fn http_and_websockets_go_over_tls_too() {
    let certificate = Certificate::make();
    let server = server(&certificate, "");
    let ca = certificate.file("ca.pem");
    let mut page = tls::connect(server.https(), &ca, &["http/1.1"]);
    page.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    page.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("Natter"), "{answer}");

    let connect = Connect::v5("bob", "bob-phone", &server.token("bob"));
    let stream = tls::connect(server.https(), &ca, &["http/1.1"]);
    let raw = connect.open_over(WebSocket::open_over(stream, &[SUBPROTOCOL]).unwrap());
    let mut bob = Device::over(raw, connect, "phone");
    Device::v5(&server, "alice", "phone").send("bob", "m1", "hi");
    assert_text(&bob.entry(), "alice", "hi");
}

#[test]
fn s01_plain_mqtt_at_the_tls_port_is_closed_without_a_word() {
    let certificate = Certificate::make();
    let server = server(&certificate, "");
    for address in [server.mqtts(), server.https()] {
        let began = Instant::now();
        let mut stream = dial(address);
        stream.write_all(&Connect::v5("alice", "alice-phone", &server.token("alice")).encode()).unwrap();
        let (answer, ended) = read_to_end(stream);
        assert_eq!(answer, b"");
        assert!(ended - began < Duration::from_secs(5));
    }
    let mut scrape = dial(server.admin());
    scrape.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let metrics = std::io::read_to_string(scrape).unwrap();
    assert!(metrics.contains("\nnatter_door_tls_failed_total 1\n"), "{metrics}");
}

/// A ClientHello of that version with these cipher suites.
fn client_hello(version: [u8; 2], suites: &[u16]) -> Vec<u8> {
    let mut body = version.to_vec();
    body.extend_from_slice(&[7; 32]);
    body.push(0);
    body.extend_from_slice(&u16::try_from(2 * suites.len()).unwrap().to_be_bytes());
    suites.iter().for_each(|suite| body.extend_from_slice(&suite.to_be_bytes()));
    body.extend_from_slice(&[1, 0]);
    // supported_groups, ec_point_formats, signature_algorithms
    let extensions =
        [&[0, 10, 0, 4, 0, 2, 0, 23][..], &[0, 11, 0, 2, 1, 0], &[0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1]].concat();
    body.extend_from_slice(&u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&extensions);
    let length = u16::try_from(body.len()).unwrap();
    let mut hello = vec![0x16, 3, 1];
    hello.extend_from_slice(&(length + 4).to_be_bytes());
    hello.extend_from_slice(&[1, 0]);
    hello.extend_from_slice(&length.to_be_bytes());
    hello.extend_from_slice(&body);
    hello
}

#[test]
fn s02_old_versions_and_weak_ciphers_get_an_alert() {
    const ECDHE_ECDSA_AES128_GCM: u16 = 0xc02b;
    const ECDHE_ECDSA_AES128_CBC: u16 = 0xc009;
    const RC4_3DES_EXPORT: [u16; 3] = [0x0005, 0x000a, 0x0003];
    let certificate = Certificate::make();
    let server = server(&certificate, "");
    for (version, suites, alert) in [
        ([3, 2], &[ECDHE_ECDSA_AES128_CBC][..], Some(70)),
        ([3, 1], &[ECDHE_ECDSA_AES128_CBC], Some(70)),
        ([3, 3], &RC4_3DES_EXPORT, Some(40)),
        // The same hello, with nothing wrong in it.
        ([3, 3], &[ECDHE_ECDSA_AES128_GCM], None),
    ] {
        let mut stream = dial(server.mqtts());
        stream.write_all(&client_hello(version, suites)).unwrap();
        let Some(alert) = alert else {
            let mut first = [0];
            stream.set_read_timeout(Some(patience())).unwrap();
            stream.read_exact(&mut first).unwrap();
            assert_eq!(first, [0x16], "a ServerHello");
            continue;
        };
        let (answer, _) = read_to_end(stream);
        assert_eq!((answer.first(), &answer[answer.len() - 2..]), (Some(&0x15), &[2, alert][..]), "{answer:?}");
    }
}

/// Writes a byte every while, until the server closes; when that is.
fn trickle(mut stream: TcpStream, bytes: Vec<u8>) -> Instant {
    let mut bytes = bytes.into_iter();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    loop {
        if let Some(byte) = bytes.next() {
            // A connection that is closed is noticed below.
            let _ = stream.write_all(&[byte]);
        }
        match stream.read(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return Instant::now(),
            Ok(_) => panic!("an answer to a hello that is not finished"),
        }
    }
}

#[test]
fn s03_silent_and_slow_peers_are_cut_at_the_deadline_while_others_are_served() {
    const SILENT: usize = 200;
    const SLOW: usize = 20;
    let certificate = Certificate::make();
    // Fewer turns than there are peers that do not finish.
    let server = server(&certificate, "handshake_timeout_s = 3\nhandshakes_max = 4\n");
    let addresses = [server.mqtts(), server.https()];
    let began = Instant::now();
    let silent: Vec<TcpStream> = (0..SILENT).map(|at| dial(addresses[at % 2])).collect();
    let hello = client_hello([3, 3], &[0xc02b]);
    let slow: Vec<_> = (0..SLOW)
        .map(|at| {
            let (stream, hello) = (dial(addresses[at % 2]), hello.clone());
            thread::spawn(move || trickle(stream, hello))
        })
        .collect();

    let ca = certificate.file("ca.pem");
    let connect = Connect::v5("bob", "bob-phone", &server.token("bob"));
    let mut bob = Device::over(connect.open_over(tls::connect(server.mqtts(), &ca, &["mqtt"])), connect, "phone");
    let connect = Connect::v3("alice", "alice-phone", &server.token("alice"));
    let mut alice = Device::over(connect.open_over(tls::connect(server.mqtts(), &ca, &[])), connect, "phone");
    alice.send("bob", "m1", "hi");
    assert_text(&bob.entry(), "alice", "hi");
    assert!(began.elapsed() < Duration::from_secs(3), "served before the others were cut");

    for stream in silent {
        let (answer, ended) = read_to_end(stream);
        assert_eq!(answer, b"");
        let took = ended - began;
        assert!((2..8).contains(&took.as_secs()), "{took:?}");
    }
    for stream in slow {
        let took = stream.join().unwrap() - began;
        assert!((2..8).contains(&took.as_secs()), "{took:?}");
    }
    bob.raw.ping();
}

#[test]
fn s04_a_tls_session_without_connect_is_cut() {
    let certificate = Certificate::make();
    let server = server(&certificate, "[door]\nconnect_timeout_s = 2\n[http]\nheader_timeout_s = 2\n");
    for address in [server.mqtts(), server.https()] {
        let mut session = tls::connect(address, &certificate.file("ca.pem"), &[]);
        let began = Instant::now();
        let _closed = session.read_to_end(&mut Vec::new());
        let took = began.elapsed();
        assert!((1..7).contains(&took.as_secs()), "{took:?}");
    }
}

#[test]
fn sighup_shows_new_clients_the_new_certificate_and_keeps_the_old_ones() {
    let (first, second) = (Certificate::make(), Certificate::make());
    let old_ca = tempfile::tempdir().unwrap();
    let old_ca = old_ca.path().join("ca.pem");
    fs::copy(first.file("ca.pem"), &old_ca).unwrap();
    let server = server(&first, "");
    let connect = Connect::v5("bob", "bob-phone", &server.token("bob"));
    let mut bob = Device::over(connect.open_over(tls::connect(server.mqtts(), &old_ca, &[])), connect, "phone");
    let shows = |address: SocketAddr, ca: &Certificate| {
        let config = tls::client_config(&ca.file("ca.pem"), &[]);
        tls::handshake(dial(address), config, "localhost").is_ok()
    };

    second.replace(&first);
    server.hang_up();
    let deadline = Instant::now() + patience();
    while !shows(server.mqtts(), &second) {
        assert!(Instant::now() < deadline, "the certificate is not read again");
    }
    assert!(shows(server.https(), &second));
    assert!(!shows(server.mqtts(), &first) && !shows(server.https(), &first));
    bob.raw.ping();

    // A certificate without its key, a file that is none, a key for everybody: the one before stays.
    let third = Certificate::make();
    let key = first.file("server.key");
    let breakages: [(&str, &dyn Fn()); 3] = [
        ("KeyMismatch", &|| assert!(fs::copy(third.file("server.key"), &key).is_ok())),
        ("expected a private key (PEM)", &|| fs::write(&key, "nothing").unwrap()),
        ("chmod 600", &|| fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap()),
    ];
    for (words, break_it) in breakages {
        break_it();
        server.hang_up();
        let line = server.wait_for_log("the certificate stays the one before");
        assert!(line.contains(words) && line.contains("server.key"), "{words:?} is not in {line}");
        assert!(shows(server.mqtts(), &second) && shows(server.https(), &second));
    }
    Device::v5(&server, "alice", "phone").send("bob", "m1", "hi");
    assert_text(&bob.entry(), "alice", "hi");
}

#[test]
fn a_certificate_that_cannot_be_used_is_named_before_anything_listens() {
    let certificate = Certificate::make();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("natter.toml");
    fs::write(&config, certificate.config()).unwrap();
    let check = || {
        let output = natter().args(["config", "check", "--config"]).arg(&config).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check(), (true, String::new()));

    let (pem, key) = (certificate.file("server.pem"), certificate.file("server.key"));
    let good = (fs::read(&pem).unwrap(), fs::read(&key).unwrap());
    let refused = |words: &[&str]| {
        let (success, stderr) = check();
        assert!(!success);
        words.iter().for_each(|word| assert!(stderr.contains(word), "{word:?} is not in {stderr}"));
        fs::write(&pem, &good.0).unwrap();
        fs::write(&key, &good.1).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    };
    for mode in [0o604, 0o666] {
        fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        refused(&["tls.key", key.to_str().unwrap(), "0600", &format!("{mode:04o}"), "chmod"]);
    }
    fs::copy(&key, &pem).unwrap();
    refused(&["tls.certificate", pem.to_str().unwrap(), "expected a certificate chain (PEM)"]);
    fs::copy(&pem, &key).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    refused(&["tls.key", key.to_str().unwrap(), "expected a private key (PEM)"]);
    fs::copy(Certificate::make().file("server.key"), &key).unwrap();
    refused(&["tls.key", "KeyMismatch"]);
    fs::remove_file(&pem).unwrap();
    refused(&["tls.certificate", pem.to_str().unwrap(), "No such file"]);
    assert_eq!(check(), (true, String::new()));
}
