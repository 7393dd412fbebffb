# SPDX-License-Identifier: MIT
"""The corpus of model files that must be refused with a sentence.

Each case is a valid tiny model with one thing wrong.  `says` lists what the sentence
must name: regular expressions, all of which must match; alternatives are inside one.
The fuzz corpus (fuzz/make_corpus.py) is made from the same cases.
"""

import math
import re
from collections import namedtuple

from gguf_writer import (ARRAY, BOOL, F32, I32, STRING, U8, U32, Tensor, array, boolean,
                         bpe_tokenizer, byte_letters, data_bytes, f32, f64, i8, i32, i64,
                         raw_value, string, tiny, tiny_llama, u8, u16, u32, u64)

REFUSED = "refused"    # status 1 and a sentence, by show and by run
UNUSABLE = "unusable"  # the same by run; show may, it does not need the tokenizer
ACCEPTED = "accepted"  # status 0 by both
EITHER = "either"      # both answers are honest; a crash, a hang or noise is not

# build() gives the file's bytes; prompt is what `mcp run` is asked; edit is the change
# to a valid model where the case is one.
Case = namedtuple("Case", "name build says outcome prompt raw edit")

CASES = {}


def case(name, build, *says, outcome=REFUSED, prompt="x", raw=True, edit=None):
    # a name is also an argument of `./dev test`
    name = re.sub(r"[^\w.+-]", lambda found: f"_x{ord(found.group()):02x}", name)
    assert name not in CASES, name
    CASES[name] = Case(name, build, says, outcome, prompt, raw, edit)


def change(name, edit, *says, base=tiny_llama, **options):
    """A case made by `edit(model)` on a fresh valid model."""
    def build():
        model = base()
        edit(model)
        return model.to_bytes()
    case(name, build, *says, edit=edit, **options)


def put(key, value):
    return lambda m: m.set(key, value)


def field(**values):
    def edit(m):
        for name, value in values.items():
            setattr(m, name, value)
    return edit


def on_tensor(tensor, **values):
    def edit(m):
        t = m.tensor(tensor)
        for name, value in values.items():
            setattr(t, name, value)
    return edit


TENSOR_OR_KEY = r"(\.weight|\.bias|key )"

# ---- header ---------------------------------------------------------------------

case("control", lambda: tiny_llama().to_bytes(), outcome=ACCEPTED)
case("control-bpe", lambda: tiny_llama(tokenizer=bpe_tokenizer).to_bytes(), outcome=ACCEPTED)
case("control-tied", lambda: tiny_llama(tied=True).to_bytes(), outcome=ACCEPTED)
for arch in ("qwen2", "qwen3", "deepseek2"):
    case(f"control-{arch}", lambda arch=arch: tiny(arch).to_bytes(), outcome=ACCEPTED)

for label, count in (("2e63", 2**63), ("2e62", 2**62), ("minus-1", -1), ("2e40", 2**40)):
    change(f"n_kv-{label}", field(n_kv=count), r"(?i)(key|string)")
    change(f"n_tensors-{label}", field(n_tensors=count), r"(?i)(tensor|string)")
change("n_kv-one-more", lambda m: field(n_kv=len(m.kv) + 1)(m), r"(?i)(key|tensor|string)")
change("n_kv-one-less", lambda m: field(n_kv=len(m.kv) - 1)(m), r"(?i)(key|tensor)")
change("n_kv-0", field(n_kv=0), r"(?i)(key|tensor)")
change("n_tensors-one-more", lambda m: field(n_tensors=len(m.tensors) + 1)(m),
       r"(?i)(tensor|string)")
change("n_tensors-0", field(n_tensors=0), r"(?i)tensor")
for version in (0, 1, 4, 0x7FFFFFFF, 0x03000000, 0x00010000):
    change(f"version-{version:#x}", field(version=version), r"(?i)version")
change("version-2", field(version=2), outcome=EITHER)
change("magic-GGML", field(magic=b"GGML"), r"(?i)(gguf|magic)")
change("magic-reversed", field(magic=b"FUGG"), r"(?i)(gguf|magic)")
change("magic-control-bytes", field(magic=b"\x1b[2J"), r"(?i)(gguf|magic)")
case("empty-file", lambda: b"", r"(?i)(byte|empty|short)")
case("one-byte", lambda: b"G", r"(?i)(byte|short)")
case("text-file", lambda: b"This is a text file, not a model.\n" * 50, r"(?i)(gguf|magic)")
case("zeros", lambda: bytes(4096), r"(?i)(gguf|magic)")
case("ff", lambda: b"\xff" * 4096, r"(?i)(gguf|magic)")
case("header-only", lambda: tiny_llama().to_bytes()[:24], r"(?i)(key|header|short|end)")

# ---- keys and strings -------------------------------------------------------------

for label, length in (("2e40", 2**40), ("2e63", 2**63), ("2e64-1", 2**64 - 1), ("2e30", 2**30),
                      ("2e30+1", 2**30 + 1)):
    change(f"string-length-{label}", put("general.name", string("x", length=length)),
           r"(?i)(string|key|general\.name)")


def long_name(which):
    """A key or tensor whose name claims to be 2^40 bytes long."""
    def build():
        model = tiny_llama()
        name = "llama.block_count" if which == "key" else "output_norm.weight"
        raw = model.to_bytes()
        at = raw.index(name.encode()) - 8
        return raw[:at] + (2**40).to_bytes(8, "little") + raw[at + 8:]
    return build


case("key-length-2e40", long_name("key"), r"(?i)(key|string)")
case("tensor-name-length-2e40", long_name("tensor"), r"(?i)(tensor|string)")
change("key-empty", lambda m: m.add("", u32(1)), r"(?i)key")
change("key-duplicate", lambda m: m.add("llama.block_count", u32(2)), r"(?i)duplicate",
       r"block_count")
