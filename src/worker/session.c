/* worker/session.c - sessions from Open to their end.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/table_private.h"

#include "base/fail.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* ---- open ----------------------------------------------------------------------------- */

static struct worker_session *find_session(const struct worker_table *t, const uint8_t *id)
{
    for (uint32_t i = 0; i < t->live_count; i++)
        if (memcmp(t->live[i]->info.id, id, WIRE_SESSION_BYTES) == 0)
            return t->live[i];
    return NULL;
}

static int check_range(const struct worker_limits *l, const struct wire_open *open, mcp_error *err)
{
    if (open->first >= open->last || open->first < l->first || open->last > l->last)
        return base_fail(err, MCP_ERANGE,
                         "layers [%u, %u) are asked for, this worker holds [%u, %u)", open->first,
                         open->last, l->first, l->last);
    if (open->ctx_tokens > l->ctx_tokens)
        return base_fail(err, MCP_ERANGE,
                         "a context of %u positions is asked for, a session holds %u (-c)",
                         open->ctx_tokens, l->ctx_tokens);
    return MCP_OK;
}

static int check_grant(const struct guard_grant *grant, const struct wire_open *open,
                       mcp_error *err)
{
    static const struct {
        const char         *name;
        enum guard_priority needs;
    } classes[TABLE_CLASSES] = { [WIRE_QOS_NORMAL] = { "normal", GUARD_NORMAL },
                                 [WIRE_QOS_REALTIME] = { "realtime", GUARD_REALTIME },
                                 [WIRE_QOS_BATCH] = { "batch", GUARD_BATCH } };

    if (grant->subject[0] == '\0')
        return base_fail(err, MCP_EDENIED, "the certificate or token names no subject");
    if ((uint32_t)open->qos >= TABLE_CLASSES)
        return base_fail(err, MCP_EINVAL, "there is no class %u: normal 0, realtime 1, batch 2",
                         (unsigned)open->qos);
    if (grant->priority < classes[open->qos].needs)
        return base_fail(err, MCP_EDENIED, "the token does not grant the class %s (priority)",
                         classes[open->qos].name);
    if (grant->last != 0 && (open->first < grant->first || open->last > grant->last))
        return base_fail(err, MCP_EDENIED,
                         "layers [%u, %u) are asked for, the token grants [%u, %u)", open->first,
                         open->last, grant->first, grant->last);
    return MCP_OK;
}

/* What the session has used stays with its subject. */
static void remember_tags(struct worker_session *s)
{
    double *tag = s->subject->tag[table_lane_of(s)];

    for (int flow = 0; flow < TABLE_FLOWS; flow++)
        tag[flow] = s->tag[flow] > tag[flow] ? s->tag[flow] : tag[flow];
}

/* The id of `s` was named.  Ids are 128 random bits of the agent's: someone else's cannot be
 * guessed, only stolen, and then the refusal tells nothing but that it cannot be had. */
static int check_known(const struct worker_session *s, const struct wire_open *open,
                       const struct guard_grant *grant, mcp_error *err)
{
    if (strcmp(s->grant.subject, grant->subject) != 0)
        return base_fail(err, MCP_EDENIED, "this session id is not for this subject");
    if (!open->resume)
        return base_fail(err, MCP_EINVAL,
                         "this session id is in use: ask to resume it, or choose another");
    if (open->first != s->info.first || open->last != s->info.last)
        return base_fail(err, MCP_EINVAL,
                         "layers [%u, %u) are asked for, the session runs [%u, %u)", open->first,
                         open->last, s->info.first, s->info.last);
    return MCP_OK;
}

/* What Open and resume set alike. */
static void attach(struct worker_table *t, double now_ms, struct worker_session *s,
                   const struct wire_open *open, const struct guard_grant *grant, void *stream)
{
    uint32_t ctx = open->ctx_tokens != 0 ? open->ctx_tokens : t->limits.ctx_tokens;

    if (ctx > s->info.ctx_tokens)
        s->info.ctx_tokens = ctx;
    s->info.qos = open->qos;
    s->info.stream = stream;
    s->grant = *grant;
    s->active_ms = now_ms;
    memcpy(s->tag, s->subject->tag[table_lane_of(s)], sizeof(s->tag));
    table_rate_set(s->subject, grant->tokens_per_minute, now_ms);
}

