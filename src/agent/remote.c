/* agent/remote.c - see remote.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/remote.h"

#include "base/clock.h"
#include "base/fail.h"
#include "base/sha256.h"
#include "guard/token.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONNECT_MS = 5000 };

/* ---- the token ----------------------------------------------------------------------------------- */

/* "Bearer <token>" from the option or from client.token; none is no failure. */
static int load_token(struct mcp_remote *r, const mcp_remote_opts *opts, mcp_error *err)
{
    char    path[4096], text[GUARD_TOKEN_BYTES + 2];
    ssize_t bytes;
    int     fd;

    if (opts->token != NULL) {
        bytes = snprintf(text, sizeof(text), "%s", opts->token);
    } else {
        snprintf(path, sizeof(path), "%s/client.token", opts->keys);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return MCP_OK;
        bytes = read(fd, text, sizeof(text) - 1);
        close(fd);
        if (bytes < 0)
            return base_fail(err, MCP_EIO, "%s cannot be read", path);
        text[bytes] = '\0';
    }
    while (bytes > 0 && (text[bytes - 1] == '\n' || text[bytes - 1] == ' '))
        text[--bytes] = '\0';
    if (bytes > GUARD_TOKEN_BYTES || strcspn(text, "\r\n \t") < (size_t)bytes)
        return base_fail(err, MCP_EDENIED,
                         "the token of %zd bytes is no token: one word of at most %d", bytes,
                         GUARD_TOKEN_BYTES);
    if (bytes > 0 && asprintf(&r->authorization, "Bearer %s", text) < 0) {
        r->authorization = NULL;
        return base_fail(err, MCP_ENOMEM, "token");
    }
    return MCP_OK;
}

void remote_metadata(const struct mcp_remote *r, const char *metadata[4])
{
    metadata[0] = r->authorization != NULL ? "authorization" : NULL;
    metadata[1] = r->authorization;
    metadata[2] = NULL;
    metadata[3] = NULL;
}

/* ---- opening --------------------------------------------------------------------------------------- */

struct start_work {
    struct net_work    work;
    struct mcp_remote *remote;
    bool               stop;
};

static void start_or_stop(struct net_work *work)
{
    struct start_work *s = (struct start_work *)(void *)work;

    for (uint32_t i = 0; i < s->remote->link_count; i++) {
        if (s->stop)
            link_stop(&s->remote->links[i]);
        else
            link_start(&s->remote->links[i]);
    }
    free(s);
}

static int post_links(struct mcp_remote *r, bool stop, mcp_error *err)
{
    struct start_work *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return base_fail(err, MCP_ENOMEM, "connections");
    s->work.run = start_or_stop;
    s->remote = r;
    s->stop = stop;
    net_loop_post(r->loop, &s->work);
    return MCP_OK;
}

static int make_links(struct mcp_remote *r, const mcp_remote_opts *opts, mcp_error *err)
{
    r->links = calloc(opts->worker_count, sizeof(*r->links));
    if (r->links == NULL)
        return base_fail(err, MCP_ENOMEM, "%u workers", opts->worker_count);
    for (uint32_t i = 0; i < opts->worker_count; i++) {
        struct agent_link *link = &r->links[i];
        int                n;

        link->remote = r;
        link->index = i;
        meter_init(&link->meter);
        n = snprintf(link->endpoint, sizeof(link->endpoint), "%s", opts->workers[i]);
        if (n >= (int)sizeof(link->endpoint))
            return base_fail(err, MCP_EINVAL, "worker address %.60s... is longer than %zu bytes",
                             opts->workers[i], sizeof(link->endpoint) - 1);
        memcpy(link->shown.info.endpoint, link->endpoint, sizeof(link->endpoint));
        link->shown.info.struct_size = sizeof(mcp_worker_info);
        r->link_count++;
    }
    return MCP_OK;
}

/* Every first dial has ended, or the time is up, or all that matter are up. */
static void wait_tried(struct mcp_remote *r)
{
    double          until_ms = base_clock_ms() + r->connect_ms;
    struct timespec until = { .tv_sec = (time_t)(until_ms / 1e3) };
    bool            all;

    until.tv_nsec = (long)((until_ms - (double)until.tv_sec * 1e3) * 1e6);
    pthread_mutex_lock(&r->lock);
    do {
        all = true;
        for (uint32_t i = 0; i < r->link_count; i++)
            all = all && r->links[i].shown.tried;
    } while (!all && pthread_cond_timedwait(&r->changed, &r->lock, &until) == 0);
    pthread_mutex_unlock(&r->lock);
}

