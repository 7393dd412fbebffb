/* SPDX-License-Identifier: MIT */
/* shape.c - the table of shapes and the table of keys that `--set` knows.
 *
 * The real shapes are read off the published configurations.  The tiny ones are
 * odd on purpose: sizes that no block size divides, head sizes that are not
 * n_embd / heads, group ratios of 3, five experts. */
#include "shape.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define TINY(shape_name, shape_arch)                                                          \
    .name = shape_name, .arch = shape_arch, .tiny = 1, .layers = 4, .n_embd = 96, .heads = 4, \
    .kv_heads = 4, .ff = 160, .vocab = 384, .ctx = 1024, .rms_eps = 1e-5f, .rope_base = 10000.0f

/* 256 original positions put the YaRN ramp inside the few rotated pairs. */
#define TINY_YARN .rope_scaling = SYNTH_ROPE_YARN, .rope_factor = 4.0f, .rope_orig_ctx = 256

#define TINY_DEEPSEEK2                                                                       \
    .q_lora = 48, .kv_lora = 64, .qk_nope = 24, .qk_rope = 16, .v_dim = 20, .dense_lead = 1, \
    .experts = 5, .experts_used = 2, .experts_shared = 1, .expert_ff = 64, .gating = 1,      \
    .weights_scale = 1.0f