change("key-64KB", lambda m: m.add("k" * 65536, u32(1)), outcome=EITHER)
change("key-control-bytes", lambda m: m.add("evil\n\x1b[31mred", u32(1)), outcome=EITHER)
change("key-not-utf8", lambda m: m.add(b"\xff\xfe\x9b", u32(1)), outcome=EITHER)
change("key-with-nul", lambda m: m.add("llama.block_count\0", u32(9)), outcome=EITHER)
for kind in (13, 255, 2**31, 2**32 - 1):
    change(f"value-type-{kind}", put("general.name", raw_value(kind, b"\0" * 8)),
           r"(?i)(type|key|general\.name)")
change("array-of-arrays", put("general.tags", array(ARRAY, [])), r"(?i)(type|key|general\.tags)")
change("array-nested-deep", put("general.tags", (ARRAY, b"\x09\0\0\0\x01\0\0\0\0\0\0\0" * 20000)),
       r"(?i)(type|key|general\.tags)")
for label, count in (("2e30", 2**30), ("2e40", 2**40), ("2e61", 2**61), ("2e63", 2**63),
                     ("2e64-1", 2**64 - 1)):
    for kind_name, kind in (("u8", U8), ("u32", U32), ("string", STRING), ("bool", BOOL)):
        change(f"array-{kind_name}-count-{label}",
               put("general.tags", array(kind, [], count=count)),
               r"(?i)(key|array|general\.tags)")
change("array-type-99", put("general.tags", (ARRAY, (99).to_bytes(4, "little") + bytes(8))),
       r"(?i)(type|key|general\.tags)")
change("bool-255", put("general.flag", (BOOL, b"\xff")), outcome=EITHER)
change("bool-array-255", put("general.flags", (ARRAY, b"\x07\0\0\0\x02" + bytes(7) + b"\xff\x80")),
       outcome=EITHER)

# ---- alignment --------------------------------------------------------------------

for value in (0, 1, 3, 8, 16, 33, 2**30, 2**31, 2**32 - 1):
    change(f"alignment-{value}", lambda m, v=value: m.kv.insert(0, ["general.alignment", u32(v)]),
           r"(?i)(align|data)")
for label, value in (("string", string("32")), ("u64", u64(32)), ("f32", f32(32)), ("u8", u8(32)),
                     ("array", array(U32, [32]))):
    change(f"alignment-{label}",
           lambda m, v=value: m.kv.insert(0, ["general.alignment", v]), r"(?i)align")


def aligned(to):
    def build():
        model = tiny_llama()
        model.alignment = to
        model.kv.insert(0, ["general.alignment", u32(to)])
        return model.to_bytes()
    return build


case("alignment-4096-true", aligned(4096), outcome=ACCEPTED)
case("alignment-64-true", aligned(64), outcome=ACCEPTED)
case("alignment-8-true", aligned(8), outcome=EITHER)

# ---- tensor table -----------------------------------------------------------------

ANY_TENSOR = r"(?i)(tensor|\.weight)"
HEAD = "output.weight"  # the last tensor: nothing behind it moves when it changes

for label, offset in (("overlapping", 0), ("unaligned", 4), ("one-off", 1), ("beyond-file", 2**32),
                      ("2e63", 2**63), ("wrapping", 2**64 - 32), ("wrapping-more", 2**64 - 4096)):
    change(f"offset-{label}", on_tensor("blk.0.attn_k.weight", offset=offset),
           r"blk\.0\.attn_k\.weight|offset")
change("offset-gap", lambda m: on_tensor(HEAD, offset=m_size(m) + 64)(m), r"output\.weight|offset")
change("offset-first-not-0", on_tensor("token_embd.weight", offset=32), r"token_embd|offset")
change("tensor-duplicate", lambda m: m.tensors.append(m.tensor("output_norm.weight")),
       r"(?i)(duplicate|twice)", r"output_norm\.weight")
change("tensor-name-empty", on_tensor(HEAD, name=""), ANY_TENSOR)
change("tensor-name-63", on_tensor(HEAD, name="n" * 63), ANY_TENSOR)
change("tensor-name-64", on_tensor(HEAD, name="n" * 64), ANY_TENSOR)
change("tensor-name-1MB", on_tensor(HEAD, name="n" * 2**20), ANY_TENSOR)
change("tensor-name-control-bytes", on_tensor(HEAD, name="evil\n\x1b[31m\r\x07"), ANY_TENSOR)
change("tensor-name-not-utf8", on_tensor(HEAD, name=b"\xff\xfe\x9b31m"), ANY_TENSOR)
change("tensor-name-percent", on_tensor(HEAD, name="%s%s%s%n%n"), ANY_TENSOR)
change("tensor-name-with-nul", on_tensor(HEAD, name="output.weight\0x"), outcome=EITHER)


def m_size(m):
    """Bytes of tensor data before the last tensor."""
    return sum(len(t.data) + -len(t.data) % m.alignment for t in m.tensors[:-1])


for type_id in (255, -1, 43, 2**31 - 1, 4, 5, 31, 36, 38):
    change(f"type-{type_id}", on_tensor(HEAD, type_id=type_id), r"(?i)(type|output\.weight)")
for n_dims in (5, 2**31, 2**32 - 1):
    change(f"n_dims-{n_dims}", on_tensor(HEAD, n_dims=n_dims),
           r"(?i)(dimension|output\.weight|tensor)")
