# SPDX-License-Identifier: MIT
"""Write the seeds of fuzz/frame.c and fuzz/channel.c.

usage: python3 fuzz/make_wire_corpus.py [FOLDER]      (default fuzz/corpus)

Messages are written here from the field numbers of proto/mcp/v1/compute.proto, not by the code
under test.
"""

import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def field(number, value):
    """An int as a varint, a float as fixed32, bytes with their length."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def message(*fields):
    return b"".join(field(number, value) for number, value in fields)


SESSION, DIGEST = bytes(range(16)), bytes(range(32))
IDS = b"".join(varint(i) for i in (1, 15043, 3186, 29892, 2787))

# Numbers in the oneofs of ExecuteRequest and ExecuteReply.
REQUESTS = {
    "open": (1, message((1, SESSION), (2, DIGEST), (3, 4), (4, 26), (5, 4096), (6, 2), (7, DIGEST),
                        (8, 1))),
    "forward-tokens": (2, message((1, 1), (4, 5), (5, IDS), (10, 1), (11, 1), (13, 1))),
    "forward-token-unpacked": (2, message((1, 9), (4, 2), (5, 77), (5, 78), (10, 3))),
    "forward-payload": (2, message((1, 7), (2, 1), (3, 40), (4, 1), (6, 1), (7, 1), (8, bytes(64)),
                                   (9, 64), (10, 1), (11, 3), (12, 2), (14, 500))),
    "forward-head": (2, message((1, 8), (4, 100), (6, 5), (8, bytes(100)), (9, 40000), (13, 1))),
    "more": (3, message((1, bytes(50)))),
    "trim": (4, message((1, 3), (2, 41))),
    "generate": (5, message((1, 2), (3, 5), (4, IDS), (5, 64), (6, 0.7), (7, -1), (8, 0.95),
                            (9, 0.05), (10, 42), (11, 1 << 40), (12, 1))),
    "export": (6, message((1, 4), (2, 4), (3, 26), (5, 41))),
    "import": (7, message((1, 5), (2, bytes(30)), (3, 30))),
    "close": (8, b""),
    "beat": (9, message((1, 1 << 63))),
    "ack": (10, message((1, 32768))),
}
REPLIES = {
    "opened": (1, message((1, 40), (2, 3), (3, 4096), (4, 8), (5, 1 << 26), (6, 30000), (7, 512),
                          (8, 1))),
    "result": (2, message((1, 7), (2, 1), (3, 40), (4, 1), (5, 1), (6, 1), (8, bytes(64)), (9, 64),
                          (11, 120), (12, 3400), (13, 5))),
    "result-head": (2, message((1, 8), (4, 9), (5, 9), (8, bytes(20)), (9, 60), (10, 1))),
    "more": (3, message((1, bytes(40)))),
    "token": (4, message((1, 2), (2, 11), (3, 29892), (4, 2), (5, 80), (6, 2100))),
    "state": (5, message((1, 4), (2, 41), (3, bytes(30)), (4, 30))),
    "closed": (6, b""),
    "beat": (7, message((1, 12345))),
    "ack": (8, message((1, 32768))),
    "draining": (9, message((1, 30000))),
}
CAPACITY = message((1, 64), (2, 60), (3, 4096), (4, 512), (5, 8), (6, 1 << 26), (7, 30000), (8, 12),
                   (9, 431.5), (10, 1))
MODEL = message((1, b"model"), (2, b"llama"), (3, DIGEST), (4, 30), (5, 576), (6, 49152), (7, 2048),
                (8, 4), (9, 6), (10, DIGEST), (10, DIGEST), (11, b"q4_1"))
DESCRIBE = message((1, b"0.1.0"), (2, b"generate"), (2, b"resume"), (3, b"worker-1"), (4, MODEL),
                   (5, CAPACITY), (6, b"\0\1\2\3"), (7, b"\0\1"), (8, 1), (9, b"one GPU lost"))
OTHERS = {
    "watch-event": message((1, CAPACITY), (2, 1), (3, 700), (4, b"hot")),
    "watch-request": message((1, 250)),
    "probe": message((1, 99), (2, bytes(20)), (3, 1 << 20)),
    "health": message((1, b"mcp.v1.Compute")),
    "reflection-file": message((1, b"host"), (3, b"mcp/v1/compute.proto")),
    "reflection-symbol": message((4, b"mcp.v1.Compute.Execute")),
    "reflection-extension": message((5, message((1, b"mcp.v1.Open"), (2, 7)))),
    "reflection-list": message((7, b"*")),
}


def frames():
    """(name, bytes) of each seed of fuzz/frame.c: which reader, then a message."""
    for way, kinds in enumerate((REQUESTS, REPLIES)):
        prefix = ("request", "reply")[way]
        for name, (number, body) in kinds.items():
            yield f"{prefix}-{name}", bytes([way]) + field(number, body)
    beat, trim = field(9, b"\x08\x01"), field(4, b"\x08\x02")
    yield "request-two-kinds", b"\0" + beat + trim + beat
    yield "request-twice", b"\0" + beat + beat
    yield "request-strangers", b"\0" + field(99, 5) + varint(77 << 3 | 1) + bytes(8) + field(
        2, message((1, 1), (15, b"new"), (300, 2.5), (4, 0)))
    yield "request-group", b"\0" + varint(15 << 3 | 3) + varint(15 << 3 | 4)
    yield "request-nan", b"\0" + field(5, message((6, float("nan"))))
    yield "describe", b"\2" + DESCRIBE
    for name, body in OTHERS.items():
        yield name, b"\3" + body


# Steps of fuzz/channel.c.
RAW, HEAD, MORE, ACK, SEND, NEXT = range(6)


def step(kind, *numbers):
    return bytes([kind]) + b"".join(struct.pack("<H", number) for number in numbers)


def raw(frame):
    body = field(*frame)
    return step(RAW, len(body)) + body


def send(kind, bulk, payload_bytes, lend=0):
    return step(SEND, kind | bulk << 2 | lend << 3 | payload_bytes // 32 << 4)


def streams():
    """(name, bytes) of each seed of fuzz/channel.c: which end, then steps."""
    worker, agent = b"\1", b"\0"
    following = bytes([NEXT])
    bulk_head = step(HEAD, 1000, 0x8000 | 500)  # 500 of 2000 bytes, bulk
    yield "payload-in-parts", worker + bulk_head + step(MORE, 1000) + following + step(
        MORE, 500) + following
    yield "beat-between-parts", worker + bulk_head + raw(REQUESTS["beat"]) + following * 2 + step(
        MORE, 1000)
    yield "more-too-long", worker + bulk_head + step(MORE, 1000) + step(MORE, 501)
    yield "more-alone", agent + step(MORE, 7)
    yield "frame-inside", worker + bulk_head + raw(REQUESTS["trim"])
    yield "session", worker + b"".join(
        raw(REQUESTS[name]) for name in ("open", "forward-tokens", "forward-payload", "trim",
                                         "generate", "export", "import", "close")) + following * 3
    yield "answers", agent + b"".join(
        raw(REPLIES[name]) for name in ("opened", "result", "token", "draining", "state", "beat",
                                        "closed"))
    yield "bulk-acked", agent + send(0, 1, 65536) + following * 3 + step(ACK, 32768) + step(
        ACK, 65535) + send(2, 0, 4096) + following * 2
    yield "ack-too-much", agent + send(0, 1, 1600) + following + step(ACK, 1601)
    yield "results", worker + send(0, 0, 65536, lend=1) + send(1, 0, 0, lend=1) + send(3, 0, 0) + following * 5


def write(folder, seeds):
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, data in seeds:
        (folder / name).write_bytes(data)
    print(f"{len(list(folder.iterdir()))} seeds in {folder}")


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else HERE / "corpus")
    write(folder / "frame", frames())
    write(folder / "channel", streams())


if __name__ == "__main__":
    main()