/* A row may override what its macros say: the last initialiser wins. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
/* clang-format off: tables, one row a line */
static const struct synth_shape shapes[] = {
    { .name = "deepseek-llm-7b",
      .arch = SYNTH_LLAMA,
      .layers = 30,
      .n_embd = 4096,
      .heads = 32,
      .kv_heads = 32,
      .ff = 11008,
      .vocab = 102400,
      .ctx = 4096,
      .rms_eps = 1e-6f,
      .rope_base = 10000.0f },
    { .name = "r1-distill-qwen-7b",
      .arch = SYNTH_QWEN2,
      .layers = 28,
      .n_embd = 3584,
      .heads = 28,
      .kv_heads = 4,
      .ff = 18944,
      .vocab = 152064,
      .ctx = 131072,
      .rms_eps = 1e-6f,
      .rope_base = 10000.0f,
      .qkv_bias = 1 },
    { .name = "r1-distill-llama-8b",
      .arch = SYNTH_LLAMA,
      .layers = 32,
      .n_embd = 4096,
      .heads = 32,
      .kv_heads = 8,
      .ff = 14336,
      .vocab = 128256,
      .ctx = 131072,
      .rms_eps = 1e-5f,
      .rope_base = 500000.0f,
      .rope_scaling = SYNTH_ROPE_LLAMA3,
      .rope_factor = 8.0f,
      .rope_orig_ctx = 8192 },
    { .name = "r1-0528-qwen3-8b",
      .arch = SYNTH_QWEN3,
      .layers = 36,
      .n_embd = 4096,
      .heads = 32,
      .kv_heads = 8,
      .head_dim = 128,
      .ff = 12288,
      .vocab = 151936,
      .ctx = 131072,
      .rms_eps = 1e-6f,
      .rope_base = 1000000.0f,
      .rope_scaling = SYNTH_ROPE_YARN,
      .rope_factor = 4.0f,
      .rope_orig_ctx = 32768 },
    { .name = "deepseek-v2-lite",
      .arch = SYNTH_DEEPSEEK2,
      .layers = 27,
      .n_embd = 2048,
      .heads = 16,
      .ff = 10944,
      .vocab = 102400,
      .ctx = 163840,
      .rms_eps = 1e-6f,
      .rope_base = 10000.0f,
      .rope_scaling = SYNTH_ROPE_YARN,
      .rope_factor = 40.0f,
      .rope_orig_ctx = 4096,
      .rope_log_mul = 0.0707f,
      .mla = 1,
      .kv_lora = 512,
      .qk_nope = 128,
      .qk_rope = 64,
      .v_dim = 128,
      .dense_lead = 1,
      .experts = 64,
      .experts_used = 6,
      .experts_shared = 2,
      .expert_ff = 1408,
      .gating = 1,
      .weights_scale = 1.0f },
    { .name = "smollm2-135m",
      .arch = SYNTH_LLAMA,
      .layers = 30,
      .n_embd = 576,
      .heads = 9,
      .kv_heads = 3,
      .ff = 1536,
      .vocab = 49152,
      .ctx = 8192,
      .rms_eps = 1e-5f,
      .rope_base = 100000.0f,
      .tied = 1 },

    { TINY("tiny-llama", SYNTH_LLAMA), .n_embd = 128, .ff = 256 },
    { TINY("tiny-llama-256", SYNTH_LLAMA), .layers = 3, .n_embd = 256, .kv_heads = 2, .ff = 256,
      .vocab = 320 },
    { TINY("tiny-llama-gqa3", SYNTH_LLAMA), .heads = 6, .kv_heads = 2, .head_dim = 40, .ff = 104,
      .tied = 1 },
    { TINY("tiny-llama-linear", SYNTH_LLAMA), .rope_scaling = SYNTH_ROPE_LINEAR,
      .rope_factor = 2.0f },
    { TINY("tiny-llama-yarn", SYNTH_LLAMA), TINY_YARN },
    { TINY("tiny-llama-llama3", SYNTH_LLAMA), .kv_heads = 2, .rope_scaling = SYNTH_ROPE_LLAMA3,
      .rope_factor = 8.0f, .rope_orig_ctx = 256 },
    { TINY("tiny-llama-bias", SYNTH_LLAMA), .kv_heads = 2, .qkv_bias = 1, .out_bias = 1,
      .ffn_bias = 1 },
    { TINY("tiny-llama-fused", SYNTH_LLAMA), .kv_heads = 2, .fused_qkv = 1 },
    { TINY("tiny-qwen2", SYNTH_QWEN2), .heads = 6, .kv_heads = 2, .qkv_bias = 1 },
    { TINY("tiny-qwen2-outbias", SYNTH_QWEN2), .heads = 6, .kv_heads = 2, .qkv_bias = 1,
      .logit_bias = 1 },
    { TINY("tiny-qwen3", SYNTH_QWEN3), .heads = 8, .kv_heads = 2, .head_dim = 32 },
    { TINY("tiny-qwen3-yarn", SYNTH_QWEN3), .kv_heads = 2, .head_dim = 40, TINY_YARN },
    { TINY("tiny-deepseek2", SYNTH_DEEPSEEK2), TINY_DEEPSEEK2 },
    { TINY("tiny-deepseek2-mla", SYNTH_DEEPSEEK2), TINY_DEEPSEEK2, TINY_YARN,
      .rope_log_mul = 0.0707f, .mla = 1, .gating = 2, .expert_bias = 1, .weights_norm = 1,
      .weights_scale = 2.5f },
    { TINY("tiny-deepseek2-groups", SYNTH_DEEPSEEK2), TINY_DEEPSEEK2, .experts = 8,
      .experts_used = 3, .groups = 4, .groups_used = 2, .gating = 2, .expert_bias = 1,
      .weights_norm = 1, .weights_scale = 1.5f },
    /* llama.cpp knows "lite" by its 27 layers alone, hence so many small ones */
    { TINY("tiny-deepseek2-lite-mla", SYNTH_DEEPSEEK2), TINY_DEEPSEEK2, TINY_YARN, .layers = 27,
      .n_embd = 32, .heads = 2, .ff = 48, .vocab = 320, .rope_log_mul = 0.0707f, .mla = 1,
      .q_lora = 0, .kv_lora = 32, .qk_nope = 8, .qk_rope = 8, .v_dim = 12, .experts = 3,
      .expert_ff = 32, .experts_shared = 2 },
};
#pragma GCC diagnostic pop

enum { SHAPES = sizeof shapes / sizeof shapes[0] };

/* One key of `--set`.  Bounds are far above any model and keep every product of
 * three of them below 2^63. */
struct field {
    const char *name;
    size_t      offset;
    bool        is_float;
    double      min;
    double      max;
};

