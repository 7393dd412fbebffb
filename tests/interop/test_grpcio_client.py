# SPDX-License-Identifier: MIT
"""gRPC's own client drives `mcp worker`, from proto/mcp/v1/compute.proto and docs/protocol.md.

What the worker computes is compared, bit for bit, with `mcp debug logits` on the same file."""

import hashlib
import os
import socket
import ssl
import subprocess
import threading
import time

import grpc
import numpy as np
import pytest
from cluster import Worker, clean_environment, make_keys, mcp_program
from cluster_fixtures import EMBD, LAYERS, VOCAB
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from oracle import answer, rows, shown
from row_codecs import (BF16, ERROR, F16, F32, Q4R, Q8, Q8R, decode, encode, planes, row_bytes,
                        snappy_pack, snappy_unpack, unplanes)
from wire_proto import COMPUTE, PART_BYTES, Session, Stub, channel, health_pb, pb, reflection_pb

FIRST, LAST = 2, 5          # a stage in the middle
TOKENS = [1] + [(7 * i * i + 11 * i) % (VOCAB - 3) + 3 for i in range(199)]
SNAPPY = 2


@pytest.fixture(scope="module")
def worker(tiny, keys):
    with Worker(tiny, keys, "-np", 24, "-c", 512) as w:
        yield w
        assert w.stop() == 0


@pytest.fixture(scope="module")
def stub(worker, keys):
    with channel(worker.endpoint, keys) as c:
        yield Stub(c)


@pytest.fixture(scope="module")
def described(stub):
    return stub.Describe(pb.DescribeRequest())


@pytest.fixture(scope="module")
def states(tiny):
    """Hidden states of TOKENS at the stage's two ends; windows of up to 63 are all alike."""
    return {layer: rows(tiny, TOKENS, layer, [50]) for layer in (FIRST, LAST)}


def session_id():
    return os.urandom(16)


@pytest.fixture
def open_session(stub, described):
    """A Session that is open; ended behind the test."""
    made = []

    def make(first=FIRST, last=LAST, metadata=None, of=stub, session=None, **fields):
        s = Session(of, metadata)
        made.append(s)
        s.id = session or session_id()
        s.opened = s.open(session=s.id, model=described.model.fingerprint, first=first, last=last,
                          **fields)
        return s

    yield make
    for s in made:
        s.cancel()


def forward(s, number, pos, values, codec=F32, want=None, part=PART_BYTES, **fields):
    """Send rows; the frame's Result comes with s.receive()."""
    s.send_payload("forward", pb.Forward(
        number=number, pos=pos, count=len(values), codec=codec,
        want=pb.WANT_HIDDEN if want is None else want, **fields), encode(codec, values), part)


def forward_tokens(s, number, pos, tokens, **fields):
    fields.setdefault("want", pb.WANT_HIDDEN)
    s.send(forward=pb.Forward(number=number, pos=pos, count=len(tokens), tokens=tokens, **fields))


def rows_of(result, n=EMBD):
    found = decode(result.codec, result.data, n)
    assert len(found) == result.rows
    return found


def same(a, b):
    return a.shape == b.shape and a.tobytes() == b.tobytes()


# ---- what a worker says of itself ----------------------------------------------------------


def test_describe_says_what_the_file_holds(described, tiny):
    file, model = shown(tiny), described.model
    assert (model.name, model.architecture) == (file["name"], file["architecture"])
    assert (model.layers, model.n_embd, model.n_vocab) == (LAYERS, EMBD, VOCAB)
    assert (model.first, model.last) == (0, LAYERS)
    assert model.ctx_trained == file["n_ctx_train"]
    assert model.quantisation == file["quantisation"]
    assert model.fingerprint.hex() == file["fingerprint"]
    assert [w.hex() for w in model.weights] == [file["weights_fingerprints"][str(i)]
                                                for i in range(LAYERS)]
    assert set(described.features) == {"generate", "state", "resume", "probe"}
    assert list(described.codecs) == [F32, F16, BF16, Q8, Q8R, Q4R]
    assert list(described.wraps) == [0, 1, 2]
    assert described.name == "worker" and not described.draining and described.degraded == ""
    capacity = described.capacity
    assert (capacity.sessions, capacity.ctx_tokens) == (24, 512)
    assert capacity.sessions_free <= 24 and capacity.even_windows
    assert 1 <= capacity.windows_max and capacity.batch_tokens >= 64


