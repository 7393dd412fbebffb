# SPDX-License-Identifier: MIT
"""Files that lie.

Goal:   whatever a model file holds, `mcp` answers with one sentence and status 1, and
        the library with an error; never a signal, a hang or a large allocation.
Method: some 1,800 files, each a valid tiny model with one thing wrong (hostile.py), are
        opened with the library in a child process, shown and run with the command;
        truncations, special files, split files and sparse files have tests of their own.
Replay: ./dev test 'NAME', where NAME is the case in brackets;
        python tests/integration/write_case.py NAME FILE writes its file.
"""

import concurrent.futures
import math
import multiprocessing
import os
import random
import shutil
from pathlib import Path

import pytest

import confined
import hostile
from gguf_writer import (I32, STRING, U8, Gguf, Tensor, array, f32, i32, raw_value, split,
                         split_name, string, tiny, tiny_llama, u16, u32)
from hostile import ACCEPTED, CASES, EITHER, REFUSED, UNUSABLE
from opener import Opener
from sentence import complaint, one_line

WORKERS = 2


# ---- one case, in a worker process --------------------------------------------------

_opener = None


def _examine(name, folder, mcp_bin, mcp_lib):
    """Open, show and run the file of one case; returns what happened as plain data."""
    global _opener
    if _opener is None:
        _opener = Opener(mcp_lib)
    case = CASES[name]
    path = Path(folder) / f"case-{os.getpid()}.gguf"
    path.write_bytes(case.build())
    opened = _opener.ask(path, text=case.prompt, engine=True)
    shown = confined.run([mcp_bin, "show", path])
    ran = confined.run([mcp_bin, "run", "-m", path, *(["--raw"] if case.raw else []),
                        "-p", case.prompt, "-n", "2", "--temp", "0", "-t", "1"])
    path.unlink()
    return name, dict(file=path.name, opened=opened, shown=shown, ran=ran)


@pytest.fixture(scope="module")
def outcomes(request, mcp_bin, mcp_lib, tmp_path_factory):
    """What happened to each case that a selected test asks about, computed by a pool."""
    wanted = sorted({item.callspec.params["name"] for item in request.session.items
                     if item.path == request.path and hasattr(item, "callspec")
                     and "name" in item.callspec.params})
    folder = tmp_path_factory.mktemp("cases")
    with concurrent.futures.ProcessPoolExecutor(
            WORKERS, mp_context=multiprocessing.get_context("fork")) as pool:
        jobs = [pool.submit(_examine, name, folder, mcp_bin, mcp_lib) for name in wanted]
        return dict(job.result() for job in jobs)


def check_limits(what, cpu_s, bytes_used):
    assert cpu_s <= confined.CPU_S, f"{what} took {cpu_s:.1f} s of processor time"
    assert bytes_used <= confined.RSS_BYTES, f"{what} took {bytes_used >> 20} MiB of memory"


def check_ended(result, what):
    """Not a signal, not a hang, within its limits."""
    tail = result.err[-1500:].decode(errors="replace")
    assert not result.timed_out, f"{what} hung: {tail}"
    assert result.signal is None, f"{what} died of {result.signal}: {tail}"
    check_limits(what, result.cpu_s, result.rss_bytes)


def check_refusal(result, what, name, says=()):
    """Ended with status 1 and one sentence."""
    check_ended(result, what)
    assert result.status == 1, f"{what}: status {result.status}; stdout {result.out[:300]!r}, " \
                               f"stderr {result.err[:600]!r}"
    line, wrong = one_line(result.err)
    assert not wrong, f"{what}: {wrong}"
    wrong = complaint(line, name, says)
    assert not wrong, f"{what}: {wrong}"
    assert result.out == b"", f"{what}: printed {result.out[:300]!r} before it failed"


def check_answer(answer, what, name, says, outcome):
    """The same for what the library said."""
    assert "died" not in answer, f"{what} died of {answer.get('died')}: {answer.get('said')}"
    assert "hung" not in answer, f"{what} hung"
    check_limits(what, answer["cpu_s"], answer["peak_bytes"])
    assert answer["maps"] == 0, f"{what}: the file is still mapped after everything was closed"
    if answer["code"] == "MCP_OK":
        assert outcome not in (REFUSED, UNUSABLE), f"{what}: accepted, and computed with"
        return
    assert outcome != ACCEPTED, f"{what}: {answer['call']} refused it: {answer['error']!r}"
    assert answer["agrees"], f"{what}: returned another code than it stored"
    calls = {REFUSED: ["mcp_model_open"], UNUSABLE: ["mcp_model_open", "mcp_model_tokenize"]}
    assert answer["call"] in calls.get(outcome, [answer["call"]]), \
        f"{what}: was opened, then {answer['call']} said {answer['error']!r}"
    about_file = answer["call"] == "mcp_model_open" or outcome == UNUSABLE
    wrong = complaint(answer["error"], name if about_file else None, says)
    assert not wrong, f"{what}: {wrong}"


