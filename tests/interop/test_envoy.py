# SPDX-License-Identifier: MIT
"""Agents and gRPC clients through Envoy, with the settings of deploy/envoy: passing TLS through,
and ending it."""

import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time

import grpc
import pytest
from cluster import Agent, Link, Worker, clean_environment, mcp_program, run
from cluster_fixtures import LAYERS
from edge import Edge, edge_keys, issue
from oracle import answer
from wire_proto import Session, Stub, channel, health_pb, pb

MODES = ("passthrough.yaml", "terminate.yaml")
PROMPT = "What stands at the end of the long road? " * 5
COUNT = 24
GREEDY = ("--mode", "split", "--codec", "f32", "--cuts", "1,5", "--chunk", 64, "--temp", 0,
          "--ignore-eos")
SPLIT = (*GREEDY, "-p", PROMPT, "-n", COUNT)


@pytest.fixture(scope="module")
def folder(keys, tmp_path_factory):
    return edge_keys(keys, tmp_path_factory.mktemp("edge"))


@pytest.fixture(scope="module")
def worker(tiny, keys):
    with Worker(tiny, keys, "-np", 40, "-c", 512) as w:
        yield w
        assert w.stop() == 0


@pytest.fixture(scope="module", params=MODES)
def edge(request, worker, folder):
    with Edge(request.param, worker.port, folder) as e:
        yield e
        assert "warning" not in e.log.read_text()


@pytest.fixture(scope="module")
def stub(edge, keys):
    with channel(edge.endpoint, keys) as c:
        yield Stub(c)


@pytest.fixture(scope="module")
def described(worker, keys):
    with channel(worker.endpoint, keys) as c:
        return Stub(c).Describe(pb.DescribeRequest(), timeout=20)


@pytest.fixture(scope="module")
def local(tiny):
    return answer(tiny, PROMPT, "-n", COUNT, "--ignore-eos")["tokens"]


def opened(stub, described, metadata=None, session=None, **fields):
    s = Session(stub, metadata)
    s.id = session or os.urandom(16)
    s.opened = s.open(session=s.id, model=described.model.fingerprint, first=0, last=LAYERS,
                      **fields)
    return s


def step(s, number, pos, tokens, **fields):
    s.send(forward=pb.Forward(number=number, pos=pos, count=len(tokens), tokens=tokens,
                              want=pb.WANT_LOGITS_LAST, **fields))
    return s.receive()


# ---- the same as without ---------------------------------------------------------------------


def test_an_agent_through_envoy_gives_the_local_text(edge, keys, tiny, local):
    got = run(tiny, keys, "--worker", edge.endpoint, *SPLIT)
    assert got["tokens"] == local
    assert got["failovers"] == 0 and got["bytes_out"] > (COUNT - 1) * 512


def test_a_worker_that_generates_behind_envoy_gives_the_local_text(edge, keys, tiny):
    got = run(tiny, keys, "--worker", edge.endpoint, "--mode", "cloud", "-p", "hello", "-n", COUNT,
              "--temp", 0, "--ignore-eos")
    assert got["tokens"] == answer(tiny, "hello", "-n", COUNT, "--ignore-eos")["tokens"]


def test_ping_through_envoy(edge, keys):
    done = subprocess.run([mcp_program(), "ping", edge.endpoint, "--keys", str(keys), "--json"],
                          env=clean_environment(), capture_output=True, check=True, timeout=60)
    ping = json.loads(done.stdout)
    assert ping["state"] == "up" and ping["tls"].startswith("TLSv1.3")
    assert 0 < ping["rtt_ms"]["p50"] < 100 and ping["up_mbit"] > 0


def test_a_grpcio_client_through_envoy(stub, described):
    assert stub.Check(health_pb.HealthCheckRequest(), timeout=20).status == \
        health_pb.HealthCheckResponse.SERVING
    assert (described.model.first, described.model.last) == (0, LAYERS)
    requests = [pb.ProbeRequest(stamp=i, data=bytes(1 << 20), reply_bytes=1 << 20)
                for i in range(3)]
    replies = list(stub.Probe(iter(requests), timeout=30))
    assert [(r.stamp, len(r.data)) for r in replies] == [(i, 1 << 20) for i in range(3)]
    s = opened(stub, described)
    first = step(s, 1, 0, [1, 2, 3])
    again = step(opened(stub, described), 1, 0, [1, 2, 3])
    assert first.rows == 1 and first.data == again.data
    s.close()


