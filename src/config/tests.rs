//! What the configuration takes and what it refuses.

use std::collections::BTreeSet;

use natter_protocol::UserId;

use super::*;

fn load(file: Option<&str>, environment: &[(&str, &str)], flags: &Flags) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("natter.toml");
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
    }
    let source = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let environment = Environment::default().source(Some(source));
    Config::load_from(file.map(|_| path.as_path()), environment, flags).map_err(|error| error.to_string())
}

fn refused(file: Option<&str>, environment: &[(&str, &str)], words: &[&str]) {
    let error = load(file, environment, &Flags::default()).unwrap_err();
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
}

#[test]
fn the_shipped_file_is_the_default() {
    let config = load(None, &[], &Flags::default()).unwrap();
    let Config { door, bridge, media, .. } = config.clone();
    let expected = Config {
        accounts: Accounts {
            registration: Registration::Closed,
            registration_in_public: false,
            registrations_per_min: 10,
            token_ttl_s: 7 * 86_400,
            login_failures_per_min: 60,
            renewals_per_min: 30,
            hashes_at_a_time: 2,
        },
        webhooks: Webhooks { private_addresses: false, posts_at_a_time: 64, timeout_s: 10 },
        people: People { contacts_max: 10_000, blocks_max: 1000, statuses_max: 100 },
        door,
        bridge,
        media,
        data: Data { dir: "natter-data".into() },
        listen: Listen {
            mqtt: "127.0.0.1:1883".parse().unwrap(),
            http: "127.0.0.1:8080".parse().unwrap(),
            admin: "127.0.0.1:8081".parse().unwrap(),
            mqtts: None,
            https: None,
        },
        tls: Tls { certificate: None, key: None, handshake_timeout_s: 5, handshakes_max: 1024 },
        http: Http { allowed_origins: Vec::new(), connections_max: 4096, header_timeout_s: 30, write_timeout_s: 20 },
        auth: Auth { public_key_file: None, algorithm: KeyAlgorithm::EdDSA, jwks_file: None, issuer: None },
        mqtt: Mqtt { anonymous_as: String::new() },
        shutdown: Shutdown { drain_timeout_s: 10 },
        log: Log { level: "info,rumqttd=off".into() },
    };
    assert_eq!(config, expected);
    assert_eq!(load(Some(DEFAULTS), &[], &Flags::default()).unwrap(), expected);
}

#[test]
fn the_shipped_file_says_what_door_and_bridge_have_as_defaults() {
    let config = load(None, &[], &Flags::default()).unwrap();
    let drain_time_max = config.drain_timeout();
    let door = natter_broker::Config { drain_time_max, ..natter_broker::Config::default() };
    assert_eq!(format!("{:?}", config.door()), format!("{door:?}"));
    assert_eq!(config.bridge(PathBuf::new()).limits, natter_bridge::Limits::default());
    let local = natter_bridge::media::StoreConfig::Local("data/media".into());
    let media = natter_bridge::media::Config::new(local, "data/media-notes".into());
    assert_eq!(format!("{:?}", config.media.for_bridge(Path::new("data"))), format!("{media:?}"));
}

#[test]
fn the_shipped_file_names_every_key_and_no_other() {
    let mut section = String::new();
    let mut named = BTreeSet::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ")
            && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            named.insert(format!("{section}.{key}"));
        }
    }
    let config = load(None, &[], &Flags::default()).unwrap();
    let mut known = BTreeSet::new();
    for (section, keys) in serde_json::to_value(config).unwrap().as_object().unwrap() {
        for key in keys.as_object().unwrap().keys() {
            known.insert(format!("{section}.{key}"));
        }
    }
    assert_eq!(named, known);
}

#[test]
fn the_commented_keys_are_valid_too() {
    let text: Vec<&str> = DEFAULTS
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => rest,
            _ => line,
        })
        .collect();
    let config = load(Some(&text.join("\n")), &[], &Flags::default()).unwrap();
    assert_eq!(config.auth.public_key_file, Some("issuer.pem".into()));
    assert_eq!(config.auth.jwks_file, Some("issuer.jwks.json".into()));
    assert_eq!(config.listen.mqtts, Some("0.0.0.0:8883".parse().unwrap()));
    assert_eq!(config.tls.key, Some("server.key".into()));
}