change("n_dims-0", on_tensor(HEAD, dims=[], data=bytes(4)), r"output\.weight")
for label, dims in (
        ("zero", [0, 300]), ("zero-second", [32, 0]), ("negative", [-32, 300]),
        ("negative-second", [32, -1]), ("both-negative", [-32, -300]), ("2e63", [2**63, 1]),
        ("2e32x2e32", [2**32, 2**32]), ("2e42+1", [32, 2**42 + 1]),
        ("2e31x2e31x4", [2**31, 2**31, 4]),
        ("2e62", [2**62]), ("2e60x16", [2**60, 16]), ("2e63-32", [2**63 - 32]),
        ("2e40", [32, 2**40]), ("4-of-2e16", [2**16] * 4), ("2e30x2e30", [2**30, 2**30])):
    change(f"dims-{label}", on_tensor(HEAD, dims=dims), ANY_TENSOR)
# A quantised row shorter than a block, and one whose block count wraps.
change("dims-not-a-block", on_tensor(HEAD, dims=[33, 300], type_id=2), ANY_TENSOR)
change("dims-q4_0-2e62", on_tensor(HEAD, dims=[2**62], type_id=2), ANY_TENSOR)
change("dims-q8_k-2e60", on_tensor(HEAD, dims=[2**60], type_id=15), ANY_TENSOR)


def sizes_that_wrap(m):
    """Tensor sizes whose sum passes 2^64 (CVE-2025-53630 and its bypass)."""
    for t in m.tensors[:6]:
        t.dims = [2**60]
        t.offset = None
    position = 0
    for t in m.tensors[:6]:
        t.offset = position % 2**64
        position += 2**62
    for t in m.tensors[6:]:
        t.offset = position % 2**64
        position += len(t.data) + -len(t.data) % 32


change("tensor-sizes-wrap", sizes_that_wrap, ANY_TENSOR)

# Types that cannot be a weight, in each role a weight can have.
ROLES = {"embd": "token_embd.weight", "head": HEAD, "attn": "blk.0.attn_q.weight",
         "ffn": "blk.1.ffn_down.weight"}
for role, name in ROLES.items():
    for kind in ("I8", "I16", "I32", "I64", "F64"):
        change(f"weight-{role}-{kind}", lambda m, n=name, k=kind: m.tensor(n).retype(k),
               re.escape(name), rf"(?i)\b{kind}\b")


def wide():
    """Rows of 256 elements, so that every block type fits."""
    return tiny_llama(embd=256, ff=256, head_dim=128, vocab=264)


for role, name in ROLES.items():
    for kind in ("Q8_1", "Q8_K"):
        change(f"weight-{role}-{kind}", lambda m, n=name, k=kind: m.tensor(n).retype(k),
               re.escape(name), rf"(?i)\b{kind}\b", base=wide)
    for kind in ("F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q4_K", "Q6_K"):
        change(f"weight-{role}-{kind}", lambda m, n=name, k=kind: m.tensor(n).retype(k),
               base=wide, outcome=ACCEPTED)

# Every type number on a tensor that has room for it: no number may crash.
for type_id in range(45):
    def any_type(m, type_id=type_id):
        t = m.tensor(HEAD)
        t.type_id = type_id
        t.data = bytes(len(t.data))
        m.tail = bytes(512 * 1024)
    change(f"weight-type-id-{type_id}", any_type, base=wide, outcome=EITHER)

for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.1.ffn_norm.weight"):
    for kind in ("F16", "BF16", "Q4_0", "Q8_0", "I32", "F64"):
        change(f"norm-{name}-{kind}", lambda m, n=name, k=kind: m.tensor(n).retype(k),
               re.escape(name), rf"(?i)\b{kind}\b")
for kind in ("F16", "Q8_0", "I32"):
    change(f"bias-{kind}", lambda m, k=kind: m.tensor("blk.0.attn_q.bias").retype(k),
           r"blk\.0\.attn_q\.bias", rf"(?i)\b{kind}\b", base=lambda: tiny("qwen2"))


# ---- shapes -----------------------------------------------------------------------

def reshape(name, dims):
    return lambda m: m.tensor(name).retype("F32", dims)


def wrong_shapes(arch):
    """(label, tensor, dims) for every wrong shape of every tensor."""
    for t in tiny(arch).tensors:
        dims = t.dims
        wrong = {"dim0+1": [dims[0] + 1] + dims[1:], "dim0-1": [dims[0] - 1] + dims[1:],
                 "4-dims": (dims + [1, 1, 1])[:3] + [2]}
        if len(dims) > 1:
            wrong["transposed"] = dims[::-1]
            wrong["dim1+1"] = [dims[0], dims[1] + 1] + dims[2:]
            wrong["dim1-1"] = [dims[0], dims[1] - 1] + dims[2:]
            flat = 1
            for n in dims:
                flat *= n
            wrong["flat"] = [flat]
        else:
            wrong["2-dims"] = [dims[0], 2]
            wrong["row"] = [1, dims[0]]
        if len(dims) > 2:
            wrong["dim2+1"] = dims[:2] + [dims[2] + 1]
            wrong["dim2-1"] = dims[:2] + [dims[2] - 1]
        for label, shape in wrong.items():
            if shape != dims and min(shape) > 0 and not (
                    label == "flat" and shape[0] == dims[0]):
                yield label, t.name, shape


OPTIONAL = {"output.weight", "exp_probs_b.bias", "attn_q.bias", "attn_k.bias", "attn_v.bias"}

