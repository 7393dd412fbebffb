# SPDX-License-Identifier: MIT
"""`mcp debug logits`: rows of float32 that are the same however the model is cut."""

import array
import math

import pytest
from cli_common import answer, mcp, refused

TOKENS = "1,4093,28,253,1165,732,355,260"
COUNT = 8
VOCAB, EMBD = 49152, 576


def rows(mcp_bin, smollm2, tmp_path, *args, tokens=TOKENS, columns=VOCAB):
    out = tmp_path / "out.f32"
    result = mcp(mcp_bin, "debug", "logits", "-m", smollm2, "--tokens", tokens, "-o", out, *args)
    assert result.status == 0 and result.out == b"" and result.err == "", result
    values = array.array("f", out.read_bytes())
    assert len(values) % columns == 0
    return [values[i:i + columns] for i in range(0, len(values), columns)]


def largest_difference(a, b):
    assert len(a) == len(b)
    return max(abs(x - y) for r, s in zip(a, b) for x, y in zip(r, s))


@pytest.fixture(scope="session")
def straight(mcp_bin, smollm2, tmp_path_factory):
    return rows(mcp_bin, smollm2, tmp_path_factory.mktemp("straight"))


def test_a_row_a_token_of_finite_numbers(straight):
    assert len(straight) == COUNT
    for row in straight:
        assert all(map(math.isfinite, row)) and max(row) - min(row) > 1
    assert len({row.tobytes() for row in straight}) == COUNT


@pytest.mark.parametrize("cuts", ["15", "4,20", "1,2,3,28,29"])
def test_cuts_give_the_same_bytes(mcp_bin, smollm2, tmp_path, straight, cuts):
    assert rows(mcp_bin, smollm2, tmp_path, "--cuts", cuts) == straight


def test_cuts_give_the_same_bytes_in_any_windows(mcp_bin, smollm2, tmp_path, straight):
    windows = ["--windows", "3,1,2"]  # 3, 1, 2, 2
    whole = rows(mcp_bin, smollm2, tmp_path, *windows)
    assert rows(mcp_bin, smollm2, tmp_path, *windows, "--cuts", "4,20") == whole
    assert largest_difference(whole, straight) < 0.5  # other arithmetic, same meaning
    for a, b in zip(whole, straight):
        assert max(range(VOCAB), key=a.__getitem__) == max(range(VOCAB), key=b.__getitem__)


def test_a_batch_limit_is_windows_of_that_size(mcp_bin, smollm2, tmp_path):
    assert rows(mcp_bin, smollm2, tmp_path, "-b", "3") == rows(mcp_bin, smollm2, tmp_path,
                                                               "--windows", "3")


def test_sequences_together_equal_each_alone(mcp_bin, smollm2, tmp_path, straight):
    together = rows(mcp_bin, smollm2, tmp_path, "--seqs", "3")
    assert len(together) == 3 * COUNT
    for s in range(3):
        assert largest_difference(together[s * COUNT:(s + 1) * COUNT], straight) <= 1e-3
    cut = rows(mcp_bin, smollm2, tmp_path, "--seqs", "3", "--cuts", "4,20")
    assert cut == together


def test_hidden_states_of_a_boundary_do_not_depend_on_cuts_below_it(mcp_bin, smollm2, tmp_path):
    def hidden(boundary, *args):
        got = rows(mcp_bin, smollm2, tmp_path, "--hidden", boundary, *args, columns=EMBD)
        assert len(got) == COUNT
        return got

    at_20 = hidden(20)
    assert hidden(20, "--cuts", "4") == at_20
    assert hidden(20, "--cuts", "4,20,25") == at_20
    assert hidden(21) != at_20
    assert all(map(math.isfinite, hidden(30)[-1]))


def test_the_last_row_chooses_the_token_that_run_generates(mcp_bin, smollm2, tmp_path):
    text = "The capital of France is"
    out = tmp_path / "text.f32"
    result = mcp(mcp_bin, "debug", "logits", "-m", smollm2, "--text", text, "-o", out)
    assert result.status == 0, result
    values = array.array("f", out.read_bytes())
    last = values[-VOCAB:]
    generated = answer(mcp_bin, smollm2, "--raw", "-p", text, "-n", "1")
    assert len(values) == generated["prompt_tokens"] * VOCAB
    assert max(range(VOCAB), key=last.__getitem__) == generated["tokens"][0]


def test_standard_output_gets_the_same_rows(mcp_bin, smollm2, straight):
    result = mcp(mcp_bin, "debug", "logits", "-m", smollm2, "--tokens", TOKENS)
    assert result.status == 0 and result.out == b"".join(r.tobytes() for r in straight)


def test_wrong_requests_are_refused(mcp_bin, smollm2):
    def debug(*args):
        return mcp(mcp_bin, "debug", "logits", "-m", smollm2, *args)

    refused(debug(), "mcp debug logits: give either --tokens or --text\n")
    refused(debug("--tokens", "1", "--text", "x"),
            "mcp debug logits: give either --tokens or --text\n")
    refused(debug("--tokens", str(VOCAB)), "mcp debug logits: ", str(VOCAB))
    refused(debug("--tokens", "1,-2"), "mcp debug logits: --tokens: -2 is outside 0..")
    refused(debug("--tokens", "1", "--hidden", "31"),
            "mcp debug logits: --hidden: 31 is outside 0..30 (the model has 30 layers)\n")
    refused(debug("--tokens", "1", "--cuts", "30"), "mcp debug logits: --cuts: 30 is outside 1..29")
    refused(debug("--tokens", "1,2,3", "--windows", "3", "-b", "2"),
            "mcp debug logits: --windows: 3 tokens of 1 sequence(s) are more than -b/--batch-size 2")
    refused(debug("--tokens", "1,2,3", "--windows", "1,2", "-b", "1"),
            "mcp debug logits: --windows: 2 tokens of 1 sequence(s) are more than -b/--batch-size 1")
    refused(debug("--tokens", "1", "--seqs", "9", "-b", "8"),
            "mcp debug logits: --seqs: 9 sequences are more than -b/--batch-size 8\n")
    refused(debug("--tokens", "1", "-o", "/nonexistent/out"),
            "mcp debug logits: -o/--output: /nonexistent/out: No such file or directory\n")
