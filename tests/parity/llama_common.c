/* SPDX-License-Identifier: MIT */
/* llama_common.c - llama.cpp as the oracle, in the same process as our engine.
 *
 * Its log is kept away from the test's output; the last error line explains refusals. */
#include "llama_common.h"

#include <ggml-backend.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char reason[512];

static void keep_error(enum ggml_log_level level, const char *text, void *ctx)
{
    (void)ctx;
    if (level == GGML_LOG_LEVEL_ERROR) {
        snprintf(reason, sizeof(reason), "%s", text);
        reason[strcspn(reason, "\n")] = '\0';
    }
}

const char *oracle_reason(void)
{
    return reason[0] != '\0' ? reason : "no reason given";
}

static struct llama_model *load(const char *path, int repack, bool vocab_only)
{
    static ggml_backend_dev_t no_devices[] = { NULL };
    struct llama_model_params params = llama_model_default_params();

    reason[0] = '\0';
    llama_log_set(keep_error, NULL);
    if (ggml_backend_dev_count() == 0)
        ggml_backend_load_all();
    llama_backend_init();
    params.devices = no_devices;
    params.n_gpu_layers = 0;
    params.use_extra_bufts = repack != 0;
    params.vocab_only = vocab_only;
    return llama_model_load_from_file(path, params);
}

struct llama_model *oracle_model_try(const char *path, int repack)
{
    return load(path, repack, false);
}

struct llama_model *oracle_model_open(const char *path, int repack)
{
    struct llama_model *model = load(path, repack, false);

    if (model == NULL)
        fail_msg("llama.cpp does not load %s: %s", path, oracle_reason());
    return model;
}

struct llama_model *oracle_vocab_open(const char *path)
{
    struct llama_model *model = load(path, 0, true);

    if (model == NULL)
        fail_msg("llama.cpp does not load the vocabulary %s: %s", path, oracle_reason());
    return model;
}

static enum ggml_type kv_type(mcp_kv_type type)
{
    static const enum ggml_type types[] = {
        [MCP_KV_F16] = GGML_TYPE_F16,
        [MCP_KV_Q8_0] = GGML_TYPE_Q8_0,
        [MCP_KV_F32] = GGML_TYPE_F32,
    };
    return types[type];
}

static struct llama_context_params context_params(const mcp_engine_opts *opts)
{
    static const enum llama_flash_attn_type flash[] = {
        [MCP_FLASH_AUTO] = LLAMA_FLASH_ATTN_TYPE_AUTO,
        [MCP_FLASH_ON] = LLAMA_FLASH_ATTN_TYPE_ENABLED,
        [MCP_FLASH_OFF] = LLAMA_FLASH_ATTN_TYPE_DISABLED,
    };
    struct llama_context_params params = llama_context_default_params();

    params.n_ctx = opts->ctx_tokens * opts->seqs;
    params.n_seq_max = opts->seqs;
    params.n_batch = opts->batch_tokens;
    params.n_ubatch = opts->ubatch_tokens;
    params.n_threads = (int32_t)opts->threads;
    params.n_threads_batch = (int32_t)opts->threads;
    params.flash_attn_type = flash[opts->flash];
    params.type_k = kv_type(opts->kv_k);
    params.type_v = kv_type(opts->kv_v);
    params.kv_unified = false;
    params.offload_kqv = false;
    params.op_offload = false;
    params.no_perf = true;
    return params;
}

struct llama_context *oracle_context_try(struct llama_model *model, const mcp_engine_opts *opts)
{
    struct llama_context_params params = context_params(opts);

    reason[0] = '\0';
    llama_log_set(keep_error, NULL); /* libmcp may have set its own meanwhile */
    if (opts->kv_k == MCP_KV_Q8_0 && opts->flash == MCP_FLASH_OFF) {
        /* Heads that do not fit the blocks are refused with flash attention only; without
         * it llama.cpp aborts.  So ask with it first. */
        struct llama_context *probe;

        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
        probe = llama_init_from_model(model, params);
        if (probe == NULL)
            return NULL;
        llama_free(probe);
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    return llama_init_from_model(model, params);
}

struct llama_context *oracle_context_open(struct llama_model *model, const mcp_engine_opts *opts)
{
    struct llama_context *ctx = oracle_context_try(model, opts);