for arch in ("llama", "qwen2", "qwen3", "deepseek2"):
    def base(arch=arch):
        return tiny(arch)
    for label, name, shape in wrong_shapes(arch):
        # token_embd's rows are the vocabulary: the tokenizer may be what is named.
        also = "|tokenizer|vocab" if name in ("token_embd.weight", HEAD) else ""
        change(f"shape-{arch}-{name}-{label}", reshape(name, shape),
               re.escape(name) + also, r"\d", base=base)
    for t in tiny(arch).tensors:
        optional = t.name in OPTIONAL or t.name.split(".", 2)[-1] in OPTIONAL
        change(f"missing-{arch}-{t.name}", lambda m, n=t.name: m.drop_tensor(n), re.escape(t.name),
               base=base, outcome=EITHER if optional else REFUSED)


def extra(name, dims, kind="F32"):
    return lambda m: m.tensors.append(Tensor(name, dims, None, kind))


# A tensor that is not part of the architecture changes what the model means.
change("extra-unknown", extra("banana.weight", [32]), r"banana\.weight")
for layer in ("2", "511", "2x", "4294967296", "18446744073709551616", "x", "-1", "00", " 1"):
    change(f"extra-layer-{layer}", extra(f"blk.{layer}.attn_norm.weight", [32]),
           re.escape(f"blk.{layer}.attn_norm"))
for name in ("blk.0.attn_q_norm.weight", "blk.0.ffn_gate_inp.weight", "blk.0.attn_sinks.weight",
             "blk.0.attn_q.scale", "output_norm.bias", "token_types.weight", "cls.weight"):
    change(f"extra-{name}", extra(name, [32]), re.escape(name))

# ---- architecture -----------------------------------------------------------------

for label, value in (("gpt2", string("gpt2")), ("llama4", string("llama4")),
                     ("upper", string("LLAMA")), ("empty", string("")),
                     ("control-bytes", string("evil\n\x1b[31mred")), ("1MB", string("a" * 2**20)),
                     ("not-utf8", string(b"\xff\xfe\x9b")), ("percent", string("%s%n%n%n")),
                     ("number", u32(1)), ("array", array(STRING, ["llama"])),
                     ("clip", string("clip")),
                     ("with-nul", string("gpt2\0llama"))):
    change(f"architecture-{label}", put("general.architecture", value), r"(?i)architecture")
change("architecture-missing", lambda m: m.drop("general.architecture"), r"general\.architecture")
change("architecture-other", put("general.architecture", string("qwen2")), r"key qwen2\.")

# ---- hyper-parameters -------------------------------------------------------------

INTEGERS = ["block_count", "embedding_length", "feed_forward_length", "context_length",
            "attention.head_count", "attention.head_count_kv", "rope.dimension_count"]
FLOATS = ["attention.layer_norm_rms_epsilon", "rope.freq_base"]


def hyper(arch, name, label, value, *says, base=None, outcome=REFUSED):
    change(f"{arch}.{name}-{label}", put(f"{arch}.{name}", value), *says,
           base=base or (lambda: tiny(arch)), outcome=outcome)


def named(name):
    """The key's own name; the tensors that it sizes are as good."""
    return re.escape(name.split(".")[-1]) + r"|\.weight|heads|dimension_count"


for name in INTEGERS:
    roomy = name == "context_length"  # any positive number is a valid claim
    hyper("llama", name, "0", u32(0), re.escape(name))
    for label, value in (("2e31-1", u32(2**31 - 1)), ("2e32-1", u32(2**32 - 1)),
                         ("u64-2e32+2", u64(2**32 + 2)), ("u64-max", u64(2**64 - 1))):
        hyper("llama", name, label, value, named(name), r"\d",
              outcome=EITHER if roomy else REFUSED)
    for label, value in (("minus-1", i32(-1)), ("min", i32(-2**31)), ("i64-min", i64(-2**63)),
                         ("i8-minus", i8(-2))):
        hyper("llama", name, label, value, named(name), r"-\d")
    for label, value in (("string", string("2")), ("f32", f32(2.0)), ("f64", f64(2.0)),
                         ("bool", boolean(1)), ("array-string", array(STRING, ["2"])),
                         ("array-empty", array(U32, [])), ("array-f32", array(F32, [2.0, 2.0])),
                         ("array-unequal", array(I32, [2, 3])),
                         ("array-huge", array(U32, [2**32 - 1] * 2))):
        hyper("llama", name, label, value, re.escape(name))
for name in ("block_count", "embedding_length", "feed_forward_length", "context_length",
             "attention.head_count", "attention.layer_norm_rms_epsilon"):
    change(f"llama.{name}-missing", lambda m, n=name: m.drop(f"llama.{n}"),
           re.escape(f"llama.{name}"))
for name, outcome in (("attention.head_count_kv", REFUSED), ("rope.dimension_count", ACCEPTED),
                      ("rope.freq_base", ACCEPTED)):
    change(f"llama.{name}-missing", lambda m, n=name: m.drop(f"llama.{n}"), r"attn_k",
           outcome=outcome)
# The same number in another integer type is the same number.
for name in INTEGERS:
    for label, make in (("u8", u8), ("u16", u16), ("i32", i32), ("u64", u64), ("i64", i64)):
        change(f"llama.{name}-as-{label}",
               lambda m, n=name, make=make: m.set(f"llama.{n}", make(m.number(f"llama.{n}"))),
               outcome=ACCEPTED)
for label, value in (("1", 1), ("3", 3), ("511", 511), ("512", 512), ("513", 513), ("2e20", 2**20)):
    hyper("llama", "block_count", label, u32(value), r"block_count|blk\.", outcome=REFUSED)
for value in (1, 31, 33, 64):
    hyper("llama", "embedding_length", str(value), u32(value), named("embedding_length"))
for value in (1, 3, 4, 31, 32, 33):
    hyper("llama", "attention.head_count", str(value), u32(value), named("head_count"))