#define U(key, lo, hi)                                         \
    {                                                          \
#key, offsetof(struct synth_shape, key), false, lo, hi \
    }
#define F(key, lo, hi)                                        \
    {                                                         \
#key, offsetof(struct synth_shape, key), true, lo, hi \
    }

static const struct field fields[] = {
    U(layers, 1, 512),
    U(n_embd, 2, 65536),
    U(heads, 1, 1024),
    U(kv_heads, 1, 1024),
    U(head_dim, 0, 4096),
    U(ff, 1, 1 << 20),
    U(vocab, 1, 400000),
    U(ctx, 1, 1 << 30),
    F(rms_eps, 1e-12, 1),
    F(rope_base, 1, 1e12),
    U(rope_scaling, 0, 3),
    F(rope_factor, 0, 1e6),
    U(rope_orig_ctx, 0, 1 << 30),
    F(rope_log_mul, 0, 10),
    U(tied, 0, 1),
    U(qkv_bias, 0, 1),
    U(out_bias, 0, 1),
    U(ffn_bias, 0, 1),
    U(logit_bias, 0, 1),
    U(fused_qkv, 0, 1),
    U(mla, 0, 1),
    U(q_lora, 0, 65536),
    U(kv_lora, 1, 65536),
    U(qk_nope, 1, 4096),
    U(qk_rope, 2, 4096),
    U(v_dim, 1, 4096),
    U(dense_lead, 0, 512),
    U(experts, 1, 512),
    U(experts_used, 1, 512),
    U(experts_shared, 1, 64),
    U(expert_ff, 1, 1 << 20),
    U(groups, 0, 256),
    U(groups_used, 0, 256),
    U(gating, 1, 2),
    U(expert_bias, 0, 1),
    U(weights_norm, 0, 1),
    F(weights_scale, 0, 1000),
};

enum { FIELDS = sizeof fields / sizeof fields[0] };

const struct synth_shape *synth_shape_find(const char *name)
{
    for (size_t i = 0; i < SHAPES; i++)
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
    return NULL;
}
/* clang-format on */

static const struct field *find_field(const char *name, size_t n)
{
    for (size_t i = 0; i < FIELDS; i++)
        if (strlen(fields[i].name) == n && memcmp(fields[i].name, name, n) == 0)
            return &fields[i];
    return NULL;
}

int synth_shape_set(struct synth_shape *s, const char *assignment, struct synth_error *err)
{
    const char         *eq = strchr(assignment, '=');
    const struct field *f;
    char               *end;
    double              v;

    if (!eq)
        return synth_fail(err, "--set wants key=value, not '%s'", assignment);
    f = find_field(assignment, (size_t)(eq - assignment));
    if (!f)
        return synth_fail(err, "--set does not know the key '%.*s', see --help",
                          (int)(eq - assignment), assignment);
    errno = 0;
    v = strtod(eq + 1, &end);
    if (end == eq + 1 || *end || errno || !(v >= f->min && v <= f->max) ||
        (!f->is_float && v != floor(v)))
        return synth_fail(err, "%s must be %s from %g to %g, not '%s'", f->name,
                          f->is_float ? "a number" : "a whole number", f->min, f->max, eq + 1);
    if (f->is_float)
        *(float *)((char *)s + f->offset) = (float)v;
    else
        *(uint32_t *)((char *)s + f->offset) = (uint32_t)v;
    return 0;
}

const char *synth_arch_name(enum synth_arch arch)
{
    static const char *const names[] = {
        [SYNTH_LLAMA] = "llama",
        [SYNTH_QWEN2] = "qwen2",
        [SYNTH_QWEN3] = "qwen3",
        [SYNTH_DEEPSEEK2] = "deepseek2",
    };
    return names[arch];
}

bool synth_shape_is_lite(const struct synth_shape *s)
{
    return s->layers == 26 || s->layers == 27 || (s->layers == 48 && s->vocab == 128256);
}

