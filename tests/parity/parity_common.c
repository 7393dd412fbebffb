/* SPDX-License-Identifier: MIT */
/* parity_common.c - models on disk, windows, runs through our engine.
 *
 * Models are written once a program into a directory of its own under $TMPDIR and
 * removed at exit; a program that crashes leaves it behind. */
#include "parity_common.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- models --------------------------------------------------------------------- */

/* 19 shapes x 17 quantisations, and room to grow. */
enum { SYNTH_MODELS_MAX = 512, SYNTH_ARGUMENTS_MAX = 32 };

static struct {
    char   directory[256];
    char  *key[SYNTH_MODELS_MAX];
    char  *path[SYNTH_MODELS_MAX];
    size_t count;
} synth;

void synth_clear(void)
{
    for (size_t i = 0; i < synth.count; i++) {
        unlink(synth.path[i]);
        free(synth.path[i]);
        free(synth.key[i]);
    }
    synth.count = 0;
}

static void synth_remove(void)
{
    synth_clear();
    rmdir(synth.directory);
}

static void synth_directory(void)
{
    const char *base = getenv("TMPDIR");

    if (synth.directory[0] != '\0')
        return;
    snprintf(synth.directory, sizeof(synth.directory), "%s/mcp-parity-XXXXXX",
             base != NULL && *base != '\0' ? base : "/tmp");
    if (mkdtemp(synth.directory) == NULL) {
        synth.directory[0] = '\0';
        fail_msg("no directory for models: %s", strerror(errno));
    }
    atexit(synth_remove);
}

