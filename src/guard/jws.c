/* guard/jws.c - see jws.h.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/jws.h"

#include "base/fail.h"
#include "guard/base64.h"
#include "guard/json.h"

#include <stdio.h>
#include <string.h>

enum { SEGMENTS = 3, PART_BYTES = GUARD_TOKEN_BYTES / 4 * 3 };

struct segment {
    const char *text;
    size_t      chars;
};

static const char *const segment_names[SEGMENTS] = { "header", "payload", "signature" };

/* Cut at the dots. */
static int split(struct segment segments[SEGMENTS], const char *token, size_t bytes, mcp_error *err)
{
    size_t      count = 1;
    const char *end = token + bytes;

    if (bytes > GUARD_TOKEN_BYTES)
        return guard_refuse(err, "it has %zu bytes, at most %d are accepted", bytes,
                            GUARD_TOKEN_BYTES);
    for (const char *c = token; c < end; c++)
        count += *c == '.';
    if (count != SEGMENTS)
        return guard_refuse(err, "it has %zu segments, not header.payload.signature", count);
    for (size_t i = 0; i < SEGMENTS; i++) {
        const char *dot = memchr(token, '.', (size_t)(end - token));

        segments[i].text = token;
        segments[i].chars = (size_t)((dot != NULL ? dot : end) - token);
        token = dot != NULL ? dot + 1 : end;
        if (segments[i].chars == 0)
            return guard_refuse(err, "its %s is empty", segment_names[i]);
    }
    return MCP_OK;
}

static int decode(uint8_t *bytes, const struct segment *segment, const char *name, mcp_error *err)
{
    if (!guard_base64_decode(bytes, segment->text, segment->chars))
        return guard_refuse(err,
                            "its %s is not base64url as it must be: no padding, no blanks, "
                            "unused bits zero",
                            name);
    return MCP_OK;
}

/* A JSON segment.  What is wrong with it is a refusal too, but for want of memory. */
static int parse(json_t **out, const struct segment *segment, const char *name, mcp_error *err)
{
    uint8_t   bytes[PART_BYTES];
    mcp_error why = { 0 };
    int       rc = decode(bytes, segment, name, err);

    *out = NULL;
    if (rc < 0)
        return rc;
    rc = guard_json_parse(out, (const char *)bytes, guard_base64_bytes(segment->chars), name, &why);
    if (rc == MCP_ENOMEM)
        return base_fail(err, rc, "%s", why.text);
    return rc < 0 ? guard_refuse(err, "its %s", why.text) : MCP_OK;
}

/* Header members by which a token would choose its own key or rules. */
static const char *const forbidden[] = { "crit", "jku", "jwk", "x5u", "x5c" };

/* The key that the header names, if the header says nothing that a header may not say. */
static int choose_key(const struct guard_key **out, const struct guard_keyring *ring,
                      const json_t *header, mcp_error *err)
{
    const char             *type = guard_json_text(header, "typ"), *alg, *kid;
    const struct guard_key *key;

    for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++)
        if (json_object_get(header, forbidden[i]) != NULL)
            return guard_refuse(err, "its header has %s, which is never followed", forbidden[i]);
    if (type == NULL || strcmp(type, "at+jwt") != 0)
        return guard_refuse(err, "its header's typ is not \"at+jwt\"");
    kid = guard_json_text(header, "kid");
    if (kid == NULL)
        return guard_refuse(err, "its header has no kid to say which key signed it");
    key = guard_keyring_find(ring, kid);
    if (key == NULL)
        return guard_refuse(err, "its kid names no token key of this keys folder (%zu are there)",
                            ring->key_count);
    alg = guard_json_text(header, "alg");
    if (alg == NULL || strcmp(alg, guard_key_algorithm(key->key)) != 0)
        return guard_refuse(err, "its alg is '%.16s', but %s is a key for %s",
                            alg != NULL ? alg : "", key->file, guard_key_algorithm(key->key));
    *out = key;
    return MCP_OK;
}