# ---- every case ---------------------------------------------------------------------

@pytest.mark.parametrize("name", CASES)
def test_library(name, outcomes):
    case, seen = CASES[name], outcomes[name]
    check_answer(seen["opened"], name, seen["file"], case.says, case.outcome)
    if case.outcome == ACCEPTED:
        logits = seen["opened"]["logits"]
        assert all(map(math.isfinite, logits)), f"{name}: logits are not finite"


@pytest.mark.parametrize("name", CASES)
def test_command(name, outcomes):
    case, seen = CASES[name], outcomes[name]
    for verb, result in (("show", seen["shown"]), ("run", seen["ran"])):
        what = f"{verb} {name}"
        if case.outcome == REFUSED or (case.outcome == UNUSABLE and verb == "run"):
            check_refusal(result, what, seen["file"], case.says)
            continue
        check_ended(result, what)
        if result.status == 0:
            if verb == "show":
                assert result.err.count(b"\n") <= 1, f"{what}: noise {result.err[:500]!r}"
                controls = [b for b in result.out if b < 0x20 and b not in b"\n\t"]
                assert not controls, f"{what}: prints control bytes {bytes(controls[:9])!r}"
            continue
        assert case.outcome in (EITHER, UNUSABLE), \
            f"{what}: status {result.status}: {result.err[:600]!r}"
        # The text may be what is wrong, and then the file is not to be named.
        line, wrong = one_line(result.err)
        wrong = wrong or (complaint(line, seen["file"], case.says) if verb == "show"
                          else complaint(line, None, ()))
        assert result.status == 1 and not wrong, f"{what}: status {result.status}, {wrong}"


# ---- truncation ---------------------------------------------------------------------

def test_truncated_at_every_byte_of_the_header(mcp_lib, tmp_path):
    model = tiny_llama()
    path = tmp_path / "truncated.gguf"
    whole = model.to_bytes()
    path.write_bytes(whole)
    opener = Opener(mcp_lib)
    before = opener.ask(path, text="the cat")
    assert before["code"] == "MCP_OK"
    header = len(model.header_bytes())
    # from the end backwards, so that one file serves all; the data: a few places
    rng = random.Random(7)
    places = list(range(header + 64)) + [rng.randrange(header, len(whole)) for _ in range(200)]
    last = None
    for size in sorted(places, reverse=True):
        os.truncate(path, size)
        answer = opener.ask(path, text="the cat")
        check_answer(answer, f"cut to {size} of {len(whole)}", path.name, (), REFUSED)
        assert answer["code"] == "MCP_EFORMAT", f"cut to {size}: {answer}"
        assert answer["fds"] == before["fds"], f"cut to {size}: a descriptor stays open"
        last = answer
    opener.stop()
    assert last is not None


def test_truncated_smollm2(mcp_bin, mcp_lib, smollm2, tmp_path):
    path = tmp_path / "smollm2-cut.gguf"
    shutil.copyfile(smollm2, path)
    size = path.stat().st_size
    rng = random.Random(11)
    places = {4096 * i for i in range(17)} | {rng.randrange(65536, size) for _ in range(200)}
    places |= {size - 1, size - 32, size - 4096}
    opener = Opener(mcp_lib)
    for number, place in enumerate(sorted(places, reverse=True)):
        os.truncate(path, place)
        answer = opener.ask(path)
        check_answer(answer, f"cut to {place}", path.name, (), REFUSED)
        if number % 10 == 0:
            for command in (["show", path], ["run", "-m", path, "--raw", "-p", "x", "-n", "2"]):
                check_refusal(confined.run([mcp_bin, *command]), f"{command[0]} cut to {place}",
                              path.name)
    opener.stop()


