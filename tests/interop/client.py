"""Plays the scenario of tests/interop.rs with a Python MQTT client: `client.py paho` or `client.py aiomqtt`.

Standard input is one JSON object: where the server is, and the cases to play, all at once. Each case ends with one line of JSON.
"""

import asyncio
import json
import os
import socket
import ssl
import sys

import aiomqtt
import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

MESSAGES = 20
# Bob's connection breaks while he takes this one, alice's while these are on their way.
BOB_BREAKS_AT = 7
ALICE_BREAKS_AT = range(10, 13)
PATIENCE_S = 40


class Party:
    """A user's device: what it saw, and what a client must do with it. Subclasses say how a library is told to."""

    def __init__(self, world, case, who, peer):
        self.loop = asyncio.get_running_loop()
        self.world, self.case = world, case
        self.user, self.token = case[who]["user"], case[who]["token"]
        self.peer = case[peer]["user"]
        self.inbox = f"users/{self.user}/phone/inbox"
        self.outbox = f"users/{self.user}/phone/outbox"
        self.v5 = case["version"] == 5
        self.kept = case["kept"]
        self.session_present, self.granted, self.unexpected = [], [], []
        self.last = self.sent = None
        self.fresh = self.repeats = self.acknowledged = 0
        self.break_at = None
        self.ready = 0
        self.changed = asyncio.Condition()
        self.received, self.ticks, self.delivered, self.read = [], [], 0, 0

    def options(self):
        """Where the case's transport is: port, and what the two libraries call it."""
        transport = self.case["transport"]
        tls = ssl.create_default_context(cafile=self.world["ca"]) if transport in ("tls", "wss") else None
        return self.world["ports"][transport], "websockets" if transport in ("ws", "wss") else "tcp", tls

    def session_properties(self):
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 300 if self.kept else 0
        return properties

    def is_new(self, payload):
        """Holds an entry to wire.md, counts it, and says whether it is new. Breaks the connection when it is time to."""
        entry = json.loads(payload)
        if "seq" not in entry:
            return None
        # A repeat begins a new connection, whether the library has said so already or not.
        if self.sent is not None and entry["prev"] != self.sent and entry["seq"] > self.last:
            self.unexpected.append(f"prev {entry['prev']} after {self.sent}")
        self.sent = entry["seq"]
        if self.last is not None and entry["seq"] <= self.last:
            self.repeats += 1
            return None
        if self.last is not None and entry["prev"] > self.last:
            self.unexpected.append(f"a gap before {entry['seq']}")
        self.last = entry["seq"]
        self.fresh += 1
        if self.fresh == self.break_at:
            self.cut()
        return entry

    def take(self, entry):
        kind = entry.get("status") if entry["type"] == "status" else entry["type"]
        if kind == "text":
            self.received.append([entry["n"], entry["text"]["body"]])
        elif kind == "delivered" and entry["after"] == self.delivered:
            self.delivered = entry["n"]
            self.note(kind)
        elif kind == "read" and entry["after"] == self.read:
            # What is read is delivered; when bob's mark was faster than his PUBACK nothing else says so.
            self.read = entry["n"]
            self.delivered = max(self.delivered, self.read)
            self.note(kind)
        else:
            self.unexpected.append(entry)
        self.notify()

    def note(self, tick):
        if tick not in self.ticks:
            self.ticks.append(tick)

    def notify(self):
        async def wake():
            async with self.changed:
                self.changed.notify_all()

        self.loop.create_task(wake())

    async def until(self, what):
        async with self.changed:
            await self.changed.wait_for(what)

    def cut(self):
        """Ends the connection under the library, without a DISCONNECT."""
        with socket.socket(fileno=os.dup(self.paho().socket().fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)

    def outcome(self):
        return {"session_present": self.session_present, "granted": self.granted, "unexpected": self.unexpected}


class Paho(Party):
    """paho-mqtt with its thread, which connects again and sends again by itself."""

    async def start(self):
        port, transport, tls = self.options()
        clean = {} if self.v5 else {"clean_session": not self.kept}
        self.client = client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=f"{self.user}-phone",
            protocol=mqtt.MQTTv5 if self.v5 else mqtt.MQTTv311,
            transport=transport,
            **clean,
        )
        if transport == "websockets":
            client.ws_set_options(path="/mqtt")
        if tls:
            client.tls_set_context(tls)
        client.username_pw_set(self.user, self.token)
        client.reconnect_delay_set(0.05, 1)
        client.on_connect, client.on_subscribe = self.on_connect, self.on_subscribe
        client.on_message, client.on_publish = self.on_message, self.on_publish
        self.waiting = {}
        start = {"clean_start": not self.kept, "properties": self.session_properties()} if self.v5 else {}
        client.connect_async(self.world["host"], port, **start)
        client.loop_start()

    def paho(self):
        return self.client

    def on_connect(self, client, _, flags, reason, properties):
        if reason.is_failure:
            self.unexpected.append(f"CONNACK {reason}")
            return
        self.sent = None
        self.session_present.append(flags.session_present)
        if flags.session_present:
            self.loop.call_soon_threadsafe(self.is_ready)
        else:
            client.subscribe(self.inbox, 1)

    def on_subscribe(self, client, _, mid, reasons, properties):
        self.granted += [reason.value for reason in reasons]
        self.loop.call_soon_threadsafe(self.is_ready)

    def is_ready(self):
        self.ready += 1
        self.notify()

    def on_message(self, client, _, message):
        # The PUBACK follows when this returns.
        entry = self.is_new(message.payload)
        if entry:
            self.loop.call_soon_threadsafe(self.take, entry)

    def on_publish(self, client, _, mid, reason, properties):
        self.loop.call_soon_threadsafe(self.confirm, mid, not reason.is_failure)

    def confirm(self, mid, is_good):
        self.waiting.pop(mid).set_result(is_good)

    def publish(self, payload):
        info = self.client.publish(self.outbox, json.dumps(payload), 1)
        self.waiting[info.mid] = self.loop.create_future()
        return self.waiting[info.mid]

    async def stop(self):
        self.client.disconnect()
        await self.loop.run_in_executor(None, self.client.loop_stop)


