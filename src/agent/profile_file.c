/* agent/profile_file.c - profiles as JSON files.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/profile.h"

#include "agent/cache.h"
#include "base/fail.h"
#include "guard/json.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FORMAT "mcp-profile 1"

/* ---- reading --------------------------------------------------------------------------------- */

/* A file that is being read: what is wrong with it is told once. */
struct reading {
    const char   *what;
    const json_t *object;
    mcp_error    *err;
    int           rc;
};

__attribute__((format(printf, 2, 3))) static void wrong(struct reading *r, const char *format, ...)
{
    char    text[256];
    va_list args;

    if (r->rc < 0)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    r->rc = base_fail(r->err, MCP_EFORMAT, "%s: %s", r->what, text);
}

static void take_text(struct reading *r, const char *key, char *out, size_t cap)
{
    const char *text = guard_json_text(r->object, key);

    if (text == NULL || strlen(text) >= cap)
        wrong(r, "\"%s\" must be a text of less than %zu bytes", key, cap);
    else
        memcpy(out, text, strlen(text) + 1);
}

static double take_number(struct reading *r, const char *key, double min, double max)
{
    const json_t *value = json_object_get(r->object, key);
    double        number = json_number_value(value);

    if (json_is_number(value) && number >= min && number <= max)
        return number;
    wrong(r, "\"%s\" must be a number from %g to %g", key, min, max);
    return min;
}

static uint64_t take_whole(struct reading *r, const char *key, uint64_t max)
{
    const json_t *value = json_object_get(r->object, key);

    if (json_is_integer(value) && json_integer_value(value) >= 0 &&
        (uint64_t)json_integer_value(value) <= max)
        return (uint64_t)json_integer_value(value);
    wrong(r, "\"%s\" must be a whole number from 0 to %llu", key, (unsigned long long)max);
    return 0;
}

/* (count) numbers of an array, which has exactly as many. */
static void take_row(struct reading *r, const char *key, const json_t *array, double *out,
                     uint32_t count)
{
    if (!json_is_array(array) || json_array_size(array) != count) {
        wrong(r, "\"%s\" must hold %u numbers", key, count);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(array, i);

        if (!json_is_number(value))
            wrong(r, "\"%s\" must hold numbers only", key);
        out[i] = json_number_value(value);
    }
}

/* A grid's axis; what is on it plan_profile_check() knows. */
static uint32_t take_axis(struct reading *r, const char *key, uint32_t *out, uint32_t max)
{
    const json_t *array = json_object_get(r->object, key);
    size_t        count = json_array_size(array);

    if (count < 1 || count > max) {
        wrong(r, "\"%s\" must hold 1 to %u whole numbers", key, max);
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(array, i);
        json_int_t    number = json_integer_value(value);

        if (!json_is_integer(value) || number < 0 || number > UINT32_MAX)
            wrong(r, "\"%s\" must hold whole numbers", key);
        else
            out[i] = (uint32_t)number;
    }
    return (uint32_t)count;
}

static void take_fingerprint(struct reading *r, uint8_t out[MCP_FINGERPRINT_BYTES])
{
    char text[2 * MCP_FINGERPRINT_BYTES + 1] = "";

    take_text(r, "fingerprint", text, sizeof(text));
    for (size_t i = 0; i < MCP_FINGERPRINT_BYTES && r->rc == MCP_OK; i++) {
        unsigned value;

        if (strspn(text, "0123456789abcdef") != sizeof(text) - 1 ||
            sscanf(text + 2 * i, "%2x", &value) != 1)
            wrong(r, "\"fingerprint\" must be %d hexadecimal digits", 2 * MCP_FINGERPRINT_BYTES);
        else
            out[i] = (uint8_t)value;
    }
}

/* Members beyond those of the kind are mistakes: of a name, or of the version. */
static void check_members(struct reading *r, const char *const *known)
{
    void *at = json_object_iter((json_t *)(uintptr_t)r->object);

    for (; at != NULL; at = json_object_iter_next((json_t *)(uintptr_t)r->object, at)) {
        const char *key = json_object_iter_key(at);
        size_t      i = 0;

        while (known[i] != NULL && strcmp(known[i], key) != 0)
            i++;
        if (known[i] == NULL)
            wrong(r, "member \"%.40s\" is not known", key);
    }
}

