"""A bot on pywa, unchanged but for the base URL: tests/webhooks.rs plays the server and the person on the other side.

Its argument is one JSON object. It registers its webhook as pywa does, sends a text (and a picture, if "image" says so), answers what it is
sent, and prints a line of JSON for each thing that happened.
"""

import base64
import json
import os
import socket
import sys
import threading
import time

import httpx
from pywa import WhatsApp, utils

WORLD = json.loads(sys.argv[1])
# A picture of one pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
lock = threading.Lock()


def say(line):
    with lock:
        print(json.dumps(line), flush=True)


with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]

session = httpx.Client()
wa = WhatsApp(
    phone_id=WORLD["bot"],
    token=WORLD["token"],
    session=session,
    callback_url=f"http://127.0.0.1:{port}",
    callback_url_scope=utils.CallbackURLScope.PHONE,
    webhook_challenge_delay=1,
    webhook_endpoint="/hook",
    verify_token="vt",
    app_secret=WORLD["secret"],
)
session.base_url = f"{WORLD['base']}/v26.0"
got = set()
done = threading.Event()


def happened(what):
    with lock:
        got.add(what)
        if {"sent", "delivered", "read", "message"} <= got:
            done.set()


@wa.on_message
def on_message(_, message):
    say({"message": {"from": message.from_user.wa_id, "text": message.text, "context": message.reply_to_message.message_id}})
    message.mark_as_read()
    message.reply_text("echo", quote=True)
    happened("message")


@wa.on_message_status
def on_status(_, status):
    say({"status": status.status.value, "id": status.id})
    happened(status.status.value)


threading.Thread(target=lambda: wa.run(port=port, log_level="warning"), daemon=True).start()
own = {"Authorization": f"Bearer {WORLD['token']}"}
deadline = time.monotonic() + 20
while httpx.put(f"{WORLD['base']}/v1/webhook/secret", headers=own, json={"secret": WORLD["secret"]}).status_code != 200:
    # pywa registers by itself a while after its server runs.
    assert time.monotonic() < deadline, "pywa's webhook is not registered"
    time.sleep(0.1)

say({"sent": wa.send_message(WORLD["person"], "hi äöå 😀").id})
if WORLD["image"]:
    say({"sent": wa.send_image(WORLD["person"], PNG, caption="us", mime_type="image/png").id})
assert done.wait(30), got
forged = httpx.post(f"http://127.0.0.1:{port}/hook", content=b"{}", headers={"X-Hub-Signature-256": "sha256=" + "0" * 64})
say({"forged": forged.status_code})
os._exit(0)