def test_sixteen_streams_through_envoy_at_once(stub, described):
    wanted, failures = {}, []
    alone = opened(stub, described)
    for pos in range(20):
        wanted[pos] = step(alone, pos + 1, pos, [pos + 3]).data
    alone.close()
    sessions = [opened(stub, described) for _ in range(16)]

    def drive(s):
        try:
            for pos in range(20):
                assert step(s, pos + 1, pos, [pos + 3]).data == wanted[pos]
            s.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=drive, args=(s,)) for s in sessions]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
        assert not t.is_alive()
    assert failures == []


def test_a_cancelled_call_is_cancelled_at_the_worker(stub, described):
    s = opened(stub, described)
    step(s, 1, 0, [5, 6, 7])
    s.cancel()
    # The session waits for its owner, so its stream has ended at the worker; if it had not, this
    # would end it.
    t = opened(stub, described, session=s.id, resume=True)
    assert t.opened.length == 3
    t.close()


def test_a_deadline_holds_through_envoy(stub, described):
    began = time.monotonic()
    s = Session(stub, timeout=0.6)
    s.open(session=os.urandom(16), model=described.model.fingerprint, first=0, last=LAYERS)
    # An Envoy that ends TLS keeps it too, and when it is the first it resets the stream.
    assert s.fails().code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL)
    assert 0.5 < time.monotonic() - began < 5


def test_refusals_keep_their_words_and_trailers(tiny, keys, folder, described):
    with Worker(tiny, keys, "-np", 1, "-c", 64) as w:
        for template in MODES:
            with Edge(template, w.port, folder) as e, channel(e.endpoint, keys) as c:
                stub = Stub(c)
                held = opened(stub, described)
                s = Session(stub)
                s.send(open=pb.Open(session=os.urandom(16), model=described.model.fingerprint,
                                    first=0, last=LAYERS))
                error = s.fails()
                assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and error.details()
                assert int(dict(error.trailing_metadata())["retry-after-ms"]) > 0
                held.close()


# ---- loss ------------------------------------------------------------------------------------


LONG = 160
SLOW = (*GREEDY, "-p", "hello", "-n", LONG)


@pytest.mark.parametrize("template", MODES)
@pytest.mark.parametrize("second", [True, False], ids=["to a second worker", "to this machine"])
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_lost_behind_envoy_costs_no_token(template, second, fault, tiny, keys, folder,
                                                   worker):
    local = answer(tiny, "hello", "-n", LONG, "--ignore-eos")["tokens"]
    with (Worker(tiny, keys, "-c", 512) as doomed, Link(doomed.port, rtt=10) as link,
          Edge(template, link.port, folder) as e):
        others = ["--worker", worker.endpoint] if second else []
        agent = Agent(tiny, keys, "--worker", e.endpoint, *others, *SLOW)
        agent.wait_for_bytes(link, 20000)  # some thirty tokens
        doomed.signal(fault)
        got = agent.result()
        assert got["tokens"] == local and got["failovers"] == 1
        stage = got["plan"]["stages"][1]
        assert (stage["where"] == "worker") == second


def test_a_call_of_a_killed_worker_is_unavailable(tiny, keys, folder, described):
    for template in MODES:
        with (Worker(tiny, keys, "-c", 64) as w, Edge(template, w.port, folder) as e,
              channel(e.endpoint, keys) as c):
            s = opened(Stub(c), described)
            step(s, 1, 0, [1, 2])
            w.signal(signal.SIGKILL)
            # gRPC's table makes INTERNAL of Envoy's RST_STREAM(2); docs/protocol.md tells.
            assert s.fails().code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)


# ---- identity --------------------------------------------------------------------------------


def shake(edge, keys, version=None, name="localhost", certificate=True):
    context = ssl.create_default_context(cafile=keys / "ca.pem")
    if certificate:
        context.load_cert_chain(keys / "client.pem", keys / "client.key")
    context.set_alpn_protocols(["h2"])
    if version is not None:
        context.maximum_version = version
    with socket.create_connection(("127.0.0.1", edge.port), timeout=5) as raw:
        with context.wrap_socket(raw, server_hostname=name) as tls:
            tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            seen = tls.recv(9)
            while len(seen) < 1000:
                tls.settimeout(0.5)
                try:
                    more = tls.recv(4096)
                except TimeoutError:
                    return True
                if not more:
                    return False
                seen += more
    return True


