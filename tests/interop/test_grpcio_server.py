# SPDX-License-Identifier: MIT
"""Our agent drives a worker that is gRPC's own Python server: well behaved, and in every way not.

Whatever the worker does, the text is the local one or the program ends with one sentence."""

import json
import os
import struct
import subprocess
import time

import cluster
import grpc
import pytest
from cluster import Worker, clean_environment, make_keys, mcp_program
from cluster_fixtures import LAYERS
from double import Double
from oracle import answer
from wire_proto import Stub, channel, pb

PROMPT = "Tell me a story about a long road and what stood at its end. " * 4
COUNT = 24
SPLIT = ("--mode", "split", "--codec", "f32", "--cuts", "1,5", "--chunk", 64, "-p", PROMPT, "-n",
         COUNT, "--temp", 0, "--ignore-eos")
BRIEF = (*SPLIT, "--answer-ms", 1500)
ALONE = ("--fallback", "none", "--failover-ms", 600)


@pytest.fixture(scope="module")
def worker(tiny, keys):
    """A good one."""
    with Worker(tiny, keys, "-np", 16) as w:
        yield w
        assert w.stop() == 0


@pytest.fixture(scope="module")
def upstream(tiny, keys):
    """Calls to the worker that computes for the doubles."""
    with Worker(tiny, keys, "-np", 16, "--lease-ms", 100) as w:
        with channel(w.endpoint, keys) as c:
            yield Stub(c)
        assert w.stop() == 0


@pytest.fixture(scope="module")
def local(tiny):
    """The tokens that must come, whoever computes them."""
    return answer(tiny, PROMPT, "-n", COUNT, "--ignore-eos")["tokens"]


# Nothing here takes as long: who does hangs.
def run(*arguments):
    return cluster.run(*arguments, timeout_s=20)


def try_run(*arguments):
    return cluster.try_run(*arguments, timeout_s=20)


