//! One webhook: reads its device's inbox and posts what is there, in order per chat, again and again until it is taken, and acknowledges.
//!
//! A callback that does not take one chat's message holds that chat up, not the others; but a cursor is a prefix, so all of them wait
//! once a page is full of what is behind it. An entry is given up when its time to live is over, as for any device that is off.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use bytes::Bytes;
use natter_protocol::{DeviceId, Seq, UserId};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Health;
use super::address::Target;
use super::envelope::{self, Receipt, Saying};
use super::post::{Client, Connection, pause};
use crate::change::Webhook;
use crate::reader::WINDOW_ENTRIES;
use crate::{Error, Fetch, Handle, Page};

/// POSTs to one callback at a time.
const POSTS_MAX: usize = 8;
/// How long `sent` waits: a backend looks a status up by the id that the answer to its send has, and that must have arrived.
const SENT_PAUSE: Duration = Duration::from_millis(100);
/// The rest after the bridge said "not now".
const REST: Duration = Duration::from_secs(1);
/// How often a webhook looks at its inbox without being told to: entries whose time is over go without a word.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Delivery {
    user: UserId,
    device: DeviceId,
    webhook: Webhook,
    target: Target,
    key: hmac::Key,
    health: Mutex<Health>,
    ended: watch::Sender<bool>,
    /// Connections that rest.
    connections: Mutex<Vec<Connection>>,
    own_posts: Semaphore,
}

/// What one run of a delivery uses.
#[derive(Clone)]
struct Tools {
    bridge: Handle,
    client: Client,
    posts: Arc<Semaphore>,
}

/// An entry that is there and not acknowledged.
enum Pending {
    Waiting(Saying, Instant),
    Posting(AbortHandle),
    Taken,
}

/// What is known of the inbox behind the cursor.
#[derive(Default)]
struct Known {
    entries: BTreeMap<Seq, Pending>,
    /// Of each chat, what is not taken, in order; the first is being posted.
    chats: HashMap<String, VecDeque<Seq>>,
    chat_of: HashMap<Seq, String>,
    /// What may be acknowledged when everything is taken.
    next: Seq,
    newest: Seq,
    is_cut: bool,
}

