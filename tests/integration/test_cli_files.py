# SPDX-License-Identifier: MIT
"""`mcp show`, `mcp list`, `mcp devices`: figures against the file itself."""

import os
import re

import pytest
from cli_common import mcp, refused


@pytest.fixture(scope="session")
def shown(mcp_bin, smollm2):
    return mcp(mcp_bin, "show", smollm2, "--json").json


def test_show_tells_what_the_file_holds(shown, smollm2):
    expected = {"path": str(smollm2), "architecture": "llama", "parts": 1, "layers": 30,
                "n_embd": 576, "n_vocab": 49152, "n_ctx_train": 8192, "n_head": 9, "n_head_kv": 3,
                "n_ff": 1536, "n_expert": 0, "n_expert_used": 0,
                "file_bytes": smollm2.stat().st_size,
                # 30 layers x (K + V) x 3 heads x 64 values: 2 bytes each, or 34 per 32 of them
                "kv_bytes_f16": 30 * 2 * 3 * 64 * 2, "kv_bytes_q8_0": 30 * 2 * 3 * 64 * 34 // 32}
    assert {k: shown[k] for k in expected} == expected
    assert shown["parameters"] == 134515008
    assert 0.9 * shown["file_bytes"] < shown["weight_bytes"] < shown["file_bytes"]
    assert len(shown["layer_bytes"]) == 30 and sum(shown["layer_bytes"]) >= shown["weight_bytes"]
    assert "q4_1" in shown["quantisation"].lower()
    assert shown["chat_template"].startswith("{%")
    assert re.fullmatch(r"[0-9a-f]{64}", shown["fingerprint"])


def test_show_for_people_has_the_same_facts(mcp_bin, smollm2, shown):
    result = mcp(mcp_bin, "show", smollm2)
    assert result.status == 0 and result.err == ""
    facts = dict(re.split(r"  +| ", line, maxsplit=1) for line in result.text.splitlines()
                 if re.match(r"(architecture|layers|fingerprint|quantisation|tokenizer) ", line))
    assert {k: v.strip() for k, v in facts.items()} == {
        "architecture": "llama", "layers": "30", "fingerprint": shown["fingerprint"],
        "quantisation": shown["quantisation"], "tokenizer": f"{shown['tokenizer']}, 49152 tokens"}
    assert "22.5 KiB a token in f16, 12.0 KiB in q8_0" in result.text
    columns = {line[:15].rstrip() != "" and line[14] for line in result.text.splitlines()
               if not line.startswith(" ")}
    assert columns == {" "}  # all values begin in one column


def test_show_template_prints_it_whole(mcp_bin, smollm2, shown):
    whole = mcp(mcp_bin, "show", smollm2, "--template").text
    brief = mcp(mcp_bin, "show", smollm2).text
    assert shown["chat_template"] in whole and shown["chat_template"] not in brief


def test_the_model_fingerprint_is_of_the_content_not_of_the_name(mcp_bin, smollm2, shown, tmp_path):
    copy = tmp_path / "other name.gguf"
    copy.symlink_to(smollm2)
    assert mcp(mcp_bin, "show", copy, "--json").json["fingerprint"] == shown["fingerprint"]
    changed = tmp_path / "changed.gguf"
    data = smollm2.read_bytes()
    key = b"llama.rope.freq_base"
    place = data.index(key) + len(key) + 4  # the value, a float, behind its type
    changed.write_bytes(data[:place] + b"\x00\x00\x80\x46" + data[place + 4:])
    assert mcp(mcp_bin, "show", changed, "--json").json["fingerprint"] != shown["fingerprint"]


def test_weights_fingerprints_are_one_a_part_and_only_when_asked(mcp_bin, smollm2, shown):
    assert "weights_fingerprints" not in shown
    parts = mcp(mcp_bin, "show", smollm2, "--json", "--fingerprints").json["weights_fingerprints"]
    assert list(parts) == ["embedding", *map(str, range(30)), "head"]
    assert len(set(parts.values())) == 32
    text = mcp(mcp_bin, "show", smollm2, "--fingerprints").text
    assert re.findall(r"^  (\w+) +([0-9a-f]{64})$", text, re.M) == list(parts.items())


def test_show_refuses_what_is_no_model(mcp_bin, tmp_path):
    refused(mcp(mcp_bin, "show"), "mcp show: no model: give -m/--model FILE or set MCP_MODEL\n")
    (tmp_path / "empty.gguf").touch()
    refused(mcp(mcp_bin, "show", tmp_path / "empty.gguf"), "mcp show: ", "empty.gguf")
    refused(mcp(mcp_bin, "show", "/nonexistent"), "mcp show: there is no file /nonexistent\n")


@pytest.fixture
def folder(smollm2, tmp_path):
    (tmp_path / "zoo.gguf").symlink_to(smollm2)
    (tmp_path / "broken.gguf").write_text("this is no model\n")
    (tmp_path / "notes.txt").write_text("ignored\n")
    (tmp_path / ".gguf").write_text("ignored\n")
    (tmp_path / "big-00001-of-00003.gguf").write_bytes(b"GGUF")
    (tmp_path / "big-00002-of-00003.gguf").write_bytes(b"GGUF")
    os.mkdir(tmp_path / "folder.gguf")
    return tmp_path


def test_list_names_every_file_and_the_reason_where_one_does_not_open(mcp_bin, smollm2, folder):
    rows = {row["file"]: row for row in mcp(mcp_bin, "list", folder, "--json").json}
    assert list(rows) == ["big-00001-of-00003.gguf", "broken.gguf", "folder.gguf", "zoo.gguf"]
    zoo = rows.pop("zoo.gguf")
    assert zoo["architecture"] == "llama" and zoo["layers"] == 30
    assert zoo["file_bytes"] == smollm2.stat().st_size and "q4_1" in zoo["quantisation"].lower()
    for row in rows.values():
        assert len(row["error"]) > 10 and "architecture" not in row

    result = mcp(mcp_bin, "list", folder)
    assert result.status == 0 and result.err == ""
    lines = result.text.splitlines()
    assert lines[0].split() == ["file", "architecture", "layers", "size", "quantisation"]
    assert len(lines) == 5
    assert re.match(r"zoo\.gguf +llama +30 +93\.8 MiB +\S", lines[4])
    assert rows["broken.gguf"]["error"] in lines[2]


def test_list_looks_where_the_environment_says(mcp_bin, folder):
    by_argument = mcp(mcp_bin, "list", folder).out
    assert mcp(mcp_bin, "list", env={"MCP_MODELS": str(folder)}).out == by_argument
    (folder / "mcp").mkdir()
    (folder / "mcp/models").symlink_to(folder)
    # The folder's name is part of the reasons, so only the names are compared.
    by_cache = mcp(mcp_bin, "list", env={"XDG_CACHE_HOME": str(folder)}).text.splitlines()
    assert [r.split()[0] for r in by_cache] == [r.split()[0] for r in
                                                by_argument.decode().splitlines()]


def test_list_of_nothing(mcp_bin, tmp_path):
    empty = mcp(mcp_bin, "list", tmp_path)
    assert empty.status == 0 and empty.out == b""
    assert empty.err == f"mcp list: note: no .gguf files in {tmp_path}\n"
    assert mcp(mcp_bin, "list", env={"MCP_CACHE": str(tmp_path)}).status == 0
    refused(mcp(mcp_bin, "list", "/nonexistent"),
            "mcp list: /nonexistent: No such file or directory\n")


def test_a_name_cannot_give_orders_to_the_terminal(mcp_bin, tmp_path):
    (tmp_path / "a\x1b[31mred.gguf").write_text("x")
    result = mcp(mcp_bin, "list", tmp_path)
    assert "\x1b" not in result.text and "red.gguf" in result.text


def test_devices_has_the_cpu(mcp_bin):
    devices = mcp(mcp_bin, "devices", "--json").json
    cpu = next(d for d in devices if d["name"] == "cpu")
    assert cpu["gpu"] is False and cpu["description"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert cpu["memory_bytes"] == pytest.approx(memory, rel=0.1)
    lines = mcp(mcp_bin, "devices").text.splitlines()
    assert lines[0].split() == ["device", "memory", "free", "description"]
    assert [line.split()[0] for line in lines[1:]] == [d["name"] for d in devices]
