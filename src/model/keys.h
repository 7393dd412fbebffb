/* model/keys.h - typed, range-checked reads of GGUF metadata.
 *
 * ggml's getters abort on a missing key or another type; these answer with a sentence.
 * Names are given without the architecture prefix: "block_count" reads
 * "llama.block_count".
 *
 * Readers return 1 when the key was found and is in range, 0 when it is absent (*value
 * is untouched), negative on failure.  model_keys_need_* also fail when it is absent.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MODEL_KEYS_H
#define MODEL_KEYS_H

#include <gguf.h>
#include <mcp/error.h>
#include <stddef.h>
#include <stdint.h>

struct model_keys {
    const struct gguf_context *gguf;
    const char                *path; /* for sentences */
    const char                *arch;
};

/* Any integer type; an array whose elements all agree counts as one number. */
int model_keys_u32(const struct model_keys *k, const char *name, uint32_t min, uint32_t max,
                   uint32_t *value, mcp_error *err);
int model_keys_need_u32(const struct model_keys *k, const char *name, uint32_t min, uint32_t max,
                        uint32_t *value, mcp_error *err);

/* f32 or f64, finite, min <= value <= max. */
int model_keys_f32(const struct model_keys *k, const char *name, float min, float max, float *value,
                   mcp_error *err);
int model_keys_need_f32(const struct model_keys *k, const char *name, float min, float max,
                        float *value, mcp_error *err);

int model_keys_bool(const struct model_keys *k, const char *name, bool *value, mcp_error *err);

/* *value points into the gguf. */
int model_keys_string(const struct model_keys *k, const char *name, const char **value,
                      mcp_error *err);

/* A string key of the whole file, by its full name; NULL when absent or not a string. */
const char *model_keys_global_string(const struct gguf_context *gguf, const char *key);

/* Bytes that one number of a GGUF type takes; 0 for strings, arrays and types that do not
 * exist (the argument may come straight from a file). */
size_t model_number_bytes(uint32_t type);

#endif
