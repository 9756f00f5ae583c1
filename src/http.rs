//! The public HTTP listener: what the bridge serves, the WebSocket of the door, and a word about it all.

pub(crate) mod accounts;
pub(crate) mod devices;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use natter_bridge::http::{Api, Brake, Routes, with_problems};
use natter_broker::Addresses;

use crate::websocket::{self, Gate};

const ABOUT: &str = concat!(
    "Natter ",
    env!("CARGO_PKG_VERSION"),
    ": a messenger whose wire is plain MQTT.\n",
    "\n",
    "Connect an MQTT 3.1.1 or 5 client: user name = your user, password = your token (`natter token NAME`).\n",
    "Over WebSocket, that is at /mqtt, with the subprotocol mqtt.\n",
    "Publish to users/{user}/{device}/outbox, subscribe to users/{user}/{device}/inbox, both at QoS 1.\n",
    "Over HTTP, /docs has every call, and /openapi.json is the document of it.\n",
    "The docs are README.md and ARCHITECTURE.md beside the source.\n",
);

/// The routes of the public listener.
pub(crate) fn router(gate: Gate, api: Api, more: Routes) -> Router {
    let own = Router::new().route("/", get(|| async { ABOUT })).route("/mqtt", get(websocket::mqtt).with_state(gate));
    with_problems(own.merge(natter_bridge::http::router(api, more)))
}

/// The door's count of failed authentications, for HTTP: an address has one for both.
pub(crate) struct DoorBrake(pub(crate) Arc<Addresses>);

impl Brake for DoorBrake {
    fn may_try(&self, peer: SocketAddr) -> bool {
        self.0.may_authenticate(peer, Instant::now())
    }

    fn failed(&self, peer: SocketAddr) {
        self.0.failed(peer, Instant::now());
    }
}