impl Delivery {
    pub(super) fn new((user, device): (UserId, DeviceId), webhook: Webhook, target: Target) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, webhook.secret.0.as_bytes());
        let (health, ended) = (Mutex::default(), watch::Sender::new(false));
        let own_posts = Semaphore::new(POSTS_MAX);
        Self { user, device, webhook, target, key, health, ended, connections: Mutex::default(), own_posts }
    }

    /// Whether nothing about it has changed.
    pub(super) fn is_for(&self, webhook: &Webhook) -> bool {
        self.webhook == *webhook
    }

    /// Ends it; what is on its way is not waited for.
    pub(super) fn stop(&self) {
        self.ended.send_replace(true);
    }

    /// How it is doing.
    pub(super) fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Posts until it is stopped. Once `stopping` is true it begins nothing more and ends when what is on its way has come to its end.
    pub(super) async fn run(
        self: Arc<Self>,
        bridge: Handle,
        client: Client,
        posts: Arc<Semaphore>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let mut ended = self.ended.subscribe();
        let tools = Tools { bridge, client, posts };
        tokio::select! {
            biased;
            _ = ended.wait_for(|ended| *ended) => {}
            () = Arc::clone(&self).work(tools, &mut stopping) => {}
        }
    }

    async fn work(self: Arc<Self>, tools: Tools, stopping: &mut watch::Receiver<bool>) {
        let mut watch = tools.bridge.watch(&self.user);
        let (taken_tx, mut taken_rx) = mpsc::unbounded_channel();
        // Dropped with this: no post outlives its delivery.
        let mut tasks = JoinSet::new();
        let mut known = Known::default();
        let mut look = true;
        loop {
            while tasks.try_join_next().is_some() {}
            let is_stopping = *stopping.borrow();
            if is_stopping && tasks.is_empty() && taken_rx.is_empty() {
                return;
            }
            if look && !is_stopping {
                let is_empty_page = match self.fetch(&tools.bridge).await {
                    Ok(page) => {
                        let is_empty = page.is_cut && page.entries.is_empty();
                        known.take_page(&self.user, page);
                        is_empty
                    }
                    Err(Error::Ended) => return,
                    Err(error) => {
                        tracing::debug!(user = %self.user, %error, "a webhook cannot read its inbox now");
                        sleep(REST).await;
                        continue;
                    }
                };
                for seq in known.due() {
                    self.begin(&mut tasks, &tools, &mut known, seq, &taken_tx, stopping);
                }
                // A page of rows for other devices only: there is more behind it.
                look = is_empty_page;
                if known.has_taken() {
                    // What says nothing.
                    look = self.acknowledge(&tools.bridge, &mut known).await;
                    continue;
                }
            }
            if look && !is_stopping {
                continue;
            }
            let newest = known.newest;
            tokio::select! {
                Some(seq) = taken_rx.recv() => {
                    let mut all = vec![seq];
                    while let Ok(seq) = taken_rx.try_recv() {
                        all.push(seq);
                    }
                    for seq in all {
                        known.taken(seq);
                    }
                    if !is_stopping {
                        for seq in known.due() {
                            self.begin(&mut tasks, &tools, &mut known, seq, &taken_tx, stopping);
                        }
                    }
                    look |= self.acknowledge(&tools.bridge, &mut known).await;
                }
                _ = watch.beyond(newest), if !known.is_cut && !is_stopping => look = true,
                () = sleep(LOOK_EVERY), if !is_stopping => look = true,
                _ = stopping.changed(), if !is_stopping => {}
                _ = tasks.join_next(), if is_stopping && !tasks.is_empty() => {}
            }
        }
    }

    async fn fetch(&self, bridge: &Handle) -> Result<Page, Error> {
        let (user, device) = (self.user.clone(), self.device.clone());
        bridge.fetch(Fetch { user, device, after: None, limit: WINDOW_ENTRIES }).await
    }

    /// Acknowledges what has been taken up to the first that has not; whether there may be more behind it.
    async fn acknowledge(&self, bridge: &Handle, known: &mut Known) -> bool {
        let Some(upto) = known.prefix() else { return false };
        loop {
            match bridge.ack(self.user.clone(), self.device.clone(), upto).await {
                Ok(()) => break,
                Err(Error::NotNow(_)) => sleep(REST).await,
                Err(error) => {
                    // The inbox has changed by other hands; the next look says how.
                    tracing::debug!(user = %self.user, %error, "a webhook's acknowledgement");
                    break;
                }
            }
        }
        known.forget(upto);
        known.is_cut || known.entries.is_empty()
    }

    fn begin(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        tools: &Tools,
        known: &mut Known,
        seq: Seq,
        taken_tx: &mpsc::UnboundedSender<Seq>,
        stopping: &watch::Receiver<bool>,
    ) {
        let Some(Pending::Waiting(saying, read_at)) = known.entries.get(&seq) else { return };
        let read_at = *read_at;
        let (this, tools, saying) = (Arc::clone(self), tools.clone(), saying.clone());
        let (taken_tx, mut stopping) = (taken_tx.clone(), stopping.clone());
        let task = tasks.spawn(async move {
            if this.say(&tools, saying, read_at, &mut stopping).await {
                // Nobody listens any more when the delivery has ended.
                let _ = taken_tx.send(seq);
            }
        });
        known.entries.insert(seq, Pending::Posting(task));
    }

    /// Says what there is to say of an entry until all of it is taken; `false`: the server stops.
    async fn say(&self, tools: &Tools, saying: Saying, read_at: Instant, stopping: &mut watch::Receiver<bool>) -> bool {
        match saying {
            Saying::Nothing => true,
            Saying::Message(body) | Saying::Failed(body) => self.insist(tools, &body, stopping).await,
            Saying::Sent(body) => {
                sleep_until(read_at + SENT_PAUSE).await;
                self.insist(tools, &body, stopping).await
            }
            Saying::Receipt(receipt) => self.say_receipt(tools, receipt, stopping).await,
        }
    }

    async fn say_receipt(&self, tools: &Tools, receipt: Receipt, stopping: &mut watch::Receiver<bool>) -> bool {
        let mut after = receipt.after;
        while after < receipt.upto {
            match tools.bridge.covered(self.user.clone(), receipt.chat.clone(), after, receipt.upto).await {
                Ok((ids, upto)) => {
                    for id in ids {
                        if !self.insist(tools, &receipt.of(&self.user, &id), stopping).await {
                            return false;
                        }
                    }
                    after = upto;
                }
                Err(Error::Ended) => return false,
                Err(_) => sleep(REST).await,
            }
        }
        true
    }

    /// Posts a body, the same bytes each time, until it is taken; `false`: the server stops.
    async fn insist(&self, tools: &Tools, body: &Bytes, stopping: &mut watch::Receiver<bool>) -> bool {
        let mut failures = 0u32;
        loop {
            if *stopping.borrow() {
                return false;
            }
            match self.try_once(tools, body).await {
                Ok(()) => {
                    self.note(None);
                    return true;
                }
                Err(why) => {
                    failures = failures.saturating_add(1);
                    self.note(Some(why));
                }
            }
            let random = uuid::Uuid::now_v7().as_u128() as u64;
            // At a stop it comes again after the next start.
            let _ = timeout(pause(failures, random), stopping.wait_for(|stopping| *stopping)).await;
        }
    }

    async fn try_once(&self, tools: &Tools, body: &Bytes) -> Result<(), String> {
        let closed = |_| "the server stops".to_owned();
        let _own = self.own_posts.acquire().await.map_err(closed)?;
        let _of_all = tools.posts.acquire().await.map_err(closed)?;
        let mut connection = self.connections.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let status = tools.client.post(&self.target, &mut connection, &self.key, body).await?;
        if let Some(connection) = connection {
            self.connections.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        if status.is_success() { Ok(()) } else { Err(format!("expected a 2xx, got {status}")) }
    }

    fn note(&self, error: Option<String>) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let was = health.failing_since.is_some();
        match &error {
            Some(why) if !was => {
                tracing::info!(user = %self.user, callback = %self.target.authority, why, "a webhook does not take what it is sent");
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                health.failing_since = Some(now);
            }
            None if was => {
                tracing::info!(user = %self.user, callback = %self.target.authority, "a webhook takes what it is sent again");
                health.failing_since = None;
            }
            _ => {}
        }
        health.last_error = error;
    }
}