def test_health_is_checked_and_watched(stub):
    serving = health_pb.HealthCheckResponse.SERVING
    for service in ("", "mcp.v1.Compute"):
        assert stub.Check(health_pb.HealthCheckRequest(service=service)).status == serving
    with pytest.raises(grpc.RpcError) as refused:
        stub.Check(health_pb.HealthCheckRequest(service="other.Service"))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    watch = stub.WatchHealth(health_pb.HealthCheckRequest(), timeout=20)
    assert next(watch).status == serving
    watch.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_is_enough_to_make_a_call(stub, worker, keys, version):
    ask = reflection_pb.ServerReflectionRequest
    requests = [ask(list_services=""), ask(file_containing_symbol="mcp.v1.Compute"),
                ask(file_by_filename="no/such.proto")]
    call = stub.Reflect if version == "v1" else stub.ReflectAlpha
    services, files, missing = call(iter(requests), timeout=20)
    assert {"mcp.v1.Compute", "grpc.health.v1.Health"} <= {
        s.name for s in services.list_services_response.service}
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]

    pool = descriptor_pool.DescriptorPool()
    for data in files.file_descriptor_response.file_descriptor_proto:
        pool.Add(descriptor_pb2.FileDescriptorProto.FromString(data))
    method = pool.FindServiceByName("mcp.v1.Compute").FindMethodByName("Describe")
    request, reply = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
    with channel(worker.endpoint, keys) as c:
        found = c.unary_unary(COMPUTE + "Describe", request.SerializeToString,
                              reply.FromString)(request(), timeout=20)
    assert found.model.n_embd == EMBD


def test_probe_answers_each_message_with_the_bytes_asked_for(stub):
    sizes = [(0, 0), (64, 64), (0, 1 << 20), (1 << 20, 1), (3 << 10, 5 << 10)]
    requests = [pb.ProbeRequest(stamp=1000 + i, data=bytes(up), reply_bytes=down)
                for i, (up, down) in enumerate(sizes)]
    replies = list(stub.Probe(iter(requests), timeout=20))
    assert [(r.stamp, len(r.data)) for r in replies] == [
        (1000 + i, down) for i, (_, down) in enumerate(sizes)]


def test_probe_of_many_megabytes_both_ways(stub):
    requests = [pb.ProbeRequest(stamp=i, data=bytes(1 << 20), reply_bytes=1 << 20)
                for i in range(16)]
    call = stub.Probe(iter(requests), timeout=60)
    time.sleep(0.5)  # the worker has to wait for its reader
    replies = list(call)
    assert [r.stamp for r in replies] == list(range(16))
    assert all(len(r.data) == 1 << 20 for r in replies)


@pytest.mark.parametrize("request_, status", [
    (pb.ProbeRequest(reply_bytes=(1 << 20) + 1), grpc.StatusCode.INVALID_ARGUMENT),
    (pb.ProbeRequest(data=bytes((4 << 20) + 1)), grpc.StatusCode.RESOURCE_EXHAUSTED)])
def test_probe_beyond_its_limit_is_refused(stub, request_, status):
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.Probe(iter([request_]), timeout=20))
    assert refused.value.code() == status, refused.value
    assert refused.value.details()


def test_watch_tells_the_load_as_it_changes(stub, open_session):
    watch = stub.Watch(pb.WatchRequest(every_ms=100), timeout=20)
    free = next(watch).capacity.sessions_free
    began = time.monotonic()
    s = open_session()
    while next(watch).capacity.sessions_free != free - 1:
        pass
    s.close()
    while next(watch).capacity.sessions_free != free:
        pass
    for _ in range(5):
        next(watch)
    assert 0.4 < time.monotonic() - began < 10
    watch.cancel()
    with pytest.raises(grpc.RpcError) as refused:
        next(stub.Watch(pb.WatchRequest(every_ms=99), timeout=20))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


# ---- Execute: rows in, rows out -----------------------------------------------------------


def test_tokens_in_chunks_give_the_hidden_states_bit_for_bit(open_session, states):
    s = open_session(first=0, last=FIRST, ctx_tokens=300)
    assert (s.opened.length, s.opened.epoch, s.opened.even_windows) == (0, 0, True)
    assert s.opened.ctx_tokens >= 300 and s.opened.windows_max >= 4
    for number, pos in enumerate(range(0, 200, 40), 1):
        forward_tokens(s, number, pos, TOKENS[pos:pos + 40], bulk=True)
    found = []
    for number, pos in enumerate(range(0, 200, 40), 1):
        result = s.receive()
        assert (result.number, result.epoch, result.pos, result.count) == (number, 0, pos, 40)
        assert result.bulk and result.batch_tokens >= 40 and result.compute_us > 0
        found.append(rows_of(result))
    assert same(np.concatenate(found), states[FIRST])
    s.close()


