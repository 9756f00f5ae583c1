//! The admin listener: is the process up, is it ready, what has it done. For the operator; it asks for no token, so keep it on loopback.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use natter_bridge::Handle;
use natter_protocol::error::Kind;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::http::{Problem, with_problems};

/// What the server's parts tell about themselves.
#[derive(Debug, Default)]
pub(crate) struct Health {
    bridge: OnceLock<Handle>,
    door: AtomicBool,
    draining: AtomicBool,
}

/// The body of `/readyz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Readiness {
    ready: bool,
    bridge: bool,
    door: bool,
    draining: bool,
}

impl Health {
    /// The bridge runs.
    pub(crate) fn bridge_is_up(&self, handle: Handle) {
        // Set once: there is one bridge a process.
        let _first = self.bridge.set(handle);
    }

    /// The door accepts clients.
    pub(crate) fn door_is_up(&self) {
        self.door.store(true, Ordering::Relaxed);
    }

    /// The server stops: send it nobody more.
    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn readiness(&self) -> Readiness {
        let bridge = self.bridge.get().is_some_and(|handle| handle.stats().healthy);
        let (door, draining) = (self.door.load(Ordering::Relaxed), self.draining.load(Ordering::Relaxed));
        Readiness { ready: bridge && door && !draining, bridge, door, draining }
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

/// Reads the counters of the parts when it is scraped.
#[derive(Debug)]
struct Metrics {
    health: Arc<Health>,
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let readiness = self.health.readiness();
        gauge(&mut encoder, "natter_ready", "Whether new clients are welcome", readiness.ready)?;
        gauge(&mut encoder, "natter_bridge_healthy", "Whether the last commit went well", readiness.bridge)?;
        let Some(stats) = self.health.bridge.get().map(Handle::stats) else { return Ok(()) };
        for (name, help, value) in [
            ("natter_commits", "Batches committed", stats.commits),
            ("natter_messages", "Messages accepted", stats.messages),
            ("natter_refused", "Commands and messages refused for good", stats.refused),
            ("natter_not_now", "Publishes answered with not now", stats.not_now),
            ("natter_entries", "Inbox entries handed to the door", stats.entries),
            ("natter_acknowledged", "Inbox entries acknowledged by devices", stats.acknowledged),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: bool) -> fmt::Result {
    let gauge = ConstGauge::new(i64::from(value));
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}