impl Known {
    /// Takes in what the inbox has behind the cursor. What was there and is not any more is over.
    fn take_page(&mut self, user: &UserId, page: Page) {
        let Page { entries, next, newest, is_cut } = page;
        let there: std::collections::BTreeSet<Seq> = entries.iter().map(|(seq, _)| *seq).collect();
        let gone: Vec<Seq> = self.entries.keys().filter(|seq| !there.contains(seq)).copied().collect();
        gone.into_iter().for_each(|seq| self.remove(seq));
        for (seq, entry) in entries {
            if self.entries.contains_key(&seq) {
                continue;
            }
            let (chat, saying) = envelope::read(user, &entry);
            if saying == Saying::Nothing {
                self.entries.insert(seq, Pending::Taken);
            } else {
                self.entries.insert(seq, Pending::Waiting(saying, Instant::now()));
                self.chats.entry(chat.clone()).or_default().push_back(seq);
                self.chat_of.insert(seq, chat);
            }
        }
        (self.next, self.newest, self.is_cut) = (next, newest, is_cut);
    }

    /// The first of each chat, where it is not being posted.
    fn due(&self) -> Vec<Seq> {
        let firsts = self.chats.values().filter_map(|chat| chat.front());
        firsts.filter(|seq| matches!(self.entries.get(seq), Some(Pending::Waiting(..)))).copied().collect()
    }

