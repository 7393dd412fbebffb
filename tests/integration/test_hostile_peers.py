# SPDX-License-Identifier: MIT
"""Peers that break the rules of TLS, HTTP/2, gRPC and of the protocol itself, against one worker.

All the while a good client of another certificate computes on it, and what it gets must be
right to the last bit: each test ends only when a whole session of it, begun behind the attack, has
come out right.  The worker's memory is looked at as well."""

import base64
import hashlib
import hmac
import json
import os
import select
import socket
import ssl
import struct
import subprocess
import threading
import time

import grpc
import pytest
from cluster import Worker, clean_environment, mcp_program
from cluster_fixtures import CTX, EMBD, LAYERS, VOCAB, keys, tiny  # noqa: F401
from hyperframe.frame import (ContinuationFrame, DataFrame, HeadersFrame, PingFrame, PriorityFrame,
                              RstStreamFrame, SettingsFrame, WindowUpdateFrame)
from raw_http2 import PREFACE, Ended, Raw, context, frame, message
from wire_proto import COMPUTE, Session, Stub, channel, pb

MIB = 1 << 20
GROWTH = 96 * MIB      # of the worker, from all attacks together
STRANGER = MIB         # held for a connection without an identity
CODES = grpc.StatusCode
OK, INVALID, EXHAUSTED, UNIMPLEMENTED = 0, 3, 8, 12
EXECUTE, PROBE, DESCRIBE = (COMPUTE + m for m in ("Execute", "Probe", "Describe"))


# ---- the victim, and its good client ---------------------------------------------------------


class Good(threading.Thread):
    """Sessions without end: prefill, decode, Close.  All must give the bits of the first."""

    PROMPT, DECODES = 40, 12

    def __init__(self, worker, folder):
        super().__init__(daemon=True)
        self.channel = channel(worker.endpoint, folder)
        self.stub = Stub(self.channel)
        self.model = self.stub.Describe(pb.DescribeRequest(), timeout=20).model.fingerprint
        self.wanted = self.session()
        self.begun = self.done = 0
        self.failure = None
        self.ending = False
        self.slowest = 0.0

    def session(self):
        s = Session(self.stub, timeout=30)
        try:
            s.open(session=os.urandom(16), model=self.model, first=0, last=LAYERS)
            out = []
            tokens = [(i * 31 + 7) % VOCAB for i in range(self.PROMPT)]
            for pos in range(-1, self.DECODES):
                window = tokens if pos < 0 else [(pos * 17 + 5) % VOCAB]
                s.send(forward=pb.Forward(number=pos + 2, pos=0 if pos < 0 else self.PROMPT + pos,
                                          count=len(window), tokens=window,
                                          want=pb.WANT_LOGITS_LAST, bulk=pos < 0))
                result = s.receive()
                assert result.rows == 1
                out.append(result.data)
            s.close()
            return b"".join(out)
        finally:
            s.cancel()

    def run(self):
        while not self.ending and self.failure is None:
            self.begun += 1
            began = time.monotonic()
            try:
                assert self.session() == self.wanted, "another text"
            except BaseException as error:
                self.failure = error
                return
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.done += 1
            time.sleep(0.01)

    def see_one_through(self):
        """A session that begins now comes out right."""
        mine = self.begun + 1
        end = time.monotonic() + 30
        while self.done < mine and self.failure is None:
            assert time.monotonic() < end, "the good client waits for ever"
            time.sleep(0.01)
        assert self.failure is None, self.failure

    def end(self):
        self.ending = True
        self.join(60)
        self.channel.close()


