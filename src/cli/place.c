/* cli/place.c - see place.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/place.h"

#include "cli/cli.h"

#include <mcp/keys.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- options -------------------------------------------------------------------------- */

static const struct cli_word mode_words[] = { { "auto", CLI_MODE_AUTO },
                                              { "local", CLI_MODE_LOCAL },
                                              { "split", CLI_MODE_SPLIT },
                                              { "cloud", CLI_MODE_CLOUD },
                                              { NULL, 0 } };
static const struct cli_word qos_words[] = { { "normal", MCP_QOS_NORMAL },
                                             { "realtime", MCP_QOS_REALTIME },
                                             { "batch", MCP_QOS_BATCH },
                                             { NULL, 0 } };
static const struct cli_word fallback_words[] = { { "here", 1 }, { "none", 0 }, { NULL, 0 } };

#define AT(member) .at = offsetof(struct cli_place_args, member)

const struct cli_option cli_place_options[CLI_PLACE_OPTIONS] = {
    { .name = "worker",
      .type = CLI_TEXTS,
      AT(workers),
      .value = "HOST:PORT",
      .help = "a worker to use; may be given several times. Without: those of 'mcp join'" },
    { .name = "keys",
      .type = CLI_TEXT,
      AT(keys),
      .value = "DIR",
      .help = "folder with ca.pem, client.pem, client.key (default ~/.config/mcp/keys)" },
    { .name = "token",
      .type = CLI_TEXT,
      AT(token),
      .value = "TOKEN",
      .help = "what 'mcp keys token' printed; without: client.token in the keys folder" },
    { .name = "mode",
      .type = CLI_WORD,
      AT(mode),
      .value = "",
      .fallback = "auto",
      .words = mode_words,
      .help = "split: first and last layers here, so that text stays here; cloud: all on a "
              "worker; auto: split when there are workers" },
    { .name = "codec",
      .type = CLI_TEXT,
      AT(codec),
      .value = "NAME",
      .fallback = "auto",
      .help = "of hidden states on the way: auto, f32, f16, bf16, q8, q8r, q4r" },
    { .name = "wrap",
      .type = CLI_TEXT,
      AT(wrap),
      .value = "NAME",
      .fallback = "none",
      .help = "lossless around them: none, zstd, snappy" },
    { .name = "chunk",
      .type = CLI_INT,
      AT(chunk),
      .value = "N",
      .fallback = "0",
      .min = 0,
      .max = 65536,
      .help = "tokens of a prefill window; 0 = 64 where workers take part, else -b" },
    { .name = "qos",
      .type = CLI_WORD,
      AT(qos),
      .value = "",
      .fallback = "normal",
      .words = qos_words,
      .help = "who goes first on a busy worker; realtime needs a token that grants it" },
    { .name = "mixed-weights",
      .type = CLI_FLAG,
      AT(mixed),
      .help = "a worker's file may be another quantisation of the same model" },
    { .name = "fallback",
      .type = CLI_WORD,
      AT(fallback),
      .value = "",
      .fallback = "here",
      .words = fallback_words,
      .help = "when no worker is left: here = load the missing layers and go on" },
    { .name = "failover-ms",
      .type = CLI_INT,
      AT(failover_ms),
      .value = "MS",
      .fallback = "10000",
      .min = 1,
      .max = 3600000,
      .help = "longest wait for a worker to come back" },
    { .name = "answer-ms",
      .type = CLI_INT,
      AT(answer_ms),
      .value = "MS",
      .fallback = "120000",
      .min = 1,
      .max = 3600000,
      .help = "a worker that is there but does not answer for so long is given up" },
    { .name = "spec",
      .type = CLI_WORD,
      AT(spec.mode),
      .value = "",
      .fallback = "auto",
      .words = cli_spec_words,
      .help = "guess tokens ahead, to get several a round trip; the answer stays the same. auto: "
              "where workers take part and it pays" },
    { .name = "spec-depth",
      .type = CLI_INT,
      AT(spec.depth),
      .value = "N",
      .fallback = "0",
      .min = 0,
      .max = MCP_SPEC_DEPTH_MAX,
      .help = "guesses in a window; 0 = chosen as text goes" },
    { .name = "spec-windows",
      .type = CLI_INT,
      AT(spec.windows),
      .value = "N",
      .fallback = "0",
      .min = 0,
      .max = 32,
      .help = "windows on their way at once; 1 = stop and wait, 0 = chosen as text goes" },
    { .name = "spec-synth",
      .type = CLI_REAL,
      AT(spec.synth),
      .value = "P",
      .fallback = "-1",
      .min = -1,
      .max = 1,
      .help = "for measuring only: guesses are the tokens of --spec-truth, right with probability "
              "P" },
    { .name = "spec-truth",
      .type = CLI_TEXT,
      AT(spec.truth),
      .value = "FILE",
      .help = "for measuring only: token ids that the answer will have, with blanks or commas "
              "between" },
};

