// Plays the scenario of tests/interop.rs with MQTT.js. Its first argument is the directory that has it in node_modules.
//
// Standard input is one JSON object: where the server is, and the cases to play, all at once. Each case ends with one line of JSON.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const mqtt = createRequire(`${process.argv[2]}/`)("mqtt");

const MESSAGES = 20;
// Bob's connection breaks while he takes this one, alice's while those from 10 to 12 are on their way.
const BOB_BREAKS_AT = 7;
const ALICE_BREAKS_AT = [10, 13];
const PATIENCE_MS = 40_000;

const SCHEMES = { tcp: "mqtt", tls: "mqtts", ws: "ws", wss: "wss" };

/** A user's device: what it saw, and what a client must do with it. */
class Party {
  constructor(world, testCase, who, breakAt) {
    const { user, token } = testCase[who];
    Object.assign(this, { user, breakAt, sessionPresent: [], granted: [], unexpected: [], received: [], delivered: 0, read: 0 });
    Object.assign(this, { ticks: new Set(), ready: 0, fresh: 0, repeats: 0, acknowledged: 0, waiting: [] });
    this.inbox = `users/${user}/phone/inbox`;
    this.outbox = `users/${user}/phone/outbox`;
    const { transport, version, kept } = testCase;
    const path = transport.startsWith("ws") ? "/mqtt" : "";
    this.client = mqtt.connect(`${SCHEMES[transport]}://${world.host}:${world.ports[transport]}${path}`, {
      username: user,
      password: token,
      clientId: `${user}-phone`,
      protocolVersion: version === 5 ? 5 : 4,
      clean: !kept,
      properties: version === 5 ? { sessionExpiryInterval: kept ? 300 : 0 } : undefined,
      ca: world.ca && readFileSync(world.ca),
      reconnectPeriod: 50,
      resubscribe: false,
    });
    this.client.on("connect", (connack) => this.onConnect(connack));
    this.client.on("message", (_, payload) => this.onMessage(JSON.parse(payload.toString())));
    this.client.on("error", (error) => this.unexpected.push(String(error)));
  }

  onConnect({ sessionPresent }) {
    this.sent = undefined;
    this.sessionPresent.push(sessionPresent);
    if (sessionPresent) {
      this.isReady();
      return;
    }
    this.client.subscribe(this.inbox, { qos: 1 }, (error, granted) => {
      if (error) {
        // The connection broke before the SUBACK; the next one subscribes.
        return;
      }
      this.granted.push(...granted.map(({ qos }) => qos));
      this.isReady();
    });
  }

  isReady() {
    this.ready += 1;
    this.notify();
  }

  /** The PUBACK follows when this returns. */
  onMessage(entry) {
    if (entry.seq === undefined) {
      return;
    }
    // A repeat begins a new connection, whether the library has said so already or not.
    if (this.sent !== undefined && entry.prev !== this.sent && entry.seq > this.last) {
      this.unexpected.push(`prev ${entry.prev} after ${this.sent}`);
    }
    this.sent = entry.seq;
    if (this.last !== undefined && entry.seq <= this.last) {
      this.repeats += 1;
      return;
    }
    if (this.last !== undefined && entry.prev > this.last) {
      this.unexpected.push(`a gap before ${entry.seq}`);
    }
    this.last = entry.seq;
    this.fresh += 1;
    if (this.fresh === this.breakAt) {
      this.cut();
    }
    const kind = entry.type === "status" ? entry.status : entry.type;
    if (kind === "text") {
      this.received.push([entry.n, entry.text.body]);
    } else if ((kind === "delivered" || kind === "read") && entry.after === this[kind]) {
      this[kind] = entry.n;
      // What is read is delivered; when bob's mark was faster than his PUBACK nothing else says so.
      this.delivered = Math.max(this.delivered, this.read);
      this.ticks.add(kind);
    } else {
      this.unexpected.push(entry);
    }
    this.notify();
  }

  /** Ends the connection under the library, without a DISCONNECT. */
  cut() {
    this.client.stream.destroy();
  }

  /** Resolves with the PUBACK; the library sends again what has none when it is connected again. */
  async publish(payload) {
    const puback = await new Promise((resolve, reject) =>
      this.client.publish(this.outbox, JSON.stringify(payload), { qos: 1 }, (error, packet) => (error ? reject(error) : resolve(packet))),
    );
    this.acknowledged += (puback.reasonCode ?? 0) === 0 ? 1 : 0;
  }

  until(what) {
    return new Promise((resolve) => {
      this.waiting.push([what, resolve]);
      this.notify();
    });
  }

  notify() {
    this.waiting = this.waiting.filter(([what, resolve]) => !what() || resolve());
  }

  outcome() {
    const { sessionPresent, granted, unexpected, acknowledged } = this;
    return { session_present: sessionPresent, granted, unexpected, acknowledged };
  }
}

async function scenario(alice, bob) {
  await alice.until(() => alice.ready === 1);
  await bob.until(() => bob.ready === 1);
  const send = (from, to) =>
    Array.from({ length: to - from }, (_, i) => `m${from + i}`).map((id) =>
      alice.publish({ id, to: bob.user, type: "text", text: { body: id } }),
    );
  const [first, behind] = ALICE_BREAKS_AT;
  await Promise.all(send(0, first));
  const inFlight = send(first, behind);
  alice.cut();
  await alice.until(() => alice.ready === 2);
  await Promise.all(inFlight);
  await Promise.all(send(behind, MESSAGES));

  await bob.until(() => bob.received.length >= MESSAGES && bob.ready === 2);
  await bob.publish({ status: "read", chat: alice.user, n: bob.received.at(-1)[0] });
  await alice.until(() => alice.delivered >= MESSAGES && alice.read >= MESSAGES);
  const { ticks, delivered, read } = alice;
  return { alice: alice.outcome(), bob: { ...bob.outcome(), received: bob.received }, ticks: [...ticks], delivered, read };
}

async function play(world, testCase) {
  const alice = new Party(world, testCase, "alice");
  const bob = new Party(world, testCase, "bob", BOB_BREAKS_AT);
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => {
      const state = [alice, bob].map(({ client, inbox, outbox, ...seen }) => seen);
      console.error(`${testCase.name}: stuck at ${JSON.stringify(state)}`);
      reject(new Error("no end in time"));
    }, PATIENCE_MS);
  });
  const outcome = await Promise.race([scenario(alice, bob), late]).catch((error) => ({ error: String(error) }));
  clearTimeout(timer);
  await Promise.all([alice.client.endAsync(), bob.client.endAsync()]);
  console.log(JSON.stringify({ case: testCase.name, outcome, repeats: alice.repeats + bob.repeats }));
}

const world = JSON.parse(readFileSync(0, "utf8"));
await Promise.all(world.cases.map((testCase) => play(world, testCase)));
