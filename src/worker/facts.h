/* worker/facts.h - what this worker is and holds: fixed once it is open.
 *
 * The weights' fingerprints take about a second a gigabyte on one core, so threads of their own
 * compute them while the engine loads the same bytes.
 *
 * Threads: after worker_facts_finish() everything here is only read, by any thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_FACTS_H
#define WORKER_FACTS_H

#include "engine/engine.h"
#include "wire/describe.h"

struct worker_hashing;

struct worker_facts {
    const struct mcp_model *model; /* borrowed */
    uint32_t                first, last;
    uint32_t                layers, n_embd, n_vocab; /* of the model */
    bool                    whole;                   /* [first, last) is the whole model */
    bool                    even_windows;
    uint8_t                 fingerprint[WIRE_DIGEST_BYTES];
    uint8_t (*weights)[WIRE_DIGEST_BYTES]; /* (last - first); owned */
    struct worker_hashing *hashing;        /* NULL but between begin and finish */
};

/* Start computing the fingerprints of layers [first, last).  A range that the model does not
 * have is not judged here: opening the engine says it better. */
int worker_facts_begin(struct worker_facts *f, const struct mcp_model *model, uint32_t first,
                       uint32_t last, mcp_error *err);

/* Wait for them. */
int worker_facts_finish(struct worker_facts *f, mcp_error *err);

/* At any time after begin, also in between. */
void worker_facts_fini(struct worker_facts *f);

/* SHA-256 over the weights fingerprints of [first, last), which this worker holds. */
int worker_facts_weights(const struct worker_facts *f, uint32_t first, uint32_t last,
                         uint8_t digest[WIRE_DIGEST_BYTES], mcp_error *err);

/* Fill in what does not change.  d->model.weights is borrowed: no wire_describe_fini(). */
void worker_facts_describe(const struct worker_facts *f, struct wire_describe *d);

/* Bit i: codec (wrap) i can be used here. */
uint32_t worker_facts_codecs(const struct worker_facts *f);
uint32_t worker_facts_wraps(void);

#endif
