#!/usr/bin/env python3
"""Writes the seed corpus, fuzz/seeds/, from the golden files of protocol/ and from packets that clients write."""

import pathlib
import shutil

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE.parent / "protocol" / "golden"
SEEDS = HERE / "seeds"


def write(target, name, data):
    path = SEEDS / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def inputs(path):
    """The inputs of a golden file: what stands before each `---`, without comments."""
    for case in path.read_text().split("\n\n"):
        lines = [line for line in case.split("\n---")[0].splitlines() if line and not line.startswith("#")]
        yield from lines


def outputs(path):
    for case in path.read_text().split("\n\n"):
        if "\n---\n" in case:
            yield from (line for line in case.split("\n---\n")[1].splitlines() if line.startswith("{"))


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return len(data).to_bytes(2, "big") + data


def frame(first, body=b""):
    length, out = len(body), bytearray([first])
    while True:
        length, low = divmod(length, 128)
        out.append(low | (0x80 if length else 0))
        if not length:
            return bytes(out) + body


def connect(v5, clean=True, will=False, properties=b""):
    flags = 0xC0 | (2 if clean else 0) | (0x0C if will else 0)
    body = text("MQTT") + bytes([5 if v5 else 4, flags, 0, 60])
    if v5:
        body += bytes([len(properties)]) + properties
    body += text("alice-phone")
    if will:
        body += (b"\0" if v5 else b"") + text("users/alice/phone/outbox") + text(MESSAGE)
    return frame(0x10, body + text("alice") + text("token"))


def publish(v5, qos, packet_id=1, topic="users/alice/phone/outbox", payload=None, properties=b"", dup=False):
    body = text(topic) + (packet_id.to_bytes(2, "big") if qos else b"")
    if v5:
        body += bytes([len(properties)]) + properties
    return frame(0x30 | qos << 1 | dup << 3, body + (MESSAGE if payload is None else payload))


def subscribe(v5, packet_id=2, topic="users/alice/phone/inbox", qos=1):
    return frame(0x82, packet_id.to_bytes(2, "big") + (b"\0" if v5 else b"") + text(topic) + bytes([qos]))


def unsubscribe(v5, packet_id=3, topic="users/alice/phone/inbox"):
    return frame(0xA2, packet_id.to_bytes(2, "big") + (b"\0" if v5 else b"") + text(topic))


MESSAGE = b'{"id":"m1","to":"bob","type":"text","text":{"body":"hi"}}'
# Session Expiry, Receive Maximum, Maximum Packet Size, a user property.
ASKED = b"\x11\0\0\0\x3c" + b"\x21\0\x0a" + b"\x27\0\1\0\0" + b"\x26" + text("a") + text("b")


def packets(v5):
    yield "connect", connect(v5)
    yield "connect_kept", connect(v5, clean=False, properties=ASKED if v5 else b"")
    yield "connect_will", connect(v5, will=True)
    for qos in range(3):
        yield f"publish_{qos}", publish(v5, qos)
    yield "publish_dup", publish(v5, 1, dup=True)
    yield "publish_foreign", publish(v5, 1, topic="users/bob/phone/inbox")
    yield "publish_utf8", publish(v5, 1, topic="\u00e9t\u00e9/\U0001f44d")
    yield "puback", frame(0x40, b"\0\1")
    yield "pubrec", frame(0x50, b"\0\1")
    yield "pubrel", frame(0x62, b"\0\1")
    yield "pubcomp", frame(0x70, b"\0\1")
    yield "subscribe", subscribe(v5)
    yield "subscribe_wild", subscribe(v5, topic="$share/g/users/+/#")
    yield "unsubscribe", unsubscribe(v5)
    yield "ping", frame(0xC0)
    yield "disconnect", frame(0xE0)
    if v5:
        yield "publish_properties", publish(v5, 1, properties=b"\x01\1\x02\0\0\0\x09\x26" + text("k") + text("v"))
        yield "puback_reason", frame(0x40, b"\0\1\x80\0")
        yield "disconnect_will", frame(0xE0, b"\4\5\x11\0\0\0\1")
        yield "auth", frame(0xF0)