#[test]
fn origins_come_as_a_list_or_as_a_text() {
    let origins =
        |file, environment: &[(&str, &str)]| load(file, environment, &Flags::default()).unwrap().http.allowed_origins;
    let both = ["https://a.example", "http://b.example:3000"];
    let file = "[http]\nallowed_origins = [\"https://a.example\", \"http://b.example:3000\"]\n";
    assert_eq!(origins(Some(file), &[]), both);
    let environment = [("NATTER__HTTP__ALLOWED_ORIGINS", "https://a.example, http://b.example:3000")];
    assert_eq!(origins(None, &environment), both);
    for wrong in ["a.example", "https://", "https://a.example/", "*", "https://a b"] {
        let environment = [("NATTER__HTTP__ALLOWED_ORIGINS", wrong)];
        refused(None, &environment, &["http.allowed_origins", "https://chat.example.com", wrong]);
    }
}

#[test]
fn an_s3_store_needs_keys_and_they_are_shown_to_nobody() {
    let s3 = "[media]\nstore = \"s3://bucket/files\"\n";
    refused(Some(s3), &[], &["media.s3_access_key"]);
    let with_key = format!("{s3}s3_access_key = \"who\"\n");
    refused(Some(&with_key), &[], &["media.s3_secret_key", "NATTER__MEDIA__S3_SECRET_KEY"]);
    let environment = [("NATTER__MEDIA__S3_SECRET_KEY", "not-for-you")];
    let config = load(Some(&with_key), &environment, &Flags::default()).unwrap();
    assert!(!format!("{config:?}").contains("not-for-you") && !config.to_toml().unwrap().contains("not-for-you"));
    assert!(format!("{:?}", config.media.for_bridge(Path::new("d"))).contains("s3://bucket/files"));
    for wrong in ["s3://", "s3://ab", "s3://bucket/../x", "file:///x", "s3://Bucket"] {
        refused(Some(&format!("[media]\nstore = \"{wrong}\"\n")), &[], &["media.store", "s3://BUCKET/PREFIX", wrong]);
    }
    refused(Some("[media]\nredirect = true\n"), &[], &["media.redirect", "media.store"]);
    refused(Some("[media]\ns3_endpoint = \"localhost\"\n"), &[], &["media.s3_endpoint", "https://host:port"]);
    refused(Some("[media]\nuploads_max = 0\n"), &[], &["media.uploads_max", "1 to 10000"]);
}

#[test]
fn a_tls_listener_needs_a_certificate_and_a_key() {
    refused(Some("[listen]\nmqtts = \"[::]:8883\"\n"), &[], &["tls.certificate", "natter cert", "listen.mqtts"]);
    refused(Some("[listen]\nhttps = \"[::]:8443\"\n"), &[], &["tls.certificate", "listen.https"]);
    refused(Some("[tls]\ncertificate = \"a.pem\"\n"), &[], &["tls.key", "tls.certificate is set"]);
    refused(Some("[tls]\nkey = \"a.key\"\n"), &[], &["tls.certificate", "tls.key is set"]);
    refused(Some("[listen]\nmqtts = \"example.com\"\n"), &[], &["listen.mqtts", "IP:PORT", "example.com"]);
}

#[test]
fn whoever_shows_nothing_is_somebody_on_loopback_only() {
    let anonymous = |listen: &str| format!("[mqtt]\nanonymous_as = \"demo\"\n[listen]\n{listen}\n");
    let flags = Flags::default();
    for listen in ["", "mqtt = \"[::1]:1883\"", "admin = \"0.0.0.0:8081\"", "http = \"127.1.2.3:80\""] {
        let config = load(Some(&anonymous(listen)), &[], &flags).unwrap();
        assert_eq!(config.door().anonymous_as, UserId::parse("demo").ok(), "{listen}");
    }
    let tls = "[tls]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n";
    for name in ["mqtt", "http", "mqtts", "https"] {
        for address in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
            let file = anonymous(&format!("{name} = \"{address}\"")) + tls;
            refused(Some(&file), &[], &["mqtt.anonymous_as", "loopback", &format!("listen.{name} is {address}")]);
        }
    }
    refused(Some("[mqtt]\nanonymous_as = \"system\"\n"), &[], &["mqtt.anonymous_as", "user name", "system"]);
    // A flag that makes a listener public counts as well.
    let flags = Flags { mqtt: Some("0.0.0.0:1883".parse().unwrap()), ..Flags::default() };
    assert!(load(Some(&anonymous("")), &[], &flags).unwrap_err().contains("listen.mqtt is 0.0.0.0:1883"));
}