static int check_signature(const struct guard_key *key, const struct segment segments[SEGMENTS],
                           mcp_error *err)
{
    uint8_t     signature[PART_BYTES];
    const char *signed_text = segments[0].text;
    size_t      signed_bytes = segments[0].chars + 1 + segments[1].chars;
    int         rc = decode(signature, &segments[2], segment_names[2], err);

    if (rc < 0)
        return rc;
    if (guard_base64_bytes(segments[2].chars) != GUARD_SIGNATURE_BYTES)
        return guard_refuse(err, "its signature has %zu bytes, not %d",
                            guard_base64_bytes(segments[2].chars), GUARD_SIGNATURE_BYTES);
    if (!guard_key_verify(key->key, signed_text, signed_bytes, signature))
        return guard_refuse(err, "its signature is not that of %s", key->file);
    return MCP_OK;
}

int guard_jws_open(json_t **payload, const struct guard_keyring *ring, const char *token,
                   size_t bytes, mcp_error *err)
{
    struct segment          segments[SEGMENTS];
    const struct guard_key *key = NULL;
    json_t                 *header = NULL;
    int                     rc;

    *payload = NULL;
    if (ring->key_count == 0)
        return guard_refuse(err, "this keys folder has no token.pub");
    rc = split(segments, token, bytes, err);
    if (rc == MCP_OK)
        rc = parse(&header, &segments[0], segment_names[0], err);
    if (rc == MCP_OK)
        rc = choose_key(&key, ring, header, err);
    if (rc == MCP_OK)
        rc = check_signature(key, segments, err);
    if (rc == MCP_OK)
        rc = parse(payload, &segments[1], segment_names[1], err);
    json_decref(header);
    return rc;
}

/* ---- making ------------------------------------------------------------------------- */

/* Append the object as a base64url segment; *used is how far `token` is written. */
static int put_json(char *token, size_t cap, size_t *used, const json_t *object, mcp_error *err)
{
    char   text[PART_BYTES];
    size_t bytes = json_dumpb(object, text, sizeof(text), JSON_COMPACT);

    if (bytes == 0)
        return base_fail(err, MCP_ENOMEM, "out of memory for a token");
    if (bytes > sizeof(text) || *used + guard_base64_chars(bytes) >= cap)
        return base_fail(err, MCP_ERANGE, "the token is longer than the %zu bytes that it may have",
                         cap - 1);
    guard_base64_encode(token + *used, (const uint8_t *)text, bytes);
    *used += guard_base64_chars(bytes);
    return MCP_OK;
}

int guard_jws_make(char *token, size_t cap, const json_t *payload, EVP_PKEY *key, const char *id,
                   mcp_error *err)
{
    char    made[GUARD_TOKEN_BYTES + 1];
    uint8_t signature[GUARD_SIGNATURE_BYTES];
    size_t  used = 0, room = cap < sizeof(made) ? cap : sizeof(made);
    json_t *header = json_pack("{s:s, s:s, s:s}", "alg", guard_key_algorithm(key), "typ", "at+jwt",
                               "kid", id);
    int     rc;

    if (header == NULL)
        return base_fail(err, MCP_ENOMEM, "out of memory for a token");
    rc = put_json(made, room, &used, header, err);
    if (rc < 0)
        goto out;
    made[used++] = '.';
    rc = put_json(made, room, &used, payload, err);
    if (rc < 0)
        goto out;
    rc = guard_key_sign(key, made, used, signature, err);
    if (rc < 0)
        goto out;
    if (used + 1 + guard_base64_chars(sizeof(signature)) >= room) {
        rc = base_fail(err, MCP_ERANGE, "the token is longer than the %zu bytes that it may have",
                       room - 1);
        goto out;
    }
    made[used++] = '.';
    guard_base64_encode(made + used, signature, sizeof(signature));
    memcpy(token, made, used + guard_base64_chars(sizeof(signature)) + 1);
out:
    json_decref(header);
    return rc;
}