for value in (2, 3, 2**16):
    hyper("llama", "attention.head_count_kv", str(value), u32(value), named("head_count_kv"))
for value in (1, 15, 17, 18, 32, 2**20):
    hyper("llama", "rope.dimension_count", str(value), u32(value), r"dimension_count")
hyper("llama", "rope.dimension_count", "8", u32(8), r"dimension_count", outcome=EITHER)
hyper("llama", "context_length", "1", u32(1), outcome=EITHER)
for label, value in (("equal", array(U32, [2, 2])), ("longer", array(U32, [2, 2, 2]))):
    hyper("llama", "attention.head_count", f"array-{label}", value, outcome=EITHER)
hyper("llama", "attention.key_length", "0", u32(0), r"key_length")
hyper("llama", "attention.key_length", "15", u32(15), r"key_length|key size|\.weight")
hyper("llama", "attention.key_length", "2e32-1", u32(2**32 - 1), r"key_length")
hyper("llama", "attention.value_length", "8", u32(8), r"value_length|value size|\.weight")

for name in FLOATS:
    for label, value in (("0", f32(0.0)), ("nan", f32(math.nan)), ("inf", f32(math.inf)),
                         ("minus-inf", f32(-math.inf)), ("negative", f32(-1.0)),
                         ("f64-nan", f64(math.nan)), ("f64-1e300", f64(1e300)),
                         ("u32", u32(1)), ("string", string("1e-5")),
                         ("array", array(F32, [1e-5]))):
        hyper("llama", name, label, value, re.escape(name))
    hyper("llama", name, "denormal", f32(1e-42), re.escape(name))
    change(f"llama.{name}-as-f64",
           lambda m, n=name: m.set(f"llama.{n}", f64(m.number(f"llama.{n}"))), outcome=ACCEPTED)
for value in ("banana", "longrope", "dynamic", "", "yarn\0x", "LINEAR", "y" * 2**16):
    hyper("llama", "rope.scaling.type", value[:8] or "empty", string(value), r"rope\.scaling\.type",
          outcome=EITHER if "\0" in value else REFUSED)
hyper("llama", "rope.scaling.type", "number", u32(1), r"rope\.scaling\.type")
for kind in ("linear", "yarn"):
    def scaled(kind=kind):
        return tiny_llama().set("llama.rope.scaling.type", string(kind)).set(
            "llama.rope.scaling.factor", f32(4.0)).set(
            "llama.rope.scaling.original_context_length", u32(32))
    case(f"control-rope-{kind}", lambda scaled=scaled: scaled().to_bytes(), outcome=ACCEPTED)
    for label, value in (("nan", f32(math.nan)), ("inf", f32(math.inf)), ("negative", f32(-4.0)),
                         ("string", string("4")), ("u32", u32(4))):
        change(f"rope-{kind}-factor-{label}", put("llama.rope.scaling.factor", value),
               r"rope\.scaling\.factor", base=scaled)
    for label, value in (("0", f32(0.0)), ("tiny", f32(1e-30)), ("small", f32(0.5)),
                         ("huge", f32(1e30))):
        change(f"rope-{kind}-factor-{label}", put("llama.rope.scaling.factor", value),
               r"rope\.scaling\.factor", base=scaled, outcome=EITHER)
    for label, value in (("nan", f32(math.nan)), ("inf", f32(math.inf)), ("string", string("1"))):
        change(f"rope-{kind}-attn_factor-{label}", put("llama.rope.scaling.attn_factor", value),
               r"attn_factor", base=scaled)
    for label, value in (("0", u32(0)), ("2e32-1", u32(2**32 - 1)), ("negative", i32(-5)),
                         ("f32", f32(32.0))):
        change(f"rope-{kind}-original-{label}",
               put("llama.rope.scaling.original_context_length", value),
               r"original_context_length", base=scaled)
change("rope-scale_linear-nan", put("llama.rope.scale_linear", f32(math.nan)), r"scale_linear")
change("rope_freqs-short", extra("rope_freqs.weight", [7]), r"rope_freqs\.weight")
change("rope_freqs-long", extra("rope_freqs.weight", [16]), r"rope_freqs\.weight")
change("rope_freqs-F16", extra("rope_freqs.weight", [8], "F16"), r"rope_freqs\.weight")
change("rope_freqs-zero", extra("rope_freqs.weight", [8]), outcome=EITHER)

# Known to llama.cpp or to the architecture, changes the arithmetic, may not be built.
for name, value in (
        ("expert_count", u32(4)), ("expert_count", u32(2**32 - 1)), ("expert_count", i32(-1)),
        ("attention.causal", boolean(0)), ("attention.max_alibi_bias", f32(8.0)),
        ("attention.clamp_kqv", f32(1.0)), ("logit_scale", f32(0.5)),
        ("residual_scale", f32(0.5)), ("embedding_scale", f32(12.0)),
        ("attention.scale", f32(0.01)), ("final_logit_softcapping", f32(30.0)),
        ("attn_logit_softcapping", f32(50.0))):
    change(f"unbuilt-{name}-{value[0]}-{value[1].hex()}", put(f"llama.{name}", value),
           re.escape(name))
change("unbuilt-sliding_window", put("llama.attention.sliding_window", u32(16)), outcome=EITHER)
change("unbuilt-experts-used-only", put("llama.expert_used_count", u32(2)), outcome=EITHER)
change("nextn-all-layers", put("llama.nextn_predict_layers", u32(2)), r"nextn_predict_layers")
change("nextn-more-than-layers", put("llama.nextn_predict_layers", u32(2**32 - 1)),
       r"nextn_predict_layers")
