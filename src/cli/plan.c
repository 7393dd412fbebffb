/* cli/plan.c - `mcp plan`: where a request should run, what it will cost, why the others lose.
 *
 * With real workers, or with supposed ones: a profile by name and a link as stated.  Nothing is
 * loaded beyond what measuring this machine needs, once.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/plan.h"

#include "cli/cli.h"
#include "cli/out.h"
#include "cli/place.h"
#include "cli/policy.h"
#include "cli/progress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUPPOSED_MAX = 16 };

#define AT(member) .at = offsetof(struct plan_args, member)

static const struct cli_word mode_words[] = {
    { "auto", MCP_MODES },       { "local", MCP_MODE_LOCAL },     { "cloud", MCP_MODE_CLOUD },
    { "split", MCP_MODE_SPLIT }, { "prefill", MCP_MODE_PREFILL }, { NULL, 0 }
};

static const struct cli_option request_options[] = {
    { .name = "prompt-tokens",
      .type = CLI_INT,
      AT(prompt_tokens),
      .value = "N",
      .fallback = "1024",
      .min = 1,
      .max = 1 << 24,
      .help = "of the request" },
    { .name = "gen",
      .type = CLI_INT,
      AT(gen_tokens),
      .value = "N",
      .fallback = "128",
      .min = 0,
      .max = 1 << 24,
      .help = "tokens expected of the answer" },
    CLI_POLICY_ROWS(struct plan_args),
    { .name = "quality",
      .type = CLI_REAL,
      AT(quality),
      .value = "PCT",
      .fallback = "1",
      .min = 0,
      .max = 100,
      .help = "most change of perplexity by codec and weights, per cent" },
    { .name = "mixed",
      .type = CLI_FLAG,
      AT(mixed),
      .help = "a worker's weights may be another quantisation of the same model" },
    { .name = "mode",
      .type = CLI_WORD,
      AT(mode),
      .value = "",
      .fallback = "auto",
      .words = mode_words,
      .help = "only plans of this mode" },
    { .name = "codec",
      .type = CLI_TEXT,
      AT(codec),
      .value = "NAME",
      .fallback = "auto",
      .help = "of hidden states: auto, f32, f16, bf16, q8, q8r, q4r" },
    { .name = "chunk",
      .type = CLI_INT,
      AT(chunk),
      .value = "N",
      .fallback = "0",
      .min = 0,
      .max = 4096,
      .help = "tokens of a prefill window; 0 = choose" },
    { .name = "spec",
      .type = CLI_WORD,
      AT(spec),
      .value = "",
      .fallback = "auto",
      .words = cli_spec_words,
      .help = "speculation" },
    { .name = "spec-depth",
      .type = CLI_INT,
      AT(spec_depth),
      .value = "N",
      .fallback = "0",
      .min = 0,
      .max = MCP_SPEC_DEPTH_MAX,
      .help = "guesses in a window; 0 = choose" },
    { .name = "spec-windows",
      .type = CLI_INT,
      AT(spec_windows),
      .value = "N",
      .fallback = "0",
      .min = 0,
      .max = 16,
      .help = "windows in flight; 0 = choose" },
};

static const struct cli_option facts_options[] = {
    { .name = "worker",
      .type = CLI_TEXTS,
      AT(workers),
      .value = "HOST:PORT",
      .help = "workers that may take part; without: those of 'mcp join'" },
    { .name = "keys",
      .type = CLI_TEXT,
      AT(keys),
      .value = "DIR",
      .help = "folder with ca.pem, client.pem, client.key (default ~/.config/mcp/keys)" },
    { .name = "token",
      .type = CLI_TEXT,
      AT(token),
      .value = "TOKEN",
      .help = "without: client.token in the keys folder" },
    { .name = "remote-profile",
      .type = CLI_TEXTS,
      AT(remote_profiles),
      .value = "FILE|NAME",
      .help = "suppose a worker of this profile (rtx3060, a100, h100 come with mcp)" },
    { .name = "local-profile",
      .type = CLI_TEXT,
      AT(local_profile),
      .value = "FILE|NAME",
      .help = "suppose this machine to be so, instead of measuring it" },
    { .name = "rtt",
      .type = CLI_REAL,
      AT(rtt_ms),
      .value = "MS",
      .fallback = "0",
      .min = 0,
      .max = 1e5,
      .help = "round trip to the workers; 0 = as measured" },
    { .name = "up",
      .type = CLI_REAL,
      AT(up_mbit),
      .value = "MBIT",
      .fallback = "0",
      .min = 0,
      .max = 1e6,
      .help = "rate to the workers; 0 = as measured" },
    { .name = "down",
      .type = CLI_REAL,
      AT(down_mbit),
      .value = "MBIT",
      .fallback = "0",
      .min = 0,
      .max = 1e6,
      .help = "rate from the workers; 0 = as measured" },
    { .name = "price",
      .type = CLI_REAL,
      AT(price_hour),
      .value = "SUM",
      .fallback = "0",
      .min = 0,
      .max = 1e9,
      .help = "of an hour of a worker's computing, in any currency" },
};

static const struct cli_option show_options[] = {
    { .name = "json", .type = CLI_FLAG, AT(json), .help = "one JSON object" },
    { .name = "graph",
      .type = CLI_FLAG,
      AT(graph),
      .help = "the model's operations instead: work, groups, widths of cuts" },
    { .name = "dot", .type = CLI_FLAG, AT(dot), .help = "with --graph: for Graphviz" },
    { .name = "tokens",
      .type = CLI_INT,
      AT(tokens),
      .value = "N",
      .fallback = "1",
      .min = 1,
      .max = 1 << 24,
      .help = "with --graph: of the window" },
    { .name = "context",
      .type = CLI_INT,
      AT(context),
      .value = "N",
      .fallback = "0",
      .min = 0,
      .max = 1 << 24,
      .help = "with --graph: positions before it" },
};

#undef AT

/* ---- what was asked for --------------------------------------------------------------- */

