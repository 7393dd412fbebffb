# SPDX-License-Identifier: MIT
"""`mcp plan`, `mcp plan --graph` and `mcp profile`, from outside."""

import json
import re
from pathlib import Path

import pytest
from cli_common import mcp as run_mcp
from cli_common import refused
from cluster import Link, Worker
from cluster_fixtures import EMBD, LAYERS, keys, make_tiny, tiny  # noqa: F401 (fixtures)

ROOT = Path(__file__).resolve().parents[2]
PROFILES = ROOT / "profiles"
SHIPPED = sorted(path.stem for path in PROFILES.glob("*.json"))
LINK = ["--rtt", "20", "--up", "100", "--down", "100"]
SUPPOSED = ["--local-profile", "rtx3060", "--remote-profile", "a100", *LINK]
MODES = ["local", "cloud", "split", "prefill"]


@pytest.fixture
def home(tmp_path):
    return tmp_path


@pytest.fixture
def mcp(mcp_bin, home):
    """The program with a home, cache and profiles of its own."""
    def run(*args, **env):
        own = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"),
               "MCP_PROFILES": str(PROFILES)}
        return run_mcp(mcp_bin, *args, env={**own, **env})
    return run


# ---- operations ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def untied(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("untied") / "untied.gguf", "--set", "tied=0")


def test_the_graph_reads_every_weight_once(mcp, untied):
    shown = mcp("show", untied, "--json").json
    graph = mcp("plan", "--graph", "-m", untied, "--json").json
    weights = sum(op["weight_bytes"] for op in graph["ops"])
    lookup = shown["weight_bytes"] - weights  # the embedding, of which a row is looked up
    assert graph["weight_bytes"] == weights
    assert lookup == shown["n_vocab"] * shown["n_embd"] * 34 // 32  # q8_0
    # Two operations for each weight of a product; attention, norms and the like come on top.
    products = sum(op["flops"] for op in graph["ops"] if op["kind"] == "MUL_MAT")
    matrices = shown["parameters"] - shown["n_vocab"] * shown["n_embd"] - (
        2 * shown["layers"] + 1) * shown["n_embd"]
    assert products == pytest.approx(2 * matrices, rel=1e-9)
    assert products < graph["flops"] < 1.2 * products + 1e6


def test_work_grows_with_the_window_and_the_context(mcp, tiny):  # noqa: F811
    def flops(tokens, context):
        return mcp("plan", "--graph", "-m", tiny, "--json", "--tokens", tokens, "--context",
                   context).json["flops"]
    assert flops(64, 0) > 32 * flops(1, 0)
    assert flops(1, 1000) > flops(1, 0)


def test_groups_and_cuts_follow_from_the_sources(mcp, tiny):  # noqa: F811
    graph = mcp("plan", "--graph", "-m", tiny, "--json").json
    ops = graph["ops"]
    assert graph["layers"] == LAYERS and graph["cut_widths"] == [EMBD] * (LAYERS + 1)
    for index, op in enumerate(ops):
        assert all(source < index for source in op["sources"])
        assert all(ops[source]["group"] < op["group"] for source in op["sources"])
    by_name = {op["name"]: op for op in ops}
    assert by_name["attn_q-0"]["group"] == by_name["attn_k-0"]["group"]
    assert by_name["ffn_gate-3"]["group"] == by_name["ffn_up-3"]["group"]
    assert by_name["ffn_down-3"]["group"] > by_name["ffn_up-3"]["group"]
    assert {op["layer"] for op in ops} == {"embed", "head", *map(str, range(LAYERS))}


