/* guard/token.c - see token.h: the rules about a token's claims.
 *
 * The envelope (jws.c) has been opened by a known key before anything here looks at a claim.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/token.h"

#include "base/fail.h"
#include "guard/base64.h"
#include "guard/claims.h"
#include "guard/json.h"
#include "guard/jws.h"
#include "guard/lists.h"

#include <inttypes.h>
#include <openssl/crypto.h>
#include <string.h>

enum { DIGEST_BYTES = 32, DIGEST_CHARS = 43 /* in base64url */ };

/* 9999-12-31: beyond it, and below zero, a time is a mistake or an attack on arithmetic. */
static const int64_t time_max_s = INT64_C(253402300799);

/* ---- who and for whom --------------------------------------------------------------- */

static int check_issuer(const json_t *claims, const struct guard_keyring *ring, mcp_error *err)
{
    const char *issuer = guard_json_text(claims, "iss");

    if (ring->authority[0] == '\0')
        return guard_refuse(err, "this keys folder has no ca.pem to say which authority counts");
    if (issuer == NULL || strcmp(issuer, ring->authority) != 0)
        return guard_refuse(err, "its iss is not %s, the authority of this keys folder",
                            ring->authority);
    return MCP_OK;
}

static bool is_meant(const json_t *value, const struct guard_keyring *ring, const char *audience)
{
    const char *text = json_string_value(value);

    return text != NULL && (strcmp(text, audience) == 0 || strcmp(text, ring->authority) == 0);
}

static int check_audience(const json_t *claims, const struct guard_keyring *ring,
                          const char *audience, mcp_error *err)
{
    const json_t *value = json_object_get(claims, "aud");
    bool          meant = is_meant(value, ring, audience);

    if (json_array_size(value) > GUARD_AUDIENCES_MAX)
        return guard_refuse(err, "its aud has %zu entries, at most %d are accepted",
                            json_array_size(value), GUARD_AUDIENCES_MAX);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *entry = json_array_get(value, i);

        if (!json_is_string(entry))
            return guard_refuse(err, "its aud has an entry that is no text");
        meant = meant || is_meant(entry, ring, audience);
    }
    return meant ? MCP_OK
                 : guard_refuse(err, "its aud is not this worker (%s), nor %s", audience,
                                ring->authority);
}

static int take_names(const json_t *claims, struct guard_grant *grant, mcp_error *err)
{
    const char *subject = guard_json_text(claims, "sub"), *jti = guard_json_text(claims, "jti");

    if (subject == NULL || !guard_is_subject(subject))
        return guard_refuse(err, "its sub is not 1 to %d bytes of text without control characters",
                            GUARD_SUBJECT_BYTES - 1);
    if (jti == NULL || !guard_is_jti(jti))
        return guard_refuse(err, "its jti is not 1 to %d printable characters",
                            GUARD_JTI_BYTES - 1);
    strcpy(grant->subject, subject);
    strcpy(grant->jti, jti);
    return MCP_OK;
}

/* RFC 8705: the token is worth something only in the hands of the certificate's holder. */
static int check_binding(const json_t *claims, const uint8_t cert_sha256[DIGEST_BYTES],
                         mcp_error *err)
{
    const char *text = guard_json_text(json_object_get(claims, "cnf"), "x5t#S256");
    uint8_t     digest[DIGEST_BYTES];

    if (text == NULL || strlen(text) != DIGEST_CHARS ||
        !guard_base64_decode(digest, text, DIGEST_CHARS))
        return guard_refuse(err, "its cnf has no x5t#S256, the certificate that it belongs to");
    if (CRYPTO_memcmp(digest, cert_sha256, DIGEST_BYTES) != 0)
        return guard_refuse(err, "it belongs to another client certificate than the one presented");
    return MCP_OK;
}

/* ---- when --------------------------------------------------------------------------- */

/* A whole number of seconds.  Missing is refused when `required`, else leaves *out alone. */
static int take_time(const json_t *claims, const char *name, bool required, int64_t *out,
                     mcp_error *err)
{
    const json_t *value = json_object_get(claims, name);

    if (value == NULL && !required)
        return MCP_OK;
    if (!json_is_integer(value))
        return guard_refuse(err, "its %s is not a whole number of seconds", name);
    if (json_integer_value(value) <= 0 || json_integer_value(value) > time_max_s)
        return guard_refuse(err, "its %s is outside 1..%" PRId64, name, time_max_s);
    *out = json_integer_value(value);
    return MCP_OK;
}

