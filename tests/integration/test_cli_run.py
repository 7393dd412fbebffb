# SPDX-License-Identifier: MIT
"""`mcp run` with one prompt: the answer, its JSON, and every way that it can go wrong.

The model is real, small and often wrong; what is tested is that the same question gets
the same answer by every road (flags, files, variables, cuts), and that ends and
failures are told."""

import json
import os
import signal
import subprocess
import time

import pytest
from cli_common import SECONDS, answer, clean_env, mcp, refused

PROMPT = "Why is the sky blue?"
TOKENS = 12


@pytest.fixture(scope="session")
def reference(mcp_bin, smollm2):
    """What PROMPT is answered, greedily, in TOKENS tokens."""
    return answer(mcp_bin, smollm2, "-p", PROMPT, "-n", TOKENS)


def stream(mcp_bin, smollm2, *args, **kwargs):
    return mcp(mcp_bin, "run", "-m", smollm2, "--temp", "0", "-c", "512", *args, **kwargs)


# ---- the answer ---------------------------------------------------------------------


def places(plan):
    return [(s["first"], s["last"], s["where"], s["device"]) for s in plan["stages"]]


def test_json_holds_what_was_promised(reference, smollm2):
    assert {"text": str, "tokens": list, "prompt_tokens": int, "generated_tokens": int,
            "ttft_ms": float, "prompt_per_second": float, "predicted_per_second": float,
            "stop_reason": str, "seed": int, "plan": dict,
            "memory": dict}.items() <= {k: type(v) for k, v in reference.items()}.items()
    assert len(reference["text"]) > TOKENS
    assert len(reference["tokens"]) == reference["generated_tokens"] == TOKENS
    assert 5 < reference["prompt_tokens"] < 100
    assert reference["stop_reason"] == "length"
    assert reference["ttft_ms"] > 0 and reference["predicted_per_second"] > 0
    plan = reference["plan"]
    assert plan["mode"] == "local" and plan["cuts"] == []
    assert places(plan) == [(0, 30, "here", "cpu")]
    assert plan["stages"][0]["windows"] == TOKENS
    assert plan["stages"][0]["positions"] == reference["prompt_tokens"] + TOKENS - 1
    assert 0 < plan["stages"][0]["compute_ms"] <= plan["stages"][0]["elapsed_ms"]
    assert reference["codec"] == "none"
    assert (reference["bytes_out"], reference["bytes_in"], reference["failovers"]) == (0, 0, 0)
    assert reference["windows"] == TOKENS and reference["stall_ms_max"] > 0
    memory = reference["memory"]
    assert memory["peak_rss_bytes"] > memory["kv_bytes"] > 0
    assert memory["weight_bytes"] > smollm2.stat().st_size // 2


def test_streamed_text_is_the_same_and_timings_are_one_line_on_stderr(mcp_bin, smollm2, reference):
    result = stream(mcp_bin, smollm2, "-p", PROMPT, "-n", TOKENS)
    assert result.status == 0
    assert result.text == reference["text"] + "\n"
    assert len(result.err_lines) == 1, result
    for part in (f"prompt {reference['prompt_tokens']} tokens, ", f"generated {TOKENS} tokens, ",
                 "tokens/s", "first token ", " ms", "memory ", " MiB (weights ", "KV ", "compute ",
                 f"stopped at -n {TOKENS}"):
        assert part in result.err, part


def test_text_arrives_while_it_is_decided(mcp_bin, smollm2):
    process = subprocess.Popen([mcp_bin, "run", "-m", smollm2, "-p", PROMPT, "--ignore-eos", "-n",
                                "200", "-c", "512"], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, env=clean_env())
    try:
        first = os.read(process.stdout.fileno(), 65536)
        assert first and len(first) < 100  # far from 200 tokens
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("cuts", ["15", "4,20", "1,2,29"])
def test_cuts_change_nothing(mcp_bin, smollm2, reference, cuts):
    cut = answer(mcp_bin, smollm2, "-p", PROMPT, "-n", TOKENS, "--cuts", cuts)
    assert cut["tokens"] == reference["tokens"]
    edges = [0, *map(int, cuts.split(",")), 30]
    assert cut["plan"]["cuts"] == edges[1:-1]
    assert places(cut["plan"]) == [(a, b, "here", "cpu") for a, b in zip(edges, edges[1:])]


def test_a_seed_repeats_its_answer_and_another_one_differs(mcp_bin, smollm2):
    def sampled(seed):
        return answer(mcp_bin, smollm2, "-p", PROMPT, "-n", TOKENS, "--temp", "1.5", "--top-k",
                      "0", "--top-p", "1", "--min-p", "0", "-s", seed)

    one, again, other = sampled(1), sampled(1), sampled(2)
    assert one["tokens"] == again["tokens"] != other["tokens"]
    assert one["seed"] == 1 and other["seed"] == 2
    assert sampled(-1)["seed"] != sampled(-1)["seed"]