def test_activations_prefill_then_decode_bit_for_bit(open_session, states):
    s = open_session()
    given, wanted = states[FIRST], states[LAST]
    forward(s, 1, 0, given[:60], bulk=True)
    forward(s, 2, 60, given[60:120], bulk=True)
    assert same(rows_of(s.receive()), wanted[:60])
    assert same(rows_of(s.receive()), wanted[60:120])
    for pos in range(120, 150):
        forward(s, pos, pos, given[pos:pos + 1])
        result = s.receive()
        assert (result.number, result.rows, result.bulk) == (pos, 1, False)
        assert same(rows_of(result), wanted[pos:pos + 1])
    s.close()


def test_windows_of_64_and_more_are_the_other_class_of_bits(open_session, tiny):
    given, wanted = (rows(tiny, TOKENS, layer, [200]) for layer in (FIRST, LAST))
    s = open_session()
    forward(s, 1, 0, given[:128], bulk=True)
    forward(s, 2, 128, given[128:], bulk=True)
    assert same(np.concatenate([rows_of(s.receive()), rows_of(s.receive())]), wanted)
    s.close()


@pytest.mark.parametrize("want, found", [
    (pb.WANT_NONE, slice(0, 0)), (pb.WANT_HIDDEN, slice(0, 9)),
    (pb.WANT_HIDDEN_LAST, slice(8, 9)), (pb.WANT_LOGITS_LAST, slice(8, 9)),
    (pb.WANT_LOGITS, slice(0, 9))])
def test_a_result_has_the_rows_that_are_wanted(open_session, tiny, want, found):
    logits = want in (pb.WANT_LOGITS, pb.WANT_LOGITS_LAST)
    wanted = rows(tiny, TOKENS[:9], 0 if logits else LAYERS)[found]
    s = open_session(first=0, last=LAYERS)
    forward_tokens(s, 1, 0, TOKENS[:9], want=want)
    result = s.receive()
    assert (result.rows, result.count) == (len(wanted), 9)
    if len(wanted) > 0:
        assert same(rows_of(result, wanted.shape[1]), wanted)
    s.close()


@pytest.mark.parametrize("codec", [F16, BF16, Q8, Q8R, Q4R])
def test_answers_in_a_codec_are_within_its_error(open_session, states, codec):
    s = open_session()
    forward(s, 1, 0, states[FIRST][:40], reply_codec=codec)
    result = s.receive()
    assert result.codec == codec and len(result.data) == 40 * row_bytes(codec, EMBD)
    wanted = states[LAST][:40]
    error = np.abs(rows_of(result) - wanted).max(axis=1) / np.abs(wanted).max(axis=1)
    assert 0 < error.max() <= ERROR[codec]
    s.close()


@pytest.mark.parametrize("codec", [F16, BF16, Q8, Q8R, Q4R])
def test_rows_sent_in_a_codec_mean_what_the_page_says(open_session, states, codec):
    given = states[FIRST][:40]
    meant = decode(codec, encode(codec, given), EMBD)
    assert not same(meant, given)
    coded, plain = open_session(), open_session()
    forward(coded, 1, 0, given, codec)
    forward(plain, 1, 0, meant)
    a, b = rows_of(coded.receive()), rows_of(plain.receive())
    if codec in (Q8R, Q4R):  # sums of 64 in another order
        assert np.abs(a - b).max() <= 1e-3 * np.abs(b).max()
    else:
        assert same(a, b)
    coded.close()
    plain.close()


@pytest.mark.parametrize("codec", [F32, F16])
def test_snappy_wraps_both_ways(open_session, states, codec):
    given = decode(BF16, encode(BF16, states[FIRST][:40]), EMBD)  # planes of zeros
    if codec == F16:
        given = np.ones_like(given)
    packed = snappy_pack(planes(codec, encode(codec, given)))
    assert len(packed) < 40 * row_bytes(codec, EMBD)
    wrapped, plain = open_session(), open_session()
    wrapped.send_payload("forward", pb.Forward(
        number=1, count=40, codec=codec, wrap=SNAPPY, want=pb.WANT_HIDDEN, reply_codec=codec,
        reply_wrap=SNAPPY), packed)
    forward(plain, 1, 0, given, codec, reply_codec=codec)
    a, b = wrapped.receive(), plain.receive()
    data = unplanes(codec, snappy_unpack(a.data)) if a.wrap == SNAPPY else a.data
    assert data == b.data
    wrapped.close()
    plain.close()


