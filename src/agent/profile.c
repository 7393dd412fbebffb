/* agent/profile.c - where profiles are: by name, and in the cache folder by what they are of.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/profile.h"

#include "agent/cache.h"
#include "base/fail.h"
#include "base/sha256.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- folders --------------------------------------------------------------------------------- */

/* The folder of the library or program that this code is in. */
static bool own_folder(char path[PROFILE_PATH_BYTES])
{
    static const char here;
    Dl_info           info;
    char             *slash;

    if (dladdr(&here, &info) == 0 || info.dli_fname == NULL ||
        realpath(info.dli_fname, path) == NULL)
        return false;
    slash = strrchr(path, '/');
    *slash = '\0';
    return true;
}

static int find_in(struct mcp_profile *out, const char *folder, const char *below, const char *name,
                   const struct mcp_model *model, const struct plan_graph *graph, mcp_error *err)
{
    char path[PROFILE_PATH_BYTES];

    if (snprintf(path, sizeof(path), "%s%s/%s.json", folder, below, name) >= PROFILE_PATH_BYTES)
        return MCP_ENOTFOUND;
    return profile_read(out, path, model, graph, err);
}

int profile_find(struct mcp_profile *out, const char *name, const struct mcp_model *model,
                 const struct plan_graph *graph, mcp_error *err)
{
    /* Installed beside the program or library, and in a source tree that it was built in. */
    static const char *const below_own[] = { "/../share/mcp/profiles", "/../../profiles" };
    const char              *env = getenv("MCP_PROFILES");
    char                     folder[PROFILE_PATH_BYTES];
    int                      rc = MCP_ENOTFOUND;

    if (strchr(name, '/') != NULL || strstr(name, ".json") != NULL)
        return profile_read(out, name, model, graph, err);
    if (env != NULL && env[0] != '\0')
        rc = find_in(out, env, "", name, model, graph, err);
    if (rc == MCP_ENOTFOUND && agent_cache_folder(folder, sizeof(folder), "profiles", false))
        rc = find_in(out, folder, "", name, model, graph, err);
    for (size_t i = 0; i < 2 && rc == MCP_ENOTFOUND && own_folder(folder); i++)
        rc = find_in(out, folder, below_own[i], name, model, graph, err);
    return rc != MCP_ENOTFOUND
               ? rc
               : base_fail(err, rc,
                           "there is no profile '%.64s': give a file, or a name in MCP_PROFILES, "
                           "the cache's or the program's folder of profiles",
                           name);
}

/* ---- measured ones --------------------------------------------------------------------------- */

/* The file in the cache for what the key says; false: nothing is kept. */
static bool cache_path(char path[PROFILE_PATH_BYTES], struct base_sha256 *key)
{
    uint8_t digest[BASE_SHA256_BYTES];
    size_t  used;

    if (base_sha256_finish(key, digest, NULL) < 0 ||
        !agent_cache_folder(path, PROFILE_PATH_BYTES, "profiles", true))
        return false;
    used = strlen(path);
    if (used + 2 + 2 * BASE_SHA256_BYTES + sizeof(".json.XXXXXX") > PROFILE_PATH_BYTES)
        return false;
    path[used++] = '/';
    for (size_t i = 0; i < BASE_SHA256_BYTES; i++)
        used += (size_t)snprintf(path + used, PROFILE_PATH_BYTES - used, "%02x", digest[i]);
    snprintf(path + used, PROFILE_PATH_BYTES - used, ".json");
    return true;
}

static void add_text(struct base_sha256 *key, const char *text)
{
    base_sha256_add_string(key, text, strlen(text));
}

/* What decides the speed of a device here, as far as options say it. */
static void add_device(struct base_sha256 *key, const mcp_engine_opts *o, uint32_t threads)
{
    enum { DEVICES_MAX = 32 };
    mcp_device  devices[DEVICES_MAX];
    int         count = engine_devices(devices, DEVICES_MAX);
    const char *name = strcmp(o->device, "auto") == 0 ? engine_device_best() : o->device;

    add_text(key, name);
    for (int i = 0; i < count && i < DEVICES_MAX; i++)
        if (strcmp(devices[i].name, name) == 0)
            add_text(key, devices[i].description);
    base_sha256_add_u64(key, threads);
    base_sha256_add_u64(key, o->kv_k);
    base_sha256_add_u64(key, o->kv_v);
    base_sha256_add_u64(key, o->flash);
    base_sha256_add_u64(key, o->repack != 0);
}

