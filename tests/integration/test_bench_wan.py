# SPDX-License-Identifier: MIT
"""The benches about plans: their arithmetic on figures that were made up, and a tiny grid."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import plan_common as plans  # noqa: E402  (found by the line above)
import wan  # noqa: E402
import wan_common  # noqa: E402
from cluster_fixtures import make_tiny  # noqa: E402

# ---- arithmetic ----------------------------------------------------------------------------------


def made_run(total_ms, sent=0, plan=None, text="a"):
    return {"ttft_ms": total_ms / 4, "token_ms": total_ms / 100, "total_ms": total_ms,
            "bytes": sent, "plan": plan, "text": text}


def predicted(total_ms):
    return {"ttft_ms": total_ms / 4, "token_ms": total_ms / 100, "total_ms": total_ms,
            "mode": "split", "codec": "q8r", "hops": [{"first": 2, "last": 28}]}


def made_cell(mbit=100.0, chosen=105.0):
    """local 100 ms, cloud 80 ms; predicted 110 and 80; two codecs; the median of three rounds."""
    plan = predicted(chosen * 0.9)
    return {"rtt": 20.0, "mbit": mbit, "prompt": 32, "text": "continued", "foreign": 0.0,
            "left_out": {}, "predicted": {name: predicted(ms) for name, ms in (
                ("local", 110.0), ("cloud", 80.0), ("split few f16 none 64", 200.0),
                ("split few auto none 64", 150.0))},
            "runs": {"local": [made_run(ms) for ms in (100.0, 500.0, 99.0)],
                     "cloud": [made_run(80.0)],
                     "split few f16 none 64": [made_run(200.0, 1000)],
                     "split few auto none 64": [made_run(150.0, 500)],
                     "chosen, split": [made_run(chosen, plan=plan)],
                     "chosen, open": [made_run(chosen, plan=plan)]}}


def test_regret_counts_only_what_privacy_allows():
    split, opened = (wan.row_of(made_cell(), privacy) for privacy in ("split", "open"))
    assert split["best"] == "local" and split["regret"] == pytest.approx(1.05)
    assert opened["best"] == "cloud" and opened["regret"] == pytest.approx(105 / 80)
    assert wan.row_of(made_cell(chosen=50.0), "open")["regret"] == 1.0
    assert plans.allowed("local", "strict") and not plans.allowed("split few f16 none 64", "strict")


def test_summary_of_made_up_cells():
    cells = [made_cell(), made_cell(mbit=1000.0)]
    rows = [wan.row_of(cell, privacy) for cell in cells for privacy in ("split", "open")]
    s = wan.summary_of(cells, rows)
    assert s["regret"] == {"cells": 4, "limit": 1.05, "share": 0.5, "max": pytest.approx(105 / 80),
                           "median": pytest.approx((1.05 + 105 / 80) / 2)}
    chosen, by_hand = s["errors"]["token_ms"]
    assert chosen["median"] == pytest.approx(0.1) and chosen["count"] == 4
    assert by_hand["count"] == 8 and by_hand["p95"] == pytest.approx(0.1)  # local's: 110 for 100
    assert by_hand["median"] == pytest.approx(0.0)
    assert s["codec"] == {"pairs": 2, "bytes": 0.5, "time_median": 0.75, "time_max": 0.75}
    assert s["changed"] == [0, 0] and s["noisy"] == 0


def test_bytes_of_fast_links_do_not_count():
    cells = [(1000.0, {"split few f16 none 64": made_run(10.0, 100),
                       "split few auto none 64": made_run(10.0, 100)}),
             (20.0, {"split few f16 none 64": made_run(10.0, 100),
                     "split few auto none 64": made_run(11.0, 30)})]
    s = plans.codec_summary(cells)
    assert s["bytes"] == 0.3 and s["time_max"] == pytest.approx(1.1)


def test_a_text_that_guesses_change_is_counted():
    cell = made_cell()
    cell["runs"]["split few f16 auto 64"] = [made_run(1.0, text="b"), made_run(1.0, text="a")]
    assert wan.changed_texts(cell) == (1, 2)


def test_nearest_rank():
    assert plans.percentile([3, 1, 2], 95) == 3 and plans.percentile(range(1, 101), 95) == 95


def test_plans_by_hand_are_flags_of_distinct_cuts():
    hand = plans.plans_by_hand(30, (1, 16))
    assert hand["split few f16 none 64"] == ("--mode", "split", "--cuts", "2,28", "--codec", "f16",
                                             "--spec", "none", "--chunk", "64")
    assert len(hand) == 2 + 4 * len(plans.CODECS) * len(plans.SPECS) * len(
        plans.CHUNKS)
    assert set(plans.cuts_by_hand(30, (2, 28))) == {"few", "half", "most"}
    assert set(plans.cuts_by_hand(4)) == {"few"}
    assert list(plans.select(hand, ["cloud", "split own q8r * 64"])) == [
        "cloud", "split own q8r none 64", "split own q8r auto 64", "split own q8r 4x4 64"]


def test_cores_are_shared_by_nobody():
    assert wan_common.cores_of("0-2,7") == [0, 1, 2, 7]
    assert wan_common.divide([4, 5], 1) == [([4], [5], [4, 5])]
    for here, there, between in wan_common.divide(list(range(16)), 4):
        assert len(here) == 1 and len(there) == 2 and len(between) == 1
        assert not set(here) & set(there) and not set(between) & set(here + there)
    with pytest.raises(wan_common.Failed, match="too few for --jobs 2"):
        wan_common.divide([0, 1, 2], 2)


def test_tokens_in_time():
    chunks = [(1.0, 2), (2.0, 5), (3.0, 9)]
    assert plans.token_times(chunks, [1, 2, 4, 9, 10]) == [1.0, 1.0, 2.0, 3.0]
    assert plans.rates([0.0, 0.5, 1.0, 1.5, 2.0], 1.0, 1.0) == [(0.5, 2.0), (1.5, 2.0)]


def test_recovery_is_from_when_on_the_rest_is_fast():
    fast = [i * 0.1 for i in range(100)]
    slow = [i * 0.2 for i in range(100)]
    # 0.1 s a token until 3.0 s, then 0.4 for five tokens, then 0.1 again.
    times = [i * 0.1 if i <= 30 else 3.0 + (i - 30) * 0.4 if i <= 35 else 5.0 + (i - 35) * 0.1
             for i in range(100)]
    took = plans.recovered(times, 3.0, [slow, fast])
    # The rest is at 0.9 of 0.1 s a token from where slow tokens cost it a tenth: two are left.
    assert took == pytest.approx(1.2)
    assert plans.recovered(fast, 3.05, [slow, fast]) == pytest.approx(0.05)
    assert plans.recovered(slow, 3.0, [fast]) is None
    assert plans.recovered(fast, 9.0, [fast], tail=16) is None


# ---- a grid --------------------------------------------------------------------------------------


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="agent and worker need a core each")
def test_a_tiny_grid_from_end_to_end(mcp_bin, mcp_lib, tmp_path):
    model, out = make_tiny(tmp_path / "tiny.gguf"), tmp_path / "wan.json"
    done = subprocess.run(
        [sys.executable, BENCH / "wan.py", "-m", model, "--rtt", "5", "--mbit", "20,1000",
         "--prompts", "32", "--texts", "continued", "--plans", "local,cloud,split few ?1? none 64,"
         "split few auto * 64", "-n", "8", "-r", "2", "--json", out],
        env={**os.environ, "MCP_BIN": str(mcp_bin), "MCP_LIB": str(mcp_lib)}, text=True,
        capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    rows = [row for row in json.loads(out.read_text())["rows"] if "regret" in row]
    assert [(row["mbit"], row["privacy"]) for row in rows] == [
        (mbit, privacy) for mbit in dict.fromkeys(row["mbit"] for row in rows)
        for privacy in ("split", "open")]
    assert {row["mbit"] for row in rows} == {20.0, 1000.0}
    for row in rows:
        assert row["regret"] >= 1.0 and row["predicted_total_ms"] > 0
    runs = rows[0]["cell"]["runs"]
    assert set(runs) == {"local", "cloud", "split few f16 none 64", "split few auto none 64",
                         "split few auto auto 64", "split few auto 4x4 64", "chosen, split",
                         "chosen, open"}
    assert {len(of_plan) for of_plan in runs.values()} == {2}
    assert all(run["tokens"] == 8 for of_plan in runs.values() for run in of_plan)
    assert runs["local"][0]["bytes"] == 0 < runs["split few f16 none 64"][0]["bytes"]
    assert "2 cells measured, 0 not for want of time" in done.stdout


def test_time_that_is_over_is_said(mcp_bin, mcp_lib, tmp_path):
    done = subprocess.run(
        [sys.executable, BENCH / "wan.py", "-m", make_tiny(tmp_path / "tiny.gguf"), "--rtt", "5",
         "--mbit", "20", "--prompts", "32", "--texts", "continued,quotation", "--minutes", "0"],
        env={**os.environ, "MCP_BIN": str(mcp_bin), "MCP_LIB": str(mcp_lib)}, text=True,
        capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "0 cells measured, 2 not for want of time; 5 ms 20 Mbit/s 32 continued; " in done.stdout