def test_bulk_parts_are_acknowledged_to_the_last_byte(open_session, states):
    s = open_session()
    data = encode(F32, states[FIRST][:60])
    s.send_payload("forward", pb.Forward(number=1, count=60, want=pb.WANT_HIDDEN_LAST, bulk=True),
                   data, part=4096)
    assert same(rows_of(s.receive()), states[LAST][59:60])
    s.beat()
    assert s.acked == sorted(s.acked) and s.acked[-1] == len(data)
    assert all(a % 4096 == 0 or a == len(data) for a in s.acked)
    forward(s, 2, 60, states[FIRST][60:61])  # not bulk: nothing to acknowledge
    s.receive()
    s.beat()
    assert s.acked[-1] == len(data)
    s.close()


def test_parts_of_any_size_make_the_same_window(open_session, states):
    given, wanted = states[FIRST][:20], states[LAST][:20]
    for part in (1 << 20, 10000, 513, 61):
        s = open_session()
        forward(s, 1, 0, given, part=part)
        assert same(rows_of(s.receive()), wanted), part
        s.close()


def test_a_beat_comes_back_at_once(open_session):
    s = open_session()
    for _ in range(3):
        s.beat()
    assert s.beats == [1, 2, 3]
    s.close()


def test_the_real_model_layers_answer_like_the_file(smollm2, keys):
    tokens = [1, 4093, 28, 253, 1165, 732, 355, 260, 216, 34, 198, 42]
    given, wanted = rows(smollm2, tokens, 4), rows(smollm2, tokens, 26)
    model = bytes.fromhex(shown(smollm2)["fingerprint"])
    with (Worker(smollm2, keys, "--layers", "4-26", "-np", 2, "-c", 256) as w,
          channel(w.endpoint, keys) as c):
        s = Session(Stub(c))
        s.open(session=session_id(), model=model, first=4, last=26)
        forward(s, 1, 0, given[:8], bulk=True)
        assert same(rows_of(s.receive(), 576), wanted[:8])
        for pos in range(8, 12):
            forward(s, 1 + pos, pos, given[pos:pos + 1], reply_codec=F16 if pos == 11 else F32)
            found = rows_of(s.receive(), 576)
            if pos < 11:
                assert same(found, wanted[pos:pos + 1])
        error = np.abs(found - wanted[11:]).max() / np.abs(wanted[11:]).max()
        assert 0 < error <= ERROR[F16]
        s.close()


# ---- Open ------------------------------------------------------------------------------------


def refused_open(stub, described, **changed):
    fields = {"session": session_id(), "model": described.model.fingerprint, "first": FIRST,
              "last": LAST}
    fields.update(changed)
    s = Session(stub)
    s.send(open=pb.Open(**fields))
    return s.fails()


@pytest.mark.parametrize("changed, status, part", [
    ({"model": bytes(32)}, grpc.StatusCode.FAILED_PRECONDITION, "00000000"),
    ({"last": LAYERS + 1}, grpc.StatusCode.FAILED_PRECONDITION, "[2, 7)"),
    ({"first": 5, "last": 5}, grpc.StatusCode.FAILED_PRECONDITION, "[5, 5)"),
    ({"weights": bytes(32)}, grpc.StatusCode.FAILED_PRECONDITION, "quantisation"),
    ({"session": bytes(15)}, grpc.StatusCode.INVALID_ARGUMENT, "15"),
    ({"model": bytes(31)}, grpc.StatusCode.INVALID_ARGUMENT, "31"),
    ({"ctx_tokens": 513}, grpc.StatusCode.INVALID_ARGUMENT, "513"),
    ({"qos": pb.QOS_REALTIME}, grpc.StatusCode.PERMISSION_DENIED, "realtime")])
def test_an_open_that_cannot_be_is_refused_with_a_sentence(stub, described, changed, status, part):
    error = refused_open(stub, described, **changed)
    assert error.code() == status, error
    assert part in error.details()


def test_the_weights_of_the_stage_are_agreed_on(open_session, described):
    digest = hashlib.sha256(b"".join(described.model.weights[FIRST:LAST])).digest()
    open_session(weights=digest).close()


def test_a_worker_without_a_free_place_says_when_to_come_again(tiny, keys, described):
    with (Worker(tiny, keys, "-np", 2, "-c", 64) as w, channel(w.endpoint, keys) as c):
        stub = Stub(c)
        held = [Session(stub), Session(stub)]
        for s in held:
            s.open(session=session_id(), model=described.model.fingerprint, first=0, last=LAYERS)
        error = refused_open(stub, described)
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        retry = dict(error.trailing_metadata())["retry-after-ms"]
        assert 1 <= int(retry) <= 600000
        held[0].close()
        Session(stub).open(session=session_id(), model=described.model.fingerprint, first=0, last=1)
        held[1].close()