class Aiomqtt(Party):
    """aiomqtt: the program connects again, with the client that it has."""

    async def start(self):
        port, transport, tls = self.options()
        start = {"properties": self.session_properties()} if self.v5 else {"clean_session": not self.kept}
        self.client = aiomqtt.Client(
            self.world["host"],
            port,
            username=self.user,
            password=self.token,
            identifier=f"{self.user}-phone",
            protocol=aiomqtt.ProtocolVersion.V5 if self.v5 else aiomqtt.ProtocolVersion.V311,
            transport=transport,
            clean_start=not self.kept if self.v5 else mqtt.MQTT_CLEAN_START_FIRST_ONLY,
            tls_context=tls,
            websocket_path="/mqtt" if transport == "websockets" else None,
            **start,
        )
        # aiomqtt does not tell about Session Present.
        inner = self.paho().on_connect

        def on_connect(client, userdata, flags, reason, properties=None):
            self.session_present.append(flags.session_present)
            self.loop.call_soon_threadsafe(self.notify)
            inner(client, userdata, flags, reason, properties)

        self.paho().on_connect = on_connect
        self.stopping = asyncio.Event()
        self.running = asyncio.create_task(self.run())

    def paho(self):
        return self.client._client

    async def run(self):
        while True:
            try:
                connacks = len(self.session_present)
                async with self.client:
                    # The second time, aiomqtt goes on before there is a CONNACK.
                    await asyncio.wait_for(self.until(lambda: len(self.session_present) > connacks), PATIENCE_S)
                    if not self.session_present[-1]:
                        granted = await self.client.subscribe(self.inbox, 1)
                        self.granted += [getattr(code, "value", code) for code in granted]
                    self.ready += 1
                    self.notify()
                    await self.take_all()
                    return
            except aiomqtt.MqttError:
                await asyncio.sleep(0.05)

    async def take_all(self):
        """Until `stopping`; raises when the connection ends before."""

        async def take():
            async for message in self.client.messages:
                # One queue for all connections: which of them an entry came over cannot be told.
                self.sent = None
                entry = self.is_new(message.payload)
                if entry:
                    self.take(entry)

        tasks = [asyncio.create_task(take()), asyncio.create_task(self.stopping.wait())]
        done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        for task in done:
            task.result()

    def publish(self, payload):
        return asyncio.create_task(self.publish_until_it_is_taken(json.dumps(payload)))

    async def publish_until_it_is_taken(self, payload):
        while True:
            try:
                await self.client.publish(self.outbox, payload, 1)
                return True
            except aiomqtt.MqttError:
                await asyncio.sleep(0.05)

    async def stop(self):
        self.stopping.set()
        await self.running


async def scenario(world, case, library):
    alice, bob = library(world, case, "alice", "bob"), library(world, case, "bob", "alice")
    bob.break_at = BOB_BREAKS_AT
    try:
        await alice.start()
        await bob.start()
        await alice.until(lambda: alice.ready == 1)
        await bob.until(lambda: bob.ready == 1)

        def send(numbers):
            texts = [{"id": f"m{i}", "to": bob.user, "type": "text", "text": {"body": f"m{i}"}} for i in numbers]
            return [alice.publish(text) for text in texts]

        async def acknowledge(sent):
            alice.acknowledged += sum([await one for one in sent])

        await acknowledge(send(range(0, ALICE_BREAKS_AT.start)))
        in_flight = send(ALICE_BREAKS_AT)
        await asyncio.sleep(0)
        alice.cut()
        await alice.until(lambda: alice.ready == 2)
        await acknowledge(in_flight)
        await acknowledge(send(range(ALICE_BREAKS_AT.stop, MESSAGES)))

        await bob.until(lambda: len(bob.received) >= MESSAGES and bob.ready == 2)
        read = await bob.publish({"status": "read", "chat": alice.user, "n": bob.received[-1][0]})
        await alice.until(lambda: alice.delivered >= MESSAGES and alice.read >= MESSAGES)
        return {
            "alice": alice.outcome() | {"acknowledged": alice.acknowledged},
            "bob": bob.outcome() | {"acknowledged": int(read), "received": bob.received},
            "ticks": alice.ticks,
            "delivered": alice.delivered,
            "read": alice.read,
        }, alice.repeats + bob.repeats
    except asyncio.CancelledError:
        state = [{**party.outcome(), "ready": party.ready, "acknowledged": party.acknowledged, "received": party.received,
                  "delivered": party.delivered, "read": party.read} for party in (alice, bob)]
        print(f"{case['name']}: stuck at {state}", file=sys.stderr)
        raise
    finally:
        await alice.stop()
        await bob.stop()


async def main():
    # aiomqtt waits for a socket that is closed already, which hurts nobody.
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: None
        if isinstance(context.get("exception"), OSError)
        else loop.default_exception_handler(context)
    )
    library = {"paho": Paho, "aiomqtt": Aiomqtt}[sys.argv[1]]
    world = json.load(sys.stdin)

    async def play(case):
        try:
            outcome, repeats = await asyncio.wait_for(scenario(world, case, library), PATIENCE_S)
        except Exception as error:
            outcome, repeats = {"error": repr(error)}, 0
        print(json.dumps({"case": case["name"], "outcome": outcome, "repeats": repeats}), flush=True)

    await asyncio.gather(*(play(case) for case in world["cases"]))


asyncio.run(main())