change("nextn-negative", put("llama.nextn_predict_layers", i32(-1)), r"nextn_predict_layers")

# deepseek2's own.
for name, values in {
        "attention.q_lora_rank": (0, 1, 19, 21, 2**32 - 1),
        "attention.kv_lora_rank": (0, 1, 23, 25, 2**32 - 1),
        "attention.key_length": (0, 8, 31, 33, 2**32 - 1),
        "attention.value_length": (0, 23, 25),
        "attention.key_length_mla": (0, 7, 8, 9, 23, 25, 2**32 - 1),
        "attention.value_length_mla": (0, 15, 17, 2**32 - 1),
        "attention.head_count": (0, 1, 3, 2**32 - 1),
        "attention.head_count_kv": (0, 2),
        "rope.dimension_count": (0, 1, 7, 9, 16, 24, 26, 2**32 - 1),
        "leading_dense_block_count": (0, 2, 3, 2**32 - 1),
        "expert_count": (0, 1, 4, 6, 1025, 2**32 - 1),
        "expert_used_count": (0, 6, 2**32 - 1),
        "expert_shared_count": (2, 2**32 - 1),
        "expert_feed_forward_length": (0, 15, 17, 2**32 - 1),
        "expert_gating_func": (3, 4, 255, 2**32 - 1)}.items():
    for number in values:
        hyper("deepseek2", name, str(number), u32(number),
              re.escape(name.split(".")[-1]) + r"|\.weight|latent|dimension_count|used_count",
              r"\d")
    for label, value in (("negative", i32(-1)), ("string", string("1")), ("f32", f32(1.0))):
        hyper("deepseek2", name, label, value, re.escape(name))
hyper("deepseek2", "expert_shared_count", "0", u32(0), r"expert_shared_count|shexp")
for name in ("attention.kv_lora_rank", "attention.key_length_mla", "attention.value_length_mla",
             "expert_count", "expert_used_count", "expert_shared_count",
             "expert_feed_forward_length", "attention.q_lora_rank", "attention.key_length",
             "attention.value_length", "rope.dimension_count"):
    change(f"deepseek2.{name}-missing", lambda m, n=name: m.drop(f"deepseek2.{n}"),
           re.escape(name.split(".")[-1]) + r"|\.weight|latent", base=lambda: tiny("deepseek2"))
for name in ("leading_dense_block_count", "expert_gating_func", "expert_weights_scale",
             "expert_weights_norm"):
    change(f"deepseek2.{name}-missing", lambda m, n=name: m.drop(f"deepseek2.{n}"),
           base=lambda: tiny("deepseek2"), outcome=EITHER)
for label, value in (("nan", f32(math.nan)), ("inf", f32(math.inf)), ("string", string("1"))):
    hyper("deepseek2", "expert_weights_scale", label, value, r"expert_weights_scale")
    hyper("deepseek2", "rope.scaling.yarn_log_multiplier", label, value, r"yarn_log_multiplier")
hyper("deepseek2", "expert_weights_norm", "u32", u32(1), r"expert_weights_norm")
for groups, used in ((5, 1), (2, 1), (4, 0), (6, 3), (1, 5), (2**32 - 1, 1), (5, 5)):
    def grouped(m, groups=groups, used=used):
        m.set("deepseek2.expert_group_count", u32(groups))
        m.set("deepseek2.expert_group_used_count", u32(used))
    change(f"deepseek2-groups-{groups}-{used}", grouped, r"group", base=lambda: tiny("deepseek2"),
           outcome=EITHER if groups == 1 else REFUSED)

# ---- tokenizer --------------------------------------------------------------------

TOK = "tokenizer.ggml."


def unusable(*args, **options):
    """A change to the tokenizer: layers still run, a prompt does not."""
    change(*args, **{"outcome": UNUSABLE, **options})


def bpe():
    return tiny_llama(tokenizer=bpe_tokenizer)


def tokens_of(m):
    """The strings of tokenizer.ggml.tokens."""
    body = m.get(TOK + "tokens")[1][12:]
    out = []
    while body:
        length = int.from_bytes(body[:8], "little")
        out.append(body[8:8 + length])
        body = body[8 + length:]
    return out


def with_tokens(edit):
    def apply(m):
        tokens = tokens_of(m)
        edit(tokens)
        m.set(TOK + "tokens", array(STRING, tokens))
    return apply


def token(index, text):
    return with_tokens(lambda tokens: tokens.__setitem__(index, text))


def drop_last(tokens):
    tokens.pop()


change("vocab-299-of-300", with_tokens(drop_last), r"(?i)token", r"299", r"300")
change("vocab-301-of-300", with_tokens(lambda t: t.append(b"more")), r"(?i)token", r"301", r"300")
change("vocab-embd-299", lambda m: reshape("token_embd.weight", [32, 299])(m), r"299", r"300")
change("vocab-none-at-all",
       lambda m: [m.drop(key) for key, _ in list(m.kv) if key.startswith("tokenizer.")],
       outcome=EITHER)
for key in ("tokens", "model"):
    unusable(f"tokenizer-{key}-missing", lambda m, k=key: m.drop(TOK + k), r"tokenizer")
for key in ("scores", "token_type", "bos_token_id", "eos_token_id", "unknown_token_id"):
    unusable(f"tokenizer-{key}-missing", lambda m, k=key: m.drop(TOK + k), outcome=EITHER)
for key, kind, item in (("scores", F32, 0.0), ("token_type", I32, 1)):
    for count in (0, 1, 299, 301, 1000):
        unusable(f"tokenizer-{key}-{count}", put(TOK + key, array(kind, [item] * count)),
               re.escape(key), r"\d")