def issue(folder, authority, name):
    subprocess.run([mcp_program(), "keys", "issue", "client", name, "--keys", str(authority), "-o",
                    str(folder)], check=True, env=clean_environment(), stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def victim(tiny, keys):
    with Worker(tiny, keys, "-np", 32, "--reserve", "good=2", "--lease-ms", 100, "--metrics",
                "127.0.0.1:0") as w:
        yield w
        assert w.stop() == 0


@pytest.fixture(scope="module")
def good(victim, keys, tmp_path_factory):
    g = Good(victim, issue(tmp_path_factory.mktemp("good") / "keys", keys, "good"))
    g.memory = victim.rss()
    g.start()
    yield g
    g.end()
    assert g.failure is None


@pytest.fixture(autouse=True)
def unharmed(victim, good):
    yield
    assert victim.process.poll() is None, "".join(victim.errors)
    good.see_one_through()
    assert victim.rss() - good.memory < GROWTH


@pytest.fixture
def connect(victim, keys, good):
    made = []

    def make(**options):
        made.append(Raw(victim.port, keys, **options))
        return made[-1]

    yield make
    for raw in made:
        raw.close()


@pytest.fixture(scope="module")
def stub(victim, keys):
    with channel(victim.endpoint, keys) as c:
        yield Stub(c)


def wait_for_no_strangers(victim, most=4, timeout_s=15):
    """Until the connections of an attack are gone."""
    end = time.monotonic() + timeout_s
    while True:
        found = int(metric(victim, "connections"))
        if found <= most:
            return
        assert time.monotonic() < end, f"{found} connections are left"
        time.sleep(0.1)


def metric(victim, name):
    for line in victim.metrics().splitlines():
        if line.startswith(f"mcp_worker_{name} "):
            return float(line.split()[1])
    raise KeyError(name)


# ---- before there is an identity -------------------------------------------------------------


@pytest.fixture(scope="module")
def slow_ones(victim, keys, good):
    """Connections that stop at each stage of their making, from the beginning of this file on."""
    found = {"since": time.monotonic()}
    found["silent"] = socket.create_connection(("127.0.0.1", victim.port))
    found["half a hello"] = socket.create_connection(("127.0.0.1", victim.port))
    found["half a hello"].sendall(client_hello(keys)[0][:100])
    found["no preface"] = Raw(victim.port, keys, hello=False)
    found["no call"] = Raw(victim.port, keys)
    found["half a message"] = Raw(victim.port, keys)
    stream = found["half a message"].call(PROBE, message(b"x" * 90, size=100))
    found["stream"] = stream
    found["half a block"] = Raw(victim.port, keys)
    block = found["half a block"].block(PROBE)
    found["half a block"].send(HeadersFrame(1, block[:10]))
    # Takes all that the windows let through, and acknowledges none of it.
    found["no Ack"] = Raw(victim.port, keys, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1 << 30})
    found["no Ack"].window(0, 1 << 30)
    frames = (pb.ExecuteRequest(open=pb.Open(session=os.urandom(16), model=good.model,
                                             last=LAYERS)),
              pb.ExecuteRequest(forward=pb.Forward(number=1, count=250, tokens=[1] * 250, bulk=True,
                                                   want=pb.WANT_LOGITS)))
    found["unacknowledged"] = found["no Ack"].call(
        EXECUTE, *[message(f.SerializeToString()) for f in frames])
    return found


@pytest.fixture(autouse=True, scope="module")
def slow_from_the_start(slow_ones):
    """So that their time runs while the other tests do."""


