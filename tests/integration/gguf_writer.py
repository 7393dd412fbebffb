# SPDX-License-Identifier: MIT
"""Write GGUF v3 files byte by byte, also ones that lie.

A file is built from parts that are already bytes: a value is a (type, payload)
pair, a tensor carries the numbers that its header will claim.  So a count that is
too large, a string without an end or an offset outside the file is one changed
field, and nothing here checks anything.

    model = tiny("llama")                    # small, valid, loads in libllama
    model.set("llama.block_count", u32(0))   # one change ...
    open(path, "wb").write(model.to_bytes()) # ... one hostile file

Only the standard library is used: the reader under test must not share a bug with
a library that writes its input.
"""

import copy
import functools
import random
import struct
from array import array as packed

# ---- values ---------------------------------------------------------------------

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)

_FORMAT = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f",
           BOOL: "<B", U64: "<Q", I64: "<q", F64: "<d"}


def string_bytes(text, length=None):
    """Length and bytes of a string; `length` overrides what the length field says."""
    data = text.encode() if isinstance(text, str) else bytes(text)
    return struct.pack("<Q", (len(data) if length is None else length) & (2**64 - 1)) + data


def _scalar(kind):
    return lambda value: (kind, struct.pack(_FORMAT[kind], value))


u8, i8, u16, i16, u32, i32, f32, boolean, u64, i64, f64 = map(
    _scalar, (U8, I8, U16, I16, U32, I32, F32, BOOL, U64, I64, F64))


def string(text, length=None):
    return STRING, string_bytes(text, length)


def array(kind, items, count=None):
    """An array value; `count` overrides what the count field says."""
    items = list(items)
    if kind == STRING:
        body = b"".join(string_bytes(item) for item in items)
    else:
        body = b"".join(struct.pack(_FORMAT[kind], item) for item in items)
    count = len(items) if count is None else count
    return ARRAY, struct.pack("<IQ", kind, count & (2**64 - 1)) + body


def raw_value(kind, payload):
    """Any type number with any bytes behind it."""
    return kind, bytes(payload)


# ---- tensors --------------------------------------------------------------------

# name: (type id, elements a block, bytes a block), as ggml stores them
TYPES = {
    "F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20),
    "Q5_0": (6, 32, 22), "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34), "Q8_1": (9, 32, 36),
    "Q2_K": (10, 256, 84), "Q4_K": (12, 256, 144), "Q6_K": (14, 256, 210),
    "Q8_K": (15, 256, 292), "I8": (24, 1, 1), "I16": (25, 1, 2), "I32": (26, 1, 4),
    "I64": (27, 1, 8), "F64": (28, 1, 8), "BF16": (30, 1, 2),
}


def data_bytes(kind, dims):
    """Bytes of a tensor of type `kind` (a name in TYPES)."""
    _, block, size = TYPES[kind]
    count = 1
    for n in dims:
        count *= n
    return count // block * size


class Tensor:
    """One tensor: what its header claims, and the bytes that are really there."""

    def __init__(self, name, dims, data=None, kind="F32", offset=None, n_dims=None,
                 type_id=None):
        self.name = name          # str or bytes
        self.dims = list(dims)
        self.kind = kind          # a name in TYPES
        self.data = data if data is not None else bytes(data_bytes(kind, dims))
        self.offset = offset      # None: behind the tensor before it
        self.n_dims = n_dims      # None: len(dims)
        self.type_id = type_id    # None: that of kind

    def retype(self, kind, dims=None):
        """Become a tensor of another type or shape, filled with small numbers."""
        self.kind = kind
        self.dims = list(dims or self.dims)
        self.data = bytes(data_bytes(kind, self.dims))


# ---- files ----------------------------------------------------------------------