for key in ("tokens", "scores", "token_type", "merges", "model", "pre", "bos_token_id",
            "add_bos_token", "add_eos_token", "add_space_prefix"):
    for label, value in (("u32", u32(7)), ("string", string("x")), ("f64", f64(1.0)),
                         ("array-u8", array(U8, [1] * 300)), ("array-f64", array(12, [0.0] * 300)),
                         ("array-string", array(STRING, ["x"])), ("bool", boolean(1))):
        right = {("model", "string"), ("pre", "string"), ("bos_token_id", "u32"),
                 ("tokens", "array-string"), ("merges", "array-string"), ("add_bos_token", "bool"),
                 ("add_eos_token", "bool"), ("add_space_prefix", "bool")}
        if (key, label) not in right:
            unusable(f"tokenizer-{key}-as-{label}", put(TOK + key, value), re.escape(key), base=bpe)
unusable("tokenizer-scores-nan", put(TOK + "scores", array(F32, [math.nan] * 300)), outcome=EITHER)
unusable("tokenizer-scores-inf", put(TOK + "scores", array(F32, [math.inf] * 300)), outcome=EITHER)
unusable("tokenizer-scores-i32", put(TOK + "scores", array(I32, [0] * 300)), outcome=EITHER)
unusable("tokenizer-token_type-wild",
         put(TOK + "token_type", array(I32, [-1, 99, 2**31 - 1] * 100)), outcome=EITHER,
         prompt="the Qx\u00e9\n")
unusable("tokenizer-token_type-all-control", put(TOK + "token_type", array(I32, [3] * 300)),
       outcome=EITHER, prompt="the Qx\u00e9\n")
unusable("tokenizer-token_type-all-user", put(TOK + "token_type", array(I32, [4] * 300)),
       outcome=EITHER, prompt="the Qx\u00e9\n")
for name in ("banana", "", "bert", "rwkv", "t5", "test", "plamo2", "hybriddna", "whitespace",
             "gemma4", "replit", "m" * 2**16, "evil\n\x1b[31m"):
    unusable(f"tokenizer-model-{name[:9]}", put(TOK + "model", string(name)), r"tokenizer")
    if len(name) < 20:
        unusable(f"tokenizer-model-bpe-{name[:9]}", put(TOK + "model", string(name)), r"tokenizer",
               base=bpe)
for name in ("none", "no_vocab"):
    unusable(f"tokenizer-model-{name}", put(TOK + "model", string(name)), outcome=EITHER)
for name in ("banana", "\n\x1b[31m", "p" * 2**16):
    unusable(f"tokenizer-pre-{name[:6]}", put(TOK + "pre", string(name)), r"(?i)tokenizer",
           base=bpe)
unusable("tokenizer-pre-empty", put(TOK + "pre", string("")), outcome=EITHER, base=bpe)
unusable("tokenizer-gpt2-on-spm", put(TOK + "model", string("gpt2")), r"(?i)(tokenizer|merges)")
unusable("tokenizer-llama-on-bpe", put(TOK + "model", string("llama")), outcome=EITHER, base=bpe,
       prompt="the Qx\u00e9\n")
for key in ("bos", "eos", "unknown", "padding", "eot", "fim_pre", "seperator"):
    for label, value in (("300", u32(300)), ("2e31", u32(2**31)), ("2e32-2", u32(2**32 - 2)),
                         ("i32", i32(-2)), ("string", string("1")), ("f32", f32(1.0)),
                         ("array", array(U32, [1]))):
        unusable(f"tokenizer-{key}-id-{label}", put(f"{TOK}{key}_token_id", value),
               rf"{key}_token_id")
    unusable(f"tokenizer-{key}-id-2e32-1", put(f"{TOK}{key}_token_id", u32(2**32 - 1)),
           outcome=EITHER)

HARD = "the Qx\u00e9 \u4f60\U0001f600\n\t<s> </s> <|endoftext|>"  # needs byte tokens
unusable("token-duplicate", token(290, b"a"), r"(?i)token", base=tiny_llama, prompt=HARD)
unusable("token-duplicate-bpe", token(290, b"a"), r"(?i)token", base=bpe, prompt=HARD)
unusable("tokens-all-equal", put(TOK + "tokens", array(STRING, ["same"] * 300)), r"(?i)token",
       prompt=HARD)
unusable("tokens-all-empty", put(TOK + "tokens", array(STRING, [""] * 300)), outcome=EITHER,
       prompt=HARD)
unusable("token-empty", token(280, b""), outcome=EITHER, prompt=HARD)
unusable("token-empty-name-taken", with_tokens(
    lambda t: (t.__setitem__(280, b""), t.__setitem__(281, b"[EMPTY_280]"))), r"(?i)token",
       prompt=HARD)
for label, text in (("1MB", b"a" * 2**20), ("ff", b"\xff"), ("cut-utf8", b"\xe4\xbd"),
                    ("overlong", b"\xc0\xaf"), ("surrogate", b"\xed\xa0\x80"), ("nul", b"a\0b"),
                    ("control", b"\x1b[2J\x1b[31m"), ("utf8-max", b"\xf4\x8f\xbf\xbf")):
    unusable(f"token-{label}", token(290, text), outcome=EITHER, prompt=HARD)
    unusable(f"token-{label}-bpe", token(290, text), outcome=EITHER, base=bpe, prompt=HARD)


def no_bytes(tokens):
    for i in range(3, 259):
        tokens[i] = b"nobyte%d" % i