char *synth_output(const char *const *arguments)
{
    const char                *program = getenv("MCP_SYNTH");
    char                      *argv[SYNTH_ARGUMENTS_MAX] = { NULL };
    char                      *text = calloc(1, 65536);
    size_t                     used = 0;
    posix_spawn_file_actions_t actions;
    int                        ends[2], status, count = 0, rc;
    ssize_t                    got;
    pid_t                      pid;

    if (program == NULL || *program == '\0')
        fail_msg("MCP_SYNTH must name the mcp-synth program");
    assert_non_null(text);
    argv[count++] = strdup(program);
    for (size_t i = 0; arguments[i] != NULL; i++) {
        assert_true(count < SYNTH_ARGUMENTS_MAX - 1);
        argv[count++] = strdup(arguments[i]);
    }
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    rc = posix_spawn(&pid, program, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (rc != 0)
        fail_msg("%s does not start: %s", program, strerror(rc));
    while ((got = read(ends[0], text + used, 65535 - used)) > 0)
        used += (size_t)got;
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("mcp-synth failed with status 0x%x: %s", (unsigned)status, text);
    for (int i = 0; i < count; i++)
        free(argv[i]);
    return text;
}

const char *synth_model(const char *shape, const char *quant)
{
    const char *arguments[SYNTH_ARGUMENTS_MAX] = { NULL };
    char        key[256], path[512], name[256], *settings, *rest = NULL, *one;
    size_t      count = 0;

    snprintf(key, sizeof(key), "%s %s", shape, quant);
    for (size_t i = 0; i < synth.count; i++)
        if (strcmp(synth.key[i], key) == 0)
            return synth.path[i];
    synth_directory();
    assert_true(synth.count < SYNTH_MODELS_MAX);
    snprintf(path, sizeof(path), "%s/%zu.gguf", synth.directory, synth.count);
    snprintf(name, sizeof(name), "%s", shape);
    settings = strchr(name, ':');
    if (settings != NULL)
        *settings++ = '\0';
    arguments[count++] = "--shape";
    arguments[count++] = name;
    arguments[count++] = "--quant";
    arguments[count++] = quant;
    for (one = settings != NULL ? strtok_r(settings, ",", &rest) : NULL; one != NULL;
         one = strtok_r(NULL, ",", &rest)) {
        arguments[count++] = "--set";
        arguments[count++] = one;
    }
    arguments[count++] = "-o";
    arguments[count++] = path;
    free(synth_output(arguments));
    synth.key[synth.count] = strdup(key);
    synth.path[synth.count] = strdup(path);
    return synth.path[synth.count++];
}

const char *smollm2_path(void)
{
    const char *path = getenv("MCP_MODEL_SMOLLM2");

    if (path == NULL || *path == '\0') {
        print_message("MCP_MODEL_SMOLLM2 is not set\n");
        skip();
    }
    return path;
}

/* ---- our engine ----------------------------------------------------------------- */

mcp_engine_opts parity_opts(void)
{
    mcp_engine_opts opts = MCP_ENGINE_OPTS_INIT;

    opts.ctx_tokens = 256;
    opts.batch_tokens = 256;
    opts.ubatch_tokens = 256;
    opts.threads = 1;
    opts.device = "cpu";
    opts.gpu_layers = 0;
    opts.flash = MCP_FLASH_ON;
    return opts;
}

mcp_engine_opts parity_opts_threads(void)
{
    mcp_engine_opts opts = parity_opts();

    opts.threads = 2;
    return opts;
}

mcp_model *parity_model_open(const char *path)
{
    mcp_model *model;
    mcp_error  err = { 0 };

    if (mcp_model_open(&model, path, &err) < 0)
        fail_msg("mcp_model_open(%s): %s", path, err.text);
    return model;
}

mcp_engine *parity_engine_open(const mcp_model *model, const mcp_engine_opts *opts)
{
    mcp_engine *engine;
    mcp_error   err = { 0 };

    if (mcp_engine_open(&engine, model, opts, &err) < 0)
        fail_msg("mcp_engine_open(%s): %s", mcp_model_get_info(model)->path, err.text);
    return engine;
}

uint32_t windows_total(const struct windows *windows)
{
    uint32_t total = 0;

    for (uint32_t i = 0; i < windows->count; i++)
        total += windows->sizes[i];
    return total;
}

void windows_random(struct windows *windows, struct rng *rng, uint32_t total, uint32_t largest)
{
    windows->count = 0;
    while (total > 0) {
        uint32_t size = 1 + rng_below(rng, largest);

        if (size > total || windows->count == PARITY_WINDOWS_MAX - 1)
            size = total;
        windows->sizes[windows->count++] = size;
        total -= size;
    }
}

void cuts_random(struct cuts *cuts, struct rng *rng, uint32_t layers)
{
    uint32_t one_in = 1 + rng_below(rng, 6);

    assert_true(layers > 1 && layers <= MCP_CUTS_MAX);
    cuts->count = 0;
    for (uint32_t i = 1; i < layers; i++)
        if (rng_below(rng, one_in) == 0)
            cuts->at[cuts->count++] = i;
    if (cuts->count == 0)
        cuts->at[cuts->count++] = 1 + rng_below(rng, layers - 1);
}

const char *cuts_text(const struct cuts *cuts, char *text, size_t cap)
{
    size_t used = 0;

    text[0] = '\0';
    for (uint32_t i = 0; cuts != NULL && i < cuts->count && used < cap; i++)
        used += (size_t)snprintf(text + used, cap - used, "%s%u", i > 0 ? "," : "", cuts->at[i]);
    return text;
}

int parity_forward(mcp_engine *engine, const mcp_model *model, const struct cuts *cuts,
                   const mcp_window *windows, uint32_t count, float *logits, size_t floats,
                   mcp_error *err)
{
    const mcp_model_info *info = mcp_model_get_info(model);
    uint32_t              stages = cuts != NULL ? cuts->count + 1 : 1, first = 0;
    mcp_window           *stage = calloc(count, sizeof(*stage));
    float                *hidden[2] = { NULL, NULL };
    size_t                tokens = 0;
    int                   rc = 0;

    assert_non_null(stage);
    memcpy(stage, windows, count * sizeof(*stage));
    for (uint32_t i = 0; i < count; i++)
        tokens += windows[i].count;
    for (int i = 0; i < 2 && stages > 1; i++)
        hidden[i] = floats_new(tokens * info->n_embd);
    for (uint32_t s = 0; s < stages && rc >= 0; s++) {
        bool     ends = s + 1 == stages;
        uint32_t last = ends ? info->layers : cuts->at[s];
        float   *out = ends ? logits : hidden[s & 1];
        size_t   offset = 0;

        for (uint32_t i = 0; i < count; i++) {
            if (s > 0) {
                stage[i].tokens = NULL;
                stage[i].hidden = hidden[(s + 1) & 1] + offset;
            }
            stage[i].out = ends ? windows[i].out : MCP_OUT_ALL;
            stage[i].out_index = ends ? windows[i].out_index : NULL;
            stage[i].out_count = ends ? windows[i].out_count : 0;
            offset += (size_t)stage[i].count * info->n_embd;
        }
        rc = mcp_engine_forward(engine, first, last, ends ? MCP_WANT_LOGITS : MCP_WANT_HIDDEN,
                                stage, count, out, ends ? floats : tokens * info->n_embd, err);
        first = last;
    }
    free(hidden[0]);
    free(hidden[1]);
    free(stage);
    return rc;
}

void parity_run(mcp_engine *engine, const mcp_model *model, const struct cuts *cuts, uint32_t seq,
                const int32_t *tokens, const struct windows *windows, float *logits)
{
    size_t    n_vocab = mcp_model_get_info(model)->n_vocab;
    uint32_t  pos = mcp_engine_length(engine, seq, 0), done = 0;
    mcp_error err = { 0 };

    for (uint32_t i = 0; i < windows->count; i++) {
        mcp_window window = { .seq = seq,
                              .pos = pos + done,
                              .count = windows->sizes[i],
                              .tokens = tokens + done,
                              .out = MCP_OUT_ALL };

        if (parity_forward(engine, model, cuts, &window, 1, logits + done * n_vocab,
                           window.count * n_vocab, &err) < 0)
            fail_msg("mcp_engine_forward(seq %u, pos %u, count %u): %s", seq, window.pos,
                     window.count, err.text);
        done += window.count;
    }
}

void parity_trim(mcp_engine *engine, uint32_t seq, uint32_t pos)
{
    mcp_error err = { 0 };

    if (mcp_engine_trim(engine, seq, pos, &err) < 0)
        fail_msg("mcp_engine_trim(seq %u, pos %u): %s", seq, pos, err.text);
}

void *parity_export(mcp_engine *engine, uint32_t seq, uint32_t first, uint32_t last,
                    uint32_t pos_first, uint32_t pos_last, size_t *bytes)
{
    mcp_error err = { 0 };
    size_t    needed = 0;
    void     *block;

    if (mcp_engine_export(engine, seq, first, last, pos_first, pos_last, NULL, &needed, &err) < 0)
        fail_msg("size of export [%u,%u) x [%u,%u): %s", first, last, pos_first, pos_last,
                 err.text);
    assert_true(needed > 0);
    block = malloc(needed);
    assert_non_null(block);
    *bytes = needed;
    if (mcp_engine_export(engine, seq, first, last, pos_first, pos_last, block, bytes, &err) < 0)
        fail_msg("export [%u,%u) x [%u,%u): %s", first, last, pos_first, pos_last, err.text);
    assert_true(*bytes == needed);
    return block;
}

void parity_import(mcp_engine *engine, uint32_t seq, const void *block, size_t bytes)
{
    mcp_error err = { 0 };

    if (mcp_engine_import(engine, seq, block, bytes, &err) < 0)
        fail_msg("import of %zu bytes: %s", bytes, err.text);
}