class Gguf:
    def __init__(self):
        self.magic = b"GGUF"
        self.version = 3
        self.n_tensors = None     # None: the truth
        self.n_kv = None
        self.alignment = 32       # used for padding; the key is set apart
        self.kv = []              # [key, (type, payload)]; keys may repeat
        self.tensors = []
        self.tail = b""           # behind the last tensor

    def copy(self):
        other = copy.copy(self)
        other.kv = [list(pair) for pair in self.kv]
        other.tensors = [copy.copy(t) for t in self.tensors]
        for t in other.tensors:
            t.dims = list(t.dims)
        return other

    def set(self, key, value):
        for pair in self.kv:
            if pair[0] == key:
                pair[1] = value
                return self
        return self.add(key, value)

    def add(self, key, value):
        self.kv.append([key, value])
        return self

    def drop(self, key):
        self.kv = [pair for pair in self.kv if pair[0] != key]
        return self

    def get(self, key):
        return next(value for name, value in self.kv if name == key)

    def number(self, key):
        kind, payload = self.get(key)
        return struct.unpack(_FORMAT[kind], payload)[0]

    def tensor(self, name):
        return next(t for t in self.tensors if t.name == name)

    def drop_tensor(self, name):
        self.tensors = [t for t in self.tensors if t.name != name]
        return self

    def header_bytes(self):
        """Everything before the tensor data, without the padding."""
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_kv = len(self.kv) if self.n_kv is None else self.n_kv
        out = [self.magic, struct.pack("<IQQ", self.version, n_tensors & (2**64 - 1),
                                       n_kv & (2**64 - 1))]
        for key, (kind, payload) in self.kv:
            out += [string_bytes(key), struct.pack("<I", kind & (2**32 - 1)), payload]
        position = 0
        for t in self.tensors:
            offset = position if t.offset is None else t.offset
            n_dims = len(t.dims) if t.n_dims is None else t.n_dims
            type_id = TYPES[t.kind][0] if t.type_id is None else t.type_id
            out += [string_bytes(t.name), struct.pack("<I", n_dims & (2**32 - 1))]
            out += [struct.pack("<Q", n & (2**64 - 1)) for n in t.dims]
            out += [struct.pack("<IQ", type_id & (2**32 - 1), offset & (2**64 - 1))]
            position += len(t.data) + -len(t.data) % self.alignment
        return b"".join(out)

    def to_bytes(self):
        header = self.header_bytes()
        out = [header, bytes(-len(header) % self.alignment)]
        for t in self.tensors:
            out += [t.data, bytes(-len(t.data) % self.alignment)]
        return b"".join(out) + self.tail


# ---- a small valid model of every architecture -----------------------------------

VOCAB = 300
CONTEXT = 128


def _random_f32(rng, count, low=-0.25, high=0.25):
    return packed("f", (rng.uniform(low, high) for _ in range(count))).tobytes()


def spm_tokenizer(model, vocab=VOCAB):
    """A sentencepiece vocabulary: 3 specials, 256 bytes, some pieces."""
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    pieces = ["\u2581"] + [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces += ["\u2581t", "he", "\u2581the", "in", "er", "an", "on", "\u2581a", "re", "or",
               "en", "at", "\u2581s", "\u2581w"]
    tokens += pieces
    while len(tokens) < vocab:
        tokens.append(f"piece{len(tokens)}")
    tokens = tokens[:vocab]
    scores = [0.0 if i < 259 else -float(i - 259) for i in range(vocab)]
    types = [2, 3, 3] + [6] * 256 + [1] * vocab
    model.set("tokenizer.ggml.model", string("llama"))
    model.set("tokenizer.ggml.tokens", array(STRING, tokens))
    model.set("tokenizer.ggml.scores", array(F32, scores))
    model.set("tokenizer.ggml.token_type", array(I32, types[:vocab]))
    model.set("tokenizer.ggml.bos_token_id", u32(1))
    model.set("tokenizer.ggml.eos_token_id", u32(2))
    model.set("tokenizer.ggml.unknown_token_id", u32(0))
    return model


def byte_letters():
    """GPT-2's printable stand-in for each byte."""
    plain = set(range(33, 127)) | set(range(161, 173)) | set(range(174, 256))
    spare = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(spare)) for b in range(256)]


