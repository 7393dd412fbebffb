/* guard/claims.c - see claims.h.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/claims.h"

#include <string.h>

const char *const guard_priority_names[GUARD_PRIORITIES] = {
    [GUARD_BATCH] = "batch",
    [GUARD_NORMAL] = "normal",
    [GUARD_REALTIME] = "realtime",
};

const char *const guard_scope_names[GUARD_SCOPES] = { "infer", "generate", "state", "admin" };

_Static_assert(GUARD_INFER == 1 << 0 && GUARD_GENERATE == 1 << 1 && GUARD_STATE == 1 << 2 &&
                   GUARD_ADMIN == 1 << 3,
               "names stand in the order of the bits");

bool guard_scope_parse(const char *text, uint32_t *scopes, uint32_t *unknown)
{
    size_t bytes = strlen(text);

    *scopes = *unknown = 0;
    if (bytes == 0 || bytes >= GUARD_SCOPE_BYTES)
        return false;
    for (;;) {
        size_t word = strcspn(text, " "), i = 0;

        if (word == 0)
            return false;
        for (size_t c = 0; c < word; c++)
            if (text[c] <= ' ' || text[c] > '~' || text[c] == '"' || text[c] == '\\')
                return false;
        while (i < GUARD_SCOPES && (strlen(guard_scope_names[i]) != word ||
                                    memcmp(guard_scope_names[i], text, word) != 0))
            i++;
        if (i < GUARD_SCOPES)
            *scopes |= 1u << i;
        else
            ++*unknown;
        if (text[word] == '\0')
            return true;
        text += word + 1;
    }
}

int guard_priority_parse(const char *text)
{
    for (int i = 0; i < GUARD_PRIORITIES; i++)
        if (strcmp(guard_priority_names[i], text) == 0)
            return i;
    return -1;
}

bool guard_model_parse(const char *text, uint8_t model[GUARD_MODEL_BYTES])
{
    static const char digits[] = "0123456789abcdef";

    if (strlen(text) != 2 * GUARD_MODEL_BYTES || strspn(text, digits) != 2 * GUARD_MODEL_BYTES)
        return false;
    for (size_t i = 0; i < GUARD_MODEL_BYTES; i++)
        model[i] = (uint8_t)((strchr(digits, text[2 * i]) - digits) << 4 |
                             (strchr(digits, text[2 * i + 1]) - digits));
    return true;
}

/* Bytes of the UTF-8 sequence at `c`, which is terminated; 0 when it is none, or a control
 * character. */
static size_t plain_bytes(const unsigned char *c)
{
    size_t   bytes = *c < 0x80                 ? 1
                     : *c >= 0xC2 && *c < 0xE0 ? 2
                     : *c >= 0xE0 && *c < 0xF0 ? 3
                     : *c >= 0xF0 && *c < 0xF5 ? 4
                                               : 0;
    uint32_t code = bytes <= 1 ? *c : *c & (0x7fu >> bytes);

    for (size_t i = 1; i < bytes; i++) {
        if ((c[i] & 0xC0) != 0x80)
            return 0;
        code = code << 6 | (c[i] & 0x3f);
    }
    if (code < 0x20 || (code >= 0x7f && code < 0xA0) || (code >= 0xD800 && code < 0xE000) ||
        code > 0x10FFFF || (bytes == 3 && code < 0x800) || (bytes == 4 && code < 0x10000))
        return 0;
    return bytes;
}

bool guard_is_subject(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;

    if (text[0] == '\0' || strlen(text) >= GUARD_SUBJECT_BYTES)
        return false;
    while (*c != '\0') {
        size_t bytes = plain_bytes(c);

        if (bytes == 0)
            return false;
        c += bytes;
    }
    return true;
}
