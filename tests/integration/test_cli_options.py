# SPDX-License-Identifier: MIT
"""The option tables: every row can be written as the help says, wrong values are
refused by one sentence that names the option, a flag wins over its variable.

`mcp help --json` prints the very tables that the parser walks, so a new row is tested
here without being named here."""

import json
import subprocess

import pytest
from cli_common import clean_env, mcp, refused


@pytest.fixture(scope="session")
def tables(mcp_bin):
    return mcp(mcp_bin, "help", "--json").json


def rows(tables, *types):
    return [(t["verb"], o) for t in tables for o in t["options"] if o["type"] in types or not types]


def label(option):
    return f"-{option['brief']}/--{option['name']}" if option["brief"] else f"--{option['name']}"


def test_tables_hold_the_promised_flags(tables):
    flags = {t["verb"]: {(o["name"], o["brief"]) for o in t["options"]} for t in tables}
    assert {"run", "show", "list", "devices", "bench", "debug logits", "help",
            "version"} <= set(flags)
    assert {("model", "m"), ("prompt", "p"), ("file", "f"), ("n-predict", "n"), ("ctx-size", "c"),
            ("threads", "t"), ("batch-size", "b"), ("ubatch-size", "ub"), ("temp", None),
            ("top-k", None), ("top-p", None), ("min-p", None), ("seed", "s"), ("device", None),
            ("n-gpu-layers", "ngl"), ("cache-type-k", "ctk"), ("cache-type-v", "ctv"),
            ("flash-attn", "fa"), ("raw", None), ("system-prompt", "sys"), ("cuts", None),
            ("ignore-eos", None), ("json", None), ("verbose", "v")} <= flags["run"]
    assert {("n-prompt", "p"), ("n-gen", "n"), ("seqs", None), ("depth", "d"),
            ("repetitions", "r"), ("cuts", None), ("json", None)} <= flags["bench"]
    assert {("tokens", None), ("windows", None), ("seqs", None), ("hidden", None),
            ("output", "o"), ("cuts", None)} <= flags["debug logits"]


def test_names_and_variables_are_unique_and_follow_one_rule(tables):
    for table in tables:
        names = [n for o in table["options"] for n in (o["name"], o["brief"], o["also"]) if n]
        assert len(names) == len(set(names)), table["verb"]
        for option in table["options"]:
            assert option["env"] == "MCP_" + option["name"].upper().replace("-", "_")


def test_help_shows_every_flag_and_variable(mcp_bin, tables):
    for table in tables:
        words = table["verb"].split()
        by_flag = mcp(mcp_bin, *words, "--help")
        assert by_flag.status == 0 and by_flag.err == "", by_flag
        assert by_flag.out == mcp(mcp_bin, "help", *words).out
        for option in table["options"]:
            assert f"--{option['name']}" in by_flag.text
            assert f"[{option['env']}]" in by_flag.text
            if option["default"]:
                assert option["default"] in by_flag.text


def test_help_needs_no_valid_rest(mcp_bin):
    for args in (["run", "-n", "abc", "--help"], ["run", "--nonsense", "-h"]):
        assert mcp(mcp_bin, *args).text.startswith("usage: mcp run")
    assert mcp(mcp_bin, "run", "--help", env={"MCP_THREADS": "abc"}).status == 0


def test_overview_and_version(mcp_bin, tables):
    overview = mcp(mcp_bin)
    assert overview.status == 0 and overview.out == mcp(mcp_bin, "help").out
    for table in tables:
        assert f"  {table['verb']} " in overview.text
    version = mcp(mcp_bin, "version")
    assert version.status == 0
    word, number = version.text.split()
    assert word == "mcp" and len(number.split(".")) == 3


def test_numbers_are_parsed_strictly(mcp_bin, tables):
    wrong = ["abc", "1x", " 1", "0x10", "--", "1,"]
    for verb, option in rows(tables, "int", "real", "ints"):
        kind = {"int": "a whole number", "real": "a number",
                "ints": "a list of whole numbers"}[option["type"]]
        for value in wrong:
            result = mcp(mcp_bin, *verb.split(), f"--{option['name']}", value)
            refused(result, f"mcp {verb}: {label(option)}: '{value}' ")
            assert kind in result.err or "ends in a comma" in result.err, result
    refused(mcp(mcp_bin, "run", "-n", "abc"),
            "mcp run: -n/--n-predict: 'abc' is not a whole number\n")


def test_numbers_are_checked_against_their_limits(mcp_bin, tables):
    for verb, option in rows(tables, "int", "real", "ints"):
        for value in (f"{int(option['max']) + 1}", f"{int(option['min']) - 1}", "9" * 30,
                      "-" + "9" * 30):
            refused(mcp(mcp_bin, *verb.split(), f"--{option['name']}={value}"),
                    f"mcp {verb}: {label(option)}: {value} is outside ", "..")
    for value in ("nan", "inf", "1e999"):
        refused(mcp(mcp_bin, "run", "--temp", value), f"mcp run: --temp: '{value}' is not a number")


