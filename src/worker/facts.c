/* worker/facts.c - see facts.h.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/facts.h"

#include "base/fail.h"
#include "base/sha256.h"
#include "wire/codec.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A disk is not read faster by more, nor does the page cache need more. */
enum { HASH_THREADS_MAX = 8 };

struct worker_hashing {
    struct worker_facts *facts;
    atomic_uint          next; /* layer to be taken */
    pthread_t            threads[HASH_THREADS_MAX];
    uint32_t             thread_count;
    pthread_mutex_t      lock; /* guards the two below */
    int                  rc;
    mcp_error            error;
};

/* ---- fingerprints ------------------------------------------------------------------- */

static void *hash_layers(void *ctx)
{
    struct worker_hashing *h = ctx;
    struct worker_facts   *f = h->facts;

    for (;;) {
        uint32_t  layer = atomic_fetch_add(&h->next, 1);
        mcp_error error = { 0 };
        int       rc;

        if (layer >= f->last)
            return NULL;
        rc = model_weights_fingerprint(f->model, (int)layer, f->weights[layer - f->first], &error);
        if (rc == MCP_OK)
            continue;
        pthread_mutex_lock(&h->lock);
        h->rc = rc;
        h->error = error;
        pthread_mutex_unlock(&h->lock);
        return NULL;
    }
}

static uint32_t threads_for(uint32_t layers)
{
    long     cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t count = cores < 1 ? 1 : cores > HASH_THREADS_MAX ? HASH_THREADS_MAX : (uint32_t)cores;

    return count < layers ? count : layers;
}

int worker_facts_begin(struct worker_facts *f, const struct mcp_model *model, uint32_t first,
                       uint32_t last, mcp_error *err)
{
    struct worker_hashing *h;
    int                    rc;

    memset(f, 0, sizeof(*f));
    f->model = model;
    f->layers = model->hp.n_layer;
    f->n_embd = model->hp.n_embd;
    f->n_vocab = model->hp.n_vocab;
    f->first = first;
    f->last = last == 0 ? f->layers : last;
    if (f->last > f->layers || f->first >= f->last)
        return MCP_OK;
    f->whole = f->first == 0 && f->last == f->layers;
    rc = model_fingerprint(model, f->fingerprint, err);
    if (rc < 0)
        return rc;

    f->weights = calloc(f->last - f->first, sizeof(*f->weights));
    h = calloc(1, sizeof(*h));
    if (f->weights == NULL || h == NULL) {
        free(h);
        worker_facts_fini(f);
        return base_fail(err, MCP_ENOMEM, "fingerprints of %u layers", f->last - f->first);
    }
    h->facts = f;
    atomic_init(&h->next, f->first);
    pthread_mutex_init(&h->lock, NULL);
    f->hashing = h;
    for (uint32_t want = threads_for(f->last - f->first); h->thread_count < want; h->thread_count++)
        if (pthread_create(&h->threads[h->thread_count], NULL, hash_layers, h) != 0)
            break;
    if (h->thread_count == 0) /* slower, and as good */
        hash_layers(h);
    return MCP_OK;
}

int worker_facts_finish(struct worker_facts *f, mcp_error *err)
{
    struct worker_hashing *h = f->hashing;
    int                    rc;

    if (h == NULL)
        return MCP_OK;
    f->hashing = NULL;
    for (uint32_t i = 0; i < h->thread_count; i++)
        pthread_join(h->threads[i], NULL);
    rc = h->rc;
    if (rc < 0)
        base_fail(err, rc, "%s", h->error.text);
    pthread_mutex_destroy(&h->lock);
    free(h);
    return rc;
}

void worker_facts_fini(struct worker_facts *f)
{
    if (f->hashing != NULL) {
        atomic_store(&f->hashing->next, f->last); /* no further layer */
        worker_facts_finish(f, NULL);
    }
    free(f->weights);
    f->weights = NULL;
}

int worker_facts_weights(const struct worker_facts *f, uint32_t first, uint32_t last,
                         uint8_t digest[WIRE_DIGEST_BYTES], mcp_error *err)
{
    struct base_sha256 *h = base_sha256_new();

    base_sha256_add(h, f->weights[first - f->first], (size_t)(last - first) * WIRE_DIGEST_BYTES);
    return base_sha256_finish(h, digest, err);
}

/* ---- Describe ----------------------------------------------------------------------- */

uint32_t worker_facts_codecs(const struct worker_facts *f)
{
    uint32_t bits = 0;

    for (uint32_t id = 0; id < WIRE_CODECS; id++) {
        const struct wire_codec *codec = wire_codec_by_id(id);

        if (codec != NULL && wire_codec_bytes(codec, 1, f->n_embd) > 0)
            bits |= 1u << id;
    }
    return bits;
}

uint32_t worker_facts_wraps(void)
{
    uint32_t bits = 0;

    for (uint32_t id = 0; id < WIRE_WRAPS; id++)
        if (wire_wrap_name(id) != NULL)
            bits |= 1u << id;
    return bits;
}

static void add_feature(struct wire_describe *d, const char *name)
{
    snprintf(d->features[d->feature_count++], WIRE_TEXT_BYTES, "%s", name);
}

void worker_facts_describe(const struct worker_facts *f, struct wire_describe *d)
{
    const mcp_model_info *info = &f->model->info;

    snprintf(d->version, sizeof(d->version), "%s", mcp_version());
    snprintf(d->model.name, sizeof(d->model.name), "%s", info->name);
    snprintf(d->model.architecture, sizeof(d->model.architecture), "%s", info->architecture);
    snprintf(d->model.quantisation, sizeof(d->model.quantisation), "%s", info->quantisation);
    memcpy(d->model.fingerprint, f->fingerprint, sizeof(d->model.fingerprint));
    d->model.layers = f->layers;
    d->model.n_embd = f->n_embd;
    d->model.n_vocab = f->n_vocab;
    d->model.ctx_trained = info->n_ctx_train;
    d->model.first = f->first;
    d->model.last = f->last;
    d->model.weights = f->weights;
    d->codecs = worker_facts_codecs(f);
    d->wraps = worker_facts_wraps();
    if (f->whole)
        add_feature(d, "generate");
    add_feature(d, "state");
    add_feature(d, "resume");
    add_feature(d, "probe");
}