def command(*arguments, status=0):
    done = subprocess.run([mcp_program(), *map(str, arguments)], env=clean_environment(), text=True,
                          capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == status, done
    return done


# ---- a good worker ---------------------------------------------------------------------------


def test_the_text_through_a_grpcio_server_is_the_local_text(upstream, keys, tiny, local):
    with Double(upstream, keys) as d:
        got = run(tiny, keys, "--worker", d.endpoint, *SPLIT, "--spec", "none")
        assert got["tokens"] == local
        assert (got["failovers"], got["plan"]["cuts"]) == (0, [1, 5])
        assert got["bytes_in"] == got["bytes_out"] > (COUNT - 1) * 512
        assert d.executes == 1


def test_the_whole_model_there_generates_the_local_text(upstream, keys, tiny):
    with Double(upstream, keys) as d:
        got = run(tiny, keys, "--worker", d.endpoint, "--mode", "cloud", "-p", "hello", "-n", COUNT,
                  "--temp", 0, "--ignore-eos")
        assert got["tokens"] == answer(tiny, "hello", "-n", COUNT, "--ignore-eos")["tokens"]
        # Opened, a frame a token, Closed; and every 250 ms a Beat that measures the link.
        assert d.executes == 1 and COUNT + 2 <= d.replies < 2 * COUNT


def test_ping_and_show_ask_a_grpcio_server(upstream, worker, keys):
    with Double(upstream, keys) as d:
        ping = json.loads(command("ping", d.endpoint, "--keys", keys, "--json").stdout)
        assert 0 < ping["rtt_ms"]["p50"] < 1000 and ping["up_mbit"] > 0 and ping["down_mbit"] > 0
        there, here = (json.loads(command("show", "--worker", e, "--keys", keys, "--json").stdout)
                       for e in (d.endpoint, worker.endpoint))
        for key in ("model", "fingerprint", "layers", "first", "last", "codecs", "features"):
            assert there[key] == here[key]


def test_metadata_carries_the_token(upstream, keys):
    with Double(upstream, keys) as d:
        command("show", "--worker", d.endpoint, "--keys", keys, "--token", "a.b.c")
        assert d.metadata[-1]["authorization"] == "Bearer a.b.c"


def test_a_server_of_another_authority_is_no_worker(upstream, keys, tiny, tmp_path):
    others = make_keys(tmp_path / "others")
    with Double(upstream, others) as d:
        done = try_run(tiny, keys, "--worker", d.endpoint, *SPLIT)
        assert done.returncode == 1 and one_sentence(done), done
        assert "authority" in done.stderr or "certificate" in done.stderr
        assert d.executes == 0


# ---- bad manners -----------------------------------------------------------------------------


def one_sentence(done):
    lines = done.stderr.splitlines()
    return len(lines) == 1 and lines[0].startswith("mcp run: ") and len(lines[0]) > 20


def result_after(windows):
    """Decorator of a frame change: only Results behind the first `windows` are changed."""
    def wrap(change):
        class Changed(Double):
            results = 0

            def reply(self, reply, context):
                if reply.WhichOneof("frame") != "result":
                    return [reply]
                self.results += 1
                return [reply] if self.results <= windows else change(self, reply, context)
        Changed.__name__ = change.__name__
        return Changed
    return wrap


@result_after(8)
def one_row_more(_, reply, __):
    reply.result.rows += 1
    return [reply]


@result_after(8)
def no_rows(_, reply, __):
    reply.result.rows = 0
    reply.result.data = b""
    reply.result.data_total = 0
    return [reply]


@result_after(8)
def half_a_row(_, reply, __):
    reply.result.data = reply.result.data[:len(reply.result.data) // 2]
    reply.result.data_total = len(reply.result.data)
    return [reply]


@result_after(8)
def nan_rows(_, reply, __):
    reply.result.data = struct.pack("<f", float("nan")) * (len(reply.result.data) // 4)
    return [reply]


@result_after(8)
def infinite_rows(_, reply, __):
    reply.result.data = struct.pack("<f", float("inf")) * (len(reply.result.data) // 4)
    return [reply]


@result_after(8)
def another_codec(_, reply, __):
    reply.result.codec = pb.CODEC_BF16
    return [reply]


@result_after(8)
def unknown_codec(_, reply, __):
    reply.result.codec = 77
    return [reply]


@result_after(8)
def a_wrap_that_is_none(_, reply, __):
    reply.result.wrap = pb.WRAP_ZSTD
    return [reply]


@result_after(8)
def a_total_never_reached(_, reply, __):
    reply.result.data_total += 1
    return [reply]


@result_after(8)
def a_total_too_small(_, reply, __):
    reply.result.data_total = 1
    return [reply]


@result_after(8)
def a_total_of_petabytes(_, reply, __):
    reply.result.data_total = 1 << 50
    return [reply]


@result_after(8)
def more_out_of_nowhere(_, reply, __):
    return [pb.ExecuteReply(more=pb.More(data=b"xxxx")), reply]


@result_after(8)
def numbers_from_the_future(_, reply, __):
    reply.result.number += 1000
    return [reply]


@result_after(8)
def answers_twice(_, reply, __):
    return [reply, reply]


@result_after(8)
def a_foreign_position(_, reply, __):
    reply.result.pos += 7
    reply.result.count += 1
    return [reply]


@result_after(8)
def an_ack_beyond_what_was_sent(_, reply, __):
    return [pb.ExecuteReply(ack=pb.Ack(bytes=1 << 60)), reply]


@result_after(8)
def tokens_where_rows_are_due(_, reply, __):
    return [pb.ExecuteReply(token=pb.Token(number=reply.result.number, token=1)), reply]


@result_after(8)
def a_second_opened(_, reply, __):
    return [pb.ExecuteReply(opened=pb.Opened(length=3)), reply]


@result_after(8)
def no_frame_at_all(_, reply, __):
    return [pb.ExecuteReply(), reply]


@result_after(8)
def closed_unasked(_, reply, __):
    return [pb.ExecuteReply(closed=pb.Closed())]


@result_after(8)
def half_a_message(_, reply, __):
    data = reply.SerializeToString()
    return [data[:len(data) // 2]]


@result_after(8)
def noise(_, __, ___):
    return [os.urandom(40)]


@result_after(8)
def a_message_of_five_megabytes(_, __, ___):
    return [bytes(5 << 20)]


class ends_with_ok(Double):
    def Execute(self, requests, context):
        for number, reply in enumerate(super().Execute(requests, context)):
            if number == 6 and self.executes <= 2:
                return
            yield reply


@result_after(8)
def unavailable(_, __, context):
    context.abort(grpc.StatusCode.UNAVAILABLE, "gone fishing")


@result_after(8)
def internal(_, __, context):
    context.abort(grpc.StatusCode.INTERNAL, "bang \x07\n\x1b[31m with controls")


@result_after(8)
def falls_silent(_, __, context):
    while context.is_active():
        time.sleep(0.02)
    return []


class opened_longer_than_new(Double):
    def reply(self, reply, context):
        if reply.WhichOneof("frame") == "opened":
            reply.opened.length = 500
        return [reply]


class opened_without_room(Double):
    def reply(self, reply, context):
        if reply.WhichOneof("frame") == "opened":
            reply.opened.ctx_tokens = reply.opened.windows_max = reply.opened.batch_tokens = 0
            reply.opened.queue_bytes_max = 0
        return [reply]


class result_first(Double):
    def reply(self, reply, context):
        return [pb.ExecuteReply(result=pb.Result(number=1, rows=1, data=b"1234", data_total=4)),
                reply]


class silent_from_the_start(Double):
    def began(self, context):
        while context.is_active():
            time.sleep(0.02)


class always_full(Double):
    def began(self, context):
        context.set_trailing_metadata([("retry-after-ms", "100")])
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no place")


class full_for_years(Double):
    def began(self, context):
        context.set_trailing_metadata([("retry-after-ms", "99999999999999999999")])
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no place")


class refuses(Double):
    def began(self, context):
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "the token of ann lacks the scope infer")


class draining_all_the_time(Double):
    def reply(self, reply, context):
        return [pb.ExecuteReply(draining=pb.Draining(within_ms=50)), reply]


BAD = [one_row_more, no_rows, half_a_row, nan_rows, infinite_rows, another_codec, unknown_codec,
       a_wrap_that_is_none, a_total_never_reached, a_total_too_small, a_total_of_petabytes,
       more_out_of_nowhere, numbers_from_the_future, an_ack_beyond_what_was_sent, no_frame_at_all,
       half_a_message, noise, a_message_of_five_megabytes, closed_unasked, unavailable, internal,
       falls_silent, result_first, silent_from_the_start, always_full, full_for_years, refuses]
ODD = [answers_twice, a_foreign_position, tokens_where_rows_are_due, a_second_opened,
       opened_longer_than_new, opened_without_room, draining_all_the_time, ends_with_ok]


@pytest.mark.parametrize("manners", BAD, ids=lambda c: c.__name__)
def test_behind_a_bad_worker_a_good_one_gives_the_text(manners, upstream, worker, keys, tiny,
                                                       local):
    with manners(upstream, keys) as bad:
        got = run(tiny, keys, "--worker", bad.endpoint, "--worker", worker.endpoint, *BRIEF,
                  "--fallback", "none")
        assert got["tokens"] == local
        stage = got["plan"]["stages"][1]
        assert worker.endpoint in stage["device"]


@pytest.mark.parametrize("manners", BAD, ids=lambda c: c.__name__)
def test_with_a_bad_worker_alone_the_layers_are_loaded_here(manners, upstream, keys, tiny, local):
    with manners(upstream, keys) as bad:
        got = run(tiny, keys, "--worker", bad.endpoint, *BRIEF, "--failover-ms", 600)
        assert got["tokens"] == local


@pytest.mark.parametrize("manners", BAD, ids=lambda c: c.__name__)
def test_with_nothing_else_it_ends_with_one_sentence(manners, upstream, keys, tiny, local):
    with manners(upstream, keys) as bad:
        began = time.monotonic()
        done = try_run(tiny, keys, "--worker", bad.endpoint, *BRIEF, *ALONE)
        assert done.returncode == 1 and one_sentence(done), done
        assert time.monotonic() - began < 10
        if done.stdout:  # what was decided before the end stays right
            shown = json.loads(done.stdout)
            assert shown["stop_reason"] == "error" and shown["error"]
            assert shown["tokens"] == local[:len(shown["tokens"])]


@pytest.mark.parametrize("manners", ODD, ids=lambda c: c.__name__)
def test_an_odd_worker_gives_the_text_or_none(manners, upstream, keys, tiny, local):
    with manners(upstream, keys) as odd:
        done = try_run(tiny, keys, "--worker", odd.endpoint, *BRIEF, *ALONE)
        shown = json.loads(done.stdout) if done.stdout else {"tokens": []}
        assert shown["tokens"] == local[:len(shown["tokens"])]
        assert done.returncode == 0 or (done.returncode == 1 and one_sentence(done)), done


def test_a_full_worker_is_asked_again_when_it_said(upstream, keys, tiny, local):
    class Full(Double):
        def began(self, context):
            if self.executes <= 2:
                context.set_trailing_metadata([("retry-after-ms", "300")])
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no place")

    with Full(upstream, keys) as d:
        began = time.monotonic()
        got = run(tiny, keys, "--worker", d.endpoint, *SPLIT, "--fallback", "none")
        assert got["tokens"] == local and d.executes == 3
        assert time.monotonic() - began > 0.6


class drains(Double):
    def reply(self, reply, context):
        notice = pb.ExecuteReply(draining=pb.Draining(within_ms=2000))
        return [notice, reply] if self.replies == 10 else [reply]


def test_a_drain_is_followed_before_the_stream_ends(upstream, worker, keys, tiny, local):
    with drains(upstream, keys) as d:
        got = run(tiny, keys, "--worker", d.endpoint, "--worker", worker.endpoint, *SPLIT,
                  "--fallback", "none")
        assert got["tokens"] == local
        assert (got["handovers"], got["failovers"]) == (1, 0)


# ---- Describe --------------------------------------------------------------------------------


def described(**changes):
    class Changed(Double):
        def describe(self, reply):
            for name, value in changes.items():
                at = reply
                *path, last = name.split("__")
                for part in path:
                    at = getattr(at, part)
                if isinstance(value, list):
                    del getattr(at, last)[:]
                    getattr(at, last).extend(value)
                else:
                    setattr(at, last, value)
            return reply
    return Changed


@pytest.mark.parametrize("changes, word", [
    ({"model__fingerprint": bytes(32)}, "model"),
    ({"model__fingerprint": b"short"}, ""),
    ({"model__layers": 0, "model__first": 0, "model__last": 0, "model__weights": []}, ""),
    ({"model__first": 9, "model__last": 3}, ""),
    ({"model__last": LAYERS + 4}, ""),
    ({"model__weights": [b"x" * 31]}, ""),
    ({"model__weights": [bytes(32)] * LAYERS}, "weights")])
def test_a_worker_that_describes_another_model_is_not_used(upstream, keys, tiny, changes, word):
    with described(**changes)(upstream, keys) as d:
        done = try_run(tiny, keys, "--worker", d.endpoint, *SPLIT, *ALONE)
        assert done.returncode == 1 and one_sentence(done), done
        assert word in done.stderr


def test_a_name_full_of_controls_reaches_the_terminal_tamed(upstream, keys):
    changes = {"name": "\x1b]0;evil\x07", "model__name": "a\x1b[2Jb", "degraded": "\r\n\x1b[31mred"}
    with described(**changes)(upstream, keys) as d:
        for done in (command("show", "--worker", d.endpoint, "--keys", keys),
                     command("ping", d.endpoint, "--keys", keys, "--count", 1, "--bulk", 0)):
            assert "\x1b" not in done.stdout and "\x07" not in done.stdout


def test_newer_words_in_describe_are_no_error(upstream, keys, tiny, local):
    changes = {"features": ["resume", "telepathy"], "codecs": [0, 1, 99], "wraps": [0, 42],
               "version": "9.9.9"}
    with described(**changes)(upstream, keys) as d:
        assert run(tiny, keys, "--worker", d.endpoint, *SPLIT)["tokens"] == local


def test_a_codec_that_the_worker_lacks_is_not_used(upstream, keys, tiny):
    with described(codecs=[pb.CODEC_F32, pb.CODEC_F16])(upstream, keys) as d:
        arguments = [*SPLIT]
        arguments[arguments.index("f32")] = "q8"
        done = try_run(tiny, keys, "--worker", d.endpoint, *arguments, *ALONE)
        if done.returncode == 0:
            assert json.loads(done.stdout)["codec"] in ("f16", "f32")
        else:
            assert one_sentence(done) and "q8" in done.stderr


@pytest.mark.parametrize("part", ["half", "less one byte", "nothing", "noise", "too much"])
def test_a_description_that_is_none_ends_with_one_sentence(upstream, keys, tiny, part):
    class Garbled(Double):
        def describe(self, reply):
            data = reply.SerializeToString()
            return {"half": data[:len(data) // 2], "less one byte": data[:-1], "nothing": b"",
                    "noise": b"\xff" * 64, "too much": bytes(5 << 20)}[part]

    with Garbled(upstream, keys) as d:
        done = try_run(tiny, keys, "--worker", d.endpoint, *SPLIT, *ALONE)
        assert done.returncode == 1 and one_sentence(done), done
        for verb in (("ping", d.endpoint), ("show", "--worker", d.endpoint)):
            done = command(*verb, "--keys", keys, status=1)
            assert len(done.stderr.splitlines()) <= 1, done