# Without byte tokens a text cannot be spelled: refuse the file or the text.
unusable("tokens-without-bytes", with_tokens(no_bytes), outcome=EITHER, prompt=HARD)
unusable("tokens-without-bytes-typed", lambda m: (with_tokens(no_bytes)(m), m.set(
    TOK + "token_type", array(I32, [2, 3, 3] + [1] * 297))), outcome=EITHER, prompt=HARD)
unusable("tokens-one-byte-missing", token(3 + 0xC3, b"gone"), outcome=EITHER, prompt=HARD)
unusable("tokens-byte-type-without-form", token(3 + 0xC3, b"<0x"), outcome=EITHER, prompt=HARD)
unusable("tokens-byte-form-not-hex", token(3 + 0xC3, b"<0xZZ>"), outcome=EITHER, prompt=HARD)
unusable("tokens-letters-missing-bpe", with_tokens(
    lambda t: [t.__setitem__(i, b"gone%d" % i) for i in range(100, 256)]),
       outcome=EITHER, base=bpe, prompt=HARD)
unusable("tokens-all-pieces-bpe", with_tokens(
    lambda t: [t.__setitem__(i, b"gone%d" % i) for i in range(256)]),
       outcome=EITHER, base=bpe, prompt=HARD)


def merges(*pairs):
    return put(TOK + "merges", array(STRING, pairs))


SPACE = byte_letters()[32]
unusable("merges-missing", lambda m: m.drop(TOK + "merges"), r"(?i)merges", base=bpe)
for label, pairs in (
        ("none", ()), ("no-space", ("the",)), ("empty", ("",)), ("one-space", (" ",)),
        ("spaces", ("   ",)), ("ends-in-space", ("t ",)), ("begins-with-space", (" t",)),
        ("three", ("t h e",)), ("not-in-vocab", ("x y", "xy z")),
        ("cyclic", ("a b", "ab a", "aba ab", "a ba", "b a", "ba b")),
        ("repeated", ("t h",) * 1000), ("1MB", ("t " + "h" * 2**20,)),
        ("not-utf8", (b"\xff \xfe", b"t \xff")), ("nul", ("t\0 h", "\0 \0")),
        ("space-letter", (f"{SPACE} {SPACE}",) * 3)):
    unusable(f"merges-{label}", merges(*pairs), outcome=EITHER, base=bpe, prompt=HARD)


def many_merges(m):
    """Every pair of letters merges; the text makes a long chain of them."""
    letters = byte_letters()
    m.set(TOK + "merges", array(STRING, [f"{a} {b}" for a in letters for b in letters]))


unusable("merges-65536", many_merges, outcome=EITHER, base=bpe, prompt="x" * 100)

# ---- chat template ----------------------------------------------------------------

for label, text in (
        ("10MB", "{# " + "x" * (10 * 2**20) + " #}"), ("nul", "a\0b{% for m in messages %}"),
        ("malformed", "{% for %}{{ ' }} {% endif %"), ("unclosed", "{{" * 1000),
        ("empty", ""), ("not-utf8", b"\xff\xfe{{ messages }}"),
        ("endless", "{% for a in range(1000000000) %}{% for b in range(1000000000) %}x"
                    "{% endfor %}{% endfor %}"),
        ("deep", "{% if true %}" * 20000), ("control", "\x1b[2J{{ messages[0].content }}"),
        ("recursion", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")):
    for raw in (True, False):
        change(f"template-{label}-{'raw' if raw else 'chat'}",
               put("tokenizer.chat_template", string(text)), outcome=EITHER, raw=raw)
for label, value in (("u32", u32(1)), ("array", array(STRING, ["x"])), ("bool", boolean(1))):
    change(f"template-{label}", put("tokenizer.chat_template", value), r"chat_template",
           outcome=UNUSABLE)
change("template-missing", lambda m: m.drop("tokenizer.chat_template"), outcome=EITHER, raw=False)

# ---- names and numbers that are printed --------------------------------------------

for label, value in (("control-bytes", string("evil\n\x1b[31mred\r\x07")), ("u32", u32(3)),
                     ("not-utf8", string(b"\xff\xfe")), ("1MB", string("n" * 2**20)),
                     ("array", array(STRING, ["a"])), ("percent", string("%s%n%n"))):
    change(f"general.name-{label}", put("general.name", value), outcome=EITHER)
change("general.file_type-wild", put("general.file_type", u32(2**32 - 1)), outcome=EITHER)
change("general.file_type-string", put("general.file_type", string("x")), outcome=EITHER)
change("general.type-adapter", put("general.type", string("adapter")), outcome=EITHER)
change("llama.vocab_size-299", put("llama.vocab_size", u32(299)), outcome=EITHER)
change("llama.vocab_size-string", put("llama.vocab_size", string("300")), outcome=EITHER)
change("split.count-wrong-type", put("split.count", string("2")), outcome=EITHER)


# ---- weights ----------------------------------------------------------------------

def poison(name, pattern):
    def edit(m):
        t = m.tensor(name)
        t.data = (pattern * len(t.data))[:len(t.data)]
    return edit


NAN, INF = b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f"
for name in ("token_embd.weight", "output_norm.weight", HEAD, "blk.0.attn_q.weight"):
    change(f"weights-nan-{name}", poison(name, NAN), outcome=EITHER)
    change(f"weights-inf-{name}", poison(name, INF), outcome=EITHER)


def garbage(kind):
    def edit(m):
        for t in m.tensors:
            if len(t.dims) == 2:
                t.kind = kind
                t.data = bytes((i * 167 + 13) % 256 for i in range(data_bytes(kind, t.dims)))
    return edit


for kind in ("F16", "Q4_0", "Q8_0", "Q2_K", "Q4_K", "Q6_K"):
    change(f"weights-garbage-{kind}", garbage(kind), base=wide, outcome=EITHER)
