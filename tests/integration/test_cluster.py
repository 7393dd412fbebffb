# SPDX-License-Identifier: MIT
"""A user's cluster from end to end, each part a process: keys, workers, agents, and the link
between them with its faults.  Whatever happens on the way, the text is the local one."""

import json
import os
import re
import signal
import subprocess
import time

import pytest
from cluster import Agent, Link, Worker, clean_environment, make_keys, mcp_program, run, try_run
from cluster_fixtures import EMBD, LAYERS, keys, make_tiny, tiny  # noqa: F401

PROMPT = "Once upon a time there was a road that led to the sea. " * 5
GREEDY = ("--temp", 0, "--ignore-eos")
SHORT = ("-p", PROMPT, "-n", 24, *GREEDY)
GUESSING = ("--mode", "split", "--codec", "f32", "--cuts", "1,5")
SPLIT = (*GUESSING, "--spec", "none")  # as many windows and bytes each time
RTT = 20
LONG_COUNT = 100
LONG = ("-p", "hello", "-n", LONG_COUNT, *GREEDY, *GUESSING)  # two seconds at that round trip
MIDWAY = 50 * EMBD * 4                                     # of its bytes


def command(*arguments, status=0, env=None, stdin=""):
    done = subprocess.run([mcp_program(), *map(str, arguments)], input=stdin, capture_output=True,
                          env=clean_environment(**(env or {})), timeout=60, check=False,
                          encoding="utf-8", errors="surrogateescape")
    assert done.returncode == status, done
    return done


def one_sentence(done, verb="run"):
    lines = done.stderr.splitlines()
    return len(lines) == 1 and lines[0].startswith(f"mcp {verb}: ") and len(lines[0]) > 20


def local(tiny, *arguments):
    """Computed here, with the arithmetic that workers have."""
    return run(tiny, "none", *arguments, "--mode", "local", "--even-windows", "--chunk", 64)


@pytest.fixture(scope="module")
def short(tiny):
    return local(tiny, *SHORT)["tokens"]


@pytest.fixture(scope="module")
def long(tiny):
    return local(tiny, "-p", "hello", "-n", LONG_COUNT, *GREEDY)["tokens"]


@pytest.fixture(scope="module")
def worker(tiny, keys):
    with Worker(tiny, keys, "-np", 16) as w:
        yield w
        assert w.stop() == 0


# ---- the user's path -------------------------------------------------------------------------


def test_from_nothing_to_an_answer(tiny, short, tmp_path):
    """`keys init` and `worker` there; one line; `join` and `run` here."""
    there, here = tmp_path / "there", tmp_path / "here"
    make_keys(there)
    with Worker(tiny, there) as w:
        line = command("keys", "invite", "ann", "--endpoint", w.endpoint, "--keys", there).stdout
        command("join", "--keys", here, stdin=line)
        assert {"ca.pem", "client.pem", "client.key", "workers"} <= set(os.listdir(here))
        done = command("run", "-m", tiny, *SHORT, "--json", "--codec", "f32", "--mode", "split", env={
            "MCP_KEYS": str(here), "MCP_THREADS": "1"})
        got = json.loads(done.stdout)
        assert got["tokens"] == short
        assert all(line.startswith("measuring ") for line in done.stderr.splitlines())
        stages = got["plan"]["stages"]
        assert got["plan"]["mode"] == "split" and len(got["plan"]["cuts"]) == 2
        assert [s["where"] for s in stages] == ["here", "worker", "here"]
        assert w.endpoint in stages[1]["device"]
        ping = command("ping", "--json", env={"MCP_KEYS": str(here)})
        assert json.loads(ping.stdout)["state"] == "up"


def test_text_for_people_and_where_it_came_from(worker, tiny, keys):
    done = command("run", "-m", tiny, "--keys", keys, "--worker", worker.endpoint, *SHORT, *SPLIT,
                   "-t", 1)
    quiet = command("run", "-m", tiny, *SHORT, "--mode", "local", "--even-windows", "--chunk", 64,
                    "-t", 1)
    assert done.stdout == quiet.stdout
    assert f"layers [1,5) {worker.endpoint}" in done.stderr
    assert re.search(r"failovers 0, handovers 0", done.stderr)