static struct worker_session *begin(struct worker_table *t, double now_ms,
                                    const struct wire_open *open, const struct guard_grant *grant,
                                    void *stream)
{
    struct worker_session *s;

    assert(t->unused_count > 0); /* at most sessions_max live, and as many in the batch */
    s = t->unused[--t->unused_count];
    *s = (struct worker_session){ .info = { .first = open->first, .last = open->last },
                                  .subject = table_subject_take(t, grant->subject),
                                  .trim_to = TABLE_NONE,
                                  .live_index = t->live_count,
                                  .ready_index = TABLE_NONE,
                                  .order = ++t->order,
                                  .opened_ms = now_ms,
                                  .decoded_ms = -INFINITY };
    memcpy(s->info.id, open->session, sizeof(s->info.id));
    s->info.grant = &s->grant;
    s->subject->sessions++;
    attach(t, now_ms, s, open, grant, stream);
    t->live[t->live_count++] = s;
    table_slot_take(t, s);
    t->stats.opened++;
    return s;
}

/* A window runs whole or not at all, as its client sees it: what has begun is taken back, and what
 * waits or runs for the old stream is void.  So `length` is where the new stream goes on. */
static void resume(struct worker_table *t, double now_ms, struct worker_session *s,
                   const struct wire_open *open, const struct guard_grant *grant, void *stream)
{
    if (s->info.stream != NULL && s->info.stream != stream)
        table_end_note(t, s->info.stream, TABLE_TAKEN_OVER);
    table_queue_rewind(t, s, s->info.length);
    remember_tags(s);
    attach(t, now_ms, s, open, grant, stream);
    t->stats.resumed++;
}

int worker_table_open(struct worker_table *t, double now_ms, const struct wire_open *open,
                      const struct guard_grant *grant, void *stream, struct worker_session **out,
                      uint32_t *retry_after_ms, mcp_error *err)
{
    struct worker_session *s = find_session(t, open->session);
    int                    rc;

    *out = NULL;
    *retry_after_ms = 0;
    assert(stream != NULL);
    table_note_time(t, now_ms);
    rc = check_range(&t->limits, open, err);
    if (rc == MCP_OK)
        rc = check_grant(grant, open, err);
    if (rc == MCP_OK && s != NULL)
        rc = check_known(s, open, grant, err);
    t->stats.refused_denied += rc == MCP_EDENIED;
    if (rc < 0)
        return rc;
    if (s != NULL) {
        resume(t, now_ms, s, open, grant, stream);
        *out = s;
        return MCP_OK;
    }
    if (t->draining)
        return base_fail(err, MCP_EUNAVAIL, "this worker is draining: it takes no new sessions");
    rc = table_place_make(t, now_ms, grant->subject, retry_after_ms, err);
    t->stats.refused_full += rc == MCP_EBUSY;
    if (rc < 0)
        return rc;
    *out = begin(t, now_ms, open, grant, stream);
    return MCP_OK;
}

const struct worker_session_info *worker_session_info(const struct worker_session *s)
{
    return &s->info;
}

/* ---- the end -------------------------------------------------------------------------- */

void worker_table_detach(struct worker_table *t, double now_ms, struct worker_session *s)
{
    assert(!s->closed);
    table_note_time(t, now_ms);
    if (s->info.stream == NULL)
        return;
    s->info.stream = NULL;
    s->detached_ms = now_ms;
}

void worker_table_close(struct worker_table *t, double now_ms, struct worker_session *s)
{
    assert(!s->closed);
    table_note_time(t, now_ms);
    table_session_end(t, now_ms, s);
}

void table_session_end(struct worker_table *t, double now_ms, struct worker_session *s)
{
    struct worker_session *moved = t->live[--t->live_count];
    double                 life_ms = now_ms - s->opened_ms;

    t->live[s->live_index] = moved;
    moved->live_index = s->live_index;
    table_queue_rewind(t, s, s->info.length);
    remember_tags(s);
    s->subject->sessions--;
    s->subject->left_ms = now_ms;
    s->info.stream = NULL;
    s->closed = true;
    t->life_ms += t->life_ms > 0 ? (life_ms - t->life_ms) / 8 : life_ms;
    if (s->running == NULL)
        table_session_release(t, s);
}

void table_session_release(struct worker_table *t, struct worker_session *s)
{
    table_slot_give(t, s);
    t->unused[t->unused_count++] = s;
}
