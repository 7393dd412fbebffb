/* model/model.h - an open model: file, shape, tensors, and its tokenizer once asked for.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "model/hparams.h"
#include "model/tensors.h"
#include "model/vocab.h"

#include <pthread.h>

/* Everything but the vocabulary is immutable after opening.  The vocabulary takes
 * longer to parse than the rest together, and a worker of middle layers never needs
 * it: a thread started by model_open() loads it, and the first user joins it. */
struct mcp_model {
    struct model_file    file;
    struct model_hparams hp;
    struct model_tensors tensors;
    mcp_model_info       info;
    char                *tokenizer_name;
    char                *quantisation;

    pthread_mutex_t     lock; /* guards the five below */
    pthread_t           loader;
    int                 loader_running; /* joinable */
    struct model_vocab *vocab;
    int                 vocab_rc;
    mcp_error           vocab_error;
    uint8_t             fingerprint[MCP_FINGERPRINT_BYTES];
    int                 fingerprint_known;
};

int  model_open(struct mcp_model **out, const char *path, mcp_error *err);
void model_close(struct mcp_model *model);

/* The tokenizer, waiting for its loader the first time.  NULL and *err filled when the
 * file has none or a bad one. */
const struct model_vocab *model_get_vocab(const struct mcp_model *model, mcp_error *err);

uint64_t model_range_bytes(const struct mcp_model *model, uint32_t first, uint32_t last);

/* One row of the token embedding as f32: (n_embd).  `token` has been checked. */
void model_embed(const struct model_tensor *embd, int32_t token, float *out);

/* See mcp/model.h. */
int model_fingerprint(const struct mcp_model *model, uint8_t out[MCP_FINGERPRINT_BYTES],
                      mcp_error *err);
int model_weights_fingerprint(const struct mcp_model *model, int layer,
                              uint8_t out[MCP_FINGERPRINT_BYTES], mcp_error *err);
int model_chat_format(const struct mcp_model *model, const mcp_chat_message *messages, size_t count,
                      int open_answer, char *text, size_t cap, mcp_error *err);

#endif