def bpe_tokenizer(model, vocab=VOCAB, pre="gpt-2"):
    """A byte-level BPE vocabulary: 256 letters, some merges, one special."""
    space = byte_letters()[32]
    merges = [("t", "h"), ("th", "e"), (space, "t"), (space, "a"), ("i", "n"), ("e", "r"),
              ("a", "n"), ("o", "n"), ("r", "e"), ("h", "e"), (space + "t", "he")]
    tokens = byte_letters() + [a + b for a, b in merges] + ["<|endoftext|>"]
    while len(tokens) < vocab:
        tokens.append(f"piece{len(tokens)}")
    types = [1] * vocab
    types[256 + len(merges)] = 3
    for key in ("scores", "unknown_token_id"):
        model.drop("tokenizer.ggml." + key)
    model.set("tokenizer.ggml.model", string("gpt2"))
    model.set("tokenizer.ggml.pre", string(pre))
    model.set("tokenizer.ggml.tokens", array(STRING, tokens[:vocab]))
    model.set("tokenizer.ggml.token_type", array(I32, types))
    model.set("tokenizer.ggml.merges", array(STRING, [f"{a} {b}" for a, b in merges]))
    model.set("tokenizer.ggml.bos_token_id", u32(256 + len(merges)))
    model.set("tokenizer.ggml.eos_token_id", u32(256 + len(merges)))
    return model


CHAT_TEMPLATE = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
                 "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
                 "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def tiny(arch, seed=1, tied=False, vocab=VOCAB, layers=2, tokenizer=spm_tokenizer, **sizes):
    """A valid model of `arch` with random weights, about 30,000 parameters.

    llama, qwen2, qwen3: 2 heads of 16 over 1 KV head (qwen3: heads of 24).
    deepseek2: MLA with a q rank, layer 0 dense, then 2-of-5 experts and 1 shared.
    """
    return _build(arch, seed, tied, vocab, layers, tokenizer, **sizes).copy()


@functools.lru_cache(maxsize=32)
def _build(arch, seed, tied, vocab, layers, tokenizer, **sizes):
    rng = random.Random(seed)
    size = dict(embd=32, head=2, head_kv=1, ff=64, context=CONTEXT,
                head_dim=24 if arch == "qwen3" else 16,
                nope=16, rope=8, value=16, kv_rank=24, q_rank=20, experts=5, used=2, ff_exp=16)
    size.update(sizes)
    embd, ff, head = size["embd"], size["ff"], size["head"]
    model = Gguf()
    model.add("general.architecture", string(arch))
    model.add("general.name", string(f"tiny {arch}"))

    def key(name, value):
        model.add(f"{arch}.{name}", value)

    def weight(name, *dims):
        count = 1
        for n in dims:
            count *= n
        model.tensors.append(Tensor(name, dims, _random_f32(rng, count)))

    def norm(name, n):
        model.tensors.append(Tensor(name, [n], _random_f32(rng, n, 0.8, 1.2)))

    key("context_length", u32(size["context"]))
    key("embedding_length", u32(embd))
    key("block_count", u32(layers))
    key("feed_forward_length", u32(ff))
    key("attention.head_count", u32(head))
    key("attention.head_count_kv", u32(1 if arch == "deepseek2" else size["head_kv"]))
    key("attention.layer_norm_rms_epsilon", f32(1e-5))
    key("rope.freq_base", f32(10000.0))
    if arch == "deepseek2":
        return _tiny_deepseek2(model, key, weight, norm, size, layers, tied, vocab, tokenizer)

    dim = size["head_dim"]
    q_rows, kv_rows = head * dim, size["head_kv"] * dim
    if arch == "qwen3":
        key("attention.key_length", u32(dim))
        key("attention.value_length", u32(dim))
    else:
        key("rope.dimension_count", u32(dim))
    tokenizer(model, vocab)
    model.add("tokenizer.chat_template", string(CHAT_TEMPLATE))

    weight("token_embd.weight", embd, vocab)
    for i in range(layers):
        blk = f"blk.{i}."
        norm(blk + "attn_norm.weight", embd)
        weight(blk + "attn_q.weight", embd, q_rows)
        weight(blk + "attn_k.weight", embd, kv_rows)
        weight(blk + "attn_v.weight", embd, kv_rows)
        if arch == "qwen2":
            weight(blk + "attn_q.bias", q_rows)
            weight(blk + "attn_k.bias", kv_rows)
            weight(blk + "attn_v.bias", kv_rows)
        if arch == "qwen3":
            norm(blk + "attn_q_norm.weight", dim)
            norm(blk + "attn_k_norm.weight", dim)
        weight(blk + "attn_output.weight", q_rows, embd)
        norm(blk + "ffn_norm.weight", embd)
        weight(blk + "ffn_gate.weight", embd, ff)
        weight(blk + "ffn_up.weight", embd, ff)
        weight(blk + "ffn_down.weight", ff, embd)
    norm("output_norm.weight", embd)
    if not tied:
        weight("output.weight", embd, vocab)
    return model