def test_words_are_one_of_the_list(mcp_bin, tables):
    checked = 0
    for verb, option in rows(tables, "word"):
        refused(mcp(mcp_bin, *verb.split(), f"--{option['name']}", "maybe"),
                f"mcp {verb}: {label(option)}: 'maybe' is not one of ", *option["words"])
        checked += 1
    assert checked >= 3


def test_every_variable_is_read(mcp_bin, tables):
    """A wrong value in the variable is refused under the variable's name."""
    for verb, option in rows(tables, "int", "real", "ints", "word", "flag"):
        refused(mcp(mcp_bin, *verb.split(), env={option["env"]: "?"}),
                f"mcp {verb}: {option['env']}: '?' is not ")


def test_a_flag_wins_over_its_variable_and_the_last_flag_wins(mcp_bin):
    path = "/nonexistent/a.gguf"
    by_env = mcp(mcp_bin, "run", env={"MCP_MODEL": path})
    refused(by_env, f"mcp run: there is no file {path}")
    by_flag = mcp(mcp_bin, "run", "-m", "/nonexistent/b.gguf", env={"MCP_MODEL": path})
    refused(by_flag, "mcp run: there is no file /nonexistent/b.gguf")
    last = mcp(mcp_bin, "run", "-m", "/nonexistent/b.gguf", "--model=/nonexistent/c.gguf")
    refused(last, "mcp run: there is no file /nonexistent/c.gguf")
    empty = mcp(mcp_bin, "run", env={"MCP_MODEL": ""})
    refused(empty, "mcp run: no model: give -m/--model FILE or set MCP_MODEL\n")


def test_flag_and_value_may_be_one_word_or_two(mcp_bin):
    for form in (["--model", "/nonexistent/x"], ["--model=/nonexistent/x"], ["-m", "/nonexistent/x"],
                 ["-m=/nonexistent/x"]):
        refused(mcp(mcp_bin, "run", *form), "mcp run: there is no file /nonexistent/x\n")


def test_unknown_flags_are_refused_with_the_nearest_one(mcp_bin):
    for wrong, near in (("--ctx-sise", "--ctx-size"), ("--n-predcit", "--n-predict"),
                        ("--thread", "--threads"), ("-nlg", "-ngl"), ("--ignore-eso=1",
                                                                      "--ignore-eos")):
        refused(mcp(mcp_bin, "run", wrong, "4"),
                f"mcp run: unknown flag {wrong.split('=')[0]}; did you mean {near}?\n")
    refused(mcp(mcp_bin, "run", "--zzzzzzzzz"),
            "mcp run: unknown flag --zzzzzzzzz; 'mcp run --help' lists what there is\n")


def test_a_missing_value_and_a_stray_word_are_refused(mcp_bin, tables):
    for verb, option in rows(tables, "int", "real", "ints", "text"):
        refused(mcp(mcp_bin, *verb.split(), f"--{option['name']}"),
                f"mcp {verb}: {label(option)} needs a value")
    refused(mcp(mcp_bin, "run", "hello"), "mcp run: 'hello' is not expected here; usage: mcp run ")
    refused(mcp(mcp_bin, "show", "a", "b"), "mcp show: 'b' is not expected here")


def test_unknown_verbs_are_refused_with_the_nearest_one(mcp_bin):
    refused(mcp(mcp_bin, "rnu"), "mcp: unknown verb 'rnu'; did you mean 'run'?\n")
    refused(mcp(mcp_bin, "xyzzy"), "mcp: unknown verb 'xyzzy'; 'mcp help' lists them\n")
    refused(mcp(mcp_bin, "debug"), "mcp debug: a second word is missing")
    refused(mcp(mcp_bin, "debug", "logit"), "mcp debug: unknown verb 'logit'; did you mean 'logits'?")


def test_the_error_line_stays_one_line(mcp_bin):
    refused(mcp(mcp_bin, "run", "-m", "/nonexistent/a\nb\x1b[31m"),
            "mcp run: there is no file /nonexistent/a?b?[31m\n")
    refused(mcp(mcp_bin, "run", "-m", "/" + "x" * 10000), "mcp run: the model's path is longer than")
    refused(mcp(mcp_bin, "run", "-n", "9" * 100000), "mcp run: -n/--n-predict: 999")


def test_output_that_cannot_be_written_is_a_failure(mcp_bin):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([mcp_bin, "help", "--json"], stdout=full, stderr=subprocess.PIPE,
                              env=clean_env(), check=False)
    assert done.returncode == 1
    assert done.stderr == b"mcp help: standard output: No space left on device\n"


def test_json_is_one_line(mcp_bin):
    lines = mcp(mcp_bin, "help", "--json").text.splitlines()
    assert len(lines) == 1 and isinstance(json.loads(lines[0]), list)