#undef AT

const char *cli_mode_name(enum cli_mode mode)
{
    return mode_words[mode].text;
}

/* ---- workers ---------------------------------------------------------------------------- */

/* The addresses that `mcp join` has written, one a line; none is no failure. */
static size_t read_workers(const char *keys, char text[CLI_WORKERS_FILE_BYTES],
                           const char *list[MCP_WORKERS_MAX])
{
    char   path[CLI_PATH_BYTES];
    size_t bytes = 0, count = 0;
    FILE  *f;

    if (snprintf(path, sizeof(path), "%s/workers", keys) >= (int)sizeof(path))
        return 0;
    f = fopen(path, "r");
    if (f == NULL)
        return 0;
    bytes = fread(text, 1, CLI_WORKERS_FILE_BYTES - 1, f);
    (void)fclose(f);
    text[bytes] = '\0';
    for (char *line = strtok(text, "\r\n"); line != NULL && count < MCP_WORKERS_MAX;
         line = strtok(NULL, "\r\n"))
        if (line[0] != '#')
            list[count++] = line;
    return count;
}

int cli_remote_open(mcp_remote **out, const struct cli_place_args *given, bool quiet)
{
    mcp_remote_opts opts = MCP_REMOTE_OPTS_INIT;
    const char     *list[MCP_WORKERS_MAX];
    char            folder[CLI_PATH_BYTES], text[CLI_WORKERS_FILE_BYTES];
    mcp_error       err = { 0 };

    *out = NULL;
    if (given->keys != NULL) {
        opts.keys = given->keys;
    } else {
        if (mcp_keys_folder(folder, sizeof(folder), &err) < 0)
            return quiet ? 0 : (cli_fail("%s", err.text), -1);
        opts.keys = folder;
    }
    if (given->workers.count > MCP_WORKERS_MAX)
        return cli_fail("--worker: %zu workers are more than %d", given->workers.count,
                        MCP_WORKERS_MAX),
               -1;
    for (size_t i = 0; i < given->workers.count; i++)
        list[i] = given->workers.values[i];
    opts.workers = list;
    opts.worker_count = (uint32_t)given->workers.count;
    if (opts.worker_count == 0)
        opts.worker_count = (uint32_t)read_workers(opts.keys, text, list);
    if (opts.worker_count == 0)
        return quiet ? 0 : (cli_fail("no worker: give --worker HOST:PORT, or 'mcp join' one"), -1);
    opts.token = given->token;
    if (mcp_remote_open(out, &opts, &err) == 0)
        return 0;
    if (quiet && given->workers.count == 0) {
        cli_note("%s; everything runs here", err.text);
        return 0;
    }
    cli_fail("%s", err.text);
    return -1;
}

/* ---- stages ------------------------------------------------------------------------------- */

/* First and last layers of a split here, even where a worker holds them all. */
enum { KEEP_LAYERS = 2 };