static void parse_measured(struct reading *r, struct mcp_profile *out)
{
    static const char *const known[] = { "format",   "kind",    "device",      "memory_bytes",
                                         "threads",  "model",   "fingerprint", "quantisation",
                                         "layers",   "n_embd",  "tokens",      "contexts",
                                         "layer_ms", "head_ms", "embed_ms",    "call_ms",
                                         NULL };
    struct plan_profile     *p = &out->p;
    const json_t            *rows = json_object_get(r->object, "layer_ms");

    check_members(r, known);
    p->kind = PLAN_MEASURED;
    take_text(r, "model", p->model, sizeof(p->model));
    take_text(r, "quantisation", p->quantisation, sizeof(p->quantisation));
    take_fingerprint(r, out->fingerprint);
    out->threads = (uint32_t)take_whole(r, "threads", ENGINE_THREADS_MAX);
    p->layers = (uint32_t)take_whole(r, "layers", PLAN_LAYERS_MAX);
    p->n_embd = (uint32_t)take_whole(r, "n_embd", MODEL_EMBD_MAX);
    p->token_count = take_axis(r, "tokens", p->tokens, PLAN_TOKENS_MAX);
    p->context_count = take_axis(r, "contexts", p->contexts, PLAN_CONTEXTS_MAX);
    if (!json_is_array(rows) || json_array_size(rows) != p->token_count)
        wrong(r, "\"layer_ms\" must hold a row for each of \"tokens\"");
    for (uint32_t t = 0; t < p->token_count && r->rc == MCP_OK; t++)
        take_row(r, "layer_ms", json_array_get(rows, t), p->layer_ms[t], p->context_count);
    take_row(r, "head_ms", json_object_get(r->object, "head_ms"), p->head_ms, p->token_count);
    take_row(r, "embed_ms", json_object_get(r->object, "embed_ms"), p->embed_ms, p->token_count);
    p->call_ms = take_number(r, "call_ms", 0.0, 1e6);
    if (r->rc == MCP_OK) {
        mcp_error own = { 0 };

        if (plan_profile_check(p, &own) < 0)
            wrong(r, "%.200s", own.text);
    }
}

static void parse_roofline(struct reading *r, struct mcp_profile *out,
                           const struct mcp_model *model, const struct plan_graph *graph)
{
    static const char *const known[] = { "format",       "kind",        "device",
                                         "memory_bytes", "bytes_per_s", "bytes_share",
                                         "flops_per_s",  "flops_share", "launch_ms",
                                         "source",       NULL };
    struct plan_roof         roof;

    check_members(r, known);
    take_text(r, "source", out->source, sizeof(out->source));
    roof.bytes_per_s = take_number(r, "bytes_per_s", 1e6, 1e16);
    roof.bytes_per_s *= take_number(r, "bytes_share", 0.01, 1.0);
    roof.flops_per_s = take_number(r, "flops_per_s", 1e6, 1e18);
    roof.flops_per_s *= take_number(r, "flops_share", 0.01, 1.0);
    roof.launch_ms = take_number(r, "launch_ms", 0.0, 100.0);
    if (r->rc < 0)
        return;
    snprintf(out->p.model, sizeof(out->p.model), "%.100s", model->info.name);
    snprintf(out->p.quantisation, sizeof(out->p.quantisation), "%.60s", model->info.quantisation);
    out->p.kind = PLAN_ROOFLINE;
    out->p.layers = model->hp.n_layer;
    out->p.n_embd = model->hp.n_embd;
    r->rc = model_fingerprint(model, out->fingerprint, r->err);
    if (r->rc == MCP_OK)
        r->rc = plan_profile_roofline(&out->p, graph, &roof, r->err);
}

/* Times of another model say nothing about this one. */
static int check_model(const struct mcp_profile *p, const char *what, const struct mcp_model *model,
                       mcp_error *err)
{
    uint8_t own[MCP_FINGERPRINT_BYTES];
    int     rc = model_fingerprint(model, own, err);

    if (rc < 0)
        return rc;
    if (memcmp(own, p->fingerprint, sizeof(own)) != 0 || p->p.layers != model->hp.n_layer ||
        p->p.n_embd != model->hp.n_embd)
        return base_fail(err, MCP_ENOTSUP, "%s was measured with another model (%s)", what,
                         p->p.model);
    return MCP_OK;
}

int profile_parse(struct mcp_profile *out, const char *text, size_t bytes, const char *what,
                  const struct mcp_model *model, const struct plan_graph *graph, mcp_error *err)
{
    struct mcp_profile profile = { 0 };
    json_t            *object = NULL;
    struct reading     r = { .what = what, .err = err };
    char               format[24] = "", kind[16] = "";

    r.rc = guard_json_parse(&object, text, bytes, what, err);
    if (r.rc < 0)
        return r.rc;
    r.object = object;
    take_text(&r, "format", format, sizeof(format));
    if (strcmp(format, FORMAT) != 0)
        wrong(&r, "\"format\" must be \"" FORMAT "\"");
    take_text(&r, "kind", kind, sizeof(kind));
    take_text(&r, "device", profile.p.device, sizeof(profile.p.device));
    profile.p.memory_bytes = take_whole(&r, "memory_bytes", (uint64_t)1 << 50);
    if (strcmp(kind, plan_profile_kind_name(PLAN_MEASURED)) == 0)
        parse_measured(&r, &profile);
    else if (strcmp(kind, plan_profile_kind_name(PLAN_ROOFLINE)) == 0)
        parse_roofline(&r, &profile, model, graph);
    else
        wrong(&r, "\"kind\" must be \"measured\" or \"roofline\"");
    if (r.rc == MCP_OK)
        r.rc = check_model(&profile, what, model, err);
    if (r.rc == MCP_OK)
        *out = profile;
    json_decref(object);
    return r.rc;
}