def test_failures_leave_nothing_behind(mcp_lib, tmp_path):
    """A thousand refusals of each kind cost no memory and no descriptors."""
    opener = Opener(mcp_lib)
    names = ["dims-2e32x2e32", "missing-llama-output_norm.weight", "vocab-299-of-300",
             "llama.block_count-0", "tokenizer-model-banana", "token-duplicate",
             "tokenizer-pre-banana", "string-length-2e40"]
    paths = []
    for i, name in enumerate(names):
        paths.append(tmp_path / f"{i}.gguf")
        paths[-1].write_bytes(CASES[name].build())
    for path in paths * 50:
        opener.ask(path)
    before = _memory(opener.child.pid), opener.ask(paths[0])["fds"]
    for path in paths * 1000:
        answer = opener.ask(path)
        assert "died" not in answer, answer
    after = _memory(opener.child.pid), opener.ask(paths[0])["fds"]
    opener.stop()
    assert after[1] == before[1], "descriptors stay open"
    assert after[0] - before[0] < 4 << 20, f"{(after[0] - before[0]) >> 10} KiB in 8,000 refusals"


def _memory(pid):
    fields = Path(f"/proc/{pid}/status").read_text().split()
    return int(fields[fields.index("VmRSS:") + 1]) * 1024


# ---- things that are no model file ----------------------------------------------------

MISSING = r"(?i)(no such|no file|missing|not exist|not found)"


def both(mcp_bin, path, **limits):
    """(what, result) of show and run."""
    yield "show", confined.run([mcp_bin, "show", path], **limits)
    yield "run", confined.run([mcp_bin, "run", "-m", path, "--raw", "-p", "x", "-n", "2",
                               "--temp", "0"], **limits)


def refused_by_both(mcp_bin, path, *says):
    for what, result in both(mcp_bin, path):
        check_refusal(result, f"{what} {path}", Path(path).name, says)


def test_fifo(mcp_bin, tmp_path):
    os.mkfifo(tmp_path / "fifo.gguf")
    refused_by_both(mcp_bin, tmp_path / "fifo.gguf", r"regular file")


def test_fifo_as_second_part(mcp_bin, tmp_path):
    first = split(tiny_llama(), 2)[0]
    (tmp_path / split_name("m", 0, 2)).write_bytes(first.to_bytes())
    os.mkfifo(tmp_path / split_name("m", 1, 2))
    for what, result in both(mcp_bin, tmp_path / split_name("m", 0, 2)):
        check_refusal(result, what, split_name("m", 1, 2), [r"regular file"])


def test_directory(mcp_bin, tmp_path):
    (tmp_path / "folder.gguf").mkdir()
    refused_by_both(mcp_bin, tmp_path / "folder.gguf", r"(?i)(regular file|directory)")


def test_missing_file(mcp_bin, tmp_path):
    refused_by_both(mcp_bin, tmp_path / "nowhere.gguf", MISSING)


def test_missing_folder(mcp_bin, tmp_path):
    refused_by_both(mcp_bin, tmp_path / "nowhere/model.gguf", MISSING)


