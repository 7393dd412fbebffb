/* model/keys.c - see keys.h.
 *
 * SPDX-License-Identifier: MIT */
#include "model/keys.h"

#include "base/fail.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { KEY_BYTES = 128 };

static int64_t find(const struct model_keys *k, const char *name, char key[KEY_BYTES])
{
    snprintf(key, KEY_BYTES, "%s.%s", k->arch, name);
    return gguf_find_key(k->gguf, key);
}

static int wrong_type(const struct model_keys *k, const char *key, enum gguf_type type,
                      const char *wanted, mcp_error *err)
{
    return base_fail(err, MCP_EFORMAT, "%s: key %s is of type %s, must be %s", k->path, key,
                     gguf_type_name(type), wanted);
}

/* Element `index` of an integer array, or the scalar (index 0).  false for types that
 * are not integers. */
static bool integer_at(const void *data, enum gguf_type type, size_t index, int64_t *value)
{
    switch (type) {
    case GGUF_TYPE_UINT8: *value = ((const uint8_t *)data)[index]; return true;
    case GGUF_TYPE_INT8: *value = ((const int8_t *)data)[index]; return true;
    case GGUF_TYPE_UINT16: *value = ((const uint16_t *)data)[index]; return true;
    case GGUF_TYPE_INT16: *value = ((const int16_t *)data)[index]; return true;
    case GGUF_TYPE_UINT32: *value = ((const uint32_t *)data)[index]; return true;
    case GGUF_TYPE_INT32: *value = ((const int32_t *)data)[index]; return true;
    case GGUF_TYPE_UINT64: {
        uint64_t wide = ((const uint64_t *)data)[index];

        *value = wide > INT64_MAX ? INT64_MAX : (int64_t)wide;
        return true;
    }
    case GGUF_TYPE_INT64: *value = ((const int64_t *)data)[index]; return true;
    default: return false;
    }
}

int model_keys_u32(const struct model_keys *k, const char *name, uint32_t min, uint32_t max,
                   uint32_t *value, mcp_error *err)
{
    char           key[KEY_BYTES];
    int64_t        id = find(k, name, key);
    enum gguf_type type;
    int64_t        number = 0, other = 0;

    if (id < 0)
        return 0;
    type = gguf_get_kv_type(k->gguf, id);
    if (type == GGUF_TYPE_ARRAY) {
        size_t count = gguf_get_arr_n(k->gguf, id);

        type = gguf_get_arr_type(k->gguf, id);
        if (type == GGUF_TYPE_STRING || count == 0 ||
            !integer_at(gguf_get_arr_data(k->gguf, id), type, 0, &number))
            return base_fail(err, MCP_EFORMAT, "%s: key %s is an array of %s, must be an integer",
                             k->path, key, gguf_type_name(type));
        for (size_t i = 1; i < count; i++) {
            integer_at(gguf_get_arr_data(k->gguf, id), type, i, &other);
            if (other != number)
                return base_fail(err, MCP_ENOTSUP,
                                 "%s: key %s differs between layers (%" PRId64 ", %" PRId64
                                 "), which this build does not run",
                                 k->path, key, number, other);
        }
    } else if (type == GGUF_TYPE_STRING ||
               !integer_at(gguf_get_val_data(k->gguf, id), type, 0, &number)) {
        return wrong_type(k, key, type, "an integer", err);
    }

    if (number < (int64_t)min || number > (int64_t)max)
        return base_fail(err, MCP_EFORMAT, "%s: key %s is %" PRId64 ", must be %u to %u", k->path,
                         key, number, min, max);
    *value = (uint32_t)number;
    return 1;
}

int model_keys_f32(const struct model_keys *k, const char *name, float min, float max, float *value,
                   mcp_error *err)
{
    char           key[KEY_BYTES];
    int64_t        id = find(k, name, key);
    enum gguf_type type;
    float          number;

    if (id < 0)
        return 0;
    type = gguf_get_kv_type(k->gguf, id);
    if (type == GGUF_TYPE_FLOAT32)
        number = gguf_get_val_f32(k->gguf, id);
    else if (type == GGUF_TYPE_FLOAT64)
        number = (float)gguf_get_val_f64(k->gguf, id);
    else
        return wrong_type(k, key, type, "a float", err);

    if (!isfinite(number) || number < min || number > max)
        return base_fail(err, MCP_EFORMAT, "%s: key %s is %g, must be %g to %g", k->path, key,
                         (double)number, (double)min, (double)max);
    *value = number;
    return 1;
}

static int missing(const struct model_keys *k, const char *name, mcp_error *err)
{
    return base_fail(err, MCP_EFORMAT, "%s: key %s.%s is missing", k->path, k->arch, name);
}

int model_keys_need_u32(const struct model_keys *k, const char *name, uint32_t min, uint32_t max,
                        uint32_t *value, mcp_error *err)
{
    int rc = model_keys_u32(k, name, min, max, value, err);

    return rc == 0 ? missing(k, name, err) : rc;
}

int model_keys_need_f32(const struct model_keys *k, const char *name, float min, float max,
                        float *value, mcp_error *err)
{
    int rc = model_keys_f32(k, name, min, max, value, err);

    return rc == 0 ? missing(k, name, err) : rc;
}

int model_keys_bool(const struct model_keys *k, const char *name, bool *value, mcp_error *err)
{
    char           key[KEY_BYTES];
    int64_t        id = find(k, name, key);
    enum gguf_type type;

    if (id < 0)
        return 0;
    type = gguf_get_kv_type(k->gguf, id);
    if (type != GGUF_TYPE_BOOL)
        return wrong_type(k, key, type, "a bool", err);
    /* Read as a byte: a bool object holding 2 would be undefined. */
    *value = *(const int8_t *)gguf_get_val_data(k->gguf, id) != 0;
    return 1;
}

int model_keys_string(const struct model_keys *k, const char *name, const char **value,
                      mcp_error *err)
{
    char           key[KEY_BYTES];
    int64_t        id = find(k, name, key);
    enum gguf_type type;

    if (id < 0)
        return 0;
    type = gguf_get_kv_type(k->gguf, id);
    if (type != GGUF_TYPE_STRING)
        return wrong_type(k, key, type, "a string", err);
    *value = gguf_get_val_str(k->gguf, id);
    return 1;
}

const char *model_keys_global_string(const struct gguf_context *gguf, const char *key)
{
    int64_t id = gguf_find_key(gguf, key);

    if (id < 0 || gguf_get_kv_type(gguf, id) != GGUF_TYPE_STRING)
        return NULL;
    return gguf_get_val_str(gguf, id);
}

size_t model_number_bytes(uint32_t type)
{
    switch (type) {
    case GGUF_TYPE_UINT8:
    case GGUF_TYPE_INT8:
    case GGUF_TYPE_BOOL: return 1;
    case GGUF_TYPE_UINT16:
    case GGUF_TYPE_INT16: return 2;
    case GGUF_TYPE_UINT32:
    case GGUF_TYPE_INT32:
    case GGUF_TYPE_FLOAT32: return 4;
    case GGUF_TYPE_UINT64:
    case GGUF_TYPE_INT64:
    case GGUF_TYPE_FLOAT64: return 8;
    default: return 0;
    }
}