def _tiny_deepseek2(model, key, weight, norm, size, layers, tied, vocab, tokenizer):
    embd, ff, head = size["embd"], size["ff"], size["head"]
    nope, rope, value, kv_rank, q_rank, experts, used, ff_exp = (
        size[name] for name in "nope rope value kv_rank q_rank experts used ff_exp".split())
    key("attention.q_lora_rank", u32(q_rank))
    key("attention.kv_lora_rank", u32(kv_rank))
    key("attention.key_length", u32(kv_rank + rope))
    key("attention.value_length", u32(kv_rank))
    key("attention.key_length_mla", u32(nope + rope))
    key("attention.value_length_mla", u32(value))
    key("rope.dimension_count", u32(rope))
    key("leading_dense_block_count", u32(1))
    key("expert_feed_forward_length", u32(ff_exp))
    key("expert_count", u32(experts))
    key("expert_used_count", u32(used))
    key("expert_shared_count", u32(1))
    key("expert_weights_scale", f32(1.5))
    key("expert_weights_norm", boolean(1))
    key("expert_gating_func", u32(2))
    tokenizer(model, vocab)
    model.add("tokenizer.chat_template", string(CHAT_TEMPLATE))

    weight("token_embd.weight", embd, vocab)
    for i in range(layers):
        blk = f"blk.{i}."
        norm(blk + "attn_norm.weight", embd)
        norm(blk + "attn_q_a_norm.weight", q_rank)
        norm(blk + "attn_kv_a_norm.weight", kv_rank)
        weight(blk + "attn_q_a.weight", embd, q_rank)
        weight(blk + "attn_q_b.weight", q_rank, head * (nope + rope))
        weight(blk + "attn_kv_a_mqa.weight", embd, kv_rank + rope)
        weight(blk + "attn_k_b.weight", nope, kv_rank, head)
        weight(blk + "attn_v_b.weight", kv_rank, value, head)
        weight(blk + "attn_output.weight", head * value, embd)
        norm(blk + "ffn_norm.weight", embd)
        if i == 0:
            weight(blk + "ffn_gate.weight", embd, ff)
            weight(blk + "ffn_down.weight", ff, embd)
            weight(blk + "ffn_up.weight", embd, ff)
            continue
        weight(blk + "ffn_gate_inp.weight", embd, experts)
        weight(blk + "exp_probs_b.bias", experts)
        weight(blk + "ffn_down_exps.weight", ff_exp, embd, experts)
        weight(blk + "ffn_gate_exps.weight", embd, ff_exp, experts)
        weight(blk + "ffn_up_exps.weight", embd, ff_exp, experts)
        weight(blk + "ffn_gate_shexp.weight", embd, ff_exp)
        weight(blk + "ffn_down_shexp.weight", ff_exp, embd)
        weight(blk + "ffn_up_shexp.weight", embd, ff_exp)
    norm("output_norm.weight", embd)
    if not tied:
        weight("output.weight", embd, vocab)
    return model


def tiny_llama(**options):
    return tiny("llama", **options)


def split(model, parts):
    """The same model as `parts` files, as llama-gguf-split cuts it: the first part
    carries all keys, each part its own tensors, offsets counted from zero again."""
    share = -(-len(model.tensors) // parts)
    out = []
    for i in range(parts):
        part = model.copy() if i == 0 else Gguf()
        part.add("split.no", u16(i))
        part.add("split.count", u16(parts))
        part.add("split.tensors.count", i32(len(model.tensors)))
        part.tensors = [copy.copy(t) for t in model.tensors[i * share:(i + 1) * share]]
        out.append(part)
    return out


def split_name(stem, number, parts):
    """The name that llama.cpp gives part `number`, counted from 0."""
    return f"{stem}-{number + 1:05d}-of-{parts:05d}.gguf"