def test_top_k_of_one_is_greedy(mcp_bin, smollm2, reference):
    picked = answer(mcp_bin, smollm2, "-p", PROMPT, "-n", TOKENS, "--temp", "1.5", "--top-k", "1")
    assert picked["tokens"] == reference["tokens"]


def test_system_prompt_is_part_of_the_prompt(mcp_bin, smollm2, reference):
    system = answer(mcp_bin, smollm2, "-p", PROMPT, "-n", TOKENS, "-sys", "You are a pirate.")
    assert system["prompt_tokens"] > reference["prompt_tokens"]
    assert system["tokens"] != reference["tokens"]


def test_raw_text_goes_in_without_a_template(mcp_bin, smollm2, reference):
    raw = answer(mcp_bin, smollm2, "-p", PROMPT, "-n", TOKENS, "--raw")
    assert raw["prompt_tokens"] < reference["prompt_tokens"]
    # The template written by hand is the template.
    by_hand = answer(mcp_bin, smollm2, "-n", TOKENS, "--raw", "-p",
                     f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n")
    assert by_hand["tokens"] == reference["tokens"]


def test_the_models_own_end_stops_unless_it_is_ignored(mcp_bin, smollm2):
    prompt = ["--raw", "-p", "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\nHi!"]
    ended = answer(mcp_bin, smollm2, *prompt, "-n", "60")
    assert ended["stop_reason"] == "end" and ended["generated_tokens"] < 60
    going_on = answer(mcp_bin, smollm2, *prompt, "-n", "60", "--ignore-eos")
    assert going_on["stop_reason"] == "length" and going_on["generated_tokens"] == 60


# ---- where prompt and settings come from --------------------------------------------


def test_prompt_from_file_and_standard_input(mcp_bin, smollm2, reference, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text(PROMPT + "\n")
    assert answer(mcp_bin, smollm2, "-f", file, "-n", TOKENS)["tokens"] == reference["tokens"]
    assert answer(mcp_bin, smollm2, "-f", "-", "-n", TOKENS,
                  stdin=PROMPT)["tokens"] == reference["tokens"]
    file.write_text(PROMPT + "\n\n")  # only one newline is left out
    assert answer(mcp_bin, smollm2, "-f", file, "-n",
                  "1")["prompt_tokens"] == reference["prompt_tokens"] + 1


def test_settings_from_the_environment(mcp_bin, smollm2, reference):
    env = {"MCP_MODEL": str(smollm2), "MCP_PROMPT": PROMPT, "MCP_N_PREDICT": str(TOKENS),
           "MCP_TEMP": "0", "MCP_CTX_SIZE": "512", "MCP_JSON": "1", "MCP_CUTS": "4,20"}
    by_env = mcp(mcp_bin, "run", env=env).json
    assert by_env["tokens"] == reference["tokens"] and by_env["plan"]["cuts"] == [4, 20]
    by_flag = mcp(mcp_bin, "run", "-n", "3", "--cuts=", env=env).json
    assert by_flag["tokens"] == reference["tokens"][:3] and by_flag["plan"]["cuts"] == []


def test_a_model_is_found_by_name_in_the_models_folder(mcp_bin, smollm2, reference, tmp_path):
    (tmp_path / "tiny.gguf").symlink_to(smollm2)
    (tmp_path / "cache/mcp/models").mkdir(parents=True)
    (tmp_path / "cache/mcp/models/cached.gguf").symlink_to(smollm2)
    for name, env in (("tiny", {"MCP_MODELS": str(tmp_path)}),
                      ("tiny.gguf", {"MCP_MODELS": str(tmp_path)}),
                      ("cached", {"MCP_CACHE": str(tmp_path / "cache/mcp")}),
                      ("cached", {"XDG_CACHE_HOME": str(tmp_path / "cache")})):
        found = answer(mcp_bin, name, "-p", PROMPT, "-n", "2", env=env)
        assert found["tokens"] == reference["tokens"][:2]
    refused(mcp(mcp_bin, "run", "-m", "huge", "-p", "x", env={"MCP_MODELS": str(tmp_path)}),
            f"mcp run: there is no file huge, neither here nor in {tmp_path}\n")


# ---- bytes --------------------------------------------------------------------------


def test_half_characters_are_held_back_in_text_and_replaced_in_json(mcp_bin, smollm2):
    """The model writes an emoji as several tokens; cut between them, the JSON still is
    UTF-8, and no write to a pipe ends inside a character."""
    prompt = ["--raw", "-p", "😀😃😄😁😆"]
    texts = [answer(mcp_bin, smollm2, *prompt, "-n", n)["text"] for n in (1, 3)]
    assert any("\ufffd" in t for t in texts) and any("\ufffd" not in t for t in texts), texts

    process = subprocess.Popen([mcp_bin, "run", "-m", smollm2, "--temp", "0", "-c", "512", *prompt,
                                "-n", "12"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               env=clean_env())
    writes = []
    while chunk := os.read(process.stdout.fileno(), 65536):
        writes.append(chunk)
    assert process.wait() == 0
    whole = b"".join(writes)
    assert len(writes) > 3 and any(len(c.encode()) == 4 for c in whole.decode("utf-8", "replace"))
    for chunk in writes[:-2]:  # the end may be half a character: nothing is lost
        chunk.decode("utf-8")


def test_a_reader_that_goes_away_ends_the_run_quietly(mcp_bin, smollm2):
    process = subprocess.Popen([mcp_bin, "run", "-m", smollm2, "-p", PROMPT, "--ignore-eos", "-c",
                                "2048"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=clean_env())
    os.read(process.stdout.fileno(), 1)
    process.stdout.close()
    assert process.wait(SECONDS) == 1
    assert process.stderr.read() == b""


def test_a_full_disk_is_told(mcp_bin, smollm2):
    for json_flag in ([], ["--json"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([mcp_bin, "run", "-m", smollm2, "-p", PROMPT, "-n", "3", "-c",
                                   "256", *json_flag], stdout=full, stderr=subprocess.PIPE,
                                  env=clean_env(), timeout=SECONDS, check=False)
        assert done.returncode == 1
        assert done.stderr == b"mcp run: standard output: No space left on device\n"


# ---- ends ---------------------------------------------------------------------------


def test_a_full_context_stops_and_names_the_flag(mcp_bin, smollm2):
    full = answer(mcp_bin, smollm2, "-p", PROMPT, "-c", "32", "--ignore-eos")
    assert full["stop_reason"] == "context" and full["ctx_size"] == 32
    assert full["prompt_tokens"] + full["generated_tokens"] in (32, 33)
    result = stream(mcp_bin, smollm2, "-p", PROMPT, "-c", "32", "--ignore-eos")
    assert result.status == 0
    assert "context full: 32 tokens, raise -c/--ctx-size" in result.err, result


def test_a_prompt_longer_than_the_context_is_refused(mcp_bin, smollm2):
    refused(stream(mcp_bin, smollm2, "-p", "word " * 200, "-c", "64"), "mcp run: the prompt has ",
            "tokens, the context holds 64: raise -c/--ctx-size")


def test_a_context_beyond_the_trained_length_is_lowered_with_a_note(mcp_bin, smollm2):
    result = mcp(mcp_bin, "run", "-m", smollm2, "-p", PROMPT, "-n", "1", "-c", "100000", "--json")
    assert result.json["ctx_size"] == 8192
    assert result.err == ("mcp run: note: -c/--ctx-size 100000 is lowered to 8192, the length that "
                          "the model was trained for\n")


def test_ctrl_c_stops_the_answer_and_what_there_is_is_shown(mcp_bin, smollm2):
    args = [mcp_bin, "run", "-m", smollm2, "--temp", "0", "-p", PROMPT, "--ignore-eos", "-c", "4096"]
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=clean_env())
    shown = os.read(process.stdout.fileno(), 65536)
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1  # so that a script does not go on
    assert (shown + rest).endswith(b"\n") and len(shown + rest) > 3
    assert err.decode().count("\n") == 1 and "stopped by Ctrl-C" in err.decode(), err


def wait_for_ctrl_c_handler(process):
    """Until the program has taken over SIGINT: the model is loaded, the answer begins."""
    begun = time.monotonic()
    while time.monotonic() - begun < SECONDS:
        with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
            caught = next(int(line.split()[1], 16) for line in status if line.startswith("SigCgt"))
        if caught & (1 << (signal.SIGINT - 1)):
            return
        time.sleep(0.02)
    raise AssertionError("SIGINT is never taken over")


def test_ctrl_c_stops_a_long_prompt_before_its_end_and_leaves_whole_json(mcp_bin, smollm2):
    """Generation has the callback to stop at; a prompt has only mcp_engine_cancel()."""
    process = subprocess.Popen([mcp_bin, "run", "-m", smollm2, "-p", "word " * 6000, "--json",
                                "-n", "1", "-c", "8192"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=clean_env())
    wait_for_ctrl_c_handler(process)
    time.sleep(1.0)  # of many
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    result = json.loads(out)
    assert result["stop_reason"] == "cancel"
    assert result["tokens"] == [] and result["generated_tokens"] == 0 and result["text"] == ""


# ---- refusals -----------------------------------------------------------------------


def test_wrong_cuts_are_refused(mcp_bin, smollm2):
    for cuts, sentence in (("30", "30 is outside 1..29 (the model has 30 layers)"),
                           ("0", "0 is outside 1..29 (the model has 30 layers)"),
                           ("20,4", "4 after 20 does not ascend"),
                           ("4,4", "4 after 4 does not ascend"),
                           (",".join(map(str, range(300))), "300 cuts are more than 255")):
        refused(stream(mcp_bin, smollm2, "-p", "x", "--cuts", cuts),
                f"mcp run: --cuts: {sentence}\n")


def test_wrong_files_are_refused(mcp_bin, smollm2, tmp_path):
    text = tmp_path / "text.gguf"
    text.write_text("this is no model\n")
    refused(mcp(mcp_bin, "run", "-m", text, "-p", "x"), "mcp run: ", str(text))
    refused(mcp(mcp_bin, "run", "-m", tmp_path, "-p", "x"), "mcp run: ", str(tmp_path))
    refused(mcp(mcp_bin, "run", "-m", "/nonexistent/m.gguf", "-p", "x"),
            "mcp run: there is no file /nonexistent/m.gguf\n")
    refused(stream(mcp_bin, smollm2, "-f", "/nonexistent/p.txt"),
            "mcp run: -f/--file: /nonexistent/p.txt: No such file or directory\n")
    refused(stream(mcp_bin, smollm2, "-f", tmp_path), f"mcp run: -f/--file: {tmp_path}: ")
    (tmp_path / "nul").write_bytes(b"abc\0def")
    refused(stream(mcp_bin, smollm2, "-f", tmp_path / "nul"), "mcp run: -f/--file: ",
            "holds a NUL byte at offset 3")
    refused(stream(mcp_bin, smollm2, "-p", "x", "-f", text),
            "mcp run: -p/--prompt and -f/--file are two prompts; give one\n")


def test_devices_that_are_not_there_are_refused(mcp_bin, smollm2):
    refused(stream(mcp_bin, smollm2, "-p", "x", "--device", "cuda99"), "mcp run: ", "cuda99")


def test_flags_without_effect_are_told(mcp_bin, smollm2):
    result = stream(mcp_bin, smollm2, "-p", PROMPT, "-n", "1", "--device", "cpu", "-ngl", "5")
    assert result.status == 0
    assert ("mcp run: note: -ngl/--n-gpu-layers has no effect: all layers run on the CPU"
            in result.err_lines)
    result = stream(mcp_bin, smollm2, "-p", PROMPT, "-n", "1", "--raw", "-sys", "Be kind.")
    assert ("mcp run: note: -sys/--system-prompt has no effect without a chat template"
            in result.err_lines)
    result = stream(mcp_bin, smollm2, "-p", PROMPT, "-n", "1", "-b", "64", "-ub", "128")
    assert "mcp run: note: -ub/--ubatch-size 128 is lowered to -b/--batch-size 64" in result.err_lines


@pytest.mark.parametrize("flags", [["-ctk", "q8_0", "-ctv", "q8_0", "-fa", "on"],
                                   ["-ctk", "f32", "-ctv", "f32"], ["-fa", "off"], ["-t", "2"], ["-t", "0"],
                                   ["-b", "4", "-ub", "2"]])
def test_engine_flags_keep_the_beginning_of_the_answer(mcp_bin, smollm2, reference, flags):
    other = answer(mcp_bin, smollm2, "-p", PROMPT, "-n", "4", *flags)
    assert other["tokens"] == reference["tokens"][:4]


def test_kv_type_changes_the_memory(mcp_bin, smollm2):
    def kv_bytes(kind, flash):
        return answer(mcp_bin, smollm2, "-p", PROMPT, "-n", "1", "-fa", flash, "-ctk", kind,
                      "-ctv", kind)["memory"]["kv_bytes"]

    f16 = kv_bytes("f16", "on")
    assert kv_bytes("f32", "off") == 2 * f16
    assert 0.5 < kv_bytes("q8_0", "on") / f16 < 0.55
    refused(stream(mcp_bin, smollm2, "-p", PROMPT, "-fa", "off", "-ctv", "q8_0"), "mcp run: ",
            "q8_0")


def test_a_model_without_template_is_told_and_goes_on_raw(mcp_bin, smollm2, tmp_path):
    bare = tmp_path / "bare.gguf"
    data = smollm2.read_bytes()
    key = b"tokenizer.chat_template"
    assert data.count(key) == 1
    bare.write_bytes(data.replace(key, b"tokenizer.chat_tempXXXX"))
    del data
    result = stream(mcp_bin, bare, "-p", PROMPT, "-n", "4", "--json")
    assert len(result.err_lines) == 1 and result.err.startswith("mcp run: note: "), result
    assert "--raw" in result.err
    raw = answer(mcp_bin, smollm2, "-p", PROMPT, "-n", "4", "--raw")
    assert result.json["tokens"] == raw["tokens"]