# ---- Trim, resume, Close --------------------------------------------------------------------


def test_after_a_trim_the_session_goes_on_as_if_it_had_never_been_longer(open_session, states):
    given, wanted = states[FIRST], states[LAST]
    s = open_session()
    forward(s, 1, 0, given[:30])
    forward(s, 2, 30, given[100:130])  # a draft that proves wrong
    assert same(rows_of(s.receive()), wanted[:30])
    assert not same(rows_of(s.receive()), wanted[30:60])
    s.send(trim=pb.Trim(epoch=1, pos=30))
    forward(s, 3, 30, given[30:60], epoch=1)
    result = s.receive()
    assert (result.number, result.epoch) == (3, 1)
    assert same(rows_of(result), wanted[30:60])
    s.close()


def test_windows_of_an_older_epoch_are_never_answered_behind_the_trim(open_session, states):
    given, wanted = states[FIRST], states[LAST]
    s = open_session()
    for number in range(1, 11):
        forward(s, number, 10 * (number - 1), given[10 * (number - 1):10 * number])
    s.send(trim=pb.Trim(epoch=7, pos=0))
    forward(s, 11, 0, given[10:20], epoch=6)  # sent before the client knew
    forward(s, 12, 0, given[:10], epoch=7)
    while True:
        result = s.receive()
        if result.epoch == 7:
            break
        assert result.epoch == 0 and result.number <= 10
    assert result.number == 12
    assert same(rows_of(result), wanted[:10])
    s.beat()
    s.close()


@pytest.mark.parametrize("epoch, pos", [(0, 0), (1, 11)])
def test_a_trim_back_in_epochs_or_beyond_the_end_is_refused(open_session, states, epoch, pos):
    s = open_session()
    forward(s, 1, 0, states[FIRST][:10])
    s.receive()
    s.send(trim=pb.Trim(epoch=epoch, pos=pos))
    error = s.fails()
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and error.details(), error


def test_a_session_outlives_its_stream_and_goes_on(open_session, states):
    given, wanted = states[FIRST], states[LAST]
    s = open_session()
    forward(s, 1, 0, given[:25])
    s.receive()
    s.send(trim=pb.Trim(epoch=3, pos=20))
    forward(s, 2, 20, given[20:30], epoch=3)
    s.receive()
    s.cancel()
    t = open_session(session=s.id, resume=True)
    assert (t.opened.length, t.opened.epoch) == (30, 3)
    forward(t, 3, 30, given[30:60], epoch=3)
    assert same(rows_of(t.receive()), wanted[30:60])
    t.close()
    gone = open_session(session=s.id, resume=True)  # closed: begins anew
    assert (gone.opened.length, gone.opened.epoch) == (0, 0)
    gone.close()


def test_a_session_that_is_taken_over_ends_its_old_stream_with_cancelled(open_session, states):
    given, wanted = states[FIRST], states[LAST]
    old = open_session()
    forward(old, 1, 0, given[:10])
    old.receive()
    new = open_session(session=old.id, resume=True)
    assert new.opened.length == 10
    assert old.fails().code() == grpc.StatusCode.CANCELLED
    forward(new, 2, 10, given[10:20])
    assert same(rows_of(new.receive()), wanted[10:20])
    new.close()


def test_a_second_session_of_one_id_is_refused(open_session, stub, described):
    s = open_session()
    error = refused_open(stub, described, session=s.id)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "resume" in error.details()
    s.close()


def test_the_session_of_another_client_is_not_to_be_had(open_session, worker, keys, described,
                                                        tmp_path):
    s = open_session()
    other = tmp_path / "other"
    subprocess.run([mcp_program(), "keys", "issue", "client", "other", "--keys", str(keys), "-o",
                    str(other)], check=True, env=clean_environment(), stdout=subprocess.DEVNULL)
    with channel(worker.endpoint, other) as c:
        error = refused_open(Stub(c), described, session=s.id, resume=True)
    assert error.code() == grpc.StatusCode.PERMISSION_DENIED
    s.beat()  # and s has not noticed
    s.close()


# ---- Generate, state -------------------------------------------------------------------------


def generate(s, number, pos, tokens, max_tokens=12, **fields):
    s.send(generate=pb.Generate(number=number, pos=pos, tokens=tokens, max_tokens=max_tokens,
                                **fields))