static int take_request(mcp_plan_opts *o, const struct plan_args *args)
{
    const struct cli_ints *cuts = &args->engine.cuts;

    o->prompt_tokens = (uint32_t)args->prompt_tokens;
    o->gen_tokens = (uint32_t)args->gen_tokens;
    o->privacy = (mcp_privacy)args->privacy;
    o->optimize = (mcp_optimize)args->optimize;
    o->quality_pct_max = args->quality;
    o->mixed_weights = args->mixed;
    o->even_windows = args->engine.even_windows;
    o->modes = args->mode == MCP_MODES ? 0 : 1u << args->mode;
    o->codec = args->codec;
    o->chunk_tokens = (uint32_t)args->chunk;
    o->spec = (mcp_spec)args->spec;
    o->spec_depth = (uint32_t)args->spec_depth;
    o->spec_windows = (uint32_t)args->spec_windows;
    o->rtt_ms = args->rtt_ms;
    o->up_mbit = args->up_mbit;
    o->down_mbit = args->down_mbit;
    o->price_hour = args->price_hour;
    if (cli_vram_bytes(args->vram, &o->vram_bytes) < 0)
        return -1;
    if (cuts->count != 0 && cuts->count != 2)
        return cli_fail("--cuts: a plan has two cuts, where the middle begins and ends"), -1;
    if (cuts->count == 2) {
        o->cut_first = cuts->values[0];
        o->cut_last = cuts->values[1];
    }
    return 0;
}

/* ---- showing -------------------------------------------------------------------------- */

static const char *time_text(char out[24], double ms)
{
    snprintf(out, 24,
             ms < 100.0     ? "%.1f ms"
             : ms < 10000.0 ? "%.0f ms"
                            : "%.1f s",
             ms < 10000.0 ? ms : ms / 1e3);
    return out;
}

static void print_row(const mcp_plan_info *p)
{
    char a[24], b[24], c[24], up[CLI_BYTES_TEXT], down[CLI_BYTES_TEXT], here[CLI_BYTES_TEXT],
        there[CLI_BYTES_TEXT];

    if (!p->fits) {
        cli_printf("  %-8s %s\n", mcp_mode_name(p->mode), "-");
        return;
    }
    cli_printf("%s %-8s %11s %11s %11s %10s %10s %10s %10s %8.4g\n", p->chosen ? ">" : " ",
               mcp_mode_name(p->mode), time_text(a, p->ttft_ms), time_text(b, p->token_ms),
               time_text(c, p->total_ms), cli_bytes_text(up, (uint64_t)p->bytes_out),
               cli_bytes_text(down, (uint64_t)p->bytes_in),
               cli_bytes_text(here, p->memory_here_bytes),
               cli_bytes_text(there, p->memory_there_bytes), p->price);
}

static void print_terms(const mcp_plan_info *p)
{
    const char *name;
    bool        first = true;
    char        text[24];

    cli_printf("  of %s: ", time_text(text, p->total_ms));
    for (uint32_t i = 0; (name = mcp_plan_term_name(i)) != NULL; i++) {
        if (p->term_ms[i] < 0.005 * p->total_ms)
            continue;
        cli_printf("%s%s %s", first ? "" : ", ", name, time_text(text, p->term_ms[i]));
        first = false;
    }
    cli_printf("\n");
}

