//! The admin listener: is the process up, is it ready, what has it done. For the operator; it asks for no token, so keep it on loopback.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use natter_bridge::Handle;
use natter_bridge::http::{Problem, with_problems};
use natter_bridge::store::background::Watch;
use natter_broker::Door;
use natter_protocol::error::Kind;
use natter_protocol::histogram::{BUCKETS, Snapshot, upper_micros};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde::Serialize;

/// What the server's parts tell about themselves.
#[derive(Default)]
pub(crate) struct Health {
    bridge: OnceLock<Handle>,
    door: OnceLock<Weak<Door>>,
    store: OnceLock<Arc<Watch>>,
    codes_refused: Arc<AtomicU64>,
    draining: AtomicBool,
}

/// The body of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Readiness {
    ready: bool,
    bridge: bool,
    door: bool,
    draining: bool,
    /// What is wrong with the store, if the check in the background has found something.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<String>,
}

impl Health {
    /// The bridge runs.
    pub(crate) fn bridge_is_up(&self, handle: Handle) {
        // Set once: there is one bridge a process.
        let _first = self.bridge.set(handle);
    }

    /// The door accepts clients, until it is drained.
    pub(crate) fn door_is_up(&self, door: &Arc<Door>) {
        let _first = self.door.set(Arc::downgrade(door));
    }

    /// The store is being checked.
    pub(crate) fn store_is_checked(&self, watch: Arc<Watch>) {
        let _first = self.store.set(watch);
    }

    /// Counts the codes of new devices that were refused.
    pub(crate) fn codes_refused(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.codes_refused)
    }

    /// The server stops: send it nobody more.
    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn readiness(&self) -> Readiness {
        let bridge = self.bridge.get().is_some_and(|handle| handle.stats().healthy);
        let door = self.door.get().is_some_and(|door| door.strong_count() > 0);
        let draining = self.draining.load(Ordering::Relaxed);
        let store = self.store.get().and_then(|watch| watch.findings().into_iter().next());
        Readiness { ready: bridge && door && !draining && store.is_none(), bridge, door, draining, store }
    }
}

/// The routes of the admin listener.
pub(crate) fn router(health: Arc<Health>) -> Router {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics { health: Arc::clone(&health) }));
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz).with_state(health))
        .route("/metrics", get(metrics).with_state(Arc::new(registry)));
    with_problems(routes)
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    let readiness = health.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, content_type)], body).into_response()
        }
        Err(fmt::Error) => {
            let detail = "the metrics cannot be written".to_owned();
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, Kind::Malformed, detail).into_response()
        }
    }
}

/// There are none.
type Exemplars = HashMap<usize, Exemplar<NoLabelSet, f64>>;

/// Reads the counters of the parts when it is scraped.
struct Metrics {
    health: Arc<Health>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let readiness = self.health.readiness();
        gauge(&mut encoder, "natter_ready", "Whether new clients are welcome", readiness.ready.into())?;
        gauge(&mut encoder, "natter_bridge_healthy", "Whether the last commit went well", readiness.bridge.into())?;
        if let Some(watch) = self.health.store.get() {
            let findings = watch.findings().len() as u64;
            gauge(&mut encoder, "natter_wal_bytes", "Bytes of the database's write-ahead log", watch.wal_bytes())?;
            let finished = watch.is_finished().into();
            gauge(
                &mut encoder,
                "natter_store_check",
                "Whether the check of the store after the start is done",
                finished,
            )?;
            gauge(
                &mut encoder,
                "natter_store_check_findings",
                "What that check has found wrong, at most 20",
                findings,
            )?;
        }
        let refused = self.health.codes_refused.load(Ordering::Relaxed);
        counter(
            &mut encoder,
            "natter_link_codes_refused",
            "Codes of new devices that were wrong, or too many",
            refused,
        )?;
        let stats = self.health.bridge.get().map(Handle::stats);
        if let Some(stats) = &stats {
            bridge(&mut encoder, stats)?;
        }
        if let Some(door) = self.health.door.get().and_then(Weak::upgrade) {
            self::door(&mut encoder, &door.stats())?;
            let times = door.stages();
            let committed = stats.unwrap_or_default().committed;
            stages(&mut encoder, &[("committed", committed), ("out", times.out), ("acked", times.acked)])?;
        }
        Ok(())
    }
}

