# SPDX-License-Identifier: MIT
"""Write the seeds of fuzz/model_file.c: small valid models and lies about them.

usage: python3 fuzz/make_corpus.py [FOLDER]      (default fuzz/corpus/model_file)

The fuzzer changes bytes, so a seed should be little more than the bytes that matter:
models here have one or two layers of 8 values and a dozen tokens, about 2 KB.  The
lies are those of tests/integration/hostile.py; a case whose change does not apply to
such a model is left out.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/integration"))

from gguf_writer import (I32, STRING, array, byte_letters, f32, spm_tokenizer,  # noqa: E402
                         string, tiny, u32)
from hostile import CASES  # noqa: E402

SMALL = dict(embd=8, head=2, head_kv=1, head_dim=4, ff=8, context=32, layers=1, tied=True,
             nope=4, rope=4, value=4, kv_rank=8, q_rank=6, experts=3, used=2, ff_exp=4)
VOCAB = 12


def bpe_of_12(model, vocab):
    """Ten letters, one merge and an end token."""
    assert vocab == VOCAB
    letters = byte_letters()
    tokens = [letters[b] for b in b"theQx \n<s>"[:9]] + ["th", "the", "<|endoftext|>"]
    model.set("tokenizer.ggml.model", string("gpt2"))
    model.set("tokenizer.ggml.pre", string("gpt-2"))
    model.set("tokenizer.ggml.tokens", array(STRING, tokens))
    model.set("tokenizer.ggml.token_type", array(I32, [1] * 11 + [3]))
    model.set("tokenizer.ggml.merges", array(STRING, ["t h", "th e"]))
    model.set("tokenizer.ggml.bos_token_id", u32(11))
    model.set("tokenizer.ggml.eos_token_id", u32(11))


def small(arch="llama", **options):
    options = {**SMALL, **options}
    if arch == "deepseek2":
        options["layers"] = 2
    return tiny(arch, vocab=VOCAB, tokenizer=bpe_of_12, **options)


# One of each kind; the fuzzer finds their cousins.
LIES = """
    n_kv-2e63 n_tensors-2e63 n_kv-one-more n_tensors-one-more version-2 magic-GGML
    string-length-2e40 string-length-2e30 key-empty key-duplicate value-type-13
    array-of-arrays array-string-count-2e30 array-u8-count-2e61 bool-array-255
    alignment-0 alignment-2147483648 alignment-string
    offset-overlapping offset-beyond-file offset-wrapping offset-unaligned
    tensor-duplicate tensor-name-control-bytes tensor-name-64 type-255 type--1 n_dims-5 n_dims-0
    dims-zero dims-negative dims-2e32x2e32 dims-2e42+1 tensor-sizes-wrap
    norm-output_norm.weight-F16 missing-llama-output_norm.weight extra-unknown
    extra-blk.0.attn_q_norm.weight architecture-control-bytes architecture-missing
    llama.block_count-0 llama.block_count-2e31-1 llama.block_count-minus-1
    llama.attention.head_count-array-unequal llama.attention.head_count_kv-3
    llama.rope.dimension_count-15 llama.rope.freq_base-nan
    llama.attention.layer_norm_rms_epsilon-0 llama.rope.freq_base-f64-1e300
    unbuilt-expert_count-4-04000000 nextn-negative
    tokenizer-scores-1 tokenizer-pre-banana tokenizer-model-rwkv tokenizer-bos-id-2e31
    merges-cyclic merges-no-space template-nul-raw template-malformed-raw split.count-wrong-type
""".split()


# Changes to the last tensor, output.weight.
UNTIED = ("tensor-name", "type-", "n_dims", "dims-", "tensor-sizes")


def seeds():
    """(name, bytes) of each seed."""
    for arch in ("llama", "qwen2", "qwen3", "deepseek2"):
        yield f"valid-{arch}", small(arch).to_bytes()
    yield "valid-untied", small(tied=False).to_bytes()
    yield "valid-two-layers", small(layers=2).to_bytes()
    yield "valid-spm", tiny("llama", vocab=262, tokenizer=spm_tokenizer, **SMALL).to_bytes()
    yarn = small()
    yarn.set("llama.rope.scaling.type", string("yarn"))
    yarn.set("llama.rope.scaling.factor", f32(4.0))
    yarn.set("llama.rope.scaling.original_context_length", u32(32))
    yield "valid-yarn", yarn.to_bytes()
    whole = small().to_bytes()
    for cut in (24, 100, len(whole) // 2, len(whole) - 32):
        yield f"cut-at-{cut}", whole[:cut]
    for name in LIES:
        model = small(tied="output" not in name and not name.startswith(UNTIED))
        if not name.startswith("template"):
            model.drop("tokenizer.chat_template")
        CASES[name].edit(model)
        yield name, model.to_bytes()


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else HERE / "corpus/model_file")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    total = 0
    for name, data in seeds():
        safe = "".join(c if c.isalnum() or c in "._+-" else "_" for c in name)
        (folder / safe).write_bytes(data)
        total += len(data)
    print(f"{len(list(folder.iterdir()))} seeds, {total} bytes, in {folder}")


if __name__ == "__main__":
    main()