def generated(s, number):
    found = []
    while True:
        token = s.receive()
        assert token.number == number
        if token.stop != pb.STOP_END:
            found.append(token.token)
        if token.stop != pb.STOP_NOT:
            return found, token.stop


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "top_k": 30, "top_p": 0.9,
                                           "seed": 77}])
def test_a_worker_that_generates_by_itself_gives_the_local_answer(open_session, tiny, sampling):
    options = []
    for name, value in sampling.items():
        options += ["--" + {"temperature": "temp"}.get(name, name.replace("_", "-")), value]
    local = answer(tiny, "hello", "--raw", "-n", 24, "--min-p", 0, "--ignore-eos", *options)
    prompt = tokens_of(tiny, "hello")
    assert len(prompt) == local["prompt_tokens"]
    s = open_session(first=0, last=LAYERS)
    generate(s, 1, 0, prompt, 24, ignore_end=True, **sampling)
    assert generated(s, 1) == (local["tokens"], pb.STOP_LENGTH)
    s.close()


def tokens_of(model, text):
    """From libmcp, through ctypes."""
    from libmcp import Library, Model
    library = Library(os.environ.get("MCP_LIB") or
                      os.path.join(os.path.dirname(mcp_program()), "../lib/libmcp.so"))
    m = Model(library, model)
    try:
        return m.tokenize(text.encode())
    finally:
        m.close()


def test_an_answer_is_cut_by_a_trim_and_asked_for_again(open_session, tiny):
    prompt = tokens_of(tiny, "hello")
    local = answer(tiny, "hello", "--raw", "-n", 8, "--ignore-eos")["tokens"]
    s = open_session(first=0, last=LAYERS)
    generate(s, 1, 0, prompt, 400, ignore_end=True)
    first = [s.receive().token for _ in range(3)]
    assert first == local[:3]
    s.send(trim=pb.Trim(epoch=1, pos=len(prompt)))
    s.send(trim=pb.Trim(epoch=2, pos=0))
    generate(s, 2, 0, prompt + first, 5, epoch=2, ignore_end=True)
    token = s.receive()
    while token.number == 1:
        token = s.receive()
    found = [token.token]
    while token.stop == pb.STOP_NOT:
        token = s.receive()
        found.append(token.token)
    assert (found, token.stop) == (local[3:], pb.STOP_LENGTH)
    s.close()


def test_an_answer_stops_where_its_context_ends(open_session):
    s = open_session(first=0, last=LAYERS, ctx_tokens=40)
    room = s.opened.ctx_tokens
    generate(s, 1, 0, TOKENS[:20], room + 10, ignore_end=True)
    found, stop = generated(s, 1)
    assert stop == pb.STOP_CONTEXT and room - 20 <= len(found) <= room - 19
    s.close()


def test_state_moves_to_another_session(open_session, states):
    given, wanted = states[FIRST], states[LAST]
    a, b = open_session(), open_session()
    forward(a, 1, 0, given[:50])
    a.receive()
    a.send(export_state=pb.ExportState(number=2, first=FIRST, last=LAST, pos_first=0, pos_last=50))
    block = a.receive()
    assert (block.number, block.length) == (2, 50)
    assert len(block.data) > 50 * (LAST - FIRST) * EMBD
    b.send_payload("import_state", pb.ImportState(number=9), block.data)
    done = b.receive()
    assert (done.number, done.length, done.data) == (9, 50, b"")
    assert b.acked[-1] == len(block.data)
    forward(b, 10, 50, given[50:80])
    assert same(rows_of(b.receive()), wanted[50:80])
    a.close()
    b.close()


def test_a_broken_state_is_refused(open_session, states):
    a = open_session()
    forward(a, 1, 0, states[FIRST][:5])
    a.receive()
    a.send(export_state=pb.ExportState(number=2, first=FIRST, last=LAST, pos_first=0, pos_last=5))
    block = a.receive().data
    a.close()
    for bad in (block[:-1], block + b"x", bytes(len(block)), b"x"):
        s = open_session()
        s.send_payload("import_state", pb.ImportState(number=1), bad)
        error = s.fails()
        assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.DATA_LOSS,
                                grpc.StatusCode.FAILED_PRECONDITION), error
        assert error.details()


# ---- many at once, cancellation, deadlines ---------------------------------------------------