def test_table_and_dot_tell_the_same_graph(mcp, tiny):  # noqa: F811
    ops = mcp("plan", "--graph", "-m", tiny, "--json").json["ops"]
    table = mcp("plan", "--graph", "-m", tiny).text
    dot = mcp("plan", "--graph", "-m", tiny, "--dot").text
    for index, op in enumerate(ops):
        row = rf"^ *{index}  {op['layer']} +{re.escape(op['name'])} +{op['kind']}"
        assert re.search(row, table, re.M), row
    assert f"cuts           {EMBD} floats a token at each of the {LAYERS + 1} boundaries" in table
    assert dot.startswith("digraph model {") and dot.endswith("}\n")
    edges = {(int(a), int(b)) for a, b in re.findall(r"n(\d+) -> n(\d+);", dot)}
    assert edges == {(s, i) for i, op in enumerate(ops) for s in op["sources"]}
    assert len(re.findall(r"^  n\d+ \[label=", dot, re.M)) == len(ops)


def test_options_that_belong_to_the_graph_are_refused_without_it(mcp, tiny):  # noqa: F811
    refused(mcp("plan", "-m", tiny, "--dot"), "mcp plan: --dot is about --graph")
    refused(mcp("plan", "-m", tiny, "--tokens", "3"), "mcp plan: --tokens and --context")
    refused(mcp("plan", "-m", tiny, "--graph", "--dot", "--json"), "mcp plan: --json or --dot")


# ---- plans for machines that are supposed --------------------------------------------------------


def test_a_plan_from_data_sheets_needs_no_worker_and_no_measurement(mcp, smollm2):
    result = mcp("plan", "-m", smollm2, *SUPPOSED, "--privacy", "open", "--json")
    assert result.err == ""
    plan = result.json
    assert [mode["mode"] for mode in plan["modes"]] == MODES
    fitting = {mode["mode"]: mode for mode in plan["modes"] if mode["fits"]}
    assert set(fitting) == set(MODES)
    best = fitting[plan["chosen"]]
    assert [mode["chosen"] for mode in plan["modes"]].count(True) == 1 and best["chosen"]
    assert best["total_ms"] == min(mode["total_ms"] for mode in fitting.values())
    for mode in fitting.values():
        assert mode["why"] and mode["plan"]
        assert sum(mode["terms_ms"].values()) == pytest.approx(mode["total_ms"], rel=1e-6)
        assert mode["total_ms"] == pytest.approx(mode["ttft_ms"] + 127 * mode["token_ms"], rel=1e-6)
    assert fitting["local"]["bytes_out"] == 0 and fitting["split"]["bytes_out"] > 0
    assert any("not measured" in note for note in plan["notes"])


def test_privacy_is_a_hard_limit(mcp, smollm2):
    def modes(privacy):
        plan = mcp("plan", "-m", smollm2, *SUPPOSED, "--privacy", privacy, "--json").json
        return {mode["mode"]: mode for mode in plan["modes"]}
    strict, split = modes("strict"), modes("split")
    assert [m for m in MODES if strict[m]["fits"]] == ["local"]
    assert "strict" in strict["split"]["why"]
    assert split["split"]["fits"] and not split["cloud"]["fits"]
    (hop,) = split["split"]["hops"]
    assert 1 <= hop["first"] < hop["last"] <= 29  # first and last layers stay


def test_when_nothing_fits_the_limit_is_named(mcp, smollm2):
    result = mcp("plan", "-m", smollm2, *SUPPOSED, "--privacy", "strict", "--vram", "10MiB")
    assert result.status == 1
    assert re.search(r"^  local +-$", result.text, re.M)  # what was looked at is still shown
    assert len(result.err_lines) == 1 and "the limit is 0.01 GiB" in result.err
    assert "strict" in result.err


def test_what_is_decided_is_not_chosen(mcp, smollm2):
    plan = mcp("plan", "-m", smollm2, *SUPPOSED, "--mode", "split", "--cuts", "3,20", "--codec",
               "f16", "--chunk", "96", "--spec", "none", "--json").json
    assert plan["chosen"] == "split"
    (split,) = [mode for mode in plan["modes"] if mode["mode"] == "split"]
    assert [(h["first"], h["last"]) for h in split["hops"]] == [(3, 20)]
    assert (split["codec"], split["chunk_tokens"], split["spec_depth"]) == ("f16", 96, 0)


