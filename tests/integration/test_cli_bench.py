# SPDX-License-Identifier: MIT
"""`mcp bench`: the rows asked for, figures that follow from the samples.  How fast the
engine is, is not tested here."""

import itertools
import statistics

import pytest
from cli_common import mcp, refused

SMALL = ["-p", "16", "-n", "4", "-r", "3"]


@pytest.fixture(scope="session")
def report(mcp_bin, smollm2):
    return mcp(mcp_bin, "bench", "-m", smollm2, *SMALL, "--seqs", "1,2", "--depth", "0,8",
               "--cuts", "4,20", "--json").json


def test_a_row_for_each_combination(report):
    assert [(r["depth"], r["seqs"], r["test"]) for r in report["rows"]] == list(
        itertools.product([0, 8], [1, 2], ["pp16", "tg4"]))
    assert all(r["cuts"] == [4, 20] for r in report["rows"])


def test_median_and_spread_follow_from_the_samples(report):
    for row in report["rows"]:
        samples = row["samples"]
        assert len(samples) == 3 and min(samples) > 0
        median = statistics.median(samples)
        assert row["tokens_per_second"] == pytest.approx(median, rel=1e-6)
        assert row["spread"] == pytest.approx((max(samples) - min(samples)) / median, rel=1e-6,
                                              abs=1e-8)
    # Not all the same: these are measurements.
    assert len({s for r in report["rows"] for s in r["samples"]}) > len(report["rows"])


def test_the_report_says_what_was_measured(report, smollm2):
    assert report["path"] == str(smollm2) and report["device"] == "cpu"
    assert report["threads"] >= 1 and report["batch_size"] == 2048 and report["ubatch_size"] == 512
    assert report["parameters"] == 134515008


def test_the_table_has_the_same_rows(mcp_bin, smollm2, report):
    result = mcp(mcp_bin, "bench", "-m", smollm2, *SMALL, "--seqs", "1,2", "--depth", "0,8",
                 "--cuts", "4,20")
    assert result.status == 0 and result.err == ""
    lines = result.text.splitlines()
    assert len({len(line) for line in lines}) == 1  # aligned
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert table[0] == ["model", "size", "device", "threads", "test", "seqs", "depth", "cuts",
                        "tokens/s", "spread"]
    assert set("".join(table[1])) <= {"-", ":"}
    assert [(int(r[6]), int(r[5]), r[4], r[7]) for r in table[2:]] == [
        (r["depth"], r["seqs"], r["test"], "4,20") for r in report["rows"]]
    assert all(float(r[8]) > 0 and r[9].endswith(" %") for r in table[2:])


def test_prompts_larger_than_the_batch_go_in_turns(mcp_bin, smollm2):
    for batch in ("5", "20", "32"):  # parts of a sequence, one sequence, two of them
        rows = mcp(mcp_bin, "bench", "-m", smollm2, "-p", "16", "-n", "0", "-r", "1", "--seqs", "3",
                   "-b", batch, "--json").json["rows"]
        assert [(r["test"], r["seqs"]) for r in rows] == [("pp16", 3)]


def test_zero_leaves_a_test_out(mcp_bin, smollm2):
    rows = mcp(mcp_bin, "bench", "-m", smollm2, "-p", "0", "-n", "2,3", "-r", "1",
               "--json").json["rows"]
    assert [r["test"] for r in rows] == ["tg2", "tg3"]
    refused(mcp(mcp_bin, "bench", "-m", smollm2, "-p", "0", "-n", "0"),
            "mcp bench: nothing to measure")


def test_wrong_cuts_are_refused(mcp_bin, smollm2):
    refused(mcp(mcp_bin, "bench", "-m", smollm2, "--cuts", "31"),
            "mcp bench: --cuts: 31 is outside 1..29 (the model has 30 layers)\n")