static int check_deepseek2(struct synth_shape *s, struct synth_error *err)
{
    if (!s->kv_lora || !s->qk_nope || !s->qk_rope || !s->v_dim || !s->experts || !s->expert_ff)
        return synth_fail(err, "%s lacks a deepseek2 size", s->name);
    if (s->q_lora && synth_shape_is_lite(s))
        return synth_fail(err,
                          "llama.cpp takes %u layers for a lite model: set q_lora=0 or "
                          "another number of layers",
                          s->layers);
    if (s->qk_rope % 2)
        return synth_fail(err, "qk_rope must be even, not %u", s->qk_rope);
    if (s->experts_used > s->experts)
        return synth_fail(err, "experts_used %u is above experts %u", s->experts_used, s->experts);
    if (s->dense_lead > s->layers)
        return synth_fail(err, "dense_lead %u is above layers %u", s->dense_lead, s->layers);
    if (s->groups > 1) {
        if (s->experts % s->groups || s->experts / s->groups < 2)
            return synth_fail(err, "%u experts do not make %u groups of at least 2", s->experts,
                              s->groups);
        if (!s->groups_used || s->groups_used >= s->groups)
            return synth_fail(err, "groups_used must be from 1 to %u", s->groups - 1);
        if (s->experts_used > s->groups_used * (s->experts / s->groups))
            return synth_fail(err, "%u groups hold fewer than %u experts", s->groups_used,
                              s->experts_used);
    }
    s->head_dim = s->qk_nope + s->qk_rope;
    s->kv_heads = s->mla ? 1 : s->heads;
    if (s->qkv_bias || s->fused_qkv)
        return synth_fail(err, "deepseek2 has neither qkv_bias nor fused_qkv");
    return 0;
}

int synth_shape_check(struct synth_shape *s, struct synth_error *err)
{
    if (s->arch == SYNTH_DEEPSEEK2) {
        if (check_deepseek2(s, err) < 0)
            return -1;
    } else {
        if (!s->head_dim) {
            if (s->n_embd % s->heads)
                return synth_fail(err, "n_embd %u is not a multiple of heads %u", s->n_embd,
                                  s->heads);
            s->head_dim = s->n_embd / s->heads;
        }
        if (s->heads % s->kv_heads)
            return synth_fail(err, "heads %u is not a multiple of kv_heads %u", s->heads,
                              s->kv_heads);
        if (s->head_dim % 2)
            return synth_fail(err, "head_dim must be even for RoPE, not %u", s->head_dim);
    }
    if (s->arch == SYNTH_QWEN2 && (uint64_t)s->head_dim * s->heads != s->n_embd)
        return synth_fail(err, "qwen2 wants head_dim * heads to be n_embd");
    if (s->arch != SYNTH_LLAMA && (s->out_bias || s->ffn_bias))
        return synth_fail(err, "only llama has out_bias and ffn_bias");
    if (s->arch != SYNTH_QWEN2 && s->logit_bias)
        return synth_fail(err, "only qwen2 has logit_bias");
    if (s->arch != SYNTH_LLAMA && s->rope_scaling == SYNTH_ROPE_LLAMA3)
        return synth_fail(err, "only llama reads a rope_freqs tensor");
    if (s->rope_scaling != SYNTH_ROPE_NONE && !(s->rope_factor > 0))
        return synth_fail(err, "rope_scaling needs a rope_factor above 0");
    if (s->rope_scaling >= SYNTH_ROPE_YARN && !s->rope_orig_ctx)
        return synth_fail(err, "this rope_scaling needs rope_orig_ctx");
    return 0;
}

void synth_shape_print_list(FILE *out)
{
    for (size_t i = 0; i < SHAPES; i++) {
        const struct synth_shape *s = &shapes[i];

        fprintf(out, "%-24s %-9s %3u layers, n_embd %4u, %2u heads, ff %5u, vocab %6u\n", s->name,
                synth_arch_name(s->arch), s->layers, s->n_embd, s->heads, s->ff, s->vocab);
    }
}

void synth_shape_print_keys(FILE *out)
{
    for (size_t i = 0; i < FIELDS; i++)
        fprintf(out, "%s%s", i % 6 ? " " : "\n    ", fields[i].name);
    fputc('\n', out);
}