static void print_text(const mcp_plan *plan)
{
    mcp_plan_info best = { .struct_size = sizeof(best) }, info = { .struct_size = sizeof(info) };
    const char   *note;

    mcp_plan_get_info(plan, &best);
    cli_printf("  %-8s %11s %11s %11s %10s %10s %10s %10s %8s\n", "mode", "first token",
               "each token", "request", "up", "down", "here", "there", "price");
    for (int mode = 0; mode < MCP_MODES; mode++)
        if (mcp_plan_get_mode(plan, (mcp_mode)mode, &info) == MCP_OK)
            print_row(&info);
    if (best.fits) {
        cli_printf("\n> %s\n  %s\n", best.text, best.why);
        print_terms(&best);
    }
    cli_printf("\n");
    for (int mode = 0; mode < MCP_MODES; mode++)
        if (mcp_plan_get_mode(plan, (mcp_mode)mode, &info) == MCP_OK && !info.chosen)
            cli_printf("  %s%s%s\n", info.why, info.fits ? ": " : "", info.fits ? info.text : "");
    for (uint32_t i = 0; (note = mcp_plan_note(plan, i)) != NULL; i++)
        cli_printf("  note: %s\n", note);
}

static json_t *info_json(const mcp_plan_info *p)
{
    json_t     *object = json_object(), *hops = json_array(), *terms = json_object();
    const char *name;

    for (uint32_t i = 0; i < p->hop_count; i++)
        json_array_append_new(hops, json_pack("{s:o, s:i, s:i}", "worker",
                                              cli_json_string(p->hops[i].name), "first",
                                              (int)p->hops[i].first, "last", (int)p->hops[i].last));
    for (uint32_t i = 0; (name = mcp_plan_term_name(i)) != NULL; i++)
        json_object_set_new(terms, name, cli_json_real(p->term_ms[i]));

    const struct {
        const char *key;
        json_t     *value;
    } fields[] = {
        { "mode", json_string(mcp_mode_name(p->mode)) },
        { "fits", json_boolean(p->fits) },
        { "chosen", json_boolean(p->chosen) },
        { "plan", cli_json_string(p->text) },
        { "why", cli_json_string(p->why) },
        { "hops", hops },
        { "codec", cli_json_string(p->codec) },
        { "chunk_tokens", json_integer(p->chunk_tokens) },
        { "spec_depth", json_integer(p->spec_depth) },
        { "spec_windows", json_integer(p->spec_windows) },
        { "ttft_ms", cli_json_real(p->ttft_ms) },
        { "token_ms", cli_json_real(p->token_ms) },
        { "total_ms", cli_json_real(p->total_ms) },
        { "terms_ms", terms },
        { "bytes_out", cli_json_real(p->bytes_out) },
        { "bytes_in", cli_json_real(p->bytes_in) },
        { "memory_here_bytes", json_integer((json_int_t)p->memory_here_bytes) },
        { "memory_there_bytes", json_integer((json_int_t)p->memory_there_bytes) },
        { "price", cli_json_real(p->price) },
        { "quality_pct", cli_json_real(p->quality_pct) },
    };

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        json_object_set_new(object, fields[i].key, fields[i].value);
    return object;
}

static int print_json(const mcp_plan *plan)
{
    mcp_plan_info info = { .struct_size = sizeof(info) };
    json_t       *modes = json_array(), *notes = json_array(), *chosen;
    const char   *note;

    mcp_plan_get_info(plan, &info);
    chosen = info.fits ? json_string(mcp_mode_name(info.mode)) : json_null();
    for (int mode = 0; mode < MCP_MODES; mode++)
        if (mcp_plan_get_mode(plan, (mcp_mode)mode, &info) == MCP_OK)
            json_array_append_new(modes, info_json(&info));
    for (uint32_t i = 0; (note = mcp_plan_note(plan, i)) != NULL; i++)
        json_array_append_new(notes, cli_json_string(note));
    return cli_print_json(
        json_pack("{s:o, s:o, s:o}", "chosen", chosen, "modes", modes, "notes", notes));
}

/* ---- choosing ------------------------------------------------------------------------- */

/* What the options name, opened; closed by whoever opened the plan. */
struct supposed {
    mcp_remote         *remote;
    mcp_profile        *here;
    mcp_profile        *profiles[SUPPOSED_MAX];
    mcp_supposed_worker workers[SUPPOSED_MAX];
};

static void supposed_fini(struct supposed *s)
{
    for (size_t i = 0; i < SUPPOSED_MAX; i++)
        mcp_profile_close(s->profiles[i]);
    mcp_profile_close(s->here);
    mcp_remote_close(s->remote);
}