static int check_times(const json_t *claims, int64_t now_s, struct guard_grant *grant,
                       mcp_error *err)
{
    int64_t issued = 0, begins = 0, expires = 0;
    int     rc = take_time(claims, "iat", true, &issued, err);

    if (rc == MCP_OK)
        rc = take_time(claims, "exp", true, &expires, err);
    if (rc == MCP_OK)
        rc = take_time(claims, "nbf", false, &begins, err);
    if (rc < 0)
        return rc;
    if (expires <= issued || expires - issued > GUARD_LIFETIME_S)
        return guard_refuse(err,
                            "it is made to live %" PRId64 " s (exp - iat), allowed are 1 to %d",
                            expires - issued, GUARD_LIFETIME_S);
    if (issued > now_s + GUARD_SKEW_S || begins > now_s + GUARD_SKEW_S)
        return guard_refuse(err,
                            "it is not valid before %" PRId64 " s from now; clocks may differ by "
                            "%d s",
                            (issued > begins ? issued : begins) - now_s, GUARD_SKEW_S);
    if (now_s >= expires + GUARD_SKEW_S)
        return guard_refuse(err, "it expired %" PRId64 " s ago; clocks may differ by %d s",
                            now_s - expires, GUARD_SKEW_S);
    grant->expires_s = expires;
    return MCP_OK;
}

/* ---- what --------------------------------------------------------------------------- */

static int take_model(const json_t *claims, struct guard_grant *grant, mcp_error *err)
{
    const json_t *value = json_object_get(claims, "model");
    const char   *text = json_string_value(value);

    grant->any_model = value == NULL;
    if (value != NULL && (text == NULL || !guard_model_parse(text, grant->model)))
        return guard_refuse(err, "its model is not a fingerprint: 64 hex digits in lower case");
    return MCP_OK;
}

static int take_layers(const json_t *claims, struct guard_grant *grant, mcp_error *err)
{
    const json_t *value = json_object_get(claims, "layers");
    const json_t *first = json_array_get(value, 0), *last = json_array_get(value, 1);

    if (value == NULL)
        return MCP_OK;
    if (json_array_size(value) != 2 || !json_is_integer(first) || !json_is_integer(last) ||
        json_integer_value(first) < 0 || json_integer_value(last) <= json_integer_value(first) ||
        json_integer_value(last) > GUARD_LAYERS_MAX)
        return guard_refuse(err, "its layers are not [first, last] with 0 <= first < last <= %d",
                            GUARD_LAYERS_MAX);
    grant->first = (uint32_t)json_integer_value(first);
    grant->last = (uint32_t)json_integer_value(last);
    return MCP_OK;
}

static int take_rate(const json_t *claims, struct guard_grant *grant, mcp_error *err)
{
    const json_t *value = json_object_get(claims, "rate");

    if (value == NULL)
        return MCP_OK;
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > UINT32_MAX)
        return guard_refuse(err, "its rate is not a whole number of tokens a minute in 0..%u",
                            UINT32_MAX);
    grant->tokens_per_minute = (uint32_t)json_integer_value(value);
    return MCP_OK;
}

static int take_rights(const json_t *claims, struct guard_grant *grant, mcp_error *err)
{
    const char   *scope = guard_json_text(claims, "scope");
    const json_t *priority = json_object_get(claims, "priority");
    uint32_t      unknown;
    int class = GUARD_BATCH, rc;

    if (scope == NULL || !guard_scope_parse(scope, &grant->scopes, &unknown))
        return guard_refuse(err, "its scope is not words with one blank between them");
    if (priority != NULL)
        class = json_is_string(priority) ? guard_priority_parse(json_string_value(priority)) : -1;
    if (class < 0)
        return guard_refuse(err, "its priority is not batch, normal or realtime");
    grant->priority = (enum guard_priority) class;
    rc = take_model(claims, grant, err);
    if (rc == MCP_OK)
        rc = take_layers(claims, grant, err);
    if (rc == MCP_OK)
        rc = take_rate(claims, grant, err);
    return rc;
}

/* ---- all of it ---------------------------------------------------------------------- */

int guard_token_verify(const struct guard_keyring *ring, const char *token, size_t bytes,
                       const uint8_t cert_sha256[32], const char *audience, int64_t now_s,
                       struct guard_grant *grant, mcp_error *err)
{
    struct guard_grant own = { 0 };
    json_t            *claims;
    int                rc = guard_jws_open(&claims, ring, token, bytes, err);

    if (rc < 0)
        return rc;
    rc = check_issuer(claims, ring, err);
    if (rc == MCP_OK)
        rc = check_audience(claims, ring, audience, err);
    if (rc == MCP_OK)
        rc = check_times(claims, now_s, &own, err);
    if (rc == MCP_OK)
        rc = take_names(claims, &own, err);
    if (rc == MCP_OK && guard_keyring_token_revoked(ring, own.jti))
        rc = guard_refuse(err, "it was revoked (jti %s)", own.jti);
    if (rc == MCP_OK)
        rc = check_binding(claims, cert_sha256, err);
    if (rc == MCP_OK)
        rc = take_rights(claims, &own, err);
    json_decref(claims);
    if (rc == MCP_OK)
        *grant = own;
    return rc;
}
