//! One contract for every object store: local disk, and a real S3 server over a way that is good, slow, down or broken.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its world does not hold")]
#![expect(clippy::print_stderr, reason = "it says which case runs")]

#[path = "../../tests/s3/weed.rs"]
mod weed;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use natter_bridge::media::kind::Declared;
use natter_bridge::media::objects::Objects;
use natter_bridge::media::row::MediaFile;
use natter_bridge::media::sweep::Swept;
use natter_bridge::media::{Config, Error, Media, S3Config, StoreConfig, Upload};
use natter_bridge::{Bridge, Limits, MediaLimits, Running};
use natter_protocol::error::Kind;
use natter_protocol::link::{Bell, LinkDown, LinkReceiver, LinkSender};
use natter_protocol::{MediaId, UserId};
use object_store::aws::AmazonS3Builder;
use object_store::signer::{SignedUrlOptions, Signer as _};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use weed::{ACCESS_KEY, BUCKET, Mode, Proxy, SECRET_KEY, Weed};

const MIB: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

struct NoDoor {
    bell_tx: mpsc::Sender<()>,
    bell_rx: mpsc::Receiver<()>,
}

impl LinkSender for NoDoor {
    fn send(&mut self, frames: &mut Vec<(Option<UserId>, Bytes)>) -> Result<(), LinkDown> {
        frames.clear();
        Ok(())
    }
}

impl LinkReceiver for NoDoor {
    fn receive(&mut self, deadline: Instant) -> Result<Option<(Option<UserId>, Bytes)>, LinkDown> {
        let _ = self.bell_rx.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        Ok(None)
    }

    fn bell(&self) -> Bell {
        let bell_tx = self.bell_tx.clone();
        Arc::new(move || {
            let _ = bell_tx.send(());
        })
    }
}

fn no_door() -> Box<NoDoor> {
    let (bell_tx, bell_rx) = mpsc::channel();
    Box::new(NoDoor { bell_tx, bell_rx })
}

/// A bridge with media, over a data directory of its own.
struct World {
    media: Media,
    config: Config,
    running: Option<Running>,
    dir: TempDir,
    s3: Option<S3Config>,
}

impl World {
    async fn new(store: impl Fn(&Path) -> StoreConfig, limits: MediaLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let s3 = if let StoreConfig::S3(config) = &store { Some(config.clone()) } else { None };
        let config = Config {
            orphan_age: Duration::from_secs(1),
            redirect: true,
            uploads_per_user_max: 3,
            ..Config::new(store, dir.path().join("notes"))
        };
        let limits = Limits { media: limits, ..Limits::default() };
        let path = dir.path().join("natter.db");
        let bridge = natter_bridge::Config { path, limits: limits.clone() };
        let running = Bridge::open(bridge).unwrap().start(no_door(), no_door()).unwrap();
        let media = Media::open(running.handle.clone(), config.clone(), limits.media).unwrap();
        for name in ["alice", "bob"] {
            running.handle.add_user(user(name)).await.unwrap();
        }
        Self { media, config, running: Some(running), dir, s3 }
    }

    fn objects(&self) -> Objects {
        Objects::open(&self.config.store, &self.config.notes).unwrap()
    }

    /// A second `Media` over the same store and rows, as after a start: it knows of no upload that ran before.
    fn another(&self) -> Media {
        let limits = MediaLimits::default();
        Media::open(self.running.as_ref().unwrap().handle.clone(), self.config.clone(), limits).unwrap()
    }

    async fn begin(&self, kind: &str) -> (Upload, Declared) {
        let declared = Declared::parse("type", kind).unwrap();
        let mut upload = self.media.begin(&user("alice"), None).await.unwrap();
        upload.limit_to(&declared);
        (upload, declared)
    }

    async fn upload(&self, kind: &str, bytes: &[u8]) -> Result<MediaFile, Error> {
        let declared = Declared::parse("type", kind).unwrap();
        let mut upload = self.media.begin(&user("alice"), None).await?;
        upload.limit_to(&declared);
        for piece in bytes.chunks(100_000) {
            upload.write(piece).await?;
        }
        upload.finish(&declared, Some("a.bin")).await
    }