fn bridge(encoder: &mut DescriptorEncoder, stats: &natter_bridge::Stats) -> fmt::Result {
    gauge(encoder, "natter_journal_rows", "Journal rows that wait to be settled", stats.unsettled)?;
    gauge(
        encoder,
        "natter_watches",
        "Watches of connections: who is told when somebody comes and goes",
        stats.watches,
    )?;
    for (name, help, value) in [
        ("natter_commits", "Batches committed", stats.commits),
        ("natter_messages", "Messages accepted", stats.messages),
        ("natter_repeats", "Repeats of accepted messages, answered again", stats.repeats),
        ("natter_refused", "Commands and messages refused for good", stats.refused),
        ("natter_not_now", "Connections that got not now", stats.not_now),
        ("natter_entries", "Inbox entries handed to the door", stats.entries),
        ("natter_acknowledged", "Inbox entries acknowledged by devices", stats.acknowledged),
        ("natter_expired", "Inbox entries that expired, or were dropped from a crowded inbox", stats.expired),
        ("natter_statuses", "Statuses posted", stats.statuses),
        ("natter_statuses_refused", "Statuses refused because too many are shown", stats.statuses_refused),
        ("natter_statuses_expired", "Statuses whose time was over", stats.statuses_expired),
        ("natter_statuses_deleted", "Statuses that were taken back", stats.statuses_deleted),
        ("natter_edits", "Messages edited by their senders", stats.edits),
        ("natter_deletions", "Messages deleted for everybody", stats.deletions),
        ("natter_contacts_added", "Contacts added", stats.contacts_added),
        ("natter_contacts_removed", "Contacts removed", stats.contacts_removed),
        ("natter_blocks", "Users blocked", stats.blocks),
        ("natter_unblocks", "Users blocked no more", stats.unblocks),
        ("natter_devices_linked", "Devices linked before they connected", stats.devices_linked),
        ("natter_devices_unlinked", "Devices cut off by their users", stats.devices_unlinked),
        ("natter_hidden", "Messages of blocked users, accepted and hidden", stats.hidden),
        ("natter_presences", "Presences told to connections that watch", stats.presences),
        (
            "natter_hints_dropped",
            "Typing hints dropped because their reader or the link was behind",
            stats.hints_dropped,
        ),
        ("natter_quota_refusals", "Messages refused because an inbox was full", stats.quota),
        ("natter_skipped", "Inbox positions that lagging devices skipped", stats.skipped),
    ] {
        counter(encoder, name, help, value)?;
    }
    Ok(())
}

fn door(encoder: &mut DescriptorEncoder, stats: &natter_broker::Stats) -> fmt::Result {
    gauge(encoder, "natter_door_connections", "Sockets that are open now", stats.connections)?;
    gauge(encoder, "natter_memory_bytes", "Memory in use, without files", stats.memory_bytes)?;
    for (name, help, value) in [
        ("natter_door_accepted", "Sockets accepted", stats.accepted),
        ("natter_door_over_limit", "Sockets closed at once because the door was full", stats.over_limit),
        ("natter_door_over_handshake_limit", "Sockets closed for too many handshakes", stats.over_handshake_limit),
        ("natter_door_memory_refused", "Sockets closed for want of memory", stats.memory_refused),
        ("natter_door_memory_ended", "Connections ended for want of memory", stats.memory_ended),
        ("natter_door_over_address_limit", "Connections closed at once for their address", stats.over_address_limit),
        ("natter_door_over_user_limit", "CONNECTs refused for too many of their user", stats.over_user_limit),
        ("natter_door_connects_paced", "CONNECTs that waited for their turn", stats.connects_paced),
        ("natter_door_connects_too_often", "CONNECTs refused as too frequent of their user", stats.connects_too_often),
        ("natter_door_auth_failures", "CONNECTs with a wrong user name or token", stats.auth_failures),
        ("natter_door_auth_throttled", "CONNECTs refused unseen after such failures", stats.auth_throttled),
        ("natter_door_connects", "CONNECTs accepted", stats.connects),
        ("natter_door_connects_refused", "CONNECTs refused", stats.connects_refused),
        ("natter_door_handshakes_timed_out", "Handshakes that were not done in time", stats.handshakes_timed_out),
        ("natter_door_tls_failed", "TLS handshakes that failed", stats.tls_failed),
        ("natter_door_takeovers", "Connections that a newer one took over", stats.takeovers),
        ("natter_door_publishes", "PUBLISHes passed to the bridge", stats.publishes),
        ("natter_door_publishes_refused", "PUBLISHes refused by the door", stats.publishes_refused),
        ("natter_door_publishes_oversize", "PUBLISHes that were too large to read", stats.publishes_oversize),
        ("natter_door_rate_pauses", "Pauses in reading because too much came", stats.rate_pauses),
        ("natter_door_filters_refused", "SUBSCRIBE filters refused by the door", stats.filters_refused),
        ("natter_door_entries", "Entries written to clients", stats.entries),
        ("natter_door_violations", "Connections ended for breaking the protocol", stats.violations),
        ("natter_door_keep_alives_missed", "Connections ended for silence", stats.keep_alives_missed),
        ("natter_door_slow_consumers", "Connections ended for reading too slowly", stats.slow_consumers),
        ("natter_door_live_dropped", "Live payloads dropped on slow connections", stats.live_dropped),
        ("natter_door_no_credit_stops", "Pauses in reading for want of credit", stats.no_credit_stops),
        ("natter_door_frames_dropped", "Frames for connections that were gone", stats.frames_dropped),
    ] {
        counter(encoder, name, help, value)?;
    }
    Ok(())
}

/// A message's stages: a PUBLISH until its commit, an entry from there to its reader's connection, and until its reader's PUBACK.
fn stages(encoder: &mut DescriptorEncoder, stages: &[(&'static str, Snapshot)]) -> fmt::Result {
    let help = "Stages of a message: read by the door until committed, until out to its reader, until acknowledged";
    let mut family = encoder.encode_descriptor("natter_stage_seconds", help, None, MetricType::Histogram)?;
    for (stage, Snapshot { buckets, sum_micros }) in stages {
        let seconds = |micros: u64| micros as f64 / 1e6;
        let bounds = (0..BUCKETS).map(|i| upper_micros(i).map_or(f64::INFINITY, seconds));
        let counts: Vec<(f64, u64)> = bounds.zip(buckets.iter().copied()).collect();
        let labels = [("stage", *stage)];
        let mut encoder = family.encode_family(&labels)?;
        encoder.encode_histogram(seconds(*sum_micros), buckets.iter().sum(), &counts, None::<&Exemplars>)?;
    }
    Ok(())
}

fn counter(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}