static int take_facts(struct supposed *s, mcp_plan_opts *o, const struct plan_args *args)
{
    struct cli_place_args place = { .workers = args->workers,
                                    .keys = args->keys,
                                    .token = args->token };
    size_t                count = args->remote_profiles.count;
    mcp_error             err = { 0 };

    if (count > SUPPOSED_MAX)
        return cli_fail("--remote-profile: %zu workers are more than %d", count, SUPPOSED_MAX), -1;
    if (args->local_profile != NULL &&
        mcp_profile_read(&s->here, args->local_profile, o->model, &err) < 0)
        return cli_fail("--local-profile: %s", err.text), -1;
    for (size_t i = 0; i < count; i++) {
        const char *name = args->remote_profiles.values[i];

        if (mcp_profile_read(&s->profiles[i], name, o->model, &err) < 0)
            return cli_fail("--remote-profile: %s", err.text), -1;
        s->workers[i] = (mcp_supposed_worker){ .name = strpbrk(name, "/.") != NULL ? NULL : name,
                                               .profile = s->profiles[i],
                                               .rtt_ms = args->rtt_ms,
                                               .up_mbit = args->up_mbit,
                                               .down_mbit = args->down_mbit,
                                               .price_hour = args->price_hour };
    }
    /* Supposing is not asking: workers that were joined take part only beside nothing supposed. */
    if ((args->workers.count > 0 || count == 0) &&
        cli_remote_open(&s->remote, &place, args->workers.count == 0) < 0)
        return -1;
    o->remote = s->remote;
    o->here = s->here;
    o->supposed = s->workers;
    o->supposed_count = (uint32_t)count;
    return 0;
}

static int choose(const struct plan_args *args, const mcp_model *model)
{
    static char     what[] = "what is not known yet";
    mcp_engine_opts engine = cli_engine_opts(&args->args, &args->engine, 0, 1);
    mcp_plan_opts   opts = MCP_PLAN_OPTS_INIT;
    struct supposed supposed = { 0 };
    mcp_plan_info   info = { .struct_size = sizeof(info) };
    mcp_plan       *plan = NULL;
    mcp_error       err = { 0 };
    int             status = CLI_FAILED;

    opts.model = model;
    opts.engine = &engine;
    opts.progress = cli_progress;
    opts.progress_ctx = what;
    if (take_request(&opts, args) < 0 || take_facts(&supposed, &opts, args) < 0)
        goto out;
    if (mcp_plan_open(&plan, &opts, &err) < 0) {
        cli_progress_end();
        cli_fail("%s", err.text);
        goto out;
    }
    cli_progress_end();
    status = CLI_OK;
    if (args->json)
        status = print_json(plan);
    else
        print_text(plan);
    mcp_plan_get_info(plan, &info);
    if (!info.fits)
        status = cli_fail("%s", info.why);
out:
    mcp_plan_close(plan);
    supposed_fini(&supposed);
    return status;
}

static int plan_run(struct cli_args *args)
{
    const struct plan_args *own = (const struct plan_args *)args;
    mcp_model              *model;
    int                     status;

    if (own->engine.verbose)
        cli_log_verbose();
    if (!own->graph && own->dot)
        return cli_fail("--dot is about --graph");
    if (!own->graph && (cli_args_given(args, "tokens") || cli_args_given(args, "context")))
        return cli_fail("--tokens and --context are about --graph; a request has --prompt-tokens");
    if (own->dot && own->json)
        return cli_fail("--json or --dot: one of them");
    if (cli_model_open(&model, own->engine.model) < 0)
        return CLI_FAILED;
    status = own->graph ? plan_show_graph(own, model) : choose(own, model);
    mcp_model_close(model);
    return status;
}

const struct cli_verb cli_verb_plan = {
    .name = "plan",
    .summary = "where a request should run, what it will cost, why the others lose",
    .usage = "-m FILE [--worker HOST:PORT] [--remote-profile NAME --rtt MS --up MBIT --down MBIT]",
    .groups = { { "Request", request_options, sizeof(request_options) / sizeof(request_options[0]),
                  0 },
                { "Facts", facts_options, sizeof(facts_options) / sizeof(facts_options[0]), 0 },
                { "Output", show_options, sizeof(show_options) / sizeof(show_options[0]), 0 },
                CLI_ENGINE_GROUP(struct plan_args) },
    .notes = "With --optimize throughput the request's time counts where it occupies a device or "
             "the link.",
    .args_bytes = sizeof(struct plan_args),
    .run = plan_run,
};