/* At most `cap` bytes of an open file; MCP_EIO. */
static int read_whole(int fd, const char *path, char *text, size_t cap, size_t *bytes,
                      mcp_error *err)
{
    ssize_t got;

    *bytes = 0;
    do {
        got = read(fd, text + *bytes, cap - *bytes);
        *bytes += got > 0 ? (size_t)got : 0;
    } while (got > 0 && *bytes < cap);
    return got >= 0 ? MCP_OK : base_fail(err, MCP_EIO, "%s: %s", path, strerror(errno));
}

int profile_read(struct mcp_profile *out, const char *path, const struct mcp_model *model,
                 const struct plan_graph *graph, mcp_error *err)
{
    char  *text;
    size_t bytes = 0;
    int    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* not even a pipe makes us wait */
    int    rc;

    if (fd < 0)
        return base_fail(err, errno == ENOENT || errno == ENOTDIR ? MCP_ENOTFOUND : MCP_EIO,
                         "%s: %s", path, strerror(errno));
    text = malloc(PROFILE_FILE_BYTES_MAX + 1);
    rc = text == NULL ? base_fail(err, MCP_ENOMEM, "%s", path)
                      : read_whole(fd, path, text, PROFILE_FILE_BYTES_MAX + 1, &bytes, err);
    close(fd);
    if (rc == MCP_OK && bytes > PROFILE_FILE_BYTES_MAX)
        rc = base_fail(err, MCP_EFORMAT, "%s has more than %d bytes, which no profile has", path,
                       PROFILE_FILE_BYTES_MAX);
    if (rc == MCP_OK)
        rc = profile_parse(out, text, bytes, path, model, graph, err);
    if (rc == MCP_OK)
        snprintf(out->path, sizeof(out->path), "%s", path);
    free(text);
    return rc;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* A name out of a model file or a certificate: what is not UTF-8 JSON cannot hold. */
static json_t *name_json(const char *name)
{
    json_t *value = json_string(name);
    char    ascii[PLAN_NAME_BYTES];

    if (value != NULL)
        return value;
    snprintf(ascii, sizeof(ascii), "%s", name);
    for (char *c = ascii; *c != '\0'; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    return json_string(ascii);
}

static json_t *row_json(const double *numbers, uint32_t count)
{
    json_t *row = json_array();

    for (uint32_t i = 0; i < count; i++)
        json_array_append_new(row, json_real(numbers[i]));
    return row;
}

static json_t *axis_json(const uint32_t *numbers, uint32_t count)
{
    json_t *axis = json_array();

    for (uint32_t i = 0; i < count; i++)
        json_array_append_new(axis, json_integer(numbers[i]));
    return axis;
}

char *profile_text(const struct mcp_profile *profile)
{
    const struct plan_profile *p = &profile->p;
    json_t                    *object = json_object(), *rows = json_array();
    char                       hex[2 * MCP_FINGERPRINT_BYTES + 1], *text;

    for (size_t i = 0; i < MCP_FINGERPRINT_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", profile->fingerprint[i]);
    for (uint32_t t = 0; t < p->token_count; t++)
        json_array_append_new(rows, row_json(p->layer_ms[t], p->context_count));

    const struct {
        const char *key;
        json_t     *value;
    } fields[] = {
        { "format", json_string(FORMAT) },
        { "kind", json_string(plan_profile_kind_name(PLAN_MEASURED)) },
        { "device", name_json(p->device) },
        { "memory_bytes", json_integer((json_int_t)p->memory_bytes) },
        { "threads", json_integer(profile->threads) },
        { "model", name_json(p->model) },
        { "fingerprint", json_string(hex) },
        { "quantisation", name_json(p->quantisation) },
        { "layers", json_integer(p->layers) },
        { "n_embd", json_integer(p->n_embd) },
        { "tokens", axis_json(p->tokens, p->token_count) },
        { "contexts", axis_json(p->contexts, p->context_count) },
        { "layer_ms", rows },
        { "head_ms", row_json(p->head_ms, p->token_count) },
        { "embed_ms", row_json(p->embed_ms, p->token_count) },
        { "call_ms", json_real(p->call_ms) },
    };
    bool whole = true;

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        whole = json_object_set_new(object, fields[i].key, fields[i].value) == 0 && whole;
    text = whole ? json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(object);
    return text;
}

int profile_write(const struct mcp_profile *profile, const char *path, mcp_error *err)
{
    char  *text = profile_text(profile);
    size_t bytes;
    int    rc;

    if (text == NULL)
        return base_fail(err, MCP_ENOMEM, "text of a profile");
    bytes = strlen(text);
    text[bytes] = '\n'; /* in place of the terminator */
    /* Nothing in it is secret: made to be shared. */
    rc = agent_cache_write(path, text, bytes + 1, 0644, err);
    free(text);
    return rc;
}