def client_hello(keys):
    """The first flight of a client, and the machine that made it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    machine = context(keys).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        machine.do_handshake()
    return outgoing.read(), machine


@pytest.mark.parametrize("first_flight", [False, True], ids=["nothing said", "hello and no more"])
def test_two_hundred_strangers_hold_less_than_a_megabyte_each(victim, keys, first_flight):
    before, count = victim.rss(), 200
    hello, _ = client_hello(keys)
    strangers = [socket.create_connection(("127.0.0.1", victim.port)) for _ in range(count)]
    began = time.monotonic()
    if first_flight:
        for s in strangers:
            s.sendall(hello)
        for s in strangers:  # the worker's flight is there: its state is what it will be
            assert s.recv(1)
    else:
        time.sleep(0.3)
    assert (victim.rss() - before) / count < STRANGER
    for s in strangers:
        s.settimeout(max(0.1, 10 - (time.monotonic() - began)))
        with pytest.raises(OSError):  # ends by EOF or RST within the time for a handshake
            while s.recv(65536):
                pass
            raise ConnectionError
        s.close()
    assert 4 < time.monotonic() - began < 9


def test_an_address_has_256_connections_and_no_more(victim):
    wait_for_no_strangers(victim, 12)
    held, refused = [], 0
    for _ in range(300):
        held.append(socket.create_connection(("127.0.0.1", victim.port)))
    time.sleep(0.3)
    for s in held:
        ready, _, _ = select.select([s], [], [], 0)
        refused += bool(ready)
    for s in held:
        s.close()
    assert 300 - 256 <= refused <= 300 - 256 + 12
    wait_for_no_strangers(victim, 12)


def test_noise_instead_of_tls(victim):
    for noise in (b"GET / HTTP/1.1\r\n\r\n", PREFACE, os.urandom(4096),
                  b"\x16\x03\x01\xff\xff" * 99, b"\x00" * 65536):
        with socket.create_connection(("127.0.0.1", victim.port)) as s:
            s.settimeout(8)
            try:
                s.sendall(noise)
                while s.recv(4096):
                    pass
            except OSError:
                pass


def test_a_handshake_cut_at_any_byte(victim, keys):
    hello, _ = client_hello(keys)
    for cut in range(0, len(hello), 7):
        with socket.create_connection(("127.0.0.1", victim.port)) as s:
            s.sendall(hello[:cut])


# ---- HTTP/2 ----------------------------------------------------------------------------------


def test_rapid_reset_ends_the_connection(connect):
    raw = connect()
    with pytest.raises(Ended):
        for _ in range(40):
            burst = []
            for _ in range(250):
                stream = raw.stream()
                burst += [HeadersFrame(stream, raw.block(DESCRIBE), flags=["END_HEADERS"]),
                          RstStreamFrame(stream, 8)]
            raw.send(*burst)
        raw.wait_for_end()
        raise Ended
    assert raw.next_stream < 2 * 250 * 40 or raw.goaway


def test_calls_that_make_us_reset_them_count_as_well(connect):
    raw = connect()
    with pytest.raises(Ended):
        for _ in range(40):
            burst = []
            for _ in range(250):  # a WINDOW_UPDATE of 0 is a stream error (CVE-2025-8671)
                stream = raw.stream()
                burst += [HeadersFrame(stream, raw.block(DESCRIBE), flags=["END_HEADERS"]),
                          frame(8, 0, stream, bytes(4))]
            raw.send(*burst)
        raw.wait_for_end()
        raise Ended


def test_a_continuation_flood_ends_the_connection(connect):
    raw = connect()
    block = raw.block(DESCRIBE)
    with pytest.raises(Ended):
        raw.send(HeadersFrame(1, block[:5]), *[ContinuationFrame(1, b"") for _ in range(5000)])
        raw.wait_for_end()
        raise Ended


def test_a_header_bomb_costs_its_stream_and_no_memory(connect, victim):
    before = victim.rss()
    raw = connect()
    raw.send(HeadersFrame(raw.stream(), raw.block(DESCRIBE, ("x-a", "a" * 3900)),
                          flags=["END_HEADERS"]))
    # x-a is in the table now: each byte repeats 3,900.
    index = next(i for i in range(62, 80) if raw.coder.header_table.get_by_index(i)[0] == b"x-a")
    stream = raw.stream()
    raw.send(HeadersFrame(stream, raw.block(DESCRIBE) + bytes([0x80 | index]) * 12000,
                          flags=["END_HEADERS"]))
    assert raw.status(stream) != OK
    assert victim.rss() - before < 8 * MIB
    with pytest.raises(Ended):  # again and again is no accident
        for _ in range(100):
            stream = raw.stream()
            raw.send(HeadersFrame(stream, raw.block(DESCRIBE) + bytes([0x80 | index]) * 12000,
                                  flags=["END_HEADERS"]))
        raw.wait_for_end()
        raise Ended


def test_large_metadata_is_bounded(connect, victim):
    raw = connect()
    stream = raw.call(DESCRIBE, message(b""), more=[(f"x-{i}", "y" * 1000) for i in range(17)])
    assert raw.status(stream) != OK
    before = victim.rss()
    for _ in range(500):  # 15 KB each, below the limit of a block
        try:
            raw.call(PROBE, more=[(f"x-{i}", os.urandom(500).hex()) for i in range(14)])
        except Ended:
            break
    assert victim.rss() - before < 24 * MIB


def flood(raw, unit, count=400000):
    """As fast as it goes, without reading."""
    burst = unit * 2000
    for _ in range(count // 2000):
        raw.send(burst)
    raw.wait_for_end(5)


@pytest.mark.parametrize("unit", [
    PingFrame(0, b"12345678").serialize(), SettingsFrame(0, settings={3: 100}).serialize(),
    PriorityFrame(1, depends_on=3, stream_weight=9).serialize(),
    WindowUpdateFrame(0, 1).serialize(), frame(0xbe, 0, 0, b""), frame(0xbe, 0, 7, b"x")],
    ids=["PING", "SETTINGS", "PRIORITY", "WINDOW_UPDATE", "unknown", "unknown with bytes"])
def test_a_flood_of_small_frames_ends_the_connection(connect, victim, unit):
    before = victim.rss()
    raw = connect()
    with pytest.raises(Ended):
        flood(raw, unit)
        raise Ended
    assert victim.rss() - before < 16 * MIB


def test_a_flood_of_empty_data_ends_the_connection(connect):
    raw = connect()
    stream = raw.call(PROBE)
    with pytest.raises(Ended):
        flood(raw, DataFrame(stream, b"").serialize())
        raise Ended


@pytest.mark.parametrize("wrong", [
    frame(0, 0, 0, b"x"),                               # DATA without a stream
    frame(0, 0, 99, b"x"),                              # on an idle one
    frame(1, 4, 2, b""),                                # HEADERS on the server's number
    frame(9, 4, 1, b""),                                # CONTINUATION out of nowhere
    frame(4, 0, 0, b"12345"),                           # SETTINGS of 5 bytes
    frame(4, 0, 0, struct.pack(">HI", 4, 1 << 31)),     # a window of 2^31
    frame(6, 0, 0, b"123"),                             # PING of 3
    frame(8, 0, 0, bytes(4)),                           # WINDOW_UPDATE of 0
    frame(8, 0, 0, b"\x7f\xff\xff\xff") * 2,            # beyond 2^31
    frame(5, 4, 1, bytes(4)),                           # PUSH_PROMISE of a client
    frame(3, 0, 0, bytes(4)),                           # RST_STREAM of the connection
    b"\xff\xff\xff" + frame(0, 0, 1)[3:] + bytes(2000)  # a frame of 16 MiB
])
def test_what_http2_forbids_ends_the_connection(connect, wrong):
    raw = connect()
    with pytest.raises(Ended):
        raw.send(wrong)
        raw.wait_for_end()
        raise Ended


def test_a_stall_with_windows_of_zero_holds_bounded_memory(connect, victim):
    before = victim.rss()
    raw = connect(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    ask = message(pb.ProbeRequest(reply_bytes=MIB).SerializeToString())
    for _ in range(100):
        raw.call(PROBE, ask * 8)
    time.sleep(0.5)
    assert victim.rss() - before < 72 * MIB
    assert metric(victim, "unread_bytes") < 72 * MIB
    raw.close()


def test_results_that_nobody_reads_are_bounded(connect, victim, good):
    """Execute with a window of zero: logits for every position, as fast as they are computed."""
    before = victim.rss()
    raw = connect(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    opening = message(pb.ExecuteRequest(open=pb.Open(
        session=os.urandom(16), model=good.model, first=0, last=LAYERS)).SerializeToString())
    windows = [pb.Forward(number=i + 1, pos=50 * i, count=50, tokens=[1] * 50,
                          want=pb.WANT_LOGITS) for i in range(CTX // 50)]
    ask = b"".join(message(pb.ExecuteRequest(forward=w).SerializeToString()) for w in windows)
    raw.call(EXECUTE, opening, ask)
    time.sleep(1)
    assert victim.rss() - before < 16 * MIB
    raw.close()


def test_a_connection_has_1024_calls_and_no_more(connect):
    raw = connect()
    calls = [raw.call(PROBE) for _ in range(1100)]
    assert raw.status(calls[-1]) == "reset 7"  # REFUSED_STREAM
    raw.data_frame(calls[0], message(pb.ProbeRequest(stamp=1).SerializeToString()), end=True)
    assert raw.status(calls[0]) == OK


# ---- gRPC ------------------------------------------------------------------------------------


DESCRIBE_OR_EXECUTE = pytest.mark.parametrize("path", [DESCRIBE, EXECUTE, PROBE])


@DESCRIBE_OR_EXECUTE
def test_lies_about_the_length_of_a_message(connect, path):
    raw = connect()
    good_one = pb.ProbeRequest(stamp=1).SerializeToString()
    for size in (4 * MIB + 1, 1 << 31, 0xffffffff):
        assert raw.status(raw.call(path, message(b"", size=size))) == EXHAUSTED
    for flag in (1, 2, 0xff):
        assert raw.status(raw.call(path, message(good_one, flag=flag), end=True)) == UNIMPLEMENTED
    # Longer than what comes: the call ends half-way.
    for size in (len(good_one) + 1, 4 * MIB):
        status = raw.status(raw.call(path, message(good_one, size=size), end=True))
        assert status != OK or path == PROBE, status
    # Shorter: the rest is taken for a message's head, where a second message is looked at.
    status = raw.status(raw.call(path, message(b"\xff" * 64, size=3), end=True))
    assert status in (INVALID, EXHAUSTED, UNIMPLEMENTED) or path == DESCRIBE


def test_half_messages_on_many_streams_cost_no_more_than_was_sent(connect, victim):
    before = victim.rss()
    raw = connect()
    for _ in range(500):
        raw.call(PROBE, message(b"x", size=4 * MIB))  # 2 GiB announced
    time.sleep(0.3)
    assert victim.rss() - before < 16 * MIB


def test_requests_that_are_no_grpc_get_an_answer_of_http(connect):
    raw = connect()
    for headers, wanted in (((":method", "GET"), "405"), (("content-type", "text/html"), "415")):
        stream = raw.stream()
        fields = dict([(":method", "POST"), (":scheme", "https"), (":path", DESCRIBE),
                       (":authority", "x"), ("content-type", "application/grpc")])
        fields[headers[0]] = headers[1]
        raw.send(HeadersFrame(stream, raw.coder.encode(list(fields.items())),
                              flags=["END_HEADERS", "END_STREAM"]))
        while stream not in raw.over:
            raw.read()
        assert raw.headers[stream][":status"] == wanted


@pytest.mark.parametrize("timeout", ["", "1", "S", "123456789S", "1x", "-1S", "1.5S", "0x1S"])
def test_a_deadline_that_is_none_is_refused(connect, timeout):
    raw = connect()
    assert raw.status(raw.call(DESCRIBE, message(b""), more=[("grpc-timeout", timeout)])) == INVALID


def execute_bytes(model, session):
    """Open, Forward and Beat as messages."""
    frames = (pb.ExecuteRequest(open=pb.Open(session=session, model=model, first=0, last=LAYERS)),
              pb.ExecuteRequest(forward=pb.Forward(number=1, count=3, tokens=[1, 2, 3],
                                                   want=pb.WANT_HIDDEN_LAST)),
              pb.ExecuteRequest(beat=pb.Beat(stamp=7)))
    return [f.SerializeToString() for f in frames]


def test_a_call_cut_at_every_byte(connect, good):
    raw = connect()
    whole = b"".join(map(message, execute_bytes(good.model, os.urandom(16))))
    for cut in range(len(whole)):
        session = os.urandom(16)
        cut_here = b"".join(map(message, execute_bytes(good.model, session)))[:cut]
        stream = raw.call(EXECUTE, cut_here, end=True)
        assert isinstance(raw.status(stream), int), cut


def test_messages_cut_at_every_byte_are_refused_or_understood(connect, good):
    raw = connect()
    first, second, _ = execute_bytes(good.model, os.urandom(16))
    for cut in range(len(first)):
        assert raw.status(raw.call(EXECUTE, message(first[:cut]), end=True)) == INVALID
    for cut in range(len(second)):
        opening = execute_bytes(good.model, os.urandom(16))[0]
        status = raw.status(raw.call(EXECUTE, message(opening), message(second[:cut]), end=True))
        assert status == INVALID, cut


def test_messages_with_any_byte_changed(connect, good):
    raw = connect()
    for which in (0, 1):
        frames = execute_bytes(good.model, os.urandom(16))
        for at in range(len(frames[which])):
            for flip in (0x01, 0x80, 0xff):
                frames = execute_bytes(good.model, os.urandom(16))
                changed = bytearray(frames[which])
                changed[at] ^= flip
                frames[which] = bytes(changed)
                stream = raw.call(EXECUTE, *map(message, frames[:which + 1]), end=True)
                assert isinstance(raw.status(stream), int)


# ---- the protocol ----------------------------------------------------------------------------


def wait_for_places(victim, timeout_s=5):
    """Until the leases of sessions from before are over."""
    end = time.monotonic() + timeout_s
    while metric(victim, "sessions") > 8:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def session(stub, victim, good):
    """Opens sessions in the middle of the model, unless told otherwise."""
    made = []
    wait_for_places(victim)

    def make(first=1, last=4, of=stub, **fields):
        s = Session(of, timeout=20)
        made.append(s)
        s.id = os.urandom(16)
        s.open(session=s.id, model=good.model, first=first, last=last, **fields)
        return s

    yield make
    for s in made:
        s.cancel()


def rows(count=1, value=0.5):
    return struct.pack("<f", value) * (EMBD * count)


def forward(pos=0, count=1, data=None, **fields):
    data = rows(count) if data is None else data
    return pb.Forward(number=fields.pop("number", 1), pos=pos, count=count, data=data,
                      data_total=fields.pop("data_total", len(data)),
                      want=fields.pop("want", pb.WANT_HIDDEN), **fields)


def refused(s, *frames, code=CODES.INVALID_ARGUMENT):
    """Send frames; the stream ends with `code` and a sentence."""
    for f in frames:
        if isinstance(f, bytes):
            s.waiting.put(f)
        else:
            s.send(**f)
    error = s.fails()
    assert error.code() == code, error
    assert len(error.details()) > 10
    return error.details()


def sent(name, message_):
    return {name: message_}


MIDDLE = [
    ("a position back", [sent("forward", forward(count=4)), sent("forward", forward(pos=3))]),
    ("a position beyond", [sent("forward", forward(pos=1))]),
    ("the last position there is", [sent("forward", forward(pos=0xffffffff))]),
    ("no position", [sent("forward", forward(count=0, data=b""))]),
    ("more positions than a batch", [sent("forward", forward(count=100000, data=rows()))]),
    ("4 billion positions", [sent("forward", forward(count=0xffffffff, data=rows()))]),
    ("a payload too short", [sent("forward", forward(data=rows()[:-1]))]),
    ("a payload too long", [sent("forward", forward(data=rows() + b"x"))]),
    ("no payload", [sent("forward", pb.Forward(number=1, count=1, want=pb.WANT_HIDDEN))]),
    ("data beyond its total", [sent("forward", forward(data_total=8))]),
    ("a total of exabytes", [sent("forward", forward(data_total=1 << 62))]),
    ("a total of more than the queue", [sent("forward", forward(data_total=65 * MIB))]),
    ("tokens in the middle", [sent("forward", pb.Forward(number=1, count=1, tokens=[1]))]),
    ("tokens and rows", [sent("forward", forward(tokens=[1]))]),
    ("logits in the middle", [sent("forward", forward(want=pb.WANT_LOGITS_LAST))]),
    ("an unknown want", [sent("forward", forward(want=99))]),
    ("an unknown codec", [sent("forward", forward(codec=99))]),
    ("an unknown wrap", [sent("forward", forward(wrap=99))]),
    ("an unknown reply codec", [sent("forward", forward(reply_codec=99))]),
    ("an unknown reply wrap", [sent("forward", forward(reply_wrap=99))]),
    ("an epoch from the future", [sent("forward", forward(epoch=1))]),
    ("a trim into the past", [sent("trim", pb.Trim(epoch=5, pos=0)),
                              sent("trim", pb.Trim(epoch=5, pos=0))]),
    ("a trim beyond the end", [sent("trim", pb.Trim(epoch=1, pos=1))]),
    ("a second Open", [sent("open", pb.Open(session=bytes(16), model=bytes(32), last=1))]),
    ("More without a beginning", [sent("more", pb.More(data=b"x"))]),
    ("More behind the end", [sent("forward", forward()), sent("more", pb.More(data=b"x"))]),
    ("a part without bytes", [sent("forward", forward(data=rows()[:9], data_total=EMBD * 4)),
                              sent("more", pb.More())]),
    ("a part too long", [sent("forward", forward(data=rows()[:9], data_total=EMBD * 4)),
                         sent("more", pb.More(data=rows()))]),
    ("a Forward between parts", [sent("forward", forward(data=rows()[:9], data_total=EMBD * 4)),
                                 sent("forward", forward())]),
    ("a Close between parts", [sent("forward", forward(data=rows()[:9], data_total=EMBD * 4)),
                               sent("close", pb.Close())]),
    ("an Ack of what was not sent", [sent("ack", pb.Ack(bytes=1))]),
    ("an Ack of everything", [sent("ack", pb.Ack(bytes=(1 << 64) - 1))]),
    ("an empty message", [b""]),
    ("an unknown frame", [b"\xfa\x01\x00"]),
    ("a frame of the worker", [pb.ExecuteReply(opened=pb.Opened(length=1)).SerializeToString()]),
    ("groups", [b"\x0b\x0c"]),
    ("field number 0", [b"\x02\x00"]),
    ("an overlong varint", [b"\x12\x0b\x08" + b"\xff" * 10]),
    ("a string that goes on behind its end", [b"\x12\x7f\x42\x7f"]),
    ("export of foreign layers", [sent("export_state", pb.ExportState(last=6, pos_last=1))]),
    ("export of no layers", [sent("export_state", pb.ExportState(first=2, last=2, pos_last=1))]),
    ("export of positions that are not there", [sent("export_state", pb.ExportState(
        number=1, first=1, last=4, pos_first=0, pos_last=9))]),
    ("export of 4 billion positions", [sent("export_state", pb.ExportState(
        first=1, last=4, pos_first=0, pos_last=0xffffffff))]),
    ("import of nothing", [sent("import_state", pb.ImportState(number=1))]),
    ("import of noise", [sent("import_state", pb.ImportState(
        number=1, data=b"noise" * 99, data_total=495))]),
]


@pytest.mark.parametrize("frames", [f for _, f in MIDDLE], ids=[name for name, _ in MIDDLE])
def test_frames_that_break_the_rules_end_their_session(session, frames):
    refused(session(), *frames)


def test_generate_in_the_middle_of_a_model(session):
    refused(session(), sent("generate", pb.Generate(number=1, tokens=[1])),
            code=CODES.FAILED_PRECONDITION)


WHOLE = [
    ("a token below zero", pb.Forward(number=1, count=1, tokens=[-1])),
    ("a token behind the vocabulary", pb.Forward(number=1, count=1, tokens=[VOCAB])),
    ("the largest token", pb.Forward(number=1, count=1, tokens=[0x7fffffff])),
    ("more tokens than positions", pb.Forward(number=1, count=1, tokens=[1, 1])),
    ("fewer tokens than positions", pb.Forward(number=1, count=3, tokens=[1, 1])),
    ("a million tokens", pb.Forward(number=1, count=1 << 20, tokens=[1] * (1 << 20))),
    ("more than a million tokens", pb.Forward(number=1, count=1, tokens=[1] * ((1 << 20) + 1))),
    ("tokens beyond the context", pb.Forward(number=1, pos=0, count=CTX + 1,
                                             tokens=[1] * (CTX + 1))),
]


@pytest.mark.parametrize("frame_", [f for _, f in WHOLE], ids=[name for name, _ in WHOLE])
def test_tokens_that_cannot_be(session, frame_):
    refused(session(0, LAYERS), sent("forward", frame_))


GENERATES = [
    ("no token", pb.Generate(number=1, max_tokens=1)),
    ("a foreign token", pb.Generate(number=1, tokens=[VOCAB], max_tokens=1)),
    ("a prompt beyond the context", pb.Generate(number=1, tokens=[1] * (CTX + 1), max_tokens=1)),
    ("a position beyond", pb.Generate(number=1, pos=0xffffffff, tokens=[1], max_tokens=1)),
    ("NaN temperature", pb.Generate(number=1, tokens=[1], max_tokens=1, temperature=float("nan"))),
    ("infinite top_p", pb.Generate(number=1, tokens=[1], max_tokens=1, top_p=float("inf"))),
    ("draws without end", pb.Generate(number=1, tokens=[1], max_tokens=1, draws=(1 << 64) - 1)),
]


@pytest.mark.parametrize("frame_", [f for _, f in GENERATES], ids=[name for name, _ in GENERATES])
def test_answers_that_cannot_be(session, frame_):
    refused(session(0, LAYERS), sent("generate", frame_))


def test_windows_while_an_answer_runs(session):
    s = session(0, LAYERS)
    s.send(generate=pb.Generate(number=1, tokens=[1], max_tokens=900, ignore_end=True))
    refused(s, sent("forward", pb.Forward(number=2, pos=1, count=1, tokens=[1])))


@pytest.mark.parametrize("sampling", [
    {"temperature": 1e30, "top_p": 1e-30, "min_p": 2.0, "top_k": -5},
    {"temperature": -1.0, "top_p": -1.0, "min_p": -1.0}, {"temperature": 1e-30, "top_k": 1 << 30}])
def test_sampling_at_its_edges_gives_tokens_or_a_sentence(session, sampling):
    s = session(0, LAYERS)
    s.send(generate=pb.Generate(number=1, tokens=[1], max_tokens=5, ignore_end=True, seed=1,
                                **sampling))
    try:
        tokens = [s.receive().token for _ in range(5)]
        assert all(0 <= t < VOCAB for t in tokens)
    except grpc.RpcError as error:
        assert error.code() == CODES.INVALID_ARGUMENT, error


# One row whose first element, or block, is not finite; for q4r also an index outside the row.
HALF_NAN, HALF_INF = b"\x00\x7e", b"\x00\x7c"
NOT_FINITE = [
    (0, struct.pack("<f", float("nan")) + rows()[4:]),
    (0, struct.pack("<f", float("-inf")) + rows()[4:]),
    (0, rows()[:-4] + struct.pack("<f", float("inf"))),
    (1, HALF_NAN + bytes(2 * EMBD - 2)), (1, bytes(2 * EMBD - 2) + HALF_INF),
    (2, b"\xc0\x7f" + bytes(2 * EMBD - 2)), (2, b"\x80\xff" + bytes(2 * EMBD - 2)),
    (3, HALF_NAN + bytes(34 * EMBD // 32 - 2)), (3, HALF_INF + bytes(34 * EMBD // 32 - 2)),
    (4, HALF_NAN + bytes(34 * EMBD // 32 - 2)), (4, HALF_INF + bytes(34 * EMBD // 32 - 2)),
    (5, b"\x00\x00" + HALF_NAN + bytes(34 * EMBD // 64)),
    (5, struct.pack("<H", EMBD) + bytes(2) + bytes(34 * EMBD // 64)),
    (5, bytes(4) + HALF_INF + bytes(34 * EMBD // 64 - 2)),
]


@pytest.mark.parametrize("codec, data", NOT_FINITE, ids=range(len(NOT_FINITE)))
def test_activations_that_are_not_finite(session, codec, data):
    details = refused(session(), sent("forward", forward(codec=codec, data=data)))
    assert "finite" in details or "index" in details


@pytest.mark.parametrize("wrap", [1, 2])
def test_wraps_of_noise_and_bombs(session, wrap):
    for data in (os.urandom(64), bytes(64), b""):
        refused(session(), sent("forward", forward(wrap=wrap, data=data)))
    if wrap == 2:  # snappy that says it holds 4 GiB
        bomb = b"\xff\xff\xff\xff\x0f" + bytes(9)
        refused(session(), sent("forward", forward(wrap=wrap, data=bomb)))


def test_values_that_overflow_inside_harm_nobody_else(session):
    """Finite at the door, infinite behind the first layer; the good client shares the batches."""
    poisoned = []
    for i in range(8):
        s = session()
        s.send(forward=forward(count=20, data=struct.pack("<f", 3.4e38 * (-1) ** i) * EMBD * 20))
        poisoned.append(s)
        if len(poisoned) == 4:
            for p in poisoned:
                try:
                    p.receive()
                except grpc.RpcError as error:
                    assert error.code() in (CODES.INVALID_ARGUMENT, CODES.INTERNAL), error
                p.cancel()
            poisoned = []
            time.sleep(0.4)  # leases


def test_more_windows_than_may_wait(session):
    s = session(0, LAYERS)
    for i in range(2000):
        s.send(forward=pb.Forward(number=i + 1, pos=i, count=1, tokens=[1], want=pb.WANT_NONE))
    try:
        last = 0
        while last < 1000:
            last = s.receive().number
    except grpc.RpcError as error:
        assert error.code() in (CODES.RESOURCE_EXHAUSTED, CODES.INVALID_ARGUMENT), error


@pytest.mark.parametrize("fields, code", [
    ({"model": bytes(32)}, CODES.FAILED_PRECONDITION),
    ({"first": 3, "last": 3}, CODES.FAILED_PRECONDITION),
    ({"first": 4, "last": 2}, CODES.FAILED_PRECONDITION),
    ({"last": LAYERS + 1}, CODES.FAILED_PRECONDITION),
    ({"first": 0xffffffff, "last": 0xffffffff}, CODES.FAILED_PRECONDITION),
    ({"ctx_tokens": 0xffffffff}, CODES.INVALID_ARGUMENT), ({"qos": 99}, CODES.INVALID_ARGUMENT),
    ({"session": bytes(17)}, CODES.INVALID_ARGUMENT), ({"weights": b"x"}, CODES.INVALID_ARGUMENT)])
def test_opens_that_cannot_be(stub, good, fields, code):
    s = Session(stub, timeout=20)
    refused(s, sent("open", pb.Open(**{"session": os.urandom(16), "model": good.model, "first": 1,
                                       "last": 4, **fields})), code=code)


def test_frames_before_open(stub):
    for f in (sent("forward", forward()), sent("close", pb.Close()), sent("beat", pb.Beat(stamp=1)),
              sent("ack", pb.Ack(bytes=0)), sent("more", pb.More(data=b"x")), b""):
        refused(Session(stub, timeout=20), f)


def test_the_session_of_another_tenant(session, victim, keys, good, tmp_path):
    mine = session()
    mine.send(forward=forward(count=3))
    mine.receive()
    other = issue(tmp_path / "thief", keys, "thief")
    with channel(victim.endpoint, other) as c:
        for resume in (True, False):
            s = Session(Stub(c), timeout=20)
            refused(s, sent("open", pb.Open(session=mine.id, model=good.model, first=1, last=4,
                                            resume=resume)), code=CODES.PERMISSION_DENIED)
    mine.send(forward=forward(pos=3, number=2))
    assert mine.receive().count == 1


def test_an_ack_that_takes_another_back(session):
    s = session()
    s.send(forward=forward(count=4, bulk=True))
    assert s.receive().bulk
    refused(s, sent("ack", pb.Ack(bytes=s.bulk_in - 1)))


def test_frames_behind_close(session):
    s = session()
    s.send(close=pb.Close())
    s.send(forward=forward())
    s.send(open=pb.Open(session=bytes(16)))
    assert isinstance(s.receive(), pb.Closed)
    assert list(s.call) == []


# ---- tokens ----------------------------------------------------------------------------------


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def jwt_corpus(keys):
    done = subprocess.run([mcp_program(), "keys", "token", "--subject", "eve", "--keys", str(keys)],
                          check=True, env=clean_environment(), capture_output=True, text=True)
    whole = done.stdout.strip()
    head, claims, signature = whole.split(".")
    header, body = json.loads(unb64(head)), json.loads(unb64(claims))
    public = (keys / "token.pub").read_bytes()

    def made(header_changes=None, claim_changes=None, signature_=signature):
        h = b64(json.dumps({**header, **(header_changes or {})}).encode())
        c = b64(json.dumps({**body, **(claim_changes or {})}).encode())
        return f"{h}.{c}.{signature_}"

    hs = ".".join([b64(json.dumps({**header, "alg": "HS256"}).encode()), claims])
    once = json.dumps(body)
    twice = f"{once[:-1]},{once[1:]}"
    hs += "." + b64(hmac.new(public, hs.encode(), hashlib.sha256).digest())
    corpus = {
        "alg none": made({"alg": "none"}, signature_=""), "alg None": made({"alg": "NoNe"}),
        "HS256 with the public key": hs, "another alg": made({"alg": "ES256"}),
        "RS256": made({"alg": "RS256"}), "an empty signature": f"{head}.{claims}.",
        "a signature of zeros": f"{head}.{claims}.{b64(bytes(64))}",
        "half a signature": whole[:-43], "two signatures": whole + "." + signature,
        "crit": made({"crit": ["exp"]}), "jwk": made({"jwk": {"kty": "OKP"}}),
        "jku": made({"jku": "https://example.net/keys"}),
        "kid": made({"kid": "../../../etc/passwd"}),
        "another subject": made(None, {"sub": "admin"}),
        "more scope": made(None, {"scope": "admin"}),
        "later": made(None, {"exp": 1 << 40}), "exp as text": made(None, {"exp": "9999999999"}),
        "duplicate claims": f"{head}.{b64(twice.encode())}.{signature}",
        "depth": f"{head}.{b64(b'[' * 3000)}.{signature}", "size": whole + "A" * 5000,
        "dots": "..", "noise": b64(os.urandom(300)), "not base64": "!.!.!",
    }
    return whole, corpus


def test_tokens_of_all_kinds_of_forgery(stub, good, keys):
    whole, corpus = jwt_corpus(keys)
    fields = {"model": good.model, "first": 1, "last": 4}
    s = Session(stub, [("authorization", f"Bearer {whole}")], timeout=20)
    s.open(session=os.urandom(16), **fields)
    s.close()
    headers = {name: f"Bearer {token}" for name, token in corpus.items()}
    headers.update({"nothing": "Bearer", "another scheme": f"Basic {whole}", "bare": whole})
    for name, header in headers.items():
        s = Session(stub, [("authorization", header)], timeout=20)
        s.send(open=pb.Open(session=os.urandom(16), **fields))
        error = s.fails()
        assert error.code() == CODES.UNAUTHENTICATED, (name, error)
        assert error.details(), name


# ---- in the end ------------------------------------------------------------------------------


def is_over(sock, seconds):
    sock.settimeout(max(0.1, seconds))
    try:
        while sock.recv(65536):
            pass
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


def test_the_slow_ones_have_been_shown_out(slow_ones):
    left = {"silent": 7, "half a hello": 7, "no preface": 12, "no call": 12, "half a block": 12}
    for name, seconds in left.items():
        one = slow_ones[name]
        sock = one.tls if isinstance(one, Raw) else one
        assert is_over(sock, slow_ones["since"] + seconds - time.monotonic()), name
    one, stream = slow_ones["no Ack"], slow_ones["unacknowledged"]
    assert one.status(stream, slow_ones["since"] + 20 - time.monotonic()) == EXHAUSTED
    assert 0 < len(one.data[stream]) < 250 * VOCAB * 4
    half = slow_ones["half a message"]
    assert half.status(slow_ones["stream"], slow_ones["since"] + 33 - time.monotonic()) != OK
    for one in slow_ones.values():
        if hasattr(one, "close"):
            one.close()


def test_figures_tell_of_the_hostile(victim, good):
    assert metric(victim, "connections_hostile_total") >= 10
    assert metric(victim, "handshakes_failed_total") >= 400
    assert metric(victim, "sessions_failed_total") >= len(MIDDLE)
    assert good.slowest < 10
    wait_for_no_strangers(victim)
    wait_for_places(victim)
