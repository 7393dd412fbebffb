# SPDX-License-Identifier: MIT
"""`mcp run` follows the plan, and leaves it for a better one without a change of the text.

Where a move is to be provoked, a kept profile is made wrong: the plan begins at the wrong place,
and what the answer's tokens take shows it.
"""

import json

import pytest

from cluster import Agent, Link, Worker, run, try_run
from cluster_fixtures import keys  # noqa: F401

PROMPT = ["-p", "Write a long story about the sea.", "--temp", "0"]
TOKENS = 200
PLAIN = ["--spec", "none", "--codec", "f32"]


def scale(folder, kept, factor):
    """The kept profile of `kept` ("worker" or the processor's name) with other times."""
    count = 0
    for path in (folder / "mcp/profiles").iterdir():
        profile = json.loads(path.read_text())
        if (profile["device"] == "worker") != (kept == "worker"):
            continue
        for name in ("layer_ms", "head_ms", "embed_ms"):
            profile[name] = [[x * factor for x in row] if isinstance(row, list) else row * factor
                             for row in profile[name]]
        profile["call_ms"] *= factor
        path.write_text(json.dumps(profile))
        count += 1
    assert count == 1


def under_way(agent, link, before):
    """Until the link has been measured (512 KiB) and 20 tokens have come back over it."""
    agent.wait_for_bytes(link, before + (512 << 10) + 20 * 576 * 4)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("cluster._CACHE", type("Folder", (), {"name": str(tmp_path / "cache")}))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def worker(smollm2, keys):  # noqa: F811
    with Worker(smollm2, keys) as w:
        yield w


@pytest.fixture(scope="module")
def story(smollm2, keys):  # noqa: F811
    return run(smollm2, keys, *PROMPT, "-n", TOKENS, "--mode", "local")["tokens"]


def test_nothing_has_to_be_said_beside_the_worker(worker, smollm2, keys, cache):  # noqa: F811
    done = try_run(smollm2, keys, "--worker", worker.endpoint, *PROMPT, "-n", 20)
    got = json.loads(done.stdout)
    plan = got["plan"]
    assert plan["why"] and plan["text"].startswith(plan["mode"]) and plan["moves"] == 0
    assert plan["total_ms"] >= plan["ttft_ms"] > 0
    assert len(list((cache / "mcp/profiles").iterdir())) == 2
    # Measured once.
    again = try_run(smollm2, keys, "--worker", worker.endpoint, *PROMPT, "-n", 20)
    assert done.stderr.count("measuring") == 2, done.stderr
    assert "measuring" not in again.stderr


def test_privacy_decides_what_may_be_chosen(worker, smollm2, keys, cache):  # noqa: F811
    given = ["--worker", worker.endpoint, *PROMPT, "-n", 8]
    run(smollm2, keys, *given)
    scale(cache, "worker", 0.01)
    assert run(smollm2, keys, *given, "--privacy", "open")["plan"]["mode"] == "cloud"
    split = run(smollm2, keys, *given)["plan"]
    assert split["mode"] in ("split", "local")
    strict = run(smollm2, keys, *given, "--privacy", "strict")
    assert strict["plan"]["mode"] == "local" and strict["bytes_out"] == 0
    for contradiction in (["--privacy", "strict", "--mode", "split"],
                          ["--privacy", "split", "--mode", "cloud"]):
        done = try_run(smollm2, keys, *given, *contradiction)
        assert done.returncode != 0 and len(done.stderr.splitlines()) == 1
        assert "--privacy" in done.stderr and "--mode" in done.stderr
    little = try_run(smollm2, keys, *given, "--vram", "1MB")
    assert little.returncode != 0 and "the limit is" in little.stderr


def test_an_answer_moves_home_when_this_machine_is_faster_than_it_was(
        worker, smollm2, keys, cache, story):  # noqa: F811
    with Link(worker.port, rtt=20) as link:
        given = ["--worker", link.endpoint, *PROMPT, *PLAIN]
        run(smollm2, keys, *given, "-n", 4)
        scale(cache, "worker", 0.1)
        scale(cache, "here", 8)
        got = run(smollm2, keys, *given, "-n", TOKENS)
    assert got["tokens"] == story
    assert got["plan"]["mode"] == "split" and got["plan"]["now"].startswith("local")
    assert got["plan"]["moves"] == 1


@pytest.mark.parametrize("sampled", [[], ["--temp", "0.9", "--seed", "7"]], ids=["greedy", "seed"])
@pytest.mark.parametrize("here, there, begins, ends", [(0.1, 0.3, "local", "cloud"),
                                                       (0.3, 0.1, "cloud", "local")])
def test_an_answer_moves_to_the_cloud_and_back(
        worker, smollm2, keys, cache, here, there, begins, ends, sampled):  # noqa: F811
    given = ["--worker", worker.endpoint, *PROMPT, *sampled, *PLAIN, "--privacy", "open"]
    run(smollm2, keys, *given, "-n", 4)
    scale(cache, "worker", there)
    scale(cache, "here", here)
    got = run(smollm2, keys, *given, "-n", TOKENS)
    alone = run(smollm2, keys, *PROMPT, *sampled, "-n", TOKENS, "--mode", "local")
    assert got["tokens"] == alone["tokens"]
    assert got["plan"]["mode"] == begins and got["plan"]["now"].startswith(ends)
    assert 1 <= got["plan"]["moves"] <= 2


def test_an_answer_moves_to_the_better_of_two_links(worker, smollm2, keys, cache, story):  # noqa: F811
    with Link(worker.port, rtt=5) as near, Link(worker.port, rtt=25) as far:
        given = ["--worker", near.endpoint, "--worker", far.endpoint, "--mode", "split", *PROMPT,
                 *PLAIN]
        run(smollm2, keys, *given, "-n", 4)
        before = near.stats()["down"]
        agent = Agent(smollm2, keys, *given, "-n", TOKENS)
        under_way(agent, near, before)
        near.tell("rtt 200")
        got = agent.result()
    assert got["tokens"] == story
    assert got["plan"]["moves"] == 1
    assert far.endpoint in got["plan"]["stages"][1]["device"]
    assert got["failovers"] == 0


def test_a_killed_worker_is_no_reason_to_lose_the_text(smollm2, keys, cache, story):  # noqa: F811
    with Worker(smollm2, keys) as mortal, Link(mortal.port, rtt=5) as link:
        given = ["--worker", link.endpoint, "--mode", "split", *PROMPT, *PLAIN]
        run(smollm2, keys, *given, "-n", 4)
        before = link.stats()["down"]
        agent = Agent(smollm2, keys, *given, "-n", TOKENS)
        under_way(agent, link, before)
        mortal.kill()
        got = agent.result()
    assert got["tokens"] == story and got["failovers"] == 1
