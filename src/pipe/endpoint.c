/* pipe/endpoint.c - see endpoint.h.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/endpoint.h"

#include <assert.h>

static struct pipe_send *send_at(struct pipe_endpoint *e, uint32_t i)
{
    return &e->sends[(e->send_first + i) % PIPE_WINDOWS_MAX];
}

struct pipe_send *pipe_endpoint_push(struct pipe_endpoint *e)
{
    struct pipe_send *send;

    assert(e->send_count < PIPE_WINDOWS_MAX);
    send = send_at(e, e->send_count++);
    *send = (struct pipe_send){ 0 };
    return send;
}

struct pipe_send *pipe_endpoint_front(struct pipe_endpoint *e)
{
    return e->send_count > 0 ? send_at(e, 0) : NULL;
}

void pipe_endpoint_pop(struct pipe_endpoint *e)
{
    pipe_block_unref(send_at(e, 0)->answer);
    e->send_first = (e->send_first + 1) % PIPE_WINDOWS_MAX;
    e->send_count--;
}

void pipe_endpoint_fini(struct pipe_endpoint *e)
{
    while (e->send_count > 0)
        pipe_endpoint_pop(e);
    e->role = PIPE_ROLE_FREE;
    e->id = PIPE_NO_ENDPOINT;
}

struct pipe_legacy pipe_endpoint_legacy(const struct pipe_endpoint *e, const struct pipe_journal *j)
{
    return (struct pipe_legacy){ .held = pipe_journal_pos(j, e->next),
                                 .epoch = e->epoch,
                                 .trim_epoch = e->trim_epoch,
                                 .trim_pos = e->trim_pos };
}

uint32_t pipe_endpoint_owes(const struct pipe_endpoint *e)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < e->send_count; i++) {
        const struct pipe_send *send = &e->sends[(e->send_first + i) % PIPE_WINDOWS_MAX];

        count += !send->is_void && !send->done;
    }
    return count;
}

uint64_t pipe_endpoint_done(const struct pipe_endpoint *e)
{
    const struct pipe_send *front = &e->sends[e->send_first];

    return e->send_count > 0 && !front->is_void ? front->first : e->next;
}

void pipe_endpoint_rewind(struct pipe_endpoint *e, uint64_t entry)
{
    for (uint32_t i = e->send_count; i > 0; i--) {
        struct pipe_send *send = send_at(e, i - 1);

        if (send->first < entry)
            break;
        send->is_void = true;
    }
    if (entry < e->next)
        e->next = entry;
}

bool pipe_endpoint_must_trim(const struct pipe_endpoint *e, const struct pipe_journal *j)
{
    assert(e->pos >= pipe_journal_pos(j, e->next));
    return e->trim_due || e->pos > pipe_journal_pos(j, e->next);
}

void pipe_endpoint_trim(struct pipe_endpoint *e, const struct pipe_journal *j)
{
    assert(pipe_endpoint_owes(e) == 0);
    e->pos = pipe_journal_pos(j, e->next);
    e->trim_due = false;
    e->trim_epoch = ++e->epoch;
    e->trim_pos = e->pos;
    while (e->send_count > 0 && send_at(e, e->send_count - 1)->is_void) {
        pipe_block_unref(send_at(e, e->send_count - 1)->answer);
        e->send_count--;
    }
}

int pipe_endpoint_answer(struct pipe_endpoint *e, uint64_t number, struct pipe_block *rows,
                         struct pipe_timing timing)
{
    struct pipe_send *send = NULL;
    bool              skipped = false; /* one that is wanted */

    for (uint32_t i = 0; i < e->send_count && send == NULL; i++) {
        struct pipe_send *s = send_at(e, i);

        if (s->number == number)
            send = s;
        else
            skipped = skipped || (!s->is_void && !s->done);
    }
    if (send == NULL || send->done || send->is_void)
        return 0;
    if (skipped)
        e->broken = "it answered a window before the one that was sent first";
    else if (send->rows > 0 && (rows == NULL || rows->rows != send->rows))
        e->broken = "its answer has another number of rows than was asked for";
    if (e->broken != NULL)
        return MCP_EFORMAT;
    send->done = true;
    send->answer = send->rows > 0 ? pipe_block_ref(rows) : NULL;
    send->timing = timing;
    return 1;
}
