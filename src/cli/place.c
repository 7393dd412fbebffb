/* cli/place.c - see place.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/place.h"

#include "cli/cli.h"
#include "cli/policy.h"
#include "cli/progress.h"

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
              "worker; auto: what is fastest of what --privacy allows" },
    CLI_POLICY_ROWS(struct cli_place_args),
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
      .help = "tokens of a prefill window; 0 = as planned; of --cuts 64; where all is here -b" },
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
    { .name = "draft-model",
      .brief = "md",
      .type = CLI_TEXT,
      AT(spec.draft),
      .value = "FILE",
      .help = "a smaller model of the same family that guesses for --spec auto and draft, here" },
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

/* ---- opening -------------------------------------------------------------------------------- */

static int open_engine(struct cli_place *place, uint32_t index, const mcp_model *model,
                       mcp_engine_opts opts, uint32_t first, uint32_t last)
{
    mcp_error err = { 0 };

    opts.first = first;
    opts.last = last;
    opts.beside = index > 0 ? place->engines[0] : NULL;
    if (mcp_engine_open(&place->engines[index], model, &opts, &err) < 0)
        return cli_fail("%s", err.text), -1;
    return 0;
}

static int open_split(struct cli_place *place, const mcp_model *model, mcp_session_opts *session,
                      mcp_engine_opts *engine, const struct cli_ints *cuts)
{
    uint32_t layers = mcp_model_get_info(model)->layers, end;

    if (stages_of_cuts(place, cuts, layers) < 0)
        return -1;
    end = place->stage_count - 1;
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

/* What the planner is to decide, what is decided already, and its choice. */
static int make_plan(struct cli_place *place, const mcp_session_opts *session,
                     const mcp_engine_opts *engine, const struct cli_place_args *given,
                     const struct cli_request *request)
{
    static char   what[] = "what is not known yet";
    mcp_plan_opts o = MCP_PLAN_OPTS_INIT;
    mcp_plan_info info = { .struct_size = sizeof(info) };
    mcp_error     err = { 0 };
    const char   *note;
    int           rc;

    o.model = session->model;
    o.engine = engine;
    o.remote = place->remote;
    o.progress = cli_progress;
    o.progress_ctx = what;
    o.prompt_tokens = request->prompt_tokens;
    o.gen_tokens = request->gen_tokens;
    o.privacy = (mcp_privacy)given->privacy;
    o.optimize = (mcp_optimize)given->optimize;
    o.mixed_weights = given->mixed;
    o.even_windows = engine->even_windows;
    o.codec = given->codec;
    o.chunk_tokens = session->chunk_tokens;
    o.spec = session->spec;
    o.spec_depth = session->spec_depth;
    o.spec_windows = session->spec_windows;
    o.modes = 1u << MCP_MODE_SPLIT;
    if (place->mode == CLI_MODE_AUTO)
        o.modes |= 1u << MCP_MODE_LOCAL | 1u << MCP_MODE_CLOUD;
    if (cli_vram_bytes(given->vram, &o.vram_bytes) < 0)
        return -1;
    rc = mcp_plan_open(&place->plan, &o, &err);
    cli_progress_end();
    if (rc < 0)
        return cli_fail("%s", err.text), -1;
    for (uint32_t i = 0; (note = mcp_plan_note(place->plan, i)) != NULL; i++)
        cli_note("%s", note);
    mcp_plan_get_info(place->plan, &info);
    if (!info.fits)
        return cli_fail("%s", info.why), -1;
    place->mode = info.mode == MCP_MODE_LOCAL   ? CLI_MODE_LOCAL
                  : info.mode == MCP_MODE_CLOUD ? CLI_MODE_CLOUD
                                                : CLI_MODE_SPLIT;
    return 0;
}

/* --privacy and --mode against each other, and the workers that may take part. */
static int decide(struct cli_place *place, const struct cli_args *args,
                  const struct cli_place_args *given)
{
    bool named = given->workers.count > 0, asked = cli_args_given(args, "privacy");

    place->mode = (enum cli_mode)given->mode;
    if (given->privacy == MCP_PRIVACY_STRICT &&
        (place->mode == CLI_MODE_SPLIT || place->mode == CLI_MODE_CLOUD))
        return cli_fail("--privacy strict lets nothing leave: --mode %s needs a worker",
                        cli_mode_name(place->mode)),
               -1;
    if (asked && given->privacy == MCP_PRIVACY_SPLIT && place->mode == CLI_MODE_CLOUD)
        return cli_fail("--privacy split keeps tokens here: --mode cloud needs --privacy open"), -1;
    if (given->privacy == MCP_PRIVACY_STRICT)
        place->mode = CLI_MODE_LOCAL;
    if (place->mode == CLI_MODE_LOCAL) {
        if (named)
            cli_note("--worker has no effect with %s",
                     given->privacy == MCP_PRIVACY_STRICT ? "--privacy strict" : "--mode local");
        return 0;
    }
    if (cli_remote_open(&place->remote, given, place->mode == CLI_MODE_AUTO && !named) < 0)
        return -1;
    if (place->remote == NULL)
        place->mode = CLI_MODE_LOCAL;
    return 0;
}

static void take_session_opts(mcp_session_opts *session, const struct cli_place *place,
                              const mcp_model *model, const struct cli_place_args *given)
{
    session->model = model;
    session->remote = place->remote;
    session->codec = given->codec;
    session->wrap = given->wrap;
    session->chunk_tokens = (uint32_t)given->chunk;
    session->qos = (mcp_qos)given->qos;
    session->mixed_weights = given->mixed;
    session->failover_ms_max = (uint32_t)given->failover_ms;
    session->answer_ms_max = (uint32_t)given->answer_ms;
}

/* Engines, stages or a plan, as the mode says. */
static int lay_out(struct cli_place *place, mcp_session_opts *session, mcp_engine_opts *opts,
                   const struct cli_engine_args *engine, const struct cli_place_args *given,
                   const struct cli_request *request)
{
    if (place->mode == CLI_MODE_CLOUD) {
        session->cloud = 1;
        session->ctx_tokens = request->ctx_tokens;
        if (engine->cuts.count > 0)
            cli_note("--cuts has no effect in cloud mode");
        return 0;
    }
    if (place->mode == CLI_MODE_LOCAL) {
        opts->even_windows = session->spec > MCP_SPEC_NONE; /* or guesses would change bits */
        session->cuts = engine->cuts.values;
        session->cut_count = (uint32_t)engine->cuts.count;
        return open_engine(place, 0, session->model, *opts, 0, 0);
    }
    if (engine->cuts.count > 0) {
        place->mode = CLI_MODE_SPLIT;
        return open_split(place, session->model, session, opts, &engine->cuts);
    }
    if (make_plan(place, session, opts, given, request) < 0)
        return -1;
    session->plan = place->plan;
    return 0;
}

int cli_place_open(struct cli_place *place, const mcp_model *model, const struct cli_args *args,
                   const struct cli_engine_args *engine, const struct cli_place_args *given,
                   const struct cli_request *request)
{
    mcp_session_opts  session = MCP_SESSION_OPTS_INIT;
    mcp_engine_opts   opts = cli_engine_opts(args, engine, request->ctx_tokens, 1);
    mcp_session_stats stats = { .struct_size = sizeof(stats) };
    mcp_error         err = { 0 };
    bool              whole;

    if (decide(place, args, given) < 0)
        return -1;
    take_session_opts(&session, place, model, given);
    if (cli_spec_set(&session, &given->spec, &place->spec_truth) < 0 ||
        lay_out(place, &session, &opts, engine, given, request) < 0)
        return -1;
    if (given->fallback != 0 && place->remote != NULL && !session.cloud)
        session.fallback = &opts;
    if (cli_spec_open(&place->spec, &session, &given->spec, &opts) < 0)
        return -1;
    whole = place->mode == CLI_MODE_LOCAL && place->plan == NULL;
    if (mcp_session_open(&place->session, whole ? place->engines[0] : NULL, &session, &err) < 0)
        return cli_fail("%s", err.text), -1;
    mcp_session_get_stats(place->session, &stats);
    place->ctx_tokens = stats.ctx_tokens;
    if (cli_args_given(args, "n-gpu-layers") && engine->gpu_layers != 0 &&
        strcmp(stats.devices, "cpu") == 0)
        cli_note("-ngl/--n-gpu-layers has no effect: all layers run on the CPU");
    return 0;
}

void cli_place_close(struct cli_place *place)
{
    mcp_session_close(place->session);
    cli_spec_close(&place->spec);
    mcp_engine_close(place->engines[1]);
    mcp_engine_close(place->engines[0]);
    mcp_plan_close(place->plan);
    mcp_remote_close(place->remote);
    free(place->spec_truth);
    *place = (struct cli_place){ 0 };
}
