# SPDX-License-Identifier: MIT
"""`mcp worker` from outside: what it prints, what it refuses, how signals end it."""

import json
import re
import signal
import subprocess
import time
import urllib.request

import pytest
from cli_common import mcp, refused
from cluster import Process, Worker, clean_environment, mcp_program, try_run
from cluster_fixtures import LAYERS, keys, tiny  # noqa: F401  (fixtures)

PROMPT = ("-p", "one two three four", "--raw", "--temp", "0", "--ignore-eos", "-n", "400")


def test_the_ready_line(tiny, keys):  # noqa: F811
    command = [mcp_program(), "worker", "-m", str(tiny), "--keys", str(keys), "-t", "1", "--listen",
               "127.0.0.1:0", "--layers", "1-5", "-np", "3"]
    with Process(command) as worker:
        assert re.fullmatch(rf"ready 127\.0\.0\.1:\d+ layers \[1,5\) of {LAYERS} sessions 3",
                            worker.ready)
        assert worker.stop() == 0
        assert worker.errors == []  # standard output is no terminal: no hint


def test_the_ready_line_as_json(tiny, keys):  # noqa: F811
    command = [mcp_program(), "worker", "-m", str(tiny), "--keys", str(keys), "-t", "1", "--listen",
               "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--json"]
    with Process(command) as worker:
        ready = json.loads(worker.ready)
        assert re.fullmatch(r"127\.0\.0\.1:\d+", ready["ready"])
        assert (ready["first"], ready["last"], ready["layers"]) == (0, LAYERS, LAYERS)
        assert ready["sessions"] == 8
        with urllib.request.urlopen(f"http://{ready['metrics']}/metrics", timeout=10) as page:
            text = page.read().decode()
        assert "\nmcp_worker_sessions_max 8\n" in text
        assert worker.stop() == 0


def test_an_invitation_is_all_that_a_user_needs(tiny, keys, tmp_path):  # noqa: F811
    with Worker(tiny, keys, "--invite", "bob") as worker:
        deadline = time.monotonic() + 10
        while not worker.errors and time.monotonic() < deadline:
            time.sleep(0.05)
        command, line = worker.errors[0].rsplit(maxsplit=1)
        assert command == "mcp join"
        subprocess.run([mcp_program(), "join", line, "--keys", str(tmp_path / "bob")], check=True,
                       env=clean_environment(), stdout=subprocess.DEVNULL)
        done = try_run(tiny, tmp_path / "bob", "--mode", "cloud", "-n", "3", "-p", "x", "--raw")
        assert done.returncode == 0, done.stderr


def busy(tiny, keys, worker):  # noqa: F811
    """An answer that takes long, made by the worker alone."""
    return subprocess.Popen([mcp_program(), "run", "-m", str(tiny), "--keys", str(keys), "-t", "1",
                             "--worker", worker.endpoint, "--mode", "cloud", *PROMPT],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=clean_environment())


def test_a_drain_lets_sessions_end(tiny, keys):  # noqa: F811
    with Worker(tiny, keys) as worker:
        run = busy(tiny, keys, worker)
        run.stdout.read(1)
        worker.signal(signal.SIGHUP)  # nothing to do
        worker.signal(signal.SIGTERM)
        out, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
        assert len(out) > 10
        assert worker.process.wait(timeout=30) == 0


def test_a_second_signal_ends_it_at_once(tiny, keys):  # noqa: F811
    with Worker(tiny, keys, "--drain-ms", "60000") as worker:
        run = busy(tiny, keys, worker)
        run.stdout.read(1)
        run.send_signal(signal.SIGSTOP)  # it will not leave
        try:
            worker.signal(signal.SIGINT)
            time.sleep(0.3)
            assert worker.process.poll() is None
            worker.signal(signal.SIGINT)
            assert worker.process.wait(timeout=10) == 1
        finally:
            run.kill()
            run.communicate()


@pytest.mark.parametrize("arguments, says", [
    (("--layers", "1-9"), f"inside 0-{LAYERS}"),
    (("--layers", "3-3"), f"inside 0-{LAYERS}"),
    (("--layers", "x"), "is not A-B"),
    (("--layers", "1-"), "is not A-B"),
    (("--layers", "-1-3"), "is not A-B"),
    (("--layers", "1-3x"), "is not A-B"),
    (("--listen", "nowhere"), "HOST:PORT"),
    (("--reserve", "team"), "SUBJECT=SESSIONS"),
    (("--reserve", "team=99"), "-np"),
    (("--metrics", "nowhere"), "metrics"),
    (("--invite", "a b"), "--invite"),
    (("-np", "0"), "outside 1..1024"),
    (("--cuts", "3"), "unknown flag"),
])
def test_options_that_mean_nothing(mcp_bin, tiny, keys, arguments, says):  # noqa: F811
    result = mcp(mcp_bin, "worker", "-m", tiny, "--keys", keys, "--listen", "127.0.0.1:0",
                 *arguments)
    if arguments[0] == "--invite":  # it serves before it invites
        assert result.status == 1
        assert says in result.err
    else:
        refused(result, "mcp worker: ", says)


def test_keys_are_needed(mcp_bin, tiny, tmp_path):  # noqa: F811
    refused(mcp(mcp_bin, "worker", "-m", tiny, "--keys", tmp_path / "none"), "mcp worker: ",
            "mcp keys init")


def test_an_address_in_use(mcp_bin, tiny, keys):  # noqa: F811
    with Worker(tiny, keys) as worker:
        refused(mcp(mcp_bin, "worker", "-m", tiny, "--keys", keys, "--listen", worker.endpoint),
                "mcp worker: ", worker.endpoint)
