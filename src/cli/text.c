/* cli/text.c - see text.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/text.h"

#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* ---- buffer ----------------------------------------------------------------------- */

int cli_buffer_splice(struct cli_buffer *buffer, size_t at, size_t gone, const char *bytes,
                      size_t count)
{
    size_t need = buffer->bytes - gone + count + 1;

    if (need > buffer->cap) {
        size_t cap = need + need / 2 + 64;
        char  *text = realloc(buffer->text, cap);
        if (text == NULL) {
            cli_fail("out of memory for %zu bytes of text", need);
            return -1;
        }
        buffer->text = text;
        buffer->cap = cap;
    }
    memmove(buffer->text + at + count, buffer->text + at + gone, buffer->bytes - at - gone);
    if (count > 0)
        memcpy(buffer->text + at, bytes, count);
    buffer->bytes = need - 1;
    buffer->text[buffer->bytes] = '\0';
    return 0;
}

int cli_buffer_add(struct cli_buffer *buffer, const char *bytes, size_t count)
{
    return cli_buffer_splice(buffer, buffer->bytes, 0, bytes, count);
}

void cli_buffer_drop(struct cli_buffer *buffer, size_t count)
{
    if (count > 0)
        (void)cli_buffer_splice(buffer, 0, count, NULL, 0); /* shrinking cannot fail */
}

void cli_buffer_fini(struct cli_buffer *buffer)
{
    free(buffer->text);
    *buffer = (struct cli_buffer){ 0 };
}

/* ---- UTF-8 ------------------------------------------------------------------------ */

/* Bytes of the sequence that `lead` begins, and the bounds of its second byte, which
 * rule out overlong forms, surrogates and code points above U+10FFFF; 0 when it begins
 * none.  (Unicode 15, table 3-7.) */
static size_t sequence_bytes(unsigned char lead, unsigned char *low, unsigned char *high)
{
    *low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    *high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (lead < 0x80)
        return 1;
    if (lead >= 0xC2 && lead <= 0xDF)
        return 2;
    if (lead >= 0xE0 && lead <= 0xEF)
        return 3;
    if (lead >= 0xF0 && lead <= 0xF4)
        return 4;
    return 0;
}

/* How many of the sequence's bytes are there and right; *need is its full length. */
static size_t sequence_match(const char *text, size_t count, size_t *need)
{
    unsigned char low, high;
    size_t        have = 1;

    *need = sequence_bytes((unsigned char)text[0], &low, &high);
    if (*need == 0)
        return 0;
    while (have < *need && have < count) {
        unsigned char c = (unsigned char)text[have];
        if (c < low || c > high)
            break;
        low = 0x80;
        high = 0xBF;
        have++;
    }
    return have;
}

size_t cli_utf8_next(const char *text, size_t count, uint32_t *code)
{
    static const unsigned char lead_bits[5] = { 0, 0x7F, 0x1F, 0x0F, 0x07 };
    size_t                     need, have = sequence_match(text, count, &need);

    if (need == 0 || have < need) {
        *code = have > 0 ? (uint32_t)have : 1;
        return 0;
    }
    *code = (unsigned char)text[0] & lead_bits[need];
    for (size_t i = 1; i < need; i++)
        *code = *code << 6 | ((unsigned char)text[i] & 0x3F);
    return need;
}

size_t cli_utf8_complete(const char *text, size_t count)
{
    /* Only a sequence that begins in the last three bytes can be waiting for more. */
    for (size_t back = 1; back <= 3 && back <= count; back++) {
        size_t need, have = sequence_match(text + count - back, back, &need);
        if (need > back && have == back)
            return count - back;
    }
    return count;
}

int cli_utf8_repair(struct cli_buffer *out, const char *text, size_t count)
{
    size_t   good = 0; /* valid bytes that wait to be copied at once */
    uint32_t code;

    while (count > 0) {
        size_t n = cli_utf8_next(text + good, count, &code);
        if (n > 0) {
            good += n;
            count -= n;
            continue;
        }
        if (cli_buffer_add(out, text, good) < 0 || cli_buffer_add(out, REPLACEMENT, 3) < 0)
            return -1;
        text += good + code;
        good = 0;
        count -= code;
    }
    return cli_buffer_add(out, text, good);
}

/* ---- for terminals ---------------------------------------------------------------- */

int cli_text_tame(struct cli_buffer *out, const char *text, size_t count)
{
    while (count > 0) {
        uint32_t code;
        size_t   n = cli_utf8_next(text, count, &code);
        bool     bad = n == 0 || (code < 0x20 && code != '\n' && code != '\t') ||
                   (code >= 0x7F && code < 0xA0);

        if (cli_buffer_add(out, bad ? REPLACEMENT : text, bad ? 3 : n) < 0)
            return -1;
        n = n == 0 ? code : n;
        text += n;
        count -= n;
    }
    return 0;
}

void cli_text_field(char *out, size_t cap, const char *text)
{
    size_t used = 0, count = strlen(text);

    while (count > 0) {
        uint32_t code;
        size_t   n = cli_utf8_next(text, count, &code);
        bool     bad = n == 0 || code < 0x20 || (code >= 0x7F && code < 0xA0);
        size_t   bytes = bad ? 3 : n;

        if (used + bytes + 1 > cap)
            break;
        memcpy(out + used, bad ? REPLACEMENT : text, bytes);
        used += bytes;
        n = n == 0 ? code : n;
        text += n;
        count -= n;
    }
    out[used] = '\0';
}

const char *cli_bytes_text(char out[CLI_BYTES_TEXT], uint64_t bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double                   value = (double)bytes;
    size_t                   unit = 0;

    while (value >= 1024.0 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024.0;
        unit++;
    }
    snprintf(out, CLI_BYTES_TEXT, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return out;
}

const char *cli_count_text(char out[CLI_BYTES_TEXT], uint64_t count)
{
    if (count >= UINT64_C(1000000000))
        snprintf(out, CLI_BYTES_TEXT, "%.2f B", (double)count / 1e9);
    else if (count >= 1000000)
        snprintf(out, CLI_BYTES_TEXT, "%.2f M", (double)count / 1e6);
    else
        snprintf(out, CLI_BYTES_TEXT, "%llu", (unsigned long long)count);
    return out;
}