    async fn read(&self, file: &MediaFile, range: std::ops::Range<u64>) -> Result<Vec<u8>, Error> {
        let pieces: Vec<Bytes> = self.media.read(file, range).try_collect().await?;
        Ok(pieces.concat())
    }

    async fn ids(&self) -> Vec<MediaId> {
        self.objects().list().map(|listed| listed.unwrap().id).collect().await
    }

    /// What lies in the store that is no whole object: staged files, parts, notes.
    async fn leftovers(&self) -> Vec<String> {
        let mut left: Vec<String> = files(&self.config.notes).iter().map(|path| path.display().to_string()).collect();
        left.retain(|path| !path.ends_with("/owner"));
        match &self.s3 {
            None => left.extend(
                files(&self.dir.path().join("media"))
                    .iter()
                    .map(|path| path.display().to_string())
                    .filter(|path| path.contains('#')),
            ),
            Some(config) => left.extend(uploads_of(config).await),
        }
        left
    }

    /// Waits until nothing lies there any more: what is dropped is taken away in the background.
    async fn is_empty_soon(&self, but: &[MediaId]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (mut ids, left) = (self.ids().await, self.leftovers().await);
            ids.retain(|id| !but.contains(id));
            if ids.is_empty() && left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "objects {ids:?}, and {left:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sweeps until it has taken away what `enough` says.
    async fn swept(&self, media: &Media, enough: impl Fn(Swept) -> bool) -> Swept {
        let deadline = Instant::now() + PATIENCE;
        let mut sum = Swept::default();
        loop {
            let swept = media.sweep().await.unwrap();
            sum.unfinished += swept.unfinished;
            sum.expired += swept.expired;
            sum.orphans += swept.orphans;
            if enough(sum) {
                return sum;
            }
            assert!(Instant::now() < deadline, "{sum:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn stop(mut self) {
        self.running.take().unwrap().stop().await.unwrap();
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found
}

/// ListMultipartUploads, which `object_store` has no word for.
async fn uploads_of(config: &S3Config) -> Vec<String> {
    let endpoint = config.endpoint.clone().unwrap();
    let s3 = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_region(&config.region)
        .with_endpoint(&endpoint)
        .with_access_key_id(&config.access_key)
        .with_secret_access_key(&config.secret_key)
        .with_allow_http(true)
        .build()
        .unwrap();
    let options = SignedUrlOptions::new().with_query([("uploads", ""), ("prefix", config.prefix.as_str())]);
    let root = object_store::path::Path::default();
    let url = s3.signed_url_opts(axum::http::Method::GET, &root, Duration::from_secs(60), &options).await.unwrap();
    let (status, _, body) = get(url.as_str());
    assert!(status == 200, "{status}: {}", String::from_utf8_lossy(&body));
    let body = String::from_utf8(body).unwrap();
    body.split("<UploadId>").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
}

/// GET over plain HTTP: status, head, body.
fn get(url: &str) -> (u16, String, Vec<u8>) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    stream.write_all(format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let at = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..at]).to_ascii_lowercase();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head, answer.split_off(at + 4))
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

/// Bytes that no piece of is like another.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(count + 8);
    out.extend_from_slice(b"\x01");
    while out.len() < count {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        out.extend_from_slice(&state.to_be_bytes());
    }
    out.truncate(count);
    out
}

fn refused(result: Result<MediaFile, Error>) -> Option<Kind> {
    match result {
        Err(Error::Refused(refusal)) => Some(refusal.kind),
        other => panic!("{other:?}"),
    }
}

async fn a_file_comes_back_as_it_went(world: &World) {
    for size in [1, 100_000, 256 << 10, 5 * MIB, 5 * MIB + 1, 11 * MIB] {
        let bytes = noise(size);
        let file = world.upload("document", &bytes).await.unwrap();
        assert_eq!((file.size, file.mime.as_str()), (size as u64, "application/octet-stream"));
        assert_eq!(file.sha256[..], Sha256::digest(&bytes)[..]);
        assert_eq!(world.media.readable(&user("alice"), &file.id).await.unwrap(), Some(file.clone()));
        assert_eq!(world.media.readable(&user("bob"), &file.id).await.unwrap(), None);
        assert!(world.read(&file, 0..file.size).await.unwrap() == bytes, "{size} bytes");
        let (from, to) = (size / 3, size - size / 4);
        assert!(world.read(&file, from as u64..to as u64).await.unwrap() == bytes[from..to], "a part of {size}");
        assert!(world.read(&file, 0..file.size + 1).await.is_err(), "beyond its end");
        assert!(world.media.delete(&user("alice"), &file.id).await.unwrap());
        assert!(world.read(&file, 0..1).await.is_err());
    }
    world.is_empty_soon(&[]).await;
}

async fn what_is_not_accepted_leaves_nothing(world: &World) {
    assert_eq!(refused(world.upload("image", &noise(16 * MIB + 1)).await), Some(Kind::TooLarge));
    assert_eq!(refused(world.upload("document", &[]).await), Some(Kind::InvalidValue));
    assert_eq!(refused(world.upload("image", b"<!DOCTYPE html><html>").await), Some(Kind::InvalidValue));
    // The kind may be said behind the file.
    let (mut upload, _) = world.begin("document").await;
    upload.write(&noise(16 * MIB + 1)).await.unwrap();
    let said = Declared::parse("type", "video").unwrap();
    assert_eq!(refused(upload.finish(&said, None).await), Some(Kind::TooLarge));
    let (mut upload, _) = world.begin("document").await;
    upload.write(&noise(12 * MIB)).await.unwrap();
    drop(upload);
    world.is_empty_soon(&[]).await;
}

async fn s71_a_quota_is_kept_whatever_runs_at_the_same_time(world: &World) {
    // Each fits alone; the limit is 40 MiB and counts when the row comes.
    let (mut first, declared) = world.begin("document").await;
    let (mut second, _) = world.begin("document").await;
    let (third, _) = world.begin("document").await;
    assert!(matches!(world.media.begin(&user("alice"), None).await, Err(Error::Refused(_))), "three at a time");
    assert!(world.media.begin(&user("bob"), None).await.is_ok(), "of one user");
    drop(third);
    let bytes = noise(21 * MIB);
    first.write(&bytes).await.unwrap();
    second.write(&bytes).await.unwrap();
    let kept = first.finish(&declared, None).await.unwrap();
    assert_eq!(refused(second.finish(&declared, None).await), Some(Kind::Quota));
    let size = Some(20 * MIB as u64);
    assert!(matches!(world.media.begin(&user("alice"), size).await, Err(Error::Refused(_))), "known before it begins");
    world.is_empty_soon(std::slice::from_ref(&kept.id)).await;
    assert!(world.media.delete(&user("alice"), &kept.id).await.unwrap());
}

async fn a_sweep_takes_what_a_killed_server_left_and_nothing_else(world: &World) {
    let kept = world.upload("document", &noise(100)).await.unwrap();
    // Killed before the row came.
    let orphan = MediaId::parse("1234567890123456789").unwrap();
    let mut writer = world.objects().write(&orphan).await.unwrap();
    writer.write(&noise(1000)).await.unwrap();
    writer.finish().await.unwrap();
    // Killed in the middle: nothing of this process cleans up.
    let unfinished = MediaId::parse("1234567890123456790").unwrap();
    let mut writer = world.objects().write(&unfinished).await.unwrap();
    writer.write(&noise(6 * MIB)).await.unwrap();
    std::mem::forget(writer);
    assert!(!world.leftovers().await.is_empty(), "or there is nothing to sweep");
    // One that runs, in the process that sweeps.
    let media = world.another();
    let mut running = media.begin(&user("alice"), None).await.unwrap();
    let bytes = noise(7 * MIB);
    running.write(&bytes[..6 * MIB]).await.unwrap();
    let swept = world.swept(&media, |swept| swept.orphans == 1 && swept.unfinished == 1).await;
    assert_eq!(swept, Swept { unfinished: 1, expired: 0, orphans: 1 });
    running.write(&bytes[6 * MIB..]).await.unwrap();
    let finished = running.finish(&Declared::default(), None).await.unwrap();
    assert!(world.read(&finished, 0..finished.size).await.unwrap() == bytes);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(media.sweep().await.unwrap(), Swept::default(), "files with rows stay, however old");
    world.is_empty_soon(&[kept.id.clone(), finished.id.clone()]).await;
    for id in [kept.id, finished.id] {
        assert!(world.media.delete(&user("alice"), &id).await.unwrap());
    }
}

async fn a_store_that_is_another_servers_is_not_swept(world: &World) {
    world.media.sweep().await.unwrap();
    let stranger = Config { notes: world.dir.path().join("other-notes"), ..world.config.clone() };
    let handle = world.running.as_ref().unwrap().handle.clone();
    let stranger = Media::open(handle, stranger, MediaLimits::default()).unwrap();
    let error = stranger.sweep().await.unwrap_err().to_string();
    assert!(error.contains("belongs to another data directory") && error.contains("owner"), "{error}");
}

async fn an_s3_store_has_urls_of_its_own_and_a_local_one_has_none(world: &World) {
    let bytes = noise(1000);
    let file = world.upload("image/png", &bytes).await.unwrap();
    let url = world.media.redirect(&file).await.unwrap();
    assert_eq!(url.is_some(), world.s3.is_some());
    if let Some(url) = url {
        let (status, head, body) = get(&url);
        assert!(status == 200 && body == bytes, "{head}");
        assert!(head.contains("content-type: image/png"), "{head}");
        assert!(head.contains("content-disposition: attachment; filename=\"a.bin\""), "{head}");
        for broken in [url.replace("X-Amz-Signature=", "X-Amz-Signature=0"), url.replace("a.bin", "b.html")] {
            assert_eq!(get(&broken).0, 403, "{broken}");
        }
        let other = world.upload("image/png", &bytes).await.unwrap();
        assert_eq!(get(&url.replace(file.id.as_str(), other.id.as_str())).0, 403, "s66: of another file");
        assert!(world.media.delete(&user("alice"), &other.id).await.unwrap());
    }
    assert!(world.media.delete(&user("alice"), &file.id).await.unwrap());
    world.is_empty_soon(&[]).await;
}

async fn files_go_when_their_time_is_over(store: &dyn Fn(&Path) -> StoreConfig) {
    let world = World::new(store, MediaLimits { ttl_secs: 1, ..MediaLimits::default() }).await;
    let file = world.upload("document", &noise(6 * MIB)).await.unwrap();
    world.swept(&world.media, |swept| swept.expired == 1).await;
    assert_eq!(world.media.readable(&user("alice"), &file.id).await.unwrap(), None);
    world.is_empty_soon(&[]).await;
    world.stop().await;
}

macro_rules! cases {
    ($world:expr; $($case:ident),+ $(,)?) => { $( eprintln!("{}", stringify!($case)); $case($world).await; )+ };
}

async fn contract(store: &dyn Fn(&Path) -> StoreConfig) {
    let world = World::new(store, MediaLimits { bytes_max: 40 * MIB as u64, ..MediaLimits::default() }).await;
    cases!(&world;
        a_file_comes_back_as_it_went,
        what_is_not_accepted_leaves_nothing,
        s71_a_quota_is_kept_whatever_runs_at_the_same_time,
        a_sweep_takes_what_a_killed_server_left_and_nothing_else,
        a_store_that_is_another_servers_is_not_swept,
        an_s3_store_has_urls_of_its_own_and_a_local_one_has_none,
    );
    world.stop().await;
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn the_contract_holds_on_local_disk() {
    let store = |dir: &Path| StoreConfig::Local(dir.join("media"));
    run(async {
        contract(&store).await;
        files_go_when_their_time_is_over(&store).await;
    });
}

fn s3(at: std::net::SocketAddr, prefix: &str) -> S3Config {
    S3Config {
        bucket: BUCKET.into(),
        prefix: prefix.into(),
        endpoint: Some(format!("http://{at}")),
        public_endpoint: None,
        region: "us-east-1".into(),
        access_key: ACCESS_KEY.into(),
        secret_key: SECRET_KEY.into(),
        request_time_max: Duration::from_secs(2),
        retry_time_max: Duration::from_secs(3),
    }
}

#[test]
fn the_contract_holds_on_s3() {
    let Some(weed) = Weed::start() else { return };
    run(async {
        contract(&|_: &Path| StoreConfig::S3(s3(weed.address, "some/prefix"))).await;
        files_go_when_their_time_is_over(&|_: &Path| StoreConfig::S3(s3(weed.address, "other"))).await;
    });
}

#[test]
fn an_s3_that_is_slow_down_or_broken_costs_an_upload_and_nothing_else() {
    let Some(weed) = Weed::start() else { return };
    let proxy = Proxy::to(weed.address);
    run(async {
        let store = |_: &Path| StoreConfig::S3(s3(proxy.address, "faults"));
        let world = World::new(store, MediaLimits::default()).await;
        let bytes = noise(12 * MIB);

        eprintln!("slow");
        proxy.set(Mode::Slow);
        let slow = world.upload("document", &bytes[..6 * MIB]).await;
        // Half of a part's time limit at this rate is its length: it may also be told to come back.
        if let Ok(file) = &slow {
            assert!(world.read(file, 0..file.size).await.unwrap() == bytes[..6 * MIB]);
        }
        let small = world.upload("document", &bytes[..100_000]).await.unwrap();
        assert!(world.read(&small, 0..small.size).await.unwrap() == bytes[..100_000]);

        for mode in [Mode::Down, Mode::Silent, Mode::Fails(u64::MAX)] {
            eprintln!("{mode:?}");
            proxy.set(Mode::Fast);
            let (mut upload, declared) = world.begin("document").await;
            upload.write(&bytes[..6 * MIB]).await.unwrap();
            proxy.set(mode);
            let begun = Instant::now();
            let rest = match upload.write(&bytes[6 * MIB..]).await {
                Ok(()) => upload.finish(&declared, None).await.map(|_| ()),
                Err(error) => Err(error),
            };
            assert!(matches!(rest, Err(Error::Store(_))), "{mode:?}: {rest:?}");
            let another = world.upload("document", &bytes[..100]).await;
            assert!(matches!(another, Err(Error::Store(_))), "{mode:?}: {another:?}");
            assert!(matches!(world.read(&small, 0..10).await, Err(Error::Store(_))), "{mode:?}");
            assert!(begun.elapsed() < Duration::from_secs(30), "nobody waits for ever");
            assert!(world.media.sweep().await.is_err(), "{mode:?}");
            proxy.set(Mode::Fast);
            assert!(world.read(&small, 0..small.size).await.unwrap() == bytes[..100_000], "it is back");
        }
        eprintln!("some failures");
        proxy.set(Mode::Fails(2));
        let file = world.upload("document", &bytes).await.unwrap();
        proxy.set(Mode::Fails(2));
        assert!(world.read(&file, 0..file.size).await.unwrap() == bytes);
        proxy.set(Mode::Fast);

        eprintln!("nothing is left");
        let deadline = Instant::now() + PATIENCE;
        let kept: Vec<MediaId> =
            [Some(small.id), slow.ok().map(|file| file.id), Some(file.id)].into_iter().flatten().collect();
        // An object may have been stored though its answer was lost.
        loop {
            world.media.sweep().await.unwrap();
            let mut ids = world.ids().await;
            ids.retain(|id| !kept.contains(id));
            let left = world.leftovers().await;
            if ids.is_empty() && left.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "{ids:?} {left:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for id in kept {
            assert!(world.media.delete(&user("alice"), &id).await.unwrap());
        }
        world.stop().await;
    });
}
