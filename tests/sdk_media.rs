//! Files through the SDK against the real server: up, down, resumed over cut connections and a killed server, checked, refused.

#![expect(clippy::expect_used, reason = "a test ends that way")]

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{TestServer, patience};
use natter_client::media::{Media, MediaError, MediaKind, MediaRef};
use natter_protocol::MediaId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Bytes that repeat nowhere: a piece in the wrong place changes the sum.
fn content(length: usize) -> Vec<u8> {
    (0_u64..).flat_map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).take(length).collect()
}

/// A way to the server that cuts connections: each after so many bytes of answers, `u64::MAX` for never; the last one counts on.
struct Cutter {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    server: Arc<Mutex<SocketAddr>>,
    /// All requests, as they came.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Cutter {
    async fn before(server: SocketAddr, down: Vec<u64>, up: Vec<u64>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (connections, server) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(server)));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let this = Self { address, connections: connections.clone(), server: server.clone(), heads: heads.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let limit = |limits: &[u64]| limits.get(number).or(limits.last()).copied().unwrap_or(u64::MAX);
                let (down, up) = (limit(&down), limit(&up));
                let (to, heads) = (*server.lock().expect("a lock"), heads.clone());
                tokio::spawn(async move {
                    let Ok(upstream) = TcpStream::connect(to).await else { return };
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = upstream.into_split();
                    let uploads = async {
                        pump(&mut from_client, &mut to_server, up, Some(&heads)).await;
                    };
                    let downloads = pump(&mut from_server, &mut to_client, down, None);
                    // Whichever ends first takes the other with it: a cut.
                    tokio::select! { () = uploads => {}, () = downloads => {} }
                });
            }
        });
        this
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn requests(&self, words: &str) -> usize {
        self.heads.lock().expect("a lock").iter().filter(|head| head.contains(words)).count()
    }
}

async fn pump(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    limit: u64,
    heads: Option<&Mutex<Vec<String>>>,
) {
    let (mut buffer, mut passed, mut first) = (vec![0; 16 << 10], 0, true);
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        if std::mem::take(&mut first)
            && let Some(heads) = heads
        {
            let head = String::from_utf8_lossy(&buffer[..count]).to_lowercase();
            heads.lock().expect("a lock").push(head.split("\r\n\r\n").next().unwrap_or_default().to_owned());
        }
        let count = count.min(usize::try_from(limit - passed).unwrap_or(usize::MAX));
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        passed += count as u64;
        if passed >= limit {
            return;
        }
    }
}

fn media(server: &TestServer, user: &str) -> Media {
    Media::new(&format!("http://{}", server.http()), server.token(user)).expect("a URL")
}

/// Ends a test that hangs.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(patience() * 3, work).await.expect("it ends")
}

#[tokio::test]
async fn a_file_goes_up_and_comes_down_the_same_with_progress_and_is_found_by_name() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let (hers, his) = (media(&server, "alice"), media(&server, "bob"));
    let dir = tempfile::tempdir().expect("a directory");
    let (source, target) = (dir.path().join("plän 1.txt"), dir.path().join("copy.txt"));
    let bytes = content(3 << 20);
    std::fs::write(&source, &bytes).expect("a file");

    let (seen, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let (calls, newest) = (seen.clone(), last.clone());
    let upload = hers.upload(&source).on_progress(move |progress| {
        calls.fetch_add(1, Ordering::SeqCst);
        assert!(newest.swap(progress.done, Ordering::SeqCst) <= progress.done && progress.total == Some(3 << 20));
    });
    let file = soon(upload.into_future()).await.expect("an upload");
    assert_eq!((file.kind, file.file_size), (Some(MediaKind::Document), Some(3 << 20)));
    assert!(seen.load(Ordering::SeqCst) > 10 && last.load(Ordering::SeqCst) == 3 << 20);

    let found = soon(hers.find("plän 1.txt")).await.expect("a search");
    assert_eq!(found.iter().map(|file| &file.id).collect::<Vec<_>>(), [&file.id]);

    // From the id alone, and over a file that is there.
    std::fs::write(&target, "old").expect("a file");
    let saved = soon(hers.download(&MediaRef::new(file.id.clone()), &target).into_future()).await.expect("a download");
    assert_eq!(std::fs::read(&target).expect("the file"), bytes);
    assert_eq!((saved.file_size, saved.resumed_at, Some(saved.sha256)), (3 << 20, 0, file.sha256.clone()));
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 2, "nothing is left beside it");

    // Not bob's; and not anybody's once it is gone.
    let refused = soon(his.download(&file, dir.path().join("no")).into_future()).await.expect_err("bob may not");
    assert!(matches!(refused, MediaError::NotFound(_)) && !refused.is_retryable(), "{refused}");
    soon(hers.delete(&file.id)).await.expect("a deletion");
    assert!(matches!(soon(hers.info(&file.id)).await, Err(MediaError::NotFound(_))));
}

#[tokio::test]
async fn a_download_that_is_cut_again_and_again_goes_on_where_it_was() {
    let server = TestServer::with_users(&["alice"]);
    let bytes = content(2 << 20);
    let file = soon(media(&server, "alice").upload_bytes("f.bin", bytes.clone()).into_future()).await.expect("upload");
    let cutter = Cutter::before(server.http(), vec![300 << 10, 1, 500 << 10, 400 << 10, u64::MAX], vec![]).await;
    let through = Media::new(&cutter.url(), server.token("alice")).expect("a URL");
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("f.bin");
    let saved = soon(through.download(&file, &target).into_future()).await.expect("a download");
    assert_eq!(std::fs::read(&target).expect("the file"), bytes);
    assert_eq!((saved.resumed_at, cutter.connections.load(Ordering::SeqCst)), (0, 5));
    assert_eq!(cutter.requests("\r\nrange: bytes="), 4, "all but the first ask for the rest");
}

