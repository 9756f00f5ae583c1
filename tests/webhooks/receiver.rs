//! The backend of a business: takes POSTs over HTTP/1.1, as the test says, and remembers them byte for byte.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::Value;

use super::common::{parse, patience};

/// A POST that came.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// What it was answered.
    pub(crate) status: u16,
}

impl Post {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The envelope's `value`, once all around it is as it must be and the signature is right.
    #[track_caller]
    pub(crate) fn value(&self, user: &str, secret: &str) -> Value {
        assert!(self.body.is_ascii(), "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("content-length"), Some(self.body.len().to_string().as_str()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let signature: String =
            hmac::sign(&key, &self.body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(self.header("x-hub-signature-256"), Some(format!("sha256={signature}").as_str()));
        let body = parse(&self.body);
        assert_eq!((&body["object"], &body["entry"][0]["id"]), (&"whatsapp_business_account".into(), &user.into()));
        let (entry, changes) = (body["entry"].as_array().unwrap(), body["entry"][0]["changes"].as_array().unwrap());
        assert_eq!((entry.len(), changes.len(), &changes[0]["field"]), (1, 1, &"messages".into()));
        let value = changes[0]["value"].clone();
        assert_eq!(value["metadata"]["phone_number_id"], user);
        let count = |name: &str| value[name].as_array().map_or(0, Vec::len);
        assert_eq!((count("contacts"), count("messages") + count("statuses")), (1, 1), "one thing a POST: {value}");
        value
    }
}

/// A status whose body never ends.
pub(crate) const ENDLESS: u16 = 299;

/// What a POST is answered; `None`: nothing at all, while the connection stays open.
type Answer = dyn Fn(&Post) -> Option<u16> + Send + Sync;

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    posts: mpsc::Receiver<Post>,
    answer: Arc<Mutex<Box<Answer>>>,
    connections: Arc<AtomicUsize>,
}

impl Receiver {
    /// Answers the challenge of everybody who knows the verify token `vt`, and 200 to every POST.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (posts_tx, posts) = mpsc::channel();
        let answer: Arc<Mutex<Box<Answer>>> = Arc::new(Mutex::new(Box::new(|_| Some(200))));
        let connections = Arc::new(AtomicUsize::new(0));
        let (shared, counted) = (Arc::clone(&answer), Arc::clone(&connections));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::SeqCst);
                let (answer, posts_tx) = (Arc::clone(&shared), posts_tx.clone());
                thread::spawn(move || serve(stream, &answer, &posts_tx));
            }
        });
        Self { address, posts, answer, connections }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// From now on POSTs are answered like this.
    pub(crate) fn answers(&self, answer: impl Fn(&Post) -> Option<u16> + Send + Sync + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    /// Connections that came so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The next POST.
    #[track_caller]
    pub(crate) fn post(&self) -> Post {
        self.posts.recv_timeout(patience()).expect("a POST")
    }

    /// The next POST that was taken.
    #[track_caller]
    pub(crate) fn taken(&self) -> Post {
        loop {
            let post = self.post();
            if (200..300).contains(&post.status) {
                return post;
            }
        }
    }

    /// Nothing comes for a while. There is nothing to wait for but time.
    #[track_caller]
    pub(crate) fn nothing_for(&self, time: Duration) {
        if let Ok(post) = self.posts.recv_timeout(time) {
            panic!("expected no POST, got {}", String::from_utf8_lossy(&post.body));
        }
    }
}

fn serve(stream: TcpStream, answer: &Mutex<Box<Answer>>, posts: &mpsc::Sender<Post>) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if method == "GET" {
            let value = |name: &str| {
                let query = path.split_once('?').map_or("", |(_, query)| query);
                query
                    .split('&')
                    .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
                    .unwrap_or_default()
                    .to_owned()
            };
            let (challenge, token) = (value("hub.challenge"), value("hub.verify_token"));
            let is_right = value("hub.mode") == "subscribe" && token == "vt";
            let (status, body) = if is_right { (200, challenge) } else { (403, String::new()) };
            let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let _ = writer.write_all(answer.as_bytes());
            continue;
        }
        let length =
            headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let mut post = Post { path, headers, body, status: 0 };
        let status = (answer.lock().unwrap())(&post);
        post.status = status.unwrap_or(0);
        let Some(status) = status else {
            let _ = posts.send(post);
            continue;
        };
        let location =
            if (300..400).contains(&status) { post.header("x-redirect").unwrap_or("/elsewhere") } else { "" };
        let length = if status == ENDLESS { 1000 } else { 2 };
        let answer = format!("HTTP/1.1 {status} x\r\nLocation: {location}\r\nContent-Length: {length}\r\n\r\nok");
        let _ = writer.write_all(answer.as_bytes());
        let _ = posts.send(post);
    }
}