static int begin_key(struct base_sha256 **key, const char *kind, const struct mcp_model *model,
                     uint8_t fingerprint[MCP_FINGERPRINT_BYTES], mcp_error *err)
{
    int rc = model_fingerprint(model, fingerprint, err);

    if (rc < 0)
        return rc;
    *key = base_sha256_new();
    add_text(*key, kind);
    base_sha256_add(*key, fingerprint, MCP_FINGERPRINT_BYTES);
    return MCP_OK;
}

/* A cache that cannot be read costs a measurement, one that cannot be written the next one. */
static bool cached(struct mcp_profile *out, const char *path, const struct mcp_model *model,
                   const struct plan_graph *graph)
{
    return profile_read(out, path, model, graph, NULL) == MCP_OK && out->p.kind == PLAN_MEASURED;
}

static void keep(struct mcp_profile *profile, const char *path)
{
    if (profile_write(profile, path, NULL) == MCP_OK)
        snprintf(profile->path, sizeof(profile->path), "%s", path);
}

int profile_here(struct mcp_profile *out, const struct mcp_model *model,
                 const struct plan_graph *graph, const mcp_engine_opts *opts,
                 enum profile_want want, measure_progress_fn progress, void *ctx, mcp_error *err)
{
    struct mcp_profile  profile = { .threads = opts->threads > 0 ? opts->threads : engine_cores() };
    mcp_engine_opts     even = *opts;
    struct base_sha256 *key;
    char                path[PROFILE_PATH_BYTES];
    double              work[PLAN_LAYERS_MAX];
    bool                keeps;
    int                 rc;

    engine_devices_init();
    even.even_windows = 1; /* as a session that follows a plan opens its engines */
    rc = begin_key(&key, "here", model, profile.fingerprint, err);
    if (rc < 0)
        return rc;
    add_text(key, model->info.quantisation);
    add_device(key, opts, profile.threads);
    keeps = cache_path(path, key);
    if (want != PROFILE_MEASURE && keeps && cached(out, path, model, graph))
        return MCP_OK;
    if (want == PROFILE_FIND)
        return base_fail(err, MCP_ENOTFOUND,
                         "this machine has not been measured with this model; run 'mcp profile'");
    profile_work(graph, work);
    rc = measure_here(&profile.p, model, work, &even, progress, ctx, err);
    if (rc < 0)
        return rc;
    if (keeps)
        keep(&profile, path);
    *out = profile;
    return MCP_OK;
}

int profile_worker(struct mcp_profile *out, const struct mcp_model *model,
                   const struct plan_graph *graph, struct mcp_remote *remote, uint32_t index,
                   enum profile_want want, measure_progress_fn progress, void *ctx, mcp_error *err)
{
    struct mcp_profile  profile = { 0 };
    struct base_sha256 *key;
    mcp_worker_info     info;
    char                path[PROFILE_PATH_BYTES];
    double              work[PLAN_LAYERS_MAX];
    bool                keeps;
    int                 rc = remote_get_worker(remote, index, &info);

    if (rc < 0)
        return base_fail(err, rc, "there is no worker %u", index);
    rc = begin_key(&key, "worker", model, profile.fingerprint, err);
    if (rc < 0)
        return rc;
    add_text(key, info.endpoint);
    add_text(key, info.name);
    add_text(key, info.version);
    add_text(key, info.quantisation);
    base_sha256_add_u64(key, info.first);
    base_sha256_add_u64(key, info.last);
    keeps = cache_path(path, key);
    if (want != PROFILE_MEASURE && keeps && cached(out, path, model, graph))
        return MCP_OK;
    if (want == PROFILE_FIND)
        return base_fail(err, MCP_ENOTFOUND, "worker %s has not been measured with this model",
                         info.endpoint);
    if (memcmp(info.fingerprint, profile.fingerprint, sizeof(profile.fingerprint)) != 0)
        return base_fail(err, MCP_ENOTSUP, "worker %s holds another model (%s)", info.endpoint,
                         info.model);
    profile_work(graph, work);
    rc = measure_worker(&profile.p, model, work, remote, index, progress, ctx, err);
    if (rc < 0)
        return rc;
    if (keeps)
        keep(&profile, path);
    *out = profile;
    return MCP_OK;
}