def test_twenty_streams_of_one_connection_all_get_their_own_bits(open_session, states):
    given, wanted = states[FIRST], states[LAST]
    sessions = [open_session() for _ in range(20)]
    failures = []

    def drive(s, count):
        try:
            forward(s, 1, 0, given[:count], bulk=True)
            assert same(rows_of(s.receive()), wanted[:count])
            for pos in range(count, count + 20):
                forward(s, pos, pos, given[pos:pos + 1])
                assert same(rows_of(s.receive()), wanted[pos:pos + 1])
            s.close()
        except BaseException as error:  # told by the test's thread
            failures.append((count, error))

    threads = [threading.Thread(target=drive, args=(s, 30 + i)) for i, s in enumerate(sessions)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
        assert not t.is_alive()
    assert failures == []


def test_a_cancelled_call_is_gone_at_the_worker(stub, open_session):
    watch = stub.Watch(pb.WatchRequest(every_ms=100), timeout=20)
    next(watch)
    s = open_session()
    assert s.call.cancel()
    with pytest.raises(grpc.RpcError) as ended:
        s.receive()
    assert ended.value.code() == grpc.StatusCode.CANCELLED
    # Detached, not closed: another subject could have its place, and its owner resumes it.
    t = open_session(session=s.id, resume=True)
    t.close()
    watch.cancel()


def test_a_deadline_of_the_call_ends_it(stub, described):
    began = time.monotonic()
    s = Session(stub, timeout=0.5)
    s.open(session=session_id(), model=described.model.fingerprint, first=FIRST, last=LAST)
    assert s.fails().code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.4 < time.monotonic() - began < 5
    watch = stub.Watch(pb.WatchRequest(every_ms=100), timeout=0.4)
    with pytest.raises(grpc.RpcError) as ended:
        for _ in watch:
            pass
    assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_window_that_is_not_begun_in_time_fails_and_the_session_stays(tiny, keys, described,
                                                                       states):
    with (Worker(tiny, keys, "--debug-commands", "-c", 256) as w, channel(w.endpoint, keys) as c):
        stub = Stub(c)
        s = Session(stub, metadata=[("mcp-debug-stall-ms", "150")])
        id_ = session_id()
        s.open(session=id_, model=described.model.fingerprint, first=FIRST, last=LAST)
        forward(s, 1, 0, states[FIRST][:10], deadline_ms=10000)
        assert same(rows_of(s.receive()), states[LAST][:10])
        forward(s, 2, 10, states[FIRST][10:20])  # runs for 150 ms
        forward(s, 3, 20, states[FIRST][20:30], deadline_ms=20)
        error = s.fails()
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and "window 3" in error.details()
        t = Session(stub)
        opened = t.open(session=id_, model=described.model.fingerprint, first=FIRST, last=LAST,
                        resume=True)
        assert opened.length in (10, 20)  # window 2 may still have run
        pos = opened.length
        forward(t, 4, pos, states[FIRST][pos:40])
        assert same(rows_of(t.receive()), states[LAST][pos:40])
        t.close()


def test_unknown_methods_and_compressed_messages_are_unimplemented(worker, keys):
    with channel(worker.endpoint, keys) as c:
        nothing = c.unary_unary(COMPUTE + "Nothing", lambda b: b, lambda b: b)
        with pytest.raises(grpc.RpcError) as refused:
            nothing(b"", timeout=20)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
        probe = c.stream_stream(COMPUTE + "Probe", pb.ProbeRequest.SerializeToString,
                                pb.ProbeReply.FromString)
        with pytest.raises(grpc.RpcError) as refused:
            list(probe(iter([pb.ProbeRequest(data=bytes(4096))]), timeout=20,
                       compression=grpc.Compression.Gzip))
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


# ---- identity --------------------------------------------------------------------------------


# In TLS 1.3 a client is connected before its certificate was looked at; the alert that follows
# is UNKNOWN to gRPC where it comes behind the first request.
REFUSED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN)


def describe_status(endpoint, credentials):
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(endpoint, credentials, options) as c:
        try:
            Stub(c).Describe(pb.DescribeRequest(), timeout=10)
            return grpc.StatusCode.OK
        except grpc.RpcError as error:
            return error.code()


def files(folder, *names):
    return [(folder / name).read_bytes() for name in names]


def test_certificates_of_another_authority_are_refused_both_ways(worker, keys, tmp_path):
    others = make_keys(tmp_path / "others")
    ca, key, cert = files(keys, "ca.pem", "client.key", "client.pem")
    other_ca, other_key, other_cert = files(others, "ca.pem", "client.key", "client.pem")
    ssl_credentials = grpc.ssl_channel_credentials
    assert describe_status(worker.endpoint, ssl_credentials(ca, other_key, other_cert)) in REFUSED
    assert describe_status(worker.endpoint, ssl_credentials(other_ca, key, cert)) in REFUSED
    assert describe_status(worker.endpoint, ssl_credentials(ca)) in REFUSED
    assert describe_status(worker.endpoint, ssl_credentials(ca, key, cert)) == grpc.StatusCode.OK