def streams(v5):
    chat = [subscribe(v5), publish(v5, 1), frame(0x40, b"\0\2"), frame(0x40, b"\0\3"), frame(0xC0)]
    twice = [publish(v5, 2, 3), publish(v5, 2, 3, dup=True), frame(0x62, b"\0\3"), frame(0x62, b"\0\3")]
    yield "chat", [connect(v5), *chat, frame(0xE0)]
    yield "kept", [connect(v5, clean=False, will=True, properties=ASKED if v5 else b""), *twice, *chat]
    yield "readers", [connect(v5), subscribe(v5), subscribe(v5, 4, qos=0), unsubscribe(v5), subscribe(v5, 5)]
    yield "denied", [connect(v5), *(publish(v5, 1, i, topic="x") for i in range(1, 12))]
    yield "burst", [connect(v5), *(publish(v5, 1, i, payload=b"{}") for i in range(1, 40))]


def vcards():
    """As phones write them, by version."""
    quoted = "FN;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:J=C3=B6rg=20=\nM=C3=BCller\nN;QUOTED-PRINTABLE;CHARSET=ISO-8859-1:M=FCller;J;;;"
    for version, lines in (
        ("2_1", f"{quoted}\nTEL;CELL;PREF:+49151234\nAGENT:\nBEGIN:VCARD\nVERSION:2.1\nFN:Bob\nEND:VCARD"),
        ("3_0", "FN:Ann\\, Lee\nitem1.TEL;waid=15550002:+1 (555) 0002\nPHOTO;ENCODING=b;TYPE=JPEG:/9j/\n SkZJ\nORG:Sea;Harbour"),
        ("4_0", 'FN;X-A="a:b;c":Ann\nTEL;VALUE=uri;TYPE="voice,home":tel:+1-555;ext=5\nIMPP;PREF=1:natter:ann\nX-NATTER:ann'),
    ):
        card = f"BEGIN:VCARD\nVERSION:{version.replace('_', '.')}\n{lines}\nEND:VCARD\n"
        yield version, card.encode()
        yield f"{version}_twice", (card * 2).replace("\n", "\r\n").encode()
        yield f"{version}_utf_16", b"\xff\xfe" + card.encode("utf-16-le")
        yield f"{version}_cut", card.encode()[:-12]


def main():
    shutil.rmtree(SEEDS, ignore_errors=True)
    for path in sorted([*GOLDEN.glob("outbox/*.txt"), *GOLDEN.glob("refusals/*.txt")]):
        for number, line in enumerate(inputs(path)):
            if len(line) < 4096:
                write("outbox", f"{path.stem}_{number}", line.encode())
    for path in sorted(GOLDEN.glob("entries/*.txt")):
        for number, line in enumerate(outputs(path)):
            write("entry", f"{path.stem}_{number}", line.encode())
    for path in sorted(GOLDEN.glob("frames/*.txt")):
        for number, line in enumerate(inputs(path)):
            if line.split(" ", 1)[0] in ("up", "down"):
                write("link", f"{path.stem}_{number}", bytes.fromhex(line.partition(" ")[2]))
    for name, file in vcards():
        write("vcard", name, file)
    for version, v5 in (("v3", False), ("v5", True)):
        for name, packet in packets(v5):
            write("packets", f"{version}_{name}", bytes([v5]) + packet)
        for name, packet_list in streams(v5):
            stream = b"".join(packet_list)
            write("session", f"{version}_{name}_at_once", b"\xf0" * 8 + stream)
            write("session", f"{version}_{name}_in_pieces", bytes([6, 40, 3, 80, 11, 2, 120, 30]) + stream)


main()