    if (ctx == NULL)
        fail_msg("llama.cpp makes no context: %s", oracle_reason());
    return ctx;
}

static bool row_wanted(const mcp_window *window, uint32_t row)
{
    switch (window->out) {
    case MCP_OUT_NONE: return false;
    case MCP_OUT_LAST: return row + 1 == window->count;
    case MCP_OUT_ALL: return true;
    case MCP_OUT_CHOSEN: break;
    }
    for (uint32_t i = 0; i < window->out_count; i++)
        if (window->out_index[i] == row)
            return true;
    return false;
}

void oracle_forward(struct llama_context *ctx, const mcp_window *windows, uint32_t count,
                    float *logits, size_t floats)
{
    const struct llama_vocab *vocab = llama_model_get_vocab(llama_get_model(ctx));
    size_t                    n_vocab = (size_t)llama_vocab_n_tokens(vocab), rows = 0;
    struct llama_batch        batch;
    int32_t                   total = 0, rc;

    for (uint32_t w = 0; w < count; w++)
        total += (int32_t)windows[w].count;
    batch = llama_batch_init(total, 0, 1);
    for (uint32_t w = 0; w < count; w++) {
        for (uint32_t i = 0; i < windows[w].count; i++) {
            int32_t t = batch.n_tokens++;

            batch.token[t] = windows[w].tokens[i];
            batch.pos[t] = (llama_pos)(windows[w].pos + i);
            batch.n_seq_id[t] = 1;
            batch.seq_id[t][0] = (llama_seq_id)windows[w].seq;
            batch.logits[t] = row_wanted(&windows[w], i);
        }
    }
    rc = llama_decode(ctx, batch);
    if (rc != 0)
        fail_msg("llama_decode() of %d tokens gave %d: %s", total, rc, oracle_reason());
    for (int32_t t = 0; t < total; t++) {
        const float *row;

        if (!batch.logits[t])
            continue;
        row = llama_get_logits_ith(ctx, t);
        assert_non_null(row);
        assert_true((rows + 1) * n_vocab <= floats);
        memcpy(logits + rows++ * n_vocab, row, n_vocab * sizeof(*row));
    }
    llama_batch_free(batch);
}

void oracle_run(struct llama_context *ctx, uint32_t seq, const int32_t *tokens,
                const struct windows *windows, float *logits)
{
    const struct llama_vocab *vocab = llama_model_get_vocab(llama_get_model(ctx));
    size_t                    n_vocab = (size_t)llama_vocab_n_tokens(vocab);
    uint32_t                  done = 0;
    llama_pos pos = llama_memory_seq_pos_max(llama_get_memory(ctx), (llama_seq_id)seq) + 1;

    for (uint32_t i = 0; i < windows->count; i++) {
        mcp_window window = { .seq = seq,
                              .pos = (uint32_t)pos + done,
                              .count = windows->sizes[i],
                              .tokens = tokens + done,
                              .out = MCP_OUT_ALL };

        oracle_forward(ctx, &window, 1, logits + done * n_vocab, window.count * n_vocab);
        done += window.count;
    }
}

void oracle_clear(struct llama_context *ctx)
{
    llama_memory_clear(llama_get_memory(ctx), true);
}

void oracle_greedy(struct llama_context *ctx, const int32_t *prompt, uint32_t prompt_count,
                   int32_t *tokens, uint32_t count)
{
    const struct llama_vocab *vocab = llama_model_get_vocab(llama_get_model(ctx));
    size_t                    n_vocab = (size_t)llama_vocab_n_tokens(vocab);
    float                    *logits = floats_new(n_vocab);
    mcp_window window = { .count = prompt_count, .tokens = prompt, .out = MCP_OUT_LAST };

    oracle_clear(ctx);
    for (uint32_t i = 0; i < count; i++) {
        oracle_forward(ctx, &window, 1, logits, n_vocab);
        tokens[i] = (int32_t)row_argmax(logits, n_vocab);
        window.pos += window.count;
        window.count = 1;
        window.tokens = &tokens[i];
    }
    free(logits);
}

int32_t oracle_tokenize(const struct llama_vocab *vocab, const char *text, size_t bytes,
                        bool add_special, bool parse_special, int32_t *tokens, int32_t cap)
{
    int32_t count = llama_tokenize(vocab, text, (int32_t)bytes, tokens, cap, add_special,
                                   parse_special);

    if (count < 0)
        fail_msg("llama_tokenize() of %zu bytes needs %d tokens", bytes, -count);
    return count;
}

/* ---- where two engines part ----------------------------------------------------- */

/* What the graph's "l_out-N" tensors held in the last window; one buffer, (layers,
 * rows_max, n_embd). */
struct layer_tap {
    float   *hidden;
    size_t   layer_floats;
    uint32_t layers;
};

static bool layer_keep(struct ggml_tensor *tensor, bool ask, void *ctx)
{
    struct layer_tap *tap = ctx;
    size_t            bytes = ggml_nbytes(tensor);
    unsigned          layer;

    if (strncmp(tensor->name, "l_out-", 6) != 0)
        return !ask;
    if (ask)
        return true;
    layer = (unsigned)strtoul(tensor->name + 6, NULL, 10);
    if (layer < tap->layers && bytes <= tap->layer_floats * sizeof(float))
        ggml_backend_tensor_get(tensor, tap->hidden + layer * tap->layer_floats, 0, bytes);
    return true;
}

const char *oracle_first_layer(struct llama_model *llama, const mcp_model *model,
                               const mcp_engine_opts *opts, const int32_t *tokens,
                               const struct windows *windows, char *text, size_t cap)
{
    const mcp_model_info *info = mcp_model_get_info(model);
    uint32_t              total = windows_total(windows), done = 0;
    struct layer_tap tap = { .layer_floats = (size_t)total * info->n_embd, .layers = info->layers };
    struct llama_context_params params = context_params(opts);
    struct llama_context       *ctx;
    mcp_engine                 *engine = NULL;
    mcp_error                   err = { 0 };
    float *state = floats_new(tap.layer_floats), *next = floats_new(tap.layer_floats);
    float *logits = floats_new((size_t)total * info->n_vocab);
    bool   found = false;

    tap.hidden = floats_new(tap.layer_floats * info->layers);
    params.cb_eval = layer_keep;
    params.cb_eval_user_data = &tap;
    ctx = llama_init_from_model(llama, params);
    assert_non_null(ctx);
    snprintf(text, cap, "all layers agree, the head differs");
    if (mcp_engine_open(&engine, model, opts, &err) < 0)
        snprintf(text, cap, "no engine: %s", err.text);
    for (uint32_t w = 0; engine != NULL && w < windows->count && !found; w++) {
        mcp_window window = {
            .pos = done, .count = windows->sizes[w], .tokens = tokens + done, .out = MCP_OUT_ALL
        };
        size_t floats = (size_t)window.count * info->n_embd;

        oracle_forward(ctx, &window, 1, logits, (size_t)total * info->n_vocab);
        for (uint32_t layer = 0; layer < info->layers && !found; layer++) {
            struct rows_diff diff;

            if (mcp_engine_forward(engine, layer, layer + 1, MCP_WANT_HIDDEN, &window, 1, next,
                                   floats, &err) < 0) {
                snprintf(text, cap, "layer %u does not run alone: %s", layer, err.text);
                found = true;
                break;
            }
            rows_compare(&diff, next, tap.hidden + layer * tap.layer_floats, window.count,
                         info->n_embd);
            if (diff.rows_differ > 0) {
                snprintf(text, cap,
                         "first apart: layer %u of %u, window %u of %u tokens, row %zu, max abs "
                         "%.3g of %.3g",
                         layer, info->layers, w, window.count, diff.row_first, (double)diff.max_abs,
                         (double)diff.scale);
                found = true;
            }
            memcpy(state, next, floats * sizeof(*state));
            window.tokens = NULL;
            window.hidden = state;
        }
        done += windows->sizes[w];
    }
    mcp_engine_close(engine);
    llama_free(ctx);
    free(tap.hidden);
    free(state);
    free(next);
    free(logits);
    return text;
}