def test_a_slower_link_never_helps(mcp, smollm2):
    def split_ms(rtt, mbit):
        plan = mcp("plan", "-m", smollm2, "--local-profile", "rtx3060", "--remote-profile", "a100",
                   "--rtt", rtt, "--up", mbit, "--down", mbit, "--mode", "split", "--json").json
        return next(m["total_ms"] for m in plan["modes"] if m["mode"] == "split")
    assert split_ms(1, 1000) < split_ms(20, 1000) < split_ms(80, 1000)
    assert split_ms(20, 1000) < split_ms(20, 20)


def test_a_price_makes_the_cheap_plan_win_when_asked(mcp, smollm2):
    asked = [*SUPPOSED, "--privacy", "open", "--price", "10", "--json"]
    assert mcp("plan", "-m", smollm2, *asked, "--optimize", "cost").json["chosen"] == "local"


@pytest.mark.parametrize("size", ["12Gi B", "much", "-1", "1e30", "nan", "3GiBs", ""])
def test_sizes_that_are_none_are_refused(mcp, tiny, size):  # noqa: F811
    refused(mcp("plan", "-m", tiny, *SUPPOSED, f"--vram={size}"), "mcp plan: --vram")


def test_the_table_marks_the_winner_and_says_why_the_others_lose(mcp, smollm2):
    text = mcp("plan", "-m", smollm2, *SUPPOSED).text
    assert len(re.findall(r"^> (local|split|prefill) +[\d.]+ m?s", text, re.M)) == 1
    for mode in MODES:
        assert re.search(rf"^[> ] {mode} ", text, re.M)
        assert re.search(rf"^  {mode}(: | is best)", text, re.M)


# ---- profiles ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profiles_are_marked_for_what_they_are(mcp, smollm2, name):
    shown = mcp("profile", "-m", smollm2, "--show", name, "--json").json
    assert shown["kind"] == "roofline" and shown["source"]
    assert shown["layers"] == 30 and shown["layer_ms"][0][0] > 0
    assert "not measured" in mcp("profile", "-m", smollm2, "--show", name).text


def test_a_measured_profile_is_kept_shared_and_found_again(mcp, home, tiny):  # noqa: F811
    first = mcp("profile", "-m", tiny, "-o", home / "mine.json", "--json")
    shown = first.json
    assert "measuring this machine" in first.err
    assert shown["kind"] == "measured" and shown["threads"] == 1
    assert shown["tokens"] == [1, 8, 32, 128, 512]
    for row in shown["layer_ms"]:
        assert all(0 < a <= b for a, b in zip(row, row[1:])) or len(row) == 1
    kept = list((home / "cache/mcp/profiles").iterdir())
    assert [str(path) for path in kept] == [shown["path"]]
    stored = json.loads((home / "mine.json").read_text())
    assert stored == json.loads(kept[0].read_text())
    for written, row in zip(stored["layer_ms"], shown["layer_ms"], strict=True):
        assert written == pytest.approx(row, rel=1e-5)

    # Found, by plan too: nothing is measured again.
    for where in ([], ["--local-profile", home / "mine.json"]):
        assert mcp("plan", "-m", tiny, "--json", *where).err == ""
    # Other threads are another device.
    assert "measuring" in mcp("plan", "-m", tiny, "-t", "2", "--json").err


def test_a_plan_measures_what_was_never_measured(mcp, home, tiny):  # noqa: F811
    result = mcp("plan", "-m", tiny)
    assert "measuring" in result.err and result.status == 0
    assert len(list((home / "cache/mcp/profiles").iterdir())) == 1


BAD = [
    ("", "JSON"),
    ("[]", "JSON"),
    ('{"format":"mcp-profile 2"}', "format"),
    ('{"format":"mcp-profile 1","kind":"roofline","device":"x","memory_bytes":-1}', "memory_bytes"),
    ("{" * 5000, "nest"),
    ('{"format":"mcp-profile 1","format":"mcp-profile 1"}', "JSON"),
]