static void add_stage(struct cli_place *place, uint32_t last, bool here)
{
    uint32_t first = place->stage_count > 0 ? place->stages[place->stage_count - 1].last : 0;

    if (last <= first || place->stage_count == CLI_STAGES_MAX)
        return;
    place->stages[place->stage_count].first = first;
    place->stages[place->stage_count].last = last;
    place->here[place->stage_count++] = here;
}

/* The cuts as given: the outer stages here, each inner one on a worker. */
static int stages_of_cuts(struct cli_place *place, const struct cli_ints *cuts, uint32_t layers)
{
    if (cuts->count < 2)
        return cli_fail("--cuts: a split needs two cuts or more: layers before the first and "
                        "after the last stay here"),
               -1;
    for (size_t i = 0; i <= cuts->count; i++)
        add_stage(place, i < cuts->count ? cuts->values[i] : layers, i == 0 || i == cuts->count);
    return 0;
}

/* As many layers on workers as they hold, each reaching as far as it can; the first and last
 * KEEP_LAYERS (one of very short models) stay here. */
static int stages_of_workers(struct cli_place *place, uint32_t layers)
{
    uint32_t keep = layers > 3 * KEEP_LAYERS ? KEEP_LAYERS : 1;
    uint32_t count = mcp_remote_worker_count(place->remote);
    uint32_t at = UINT32_MAX, end = layers - keep;

    if (layers < 3)
        return cli_fail("a model of %u layers cannot be split", layers), -1;
    for (uint32_t i = 0; i < count; i++) {
        mcp_worker_info info = { .struct_size = sizeof(info) };

        if (mcp_remote_get_worker(place->remote, i, &info) == 0 && info.layers > 0) {
            uint32_t first = info.first > keep ? info.first : keep;

            at = first < at ? first : at;
        }
    }
    if (at >= end)
        return cli_fail("no worker holds a layer between %u and %u", keep, end), -1;
    add_stage(place, at, true);
    for (;;) {
        uint32_t reach = at;

        for (uint32_t i = 0; i < count; i++) {
            mcp_worker_info info = { .struct_size = sizeof(info) };

            if (mcp_remote_get_worker(place->remote, i, &info) == 0 && info.first <= at &&
                info.last > reach)
                reach = info.last < end ? info.last : end;
        }
        if (reach == at)
            break;
        add_stage(place, reach, false);
        at = reach;
    }
    add_stage(place, layers, true);
    return 0;
}

/* ---- opening -------------------------------------------------------------------------------- */

static int open_engine(struct cli_place *place, uint32_t index, const mcp_model *model,
                       mcp_engine_opts opts, uint32_t first, uint32_t last)
{
    mcp_engine_info info;
    mcp_error       err = { 0 };

    opts.first = first;
    opts.last = last;
    opts.beside = index > 0 ? place->engines[0] : NULL;
    if (mcp_engine_open(&place->engines[index], model, &opts, &err) < 0 ||
        mcp_engine_get_info(place->engines[index], &info) < 0)
        return cli_fail("%s", err.text), -1;
    place->weight_bytes += info.weight_bytes;
    place->kv_bytes += info.kv_bytes;
    place->compute_bytes += info.compute_bytes;
    place->ctx_tokens = info.ctx_tokens;
    if (index == 0)
        snprintf(place->devices, sizeof(place->devices), "%s", info.devices);
    return 0;
}

static int open_split(struct cli_place *place, const mcp_model *model, mcp_session_opts *session,
                      mcp_engine_opts *engine, const struct cli_ints *cuts)
{
    uint32_t layers = mcp_model_get_info(model)->layers;
    int      rc = cuts->count > 0 ? stages_of_cuts(place, cuts, layers)
                                  : stages_of_workers(place, layers);
    uint32_t end = place->stage_count - 1;

    if (rc < 0)
        return rc;
    engine->even_windows = 1; /* a replay, and a worker's batches, give the same bits */
    if (open_engine(place, 0, model, *engine, 0, place->stages[0].last) < 0 ||
        open_engine(place, 1, model, *engine, place->stages[end].first, layers) < 0)
        return -1;
    for (uint32_t i = 0; i <= end; i++)
        if (place->here[i])
            place->stages[i].engine = place->engines[i == 0 ? 0 : 1];
    session->stages = place->stages;
    session->stage_count = place->stage_count;
    return 0;
}