def test_only_tls_1_3_with_a_client_certificate_passes(edge, keys):
    assert shake(edge, keys)
    with pytest.raises(ssl.SSLError):
        shake(edge, keys, ssl.TLSVersion.TLSv1_2)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        assert shake(edge, keys, certificate=False)
        raise ConnectionError


def test_a_passthrough_shows_each_client_to_the_worker(keys, worker, folder, described, tmp_path):
    ann, bob = (issue(keys, "client", name, tmp_path / name) for name in ("ann", "bob"))
    with (Edge("passthrough.yaml", worker.port, folder) as e, channel(e.endpoint, ann) as a,
          channel(e.endpoint, bob) as b):
        s = opened(Stub(a), described)
        t = Session(Stub(b))
        t.send(open=pb.Open(session=s.id, model=described.model.fingerprint, first=0, last=LAYERS,
                            resume=True))
        assert t.fails().code() == grpc.StatusCode.PERMISSION_DENIED
        s.close()


def test_behind_an_edge_that_ends_tls_the_token_is_the_identity(tiny, keys, folder, described):
    def token(subject):
        done = subprocess.run([mcp_program(), "keys", "token", "--subject", subject, "--keys",
                               str(keys), "--certificate", str(folder / "edge-client/client.pem")],
                              check=True, capture_output=True, text=True, env=clean_environment())
        return done.stdout.strip()

    with (Worker(tiny, keys, "--require-token", "-c", 512) as w,
          Edge("terminate.yaml", w.port, folder) as e, channel(e.endpoint, keys) as c):
        stub = Stub(c)
        ann, bob = ([("authorization", f"Bearer {token(name)}")] for name in ("ann", "bob"))
        s = opened(stub, described, ann)
        for metadata, status in ((bob, grpc.StatusCode.PERMISSION_DENIED),
                                 (None, grpc.StatusCode.UNAUTHENTICATED)):
            t = Session(stub, metadata)
            t.send(open=pb.Open(session=s.id, model=described.model.fingerprint, first=0,
                                last=LAYERS, resume=True))
            assert t.fails().code() == status
        s.close()
        got = run(tiny, keys, "--worker", e.endpoint, "--token", token("ann"), *SPLIT, "--fallback",
                  "none")
        assert len(got["tokens"]) == COUNT


# ---- the settings are needed -----------------------------------------------------------------


ROUTE = " " * 18


@pytest.mark.parametrize("changes, half_close", [
    # The route's would win over the manager's.
    ([("stream_idle_timeout: 0s", "stream_idle_timeout: 0.5s"), (f"{ROUTE}idle_timeout: 0s\n", "")],
     False),
    # A max_stream_duration puts it out of force.
    ([(f"{ROUTE}timeout: 0s", f"{ROUTE}timeout: 0.5s"),
      (f"{ROUTE}max_stream_duration: {{ grpc_timeout_header_max: 0s }}\n", "")], True),
    ([(f"{ROUTE}idle_timeout: 0s", f"{ROUTE}idle_timeout: 0.5s")], False)],
    ids=["stream_idle_timeout", "timeout", "idle_timeout"])
def test_quiet_sessions_need_these_settings(changes, half_close, worker, keys, folder, described):
    def quiet(edge, seconds):
        """How a call ends in which nothing is said: cancelled by us after `seconds`, or before.  It
        has no deadline, which would stand in for the route's timeout."""
        with channel(edge.endpoint, keys) as c:
            stub = Stub(c)
            if half_close:
                call = stub.Watch(pb.WatchRequest(every_ms=60000))
            else:
                s = Session(stub, timeout=None)
                s.open(session=os.urandom(16), model=described.model.fingerprint, first=0, last=1)
                call = s.call
            enough = threading.Timer(seconds, call.cancel)
            enough.start()
            try:
                for _ in call:
                    pass
            except grpc.RpcError as error:
                return error.code()
            finally:
                enough.cancel()
                if not half_close:
                    s.end()
            raise AssertionError("the call ended with OK")

    with Edge("terminate.yaml", worker.port, folder) as as_it_is:
        assert quiet(as_it_is, 1.5) == grpc.StatusCode.CANCELLED
    with Edge("terminate.yaml", worker.port, folder, changes) as changed:
        assert quiet(changed, 5) not in (grpc.StatusCode.CANCELLED, grpc.StatusCode.OK)