def tls_alert(worker, context, hello=b""):
    """What the worker's TLS says to a client of `context`; None when it takes it."""
    with socket.create_connection(("127.0.0.1", worker.port), timeout=10) as raw:
        try:
            with context.wrap_socket(raw, server_hostname="localhost") as tls:
                tls.sendall(hello)
                tls.settimeout(1)
                while tls.recv(4096):  # SETTINGS, which may come before the refusal
                    pass
                return None
        except TimeoutError:
            return None
        except ssl.SSLError as error:
            return str(error).lower().replace("_", " ")


def client_context(keys, role="client"):
    context = ssl.create_default_context(cafile=keys / "ca.pem")
    if role is not None:
        context.load_cert_chain(keys / f"{role}.pem", keys / f"{role}.key")
    context.set_alpn_protocols(["h2"])
    return context


def test_tls_takes_1_3_with_a_client_certificate_and_h2_and_nothing_else(worker, keys, tmp_path):
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    assert tls_alert(worker, client_context(keys), preface) is None

    old = client_context(keys)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "alert protocol version" in tls_alert(worker, old, preface)

    other = client_context(keys)
    other.set_alpn_protocols(["http/1.1"])
    assert "alert no application protocol" in tls_alert(worker, other, preface)

    assert "alert certificate required" in tls_alert(worker, client_context(keys, None), preface)
    wrong_role = client_context(keys, "worker")
    assert "alert unsupported certificate" in tls_alert(worker, wrong_role, preface)
    stranger = client_context(keys, None)
    others = make_keys(tmp_path / "others")
    stranger.load_cert_chain(others / "client.pem", others / "client.key")
    assert "alert unknown ca" in tls_alert(worker, stranger, preface)


def test_a_client_without_alpn_is_not_served(worker, keys):
    context = ssl.create_default_context(cafile=keys / "ca.pem")
    context.load_cert_chain(keys / "client.pem", keys / "client.key")
    assert "alert" in tls_alert(worker, context, b"GET / HTTP/1.1\r\n\r\n")


def token(keys, *arguments):
    done = subprocess.run([mcp_program(), "keys", "token", "--subject", "ann", "--keys", str(keys),
                           *map(str, arguments)], check=True, env=clean_environment(),
                          capture_output=True, text=True)
    return [("authorization", "Bearer " + done.stdout.strip())]


def test_a_worker_that_demands_tokens(tiny, keys, described):
    with (Worker(tiny, keys, "--require-token", "-c", 64) as w, channel(w.endpoint, keys) as c):
        stub = Stub(c)
        fields = {"model": described.model.fingerprint, "first": 0, "last": LAYERS}

        def opened(metadata):
            s = Session(stub, metadata)
            s.open(session=session_id(), **fields)
            return s

        def refused(metadata, **changed):
            s = Session(stub, metadata)
            s.send(open=pb.Open(session=session_id(), **{**fields, **changed}))
            return s.fails().code()

        good = token(keys)
        s = opened(good)
        forward_tokens(s, 1, 0, TOKENS[:3])
        s.receive()
        s.close()

        assert refused(None) == grpc.StatusCode.UNAUTHENTICATED
        assert refused([("authorization", good[0][1][:-4] + "AAAA")]) == \
            grpc.StatusCode.UNAUTHENTICATED
        assert refused([("authorization", "Basic QTpC")]) == grpc.StatusCode.UNAUTHENTICATED
        assert refused(token(keys, "--certificate", keys / "admin.pem")) == \
            grpc.StatusCode.UNAUTHENTICATED
        assert refused(token(keys, "--audience", "elsewhere")) == grpc.StatusCode.UNAUTHENTICATED
        assert refused(token(keys, "--fingerprint", "00" * 32)) == \
            grpc.StatusCode.PERMISSION_DENIED
        assert refused(token(keys, "--layers", "1-6")) == grpc.StatusCode.PERMISSION_DENIED
        assert refused(good, qos=pb.QOS_REALTIME) == grpc.StatusCode.PERMISSION_DENIED

        s = opened(token(keys, "--layers", "0-6", "--scope", "generate"))
        forward_tokens(s, 1, 0, TOKENS[:3])
        error = s.fails()
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED and "infer" in error.details()
        s = opened(token(keys, "--scope", "infer"))
        generate(s, 1, 0, TOKENS[:3])
        error = s.fails()
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED and "generate" in error.details()
        s = opened(token(keys, "--priority", "realtime"))
        s.close()