static int check_any(struct mcp_remote *r, mcp_error *err)
{
    const struct link_shown *worst = &r->links[0].shown; /* there is at least one */
    bool                     up = false, unfit = true;
    int                      rc = MCP_OK;

    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < r->link_count; i++) {
        const struct link_shown *shown = &r->links[i].shown;

        up = up || shown->place.state == PLACE_UP || shown->place.state == PLACE_DRAINING;
        unfit = unfit && shown->place.state == PLACE_UNFIT;
        if (shown->info.problem[0] != '\0' && worst->info.problem[0] == '\0')
            worst = shown;
    }
    if (!up)
        rc = base_fail(
            err, unfit ? MCP_EDENIED : MCP_EUNAVAIL, "worker %s: %s%s", worst->info.endpoint,
            worst->info.problem[0] != '\0' ? worst->info.problem : "no answer in the time given",
            r->link_count > 1 ? " (and none of the others answers)" : "");
    pthread_mutex_unlock(&r->lock);
    return rc;
}

int remote_open(struct mcp_remote **out, const mcp_remote_opts *opts, mcp_error *err)
{
    struct mcp_remote *r = calloc(1, sizeof(*r));
    pthread_condattr_t attr;
    int                rc;

    *out = NULL;
    if (r == NULL)
        return base_fail(err, MCP_ENOMEM, "remote");
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &attr);
    pthread_condattr_destroy(&attr);
    r->connect_ms = opts->connect_ms == 0 ? CONNECT_MS : opts->connect_ms;

    rc = guard_keyring_load(&r->keyring, opts->keys, err);
    if (rc == MCP_OK)
        rc = net_identity_load(&r->identity, opts->keys, "client", r->keyring, err);
    if (rc == MCP_OK)
        rc = load_token(r, opts, err);
    if (rc == MCP_OK)
        rc = make_links(r, opts, err);
    if (rc == MCP_OK)
        rc = net_loop_open(&r->loop, err);
    if (rc == MCP_OK)
        rc = post_links(r, false, err);
    if (rc == MCP_OK) {
        wait_tried(r);
        rc = check_any(r, err);
    }
    if (rc < 0) {
        remote_close(r);
        return rc;
    }
    *out = r;
    return MCP_OK;
}

/* Goodbyes of sessions that have just closed may still be on their way: connections end in
 * order, within this time. */
enum { CLOSE_MS = 1000 };