def test_json_tells_what_it_took(worker, tiny, keys, short):
    got = run(tiny, keys, "--worker", worker.endpoint, *SHORT, *SPLIT)
    positions = got["prompt_tokens"] + 23
    assert got["bytes_out"] == got["bytes_in"] == positions * EMBD * 4
    assert got["windows"] == -(-got["prompt_tokens"] // 64) + 23
    assert (got["failovers"], got["handovers"], got["codec"]) == (0, 0, "f32")
    assert 0 < got["stall_ms_max"] < 5000
    assert [(s["first"], s["last"], s["where"]) for s in got["plan"]["stages"]] == [
        (0, 1, "here"), (1, 5, "worker"), (5, LAYERS, "here")]
    for stage in got["plan"]["stages"]:
        assert stage["positions"] == positions and stage["windows"] == got["windows"]
        assert 0 < stage["compute_ms"] <= stage["elapsed_ms"] and stage["queue_ms"] >= 0


def test_ping_measures_the_link(tiny, worker, keys):
    with Link(worker.port, rtt=RTT, mbit=200) as link:
        got = json.loads(command("ping", link.endpoint, "--keys", keys, "--json", "--count",
                                 5).stdout)
    assert got["state"] == "up" and got["problem"] == "" and got["name"] == "worker"
    assert got["tls"].startswith("TLSv1.3") and got["version"]
    assert RTT <= got["rtt_ms"]["min"] <= got["rtt_ms"]["p50"] <= got["rtt_ms"]["max"] < 10 * RTT
    assert 40 < got["up_mbit"] <= 210 and 40 < got["down_mbit"] <= 210
    text = command("ping", worker.endpoint, "--keys", keys, "--count", 2, "--bulk", 0).stdout
    assert "rtt" in text and "goodput" not in text


def test_ping_says_what_is_wrong(worker, keys, tmp_path):
    with Link(worker.port) as link:
        link.tell("hole on")
        nobody = command("ping", link.endpoint, "--keys", keys, "--json", status=1)
        assert nobody.stderr.startswith("mcp ping: ") or json.loads(nobody.stdout)["problem"]
    others = make_keys(tmp_path / "others")
    for folder, word in ((others, "certificate"), (tmp_path / "none", "keys init")):
        done = command("ping", worker.endpoint, "--keys", folder, status=1)
        assert word in done.stderr + done.stdout
    done = command("ping", f"127.0.0.1:{free_port()}", "--keys", keys, status=1)
    assert "refused" in done.stderr + done.stdout


def free_port():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_show_tells_the_same_of_a_file_and_of_who_serves_it(worker, tiny, keys):
    file = json.loads(command("show", tiny, "--json").stdout)
    served = json.loads(command("show", "--worker", worker.endpoint, "--keys", keys,
                                "--json").stdout)
    for key in ("architecture", "layers", "n_embd", "quantisation", "fingerprint"):
        assert served[key] == file[key], key
    assert (served["first"], served["last"], served["sessions"]) == (0, LAYERS, 16)


# ---- ways to split ---------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", ["1,2", "1,3", "1,5", "2,4", "3,5", "4,5"])
def test_any_cuts_give_the_local_text(cuts, worker, tiny, keys, short):
    got = run(tiny, keys, "--worker", worker.endpoint, *SHORT, "--mode", "split", "--codec", "f32",
              "--cuts", cuts)
    assert got["tokens"] == short
    assert got["plan"]["cuts"] == list(map(int, cuts.split(",")))


@pytest.mark.parametrize("chunk", [1, 7, 63, 64, 128])
def test_any_chunk_gives_the_local_text_in_the_same_windows(chunk, worker, tiny, keys):
    wanted = run(tiny, "none", *SHORT, "--mode", "local", "--even-windows", "--chunk",
                 chunk)["tokens"]
    got = run(tiny, keys, "--worker", worker.endpoint, *SHORT, *SPLIT, "--chunk", chunk)
    assert got["tokens"] == wanted


@pytest.mark.parametrize("wrap", ["zstd", "snappy"])
def test_lossless_wraps_change_nothing_but_the_bytes(wrap, worker, tiny, keys, short):
    got = run(tiny, keys, "--worker", worker.endpoint, *SHORT, *SPLIT, "--wrap", wrap)
    plain = (got["prompt_tokens"] + 23) * EMBD * 4
    assert got["tokens"] == short
    assert 0.5 * plain < got["bytes_out"] <= plain and 0.5 * plain < got["bytes_in"] <= plain


@pytest.mark.parametrize("codec, row", [
    ("f16", 2 * EMBD), ("bf16", 2 * EMBD), ("q8", 34 * EMBD // 32), ("q8r", 34 * EMBD // 32),
    ("q4r", 34 * EMBD // 64 + 4 * (EMBD // 128))])
def test_a_codec_costs_its_bytes_and_gives_the_same_text_each_time(codec, row, worker, tiny, keys):
    arguments = ["--worker", worker.endpoint, *SHORT, *SPLIT]
    arguments[arguments.index("f32")] = codec
    first, second = (run(tiny, keys, *arguments) for _ in range(2))
    positions = first["prompt_tokens"] + 23
    assert first["codec"] == codec and first["bytes_out"] == first["bytes_in"] == positions * row
    assert first["tokens"] == second["tokens"]


def test_cloud_mode_gives_the_local_text(worker, tiny, keys):
    arguments = ("-p", "hello", "-n", 40, "--ignore-eos", "--temp", 0.8, "--seed", 5)
    got = run(tiny, keys, "--worker", worker.endpoint, *arguments, "--mode", "cloud")
    assert got["tokens"] == local(tiny, *arguments)["tokens"]
    assert got["plan"]["mode"] == "cloud" and len(got["plan"]["stages"]) == 1
    assert got["bytes_out"] < 40 * 128


def test_sampling_is_the_local_one(worker, tiny, keys):
    arguments = ("-p", PROMPT, "-n", 40, "--ignore-eos", "--temp", 0.9, "--seed", 11)
    got = run(tiny, keys, "--worker", worker.endpoint, *arguments, *SPLIT)
    assert got["tokens"] == local(tiny, *arguments)["tokens"]


def test_two_hops_give_the_local_text(tiny, keys, short):
    with Worker(tiny, keys, "--layers", "1-3") as a, Worker(tiny, keys, "--layers", "3-5") as b:
        got = run(tiny, keys, "--worker", b.endpoint, "--worker", a.endpoint, *SHORT, "--codec",
                  "f32", "--cuts", "1,3,5")
        assert got["tokens"] == short
        assert got["plan"]["cuts"] == [1, 3, 5]
        assert a.endpoint in got["plan"]["stages"][1]["device"]
        assert b.endpoint in got["plan"]["stages"][2]["device"]


def test_eight_agents_at_once(worker, tiny, keys, short):
    agents = [Agent(tiny, keys, "--worker", worker.endpoint, *SHORT, *SPLIT) for _ in range(8)]
    for agent in agents:
        assert agent.result()["tokens"] == short


def test_a_chat_goes_on_where_it_was(worker, tiny, keys):
    turns = "first\nsecond\nthird\n"
    arguments = ("run", "-m", tiny, "-n", 12, *GREEDY, "-t", 1)
    there = command(*arguments, "--keys", keys, "--worker", worker.endpoint, *SPLIT, stdin=turns)
    here = command(*arguments, "--mode", "local", "--even-windows", "--chunk", 64, stdin=turns)
    assert there.stdout == here.stdout and len(there.stdout.splitlines()) >= 3


@pytest.mark.parametrize("arguments, says", [
    (("--cuts", "3"), "two cuts"), (("--codec", "q9"), "q9"),
    (("--mode", "cloud"), "layers [0, 6)"),
    (("--cuts", "1,5", "--qos", "realtime"), "realtime")])
def test_what_cannot_be_is_said(arguments, says, tiny, keys):
    with Worker(tiny, keys, "--layers", "1-5") as w:
        done = try_run(tiny, keys, "--worker", w.endpoint, *SHORT, "--mode", "split", *arguments,
                       "--fallback", "none", "--failover-ms", 300)
    assert done.returncode == 1 and one_sentence(done), done
    assert says in done.stderr


# ---- loss ------------------------------------------------------------------------------------


class Pair:
    """Two workers, each behind a link, and an agent that is midway in its answer on the first."""

    def __init__(self, tiny, keys, *arguments, answer=LONG, second=True, rtt=RTT, midway=MIDWAY,
                 drain_ms=10000):
        self.workers = [Worker(tiny, keys, "--drain-ms", drain_ms) for _ in range(1 + second)]
        self.links = [Link(w.port, rtt) for w in self.workers]
        self.agent = None
        try:
            named = [word for link in self.links for word in ("--worker", link.endpoint)]
            self.agent = Agent(tiny, keys, *named, *answer, *arguments)
            self.at = self.busy(midway)
        except BaseException:
            self.end()
            raise
        self.link, self.worker = self.links[self.at], self.workers[self.at]

    def busy(self, more=MIDWAY):
        """Wait until a link has carried so many bytes more; which one it was."""
        before = [link.stats()["down"] for link in self.links]
        end = time.monotonic() + 30
        while True:
            for i, link in enumerate(self.links):
                if link.stats()["down"] >= before[i] + more:
                    return i
            assert self.agent.process.poll() is None, self.agent.end()
            assert time.monotonic() < end
            time.sleep(0.005)

    def end(self):
        if self.agent is not None and self.agent.process.poll() is None:
            self.agent.process.kill()
            self.agent.process.communicate()
        for process in (*self.links, *self.workers):
            process.signal(signal.SIGCONT) if process.process.poll() is None else None
            process.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def hit(pair, fault):
    {"kill": lambda: pair.worker.signal(signal.SIGKILL),
     "stop": lambda: pair.worker.signal(signal.SIGSTOP),
     "hole": lambda: pair.link.tell("hole on"), "reset": lambda: pair.link.tell("reset")}[fault]()


@pytest.mark.parametrize("fault", ["kill", "stop", "hole", "reset"])
def test_with_a_standby_a_lost_worker_costs_a_moment(fault, tiny, keys, long):
    with Pair(tiny, keys, "--fallback", "none") as pair:
        hit(pair, fault)
        got = pair.agent.result()
        assert got["tokens"] == long
        assert (got["failovers"], got["handovers"]) == (1, 0)
        assert got["stall_ms_max"] < 3000
        if fault != "reset":  # which its worker survives: it may be resumed there
            assert pair.links[1 - pair.at].endpoint in got["plan"]["stages"][1]["device"]


@pytest.mark.parametrize("fault", ["kill", "stop", "hole"])
def test_without_another_worker_this_machine_takes_over(fault, tiny, keys, long):
    with Pair(tiny, keys, second=False) as pair:
        hit(pair, fault)
        got = pair.agent.result()
        assert got["tokens"] == long and got["failovers"] == 1
        assert got["plan"]["stages"][1]["where"] == "here"
        assert got["stall_ms_max"] < 4000


def test_a_reset_connection_is_dialled_again_and_the_session_resumed(tiny, keys, long):
    with Pair(tiny, keys, "--fallback", "none", second=False) as pair:
        hit(pair, "reset")
        got = pair.agent.result()
        assert got["tokens"] == long and got["failovers"] == 1
        assert got["plan"]["stages"][1]["replayed_positions"] < 8  # it had kept the rest


def test_one_connection_lost_again_and_again(tiny, keys, long):
    with Pair(tiny, keys, "--fallback", "none", second=False) as pair:
        for _ in range(3):
            hit(pair, "reset")
            pair.busy(10 * EMBD * 4)
        got = pair.agent.result()
        assert got["tokens"] == long and got["failovers"] == 3


def test_a_worker_that_was_left_is_taken_again(tiny, keys, long):
    """It may still hold the session from before, for its lease."""
    with Pair(tiny, keys, "--fallback", "none") as pair:
        hit(pair, "hole")
        other = pair.busy(10 * EMBD * 4)
        assert other != pair.at
        pair.link.tell("hole off")
        time.sleep(0.3)
        pair.workers[other].signal(signal.SIGKILL)
        got = pair.agent.result()
        assert got["tokens"] == long and got["failovers"] == 2
        assert pair.link.endpoint in got["plan"]["stages"][1]["device"]


def test_a_worker_that_comes_back_is_waited_for(tiny, keys, long):
    with Pair(tiny, keys, "--fallback", "none", second=False) as pair:
        hit(pair, "stop")
        time.sleep(1.5)
        pair.worker.signal(signal.SIGCONT)
        got = pair.agent.result()
        assert got["tokens"] == long and got["failovers"] >= 1
        assert 1000 < got["stall_ms_max"] < 8000


def test_nothing_left_is_one_sentence(tiny, keys, long):
    with Pair(tiny, keys, "--fallback", "none", "--failover-ms", 500, second=False) as pair:
        hit(pair, "kill")
        status, shown, err = pair.agent.end()
        assert status == 1 and err.startswith("mcp run: ") and len(err.splitlines()) == 1, err
        assert shown["stop_reason"] == "error" and shown["error"]
        count = len(shown["tokens"])
        assert count >= 5 and shown["tokens"] == long[:count]


@pytest.mark.parametrize("hops", [1, 2])
def test_a_stage_of_two_hops_is_lost(hops, tiny, keys, long):
    with (Worker(tiny, keys, "--layers", "1-3") as a, Worker(tiny, keys, "--layers", "3-5") as b,
          Worker(tiny, keys) as standby, Link(a.port, RTT) as link):
        agent = Agent(tiny, keys, "--worker", link.endpoint, "--worker", b.endpoint, "--worker",
                      standby.endpoint, *LONG, "--cuts", "1,3,5")
        agent.wait_for_bytes(link, MIDWAY)
        for lost in (a, b)[:hops]:
            lost.signal(signal.SIGKILL)
        assert agent.result()["tokens"] == long


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """So many layers that a token takes its time."""
    return make_tiny(tmp_path_factory.mktemp("model") / "deep.gguf", "--set", "layers=80")


@pytest.mark.parametrize("tokens", [20, 110])
def test_cloud_goes_on_elsewhere(tokens, deep, keys):
    """The new worker is given the answer so far, which the old one had computed token by token."""
    arguments = ("-p", "hello", "-n", 200, "--ignore-eos", "--temp", 0.8, "--seed", 3)
    wanted = local(deep, *arguments)["tokens"]
    with Pair(deep, keys, "--mode", "cloud", answer=arguments, rtt=0,
              midway=5000 + 50 * tokens) as pair:
        hit(pair, "kill")
        got = pair.agent.result()
        assert got["tokens"] == wanted and got["failovers"] >= 1


# ---- drain -----------------------------------------------------------------------------------


def test_a_drain_moves_a_running_answer_without_a_gap(tiny, keys, long):
    with Pair(tiny, keys, "--fallback", "none") as pair:
        pair.worker.signal(signal.SIGTERM)
        got = pair.agent.result()
        assert got["tokens"] == long
        assert (got["handovers"], got["failovers"]) == (1, 0)
        assert got["stall_ms_max"] < 10 * RTT
        assert pair.links[1 - pair.at].endpoint in got["plan"]["stages"][1]["device"]
        assert pair.worker.process.wait(timeout=20) == 0


def test_a_drain_without_another_worker_moves_it_here(tiny, keys, long):
    with Pair(tiny, keys, second=False, drain_ms=500) as pair:
        pair.worker.signal(signal.SIGTERM)
        got = pair.agent.result()
        assert got["tokens"] == long
        assert got["plan"]["stages"][1]["where"] == "here"
        assert got["handovers"] + got["failovers"] == 1 and got["stall_ms_max"] < 2000
        assert pair.worker.process.wait(timeout=20) == 0


def test_a_draining_worker_says_so_and_takes_nobody(tiny, keys):
    with Worker(tiny, keys, "--drain-ms", 3000) as w:
        agent = Agent(tiny, keys, "--worker", w.endpoint, "-p", "hello", "-n", 900, *GREEDY,
                      "--mode", "cloud")
        end = time.monotonic() + 10
        while json.loads(command("show", "--worker", w.endpoint, "--keys", keys, "--json").stdout)[
                "sessions_free"] == 8:
            assert time.monotonic() < end and agent.process.poll() is None
        w.signal(signal.SIGTERM)
        time.sleep(0.1)
        done = try_run(tiny, keys, "--worker", w.endpoint, *SHORT, *SPLIT, "--fallback", "none",
                       "--failover-ms", 300)
        if w.process.poll() is None:
            assert done.returncode == 1 and one_sentence(done), done
        agent.end()
        assert w.process.wait(timeout=20) == 0


# ---- who may ---------------------------------------------------------------------------------


def issue(authority, name, folder, role="client", *arguments):
    command("keys", "issue", role, name, "--keys", authority, "-o", folder, *arguments)
    return folder


def test_a_certificate_that_is_revoked_ends_its_sessions(tiny, keys, tmp_path, long):
    eve = issue(keys, "eve", tmp_path / "eve")
    with Worker(tiny, keys) as w, Link(w.port, RTT) as link:
        agent = Agent(tiny, eve, "--worker", link.endpoint, "-p", "hello", "-n", 500, *GREEDY,
                      *SPLIT, "--fallback", "none", "--failover-ms", 1000)
        agent.wait_for_bytes(link, MIDWAY)
        revoked = time.monotonic()
        command("keys", "revoke", "eve", "--keys", keys)
        status, shown, err = agent.end()
        assert status == 1 and "revoked" in err and len(err.splitlines()) == 1, err
        assert time.monotonic() - revoked < 6
        count = min(LONG_COUNT, len(shown["tokens"]))
        assert shown["tokens"][:count] == long[:count]
        done = try_run(tiny, eve, "--worker", w.endpoint, *SHORT, *SPLIT, "--fallback", "none",
                       "--failover-ms", 300)
        assert done.returncode == 1 and one_sentence(done), done
        # Others have not noticed, before and behind a SIGHUP.
        w.signal(signal.SIGHUP)
        assert run(tiny, keys, "--worker", w.endpoint, *SHORT, *SPLIT)["failovers"] == 0


def token(keys, *arguments):
    return command("keys", "token", "--subject", "ann", "--keys", keys, *arguments).stdout.strip()


def test_tokens_say_who_may_do_what(tiny, keys, short):
    with Worker(tiny, keys, "--require-token") as w:
        def with_token(text, *arguments):
            more = ["--token", text] if text else []
            return try_run(tiny, keys, "--worker", w.endpoint, *SHORT, *SPLIT, "--fallback", "none",
                           "--failover-ms", 300, *more, *arguments)

        good = with_token(token(keys))
        assert good.returncode == 0 and json.loads(good.stdout)["tokens"] == short
        for text, says in ((None, "token"), ("a.b.c", "token"),
                           (token(keys, "--scope", "generate"), "infer"),
                           (token(keys, "--layers", "2-6"), "[1, 5)"),
                           (token(keys, "--audience", "elsewhere"), "aud"),
                           (token(keys, "--fingerprint", "00" * 32), "model")):
            done = with_token(text)
            assert done.returncode == 1 and one_sentence(done), done
            assert says in done.stderr
        (keys / "client.token").write_text(token(keys) + "\n")
        try:
            assert with_token(None).returncode == 0
        finally:
            (keys / "client.token").unlink()
        command("keys", "revoke", token(keys), "--keys", keys)


def test_a_rate_slows_its_subject_and_nobody_else(tiny, keys, short):
    slow = token(keys, "--rate", 1200)  # 20 a second, 200 at once
    with Worker(tiny, keys) as w:
        arguments = ("--worker", w.endpoint, "-p", "hello", "-n", 240, *GREEDY, *SPLIT)
        began = time.monotonic()
        agent = Agent(tiny, keys, *arguments, "--token", slow)
        assert run(tiny, keys, "--worker", w.endpoint, *SHORT, *SPLIT)["tokens"] == short
        assert time.monotonic() - began < 2
        got = agent.result()
        positions = got["prompt_tokens"] + 239
        assert time.monotonic() - began > 0.8 * (positions - 200) / 20
        assert got["failovers"] == 0


def test_keys_that_went_wrong_leave_the_old_ones_in_use_and_are_told(tiny, tmp_path):
    authority = make_keys(tmp_path / "keys")
    client = issue(authority, "ann", tmp_path / "ann")
    with Worker(tiny, authority) as w:
        def degraded():
            return "degraded" in command("ping", w.endpoint, "--keys", client, "--count", 1,
                                         "--bulk", 0).stdout

        assert not degraded()
        whole = (authority / "revoked.json").read_bytes()
        (authority / "revoked.json").write_bytes(b"{ broken")
        w.signal(signal.SIGHUP)
        end = time.monotonic() + 5
        while not degraded():
            assert time.monotonic() < end
            time.sleep(0.1)
        run(tiny, client, "--worker", w.endpoint, *SHORT, *SPLIT)
        (authority / "revoked.json").write_bytes(whole)
        while degraded():
            assert time.monotonic() < end + 5
            time.sleep(0.1)


# ---- figures ---------------------------------------------------------------------------------


def parse_prometheus(text):
    """Version 0.0.4 of the format: samples by name and labels, and the types."""
    samples, types, seen = {}, {}, None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            seen = line.split()[2]
            assert seen not in types
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name == seen and kind in ("counter", "gauge", "histogram")
            types[name] = kind
        else:
            match = re.fullmatch(r'([a-z_]+)(\{([a-z_]+="[^"\\\n]*",?)+\})? (\S+)', line)
            assert match, line
            assert match[1].startswith(seen), line
            key = match[1] + (match[2] or "")
            assert key not in samples
            samples[key] = float(match[4])
    return samples, types


def test_metrics_are_prometheus_text_and_count(tiny, keys):
    with Worker(tiny, keys, "--metrics", "127.0.0.1:0") as w:
        before, types = parse_prometheus(w.metrics())
        got = run(tiny, keys, "--worker", w.endpoint, *SHORT, *SPLIT)
        end = time.monotonic() + 2
        while True:  # its session is closed, not left to its lease
            after, _ = parse_prometheus(w.metrics())
            if after["mcp_worker_sessions"] == 0:
                break
            assert time.monotonic() < end
            time.sleep(0.05)
        assert after.keys() == before.keys() and set(types.values()) == {"counter", "gauge",
                                                                         "histogram"}
        assert all(name.endswith("_total") for name, kind in types.items() if kind == "counter")
        positions = got["prompt_tokens"] + 23
        grown = {name: after[f"mcp_worker_{name}"] - before[f"mcp_worker_{name}"] for name in (
            "positions_total", "windows_total", "sessions_opened_total", "sessions",
            "queue_seconds_count")}
        assert grown == {"positions_total": positions, "windows_total": got["windows"],
                         "sessions_opened_total": 1, "sessions": 0,
                         "queue_seconds_count": got["windows"]}
        for name in (n for n, kind in types.items() if kind == "histogram"):
            counts = [v for k, v in after.items() if k.startswith(name + "_bucket")]
            assert counts == sorted(counts) and counts[-1] == after[name + "_count"]
        assert after["mcp_worker_up"] == 1
        w.signal(signal.SIGTERM)
        assert w.process.wait(timeout=10) == 0