#[tokio::test]
async fn a_download_goes_on_after_the_program_and_the_server_died() {
    let mut server = TestServer::with_users(&["alice"]);
    let bytes = content(2 << 20);
    let file = soon(media(&server, "alice").upload_bytes("f.bin", bytes.clone()).into_future()).await.expect("upload");
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("f.bin");

    // The program dies in the middle: the future is dropped.
    let cutter = Cutter::before(server.http(), vec![u64::MAX], vec![]).await;
    let through = Media::new(&cutter.url(), server.token("alice")).expect("a URL");
    let (half, mut reached) = tokio::sync::mpsc::unbounded_channel();
    let download = through.download(&file, &target).on_progress(move |progress| {
        if progress.done >= 1 << 20 {
            let _ = half.send(());
        }
    });
    tokio::select! {
        _ = reached.recv() => {}
        done = download.into_future() => panic!("too fast: {done:?}"),
    }
    assert!(!target.exists(), "half a file has no name");

    server.kill9();
    server.restart();
    *cutter.server.lock().expect("a lock") = server.http();
    let saved = soon(through.download(&file, &target).into_future()).await.expect("a download");
    assert_eq!(std::fs::read(&target).expect("the file"), bytes);
    assert!(saved.resumed_at > 0, "{saved:?}");
    assert_eq!(cutter.requests("\r\nrange: bytes="), 1, "the rest alone");
}

#[tokio::test]
async fn bytes_that_are_not_the_servers_are_thrown_away() {
    let server = TestServer::with_users(&["alice"]);
    let hers = media(&server, "alice");
    let bytes = content(100 << 10);
    let file = soon(hers.upload_bytes("f.bin", bytes.clone()).into_future()).await.expect("an upload");
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("f.bin");
    // What a torn write left.
    std::fs::write(dir.path().join(format!("f.bin.{}.part", file.id)), vec![7; 50 << 10]).expect("a part");
    soon(hers.download(&file, &target).into_future()).await.expect("it begins again");
    assert_eq!(std::fs::read(&target).expect("the file"), bytes);
}

#[tokio::test]
async fn two_downloads_of_a_file_to_a_path_do_not_mix() {
    let server = TestServer::with_users(&["alice"]);
    let hers = media(&server, "alice");
    let file = soon(hers.upload_bytes("f.bin", content(1 << 20)).into_future()).await.expect("an upload");
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("f.bin");
    let second = Arc::new(Mutex::new(None));
    let (place, other, again, path) = (second.clone(), hers.clone(), file.clone(), target.clone());
    let download = hers.download(&file, &target).on_progress(move |_| {
        let mut place = place.lock().expect("a lock");
        if place.is_none() {
            *place = Some(tokio::spawn(other.download(&again, &path).into_future()));
        }
    });
    let (place, _) = (second, soon(download.into_future()).await.expect("the first"));
    let handle = place.lock().expect("a lock").take().expect("a second");
    match soon(handle).await.expect("no panic") {
        // It came while the first ran, or behind it.
        Err(MediaError::Busy(_)) | Ok(_) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&target).expect("the file"), content(1 << 20));
}

#[tokio::test]
async fn an_upload_that_is_cut_is_sent_again_and_one_whose_answer_is_lost_is_not_stored_twice() {
    let server = TestServer::with_users(&["alice"]);
    let bytes = content(1 << 20);
    // The first is cut on the way up; the answer of the second is lost.
    let cutter = Cutter::before(server.http(), vec![u64::MAX, 0, u64::MAX], vec![200 << 10, u64::MAX]).await;
    let through = Media::new(&cutter.url(), server.token("alice")).expect("a URL");
    let file = soon(through.upload_bytes("f.bin", bytes.clone()).into_future()).await.expect("an upload");
    assert_eq!(file.file_size, Some(1 << 20));
    let found = soon(media(&server, "alice").find("f.bin")).await.expect("a search");
    assert_eq!(found.iter().map(|found| &found.id).collect::<Vec<_>>(), [&file.id]);
    // How often it looked depends on how much of the first try the sockets took in; it was not sent a third time.
    assert!(cutter.requests("post /v1/media") == 2 && cutter.requests("get /v1/media?name=") >= 1);
}

#[tokio::test]
async fn refusals_are_typed_and_said_before_a_byte_is_sent_where_they_can_be() {
    let server = TestServer::with_users(&["alice"]);
    let hers = media(&server, "alice");
    let large = soon(hers.upload_bytes("a.jpg", vec![0; (16 << 20) + 1]).into_future()).await;
    assert!(matches!(large, Err(MediaError::TooLarge { max, .. }) if max == 16 << 20), "{large:?}");
    let missing = soon(hers.upload("/nowhere/at/all").into_future()).await;
    assert!(matches!(missing, Err(MediaError::Io { .. })), "{missing:?}");

    let stranger = Media::new(&format!("http://{}", server.http()), "no token").expect("a URL");
    let refused = soon(stranger.upload_bytes("f.bin", content(10)).into_future()).await.expect_err("no token");
    assert!(refused.is_auth() && !refused.is_retryable(), "{refused}");

    let id = MediaId::parse("1234567890123456").expect("an id");
    assert!(matches!(soon(hers.info(&id)).await, Err(MediaError::NotFound(_))));
    // A reader that is longer than its kind may be is stopped on the way.
    let endless = tokio::io::repeat(7);
    let stopped = soon(hers.upload_reader("a.png", endless).into_future()).await;
    assert!(matches!(stopped, Err(MediaError::TooLarge { .. })), "{stopped:?}");
}
