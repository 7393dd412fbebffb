/* worker/job.c - see job.h.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/job.h"

#include "worker/stream.h"

#include <stdlib.h>
#include <string.h>

struct worker_job *worker_job_new(struct worker_stream *stream, enum worker_job_kind kind,
                                  const void *data, size_t bytes)
{
    struct worker_job *job = malloc(sizeof(*job) + bytes);

    if (job == NULL)
        return NULL;
    memset(job, 0, sizeof(*job));
    job->kind = kind;
    job->stream = stream;
    job->queue_ms = -1.0;
    job->bytes = bytes;
    job->work.bytes = bytes;
    if (data != NULL)
        memcpy(job->data, data, bytes);
    worker_call_ref(&stream->call);
    return job;
}

void worker_job_link(struct worker_job *job)
{
    struct worker_service *service = job->stream->call.service;

    job->linked = true;
    job->prev = NULL;
    job->next = service->jobs;
    if (job->next != NULL)
        job->next->prev = job;
    service->jobs = job;
    atomic_fetch_add(&job->stream->jobs, 1);
}

static void unlink_job(struct worker_job *job)
{
    struct worker_stream  *stream = job->stream;
    struct worker_service *service = stream->call.service;

    if (!job->linked)
        return;
    if (job->prev != NULL)
        job->prev->next = job->next;
    else
        service->jobs = job->next;
    if (job->next != NULL)
        job->next->prev = job->prev;
    if (job->answer != NULL && stream->answer == job->answer)
        stream->answer = NULL;
    if (job->answer != NULL)
        worker_stream_keep_text(stream, job->answer);
    if (atomic_fetch_sub(&stream->jobs, 1) == 1 && atomic_load(&stream->half_closed))
        worker_call_wake(&stream->call);
}

void worker_job_free(struct worker_job *job)
{
    struct worker_stream *stream;

    if (job == NULL)
        return;
    stream = job->stream;
    unlink_job(job);
    worker_answer_free(job->answer);
    worker_replies_free(job->reply);
    free(job->plain);
    free(job);
    worker_call_unref(&stream->call);
}

bool worker_want_logits(enum wire_want want)
{
    return want == WIRE_WANT_LOGITS || want == WIRE_WANT_LOGITS_LAST;
}

uint32_t worker_job_rows(const struct worker_job *job)
{
    switch (job->want) {
    case WIRE_WANT_HIDDEN:
    case WIRE_WANT_LOGITS: return job->work.count;
    case WIRE_WANT_HIDDEN_LAST:
    case WIRE_WANT_LOGITS_LAST: return 1;
    default: return 0;
    }
}
