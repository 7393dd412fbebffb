/* model/header.h - a bounded walk over a GGUF's metadata before ggml reads it.
 *
 * ggml's reader allocates what the header announces, up to 2^30 elements an array and
 * 1 GiB a string, and a C++ exception in it ends the process.  This walk allocates
 * nothing, and refuses by name what no model needs.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MODEL_HEADER_H
#define MODEL_HEADER_H

#include <mcp/error.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MODEL_KEYS_MAX = 65536,            /* a rich file has a few hundred */
    MODEL_KEY_BYTES_MAX = 1024,        /* the longest in use is about 60 */
    MODEL_STRING_BYTES_MAX = 16 << 20, /* a chat template is a few KB */
    /* All arrays of a file together.  The largest tokenizers in use have 262,144 tokens with
     * scores and types, and 514,906 merges: 1.3 million. */
    MODEL_ELEMENTS_MAX = 1 << 22,
    MODEL_HEADER_BYTES_MAX = 128 << 20, /* keys and values; those tokenizers need 12 MB */
};

/* `bytes` is the mapped file.  MCP_EFORMAT with a sentence that names the key. */
int model_header_check(const uint8_t *data, size_t bytes, const char *path, mcp_error *err);

#endif