void remote_close(struct mcp_remote *r)
{
    if (r == NULL)
        return;
    if (r->loop != NULL && post_links(r, true, NULL) == MCP_OK) {
        double          until_ms = base_clock_ms() + CLOSE_MS;
        struct timespec until = { .tv_sec = (time_t)(until_ms / 1e3) };

        until.tv_nsec = (long)((until_ms - (double)until.tv_sec * 1e3) * 1e6);
        pthread_mutex_lock(&r->lock);
        while (r->closed_links < r->link_count &&
               pthread_cond_timedwait(&r->changed, &r->lock, &until) == 0)
            continue;
        pthread_mutex_unlock(&r->lock);
    }
    net_loop_close(r->loop);
    for (uint32_t i = 0; i < r->link_count; i++) {
        wire_pace_fini(&r->links[i].pace);
        meter_fini(&r->links[i].meter);
        free(r->links[i].shown.weights);
    }
    free(r->links);
    free(r->authorization);
    net_identity_unref(r->identity);
    guard_keyring_unref(r->keyring);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

/* ---- what others may know ------------------------------------------------------------------------ */

/* Reading takes the lock of a remote that its caller sees as constant. */
static pthread_mutex_t *lock_of(const struct mcp_remote *r)
{
    return (pthread_mutex_t *)(uintptr_t)&r->lock;
}

int remote_get_worker(const struct mcp_remote *r, uint32_t index, mcp_worker_info *info)
{
    struct plan_link_estimate path;

    if (index >= r->link_count)
        return MCP_ERANGE;
    pthread_mutex_lock(lock_of(r));
    *info = r->links[index].shown.info;
    pthread_mutex_unlock(lock_of(r));
    path = meter_estimate(&r->links[index].meter, false, base_clock_ms());
    info->goodput_mbit = path.mbit[PLAN_UP];
    info->goodput_down_mbit = path.mbit[PLAN_DOWN];
    info->rtt_ms_p50 = path.rtt_ms;
    info->rtt_spread_ms = path.spread_ms;
    return MCP_OK;
}

int remote_link_estimate(struct mcp_remote *r, uint32_t index, double now_ms,
                         struct plan_link_estimate *out)
{
    if (index >= r->link_count)
        return MCP_ERANGE;
    *out = meter_estimate(&r->links[index].meter, true, now_ms);
    return MCP_OK;
}

int remote_weights(const struct mcp_remote *r, uint32_t index, uint32_t first, uint32_t last,
                   uint8_t digest[WIRE_DIGEST_BYTES], mcp_error *err)
{
    const struct link_shown *shown;
    struct base_sha256      *h;
    int                      rc = MCP_OK;

    if (index >= r->link_count)
        return base_fail(err, MCP_ERANGE, "worker %u: the remote has %u", index, r->link_count);
    h = base_sha256_new();
    pthread_mutex_lock(lock_of(r));
    shown = &r->links[index].shown;
    if (shown->weights == NULL || first >= last || first < shown->info.first ||
        last > shown->info.last)
        rc = base_fail(err, MCP_ERANGE, "worker %s holds layers [%u, %u), not [%u, %u)",
                       shown->info.endpoint, shown->info.first, shown->info.last, first, last);
    else
        base_sha256_add(h, shown->weights[first - shown->info.first],
                        (size_t)(last - first) * WIRE_DIGEST_BYTES);
    pthread_mutex_unlock(lock_of(r));
    if (rc < 0)
        (void)base_sha256_finish(h, digest, NULL);
    else
        rc = base_sha256_finish(h, digest, err);
    return rc;
}

void remote_listen(struct mcp_remote *r, struct remote_listener *listener)
{
    pthread_mutex_lock(&r->lock);
    listener->next = r->listeners;
    r->listeners = listener;
    pthread_mutex_unlock(&r->lock);
}

void remote_unlisten(struct mcp_remote *r, struct remote_listener *listener)
{
    pthread_mutex_lock(&r->lock);
    for (struct remote_listener **at = &r->listeners; *at != NULL; at = &(*at)->next) {
        if (*at == listener) {
            *at = listener->next;
            break;
        }
    }
    pthread_mutex_unlock(&r->lock);
}

int remote_choose(struct mcp_remote *r, uint32_t first, uint32_t last, int lost, uint64_t excluded,
                  double now_ms)
{
    struct pipe_place places[MCP_WORKERS_MAX];

    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < r->link_count; i++)
        places[i] = r->links[i].shown.place;
    pthread_mutex_unlock(&r->lock);
    return pipe_places_choose(places, r->link_count, first, last, lost, excluded, now_ms);
}

bool remote_hopeless(struct mcp_remote *r, uint32_t first, uint32_t last, uint64_t excluded)
{
    bool hope = false;

    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < r->link_count; i++) {
        const struct pipe_place *place = &r->links[i].shown.place;
        bool unknown = place->last == 0, holds = place->first <= first && place->last >= last;

        if ((excluded >> i & 1) != 0 || place->state == PLACE_UNFIT || (!unknown && !holds))
            continue;
        /* One failure is the loss itself, the second a dial that failed after it. */
        hope = hope || place->state != PLACE_DOWN || place->failures < 2;
    }
    pthread_mutex_unlock(&r->lock);
    return !hope;
}

uint32_t remote_codecs(struct mcp_remote *r, uint32_t index)
{
    uint32_t codecs;

    pthread_mutex_lock(&r->lock);
    codecs = r->links[index].shown.codecs;
    pthread_mutex_unlock(&r->lock);
    return codecs;
}

void remote_terms(struct mcp_remote *r, uint32_t index, struct pipe_opened *opened)
{
    const struct link_shown *shown = &r->links[index].shown;

    pthread_mutex_lock(&r->lock);
    *opened = (struct pipe_opened){ .windows_max = shown->windows_max > 0 ? shown->windows_max : 1,
                                    .even_windows = shown->even_windows };
    pthread_mutex_unlock(&r->lock);
}
