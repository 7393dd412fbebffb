/* cluster_common.c - see cluster_common.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cluster_common.h"

#include <stdio.h>
#include <stdlib.h>

mcp_worker *cluster_worker(const struct cluster *c, uint32_t first, uint32_t last, uint32_t seqs)
{
    mcp_worker_opts opts = MCP_WORKER_OPTS_INIT;
    mcp_engine_opts engine = MCP_ENGINE_OPTS_INIT;
    mcp_worker     *worker = NULL;
    mcp_error       err = { 0 };

    engine.first = first;
    engine.last = last;
    engine.ctx_tokens = c->ctx_tokens;
    engine.seqs = seqs;
    engine.threads = 1;
    engine.batch_tokens = engine.ubatch_tokens = c->batch_tokens;
    engine.device = "cpu";
    opts.listen = "127.0.0.1:0";
    opts.keys = c->keys;
    opts.engine = &engine;
    if (mcp_worker_open(&worker, c->model, &opts, &err) < 0)
        fail_msg("%s", err.text);
    return worker;
}

mcp_remote *cluster_remote(const struct cluster *c, mcp_worker *const *workers, uint32_t count)
{
    const char     *addresses[CLUSTER_WORKERS_MAX];
    mcp_remote_opts opts = MCP_REMOTE_OPTS_INIT;
    mcp_remote     *remote = NULL;
    mcp_error       err = { 0 };

    assert_true(count <= CLUSTER_WORKERS_MAX);
    for (uint32_t i = 0; i < count; i++)
        addresses[i] = mcp_worker_address(workers[i]);
    opts.keys = c->keys;
    opts.workers = addresses;
    opts.worker_count = count;
    if (mcp_remote_open(&remote, &opts, &err) < 0)
        fail_msg("%s", err.text);
    return remote;
}

mcp_session *cluster_session(const mcp_session_opts *opts)
{
    mcp_session *session = NULL;
    mcp_error    err = { 0 };

    if (mcp_session_open(&session, NULL, opts, &err) < 0)
        fail_msg("%s", err.text);
    return session;
}

mcp_session *cluster_session_here(const struct cluster *c, uint32_t chunk)
{
    const mcp_stage  stage = { 0, CLUSTER_LAYERS, c->engine };
    mcp_session_opts opts = MCP_SESSION_OPTS_INIT;

    opts.stages = &stage;
    opts.stage_count = 1;
    opts.chunk_tokens = chunk;
    return cluster_session(&opts);
}

uint32_t cluster_prompt(const struct cluster *c, const char *text, int32_t *ids, uint32_t cap)
{
    char                   chat[8192];
    mcp_error              err = { 0 };
    const mcp_chat_message message = { .role = "user", .content = text };
    int count, bytes = mcp_model_chat_format(c->model, &message, 1, 1, chat, sizeof(chat), &err);

    if (bytes < 0)
        fail_msg("%s", err.text);
    count = mcp_model_tokenize(c->model, chat, (size_t)bytes,
                               MCP_TOKENIZE_SPECIAL | MCP_TOKENIZE_BOS, ids, cap, &err);
    if (count < 0 || (uint32_t)count > cap)
        fail_msg("prompt \"%.40s\": %d tokens: %s", text, count, err.text);
    return (uint32_t)count;
}

void cluster_same_tokens(const int32_t *expected, uint32_t expected_count, const int32_t *actual,
                         uint32_t actual_count, const char *what)
{
    uint32_t i = 0;

    while (i < expected_count && i < actual_count && expected[i] == actual[i])
        i++;
    if (i < expected_count || i < actual_count)
        fail_msg("%s: token %u of %u differs", what, i, expected_count);
}

int cluster_begin(struct cluster *c, const char *name, uint32_t first, uint32_t last, uint32_t seqs)
{
    mcp_engine_opts opts = MCP_ENGINE_OPTS_INIT;
    mcp_error       err = { 0 };

    if (getenv("MCP_MODEL_SMOLLM2") == NULL)
        return 0;
    snprintf(c->folder, sizeof(c->folder), "%s/mcp-%s-XXXXXX",
             getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp", name);
    if (mkdtemp(c->folder) == NULL)
        return -1;
    snprintf(c->keys, sizeof(c->keys), "%s/keys", c->folder);
    opts.ctx_tokens = c->ctx_tokens;
    opts.seqs = 2;
    opts.threads = 1;
    opts.device = "cpu";
    opts.even_windows = 1;
    if (mcp_keys_init(c->keys, NULL, &err) < 0 ||
        mcp_model_open(&c->model, smollm2_path(), &err) < 0 ||
        mcp_engine_open(&c->engine, c->model, &opts, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    c->worker = cluster_worker(c, first, last, seqs);
    c->remote = cluster_remote(c, &c->worker, 1);
    return 0;
}

int cluster_end(struct cluster *c)
{
    char command[600];

    mcp_remote_close(c->remote);
    mcp_worker_close(c->worker);
    mcp_engine_close(c->engine);
    mcp_model_close(c->model);
    snprintf(command, sizeof(command), "rm -rf '%s'", c->folder);
    return c->folder[0] != '\0' && system(command) != 0 ? -1 : 0;
}