@pytest.mark.parametrize("text, about", BAD)
def test_a_hostile_profile_is_one_sentence(mcp, home, tiny, text, about):  # noqa: F811
    (home / "bad.json").write_text(text)
    refused(mcp("plan", "-m", tiny, "--remote-profile", home / "bad.json", *LINK),
            "mcp plan: --remote-profile: ", "bad.json")
    refused(mcp("profile", "-m", tiny, "--show", home / "bad.json"), "mcp profile: ", "bad.json")


def test_a_damaged_cache_is_measured_anew(mcp, home, tiny):  # noqa: F811
    path = mcp("profile", "-m", tiny, "--json").json["path"]
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"format": "mcp-')
    assert "measuring" in mcp("plan", "-m", tiny).err
    assert json.loads(open(path, encoding="utf-8").read())["kind"] == "measured"


def test_a_profile_of_another_model_is_refused(mcp, home, tiny, smollm2):  # noqa: F811
    mcp("profile", "-m", tiny, "-o", home / "tiny.json")
    refused(mcp("plan", "-m", smollm2, "--local-profile", home / "tiny.json"),
            "mcp plan: --local-profile: ", "another model")
    refused(mcp("plan", "-m", smollm2, "--local-profile", "no-such-gpu"),
            "mcp plan: --local-profile: there is no profile 'no-such-gpu'")


# ---- with workers ------------------------------------------------------------------------------


def test_a_worker_is_measured_through_its_link(mcp, keys, tiny):  # noqa: F811
    with Worker(tiny, keys) as worker, Link(worker.port, rtt=20, mbit=100) as link:
        given = ["-m", tiny, "--keys", keys, "--worker", link.endpoint]
        split_only = ["--mode", "split", "--prompt-tokens", "200", "--json"]
        result = mcp("profile", *given, "--json")
        assert f"measuring {link.endpoint}" in result.err
        shown = result.json
        assert shown["worker"] == link.endpoint and shown["kind"] == "measured"
        assert 19 < shown["rtt_ms"] < 40 and 30 < shown["up_mbit"] < 110
        assert shown["layer_ms"][0][0] > 0
        # The link is no part of the worker's speed.
        assert shown["layer_ms"][0][0] * LAYERS < 15

        plan = mcp("plan", *given, *split_only)
        assert plan.err.count("measuring") == 1  # this machine; the worker is known
        (split,) = [m for m in plan.json["modes"] if m["mode"] == "split"]
        assert split["fits"] and split["terms_ms"]["round trips"] > 0
        (hop,) = split["hops"]
        assert 1 <= hop["first"] < hop["last"] < LAYERS
        # What is stated goes before what is measured.
        far = mcp("plan", *given, *split_only, "--rtt", "500").json
        assert next(m["total_ms"] for m in far["modes"]
                    if m["mode"] == "split") > 2 * split["total_ms"]
        assert worker.process.poll() is None


def test_a_worker_that_holds_a_part_or_another_model_is_taken_for_that(
        mcp, keys, tiny, tmp_path):  # noqa: F811
    other = make_tiny(tmp_path / "other.gguf", "--set", "ff=512")
    with Worker(tiny, keys, "--layers", "2-4") as part, Worker(other, keys) as stranger:
        plan = mcp("plan", "-m", tiny, "--keys", keys, "--worker", part.endpoint, "--worker",
                   stranger.endpoint, "--privacy", "open", "--prompt-tokens", "200", "--json").json
    modes = {mode["mode"]: mode for mode in plan["modes"]}
    assert not modes["cloud"]["fits"]
    (hop,) = modes["split"]["hops"]
    assert 2 <= hop["first"] < hop["last"] <= 4
    assert any("another model" in note and stranger.endpoint in note for note in plan["notes"])


def test_workers_that_cannot_be_reached_are_said(mcp, keys, tiny):  # noqa: F811
    with Worker(tiny, keys) as worker:
        gone = worker.endpoint
    refused(mcp("plan", "-m", tiny, "--keys", keys, "--worker", gone), "mcp plan: ", gone)