#[test]
fn registration_is_open_in_public_only_if_that_is_said() {
    let open = "[accounts]\nregistration = \"open\"\n";
    assert!(load(Some(open), &[], &Flags::default()).is_ok());
    let public = [("NATTER__LISTEN__HTTP", "0.0.0.0:8080")];
    refused(Some(open), &public, &["accounts.registration", "registration_in_public", "listen.http is 0.0.0.0:8080"]);
    let said = format!("{open}registration_in_public = true\n");
    assert!(load(Some(&said), &public, &Flags::default()).is_ok());
    refused(Some("[accounts]\nregistration = \"ajar\"\n"), &[], &["registration", "ajar"]);
    assert_eq!(load(None, &[], &Flags::default()).unwrap().accounts.registration, Registration::Closed);
}

#[test]
fn flags_stand_above_environment_above_file_above_defaults() {
    let file = "[listen]\nmqtt = \"127.0.0.1:1\"\nhttp = \"127.0.0.1:2\"\nadmin = \"127.0.0.1:3\"\n";
    let environment = [("NATTER__LISTEN__MQTT", "127.0.0.1:11"), ("NATTER__LISTEN__HTTP", "127.0.0.1:12")];
    let flags = Flags { mqtt: Some("127.0.0.1:21".parse().unwrap()), ..Flags::default() };
    let listen = load(Some(file), &environment, &flags).unwrap().listen;
    assert_eq!((listen.mqtt.port(), listen.http.port(), listen.admin.port()), (21, 12, 3));
}

#[test]
fn what_is_printed_loads_again() {
    let environment = [("NATTER__AUTH__JWKS_FILE", "a.json"), ("NATTER__SHUTDOWN__DRAIN_TIMEOUT_S", "7")];
    let config = load(None, &environment, &Flags::default()).unwrap();
    assert_eq!(load(Some(&config.to_toml().unwrap()), &[], &Flags::default()).unwrap(), config);
}

#[test]
fn an_unknown_key_is_named() {
    refused(Some("[listen]\nmqqt = \"127.0.0.1:1\"\n"), &[], &["mqqt", "mqtt", "listen"]);
    refused(Some("[lisden]\nmqtt = \"127.0.0.1:1\"\n"), &[], &["lisden"]);
    refused(None, &[("NATTER__LISTEN__MQQT", "127.0.0.1:1")], &["mqqt", "listen"]);
    refused(None, &[("NATTER__LISDEN__MQTT", "127.0.0.1:1")], &["lisden"]);
}

#[test]
fn a_wrong_value_says_key_expected_and_got() {
    refused(Some("[listen]\nmqtt = \"localhost\"\n"), &[], &["listen.mqtt", "expected IP:PORT", "localhost"]);
    refused(Some("[shutdown]\ndrain_timeout_s = \"soon\"\n"), &[], &["shutdown.drain_timeout_s", "expected", "soon"]);
    refused(None, &[("NATTER__SHUTDOWN__DRAIN_TIMEOUT_S", "soon")], &["shutdown.drain_timeout_s", "expected", "soon"]);
    refused(None, &[("NATTER__SHUTDOWN__DRAIN_TIMEOUT_S", "0")], &["shutdown.drain_timeout_s", "1 to 600", "0"]);
    refused(Some("[auth]\nalgorithm = \"HS256\"\n"), &[], &["auth.algorithm", "EdDSA", "HS256"]);
    refused(Some("[log]\nlevel = \"natter=loud\"\n"), &[], &["log.level", "loud"]);
    refused(Some("listen = 5\n"), &[], &["listen", "expected", "5"]);
    refused(Some("[listen\n"), &[], &["natter.toml"]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Some(Path::new("/nowhere/natter.toml")), &Flags::default()).unwrap_err().to_string();
    assert!(error.contains("/nowhere/natter.toml"), "{error}");
}