def test_file_as_folder(mcp_bin, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    refused_by_both(mcp_bin, tmp_path / "file/model.gguf", MISSING + "|directory")


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero", "/dev/tty"])
def test_device(device, mcp_bin):
    refused_by_both(mcp_bin, device)


def test_proc_file(mcp_bin):
    refused_by_both(mcp_bin, "/proc/self/status")


def test_symlink_loop(mcp_bin, tmp_path):
    (tmp_path / "a.gguf").symlink_to("b.gguf")
    (tmp_path / "b.gguf").symlink_to("a.gguf")
    refused_by_both(mcp_bin, tmp_path / "a.gguf", r"(?i)(symbolic|link)")


def test_symlink_to_a_model_is_a_model(mcp_bin, tmp_path):
    (tmp_path / "real.gguf").write_bytes(tiny_llama().to_bytes())
    (tmp_path / "link.gguf").symlink_to("real.gguf")
    for what, result in both(mcp_bin, tmp_path / "link.gguf"):
        assert result.status == 0, f"{what}: {result.err!r}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file(mcp_bin, tmp_path):
    path = tmp_path / "secret.gguf"
    path.write_bytes(tiny_llama().to_bytes())
    path.chmod(0)
    refused_by_both(mcp_bin, path, r"(?i)permission")


def test_vocabulary_only_files(mcp_bin, llama_src):
    for name in ("deepseek-llm", "llama-spm", "qwen2", "bert-bge"):
        refused_by_both(mcp_bin, llama_src / f"models/ggml-vocab-{name}.gguf",
                        r"(?i)(tensor|vocabulary|architecture)")


def test_name_with_odd_characters(mcp_bin, tmp_path):
    for name in ("sp ace.gguf", "quo'te\".gguf", "per%s%n.gguf", "ünï.gguf", "-m.gguf"):
        (tmp_path / name).write_bytes(hostile.CASES["llama.block_count-0"].build())
        refused_by_both(mcp_bin, tmp_path / name, "block_count")


def test_name_with_control_characters(mcp_bin, tmp_path):
    path = tmp_path / "evil\n\x1b[31mred.gguf"
    path.write_bytes(hostile.CASES["llama.block_count-0"].build())
    for what, result in both(mcp_bin, path):
        check_refusal(result, what, "red.gguf", ["block_count"])


def test_long_path_leaves_room_for_the_reason(mcp_bin, tmp_path):
    folder = tmp_path
    for _ in range(6):
        folder = folder / ("d" * 200)
    folder.mkdir(parents=True)
    path = folder / "model.gguf"
    path.write_bytes(hostile.CASES["llama.block_count-0"].build())
    refused_by_both(mcp_bin, path, "block_count")


# ---- sparse files: a header of a few bytes that promises gigabytes ---------------------

def sparse(path, head, size):
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(size)


def sparse_model(value):
    """A header whose last key is `value`, with the bytes behind it being a hole."""
    model = Gguf()
    model.add("general.architecture", string("llama"))
    model.add("general.tags", value)
    model.n_tensors = 1
    return model.header_bytes()


@pytest.mark.parametrize("label, value", [
    ("u8", array(U8, [], count=2**30)),
    ("string", raw_value(STRING, (2**30).to_bytes(8, "little"))),
    ("empty-strings", array(STRING, [], count=2**26)),
])
def test_sparse_file(label, value, mcp_bin, tmp_path):
    path = tmp_path / f"sparse-{label}.gguf"
    sparse(path, sparse_model(value), 3 << 30)
    for what, result in both(mcp_bin, path, address_bytes=10 << 30):
        check_refusal(result, f"{what} {label}", path.name)


def test_sparse_tensor_table(mcp_bin, tmp_path):
    """Two hundred thousand honest tensor entries in a row."""
    model = Gguf()
    model.add("general.architecture", string("llama"))
    model.tensors = [Tensor(f"t{i}", [1], b"\0\0\0\0") for i in range(200000)]
    path = tmp_path / "many-tensors.gguf"
    path.write_bytes(model.to_bytes())
    refused_by_both(mcp_bin, path, r"(?i)tensor")


def test_many_keys(mcp_bin, tmp_path):
    model = tiny_llama()
    for i in range(200000):
        model.add(f"k{i}", u32(i))
    path = tmp_path / "many-keys.gguf"
    path.write_bytes(model.to_bytes())
    for what, result in both(mcp_bin, path):
        check_ended(result, what)


def test_huge_tensor_in_a_sparse_file(mcp_bin, tmp_path):
    """A true 100 GB tensor of zeros: nothing is wrong but its size."""
    model = tiny_llama()
    head = model.tensor("output.weight")
    head.dims = [32, 2**30]
    head.data = b""
    path = tmp_path / "huge.gguf"
    sparse(path, model.to_bytes(), 130 << 30)
    refused_by_both(mcp_bin, path, r"output\.weight|map")


# ---- split files ----------------------------------------------------------------------

def write_split(folder, parts, stem="m"):
    paths = []
    for i, part in enumerate(parts):
        paths.append(folder / split_name(stem, i, len(parts)))
        paths[-1].write_bytes(part.to_bytes())
    return paths


def test_split_control(mcp_bin, mcp_lib, tmp_path):
    paths = write_split(tmp_path, split(tiny_llama(), 3))
    whole = tmp_path / "whole.gguf"
    whole.write_bytes(tiny_llama().to_bytes())
    opener = Opener(mcp_lib)
    expected = opener.ask(whole, text="the cat", engine=True)
    for path in paths:  # any part names the model
        answer = opener.ask(path, text="the cat", engine=True)
        assert answer["code"] == "MCP_OK", answer
        assert answer["logits"] == expected["logits"]
    opener.stop()
    for what, result in both(mcp_bin, paths[0]):
        assert result.status == 0, f"{what}: {result.err!r}"


def split_case(edit):
    """Three parts after edit(parts)."""
    parts = split(tiny_llama(), 3)
    edit(parts)
    return parts


def set_on(numbers, key, value):
    return lambda parts: [parts[i].set(key, value) for i in numbers]


def _repeat(parts):
    parts[2] = parts[1]


def _other_shape(parts):
    parts[1] = split(tiny_llama(ff=96), 3)[1]


def _other_arch(parts):
    parts[1] = split(tiny("deepseek2"), 3)[1]


def _whole(parts):
    parts[1] = tiny_llama()


def _swap(parts):
    parts[1], parts[2] = parts[2], parts[1]


def _lost_tensor(parts):
    parts[2].tensors.pop()


def _extra_tensor(parts):
    parts[2].tensors.append(Tensor("banana.weight", [32]))


def _same_tensor(parts):
    parts[2].tensors[-1] = parts[0].tensors[0]


@pytest.mark.parametrize("label, edit, says", [
    ("count-2", set_on([0], "split.count", u16(2)), r"part|split|such file"),
    ("count-4", set_on([0], "split.count", u16(4)), r"00004|part|split"),
    ("count-0", set_on([0], "split.count", u16(0)), r"split\.count"),
    ("count-1", set_on([0], "split.count", u16(1)), r"split|missing|part"),
    ("count-65535", set_on([0], "split.count", u16(65535)), r"split\.count"),
    ("count-2e32-1", set_on([0], "split.count", u32(2**32 - 1)), r"split\.count"),
    ("count-negative", set_on([0], "split.count", i32(-1)), r"split\.count"),
    ("count-string", set_on([0], "split.count", string("3")), r"split|missing"),
    ("no-missing", lambda parts: parts[0].drop("split.no"), r"split\.no"),
    ("no-3", set_on([0], "split.no", u16(3)), r"split\.no"),
    ("no-1", set_on([0], "split.no", u16(1)), r"part|split"),
    ("no-string", set_on([0], "split.no", string("0")), r"split\.no"),
    ("second-no-missing", lambda parts: parts[1].drop("split.no"), r"part|split"),
    ("second-no-string", set_on([1], "split.no", string("1")), r"part|split"),
    ("second-count-7", set_on([1], "split.count", u16(7)), r"part|split"),
    ("repeated", _repeat, r"part|split|tensor"),
    ("other-shape", _other_shape, r"\.weight"),
    ("other-architecture", _other_arch, r"\.weight|tensor|split"),
    ("second-is-whole", _whole, r"part|split"),
    ("swapped", _swap, r"part|split"),
    ("lost-tensor", _lost_tensor, r"tensor"),
    ("extra-tensor", _extra_tensor, r"tensor"),
    ("same-tensor-twice", _same_tensor, r"token_embd\.weight"),
    ("tensors-count-1", set_on([0], "split.tensors.count", i32(1)), r"split\.tensors\.count"),
    ("tensors-count-negative", set_on([0], "split.tensors.count", i32(-1)),
     r"split\.tensors\.count"),
])
def test_split(label, edit, says, mcp_bin, tmp_path):
    paths = write_split(tmp_path, split_case(edit))
    for path in paths[:1]:
        for what, result in both(mcp_bin, path):
            check_refusal(result, f"{what} {label}", "m-0000", [says])


@pytest.mark.parametrize("label, edit", [
    ("no-u32", set_on([0, 1, 2], "split.no", u32(0))),
    ("second-no-u32", set_on([1], "split.no", u32(1))),
    ("second-no-i32", set_on([1], "split.no", i32(1))),
    ("second-no-array", set_on([1], "split.no", array(I32, [1]))),
    ("tensors-count-string", set_on([0], "split.tensors.count", string("21"))),
    ("tensors-count-missing", lambda parts: parts[0].drop("split.tensors.count")),
    ("count-u32", set_on([0, 1, 2], "split.count", u32(3))),
    ("second-has-keys", set_on([1], "llama.block_count", u32(7))),
    ("second-has-tokenizer", set_on([1], "tokenizer.ggml.tokens", array(STRING, ["a"]))),
    ("second-other-alignment", set_on([1], "general.alignment", u32(32))),
])
def test_split_odd(label, edit, mcp_bin, tmp_path):
    """Unusual, and either answer is honest."""
    paths = write_split(tmp_path, split_case(edit))
    for path in paths:
        for what, result in both(mcp_bin, path):
            check_ended(result, f"{what} {label}")
            if result.status != 0:
                check_refusal(result, f"{what} {label}", "m-0000")


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_split_with_missing_part(lost, mcp_bin, tmp_path):
    paths = write_split(tmp_path, split(tiny_llama(), 3))
    paths[lost].unlink()
    for path in paths:
        if path != paths[lost]:
            for what, result in both(mcp_bin, path):
                check_refusal(result, what, paths[lost].name, [MISSING])


def test_split_with_truncated_part(mcp_bin, tmp_path):
    paths = write_split(tmp_path, split(tiny_llama(), 3))
    for size in (0, 1, 23, 100, paths[1].stat().st_size - 33):
        os.truncate(paths[1], size)
        for what, result in both(mcp_bin, paths[0]):
            check_refusal(result, f"{what} {size}", paths[1].name)


def test_split_under_another_name(mcp_bin, tmp_path):
    paths = write_split(tmp_path, split(tiny_llama(), 3))
    for name in ("renamed.gguf", "-of-00003.gguf", "m-00001-of-00003", "m-x0001-of-00003.gguf"):
        other = tmp_path / name
        shutil.copyfile(paths[0], other)
        for what, result in both(mcp_bin, other):
            check_ended(result, f"{what} {name}")
            if result.status != 0 or name in ("renamed.gguf", "-of-00003.gguf"):
                check_refusal(result, f"{what} {name}", name)


# ---- nothing that a file says is dropped in silence -----------------------------------

def _bias(name, n):
    return lambda m: m.tensors.append(
        Tensor(name, [n], b"".join(f32(random.Random(i).uniform(-9, 9))[1] for i in range(n))))


@pytest.mark.parametrize("label, edit", [
    ("attn_q.bias", _bias("blk.0.attn_q.bias", 32)),
    ("attn_k.bias", _bias("blk.1.attn_k.bias", 16)),
    ("attn_v.bias", _bias("blk.0.attn_v.bias", 16)),
    ("attn_output.bias", _bias("blk.0.attn_output.bias", 32)),
    ("ffn_gate.bias", _bias("blk.0.ffn_gate.bias", 64)),
    ("ffn_up.bias", _bias("blk.1.ffn_up.bias", 64)),
    ("ffn_down.bias", _bias("blk.1.ffn_down.bias", 32)),
    ("output.bias", _bias("output.bias", 300)),
    ("rope_freqs", lambda m: m.tensors.append(
        Tensor("rope_freqs.weight", [8], b"".join(f32(1.0 + i)[1] for i in range(8))))),
    ("freq_base", lambda m: m.set("llama.rope.freq_base", f32(100.0))),
    ("rms_eps", lambda m: m.set("llama.attention.layer_norm_rms_epsilon", f32(0.5))),
    ("rope-linear", lambda m: m.set("llama.rope.scaling.type", string("linear")).set(
        "llama.rope.scaling.factor", f32(4.0))),
    ("rope-yarn", lambda m: m.set("llama.rope.scaling.type", string("yarn")).set(
        "llama.rope.scaling.factor", f32(4.0)).set(
        "llama.rope.scaling.original_context_length", u32(32))),
    ("rope-scale_linear", lambda m: m.set("llama.rope.scale_linear", f32(4.0))),
    ("rope-attn_factor", lambda m: m.set("llama.rope.scaling.type", string("yarn")).set(
        "llama.rope.scaling.factor", f32(1.0)).set("llama.rope.scaling.attn_factor", f32(3.0))),
    ("untied", lambda m: m.drop_tensor("output.weight")),
])
def test_is_used_or_refused(label, edit, mcp_lib, tmp_path):
    opener = Opener(mcp_lib)
    plain, changed = tmp_path / "plain.gguf", tmp_path / "changed.gguf"
    model = tiny_llama()
    plain.write_bytes(model.to_bytes())
    edit(model)
    changed.write_bytes(model.to_bytes())
    expected = opener.ask(plain, text="the cat sat", engine=True)
    answer = opener.ask(changed, text="the cat sat", engine=True)
    opener.stop()
    assert expected["code"] == "MCP_OK", expected
    check_answer(answer, label, changed.name, (), EITHER)
    if answer["code"] == "MCP_OK":
        assert answer["logits"] != expected["logits"], f"{label} is ignored in silence"


# ---- arguments that reach the engine ---------------------------------------------------

@pytest.fixture(scope="module")
def tiny30(tmp_path_factory):
    """Thirty layers, heads of 16 values."""
    path = tmp_path_factory.mktemp("models") / "tiny30.gguf"
    path.write_bytes(tiny_llama(layers=30).to_bytes())
    return path


@pytest.fixture(scope="module")
def tiny_head32(tmp_path_factory):
    """Heads of 32 values: a KV cache in q8_0 fits."""
    path = tmp_path_factory.mktemp("models") / "head32.gguf"
    path.write_bytes(tiny_llama(embd=64, head_dim=32).to_bytes())
    return path


def ask(mcp_bin, model, *options, prompt="x", **limits):
    return confined.run([mcp_bin, "run", "-m", model, "--raw", "-p", prompt, "-n", "2", "--temp",
                         "0", "-t", "1", *options], **limits)


@pytest.fixture
def unsanitized(mcp_bin):
    if confined.sanitized(str(mcp_bin)):
        pytest.skip("AddressSanitizer needs more addresses than the limit of this test")


@pytest.mark.parametrize("cuts", ["15", "4,20", "1,2,3,29"])
def test_good_cuts(cuts, mcp_bin, tiny30):
    result = ask(mcp_bin, tiny30, "--cuts", cuts)
    assert result.status == 0, result.err


@pytest.mark.parametrize("cuts", ["0", "30", "99", "20,4", "4,4", "-1", "4,", ",4", "x", "4;20",
                                  "4294967297", "99999999999999999999", "1.5",
                                  ",".join(map(str, range(1, 400)))])
def test_impossible_cuts(cuts, mcp_bin, tiny30):
    check_refusal(ask(mcp_bin, tiny30, "--cuts", cuts), f"--cuts {cuts[:20]}", "", [r"(?i)cut"])


@pytest.mark.parametrize("context", ["2147483648", "1000000000", "4294967296", "4294967295",
                                     "99999999999999999999", "-1", "1e9", "x", ""])
def test_impossible_context(context, mcp_bin, tiny30):
    check_refusal(ask(mcp_bin, tiny30, "-c", context), f"-c {context}", "",
                  [r"(?i)(context|ctx|-c\b|memory|KV)"])


def test_out_of_memory_is_a_sentence(mcp_bin, tmp_path, unsanitized):
    """The KV cache does not fit the address space that is allowed."""
    model = tmp_path / "far.gguf"
    model.write_bytes(tiny_llama(layers=30, context=2**28).to_bytes())
    for context in ("500000", "2000000", "20000000", "200000000", str(2**28)):
        result = ask(mcp_bin, model, "-c", context, address_bytes=512 << 20)
        check_refusal(result, f"-c {context}", "", [r"(?i)(memory|KV|context|ctx)", r"\d"])


@pytest.fixture(scope="module")
def tiny2(tmp_path_factory):
    """Two layers: threads that wait for each other on a busy machine burn time."""
    path = tmp_path_factory.mktemp("models") / "tiny2.gguf"
    path.write_bytes(tiny_llama().to_bytes())
    return path


@pytest.mark.parametrize("threads", ["0", "-1", "3"])
def test_threads(threads, mcp_bin, tiny2):
    result = ask(mcp_bin, tiny2, "-t", threads)
    assert result.signal is None and not result.timed_out, result
    if result.status != 0:
        check_refusal(result, f"-t {threads}", "")


def test_threads_that_cannot_start(mcp_bin, tiny2, unsanitized):
    """Every thread wants 8 MiB of addresses for its stack; 4 GiB do not hold 512."""
    result = ask(mcp_bin, tiny2, "-t", "512")
    check_refusal(result, "-t 512", "", [r"thread", r"\d"])


def test_prompt_longer_than_the_context(mcp_bin, tiny30):
    for context, length in (("32", 33), ("32", 1000), ("64", 100000)):
        result = ask(mcp_bin, tiny30, "-c", context, prompt="x" * length)
        check_refusal(result, f"{length} letters, -c {context}", "", [r"(?i)context", context])


def test_prompt_that_just_fits(mcp_bin, tiny30):
    # one token for BOS, one for the space prefix
    result = ask(mcp_bin, tiny30, "-c", "32", prompt="x" * 20)
    assert result.status == 0, result.err


@pytest.mark.parametrize("options", [
    ["-t", "100000"], ["-t", "4294967297"], ["-t", "x"], ["-ub", "-5"], ["-b", "-5"],
    ["--device", "cuda7"], ["--device", "banana"], ["--device", ""], ["-ctk", "banana"],
    ["-ctk", "q4_K"], ["-fa", "banana"], ["--temp", "nan"], ["--temp", "x"], ["--top-p", "nan"],
    ["-n", "x"], ["-n", "99999999999999999999"], ["--seed", "x"], ["-ngl", "x"]],
    ids=" ".join)
def test_bad_option(options, mcp_bin, tiny30):
    result = ask(mcp_bin, tiny30, *options)
    check_refusal(result, " ".join(options), "")


@pytest.mark.parametrize("options", [
    ["-t", "513"], ["-ub", "0"], ["-b", "0"],
    ["-b", "1", "-ub", "1"], ["-b", "1", "-ub", "512"], ["-ub", "100000000"],
    ["-b", "4294967295", "-ub", "4294967295"], ["-b", "2147483647", "-ub", "2147483647"],
    ["-c", "0"], ["-c", "1"], ["-c", "100000"], ["-ngl", "99"], ["-ngl", "-1"],
    ["-ngl", "2147483647"], ["--temp", "-1"], ["--temp", "1e30"], ["--temp", "inf"],
    ["--top-k", "-1"], ["--top-k", "2147483647"], ["--top-p", "-1"], ["--top-p", "5"],
    ["--min-p", "5"], ["--min-p", "-1"], ["--seed", "-1"], ["-n", "0"], ["-n", "1000000"],
    ["--temp", "1", "--top-k", "1", "--top-p", "0", "--min-p", "1"]], ids=" ".join)
def test_odd_option(options, mcp_bin, tiny30):
    result = ask(mcp_bin, tiny30, *options)
    check_ended(result, " ".join(options))
    if result.status != 0:
        check_refusal(result, " ".join(options), "")


def test_kv_type_that_does_not_fit(mcp_bin, tiny30, tiny_head32):
    check_refusal(ask(mcp_bin, tiny30, "-ctk", "q8_0"), "-ctk q8_0", "", [r"(?i)q8_0", r"32"])
    check_refusal(ask(mcp_bin, tiny30, "-ctv", "q8_0"), "-ctv q8_0", "", [r"(?i)q8_0", r"32"])
    check_refusal(ask(mcp_bin, tiny_head32, "-ctv", "q8_0", "-fa", "off"), "-ctv q8_0 -fa off", "",
                  [r"(?i)flash"])
    for good in (["-ctk", "q8_0"], ["-ctk", "q8_0", "-ctv", "q8_0"], ["-fa", "off"],
                 ["-ctk", "q8_0", "-fa", "off"]):
        result = ask(mcp_bin, tiny_head32, *good)
        assert result.status == 0, f"{good}: {result.err!r}"


@pytest.mark.parametrize("options, says", [
    (["--tokens", "1,2,300"], r"300"), (["--tokens", "-1"], r"-1"),
    (["--tokens", "99999999999"], r"99999999999"), (["--tokens", ""], r"(?i)token"),
    (["--tokens", "1,,2"], r"(?i)token"), (["--tokens", "x"], r"(?i)token"),
    (["--tokens", "1,2,3", "--windows", "0,3"], r"(?i)window"),
    (["--tokens", "1,2,3", "--windows", "-1,4"], r"(?i)window"),
    (["--tokens", "1", "--seqs", "0"], r"(?i)seq"), (["--tokens", "1", "--seqs", "-1"], r"(?i)seq"),
    (["--tokens", "1", "--seqs", "100000000"], r"(?i)(seq|memory)"),
    (["--tokens", "1", "--hidden", "99"], r"(?i)(hidden|layer)"),
    (["--tokens", "1", "--hidden", "-1"], r"(?i)(hidden|layer)"),
    (["--tokens", "1", "--cuts", "30"], r"(?i)cut"),
], ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "")
def test_bad_debug_logits(options, says, mcp_bin, tiny30, tmp_path):
    result = confined.run([mcp_bin, "debug", "logits", "-m", tiny30, "-o", tmp_path / "out.f32",
                           *options])
    check_refusal(result, " ".join(options), "", [says])


def test_output_that_cannot_be_written(mcp_bin, tiny30, tmp_path):
    for target in (tmp_path / "nowhere/out.f32", tmp_path, "/dev/full"):
        result = confined.run([mcp_bin, "debug", "logits", "-m", tiny30, "--tokens", "1,2",
                               "-o", target])
        check_refusal(result, f"-o {target}", Path(target).name)


def test_prompt_file(mcp_bin, tiny30, tmp_path):
    binary = tmp_path / "binary.txt"
    binary.write_bytes(bytes(range(256)))
    result = confined.run([mcp_bin, "run", "-m", tiny30, "--raw", "-f", binary, "-n", "2", "-c",
                           "2048"])
    check_ended(result, "-f binary")
    for path in (tmp_path / "nowhere.txt", tmp_path):
        result = confined.run([mcp_bin, "run", "-m", tiny30, "--raw", "-f", path, "-n", "2"])
        check_refusal(result, f"-f {path}", Path(path).name)
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b"")
    result = confined.run([mcp_bin, "run", "-m", tiny30, "--raw", "-f", empty, "-n", "2"])
    check_ended(result, "-f empty")