static int decide(struct cli_place *place, const struct cli_place_args *given)
{
    bool named = given->workers.count > 0;

    place->mode = (enum cli_mode)given->mode;
    if (place->mode == CLI_MODE_LOCAL) {
        if (named)
            cli_note("--worker has no effect with --mode local");
        return 0;
    }
    if (cli_remote_open(&place->remote, given, place->mode == CLI_MODE_AUTO && !named) < 0)
        return -1;
    if (place->mode == CLI_MODE_AUTO)
        place->mode = place->remote != NULL ? CLI_MODE_SPLIT : CLI_MODE_LOCAL;
    return 0;
}

int cli_place_open(struct cli_place *place, const mcp_model *model, const struct cli_args *args,
                   const struct cli_engine_args *engine, const struct cli_place_args *given,
                   uint32_t ctx_tokens)
{
    mcp_session_opts session = MCP_SESSION_OPTS_INIT;
    mcp_engine_opts  opts = cli_engine_opts(args, engine, ctx_tokens, 1);
    mcp_engine_opts  fallback;
    mcp_error        err = { 0 };
    int              rc;

    if (decide(place, given) < 0)
        return -1;
    session.model = model;
    session.remote = place->remote;
    session.codec = given->codec;
    session.wrap = given->wrap;
    session.chunk_tokens = (uint32_t)given->chunk;
    session.qos = (mcp_qos)given->qos;
    session.mixed_weights = given->mixed;
    session.failover_ms_max = (uint32_t)given->failover_ms;
    session.answer_ms_max = (uint32_t)given->answer_ms;
    if (cli_spec_set(&session, &given->spec, &place->spec_truth) < 0)
        return -1;
    switch (place->mode) {
    case CLI_MODE_CLOUD:
        session.cloud = 1;
        session.ctx_tokens = ctx_tokens;
        if (engine->cuts.count > 0)
            cli_note("--cuts has no effect in cloud mode");
        if (session.spec > MCP_SPEC_NONE)
            cli_note("--spec has no effect in cloud mode");
        break;
    case CLI_MODE_SPLIT:
        if (open_split(place, model, &session, &opts, &engine->cuts) < 0)
            return -1;
        fallback = opts;
        session.fallback = given->fallback != 0 ? &fallback : NULL;
        break;
    default:
        opts.even_windows = session.spec > MCP_SPEC_NONE; /* or guesses would change bits */
        if (open_engine(place, 0, model, opts, 0, 0) < 0)
            return -1;
        session.cuts = engine->cuts.values;
        session.cut_count = (uint32_t)engine->cuts.count;
    }
    if (cli_args_given(args, "n-gpu-layers") && engine->gpu_layers != 0 &&
        strcmp(place->devices, "cpu") == 0)
        cli_note("-ngl/--n-gpu-layers has no effect: all layers run on the CPU");
    rc = mcp_session_open(&place->session, place->mode == CLI_MODE_LOCAL ? place->engines[0] : NULL,
                          &session, &err);
    if (rc < 0)
        return cli_fail("%s", err.text), -1;
    if (place->mode == CLI_MODE_CLOUD)
        place->ctx_tokens = ctx_tokens != 0 ? ctx_tokens : 4096;
    return 0;
}

void cli_place_close(struct cli_place *place)
{
    mcp_session_close(place->session);
    mcp_engine_close(place->engines[1]);
    mcp_engine_close(place->engines[0]);
    mcp_remote_close(place->remote);
    free(place->spec_truth);
    *place = (struct cli_place){ 0 };
}