    fn taken(&mut self, seq: Seq) {
        // One that is gone meanwhile stays so.
        if let Some(entry) = self.entries.get_mut(&seq) {
            *entry = Pending::Taken;
            self.leave_chat(seq);
        }
    }

    fn leave_chat(&mut self, seq: Seq) {
        let Some(chat) = self.chat_of.remove(&seq) else { return };
        if let Some(queue) = self.chats.get_mut(&chat) {
            queue.retain(|other| *other != seq);
            if queue.is_empty() {
                self.chats.remove(&chat);
            }
        }
    }

    fn remove(&mut self, seq: Seq) {
        if let Some(Pending::Posting(task)) = self.entries.remove(&seq) {
            task.abort();
        }
        self.leave_chat(seq);
    }

    fn has_taken(&self) -> bool {
        matches!(self.entries.first_key_value(), Some((_, Pending::Taken)))
    }

    /// Up to where everything is taken.
    fn prefix(&self) -> Option<Seq> {
        let last = self.entries.iter().take_while(|(_, entry)| matches!(entry, Pending::Taken)).last();
        let (last, _) = last?;
        let all = self.entries.last_key_value().is_some_and(|(newest, _)| newest == last);
        Some(if all { self.next.max(*last) } else { *last })
    }

    fn forget(&mut self, upto: Seq) {
        self.entries = self.entries.split_off(&(upto + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bot() -> UserId {
        UserId::parse("bot").unwrap()
    }

    fn page(entries: &[(Seq, &str)], next: Seq, is_cut: bool) -> Page {
        let of = |from: &str| {
            let entry = match from {
                "gap" => json!({"type": "gap", "from": 1, "to": 1}),
                from => {
                    json!({"type": "text", "from": from, "chat": from, "id": "m", "timestamp": "1", "text": {"body": "hi"}})
                }
            };
            Bytes::from(entry.to_string())
        };
        let entries = entries.iter().map(|(seq, from)| (*seq, of(from))).collect();
        Page { entries, next, newest: next, is_cut }
    }

    fn due(known: &Known) -> Vec<Seq> {
        let mut due = known.due();
        due.sort_unstable();
        due
    }

    #[test]
    fn a_chat_is_in_order_and_chats_are_beside_each_other() {
        let mut known = Known::default();
        known.take_page(&bot(), page(&[(1, "ann"), (2, "ann"), (3, "bob"), (4, "gap"), (5, "bob")], 7, false));
        assert_eq!(due(&known), [1, 3]);
        known.taken(3);
        assert_eq!((due(&known), known.prefix()), (vec![1, 5], None), "a cursor is a prefix");
        known.taken(1);
        assert_eq!((due(&known), known.prefix()), (vec![2, 5], Some(1)));
        known.forget(1);
        known.taken(2);
        assert_eq!(known.prefix(), Some(4), "what says nothing is taken too");
        known.taken(5);
        assert_eq!(known.prefix(), Some(7), "with the rows for other devices behind it");
        known.forget(7);
        assert!(known.entries.is_empty() && known.chats.is_empty() && known.chat_of.is_empty());
    }

    #[test]
    fn a_page_that_is_read_again_doubles_nothing_and_what_is_gone_from_it_is_over() {
        let mut known = Known::default();
        known.take_page(&bot(), page(&[(1, "ann"), (2, "ann"), (3, "bob")], 3, false));
        known.taken(3);
        known.take_page(&bot(), page(&[(2, "ann"), (3, "bob"), (4, "bob")], 4, false));
        assert_eq!((due(&known), known.prefix()), (vec![2, 4], None), "1 has expired");
        known.taken(1);
        known.taken(2);
        assert_eq!(known.prefix(), Some(3), "taken, and not begun anew");
    }
}
